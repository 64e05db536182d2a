"""How many array tasks one more submission may have, by the cluster's limits and what it holds."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest

from muster.backends.slurm.submit_limiter import SubmitLimiter
from muster.model.slurm_target import Cluster
from tests.unit.backends.slurm.test_findings import LIMITS

if TYPE_CHECKING:
    from muster.backends.slurm.client import SlurmClient
    from muster.backends.slurm.limits import Limits
    from muster.store.database import Database


class LimitsOnly:
    """The only question that is asked here."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    async def read_limits(self) -> Limits:
        return self._limits


@pytest.mark.parametrize(
    ("changes", "queued", "room"),
    [
        ({}, 0, 1001),
        ({"max_submit_jobs": 12}, 0, 12),
        ({"max_submit_jobs": 12}, 5, 7),
        # slurmctld 22.05 refuses the array with which it would hold MaxJobCount jobs
        ({"max_job_count": 12}, 0, 11),
        ({"max_job_count": 12}, 5, 6),
        ({"max_job_count": 12}, 11, 0),
        ({"max_job_count": 12}, 40, 0),
    ],
)
def test_room_is_what_the_cluster_takes(changes: dict[str, int], queued: int, room: int) -> None:
    client = cast("SlurmClient", LimitsOnly(replace(LIMITS, **changes)))  # type: ignore[arg-type]
    limiter = SubmitLimiter(cast("Database", None), Cluster(), client)
    assert asyncio.run(limiter.free_slots(queued, time.monotonic())) == room
