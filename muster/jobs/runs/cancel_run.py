"""Ending a run because a person says so, or because the process that followed it has ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from muster.backends import Backends
from muster.errors import ClaimLost, InvalidInput
from muster.jobs.supervision.supervisor import Supervisor
from muster.store import runs
from muster.store.records import RunState

if TYPE_CHECKING:
    from muster.jobs.supervision.batch_end import BatchEnd
    from muster.store.database import Database

TRIES = 3


@dataclass(frozen=True)
class CancelledRun:
    """A run that was cancelled.

    Attributes
    ----------
    run_id : str
        The run.
    ends : tuple of BatchEnd
        How each of its batches stands.
    """

    run_id: str
    ends: tuple[BatchEnd, ...]

    def describe(self) -> list[str]:
        """Say it in a line a batch, and one of the run."""
        lines = [f"{end.batch_id}: {end.describe()}" for end in self.ends]
        return [*lines, f"run {self.run_id} is cancelled"]

    def summarize(self) -> str:
        """Say it in one line, with how many elements ended how."""
        counts = Counter(element.state for end in self.ends for element in end.elements)
        states = ", ".join(f"{count:,} {state}" for state, count in sorted(counts.items()))
        return f"run {self.run_id} is cancelled: {states or 'nothing was planned'}"


async def cancel_run(db: Database, run_id: str) -> CancelledRun:
    """End everything that a run has open, verified and recorded.

    Whoever supervised a batch loses it, and sees it end as cancelled.

    Raises
    ------
    InvalidInput
        When the run is over.
    ClaimLost
        When somebody takes a batch over again and again; the run is not cancelled then.
    """
    run = await asyncio.to_thread(runs.read_run, db, run_id)
    if run.state not in (RunState.OPEN, RunState.PLANNED):
        raise InvalidInput(
            "the run is over",
            got=f"{run_id}: {run.state}",
            do="leave it: 'muster status' shows the runs that are not",
        )
    ends = await end_batches(db, run_id, "person")
    await asyncio.to_thread(runs.end_run, db, run_id, RunState.CANCELLED, "cancelled by a person")
    return CancelledRun(run_id, ends)


async def end_batches(
    db: Database, run_id: str, by: Literal["person", "reconcile"]
) -> tuple[BatchEnd, ...]:
    """Take over every batch of a run, and end what it has open.

    What ended by itself is recorded as it ended.

    Raises
    ------
    ClaimLost
        When somebody takes a batch over again and again.
    """
    backends = Backends(db)
    groups = await asyncio.to_thread(runs.read_groups, db, run_id)

    async def end(batch_id: str) -> BatchEnd:
        for _ in range(TRIES - 1):
            supervisor = await Supervisor.take_over(db, batch_id, backends)
            with contextlib.suppress(ClaimLost):
                return await supervisor.cancel(by)
        return await (await Supervisor.take_over(db, batch_id, backends)).cancel(by)

    try:
        return tuple(
            await asyncio.gather(
                *(end(batch_id) for steps in groups.values() for batch_id in steps.values())
            )
        )
    finally:
        await backends.close()
