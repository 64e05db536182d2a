"""A batch from its first wave to its end: real store, real processes, planted faults."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from muster import storage
from muster.backends.local import LocalBackend
from muster.errors import ClaimLost
from muster.jobs.supervision.retry import BackOff
from muster.jobs.supervision.supervisor import Supervisor
from muster.model.fence import read_fence, write_fences
from muster.model.resources import Caps, Resources
from muster.model.wave import Wave
from muster.store import batches, claims
from muster.store.database import Database
from tests.batches import add_steps_to_path, make_batch, store_batch

if TYPE_CHECKING:
    from muster.jobs.supervision.batch_end import BatchEnd
    from muster.model.batch import Batch

pytestmark = pytest.mark.slow

QUICK = BackOff(first_s=0.01, longest_s=0.02)


@pytest.fixture(autouse=True)
def _steps(monkeypatch: pytest.MonkeyPatch) -> None:
    add_steps_to_path(monkeypatch)


def supervise(db: Database, batch_id: str, *, fresh: bool = False) -> BatchEnd:
    claim = claims.take_claim(db, batch_id, fresh=fresh)
    return asyncio.run(Supervisor(db, LocalBackend(), claim, back_off=QUICK).run())


def outcomes(db: Database, batch_id: str) -> list[list[str]]:
    return [
        [str(a.outcome) for a in element.attempts]
        for element in batches.read_elements(db, batch_id)
    ]


def test_every_element_runs_once_and_its_file_is_recorded(db: Database, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    batch = store_batch(
        db, make_batch(tmp_path, [{"text": f"t{i}", "ledger": str(ledger)} for i in range(5)])
    )
    end = supervise(db, batch.id)
    assert end.succeeded
    assert sorted(ledger.read_text().split("\n")[:-1]) == [f"done t{i}" for i in range(5)]
    with db.transaction() as cursor:
        cursor.execute("SELECT uri, bytes, sha256 FROM artifact ORDER BY uri")
        made = cursor.fetchall()
    assert [Path(uri).read_text() for uri, _, _ in made] == [f"t{i}" for i in range(5)]
    assert all(size == 2 for _, size, _ in made)


def test_a_batch_that_has_succeeded_runs_nothing_again(db: Database, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    batch = store_batch(db, make_batch(tmp_path, [{"text": "a", "ledger": str(ledger)}]))
    supervise(db, batch.id)
    assert supervise(db, batch.id, fresh=True).succeeded
    assert ledger.read_text() == "done a\n"


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("invalid", ["invalid_input"]),
        ("missing", ["missing_input"]),
        ("transient", ["transient"] * 4),
        ("raise", ["software_error"] * 2),
        ("exit", ["software_error"] * 2),
        ("crash", ["software_error"] * 2),
        ("kill", ["transient"] * 4),
        ("silent", ["software_error"] * 2),
    ],
)
def test_each_failure_has_its_outcome_and_its_budget(
    db: Database, tmp_path: Path, how: str, expected: list[str]
) -> None:
    ledger = tmp_path / "ledger"
    batch = make_batch(
        tmp_path, [{"how": how, "ledger": str(ledger)}], step="test.misbehave", name=how
    )
    end = supervise(db, store_batch(db, batch).id)
    assert outcomes(db, batch.id) == [expected]
    assert end.elements[0].state == expected[-1]
    assert end.elements[0].message
    assert "\n" not in end.elements[0].message
    assert not list((tmp_path / "products").glob("*")), "nothing half-made may be left"


def test_a_failing_element_leaves_the_others_alone(db: Database, tmp_path: Path) -> None:
    ledger = str(tmp_path / "ledger")
    wish = [{"how": how, "ledger": ledger} for how in ("invalid", "fine", "transient")]
    batch = store_batch(db, make_batch(tmp_path, wish, step="test.misbehave"))
    assert [e.state for e in supervise(db, batch.id).elements] == [
        "invalid_input",
        "succeeded",
        "transient",
    ]


def test_a_transient_failure_is_overcome(db: Database, tmp_path: Path) -> None:
    inputs = {"how": "transient", "ledger": str(tmp_path / "ledger"), "times": 2}
    batch = store_batch(db, make_batch(tmp_path, [inputs], step="test.misbehave"))
    assert supervise(db, batch.id).succeeded
    assert outcomes(db, batch.id) == [["transient", "transient", "succeeded"]]


def test_memory_grows_to_the_cap_and_no_further(db: Database, tmp_path: Path) -> None:
    batch = make_batch(
        tmp_path,
        [{"how": "eat", "ledger": str(tmp_path / "ledger")}],
        step="test.misbehave",
        resources=Resources(memory_mib=100),
        caps=Caps(memory_mib=200),
    )
    end = supervise(db, store_batch(db, batch).id)
    asked = [a.resources.memory_mib for a in batches.read_elements(db, batch.id)[0].attempts]
    assert asked == [100, 150, 200]
    assert end.elements[0].state == "out_of_memory"
    assert "limit: 200 MiB" in (end.elements[0].message or "")


def test_time_grows_to_the_cap_and_no_further(db: Database, tmp_path: Path) -> None:
    batch = make_batch(
        tmp_path,
        [{"how": "sleep", "ledger": str(tmp_path / "ledger")}],
        step="test.misbehave",
        resources=Resources(time_limit_s=1),
        caps=Caps(time_limit_s=2),
    )
    end = supervise(db, store_batch(db, batch).id)
    assert outcomes(db, batch.id) == [["timed_out", "timed_out"]]
    assert end.elements[0].state == "timed_out"


def test_a_new_generation_has_a_new_budget_for_what_is_missing_only(
    db: Database, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    wish = [{"how": how, "ledger": str(ledger), "times": 1} for how in ("fine", "invalid")]
    batch = store_batch(db, make_batch(tmp_path, wish, step="test.misbehave"))
    assert not supervise(db, batch.id).succeeded
    assert not supervise(db, batch.id).succeeded, "the same generation has no budget left"
    assert outcomes(db, batch.id) == [["succeeded"], ["invalid_input"]]
    assert supervise(db, batch.id, fresh=True).succeeded
    assert outcomes(db, batch.id) == [["succeeded"], ["invalid_input", "succeeded"]]
    assert ledger.read_text().count("fine") == 1


def test_the_deadline_ends_what_runs(db: Database, tmp_path: Path) -> None:
    batch = make_batch(
        tmp_path,
        [{"how": "sleep", "ledger": str(tmp_path / "ledger")}],
        step="test.misbehave",
        deadline_s=2,
    )
    end = supervise(db, store_batch(db, batch).id)
    assert (end.elements[0].state, outcomes(db, batch.id)) == ("timed_out", [["timed_out"]])
    assert "deadline of 2 s" in (end.elements[0].message or "")
    assert not processes_of(batch)


def test_a_cancelled_batch_leaves_no_process_and_stays_cancelled(
    db: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wish = [{"how": "sleep", "ledger": str(tmp_path / "ledger")}] * 3
    batch = store_batch(db, make_batch(tmp_path, wish, step="test.misbehave", slots=1))

    async def scenario() -> BatchEnd:
        claim = claims.take_claim(db, batch.id)
        supervisor = Supervisor(db, LocalBackend(), claim, back_off=QUICK)
        task = asyncio.create_task(supervisor.run())
        while not (tmp_path / "ledger").exists():
            await asyncio.sleep(0.05)
        task.cancel()
        return await supervisor.cancel("person")

    end = asyncio.run(scenario())
    assert {e.state for e in end.elements} == {"cancelled"}
    assert not processes_of(batch)
    assert not [r for r in caplog.records if r.levelname == "WARNING"], "it was asked for"
    assert {e.state for e in supervise(db, batch.id).elements} == {"cancelled"}


def test_who_lost_the_claim_writes_and_cancels_nothing(db: Database, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    inputs = {"text": "a", "ledger": str(ledger), "seconds": 3.0}
    batch = store_batch(db, make_batch(tmp_path, [inputs]))

    async def scenario() -> None:
        backend = LocalBackend()
        old = Supervisor(db, backend, claims.take_claim(db, batch.id), back_off=QUICK)
        task = asyncio.create_task(old.run())
        while not processes_of(batch):
            await asyncio.sleep(0.05)
        new = Supervisor(db, backend, claims.take_claim(db, batch.id), back_off=QUICK)
        with pytest.raises(ClaimLost):
            await old.cancel("kill")
        with pytest.raises(ClaimLost):
            await task
        assert processes_of(batch), "the loser must not cancel"
        assert (await new.run()).succeeded

    asyncio.run(scenario())
    assert ledger.read_text() == "done a\n"
    assert outcomes(db, batch.id) == [["succeeded"]]


SUPERVISOR = """
import asyncio, sys
from muster.model.wave import Wave
from muster.backends.local import LocalBackend
from muster.jobs.supervision.retry import BackOff
from muster.jobs.supervision.supervisor import Supervisor
from muster.store import batches, claims
from muster.store.database import Database
db = Database(sys.argv[1])
claim = claims.take_claim(db, sys.argv[2])
print(asyncio.run(Supervisor(db, LocalBackend(), claim, back_off=BackOff(0.01, 0.02)).run()))
"""


@pytest.mark.parametrize("moment_s", [0.0, 0.3, 0.8, 1.4, 2.2])
def test_a_killed_supervisor_is_followed_by_one_that_finishes(
    db: Database, tmp_path: Path, moment_s: float
) -> None:
    """At any moment: nothing that ended runs again, nothing is lost, nothing is left over."""
    ledger = tmp_path / "ledger"
    wish = [{"text": f"t{i}", "ledger": str(ledger), "seconds": 0.4} for i in range(4)]
    batch = store_batch(db, make_batch(tmp_path, wish, slots=2))
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, db.url, batch.id], stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 30
    while not batches.read_elements(db, batch.id)[0].attempts and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(moment_s)
    process.send_signal(signal.SIGKILL)
    process.wait()
    # What was killed between its last output and its result is lost, and made again, the same.
    ended = [i for i in range(4) if storage.exists(batch.result_uri(i, 1))]
    products = {i: Path(batch.elements[i].outputs["out"]) for i in range(4)}
    published = {i: products[i].stat().st_mtime_ns for i in ended}
    assert supervise(db, batch.id).succeeded
    assert {i: products[i].stat().st_mtime_ns for i in ended} == published
    assert sorted(products.values()) == sorted((tmp_path / "products").iterdir()), "no temporary"
    with db.transaction() as cursor:
        cursor.execute("SELECT count(*) FROM attempt WHERE outcome = 'succeeded'")
        assert cursor.fetchone() == (4,)
    assert not processes_of(batch)


@pytest.mark.parametrize("victim", ["runner", "step"])
def test_a_killed_process_is_tried_again(db: Database, tmp_path: Path, victim: str) -> None:
    ledger = tmp_path / "ledger"
    batch = store_batch(
        db, make_batch(tmp_path, [{"text": "a", "ledger": str(ledger), "seconds": 1.0}])
    )

    async def scenario() -> BatchEnd:
        claim = claims.take_claim(db, batch.id)
        task = asyncio.create_task(Supervisor(db, LocalBackend(), claim, back_off=QUICK).run())
        pid = None
        while pid is None:
            await asyncio.sleep(0.05)
            pid = next(iter(processes_of(batch)), None)
            if pid and victim == "step":
                below = psutil.Process(pid).children()
                pid = below[0].pid if below else None
        os.kill(pid, signal.SIGKILL)
        return await task

    assert asyncio.run(scenario()).succeeded
    assert outcomes(db, batch.id) == [["transient", "succeeded"]]
    assert ledger.read_text() == "done a\n"


def test_two_batches_share_the_slots_of_their_pool(db: Database, tmp_path: Path) -> None:
    """Two batches, two processes of their own, one slot: at no time do two elements run."""
    made = [
        store_batch(
            db, make_batch(tmp_path, [{"text": "a", "seconds": 0.5}] * 2, name=name, slots=1)
        )
        for name in ("b1", "b2")
    ]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SUPERVISOR, db.url, batch.id], stdout=subprocess.DEVNULL
        )
        for batch in made
    ]
    for process in processes:
        assert process.wait(60) == 0
    with db.transaction() as cursor:
        cursor.execute(
            "SELECT started_at, started_at + make_interval(secs => seconds) FROM attempt"
            " ORDER BY started_at"
        )
        spans = cursor.fetchall()
    assert len(spans) == 4
    for (_, ended), (started, _) in itertools.pairwise(spans):
        assert started >= ended


def processes_of(batch: Batch) -> list[int]:
    """Find the runners that work for a batch, behind the backend's back."""
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            mine = environment.get("MUSTER_WORK") == batch.work_uri
            if mine and "MUSTER_ROLE" not in environment and process.status() != "zombie":
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def test_what_a_replaced_supervisor_intended_is_tried_under_another_key(
    db: Database, tmp_path: Path
) -> None:
    """It may be submitting at this very moment: its job, should it come, finds another's fence."""
    batch = store_batch(db, make_batch(tmp_path, [{"text": "a"}]))
    replaced = claims.take_claim(db, batch.id)
    element = batches.read_batch(db, replaced).elements[0]
    intended = {element.id: (1, Resources(), batch.log_uri(0, 1))}
    _, key = batches.intend_submission(db, replaced, intended)
    assert supervise(db, batch.id).succeeded
    assert outcomes(db, batch.id) == [["superseded", "succeeded"]]
    fence = read_fence(batch, 0)
    assert fence is not None
    assert fence.submission != key


