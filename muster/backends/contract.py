"""What a backend is: five verbs that the supervisor speaks, and nothing else.

A backend keeps no record.  It may remember what it started to be quicker, but whatever it is asked
it must be able to answer after a restart, from the submission key alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from muster.jobs.model import Batch, Resources
    from muster.jobs.outcome import Observation


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
    after : mapping of str to sequence of str
        What must have ended before, in the scheduler's own words: ``afterok`` or ``afterany`` →
        references of submissions.
    intended_at, submitted_at : datetime or None
        When the intent was committed, and when the scheduler's answer was, by the store's clock.
    """

    batch: Batch
    key: str
    attempts: Mapping[int, int]
    resources: Resources
    excluded_hosts: Sequence[str] = ()
    after: Mapping[str, Sequence[str]] = field(default_factory=dict)
    intended_at: datetime | None = None
    submitted_at: datetime | None = None


class Backend(Protocol):
    """A place where attempts run.

    Attributes
    ----------
    result_grace_s : float
        How long a result file may lag behind the end of its job, in seconds.
    """

    result_grace_s: float

    async def news(self) -> None:
        """Return when another look may show something new."""
        ...

    async def room(self, batch: Batch) -> int | None:
        """Say how many elements one more wave of a batch may have now; None without a limit."""
        ...

    async def find(self, wave: Wave) -> str | None:
        """Look a submission up by its key; its reference, or None where it was never submitted.

        Raises
        ------
        Transient
            When the scheduler does not answer.
        """
        ...

    async def submit(self, wave: Wave) -> str:
        """Submit a wave and return the scheduler's reference.

        Raises
        ------
        Transient
            When it is not known whether the scheduler has taken it: look it up before trying again.
        InvalidInput
            When the scheduler refused it for good.
        """
        ...

    async def observe(self, wave: Wave, reference: str) -> Mapping[int, Observation]:
        """Say of every element of a submitted wave how its job is; UNKNOWN where nobody answers."""
        ...

    async def cancel(self, wave: Wave, reference: str | None) -> None:
        """End a wave's jobs, whoever started them, and return when they have ended.

        Raises
        ------
        Transient
            When that could not be verified.
        """
        ...

    async def read_log(self, batch: Batch, index: int, attempt: int, offset: int) -> bytes:
        """Return an attempt's log from a byte offset on; empty where there is no more."""
        ...
