"""Progress from a step to the store: while it runs, forward only, and never at the batch's cost."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import pytest
from click.testing import CliRunner

from muster import storage
from muster.backends.local import LocalBackend
from muster.cli.store import status as status_command
from muster.errors import StoreUnavailable, Transient
from muster.jobs.supervision import follow_progress
from muster.jobs.supervision.follow_progress import ProgressFollower
from muster.jobs.supervision.retry import BackOff
from muster.jobs.supervision.supervisor import Supervisor
from muster.model.attempt import Progress
from muster.model.resources import Resources
from muster.store import batches, claims, runs
from muster.store.records import RunState
from tests.batches import add_steps_to_path, make_batch, store_batch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from muster.jobs.supervision.batch_end import BatchEnd
    from muster.model.batch import Batch
    from muster.store.database import Database
    from muster.store.runs import ElementStatus

EVERY_S = 0.05


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    add_steps_to_path(monkeypatch)
    monkeypatch.setenv("MUSTER_PROGRESS_EVERY_S", str(EVERY_S))


@asynccontextmanager
async def supervised(db: Database, batch: Batch) -> AsyncIterator[asyncio.Task[BatchEnd]]:
    claim = claims.take_claim(db, batch.id)
    back_off = BackOff(first_s=0.01, longest_s=0.02)
    supervisor = Supervisor(db, LocalBackend(), claim, back_off=back_off, progress_every_s=EVERY_S)
    task = asyncio.create_task(supervisor.run())
    try:
        yield task
    except BaseException:
        task.cancel()
        await supervisor.cancel("person")
        raise


async def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        await asyncio.sleep(0.05)


def status(db: Database, index: int = 0) -> ElementStatus:
    return runs.read_status(db, "run")[index]


def told_by_status(db: Database, *options: str) -> list[str]:
    """What `muster status run` prints, line by line."""
    ran = CliRunner().invoke(status_command, ["run", *options], env={"MUSTER_STORE_URL": db.url})
    assert ran.exit_code == 0, ran.output
    return ran.output.splitlines()


def reporting(folder: Path, fractions: list[float], **more: Any) -> Batch:
    inputs = {"fractions": fractions, "gates": str(folder / "gate"), **more}
    return make_batch(folder, [inputs], step="test.report")


def open_gates(folder: Path, *numbers: int) -> None:
    for number in numbers:
        (folder / f"gate{number}").touch()


def key_of(db: Database) -> str:
    with db.transaction() as cursor:
        cursor.execute("SELECT key FROM submission ORDER BY id DESC LIMIT 1")
        (key,) = cursor.fetchone() or ("",)
    return str(key)


def worker_word(key: str, fraction: float, **more: Any) -> str:
    """Say it as the worker of a batch does whose workers have a file each."""
    progress = json.loads(said(key, fraction, **more))
    names = {name: progress[name] for name in ("submission", "index", "attempt")}
    return json.dumps({**names, "log": None, "progress": progress})


def said(key: str, fraction: float, **more: Any) -> str:
    return Progress.model_validate(
        {
            "submission": key,
            "index": 0,
            "attempt": 1,
            "fraction": fraction,
            "message": f"at {fraction}",
            "left_s": None,
            "at": datetime.now(UTC),
            **more,
        }
    ).model_dump_json()


def test_the_store_shows_how_far_a_running_element_is(db: Database, tmp_path: Path) -> None:
    batch = store_batch(db, reporting(tmp_path, [0.25, 0.5], seconds=3.2))
    runs.record_plan(db, "run", [], {})

    async def scenario() -> None:
        async with supervised(db, batch) as task:
            await wait_for(lambda: status(db).progress == 0.25)
            first = status(db)
            assert (first.state, first.progress_message) == ("running", "window 1 of 2")
            open_gates(tmp_path, 1)
            await wait_for(lambda: status(db).progress == 0.5)
            second = status(db)
            assert second.progress_message == "window 2 of 2"
            for seen, least_s in ((first, 9.0), (second, 3.0)):
                assert seen.eta_at is not None
                assert seen.progress_at is not None
                left_s = (seen.eta_at - seen.progress_at).total_seconds()
                assert least_s <= left_s <= 60
            assert second.progress_at > first.progress_at
            shown = told_by_status(db)
            assert shown[0].startswith("run: planned: 0 of 1 done, 1 running, 0 waiting")
            assert re.search(
                r"b-e0 .* running .*  50 % · window 2 of 2( · \S.* left \(\d\d:\d\d:\d\dZ\))?$",
                shown[1],
            )
            document = json.loads("\n".join(told_by_status(db, "--json")))
            assert document["progress"]["running"] == 1
            assert document["elements"][0]["progress"] == 0.5
            assert document["elements"][0]["progress_message"] == "window 2 of 2"
            assert document["elements"][0]["eta_at"] == str(second.eta_at)
            open_gates(tmp_path, 2)
            assert (await task).succeeded

    asyncio.run(scenario())
    ended = status(db)
    assert (ended.state, ended.progress, ended.eta_at) == ("succeeded", 1.0, None)
    runs.end_run(db, "run", RunState.SUCCEEDED, "1 of 1 succeeded")
    shown = told_by_status(db)
    assert shown[0] == "run: succeeded: 1 of 1 succeeded"
    assert re.search(r"b-e0 .* succeeded .* s .* MiB  $", shown[1]), "as ever"


@pytest.mark.parametrize("layout", [None, 2])
def test_only_a_whole_word_of_this_very_submission_is_taken_and_only_forward(
    db: Database, tmp_path: Path, layout: Literal[2] | None
) -> None:
    """The step itself says nothing: every word here is planted."""
    inputs = {"how": "sleep", "ledger": str(tmp_path / "ledger")}
    batch = make_batch(tmp_path, [inputs], step="test.misbehave", layout=layout)
    store_batch(db, batch)
    uri = batch.progress_uri(0, 1)
    say = worker_word if layout else said

    async def scenario() -> None:
        storage.write_text(uri, say("run.b.w1.somebody", 0.9))
        async with supervised(db, batch) as task:
            await wait_for(lambda: status(db).state == "running")
            key = key_of(db)

            async def ignored(text: str, expected: float | None) -> None:
                storage.write_text(uri, text)
                await asyncio.sleep(0.8)
                assert status(db).progress == expected

            await ignored(say("run.b.w1.somebody", 0.8), None)
            await ignored(say(key, 0.8, attempt=2), None)
            await ignored(say(key, 0.8)[:-20], None)
            storage.write_text(uri, say(key, 0.4))
            await wait_for(lambda: status(db).progress == 0.4)
            for text in ("", "[]", "\0", say(key, 0.9).replace("0.9", "1.9")):
                await ignored(text, 0.4)
            await ignored(say(key, 0.3), 0.4)
            storage.delete(uri)
            await ignored(say(key, 0.7, at=datetime.now(UTC) - timedelta(hours=1)), 0.4)
            storage.write_text(uri, say(key, 0.5))
            await wait_for(lambda: status(db).progress == 0.5)
            claims.request_cancel(db, claims.Claim(batch.id, claim_of(db, batch)), "person")
            assert (await task).elements[0].state == "cancelled"
        assert (status(db).progress, status(db).eta_at) == (0.5, None)

    asyncio.run(scenario())


def claim_of(db: Database, batch: Batch) -> Any:
    with db.transaction() as cursor:
        cursor.execute("SELECT claim FROM batch WHERE id = %s", (batch.id,))
        return (cursor.fetchone() or (None,))[0]


def test_a_second_attempt_starts_from_nothing(db: Database, tmp_path: Path) -> None:
    """What the first attempt said is no word of the second, and stays with the first."""
    ledger = str(tmp_path / "ledger")
    inputs = {"how": "transient", "ledger": ledger, "times": 1}
    batch = store_batch(db, make_batch(tmp_path, [inputs], step="test.misbehave"))
    storage.write_text(batch.progress_uri(0, 1), said("key", 0.9))

    async def scenario() -> None:
        async with supervised(db, batch) as task:
            assert (await task).succeeded

    asyncio.run(scenario())
    with db.transaction() as cursor:
        cursor.execute("SELECT number, outcome, progress FROM attempt ORDER BY number")
        assert cursor.fetchall() == [(1, "transient", None), (2, "succeeded", 1.0)]


@pytest.mark.parametrize(
    ("place", "error"),
    [
        ("read_words_of", RuntimeError("planted")),
        ("record_progress", StoreUnavailable("planted")),
        ("record_progress", ValueError("planted")),
    ],
)
def test_what_goes_wrong_with_progress_is_no_business_of_the_batch(
    db: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    place: str,
    error: Exception,
) -> None:
    batch = store_batch(db, reporting(tmp_path, [0.5]))

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(follow_progress, place, fail)

    async def scenario() -> None:
        async with supervised(db, batch) as task:
            await wait_for(lambda: caplog.text.count("progress is not recorded") >= 2)
            open_gates(tmp_path, 1)
            assert (await task).succeeded

    asyncio.run(scenario())


def test_storage_that_hangs_holds_up_no_pass(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = store_batch(db, reporting(tmp_path, [0.5]))
    asked, release = threading.Event(), threading.Event()

    def hang(*_: object) -> None:
        asked.set()
        release.wait(60)

    monkeypatch.setattr(follow_progress, "read_words_of", hang)
    monkeypatch.setattr(follow_progress, "READ_PATIENCE_S", 0.1)

    async def scenario() -> None:
        async with supervised(db, batch) as task:
            await wait_for(asked.is_set)
            open_gates(tmp_path, 1)
            assert (await asyncio.wait_for(asyncio.shield(task), 30)).succeeded

    try:
        asyncio.run(scenario())
        assert not release.is_set()
    finally:
        release.set()


def test_many_are_read_a_few_at_once_and_not_at_every_pass(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = store_batch(db, make_batch(tmp_path, [{"text": "a"}] * 60, layout=None))
    claim = claims.take_claim(db, batch.id)
    elements = batches.read_elements(db, batch.id)
    _, key = batches.intend_submission(db, claim, {e.id: (1, Resources(), "log") for e in elements})
    record = batches.read_batch(db, claim)
    batches.record_running(db, claim, {e.attempts[0].id: "host" for e in record.elements[:50]})
    record = batches.read_batch(db, claim)
    lock, now, most, asked = threading.Lock(), [0], [0], []

    def slow(batch: Batch, running: Any) -> Progress:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
            asked.append(running.index)
        time.sleep(0.02)
        with lock:
            now[0] -= 1
        return Progress.model_validate_json(said(key, 0.5, index=running.index))

    monkeypatch.setattr(follow_progress, "read_progress", slow)

    async def scenario() -> None:
        follower = ProgressFollower(db, claim, every_s=3_600)
        for _ in range(5):
            await follower.follow(record)

    asyncio.run(scenario())
    assert sorted(asked) == list(range(50)), "what does not run is not asked for"
    assert 2 <= most[0] <= 8
    assert [e.progress for e in runs.read_status(db, "run")] == [0.5] * 50 + [None] * 10


def test_the_log_has_a_line_an_element_at_a_readable_rate(
    db: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A fraction grows for two minutes: told after a minute, and when ten points have passed."""
    caplog.set_level(logging.INFO, "muster.jobs.supervision.follow_progress")
    claim = claims.take_claim(db, store_batch(db, make_batch(tmp_path, [{"text": "a"}])).id)
    follower = ProgressFollower(db, claim)
    for second, fraction in [(0, 0.1), (30, 0.3), (60, 0.42), (90, 0.6), (125, 0.5), (130, 0.52)]:
        progress = Progress.model_validate_json(said("key", fraction, left_s=190.0))
        follower._tell("test.write a", 7, progress, 1_000.0 + second)
    assert caplog.messages == [
        "test.write a: 42 % at 0.42, 3 min 10 s left",
        "test.write a: 52 % at 0.52, 3 min 10 s left",
    ]