def test_a_runner_that_cannot_start_is_a_transient_failure(db: Database, tmp_path: Path) -> None:
    batch = store_batch(db, make_batch(tmp_path, [{"text": "a"}, {"text": "b"}]))
    Path(batch.log_uri(0, 1)).mkdir(parents=True)  # where the log should be
    end = supervise(db, batch.id)
    assert [e.state == "succeeded" for e in end.elements] == [False, True]
    assert outcomes(db, batch.id)[0][0] in {"transient", "invalid_input", "software_error"}


def test_what_was_submitted_and_not_recorded_is_found_again(db: Database, tmp_path: Path) -> None:
    """Killed between the two: the next one looks the key up, and submits nothing."""
    ledger = tmp_path / "ledger"
    wish = {"text": "a", "ledger": str(ledger), "seconds": 1.0}
    batch = store_batch(db, make_batch(tmp_path, [wish]))

    async def scenario() -> BatchEnd:
        backend = LocalBackend()
        replaced = claims.take_claim(db, batch.id)
        element = batches.read_batch(db, replaced).elements[0]
        intended = {element.id: (1, Resources(), batch.log_uri(0, 1))}
        _, key = batches.intend_submission(db, replaced, intended)
        wave = Wave(batch, key, {0: 1}, Resources())
        write_fences(wave)
        await backend.submit(wave)
        claim = claims.take_claim(db, batch.id)
        return await Supervisor(db, backend, claim, back_off=QUICK).run()

    assert asyncio.run(scenario()).succeeded
    assert outcomes(db, batch.id) == [["succeeded"]]
    assert ledger.read_text() == "done a\n"


