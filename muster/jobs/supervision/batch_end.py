"""How a batch stands, for who supervised it and for who only reads."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from muster.model.outcome import Outcome
from muster.store import batches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from muster.store.database import Database
    from muster.store.records import BatchRecord, ElementRecord


@dataclass(frozen=True)
class ElementEnd:
    """How one element stands when its batch is over.

    ``log_told`` is how much of its last attempt's log the supervisor has told, in bytes.
    """

    name: str
    state: str
    attempts: int
    message: str | None
    log_told: int = 0


LONGEST_SILENCE_S = 150.0
"""Who supervises a batch is not silent for so long."""


@dataclass(frozen=True)
class BatchEnd:
    """How a batch stands when nothing of it is left to be run.

    ``heartbeat_age_s`` is the age of the last heartbeat, for callers that do not supervise it.
    """

    batch_id: str
    elements: tuple[ElementEnd, ...]
    heartbeat_age_s: float | None = None

    @property
    def over(self) -> bool:
        """Whether nobody goes on with it: an element between two attempts has ended, too."""
        silent = self.heartbeat_age_s is None or self.heartbeat_age_s > LONGEST_SILENCE_S
        return self.settled and (self.succeeded or silent)

    @property
    def succeeded(self) -> bool:
        """Whether every element has succeeded."""
        return all(e.state == Outcome.SUCCEEDED for e in self.elements)

    @property
    def settled(self) -> bool:
        """Whether no element is waiting or running."""
        return all(e.state not in ("pending", "running") for e in self.elements)

    @property
    def failures(self) -> tuple[ElementEnd, ...]:
        """The elements that have not succeeded."""
        return tuple(e for e in self.elements if e.state != Outcome.SUCCEEDED)

    def describe(self) -> str:
        """Say in one line how many elements ended how, and why the first failed."""
        counts = Counter(element.state for element in self.elements)
        text = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
        if self.failures:
            first = self.failures[0]
            text += f"; {first.name}: {first.message or first.state}"
        return text


def read_end(db: Database, batch_id: str) -> BatchEnd:
    """Read how a batch stands, for who did not supervise it."""
    end = end_of(batch_id, batches.read_elements(db, batch_id))
    return replace(end, heartbeat_age_s=batches.read_heartbeat_age_s(db, batch_id))


def find_stop_reason(record: BatchRecord) -> tuple[Outcome, str] | None:
    """Return why nothing more may be submitted, as outcome and reason; None while it may."""
    if record.cancel_requested:
        return Outcome.CANCELLED, "cancelled"
    deadline_s = record.batch.deadline_s
    age_s = (record.now - record.generation_started_at).total_seconds()
    if deadline_s is not None and age_s > deadline_s:
        return Outcome.TIMED_OUT, f"the batch's deadline of {deadline_s} s has passed"
    return None


def end_of(batch_id: str, elements: Sequence[ElementRecord]) -> BatchEnd:
    """Say how a batch stands by its elements."""
    return BatchEnd(
        batch_id,
        tuple(
            ElementEnd(
                name=element.name,
                state=element.state,
                attempts=max((a.number for a in element.attempts), default=0),
                message=element.attempts[-1].message if element.attempts else None,
                log_told=element.attempts[-1].log_told if element.attempts else 0,
            )
            for element in elements
        ),
    )
