"""What retention asks of the store, and how it keeps others from what it is about to delete.

A look and a deletion are two steps, and a run may be planned, or cleared, between them.  So each
deletion happens inside a transaction of :func:`holding_run` or :func:`holding_plans`: whoever would
take up what is being deleted waits for its end, and looks at what is left.  So does whoever would
go on with a load that is dropped.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg2.errors import LockNotAvailable

from muster.errors import Transient
from muster.store.datasets import drop_load, load_lock_name
from muster.store.loads import unhurried
from muster.store.records import RunState
from muster.store.row_tables import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from psycopg2.extensions import cursor as Cursor

    from muster.store.database import Database

_LOCK_WAIT = "5s"
"""How long a table that is dropped is waited for: whoever comes to read it waits behind."""

REMOVED = "retention"
"""Kind of the event that says that a run's work folder was removed."""

# A task that is cleared gives a run that has ended a heartbeat before its verdict does.
_RUNS = """
    SELECT r.id, r.state, r.work_uri,
           greatest(r.created_at, r.planned_at, r.ended_at,
                    (SELECT max(greatest(b.heartbeat_at, b.claimed_at)) FROM batch b
                     WHERE b.run_id = r.id)) AS active_at,
           EXISTS (SELECT 1 FROM submission s JOIN batch b ON b.id = s.batch_id
                   WHERE b.run_id = r.id AND s.state <> 'ended') AS has_open
    FROM run r
"""

# Open, or looked at anew by a cleared inspection whose plan is not frozen yet.  One that nobody
# ever freezes is not waited for beyond a day.  What the reconciler ended may only have waited for
# Airflow between its inspection and its plan, so that end says nothing.
_BEING_PLANNED = """
    SELECT r.id FROM run r WHERE r.state = 'open' OR EXISTS (
        SELECT 1 FROM batch b WHERE b.run_id = r.id AND (b.spec ->> 'looks')::boolean
        AND greatest(b.heartbeat_at, b.claimed_at)
            > greatest(r.planned_at, CASE WHEN r.state <> 'cancelled' THEN r.ended_at END,
                       now() - interval '1 day'))
    ORDER BY r.id
"""

# What the plan named is in the run's facts, also where it needed no batch.
_BANDS_IN_USE = f"""
    WITH used AS (
        SELECT id FROM ({_RUNS}) known
        WHERE state IN ('open', 'planned') OR has_open OR active_at >= %(used_after)s
    )
    SELECT jsonb_array_elements_text(r.facts -> 'bands') FROM run r JOIN used USING (id)
    UNION
    SELECT named[1] FROM batch b JOIN used ON used.id = b.run_id,
           regexp_matches(b.spec::text, %(pattern)s, 'g') AS named
"""

_LEFT_LOADS = """
    SELECT l.id, l.dataset, l.store, l.staging,
           greatest(l.began_at, (SELECT max(w.loaded_at) FROM load_window w WHERE w.load = l.id))
               AS active_at
    FROM load l WHERE l.state = 'loading'
"""


@dataclass(frozen=True)
class LeftLoad:
    """A load that was interrupted, and that nobody has gone on with for long.

    Attributes
    ----------
    id : int
        In the store.
    dataset, store : str
        What was loaded, and where to.
    active_at : datetime
        When its last window came, or it began.
    bytes : int
        What it takes.
    """

    id: int
    dataset: str
    store: str
    active_at: datetime
    bytes: int


@dataclass(frozen=True)
class RunUse:
    """When a run was last alive, and whether it may go on.

    Attributes
    ----------
    id, work_uri : str
        The run, and its folder in the work directory.
    state : RunState
        As recorded.
    active_at : datetime
        Its end, or a later heartbeat.
    has_open : bool
        Whether anything that it submitted has not ended.
    """

    id: str
    state: RunState
    work_uri: str
    active_at: datetime
    has_open: bool

    @property
    def ended(self) -> bool:
        """Whether it is over, and nothing of it runs."""
        return self.state not in (RunState.OPEN, RunState.PLANNED) and not self.has_open


@dataclass(frozen=True)
class BandUse:
    """Which band rasters are needed.

    Attributes
    ----------
    names : frozenset of str
        File names that a plan or a batch names, of runs that go on or were alive lately.
    planning : tuple of str
        Runs that are deciding right now what they reuse.
    """

    names: frozenset[str]
    planning: tuple[str, ...]


def read_run_uses(db: Database) -> list[RunUse]:
    """Read when each run was last alive."""
    with db.transaction() as cursor:
        cursor.execute(_RUNS + " ORDER BY r.id")
        return [RunUse(id_, RunState(state), *rest) for id_, state, *rest in cursor.fetchall()]


def read_band_use(db: Database, used_after: datetime, pattern: str) -> BandUse:
    """Read which band rasters are needed, for somebody who deletes nothing.

    Parameters
    ----------
    used_after : datetime
        What only runs use that were not alive since then is not needed.
    pattern : str
        Regular expression of a band raster's file name.
    """
    with db.transaction() as cursor:
        return _read_band_use(cursor, used_after, pattern)


