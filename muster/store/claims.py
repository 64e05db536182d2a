"""Claims: who may submit, record and cancel for a batch, until somebody takes it over.

Everything a supervisor writes goes through :func:`holding`: the batch's row is locked and the claim
compared in the same transaction, so that a supervisor that has been replaced can write nothing.
"""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from muster import storage
from muster.errors import ClaimLost, MissingInput
from muster.store.records import Claim

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from psycopg2.extensions import cursor as Cursor

    from muster.store.database import Database

# A task that is cleared comes back with more tries than it had, and one that Airflow killed and
# starts again (a scheduler that took it for an orphan) finds its own kill's cancellation: either
# starts a new generation.  What has succeeded stays; the rest gets a fresh budget.
_TAKE_CLAIM = """
    UPDATE batch SET
        claim = %(claim)s, claimed_by = %(by)s, claimed_at = now(), heartbeat_at = now(),
        cancel_requested_at = CASE WHEN %(fresh)s = 1 THEN NULL ELSE cancel_requested_at END,
        cancel_requested_by = CASE WHEN %(fresh)s = 1 THEN NULL ELSE cancel_requested_by END,
        generation = generation + %(fresh)s,
        generation_started_at =
            CASE WHEN %(fresh)s = 1 OR claim IS NULL THEN now() ELSE generation_started_at END,
        max_tries = coalesce(%(max_tries)s, max_tries)
    WHERE id = %(batch)s
    RETURNING generation
"""

_FRESH_ELEMENTS = """
    UPDATE element SET generation = %(generation)s, updated_at = now(),
        state = CASE WHEN EXISTS (SELECT 1 FROM attempt WHERE element_id = element.id
                                  AND attempt.state <> 'ended') THEN 'running' ELSE 'pending' END,
        reason = NULL
    WHERE batch_id = %(batch)s AND (state <> 'succeeded' OR EXISTS (
        SELECT 1 FROM batch WHERE id = %(batch)s AND (spec ->> 'looks')::boolean))
"""

# A batch that has ended, and an earlier one of which an attempt did well since its last began.
_OVERTAKEN = """
    SELECT 1 FROM batch b
    WHERE b.id = %(batch)s AND b.cancel_requested_at IS NULL
      AND NOT EXISTS (SELECT 1 FROM submission WHERE batch_id = b.id AND state <> 'ended')
      AND EXISTS (
        SELECT 1 FROM attempt a JOIN element e ON e.id = a.element_id
        WHERE e.batch_id = ANY(%(before)s) AND a.outcome = 'succeeded' AND a.ended_at > (
            SELECT max(coalesce(mine.started_at, mine.submitted_at, mine.planned_at))
            FROM attempt mine JOIN element own ON own.id = mine.element_id
            WHERE own.batch_id = b.id))
    FOR UPDATE
"""

FOLLOWED_S = 120.0
"""A batch with a heartbeat younger than this is followed."""

_EVENT = """
    INSERT INTO event (run_id, batch_id, kind, message)
    SELECT run_id, id, %s, %s FROM batch WHERE id = %s
"""


def take_claim(
    db: Database, batch_id: str, *, max_tries: int | None = None, fresh: bool = False
) -> Claim:
    """Take a batch over from whoever had it.

    Parameters
    ----------
    max_tries : int, optional
        Of the Airflow task that asks; more than at the last claim means that it was cleared, and
        a batch that Airflow's own kill cancelled is not meant to stay so when it is tried again.
    fresh : bool
        Start a new generation in any case.

    Raises
    ------
    MissingInput
        When the store knows no such batch.
    """
    claim = uuid4()
    by = f"{socket.gethostname()}:{os.getpid()}"
    with db.transaction() as cursor:
        cursor.execute(
            "SELECT coalesce(%s > max_tries, false), cancel_requested_by = 'kill'"
            " FROM batch WHERE id = %s FOR UPDATE",
            (max_tries, batch_id),
        )
        row = cursor.fetchone()
        if row is None:
            raise no_such_batch(batch_id)
        cleared, killed = row
        starts = fresh or cleared or (bool(killed) and max_tries is not None)
        cursor.execute(
            _TAKE_CLAIM,
            {
                "claim": str(claim),
                "by": by,
                "fresh": int(starts),
                "max_tries": max_tries,
                "batch": batch_id,
            },
        )
        generation = one_row(cursor)[0]
        cursor.execute(_EVENT, ("claimed", f"generation {generation} by {by}", batch_id))
        if starts:
            cursor.execute(_FRESH_ELEMENTS, {"batch": batch_id, "generation": generation})
    return Claim(batch_id, claim)


def check_claim(db: Database, claim: Claim) -> None:
    """Make sure that a claim still holds.

    Raises
    ------
    ClaimLost
        When it does not.
    """
    with holding(db, claim):
        pass


def request_cancel(db: Database, claim: Claim, by: str) -> None:
    """Record that nothing more of this generation is to be submitted, and what runs is to end.

    Parameters
    ----------
    by : {"kill", "person", "reconcile"}
        Who asks.  Airflow may kill a task only to start it again; what a person or the reconciler
        ended stays ended.
    """
    with holding(db, claim) as cursor:
        cursor.execute(
            "UPDATE batch SET cancel_requested_at = coalesce(cancel_requested_at, now()),"
            " cancel_requested_by = %s WHERE id = %s",
            (by, claim.batch_id),
        )
        cursor.execute(_EVENT, ("cancel", f"asked for by {by}", claim.batch_id))


