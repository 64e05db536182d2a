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

from muster.errors import ClaimLost, MissingInput
from muster.store.records import Claim

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def detach(db: Database, claim: Claim, *, detached: bool = True) -> None:
    """Record whether what a batch has submitted is meant to run without a supervisor."""
    with holding(db, claim) as cursor:
        cursor.execute("UPDATE batch SET detached = %s WHERE id = %s", (detached, claim.batch_id))


def find_detached(db: Database, run_id: str | None = None) -> list[str]:
    """List batches with something open that is meant to run without a supervisor."""
    with db.transaction() as cursor:
        cursor.execute(
            "SELECT DISTINCT b.id FROM batch b JOIN submission s ON s.batch_id = b.id"
            " WHERE s.state <> 'ended' AND b.detached AND b.run_id = coalesce(%s, b.run_id)"
            " ORDER BY b.id",
            (run_id,),
        )
        return [row[0] for row in cursor.fetchall()]


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
