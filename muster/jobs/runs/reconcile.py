"""Ending what nobody supervises any more: a job whose task was deleted, a supervisor that died."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from muster.backends import Backends
from muster.errors import ClaimLost, MusterError
from muster.jobs.runs.detached import look_at_detached
from muster.jobs.supervision.supervisor import Supervisor
from muster.store import claims, runs

if TYPE_CHECKING:
    from muster.jobs.supervision.batch_end import BatchEnd
    from muster.store.database import Database

log = logging.getLogger(__name__)

MOST_AT_ONCE = 8
PATIENCE_S = 900.0
"""How long one batch is tried to be ended: its cluster may be down for days."""

SILENT_FOR_S = 600.0
"""How long somebody who supervises may be silent, unless one who asks says otherwise."""


@dataclass(frozen=True)
class Reconciled:
    """What was ended: batches, and the ids of runs."""

    batches: tuple[BatchEnd, ...]
    runs: tuple[str, ...]

    def describe(self) -> list[str]:
        """Say it in a line each; one line where there was nothing."""
        lines = [f"{end.batch_id}: {end.describe()}" for end in self.batches]
        lines += [f"{run_id}: ended, nobody went on with it" for run_id in self.runs]
        return lines or ["nothing is unattended"]


def reconcile(db: Database, silent_for_s: float = SILENT_FOR_S) -> Reconciled:
    """End what nobody supervises any more, batches first, then the runs that nobody goes on with.

    Parameters
    ----------
    silent_for_s : float
        Seconds without a heartbeat.
    """
    ends = asyncio.run(reconcile_unattended(db, silent_for_s))
    return Reconciled(tuple(ends), tuple(runs.end_abandoned(db, silent_for_s)))


async def reconcile_unattended(db: Database, silent_for_s: float) -> list[BatchEnd]:
    """Take over every batch whose supervisor has been silent, and end what it has open.

    What has ended by itself is recorded as it ended; what still runs is cancelled.

    Parameters
    ----------
    silent_for_s : float
        Seconds without a heartbeat.
    """
    backends = Backends(db)
    at_once = asyncio.Semaphore(MOST_AT_ONCE)

    async def end(batch_id: str) -> BatchEnd | None:
        try:
            async with at_once, asyncio.timeout(PATIENCE_S):
                supervisor = await Supervisor.take_over(db, batch_id, backends)
                return await supervisor.cancel("reconcile")
        except ClaimLost as error:
            log.info("left alone: %s", error)
        except TimeoutError:
            log.warning("%s does not end; another time", batch_id)
        except MusterError as error:  # of one batch, and no reason to leave the others
            log.error("%s: %s", batch_id, error)  # noqa: TRY400 - one line for people
        return None

    try:
        unattended = await asyncio.to_thread(claims.find_unattended, db, silent_for_s)
        ends = await asyncio.gather(*(end(batch_id) for batch_id in unattended))
        try:
            async with asyncio.timeout(PATIENCE_S):
                await look_at_detached(db, backends)
        except (MusterError, TimeoutError) as error:
            log.warning("what was left alone waits for another time: %s", error)
    finally:
        await backends.close()
    return [found for found in ends if found is not None]
