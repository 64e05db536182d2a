"""Clusters in the store: one look for all processes, a rate of submissions, a count of calls."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from muster.store.claims import one_row
from muster.store.locks import try_lock, unlock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from muster.store.database import Database

# The first call of all is made before anybody has looked at the cluster.
_RECORD_CALL = """
    WITH known AS (INSERT INTO cluster (name) VALUES (%(name)s) ON CONFLICT (name) DO NOTHING)
    INSERT INTO cluster_call (cluster, command, calls, failures, seconds)
    VALUES (%(name)s, %(command)s, 1, %(failed)s, %(seconds)s)
    ON CONFLICT (cluster, command) DO UPDATE SET
        calls = cluster_call.calls + 1, failures = cluster_call.failures + excluded.failures,
        seconds = cluster_call.seconds + excluded.seconds
"""

# The place of an element in a job array is its place among all that were submitted with it.
_OPEN_JOBS = """
    SELECT s.key, s.reference, s.submitted_at, (b.spec -> b.backend ->> 'pack')::int,
           array_agg(placed.task) FILTER (WHERE placed.state <> 'ended')
    FROM submission s JOIN batch b ON b.id = s.batch_id
    JOIN LATERAL (
        SELECT a.state, row_number() OVER (ORDER BY e.index) - 1 AS task
        FROM attempt a JOIN element e ON e.id = a.element_id WHERE a.submission_id = s.id
    ) placed ON true
    WHERE s.state = 'submitted' AND b.spec -> b.backend -> 'cluster' ->> 'name' = %s
    GROUP BY s.id, b.id ORDER BY s.id
"""


@dataclass(frozen=True)
class Look:
    """What was last seen of a cluster, and whether it still answers.

    Attributes
    ----------
    now : datetime
        The store's clock.
    at, asked_at : datetime or None
        When the newest look that was answered began, and the newest one of all.
    trouble : str or None
        Why the last one was not.
    """

    now: datetime
    at: datetime | None
    asked_at: datetime | None
    trouble: str | None


@dataclass(frozen=True)
class OpenJob:
    """A submission that a cluster has taken, and which of its elements have not ended.

    Attributes
    ----------
    key, reference : str
        Submission key, and the cluster's own id.
    submitted_at : datetime
        When that id was recorded.
    tasks : tuple of int
        Indexes in its job array of what has not ended.
    """

    key: str
    reference: str
    submitted_at: datetime
    tasks: tuple[int, ...]


@dataclass(frozen=True)
class Calls:
    """How often a command was called on a cluster."""

    command: str
    calls: int
    failures: int
    seconds: float


def know_cluster(db: Database, name: str) -> None:
    """Make sure that the store knows a cluster."""
    with db.transaction() as cursor:
        cursor.execute(
            "INSERT INTO cluster (name) VALUES (%s) ON CONFLICT (name) DO NOTHING", (name,)
        )


def read_look(db: Database, name: str) -> Look:
    """Read when a cluster was last looked at."""
    with db.transaction() as cursor:
        cursor.execute(
            "SELECT now(), looked_at, asked_at, trouble FROM cluster WHERE name = %s", (name,)
        )
        return Look(*one_row(cursor))


def record_asked(db: Database, name: str) -> datetime:
    """Record that a look at a cluster begins, and return when that is."""
    with db.transaction() as cursor:
        cursor.execute(
            "UPDATE cluster SET asked_at = now() WHERE name = %s RETURNING asked_at", (name,)
        )
        at: datetime = one_row(cursor)[0]
    return at


def read_seen(db: Database, name: str) -> tuple[datetime, bytes] | None:
    """Read what the newest look has seen, and when it began."""
    with db.transaction() as cursor:
        cursor.execute(
            "SELECT looked_at, seen FROM cluster WHERE name = %s AND seen IS NOT NULL", (name,)
        )
        row = cursor.fetchone()
    return None if row is None else (row[0], bytes(row[1]))


def record_seen(db: Database, name: str, at: datetime, seen: bytes) -> None:
    """Record what a look has seen that began then; an older one never replaces a newer."""
    with db.transaction() as cursor:
        cursor.execute(
            "UPDATE cluster SET looked_at = %s, seen = %s, trouble = NULL"
            " WHERE name = %s AND coalesce(looked_at, '-infinity') < %s",
            (at, seen, name, at),
        )


def record_trouble(db: Database, name: str, trouble: str) -> None:
    """Record that a look was not answered."""
    with db.transaction() as cursor:
        cursor.execute("UPDATE cluster SET trouble = %s WHERE name = %s", (trouble, name))


def read_open_jobs(db: Database, name: str) -> list[OpenJob]:
    """Read what a cluster has taken and has not ended, by the store."""
    with db.transaction() as cursor:
        cursor.execute(_OPEN_JOBS, (name,))
        return [
            OpenJob(key, reference, at, tuple(sorted({place // pack for place in places or ()})))
            for key, reference, at, pack, places in cursor.fetchall()
        ]


def reserve_submission(db: Database, name: str, every_s: float) -> float:
    """Take the next place in the row of those who submit; return how long to wait for it, in s.

    All processes share the row, so that together they never submit more often than every
    ``every_s`` seconds.
    """
    with db.transaction() as cursor:
        cursor.execute(
            "UPDATE cluster SET next_submit_at ="
            " greatest(next_submit_at, clock_timestamp()) + make_interval(secs => %s)"
            " WHERE name = %s RETURNING extract(epoch FROM next_submit_at - clock_timestamp())",
            (every_s, name),
        )
        return max(0.0, float(one_row(cursor)[0]) - every_s)


def record_call(db: Database, name: str, command: str, seconds: float, *, answered: bool) -> None:
    """Count a call of a command on a cluster."""
    with db.transaction() as cursor:
        cursor.execute(
            _RECORD_CALL,
            {"name": name, "command": command, "failed": int(not answered), "seconds": seconds},
        )


def read_calls(db: Database, name: str) -> list[Calls]:
    """Read how often which command was called on a cluster."""
    with db.transaction() as cursor:
        cursor.execute(
            "SELECT command, calls, failures, seconds FROM cluster_call WHERE cluster = %s"
            " ORDER BY command",
            (name,),
        )
        return [Calls(*row) for row in cursor.fetchall()]


@contextmanager
def elected(db: Database, name: str) -> Iterator[bool]:
    """Try to be the one process that looks at a cluster now, and say whether it is so.

    An advisory lock elects; it goes with its connection, whatever becomes of the process.
    """
    with db.session() as cursor:
        won = try_lock(cursor, _lock_name(name))
        try:
            yield won
        finally:
            if won:
                unlock(cursor, _lock_name(name))


def _lock_name(cluster: str) -> str:
    return f"muster look {cluster}"
