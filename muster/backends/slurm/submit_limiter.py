"""How much may be submitted to a cluster, and how fast: limits are read, never run into."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from muster.store.clusters import reserve_submission

if TYPE_CHECKING:
    from muster.backends.slurm.client import SlurmClient
    from muster.backends.slurm.limits import Limits
    from muster.model.slurm_target import Cluster
    from muster.store.database import Database

LIMITS_KEPT_S = 3600.0
FIRST_FULL_S, LONGEST_FULL_S = 15.0, 300.0

log = logging.getLogger(__name__)


class SubmitLimiter:
    """Holds one process's submissions within what the cluster allows.

    Parameters
    ----------
    db : Database
        Where all processes take their turns.
    cluster : Cluster
        With the most submissions a second.
    client : SlurmClient
        What the limits are read by.
    """

    def __init__(self, db: Database, cluster: Cluster, client: SlurmClient) -> None:
        self._db = db
        self._cluster = cluster
        self._client = client
        self._limits: Limits | None = None
        self._read_s = 0.0
        self._lock = asyncio.Lock()
        self._taken: list[tuple[float, int]] = []  # when (monotonic), and how many array tasks
        self._full_until_s = 0.0
        self._full_s = 0.0

    async def limits(self) -> Limits:
        """Return the cluster's limits, read once an hour.

        Raises
        ------
        Transient
            When the cluster does not answer.
        """
        async with self._lock:
            if self._limits is None or time.monotonic() - self._read_s > LIMITS_KEPT_S:
                known, self._limits = self._limits, await self._client.read_limits()
                self._read_s = time.monotonic()
                if known is None:
                    log.info("cluster %s: %s", self._cluster.name, describe_limits(self._limits))
            return self._limits

    async def acquire_submit_slot(self) -> None:
        """Wait until one more submission may be made, by all processes' count."""
        every_s = 1.0 / self._cluster.submissions_per_s
        wait_s = await asyncio.to_thread(reserve_submission, self._db, self._cluster.name, every_s)
        await asyncio.sleep(wait_s)

    @property
    def full(self) -> bool:
        """Whether the cluster said lately that it takes no more."""
        return time.monotonic() < self._full_until_s

    def note_full(self) -> None:
        """Remember that the cluster takes no more: it is asked again after a while, ever longer."""
        self._full_s = min(LONGEST_FULL_S, max(FIRST_FULL_S, 2 * self._full_s))
        self._full_until_s = time.monotonic() + self._full_s

    def count(self, tasks: int) -> None:
        """Remember that so many array tasks were submitted, which no look has shown yet."""
        self._full_s = 0.0
        self._taken.append((time.monotonic(), tasks))

    async def free_slots(self, queued: int, looked_s: float) -> int:
        """Say how many array tasks one more submission may have now.

        Parameters
        ----------
        queued : int
            Array tasks of this user that wait or run, by the newest look at the queue.
        looked_s : float
            When that look began, in seconds of the monotonic clock.
        """
        if self.full:
            return 0
        limits = await self.limits()
        self._taken = [(at, tasks) for at, tasks in self._taken if at >= looked_s]
        queued += sum(tasks for _, tasks in self._taken)
        room = limits.max_array_size
        # slurmctld takes no job with which it would hold MaxJobCount, but one fewer
        for most in (limits.max_submit_jobs, limits.max_job_count - 1):
            if most is not None:
                room = min(room, most - queued)
        return max(0, room)


def describe_limits(limits: Limits) -> str:
    """Say in one line what a cluster is, and which sources tell how a job has ended."""
    sources = ["queue"]
    if limits.accounting:
        sources.append("accounting")
    if limits.job_completions is not None:
        sources.append("log of ended jobs")
    submit = "" if limits.max_submit_jobs is None else f", {limits.max_submit_jobs} jobs a user"
    return (
        f"Slurm {limits.version}; sources: {', '.join(sources)}, result files;"
        f" arrays of {limits.max_array_size}{submit}"
    )