def test_the_store_goes_away_and_comes_back(db: Database, tmp_path: Path) -> None:
    wish = {"text": "a", "ledger": str(tmp_path / "ledger"), "seconds": 2.0}
    batch = store_batch(db, make_batch(tmp_path, [wish]))
    watcher = Database(db.url)

    async def scenario() -> BatchEnd:
        claim = claims.take_claim(db, batch.id)
        task = asyncio.create_task(Supervisor(db, LocalBackend(), claim, back_off=QUICK).run())
        for _ in range(5):
            await asyncio.sleep(0.4)
            with watcher.transaction() as cursor:
                cursor.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
        return await task

    assert asyncio.run(scenario()).succeeded
    watcher.close()
    assert outcomes(db, batch.id) == [["succeeded"]]
    assert (tmp_path / "ledger").read_text() == "done a\n"


def test_a_batch_that_is_planned_anew_runs_what_is_new(db: Database, tmp_path: Path) -> None:
    store_batch(db, make_batch(tmp_path, [{"text": "old"}]))
    supervise(db, "run.b")
    batch = store_batch(db, make_batch(tmp_path, [{"text": "new"}]))
    assert supervise(db, batch.id).succeeded
    assert Path(batch.elements[0].outputs["out"]).read_text() == "new"


def test_an_unreadable_result_is_none_and_hides_no_other(db: Database, tmp_path: Path) -> None:
    batch = store_batch(db, make_batch(tmp_path, [{"text": "a"}, {"text": "b"}]))
    Path(batch.result_uri(0, 1)).mkdir(parents=True)
    end = supervise(db, batch.id)
    assert [e.state for e in end.elements] == ["invalid_input", "succeeded"]
