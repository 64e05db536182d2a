"""What was tried, in a run or of a step, for whoever tells of it rather than goes on with it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from muster.model.outcome import Outcome
from muster.model.resources import Caps, Resources
from muster.store.records import AttemptState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from muster.store.database import Database

# What a batch was frozen with is long: it is looked into once a batch, not once an attempt.
_TRIED = """
    WITH placed AS MATERIALIZED (
        SELECT id, backend, pool, (batch.spec -> batch.backend ->> 'ntasks')::int AS ranks,
               (batch.spec -> batch.backend ->> 'nodes')::int AS nodes
        FROM batch WHERE run_id = %(run)s
    )
    SELECT e.step, e.group_name, e.name, a.number, a.generation, a.state, a.outcome, a.resources,
           b.backend, b.pool, a.host, a.seconds, a.max_rss_mib, a.exit_code, a.signal,
           a.error_class, a.message, a.facts, a.log_uri, a.planned_at, a.submitted_at,
           a.started_at, a.ended_at, coalesce(b.ranks, 1), coalesce(b.nodes, 1)
    FROM attempt a
    JOIN element e ON e.id = a.element_id
    JOIN submission s ON s.id = a.submission_id
    JOIN placed b ON b.id = s.batch_id
    WHERE e.run_id = %(run)s ORDER BY a.id
"""

_PLACED = """
    SELECT DISTINCT ON (step, pool) step, pool, spec -> 'caps', spec -> 'deadline_s'
    FROM batch WHERE run_id = %s ORDER BY step, pool, generation_started_at DESC, id
"""

# The newest batches tell best how long a step takes now; they also keep the query short in a
# store of many years, as each table below is reached by an index.
_TOOK = """
    SELECT newest.step, (a.resources ->> 'cpus')::int, (a.resources ->> 'gpus')::int,
           array_agg(a.seconds ORDER BY a.id), newest.ranks
    FROM unnest(%(steps)s::text[], %(inputs)s::jsonb[]) AS wanted (step, inputs)
    CROSS JOIN LATERAL (
        SELECT recent.id, recent.step,
               coalesce((recent.spec -> recent.backend ->> 'ntasks')::int, 1) AS ranks
        FROM (
            SELECT id, step, backend, spec FROM batch WHERE batch.step = wanted.step
            ORDER BY generation_started_at DESC LIMIT %(recent)s
        ) AS recent
        WHERE wanted.inputs = '{}'
           OR (recent.spec #> '{elements,0,inputs}')::jsonb @> wanted.inputs
        LIMIT %(newest)s
    ) AS newest
    JOIN submission s ON s.batch_id = newest.id
    JOIN attempt a ON a.submission_id = s.id
    WHERE a.outcome = 'succeeded' AND a.seconds IS NOT NULL
    GROUP BY 1, 2, 3, newest.ranks
"""

NEWEST_BATCHES = 100
"""Batches of a step that say how long it takes."""

RECENT_BATCHES = 1000
"""Batches of a step among which those of one kind are looked for."""


@dataclass(frozen=True)
class TriedAttempt:
    """One try of one element, with what it asked for, what it used, and how it ended.

    Attributes
    ----------
    step, group, element : str
        What was tried.
    number, generation : int
        Which try it was, from 1, and in which fresh start of its batch.
    state : AttemptState
        How far it has come.
    outcome : Outcome or None
        How it ended; None while it has not.
    resources : Resources
        What it asked for.
    backend, pool : str
        Where it was sent.
    host : str or None
        Where it ran, as far as known.
    seconds, max_rss_mib : float or None
        What it used: wall time in seconds, peak memory in MiB.
    exit_code, signal : int or None
        How its process ended.
    error_class, message : str or None
        Why it failed.
    facts : dict
        What the step said of its work.
    log_uri : str or None
        Where its output went.
    planned_at, submitted_at, started_at, ended_at : datetime
        In UTC; all but the first may be None.
    ranks, nodes : int
        What held its resources: the CPUs are those of each rank, GPUs and memory of each node.
    """

    step: str
    group: str
    element: str
    number: int
    generation: int
    state: AttemptState
    outcome: Outcome | None
    resources: Resources
    backend: str
    pool: str
    host: str | None
    seconds: float | None
    max_rss_mib: float | None
    exit_code: int | None
    signal: int | None
    error_class: str | None
    message: str | None
    facts: dict[str, Any]
    log_uri: str | None
    planned_at: datetime
    submitted_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    ranks: int = 1
    nodes: int = 1

    @property
    def waited_s(self) -> float | None:
        """Seconds from its submission to its start, where both are known."""
        if self.submitted_at is None or self.started_at is None:
            return None
        return max(0.0, (self.started_at - self.submitted_at).total_seconds())

    @property
    def cpu_hours(self) -> float | None:
        """What it occupied: its wall time on as many CPUs as its ranks asked for, in hours."""
        return None if self.seconds is None else self.seconds * self.cpus / 3600

    @property
    def cpus(self) -> int:
        """CPUs of all its ranks."""
        return self.resources.cpus * self.ranks


def read_tried(db: Database, run_id: str) -> list[TriedAttempt]:
    """Read every attempt of a run, of all its elements and generations, oldest first."""
    with db.transaction() as cursor:
        cursor.execute(_TRIED, {"run": run_id})
        return [_tried(row) for row in cursor.fetchall()]


@dataclass(frozen=True)
class PlacedStep:
    """Where a step of a run was sent, by the newest of its batches.

    Attributes
    ----------
    step, pool : str
        What was sent where.
    caps : Caps
        The most that the pool gave one element.
    deadline_s : int or None
        How long a batch might take with all its retries, in seconds.
    """

    step: str
    pool: str
    caps: Caps
    deadline_s: int | None


def read_placed(db: Database, run_id: str) -> list[PlacedStep]:
    """Read where the steps of a run were sent: one row a step and pool."""
    with db.transaction() as cursor:
        cursor.execute(_PLACED, (run_id,))
        return [
            PlacedStep(step, pool, Caps.model_validate(caps or {}), deadline_s)
            for step, pool, caps, deadline_s in cursor.fetchall()
        ]


@dataclass(frozen=True)
class Took:
    """How long succeeded attempts of a step took with the same CPUs, GPUs and ranks.

    Attributes
    ----------
    step : str
        The step.
    cpus, gpus : int
        What each of them had.
    seconds : tuple of float
        Their wall times, oldest first.
    ranks : int
        How many ranks each of them had, with so many CPUs each.
    """

    step: str
    cpus: int
    gpus: int
    seconds: tuple[float, ...]
    ranks: int = 1


def read_took(
    db: Database, steps: Sequence[str], alike: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Took]:
    """Read how long steps took in their newest batches, over all runs of the store.

    Parameters
    ----------
    alike : mapping, optional
        Step → inputs that the first element of a batch must have had, for the batch to count.
    """
    names = sorted(set(steps))
    inputs = [json.dumps((alike or {}).get(name, {})) for name in names]
    limits = {"newest": NEWEST_BATCHES, "recent": RECENT_BATCHES}
    with db.transaction() as cursor:
        cursor.execute(_TOOK, {"steps": names, "inputs": inputs, **limits})
        return [
            Took(step, cpus, gpus or 0, tuple(seconds), ranks)
            for step, cpus, gpus, seconds, ranks in cursor.fetchall()
        ]


def _tried(row: tuple[Any, ...]) -> TriedAttempt:
    values = list(row)
    values[5] = AttemptState(values[5])
    values[6] = Outcome(values[6]) if values[6] else None
    values[7] = Resources.model_validate(values[7])
    return TriedAttempt(*values)
