"""One look at a cluster for all batches, by one process of several, at a pace that spares it.

A look is one squeue for all jobs of this user, and one sacct for those that squeue no longer knows.
Who looks is elected by an advisory lock, and only while it looks: a process that is stalled keeps
nobody else from looking.  What was seen goes into the store; the others read it there.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from muster.backends.remote.transport import NotAllCame
from muster.backends.slurm.queue_snapshot import QueueSnapshot, pack_snapshot, unpack_snapshot
from muster.errors import StoreUnavailable, Transient
from muster.store import clusters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from muster.backends.remote.transport import WorkFiles
    from muster.backends.slurm.client import SlurmClient
    from muster.backends.slurm.parse import JobRow
    from muster.backends.slurm.submit_limiter import SubmitLimiter
    from muster.model.slurm_target import Cluster
    from muster.store.clusters import Look, OpenJob
    from muster.store.database import Database

STALE = 3
"""A look that is so many intervals old is made again, whoever was elected to make it."""
LONGEST_BACK_OFF_S = 300.0
FLOOR = 10
"""Nobody looks again before so many times what the last look took, or so many intervals."""
IDLE = 5
"""After so many intervals without a question nobody looks any more."""

log = logging.getLogger(__name__)


@dataclass
class _Asked:
    """A job that somebody in this process has asked for."""

    job: OpenJob
    folder: str
    at_s: float = field(default_factory=time.monotonic)


class ClusterPoller:
    """Looks at one cluster for all batches of this process.

    Parameters
    ----------
    db : Database
        The store, where processes find each other.
    cluster : Cluster
        Which cluster, and how often it may be looked at.
    client : SlurmClient
        What asks it.
    limiter : SubmitLimiter
        What knows which sources there are.
    files : WorkFiles
        Brings results back, where the cluster does not share the work directory.

    Attributes
    ----------
    seen : QueueSnapshot or None
        What the newest look has seen.
    looked_s : float
        When that look began, by the monotonic clock.
    silent : str or None
        Why the newest look was not answered.
    degraded_reason : str or None
        What did not answer, although the queue did.
    """

    def __init__(
        self,
        db: Database,
        cluster: Cluster,
        client: SlurmClient,
        limiter: SubmitLimiter,
        files: WorkFiles,
    ) -> None:
        self.seen: QueueSnapshot | None = None
        self.looked_s = 0.0
        self.silent: str | None = None
        self.degraded_reason: str | None = None
        self._db = db
        self._cluster = cluster
        self._client = client
        self._limiter = limiter
        self._files = files
        self._asked: dict[str, _Asked] = {}
        self._come: frozenset[str] = frozenset()
        self._task: asyncio.Task[None] | None = None
        self._next = asyncio.Event()
        self._wanted_s = 0.0
        self._waiting = 0
        self._failures = 0
        self._took_s = 0.0
        self._others_due_s = 0.0
        self._known = False

    async def wait_for_change(self) -> None:
        """Return when the cluster was looked at again, or could not be."""
        self._want()
        self._waiting += 1
        try:
            await self._next.wait()
        finally:
            self._waiting -= 1

    def ask(self, job: OpenJob, folder: str) -> None:
        """Want to know of a job: the store may not know of it yet.

        Parameters
        ----------
        folder : str
            Of the batch, in the work directory.
        """
        self._asked[job.key] = _Asked(job, folder)
        self._want()  # who is told that the cluster is silent asks again, and waits for no news

    def has_come(self, folder: str) -> bool:
        """Tell whether all that the newest look knows to have ended has its result on this side."""
        return self._files.shared or folder in self._come

    async def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _want(self) -> None:
        """Look, and go on looking for a while."""
        self._wanted_s = time.monotonic()
        if self._task is None or self._task.done():
            # A context of its own, or its log lines would carry the name of whoever came first.
            self._task = asyncio.get_running_loop().create_task(
                self._run(), context=contextvars.Context()
            )

    async def _run(self) -> None:
        while self._waiting or time.monotonic() - self._wanted_s < IDLE * self._interval_s + 60:
            try:
                wait_s = await self._step()
            except StoreUnavailable as error:
                wait_s = self._fail(error)
            except Exception as error:  # a look that goes wrong must not be the last one
                log.exception("the look at cluster %s failed", self._cluster.name)
                wait_s = self._fail(error)
            self._next.set()
            self._next = asyncio.Event()
            await asyncio.sleep(wait_s)

    @property
    def _interval_s(self) -> float:
        every_s = float(self._cluster.poll_every)
        # A look that hung until the controller was back is no reason to be blind for long.
        return max(every_s, FLOOR * min(self._took_s, every_s))

    async def _step(self) -> float:
        """Look, or learn what another process has seen; return how long to wait, in seconds."""
        name = self._cluster.name
        if not self._known:
            await asyncio.to_thread(clusters.know_cluster, self._db, name)
            self._known = True
        look = await asyncio.to_thread(clusters.read_look, self._db, name)
        due_s = self._due_s(look)
        if due_s <= 0:
            with ExitStack() as stack:
                won = await asyncio.to_thread(stack.enter_context, clusters.elected(self._db, name))
                # Who has won while this one asked has said so in the store by now.
                look = await asyncio.to_thread(clusters.read_look, self._db, name)
                due_s = self._due_s(look)
                if (won and due_s <= 0) or -due_s > (STALE - 1) * self._interval_s:
                    try:
                        await self._look()
                    except Transient as error:
                        await asyncio.to_thread(clusters.record_trouble, self._db, name, str(error))
                        return self._fail(error)
                    return self._interval_s
            return 0.2 * self._interval_s  # somebody else is at it
        if look.trouble is not None:
            self.silent = look.trouble
        if look.at is not None and (self.seen is None or look.at > self.seen.at):
            await self._learn(look)
        return due_s

    def _due_s(self, look: Look) -> float:
        """Say in how many seconds the cluster may be looked at again; negative: since when."""
        if look.asked_at is None:
            return 0.0
        due_s = self._interval_s - (look.now - look.asked_at).total_seconds()
        return due_s * random.uniform(1.0, 1.1) if due_s > 0 else due_s

    def _fail(self, error: Exception) -> float:
        self.silent = str(error)
        self._failures += 1
        longest = max(LONGEST_BACK_OFF_S, self._interval_s)
        wait_s = min(longest, self._interval_s * 2.0 ** min(self._failures - 1, 10))
        if self._failures == 1:
            log.warning("cluster %s does not answer: %s", self._cluster.name, error)
        return wait_s * random.uniform(0.75, 1.25)

    def _succeed(self, seen: QueueSnapshot, trouble: str | None) -> None:
        if self._failures:
            log.info("cluster %s answers again", self._cluster.name)
        self._failures = 0
        self.silent = None
        self.degraded_reason = trouble
        self.seen = seen

    async def _learn(self, look: Look) -> None:
        """Take over what another process has seen."""
        found = await asyncio.to_thread(clusters.read_seen, self._db, self._cluster.name)
        if found is None:
            return
        at, packed = found
        seen = await asyncio.to_thread(unpack_snapshot, at, packed)
        late = await self._collect()
        # What this process submitted since the look began is not in it.
        self.looked_s = time.monotonic() - max(0.0, (look.now - at).total_seconds())
        self._succeed(seen, late)

    async def _look(self) -> None:
        """Ask the cluster, once for all."""
        started_s = time.monotonic()
        at = await asyncio.to_thread(clusters.record_asked, self._db, self._cluster.name)
        queue = await self._client.read_queue()
        wanted = await self._find_wanted()
        seen = QueueSnapshot.of_rows(at, queue)
        missing = [job for job in wanted if not seen.has(job)]
        others: list[JobRow] = []
        unanswered: frozenset[str] = frozenset()
        trouble: str | None = None
        self._took_s = time.monotonic() - started_s
        if missing and started_s < self._others_due_s:
            unanswered, trouble = frozenset(job.key for job in missing), self.degraded_reason
        elif missing:
            asked_s = time.monotonic()
            try:
                others = await self._ask_others(missing)
                self._took_s = time.monotonic() - started_s
            except Transient as error:
                unanswered = frozenset(job.key for job in missing)
                trouble = f"the accounting does not answer: {error}"
                # It must not slow down the looks at the queue, which answers.
                silent_s = FLOOR * (time.monotonic() - asked_s)
                self._others_due_s = time.monotonic() + min(silent_s, LONGEST_BACK_OFF_S)
        trouble = await self._collect() or trouble
        seen = QueueSnapshot.of_rows(at, queue, others, unanswered)
        packed = await asyncio.to_thread(pack_snapshot, seen, {job.key for job in wanted})
        await asyncio.to_thread(clusters.record_seen, self._db, self._cluster.name, at, packed)
        self.looked_s = started_s
        self._succeed(seen, trouble)

    async def _find_wanted(self) -> list[OpenJob]:
        """List what all processes want to know of: by the store, and by this one's questions."""
        oldest_s = time.monotonic() - IDLE * self._interval_s - 60
        self._asked = {k: asked for k, asked in self._asked.items() if asked.at_s > oldest_s}
        jobs = {key: asked.job for key, asked in self._asked.items()}
        for job in await asyncio.to_thread(clusters.read_open_jobs, self._db, self._cluster.name):
            jobs[job.key] = job
        return list(jobs.values())

    async def _ask_others(self, missing: Sequence[OpenJob]) -> list[JobRow]:
        """Ask the accounting for what the queue no longer knows; else the log of ended jobs."""
        limits = await self._limiter.limits()
        ids = [job.reference for job in missing if job.reference.isdecimal()]
        if limits.accounting and ids:
            since = min(job.submitted_at for job in missing)
            return await self._client.read_accounting(ids, since=since)
        if limits.job_completions and ids:
            keys = [job.key for job in missing]
            return await self._client.read_completions(limits.job_completions, keys)
        return []

    async def _collect(self) -> str | None:
        """Bring back what is new; say what keeps some of it from coming."""
        folders = sorted({asked.folder for asked in self._asked.values()})
        self._come = frozenset()
        if not folders:
            return None
        try:
            await self._files.collect(folders)
        except NotAllCame as error:  # must not hide what has become of the others
            self._come = frozenset(folders) - error.folders
            return str(error)
        self._come = frozenset(folders)
        return None