def renew_overtaken(
    db: Database, batch_id: str, before: Sequence[str], needed: Sequence[str]
) -> bool:
    """Start a new generation of a batch that ended before those that it comes after.

    Its elements run again, those too that have succeeded, where an attempt of an earlier batch did
    well after its own last attempt began, and all that it needs has succeeded.  What a person
    cancelled stays so.

    Parameters
    ----------
    before, needed : sequence of str
        Batches that it comes after, and those of them without which it has nothing to do.
    """
    with db.transaction() as cursor:
        cursor.execute(_OVERTAKEN, {"batch": batch_id, "before": list(before)})
        overtaken = cursor.fetchone() is not None
        cursor.execute(
            "SELECT EXISTS (SELECT 1 FROM element WHERE batch_id = ANY(%s)"
            " AND state <> 'succeeded')",
            (list(needed),),
        )
        if not overtaken or one_row(cursor)[0]:
            return False
        cursor.execute(
            "UPDATE batch SET generation = generation + 1, generation_started_at = now()"
            " WHERE id = %s RETURNING generation",
            (batch_id,),
        )
        generation = one_row(cursor)[0]
        cursor.execute(
            "UPDATE element SET generation = %s, state = 'pending', reason = NULL,"
            " updated_at = now() WHERE batch_id = %s",
            (generation, batch_id),
        )
        cursor.execute(_EVENT, ("overtaken", "what it came from was made anew", batch_id))
    return True


def detach(db: Database, claim: Claim) -> None:
    """Record that what a batch has submitted is meant to run without a supervisor, from now on."""
    with holding(db, claim) as cursor:
        cursor.execute(
            "UPDATE batch SET detached = true, heartbeat_at = NULL WHERE id = %s",
            (claim.batch_id,),
        )


def find_detached(db: Database, run_id: str | None = None) -> list[str]:
    """List batches with something submitted that is meant to run without a supervisor.

    Those that somebody follows all the same are left out.
    """
    with db.transaction() as cursor:
        cursor.execute(
            "SELECT DISTINCT b.id FROM batch b JOIN submission s ON s.batch_id = b.id"
            " WHERE s.state = 'submitted' AND b.detached AND b.run_id = coalesce(%s, b.run_id)"
            " AND coalesce(b.heartbeat_at < now() - make_interval(secs => %s), true)"
            " ORDER BY b.id",
            (run_id, FOLLOWED_S),
        )
        return [row[0] for row in cursor.fetchall()]


def is_followed(db: Database, run_id: str) -> bool:
    """Tell whether a supervisor with a recent heartbeat follows something open of a run.

    One whose process is known to have ended on this host does not.
    """
    with db.transaction() as cursor:
        cursor.execute(
            "SELECT DISTINCT b.claimed_by FROM batch b WHERE b.run_id = %s"
            " AND b.heartbeat_at > now() - make_interval(secs => %s)"
            " AND EXISTS (SELECT 1 FROM submission WHERE batch_id = b.id AND state <> 'ended')",
            (run_id, FOLLOWED_S),
        )
        claimed = [row[0] for row in cursor.fetchall()]
    return any(is_process_alive(run_id, by) is not False for by in claimed)


def is_process_alive(run_id: str, claimed_by: str | None) -> bool | None:
    """Look for the process that follows a run of the command line; None where none can tell.

    A run of Airflow is followed by whichever of its processes has its turn.

    Parameters
    ----------
    claimed_by : str or None
        HOST:PID of the process that took a batch of the run.
    """
    host, _, pid = (claimed_by or "").rpartition(":")
    if ".cli__" not in run_id or host != socket.gethostname() or not pid.isdigit():
        return None
    return storage.is_alive(int(pid))


def record_heartbeat(db: Database, claim: Claim) -> None:
    """Record a heartbeat.

    Raises
    ------
    ClaimLost
        When somebody else has taken the batch over.
    """
    with holding(db, claim) as cursor:
        cursor.execute("UPDATE batch SET heartbeat_at = now() WHERE id = %s", (claim.batch_id,))


def find_unattended(db: Database, silent_for_s: float) -> list[str]:
    """List batches with something open whose supervisor has been silent for so many seconds.

    What was submitted to run without one is not among them.
    """
    with db.transaction() as cursor:
        cursor.execute(
            "SELECT DISTINCT b.id FROM batch b JOIN submission s ON s.batch_id = b.id"
            " WHERE s.state <> 'ended' AND NOT b.detached"
            " AND coalesce(b.heartbeat_at, b.created_at)"
            " < now() - make_interval(secs => %s) ORDER BY b.id",
            (silent_for_s,),
        )
        return [row[0] for row in cursor.fetchall()]


@contextmanager
def holding(db: Database, claim: Claim) -> Iterator[Cursor]:
    """Open a transaction in which nobody else can take the batch over."""
    with db.transaction() as cursor:
        cursor.execute(
            "SELECT claimed_by, claim = %s FROM batch WHERE id = %s FOR UPDATE",
            (str(claim.id), claim.batch_id),
        )
        row = cursor.fetchone()
        if row is None:
            raise no_such_batch(claim.batch_id)
        claimed_by, held = row
        if not held:
            raise ClaimLost("the batch was taken over", where=claim.batch_id, got=claimed_by)
        yield cursor


def one_row(cursor: Cursor) -> tuple[Any, ...]:
    """Fetch the row that a batch's own statement must return."""
    row = cursor.fetchone()
    if row is None:
        raise ClaimLost("the batch is gone from the store")
    return row


def no_such_batch(batch_id: str) -> MissingInput:
    """Make the error for a batch that the store does not know."""
    return MissingInput("the store knows no such batch", got=batch_id, do="plan the run again")
