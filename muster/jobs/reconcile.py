"""Ending what nobody supervises any more: a job whose task was deleted, a supervisor that died."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from muster.errors import ClaimLost
from muster.jobs.supervise import Supervisor
from muster.store import claims

if TYPE_CHECKING:
    from muster.jobs.batch_end import BatchEnd
    from muster.store.database import Database

log = logging.getLogger(__name__)


async def reconcile_unattended(db: Database, silent_for_s: float) -> list[BatchEnd]:
    """Take over every batch whose supervisor has been silent, and end what it has open.

    What has ended by itself is recorded as it ended; what still runs is cancelled.

    Parameters
    ----------
    silent_for_s : float
        Seconds without a sign of life.
    """
    ends: list[BatchEnd] = []
    for batch_id in await asyncio.to_thread(claims.find_unattended, db, silent_for_s):
        supervisor = await Supervisor.take_over(db, batch_id)
        try:
            ends.append(await supervisor.cancel("reconcile"))
        except ClaimLost as error:
            log.info("left alone: %s", error)
    return ends
