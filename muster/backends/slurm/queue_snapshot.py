"""What a look at a cluster has seen, in the form in which it is asked for and handed on."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from muster.backends.slurm.parse import JobRow, is_alive, is_refusal

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

    from muster.store.clusters import OpenJob


REST = -1
"""The place of a row that stands for all tasks without one of their own."""


@dataclass(frozen=True)
class QueueSnapshot:
    """What one look has seen.

    Attributes
    ----------
    at : datetime
        When it began, by the store's clock: what was submitted later cannot be in it.
    rows : mapping
        Submission key → job id → array index → row.  Ids may be used again after a crash of the
        controller, keys never are; and one key may have two jobs, where a crash hid the first.
    unanswered : frozenset of str
        Keys that were to be looked for in the accounting, which did not answer.
    queued : int
        Array tasks of this user that wait or run, whoever submitted them.
    """

    at: datetime
    rows: Mapping[str, Mapping[int, Mapping[int, JobRow]]]
    unanswered: frozenset[str]
    queued: int

    @classmethod
    def of_rows(
        cls,
        at: datetime,
        queue: Iterable[JobRow],
        others: Iterable[JobRow] = (),
        unanswered: frozenset[str] = frozenset(),
    ) -> QueueSnapshot:
        """Put rows together; the queue knows better than the others, which may lag behind it.

        What lives is in the queue.  What the others alone call alive has ended, and they do not
        know it yet; or the controller has lost it, and they never will.
        """
        rows: dict[str, dict[int, dict[int, JobRow]]] = {}
        queued = 0
        # A list of tasks that waited and were cancelled names those too that have begun since: what
        # has a node is said of the task itself.
        for row in sorted(others, key=lambda row: row.node is not None):
            if not is_alive(row):
                rows.setdefault(row.name, {}).setdefault(row.job_id, {})[_place(row)] = row
        for row in queue:
            rows.setdefault(row.name, {}).setdefault(row.job_id, {})[_place(row)] = row
            queued += is_alive(row)
        return cls(at, rows, unanswered, queued)

    def row(self, key: str, reference: str, task: int) -> JobRow | None:
        """Return what was seen of one array task of a submission; None where nothing was.

        Where a submission has a twin, whose answer was lost, one of both has begun the task, and
        the other ended at once, as if all were well: what lives or has failed is the one.
        """
        found = [
            (is_alive(row), row.state != "COMPLETED", str(job_id) == reference, row)
            for job_id, tasks in self.rows.get(key, {}).items()
            if (row := tasks.get(task) or tasks.get(REST)) is not None
            if str(job_id) == reference or not is_refusal(row)
        ]
        return max(found, key=lambda one: one[:3])[3] if found else None

    def knows(self, key: str, reference: str) -> bool:
        """Tell whether anything was seen of a submission's job."""
        return reference.isdecimal() and int(reference) in self.rows.get(key, {})

    def has(self, job: OpenJob) -> bool:
        """Tell whether something was seen of all that is open of a job."""
        return all(self.row(job.key, job.reference, task) is not None for task in job.tasks)


def pack_snapshot(seen: QueueSnapshot, keys: Container[str]) -> bytes:
    """Render what other processes need of a look: the rows of these keys, in few bytes."""
    rows = [
        [
            r.name, r.job_id, r.task, r.state, r.reason, r.exit_code, r.signal, r.node, r.rest,
            _to_epoch(r.started_at), _to_epoch(r.ended_at),
        ]
        for key, jobs in seen.rows.items()
        if key in keys
        for tasks in jobs.values()
        for r in tasks.values()
    ]  # fmt: skip
    said = {"rows": rows, "unanswered": sorted(seen.unanswered), "queued": seen.queued}
    return zlib.compress(json.dumps(said, separators=(",", ":")).encode(), 1)


def unpack_snapshot(at: datetime, packed: bytes) -> QueueSnapshot:
    """Read what another process has seen."""
    said = json.loads(zlib.decompress(packed))
    rows = (
        JobRow(
            name=name, job_id=job_id, task=task, state=state, reason=reason,
            exit_code=exit_code, signal=signal, node=node, rest=rest,
            started_at=_from_epoch(started), ended_at=_from_epoch(ended),
        )
        for name, job_id, task, state, reason, exit_code, signal, node, rest, started, ended
        in said["rows"]
    )  # fmt: skip
    seen = QueueSnapshot.of_rows(at, rows, (), frozenset(said["unanswered"]))
    return QueueSnapshot(at, seen.rows, seen.unanswered, said["queued"])


def _to_epoch(at: datetime | None) -> int | None:
    return None if at is None else int(at.timestamp())


def _from_epoch(seconds: int | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _place(row: JobRow) -> int:
    return REST if row.rest else row.task or 0