@contextmanager
def holding_plans(db: Database, used_after: datetime, pattern: str) -> Iterator[BandUse]:
    """Let no run begin to decide what it reuses, until the block has ended.

    A run that opens or looks waits here, and sees what the block has left.  The block must be
    short: supervisors wait as well.
    """
    with db.transaction() as cursor:
        cursor.execute("LOCK TABLE run, batch IN SHARE MODE")
        yield _read_band_use(cursor, used_after, pattern)


@contextmanager
def holding_run(db: Database, run_id: str, active_before: datetime) -> Iterator[Cursor | None]:
    """Let nobody open a run again or take its batches over, until the block has ended.

    Yields
    ------
    cursor or None
        None where the run goes on after all, or was alive since ``active_before``.
    """
    with db.transaction() as cursor:
        # NO KEY: events that refer to the run are written by who holds one of its batches.
        cursor.execute("SELECT 1 FROM run WHERE id = %s FOR NO KEY UPDATE", (run_id,))
        cursor.execute("SELECT 1 FROM batch WHERE run_id = %s ORDER BY id FOR UPDATE", (run_id,))
        cursor.execute(_RUNS + " WHERE r.id = %s", (run_id,))
        row = cursor.fetchone()
        run = RunUse(row[0], RunState(row[1]), *row[2:]) if row else None
        idle = run is not None and run.ended and run.active_at < active_before
        yield cursor if idle else None


def mark_removed(db: Database, run_id: str, active_before: datetime, message: str) -> bool:
    """Record that a run's work folder is removed, before it is; False where it must stay."""
    with holding_run(db, run_id, active_before) as cursor:
        if cursor is None:
            return False
        cursor.execute(
            f"""
            INSERT INTO event (run_id, kind, message) SELECT id, %s, %s FROM ({_RUNS}) known
            WHERE id = %s AND NOT EXISTS (SELECT 1 FROM event e WHERE e.run_id = known.id
                                          AND e.kind = %s AND e.at > known.active_at)
            """,
            (REMOVED, message, run_id, REMOVED),
        )
    return True


def read_removed_at(db: Database, run_id: str) -> datetime | None:
    """Read when a run's work folder was last removed; None where it never was."""
    with db.transaction() as cursor:
        cursor.execute(
            "SELECT max(at) FROM event WHERE run_id = %s AND kind = %s", (run_id, REMOVED)
        )
        row = cursor.fetchone()
    found: datetime | None = row[0] if row else None
    return found


def find_left_loads(db: Database, active_before: datetime) -> list[LeftLoad]:
    """Find loads that were interrupted, and that nobody has gone on with since a moment."""
    with db.transaction() as cursor:
        cursor.execute(
            f"""
            SELECT id, dataset, store, active_at, coalesce(
                pg_total_relation_size(to_regclass(%s || '.' || quote_ident(staging))),
                (SELECT sum(octet_length(data)) FROM tile WHERE load = found.id), 0)::bigint
            FROM ({_LEFT_LOADS}) found WHERE active_at < %s ORDER BY dataset, store
            """,
            (SCHEMA, active_before),
        )
        found = [LeftLoad(*row) for row in cursor.fetchall()]
        return [left for left in found if _is_unlocked(cursor, left.dataset, left.store)]


def drop_left_load(db: Database, left: LeftLoad, active_before: datetime) -> bool:
    """Drop an interrupted load with all that it has brought; False where somebody goes on with it.

    Raises
    ------
    Transient
        When somebody uses its table.
    InvalidInput
        When something depends on its table.
    """
    with unhurried(db) as cursor:
        # Whoever would take it up waits, and begins afresh.
        if not _is_unlocked(cursor, left.dataset, left.store):
            return False
        cursor.execute("SET LOCAL lock_timeout = %s", (_LOCK_WAIT,))
        try:
            cursor.execute(_LEFT_LOADS + " AND l.id = %s FOR UPDATE OF l", (left.id,))
            row = cursor.fetchone()
            if row is None or row[4] >= active_before:
                return False
            drop_load(cursor, left.id, left.dataset, row[3])
        except LockNotAvailable as error:
            raise Transient(
                "somebody uses what an interrupted load has brought",
                where=f"{left.store} of dataset {left.dataset}",
                got=f"no end of it in {_LOCK_WAIT}",
                do="end that query and run again",
            ) from error
    return True


def _is_unlocked(cursor: Cursor, dataset: str, store: str) -> bool:
    """Take the lock on a load until the transaction ends, unless somebody holds it."""
    cursor.execute(
        "SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))",
        (load_lock_name(dataset, store),),
    )
    return bool((cursor.fetchone() or (False,))[0])


def _read_band_use(cursor: Cursor, used_after: datetime, pattern: str) -> BandUse:
    cursor.execute(_BEING_PLANNED)
    planning = tuple(row[0] for row in cursor.fetchall())
    cursor.execute(_BANDS_IN_USE, {"used_after": used_after, "pattern": f"({pattern})"})
    return BandUse(frozenset(row[0] for row in cursor.fetchall()), planning)
