"""A batch in the store: its submissions, its attempts, and how they ended."""

from __future__ import annotations

import json
from functools import lru_cache
from math import isfinite
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4
from weakref import WeakValueDictionary

from psycopg2.extras import execute_values

from muster.model.batch import Batch
from muster.model.outcome import Outcome
from muster.model.resources import Resources
from muster.store.claims import holding, no_such_batch, one_row
from muster.store.json_text import render_json
from muster.store.records import (
    Attempt,
    AttemptEnd,
    AttemptState,
    BatchRecord,
    Claim,
    ElementRecord,
    Submission,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from psycopg2.extensions import cursor as Cursor

    from muster.store.database import Database

_ELEMENTS = """
    SELECT id, index, name, state FROM element WHERE batch_id = %s ORDER BY index
"""

# By the elements' ids, each looked up in an index: joined, the attempts of all batches are read.
_ATTEMPTS = """
    SELECT element_id, id, submission_id, number, generation, state, outcome,
           resources::text, host, missing_since, ended_at, message, log_told, seconds
    FROM attempt WHERE element_id = ANY(ARRAY(SELECT id FROM element WHERE batch_id = %s))
    ORDER BY element_id, number
"""

_SUBMISSIONS = """
    SELECT id, key, claim, fingerprint, reference, intended_at, submitted_at,
           cancelled_at IS NOT NULL
    FROM submission WHERE batch_id = %s AND state <> 'ended' ORDER BY wave
"""

# An element's state is that of its newest attempt in its newest generation.
_END_ATTEMPTS = """
    WITH ended AS (
        UPDATE attempt SET
            state = 'ended', ended_at = now(), outcome = v.outcome, exit_code = v.exit_code,
            signal = v.signal, host = coalesce(v.host, attempt.host), seconds = v.seconds,
            max_rss_mib = v.max_rss_mib, error_class = v.error_class, message = v.message,
            facts = v.facts, started_at = coalesce(v.started_at, attempt.started_at), eta_at = NULL,
            log_uri = coalesce(v.log_uri, attempt.log_uri),
            progress = CASE WHEN v.outcome = 'succeeded' THEN 1 ELSE attempt.progress END
        FROM json_to_recordset(%s) AS v (
            id bigint, outcome text, exit_code int, signal int, host text, seconds float8,
            max_rss_mib float8, error_class text, message text, facts jsonb,
            started_at timestamptz, log_uri text)
        WHERE attempt.id = v.id AND attempt.state <> 'ended'
        RETURNING attempt.id, element_id, number, v.outcome, v.message
    ), settled AS (
        UPDATE element SET
            state = CASE WHEN ended.outcome = 'not_begun' THEN 'pending' ELSE ended.outcome END,
            reason = ended.message, updated_at = now()
        FROM ended
        WHERE element.id = ended.element_id
          AND NOT EXISTS (SELECT 1 FROM attempt newer
                          WHERE newer.element_id = ended.element_id AND newer.number > ended.number)
    )
    SELECT id FROM ended
"""

_INSERT_ARTIFACTS = """
    INSERT INTO artifact (attempt_id, name, uri, sha256, bytes, media_type)
    SELECT * FROM json_to_recordset(%s) AS v (
        attempt_id bigint, name text, uri text, sha256 text, bytes bigint, media_type text)
"""

_KNOWN: WeakValueDictionary[tuple[str, str], Batch] = WeakValueDictionary()
"""Batches that somebody in this process holds, by their ids and fingerprints."""


def read_spec(db: Database, batch_id: str) -> Batch:
    """Read what a batch was frozen with."""
    with db.transaction() as cursor:
        cursor.execute("SELECT fingerprint FROM batch WHERE id = %s", (batch_id,))
        row = cursor.fetchone()
        if row is None:
            raise no_such_batch(batch_id)
        return _read_frozen(cursor, batch_id, row[0])


def read_batch(db: Database, claim: Claim) -> BatchRecord:
    """Read everything a supervisor decides by, and record a heartbeat.

    Raises
    ------
    ClaimLost
        When somebody else has taken the batch over.
    """
    with holding(db, claim) as cursor:
        cursor.execute(
            "UPDATE batch SET heartbeat_at = now() WHERE id = %s RETURNING fingerprint, generation,"
            " generation_started_at, cancel_requested_at IS NOT NULL, degraded, now()",
            (claim.batch_id,),
        )
        fingerprint, generation, started_at, cancel_requested, degraded, now = one_row(cursor)
        batch = _read_frozen(cursor, claim.batch_id, fingerprint)
        submissions = _read_submissions(cursor, claim.batch_id)
        elements = _read_elements(cursor, claim.batch_id)
    return BatchRecord(
        batch=batch,
        generation=generation,
        generation_started_at=started_at,
        cancel_requested=cancel_requested,
        degraded=degraded,
        submissions=submissions,
        elements=elements,
        now=now,
    )


def read_elements(db: Database, batch_id: str) -> tuple[ElementRecord, ...]:
    """Read a batch's elements with their attempts, for somebody who only looks."""
    with db.transaction() as cursor:
        return _read_elements(cursor, batch_id)


def read_heartbeat_age_s(db: Database, batch_id: str) -> float | None:
    """Return the age of the supervisor's last heartbeat, in seconds."""
    with db.transaction() as cursor:
        cursor.execute(
            "SELECT extract(epoch FROM now() - heartbeat_at) FROM batch WHERE id = %s", (batch_id,)
        )
        (heartbeat_age_s,) = one_row(cursor)
    return None if heartbeat_age_s is None else float(heartbeat_age_s)


def intend_submission(
    db: Database, claim: Claim, attempts: Mapping[int, tuple[int, Resources, str]]
) -> tuple[int, str]:
    """Write down that a wave is about to be submitted, before it is.

    Parameters
    ----------
    attempts : mapping
        Element id → (attempt number, resources, log URI).

    Returns
    -------
    tuple of int and str
        Id of the submission, and its key, which the scheduler is asked for after a crash.
    """
    with holding(db, claim) as cursor:
        cursor.execute(
            "UPDATE batch SET wave = wave + 1 WHERE id = %s"
            " RETURNING wave, generation, fingerprint",
            (claim.batch_id,),
        )
        wave, generation, fingerprint = one_row(cursor)
        # Another installation on the same machine or cluster may have a run of the same name.
        key = f"{claim.batch_id}.w{wave}.{uuid4().hex[:8]}"
        cursor.execute(
            "INSERT INTO submission (batch_id, wave, key, fingerprint, claim)"
            " VALUES (%s, %s, %s, %s, %s) RETURNING id",
            (claim.batch_id, wave, key, fingerprint, str(claim.id)),
        )
        submission_id = int(one_row(cursor)[0])
        execute_values(
            cursor,
            "INSERT INTO attempt (element_id, submission_id, number, generation, resources,"
            " log_uri) VALUES %s",
            [
                (element, submission_id, number, generation, _json(resources), log_uri)
                for element, (number, resources, log_uri) in attempts.items()
            ],
            page_size=max(1, len(attempts)),
        )
        cursor.execute(
            "UPDATE element SET state = 'running', reason = NULL, updated_at = now()"
            " WHERE id = ANY(%s)",
            (list(attempts),),
        )
    return submission_id, key


def record_submitted(db: Database, claim: Claim, submission_id: int, reference: str) -> None:
    """Record the scheduler's own id of a submission."""
    with holding(db, claim) as cursor:
        cursor.execute(
            "UPDATE submission SET state = 'submitted', reference = %s, submitted_at = now()"
            " WHERE id = %s AND state = 'intended'",
            (reference, submission_id),
        )
        cursor.execute(
            "UPDATE attempt SET state = 'submitted', submitted_at = now()"
            " WHERE submission_id = %s AND state = 'planned'",
            (submission_id,),
        )


def record_running(db: Database, claim: Claim, hosts: Mapping[int, str | None]) -> None:
    """Record that attempts were seen running: attempt id → host."""
    if not hosts:
        return
    with holding(db, claim) as cursor:
        execute_values(
            cursor,
            "UPDATE attempt SET state = 'running', started_at = now(), host = v.host"
            " FROM (VALUES %s) AS v (id, host)"
            " WHERE attempt.id = v.id AND attempt.state IN ('planned', 'submitted')",
            list(hosts.items()),
            template="(%s, %s::text)",
            page_size=len(hosts),
        )


def record_seen(db: Database, claim: Claim, attempt_ids: Sequence[int]) -> None:
    """Record that attempts that seemed to be gone are there after all."""
    if not attempt_ids:
        return
    with holding(db, claim) as cursor:
        cursor.execute(
            "UPDATE attempt SET missing_since = NULL WHERE id = ANY(%s)", (list(attempt_ids),)
        )


def record_missing(db: Database, claim: Claim, attempt_ids: Sequence[int]) -> None:
    """Record since when attempts have ended or gone without leaving a result."""
    if not attempt_ids:
        return
    with holding(db, claim) as cursor:
        cursor.execute(
            "UPDATE attempt SET missing_since = now() WHERE id = ANY(%s) AND missing_since IS NULL",
            (list(attempt_ids),),
        )


def record_ends(db: Database, claim: Claim, ends: Sequence[AttemptEnd]) -> None:
    """Record how attempts ended, what they made, and what that makes of their elements.

    A submission whose attempts have all ended is ended with them.
    """
    if not ends:
        return
    with holding(db, claim) as cursor:
        # One text of all of them: a parameter a value costs more than the rest.
        cursor.execute(_END_ATTEMPTS, (render_json([_end_row(e) for e in ends]),))
        ids = {row[0] for row in cursor.fetchall()}
        artifacts = [
            {"attempt_id": e.attempt_id, **vars(a)}
            for e in ends
            if e.attempt_id in ids
            for a in e.artifacts
        ]
        if artifacts:
            cursor.execute(_INSERT_ARTIFACTS, (render_json(artifacts),))
        cursor.execute(
            "UPDATE submission SET state = 'ended', ended_at = now() WHERE batch_id = %s"
            " AND state <> 'ended' AND NOT EXISTS (SELECT 1 FROM attempt"
            " WHERE submission_id = submission.id AND state <> 'ended')",
            (claim.batch_id,),
        )


def record_refused(db: Database, claim: Claim, submission_id: int, message: str) -> None:
    """Record that the backend refused a submission for good."""
    with holding(db, claim) as cursor:
        cursor.execute(
            "SELECT id FROM attempt WHERE submission_id = %s AND state <> 'ended'",
            (submission_id,),
        )
        refused = [AttemptEnd(row[0], Outcome.INVALID_INPUT, message=message) for row in cursor]
    record_ends(db, claim, refused)


def record_cancelled(db: Database, claim: Claim) -> None:
    """Record, before the scheduler is asked, that we cancel all that the batch has open."""
    with holding(db, claim) as cursor:
        cursor.execute(
            "UPDATE submission SET cancelled_at = now() WHERE batch_id = %s AND state <> 'ended'"
            " AND cancelled_at IS NULL",
            (claim.batch_id,),
        )


def record_stopped(db: Database, claim: Claim, state: str, reason: str) -> None:
    """Settle elements that are not to be tried again although they have no attempt of their own."""
    with holding(db, claim) as cursor:
        cursor.execute(
            "UPDATE element SET state = %s, reason = %s, updated_at = now()"
            " WHERE batch_id = %s AND state IN ('pending', 'running')",
            (state, reason, claim.batch_id),
        )


def record_degraded(db: Database, claim: Claim, trouble: str | None) -> None:
    """Record what does not answer while a batch waits for it; None when it answers again."""
    with holding(db, claim) as cursor:
        cursor.execute(
            "UPDATE batch SET degraded = %s, degraded_since = CASE WHEN %s IS NULL THEN NULL"
            " ELSE coalesce(degraded_since, now()) END, heartbeat_at = now() WHERE id = %s",
            (trouble, trouble, claim.batch_id),
        )


def record_told(db: Database, claim: Claim, told: Mapping[int, int]) -> None:
    """Record up to which byte the logs of attempts were told: attempt id → offset."""
    if not told:
        return
    with holding(db, claim) as cursor:
        execute_values(
            cursor,
            "UPDATE attempt SET log_told = v.told FROM (VALUES %s) AS v (id, told)"
            " WHERE attempt.id = v.id",
            list(told.items()),
            page_size=len(told),
        )


def _read_frozen(cursor: Cursor, batch_id: str, fingerprint: str) -> Batch:
    """Read a batch, unless it is held here: of 200 elements it takes longer than all else."""
    batch = _KNOWN.get((batch_id, fingerprint))
    if batch is None:
        cursor.execute("SELECT spec FROM batch WHERE id = %s", (batch_id,))
        batch = Batch.model_validate(one_row(cursor)[0])
        _KNOWN[batch_id, fingerprint] = batch
    return batch


def _end_row(end: AttemptEnd) -> dict[str, Any]:
    """Say by name what is recorded of an end, as _END_ATTEMPTS reads it."""
    return {
        "id": end.attempt_id,
        "outcome": end.outcome.value,
        "exit_code": end.exit_code,
        "signal": end.signal,
        "host": end.host,
        "seconds": _finite(end.seconds),
        "max_rss_mib": _finite(end.max_rss_mib),
        "error_class": end.error_class,
        "message": end.message,
        "facts": end.facts or {},
        "started_at": end.started_at and end.started_at.isoformat(),
        "log_uri": end.log_uri,
    }


def _read_submissions(cursor: Cursor, batch_id: str) -> tuple[Submission, ...]:
    cursor.execute(_SUBMISSIONS, (batch_id,))
    return tuple(
        Submission(id_, key, UUID(claim), *rest) for id_, key, claim, *rest in cursor.fetchall()
    )


def _read_elements(cursor: Cursor, batch_id: str) -> tuple[ElementRecord, ...]:
    cursor.execute(_ATTEMPTS, (batch_id,))
    attempts: dict[int, list[Attempt]] = {}
    for element_id, *columns in cursor.fetchall():
        attempts.setdefault(element_id, []).append(_attempt(columns))
    cursor.execute(_ELEMENTS, (batch_id,))
    return tuple(
        ElementRecord(id_, index, name, state, tuple(attempts.get(id_, ())))
        for id_, index, name, state in cursor.fetchall()
    )


def _attempt(columns: Sequence[Any]) -> Attempt:
    id_, submission, number, generation, state, outcome, resources, *rest = columns
    host, missing, ended, text, told, seconds = rest
    return Attempt(
        id=id_,
        submission_id=submission,
        number=number,
        generation=generation,
        state=AttemptState(state),
        outcome=Outcome(outcome) if outcome else None,
        resources=_parse_resources(resources),
        host=host,
        missing_since=missing,
        ended_at=ended,
        message=text,
        log_told=told,
        seconds=seconds,
    )


@lru_cache(maxsize=1024)
def _parse_resources(text: str) -> Resources:
    """Parse what attempts had; most of them had the same."""
    return Resources.model_validate_json(text)


def _json(resources: Resources) -> str:
    return json.dumps(resources.model_dump(mode="json"))


def _finite(value: float | None) -> float | None:
    """Leave out what is no number: JSON has no word for it."""
    return value if value is not None and isfinite(value) else None
