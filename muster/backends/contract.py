"""What a backend is: five verbs that the supervisor speaks, and nothing else.

A backend keeps no record.  It may remember what it started to be quicker, but whatever it is asked
it must be able to answer after a restart, from the submission key alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from muster.backends.attempt_log import CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from muster.model.batch import Batch
    from muster.model.outcome import Observation
    from muster.model.wave import Wave


class Backend(Protocol):
    """A place where attempts run."""

    @property
    def result_grace_s(self) -> float:
        """How long a result file may lag behind the end of its job, in seconds."""
        ...

    @property
    def degraded_reason(self) -> str | None:
        """What does not answer, although the rest does and work goes on."""
        ...

    async def close(self) -> None:
        """Let go of connections and the like; what runs goes on where it outlives this process."""
        ...

    async def wait_for_change(self) -> None:
        """Return when another look may show something new."""
        ...

    async def free_slots(self, batch: Batch) -> int | None:
        """Say how many elements one more wave of a batch may have now; None without a limit."""
        ...

    async def acquire_submit_slot(self) -> None:
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
