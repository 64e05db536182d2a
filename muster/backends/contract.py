"""What a backend is: the verbs that the supervisor speaks, and nothing else.

Five are about a submission, known by its key: ``find``, ``submit``, ``observe``, ``cancel`` and
``read_log``.  Three say when to speak: ``wait_for_change`` before another observation,
``free_slots`` for how much may be submitted now, ``acquire_submit_slot`` for how fast.  ``close``
lets go of connections.

A backend keeps no record.  It may remember what it started to be quicker, but after a restart it
answers each verb from the submission key alone.
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
        """Which source does not answer while the others do and work goes on; None: all answer."""
        ...

    async def close(self) -> None:
        """Let go of connections; jobs go on where they outlive this process."""
        ...

    async def wait_for_change(self) -> None:
        """Return when another observation may show something new."""
        ...

    async def free_slots(self, batch: Batch) -> int | None:
        """Return how many elements one more wave of a batch may have now; None without a limit."""
        ...

    async def acquire_submit_slot(self) -> None:
        """Return when one more submission may be made, by the count of all processes."""
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
        """Return the state of each element of a submitted wave; UNKNOWN where no source answers."""
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
