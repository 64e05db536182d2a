"""Elements that share a process, under a supervisor: each comes to its own end, whatever dies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psutil
import pytest

from muster.backends import local
from muster.backends.local import LocalBackend
from muster.backends.slots import SlotFolder
from muster.jobs.supervision.retry import BackOff
from muster.jobs.supervision.supervisor import Supervisor
from muster.model.logs import locate_log
from muster.model.resources import Resources
from muster.store import batches, claims, runs
from tests.batches import add_steps_to_path, make_batch, store_batch

if TYPE_CHECKING:
    from muster.jobs.supervision.batch_end import BatchEnd
    from muster.model.batch import Batch
    from muster.store.database import Database

pytestmark = pytest.mark.slow

QUICK = BackOff(first_s=0.01, longest_s=0.02)


@pytest.fixture(autouse=True)
def _steps(monkeypatch: pytest.MonkeyPatch) -> None:
    add_steps_to_path(monkeypatch)


def supervise(db: Database, batch_id: str) -> BatchEnd:
    claim = claims.take_claim(db, batch_id)
    return asyncio.run(Supervisor(db, LocalBackend(), claim, back_off=QUICK).run())


def outcomes(db: Database, batch_id: str) -> list[list[str]]:
    return [
        [str(a.outcome) for a in element.attempts]
        for element in batches.read_elements(db, batch_id)
    ]


def pids(db: Database) -> list[int]:
    """The processes that the elements say they ran in."""
    with db.transaction() as cursor:
        cursor.execute(
            "SELECT (facts->>'pid')::int FROM attempt WHERE outcome = 'succeeded' ORDER BY id"
        )
        return [row[0] for row in cursor.fetchall()]


@pytest.mark.parametrize("layout", [None, 2])
def test_waiting_elements_are_handed_to_as_many_processes_as_the_pool_has_slots(
    db: Database, tmp_path: Path, layout: Literal[2] | None
) -> None:
    wishes: list[dict[str, Any]] = [{"acts": []} for _ in range(12)]
    wishes[3] = {"acts": ["invalid"]}
    batch = make_batch(tmp_path, wishes, step="test.stay", slots=2, layout=layout)
    end = supervise(db, store_batch(db, batch).id)
    states = ["succeeded"] * 12
    states[3] = "invalid_input"
    assert [e.state for e in end.elements] == states
    assert len(set(pids(db))) == 2
    for element in batch.elements:
        (_, _, _, uri), *more = runs.read_log_uris(db, "run", element.name)
        said = locate_log(uri).read().decode()
        assert not more
        assert f"element {element.index} says" in said
        assert said.count("says") == 1
    logs = [p for p in Path(batch.work_uri, "logs").rglob("*.log") if p.stat().st_size]
    assert len(logs) == (2 if layout else 12)


def test_what_ends_a_process_is_charged_to_one_element(db: Database, tmp_path: Path) -> None:
    wishes: list[dict[str, Any]] = [{"acts": []} for _ in range(5)]
    wishes[1] = {"acts": ["crash"]}
    batch = make_batch(
        tmp_path,
        wishes,
        step="test.stay",
        slots=1,
        resources=Resources(memory_mib=500, time_limit_s=60),
    )
    supervise(db, store_batch(db, batch).id)
    assert outcomes(db, batch.id) == [
        ["succeeded"], ["software_error"] * 2, ["succeeded"], ["succeeded"], ["succeeded"],
    ]  # fmt: skip


def test_what_has_not_begun_goes_on_in_the_next_wave_and_costs_nothing(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job whose walltime ends soon, as Slurm says it; the next ones have time again."""
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 18))
    wishes: list[dict[str, Any]] = [{"acts": [], "seconds": 0.7} for _ in range(8)]
    batch = make_batch(tmp_path, wishes, step="test.stay", slots=1)

    async def scenario() -> BatchEnd:
        claim = claims.take_claim(db, batch.id)
        task = asyncio.create_task(Supervisor(db, LocalBackend(), claim, back_off=QUICK).run())
        while not any("not_begun" in found for found in outcomes(db, batch.id)):
            await asyncio.sleep(0.05)
        monkeypatch.delenv("SLURM_JOB_END_TIME")
        return await task

    store_batch(db, batch)
    assert asyncio.run(scenario()).succeeded
    found = outcomes(db, batch.id)
    assert found[0] == ["succeeded"]
    assert found[-1][0] == "not_begun"
    assert {o for attempts in found for o in attempts} == {"succeeded", "not_begun"}
    assert all(attempts.count("succeeded") == 1 for attempts in found)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.thorough), 3])
def test_kills_of_runners_and_their_processes_at_any_moment_lose_and_double_nothing(
    db: Database, tmp_path: Path, seed: int
) -> None:
    drawn = random.Random(seed)
    wishes: list[dict[str, Any]] = [{"acts": [], "seconds": 0.05} for _ in range(30)]
    batch = store_batch(db, make_batch(tmp_path, wishes, step="test.stay", slots=2))
    over = threading.Event()
    killed: list[int] = []

    def kill() -> None:
        while len(killed) < 3 and not over.wait(drawn.uniform(0.2, 0.7)):
            family = processes_of(batch)
            if family:
                victim = drawn.choice(family)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
                    killed.append(victim)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        end = supervise(db, batch.id)
    finally:
        over.set()
        killer.join()
    assert killed
    assert end.succeeded
    found = [outcome for attempts in outcomes(db, batch.id) for outcome in attempts]
    assert found.count("succeeded") == 30
    assert set(found) <= {"succeeded", "transient", "lost"}
    assert len(found) <= 30 + 2 * len(killed), "charged to what ran"
    products = sorted(path.name for path in (tmp_path / "products").iterdir())
    assert products == sorted(f"b-{index}.txt" for index in range(30)), "no temporary"
    assert processes_of(batch) == []


def processes_of(batch: Batch) -> list[int]:
    """Find runners and the processes of their steps, behind the backend's back."""
    found = []
    for process in psutil.process_iter():
        try:
            mine = process.environ().get("MUSTER_WORK") == batch.work_uri
            if mine and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def test_a_runner_gives_its_slot_up_where_another_process_waits(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "TURN_S", 0.0)
    wishes: list[dict[str, Any]] = [{"acts": []} for _ in range(4)]
    batch = store_batch(db, make_batch(tmp_path, wishes, step="test.stay", slots=1))
    other = SlotFolder(Path(batch.pool_uri), 1)
    other.wait_openly(waiting=True)
    try:
        assert supervise(db, batch.id).succeeded
    finally:
        other.wait_openly(waiting=False)
    assert len(set(pids(db))) == 4, "each element had its turn"


def test_only_others_are_told_to_wait(tmp_path: Path) -> None:
    one, other = SlotFolder(tmp_path, 1), SlotFolder(tmp_path, 1)
    one.wait_openly(waiting=True)
    assert not one.others_wait()
    assert other.others_wait()
    one.wait_openly(waiting=False)
    assert not other.others_wait()
