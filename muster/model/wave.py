"""A wave: the attempts of a batch that are submitted together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from muster.model.batch import Batch
    from muster.model.resources import Resources


RequiredEnd = Literal["ok", "any"]
"""How a submission must have ended that another one depends on."""


@dataclass(frozen=True)
class Wave:
    """Elements of a batch that are submitted together.

    Attributes
    ----------
    batch : Batch
        The batch, as frozen.
    key : str
        Submission key: unique, and visible in the scheduler's own record of the job.
    attempts : mapping of int to int
        Element index → attempt number.
    resources : Resources
        What each element gets; equal for all of a wave.
    excluded_hosts : sequence of str
        Where these elements must not run again.
    submitted : sequence of int
        Indexes of all elements that were submitted with this wave, those included that have ended
        since; empty where none has.
    depends_on : mapping of {"ok", "any"} to sequence of str
        References of submissions that must have ended before: well, or in any way.
    intended_at, submitted_at : datetime or None
        When the intent was committed, and when the scheduler's answer was, by the store's clock.
    longest_s : float or None
        How long the longest attempt of the batch that did well has taken, in seconds.
    """

    batch: Batch
    key: str
    attempts: Mapping[int, int]
    resources: Resources
    excluded_hosts: Sequence[str] = ()
    submitted: Sequence[int] = ()
    depends_on: Mapping[RequiredEnd, Sequence[str]] = field(default_factory=dict)
    intended_at: datetime | None = None
    submitted_at: datetime | None = None
    longest_s: float | None = None

    @property
    def order(self) -> tuple[int, ...]:
        """Element indexes in the order of submission: an element's place is that of its job."""
        return tuple(sorted(self.submitted or self.attempts))
