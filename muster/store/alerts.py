"""Alerts in the store: which were sent, and what runs need to be asked about.

An alert is an event of its run, entered before it is sent, so that of several processes one sends
it.  Who goes on with a run that was over is told afresh.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from muster.store.runs import RUN_COLUMNS, make_run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from muster.model.notifier import AlertKind
    from muster.store.database import Database
    from muster.store.records import Run

# The job's own clock says when it reported: it counts no later than now.
_WATCHED = f"""
    SELECT extract(epoch FROM now() - greatest(
        run.created_at, run.planned_at,
        (SELECT max(at) FROM event WHERE run_id = run.id AND kind = 'retry'),
        (SELECT max(greatest(a.submitted_at, a.started_at, a.ended_at,
                             CASE WHEN a.progress_at < now() THEN a.progress_at
                                  WHEN a.progress_at IS NOT NULL THEN now() END))
         FROM element e JOIN attempt a ON a.element_id = e.id WHERE e.run_id = run.id)
    ))::float8, {RUN_COLUMNS}
    FROM run
    WHERE state IN ('open', 'planned')
       OR (state = 'failed' AND ended_at > now() - make_interval(secs => %s))
    ORDER BY created_at, id
"""

_CLAIM = """
    INSERT INTO event (run_id, kind, message)
    SELECT %(run)s, %(kind)s, %(message)s
    WHERE NOT EXISTS (
        SELECT 1 FROM event WHERE run_id = %(run)s AND kind = %(kind)s
        AND id > coalesce((SELECT max(id) FROM event
                           WHERE run_id = %(run)s AND kind = 'retry'), 0))
    RETURNING id
"""


@dataclass(frozen=True)
class WatchedRun:
    """A run that is not over, or failed lately.

    ``idle_s``: seconds since anything of it was submitted, started, ended or reported progress.
    """

    run: Run
    idle_s: float


@dataclass(frozen=True)
class ElementCount:
    """How many elements of a group and step are in one state."""

    group: str
    step: str
    state: str
    count: int


def read_watched(db: Database, failed_within_s: float) -> list[WatchedRun]:
    """Read the runs that are not over, and those that failed within so many seconds."""
    with db.transaction() as cursor:
        cursor.execute(_WATCHED, (failed_within_s,))
        return [WatchedRun(make_run(tuple(row)), idle_s) for idle_s, *row in cursor.fetchall()]


def count_elements(db: Database, run_id: str) -> list[ElementCount]:
    """Count the elements of a run by group, step and state."""
    with db.transaction() as cursor:
        cursor.execute(
            "SELECT group_name, step, state, count(*) FROM element WHERE run_id = %s"
            " GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
            (run_id,),
        )
        return [ElementCount(*row) for row in cursor.fetchall()]


def find_failing_batches(
    db: Database, run_id: str, states: Sequence[str]
) -> list[tuple[str, str, int]]:
    """List the batches of a run with elements in one of the states: id, group, generation."""
    with db.transaction() as cursor:
        cursor.execute(
            "SELECT id, group_name, generation FROM batch WHERE run_id = %s AND EXISTS ("
            "SELECT 1 FROM element WHERE batch_id = batch.id AND state = ANY(%s)) ORDER BY id",
            (run_id, list(states)),
        )
        return list(cursor.fetchall())


def claim_alert(
    db: Database, run_id: str, kind: AlertKind, notifier: str, message: str
) -> int | None:
    """Enter an alert that is about to be sent; None where it was sent before, or is being sent.

    Parameters
    ----------
    notifier : str
        Name of the notifier: each is told once a run and kind.

    Returns
    -------
    int or None
        Id of the event, for :func:`release_alert` where it could not be sent.
    """
    named = {"run": run_id, "kind": f"alert.{kind}.{notifier}", "message": message}
    with db.transaction() as cursor:
        # One after the other: two processes would both find no event.
        cursor.execute("SELECT 1 FROM run WHERE id = %s FOR UPDATE", (run_id,))
        if cursor.fetchone() is None:
            return None
        cursor.execute(_CLAIM, named)
        row = cursor.fetchone()
    return None if row is None else int(row[0])


def release_alert(db: Database, event_id: int) -> None:
    """Take back an alert that could not be sent, so that it is sent another time."""
    with db.transaction() as cursor:
        cursor.execute("DELETE FROM event WHERE id = %s AND kind LIKE 'alert.%%'", (event_id,))
