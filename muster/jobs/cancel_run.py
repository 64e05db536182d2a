"""Ending a run because a person says so."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from muster.backends import Backends
from muster.errors import ClaimLost
from muster.jobs.supervise import Supervisor
from muster.store import runs
from muster.store.records import RunState

if TYPE_CHECKING:
    from muster.store.database import Database


async def cancel_run(db: Database, run_id: str) -> list[str]:
    """End everything that a run has open, verified and recorded; say it in a line a batch.

    Whoever supervised a batch loses it, and sees it end as cancelled.
    """
    backends = Backends(db)
    groups = await asyncio.to_thread(runs.read_groups, db, run_id)

    async def cancel(batch_id: str) -> str:
        try:
            supervisor = await Supervisor.take_over(db, batch_id, backends)
            end = await supervisor.cancel("person")
        except ClaimLost as error:
            return f"{batch_id}: taken over meanwhile, cancel it again: {error}"
        return f"{batch_id}: {end.describe()}"

    try:
        lines = await asyncio.gather(
            *(cancel(batch_id) for steps in groups.values() for batch_id in steps.values())
        )
    finally:
        await backends.close()
    await asyncio.to_thread(runs.end_run, db, run_id, RunState.CANCELLED, "cancelled by a person")
    return [*lines, f"run {run_id} is cancelled"]
