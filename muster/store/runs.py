"""Runs in the store: opened, planned, ended; and what a person asks about them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg2.extras import execute_values

from muster.errors import InvalidInput, MissingInput
from muster.store.elements import element_row, upsert_elements
from muster.store.records import Run, RunState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from muster.model.batch import Batch
    from muster.model.coordinates import Coordinates
    from muster.model.plan import PlannedElement
    from muster.store.database import Database

RUN_COLUMNS = (
    "id, workflow, state, params, work_uri, interval_start, interval_end, facts, message,"
    " created_at, planned_at, ended_at, campaign_id"
)
"""Columns of a run, as :func:`make_run` takes them."""

_UPSERT_BATCH = """
    INSERT INTO batch (id, run_id, step, group_name, backend, pool, spec, fingerprint) VALUES %%s
    ON CONFLICT (id) DO UPDATE SET
        spec = excluded.spec, fingerprint = excluded.fingerprint, backend = excluded.backend,
        pool = excluded.pool, generation = batch.generation + 1, generation_started_at = now()
    WHERE batch.fingerprint <> excluded.fingerprint OR %(again)s
    RETURNING id
"""


@dataclass(frozen=True)
class ElementStatus:
    """One line of a run's status: the element, and its newest attempt where it has one."""

    step: str
    group: str
    name: str
    state: str
    reason: str | None
    batch_id: str | None
    attempts: int
    host: str | None
    seconds: float | None
    max_rss_mib: float | None
    message: str | None
    log_uri: str | None
    started_at: datetime | None = None
    progress: float | None = None
    progress_message: str | None = None
    progress_at: datetime | None = None
    eta_at: datetime | None = None
    backend: str | None = None
    reference: str | None = None
    degraded: str | None = None


@dataclass(frozen=True)
class Degraded:
    """A batch that waits for something that does not answer, and since when."""

    group: str
    step: str
    trouble: str
    since: datetime


def open_run(
    db: Database,
    run_id: str,
    *,
    workflow: str,
    params: Mapping[str, Any],
    work_uri: str,
    interval: tuple[datetime, datetime] | None = None,
    campaign_id: int | None = None,
) -> Run:
    """Create a run, or open an existing one again with new parameters.

    A run stays with the campaign that it was first opened for, where it is opened for none.
    """
    start, end = interval or (None, None)
    with db.transaction() as cursor:
        cursor.execute(
            "INSERT INTO run (id, workflow, params, work_uri, interval_start, interval_end,"
            " campaign_id) VALUES (%s, %s, %s, %s, %s, %s, %s)"
            " ON CONFLICT (id) DO UPDATE SET state = 'open', params = excluded.params,"
            " work_uri = excluded.work_uri, interval_start = excluded.interval_start,"
            " interval_end = excluded.interval_end, planned_at = NULL, ended_at = NULL,"
            " message = NULL, campaign_id = coalesce(excluded.campaign_id, run.campaign_id)",
            (run_id, workflow, json.dumps(params), work_uri, start, end, campaign_id),
        )
    return read_run(db, run_id)


def create_batches(
    db: Database,
    batches: Sequence[tuple[str, Batch]],
    *,
    again: bool = False,
    coordinates: Mapping[str, Sequence[Coordinates | None]] | None = None,
) -> None:
    """Put batches with all their elements into the store: (group, batch) pairs.

    A batch that is there already and unchanged keeps its record, unless it is to run ``again``.

    Parameters
    ----------
    coordinates : mapping, optional
        Batch id → coordinates of its elements, in the order of their index.
    """
    located = coordinates or {}
    rows = []
    for group, b in batches:
        spec = b.to_json()  # rendered once: it takes longer than all else
        fingerprint = hashlib.sha256(spec.encode()).hexdigest()
        rows.append((b.id, b.run, b.step, group, b.backend, b.pool, spec, fingerprint))
    with db.transaction() as cursor:
        changed = execute_values(
            cursor, cursor.mogrify(_UPSERT_BATCH, {"again": again}).decode(), rows, fetch=True
        )
        upsert_elements(
            cursor,
            [
                element_row(*(b.run, b.id, b.step, group, e.name, e.index, "pending", None), where)
                for group, b in batches
                for e, where in zip(
                    b.elements, located.get(b.id) or [None] * len(b.elements), strict=True
                )
            ],
            [row[0] for row in changed],
        )


