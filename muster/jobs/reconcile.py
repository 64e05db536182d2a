"""Ending what nobody supervises any more: a job whose task was deleted, a supervisor that died."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from muster.backends import Backends
from muster.errors import ClaimLost, Transient
from muster.jobs.detached import look_at_detached
from muster.jobs.supervise import Supervisor
from muster.store import claims, runs

if TYPE_CHECKING:
    from muster.jobs.batch_end import BatchEnd
    from muster.store.database import Database

log = logging.getLogger(__name__)

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
        Seconds without a sign of life.
    """
    ends = asyncio.run(reconcile_unattended(db, silent_for_s))
    return Reconciled(tuple(ends), tuple(runs.end_abandoned(db, silent_for_s)))


async def reconcile_unattended(db: Database, silent_for_s: float) -> list[BatchEnd]:
    """Take over every batch whose supervisor has been silent, and end what it has open.

    What has ended by itself is recorded as it ended; what still runs is cancelled.

    Parameters
    ----------
    silent_for_s : float
        Seconds without a sign of life.
    """
    ends: list[BatchEnd] = []
    backends = Backends(db)
    with contextlib.suppress(Transient):  # what was left alone waits for another time, too
        await look_at_detached(db, backends)
    for batch_id in await asyncio.to_thread(claims.find_unattended, db, silent_for_s):
        supervisor = await Supervisor.take_over(db, batch_id, backends)
        try:
            ends.append(await supervisor.cancel("reconcile"))
        except ClaimLost as error:
            log.info("left alone: %s", error)
    await backends.close()
    return ends
