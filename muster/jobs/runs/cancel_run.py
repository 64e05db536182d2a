"""Ending a run because a person says so."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from muster.backends import Backends
from muster.errors import ClaimLost, InvalidInput
from muster.jobs.supervision.supervisor import Supervisor
from muster.store import runs
from muster.store.records import RunState

if TYPE_CHECKING:
    from muster.store.database import Database

TRIES = 3


async def cancel_run(db: Database, run_id: str) -> list[str]:
    """End everything that a run has open, verified and recorded; say it in a line a batch.

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
        raise InvalidInput("the run is over", got=f"{run_id}: {run.state}")
    backends = Backends(db)
    groups = await asyncio.to_thread(runs.read_groups, db, run_id)

    async def cancel(batch_id: str) -> str:
        for patience in reversed(range(TRIES)):
            supervisor = await Supervisor.take_over(db, batch_id, backends)
            try:
                end = await supervisor.cancel("person")
            except ClaimLost:
                if not patience:
                    raise
            else:
                break
        return f"{batch_id}: {end.describe()}"

    try:
        lines = await asyncio.gather(
            *(cancel(batch_id) for steps in groups.values() for batch_id in steps.values())
        )
    finally:
        await backends.close()
    await asyncio.to_thread(runs.end_run, db, run_id, RunState.CANCELLED, "cancelled by a person")
    return [*lines, f"run {run_id} is cancelled"]