def record_plan(
    db: Database, run_id: str, settled: Sequence[PlannedElement], facts: Mapping[str, Any]
) -> None:
    """Record that a run is planned, with the elements that are not to be run and why.

    Parameters
    ----------
    settled : sequence of PlannedElement
        Elements whose decision is not to run.
    facts : mapping
        What the inspection learnt.
    """
    with db.transaction() as cursor:
        if settled:
            upsert_elements(
                cursor,
                [
                    element_row(
                        *(run_id, None, e.step, e.group, e.name, None, e.decision.value, e.reason),
                        e.coordinates,
                    )
                    for e in settled
                ],
                [],
            )
        cursor.execute(
            "UPDATE run SET state = 'planned', planned_at = now(), facts = %s WHERE id = %s",
            (json.dumps(facts), run_id),
        )


def end_run(db: Database, run_id: str, state: RunState, message: str) -> None:
    """Record how a run ended."""
    with db.transaction() as cursor:
        cursor.execute(
            "UPDATE run SET state = %s, message = %s, ended_at = now() WHERE id = %s",
            (state.value, message, run_id),
        )
        cursor.execute(
            "INSERT INTO event (run_id, kind, message) VALUES (%s, 'verdict', %s)",
            (run_id, message),
        )


def record_fact(db: Database, run_id: str, name: str, value: Any) -> None:
    """Add one fact to what is known of a run, in the place of an older one of the name."""
    with db.transaction() as cursor:
        cursor.execute(
            "UPDATE run SET facts = facts || jsonb_build_object(%s::text, %s::jsonb) WHERE id = %s",
            (name, json.dumps(value), run_id),
        )


def record_event(db: Database, run_id: str, kind: str, message: str) -> None:
    """Record that something happened to a run that changes none of its states."""
    with db.transaction() as cursor:
        cursor.execute(
            "INSERT INTO event (run_id, kind, message) VALUES (%s, %s, %s)",
            (run_id, kind, message),
        )


def read_groups(db: Database, run_id: str) -> dict[str, dict[str, str]]:
    """Read a run's batches: group → step → batch id, in the order in which they were planned."""
    with db.transaction() as cursor:
        cursor.execute(
            "SELECT group_name, step, id FROM batch WHERE run_id = %s ORDER BY created_at, id",
            (run_id,),
        )
        groups: dict[str, dict[str, str]] = {}
        for group, step, batch_id in cursor.fetchall():
            groups.setdefault(group, {})[step] = batch_id
    return groups


def read_degraded(db: Database, run_id: str) -> list[Degraded]:
    """Read which batches of a run wait for something that does not answer."""
    with db.transaction() as cursor:
        cursor.execute(
            "SELECT b.group_name, b.step, b.degraded, b.degraded_since FROM batch b"
            " JOIN run r ON r.id = b.run_id WHERE r.id = %s AND r.ended_at IS NULL"
            " AND b.degraded IS NOT NULL ORDER BY b.degraded_since, b.id",
            (run_id,),
        )
        return [Degraded(*row) for row in cursor.fetchall()]


def find_done_detached(db: Database, run_id: str | None = None) -> list[str]:
    """List runs that were submitted to be left alone and of which everything has ended well."""
    with db.transaction() as cursor:
        cursor.execute(
            "SELECT r.id FROM run r WHERE r.state = 'planned' AND r.id = coalesce(%s, r.id)"
            " AND EXISTS (SELECT 1 FROM batch WHERE run_id = r.id AND detached)"
            " AND NOT EXISTS (SELECT 1 FROM element WHERE run_id = r.id"
            "                 AND state NOT IN ('succeeded', 'reused', 'not_asked')) ORDER BY r.id",
            (run_id,),
        )
        return [row[0] for row in cursor.fetchall()]


def read_clusters_elsewhere(db: Database, run_id: str) -> list[str]:
    """Name the clusters of a run's batches that do not see the work directory of this side."""
    with db.transaction() as cursor:
        cursor.execute(
            "SELECT DISTINCT spec -> batch.backend -> 'cluster' ->> 'name' FROM batch"
            " WHERE run_id = %s AND spec -> batch.backend ->> 'work_root' IS NOT NULL ORDER BY 1",
            (run_id,),
        )
        return [name for (name,) in cursor.fetchall()]


def reopen_run(db: Database, run_id: str) -> None:
    """Record that somebody goes on with a run that was over."""
    with db.transaction() as cursor:
        cursor.execute(
            "UPDATE run SET state = 'planned', ended_at = NULL, message = NULL"
            " WHERE id = %s AND planned_at IS NOT NULL",
            (run_id,),
        )
        cursor.execute(
            "INSERT INTO event (run_id, kind, message) VALUES (%s, 'retry', 'reopened')", (run_id,)
        )


def read_run(db: Database, run_id: str) -> Run:
    """Read a run by its id.

    Raises
    ------
    MissingInput
        When there is none.
    """
    with db.transaction() as cursor:
        cursor.execute(f"SELECT {RUN_COLUMNS} FROM run WHERE id = %s", (run_id,))
        row = cursor.fetchone()
    if row is None:
        raise MissingInput("the store knows no such run", got=run_id)
    return make_run(row)


