"""What a backend is: five verbs that the supervisor speaks, and nothing else.

A backend keeps no record.  It may remember what it started to be quicker, but whatever it is asked
it must be able to answer after a restart, from the submission key alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from muster.jobs.element_log import CHUNK_BYTES

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
    submitted : sequence of int
        Indexes of all elements that were submitted with this wave, those included that have ended
        since; empty where none has.
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
    submitted: Sequence[int] = ()
    after: Mapping[str, Sequence[str]] = field(default_factory=dict)
    intended_at: datetime | None = None
    submitted_at: datetime | None = None

    @property
    def order(self) -> tuple[int, ...]:
        """Element indexes in the order of submission: an element's place is that of its job."""
        return tuple(sorted(self.submitted or self.attempts))


class Backend(Protocol):
    """A place where attempts run."""

    @property
    def result_grace_s(self) -> float:
        """How long a result file may lag behind the end of its job, in seconds."""
        ...

    @property
    def trouble(self) -> str | None:
        """What does not answer, although the rest does and work goes on."""
        ...

    async def close(self) -> None:
        """Let go of connections and the like; what runs goes on where it outlives this process."""
        ...

    async def news(self) -> None:
        """Return when another look may show something new."""
        ...

    async def room(self, batch: Batch) -> int | None:
        """Say how many elements one more wave of a batch may have now; None without a limit."""
        ...

    async def turn(self) -> None:
        """Return when one more submission may be made."""
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

    async def read_log(
        self, batch: Batch, index: int, attempt: int, offset: int, limit: int = CHUNK_BYTES
    ) -> bytes:
        """Return at most so many bytes of an attempt's log from an offset on; none: no more."""
        ...
