"""What a look says of a job, where its sources disagree."""

from __future__ import annotations

from datetime import UTC, datetime

from muster.backends.slurm.parse import JobRow
from muster.backends.slurm.queue_snapshot import QueueSnapshot, pack_snapshot, unpack_snapshot

AT = datetime(2026, 11, 21, tzinfo=UTC)


def row(state: str, *, job_id: int = 7, task: int | None = 0, node: str | None = "cpu1") -> JobRow:
    return JobRow("key", job_id, task, state, node=node, started_at=AT, ended_at=AT)


def state_of(seen: QueueSnapshot, task: int = 0, reference: str = "7") -> str | None:
    found = seen.row("key", reference, task)
    return found and found.state


def test_what_the_accounting_alone_calls_alive_is_not_there() -> None:
    seen = QueueSnapshot.of_rows(AT, [], [row("RUNNING"), row("PENDING", task=1, node=None)])
    assert state_of(seen) is None
    assert state_of(seen, 1) is None
    assert not seen.knows("key", "7")


def test_a_list_of_cancelled_tasks_does_not_hide_how_one_of_them_ended() -> None:
    others = [row("COMPLETED"), row("CANCELLED", node=None), row("CANCELLED", task=1, node=None)]
    seen = QueueSnapshot.of_rows(AT, [], others)
    assert (state_of(seen), state_of(seen, 1)) == ("COMPLETED", "CANCELLED")


def test_a_twin_that_ended_at_once_does_not_hide_the_other() -> None:
    seen = QueueSnapshot.of_rows(AT, [row("COMPLETED"), row("RUNNING", job_id=8)])
    assert state_of(seen) == "RUNNING"
    seen = QueueSnapshot.of_rows(AT, [row("FAILED", job_id=8), row("COMPLETED")])
    assert state_of(seen) == "FAILED"


def test_a_note_of_a_refusal_is_no_twin() -> None:
    refused = JobRow("key", 8, None, "FAILED", reason="BadConstraints")
    assert state_of(QueueSnapshot.of_rows(AT, [row("COMPLETED"), refused])) == "COMPLETED"


def test_a_look_is_handed_on_as_it_was() -> None:
    seen = QueueSnapshot.of_rows(
        AT, [row("RUNNING")], [row("FAILED", task=1)], frozenset({"other"})
    )
    handed_on = unpack_snapshot(AT, pack_snapshot(seen, {"key"}))
    assert (state_of(handed_on), state_of(handed_on, 1)) == ("RUNNING", "FAILED")
    assert handed_on.queued == seen.queued == 1
    assert handed_on.unanswered == {"other"}
    found = handed_on.row("key", "7", 1)
    assert found is not None
    assert (found.started_at, found.ended_at) == (AT, AT)