def end_abandoned(db: Database, silent_for_s: float) -> list[str]:
    """End the runs that nobody has gone on with for so many seconds, and return their ids.

    Airflow tells nobody when a run is marked failed: its verdict is skipped.  A run that is only
    waiting for Airflow loses nothing: what it still runs is recorded, and its verdict stands.
    """
    with db.transaction() as cursor:
        cursor.execute(
            """
            UPDATE run SET state = 'cancelled', ended_at = now(),
                           message = 'nobody went on with it; ended by the reconciler'
            WHERE state IN ('open', 'planned')
              AND greatest(created_at, planned_at, (SELECT max(greatest(heartbeat_at, claimed_at))
                           FROM batch WHERE run_id = run.id)) < now() - make_interval(secs => %s)
              AND NOT EXISTS (SELECT 1 FROM submission s JOIN batch b ON b.id = s.batch_id
                              WHERE b.run_id = run.id AND s.state <> 'ended')
              AND NOT EXISTS (SELECT 1 FROM batch WHERE run_id = run.id AND detached)
            RETURNING id
            """,
            (silent_for_s,),
        )
        ended = sorted(row[0] for row in cursor.fetchall())
        cursor.execute(
            "UPDATE element SET state = 'cancelled', updated_at = now()"
            " WHERE run_id = ANY(%s) AND state = 'pending'",
            (ended,),
        )
        cursor.execute(
            "INSERT INTO event (run_id, kind, message)"
            " SELECT unnest(%s::text[]), 'reconcile', 'nobody went on with it'",
            (ended,),
        )
    return ended


def find_run(db: Database, text: str) -> Run:
    """Find a run as a person names it: by its id, or by a part of it that only one run has.

    Raises
    ------
    MissingInput
        When no run fits.
    InvalidInput
        When several do.
    """
    with db.transaction() as cursor:
        cursor.execute(
            f"SELECT {RUN_COLUMNS} FROM run WHERE position(%s in id) > 0"
            " ORDER BY id = %s DESC, created_at DESC LIMIT 6",
            (text, text),
        )
        rows = cursor.fetchall()
    if not rows:
        raise MissingInput(
            "the store knows no such run", got=text, do="list runs with 'muster status'"
        )
    if len(rows) > 1 and rows[0][0] != text:
        names = ", ".join(row[0] for row in rows)
        raise InvalidInput("several runs fit", got=text, expected=f"one of {names}")
    return make_run(rows[0])


def list_runs(db: Database, limit: int = 20) -> list[Run]:
    """List the newest runs, newest first."""
    with db.transaction() as cursor:
        cursor.execute(f"SELECT {RUN_COLUMNS} FROM run ORDER BY created_at DESC LIMIT %s", (limit,))
        return [make_run(row) for row in cursor.fetchall()]


def read_status(db: Database, run_id: str) -> list[ElementStatus]:
    """Read every element of a run with its newest attempt, in the order of group and step."""
    with db.transaction() as cursor:
        cursor.execute(
            """
            SELECT e.step, e.group_name, e.name,
                   CASE WHEN e.state = 'running' AND a.state IN ('planned', 'submitted')
                        THEN 'waiting' ELSE e.state END,
                   e.reason, e.batch_id,
                   coalesce(a.number, 0), a.host, a.seconds, a.max_rss_mib, a.message, a.log_uri,
                   a.started_at, a.progress, a.progress_message, a.progress_at, a.eta_at,
                   b.backend, s.reference, b.degraded
            FROM element e LEFT JOIN LATERAL (
                SELECT * FROM attempt WHERE element_id = e.id ORDER BY number DESC LIMIT 1
            ) a ON true
            LEFT JOIN submission s ON s.id = a.submission_id
            LEFT JOIN batch b ON b.id = e.batch_id
            WHERE e.run_id = %s ORDER BY e.group_name, e.id
            """,
            (run_id,),
        )
        return [ElementStatus(*row) for row in cursor.fetchall()]


def read_log_uris(db: Database, run_id: str, name: str) -> list[tuple[str, int, str, str]]:
    """List an element's logs: (step, attempt number, outcome or state, log URI), oldest first."""
    with db.transaction() as cursor:
        cursor.execute(
            "SELECT e.step, a.number, coalesce(a.outcome, a.state), a.log_uri"
            " FROM attempt a JOIN element e ON e.id = a.element_id"
            " WHERE e.run_id = %s AND e.name = %s ORDER BY a.id",
            (run_id, name),
        )
        return list(cursor.fetchall())


def make_run(row: tuple[Any, ...]) -> Run:
    """Make a run of a row of ``RUN_COLUMNS``."""
    values = list(row)
    values[2] = RunState(values[2])
    return Run(*values)