@pytest.mark.parametrize("text", ["", "{", "[]", "\0", '{"submission": "key"}'])
@pytest.mark.parametrize("layout", [None, 2])
def test_a_broken_file_is_no_progress_and_hides_no_other(
    tmp_path: Path, text: str, layout: Literal[2] | None
) -> None:
    batch = make_batch(tmp_path, [{"text": "a"}, {"text": "b"}], layout=layout)
    say = worker_word if layout else said
    storage.write_text(batch.progress_uri(0, 1), text)
    storage.write_text(batch.progress_uri(1, 1), say("key", 0.5, index=1))
    running = [follow_progress._Running(index, "a", index, 1, "key") for index in (0, 1)]
    first, second = asyncio.run(follow_progress._read_all(batch, running))
    assert first is None
    assert second is not None
    assert second.fraction == 0.5


def test_a_network_that_fails_is_no_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = make_batch(tmp_path, [{"text": "a"}], layout=None)
    asked = follow_progress._Running(1, "a", 0, 1, "key")
    storage.write_text(batch.progress_uri(0, 1), said("key", 0.5))
    found = follow_progress.read_progress(batch, asked)
    assert found is not None
    assert found.fraction == 0.5

    def fail(_: str) -> bytes:
        raise Transient("planted")

    monkeypatch.setattr(storage, "read_bytes", fail)
    assert follow_progress.read_progress(batch, asked) is None
