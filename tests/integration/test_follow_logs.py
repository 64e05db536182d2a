"""An element's output in its supervisor's log: each line once, whoever tells it, up to a bound."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from muster import storage
from muster.backends.local import LocalBackend
from muster.errors import StoreUnavailable
from muster.jobs.supervision.follow_logs import ATTEMPT_BYTES, LogFollower
from muster.store import batches, claims
from tests.batches import make_batch, store_batch

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from muster.model.batch import Batch
    from muster.store.database import Database
    from muster.store.records import Claim


def running_batch(db: Database, folder: Path) -> tuple[Batch, Claim]:
    """Make a batch whose only element runs."""
    batch = store_batch(db, make_batch(folder, [{"text": "a"}]))
    claim = claims.take_claim(db, batch.id)
    (element,) = batches.read_elements(db, batch.id)
    attempts = {element.id: (1, batch.resources, batch.log_uri(0, 1))}
    submission, _ = batches.intend_submission(db, claim, attempts)
    batches.record_submitted(db, claim, submission, "1")
    (element,) = batches.read_elements(db, batch.id)
    batches.record_running(db, claim, {element.attempts[0].id: None})
    return batch, claim


def follow(db: Database, claim: Claim, backend: LocalBackend | None = None) -> None:
    """Follow as a process does that knows nothing of those before it."""
    follower = LogFollower(db, claim, backend or LocalBackend())
    asyncio.run(follower.follow(batches.read_batch(db, claim), at_the_end=True))


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    prefix = "b-e0, attempt 1 | "
    return [m.removeprefix(prefix) for m in caplog.messages if m.startswith(prefix)]


def test_whoever_takes_over_goes_on_at_the_line_that_was_not_whole(
    db: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    batch, claim = running_batch(db, tmp_path)
    text = "".join(f"line {number}\n" for number in range(9))
    for end in (3, 10, 10, 31, len(text)):
        storage.write_text(batch.log_uri(0, 1), text[:end])
        follow(db, claim)
    assert told(caplog) == text.splitlines()


def test_a_flood_is_told_up_to_the_bound_and_where_the_rest_is(
    db: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    batch, claim = running_batch(db, tmp_path)
    whole = [f"{number}".ljust(99, ".") for number in range(1_000)]
    storage.write_text(batch.log_uri(0, 1), "\n".join(whole))
    follow(db, claim)  # what ends within one look is told by one
    lines = told(caplog)
    assert lines[-1] == f"… and more in {batch.log_uri(0, 1)}"
    assert "\n".join(lines[:-1]) == "\n".join(whole)[:ATTEMPT_BYTES]
    follow(db, claim)
    assert told(caplog) == lines, "once"


def test_a_log_that_cannot_be_read_is_one_line(
    db: Database,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, claim = running_batch(db, tmp_path)
    backend = LocalBackend()

    async def refuse(*_: object) -> bytes:
        raise StoreUnavailable("planted")

    monkeypatch.setattr(backend, "read_log", refuse)
    follower = LogFollower(db, claim, backend, every_s=0.0)
    record = batches.read_batch(db, claim)
    for _ in range(3):
        asyncio.run(follower.follow(record))
    assert len([m for m in caplog.messages if "not followed" in m]) == 1
