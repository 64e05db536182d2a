"""What the store's reads return: one frozen row type a table, states as enums."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from muster.model.attempt import Artifact
    from muster.model.batch import Batch
    from muster.model.outcome import Outcome
    from muster.model.resources import Resources


class RunState(StrEnum):
    """State of a run."""

    OPEN = "open"
    PLANNED = "planned"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class AttemptState(StrEnum):
    """State of an attempt; it moves forward only."""

    PLANNED = "planned"
    SUBMITTED = "submitted"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True)
class Run:
    """One run of a workflow."""

    id: str
    workflow: str
    state: RunState
    params: dict[str, Any]
    work_uri: str
    interval_start: datetime | None
    interval_end: datetime | None
    facts: dict[str, Any]
    message: str | None
    created_at: datetime
    planned_at: datetime | None
    ended_at: datetime | None
    campaign_id: int | None = None


@dataclass(frozen=True)
class Claim:
    """The right to submit, record and cancel for one batch, until somebody takes it over."""

    batch_id: str
    id: UUID


@dataclass(frozen=True)
class Submission:
    """One wave handed to a backend, or about to be."""

    id: int
    key: str
    claim: UUID
    fingerprint: str
    reference: str | None
    intended_at: datetime
    submitted_at: datetime | None
    cancelled: bool

    @property
    def submitted(self) -> bool:
        """Whether the backend has confirmed that it took it."""
        return self.submitted_at is not None


@dataclass(frozen=True)
class Attempt:
    """One try of one element."""

    id: int
    submission_id: int
    number: int
    generation: int
    state: AttemptState
    outcome: Outcome | None
    resources: Resources
    host: str | None
    missing_since: datetime | None
    ended_at: datetime | None
    message: str | None
    log_told: int = 0
    seconds: float | None = None


@dataclass(frozen=True)
class ElementRecord:
    """An element of a batch with all its attempts, oldest first."""

    id: int
    index: int
    name: str
    state: str
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True)
class BatchRecord:
    """All that a supervisor needs to know of a batch."""

    batch: Batch
    generation: int
    generation_started_at: datetime
    cancel_requested: bool
    degraded: str | None
    submissions: tuple[Submission, ...]
    elements: tuple[ElementRecord, ...]
    now: datetime


@dataclass(frozen=True)
class AttemptEnd:
    """How an attempt ended, ready to be recorded."""

    attempt_id: int
    outcome: Outcome
    exit_code: int | None = None
    signal: int | None = None
    host: str | None = None
    seconds: float | None = None
    max_rss_mib: float | None = None
    error_class: str | None = None
    message: str | None = None
    facts: dict[str, Any] | None = None
    started_at: datetime | None = None
    artifacts: tuple[Artifact, ...] = ()
    log_uri: str | None = None
