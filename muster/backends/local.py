"""The machine in front of you: never more runners at once than the pool has slots.

A runner begins with one element.  Where more of its wave wait, it asks for the next one whenever
one has ended, over a socket, so that its warm process serves them all; as soon as the element that
waits longest is of another wave, or somebody else waits for the slot, the runner ends and gives the
slot up.

Runners die with the process that started them, by the kernel's own doing, and the elements' own
processes die with their runners: a worker that is killed leaves nothing behind that nobody knows.
Whether something still runs is answered from the process table, by the submission key in its
environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
import signal
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil

from muster import storage
from muster.backends.attempt_log import CHUNK_BYTES, local_work_path, read_log_file
from muster.backends.local_feed import Runner, feed_runner, start_runner
from muster.backends.slots import SlotFolder
from muster.errors import MusterError, Transient
from muster.model.outcome import JobState, Observation

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping

    from muster.model.batch import Batch
    from muster.model.target import LocalTarget
    from muster.model.wave import Wave
    from muster.store.database import Database

log = logging.getLogger(__name__)

SLOT_POLL_S = 0.1
POLL_INTERVAL_S = 0.2
STOP_GRACE_S = 15.0
TURN_S = 60.0
"""How long a runner keeps its slot while other processes wait for one, in seconds."""


def open_local(db: Database, target: LocalTarget) -> LocalBackend:
    """Open this machine as a backend; there is nothing that a target could say of it."""
    return LocalBackend(db.url)


def render_batch(batch: Batch) -> str:
    """Say what would be started first."""
    return f"# {len(batch.elements)} processes on this machine\n"


@dataclass
class _Job:
    """One element of a wave in this process's hands."""

    wave: Wave
    index: int
    process: subprocess.Popen[bytes] | None = None
    cancelled: bool = False
    ended_with: int | None = None  # the exit code that its runner tells, or that of no start
    is_last: bool = False  # of its runner, which ends with it


@dataclass
class _Pool:
    """Elements of one pool that wait for a slot, and who hands the slots out."""

    slots: SlotFolder
    waiting: deque[_Job] = field(default_factory=deque)
    dispatcher: asyncio.Task[None] | None = None


class LocalBackend:
    """Runs waves as processes of this machine.

    Parameters
    ----------
    store_url : str, optional
        What steps that load into the store are told of where it is.
    """

    result_grace_s = 0.0
    degraded_reason: str | None = None

    def __init__(self, store_url: str | None = None) -> None:
        self._store_url = store_url
        self._jobs: dict[tuple[str, int], _Job] = {}
        self._pools: dict[str, _Pool] = {}
        self._feeding: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Hold on to what runs: it dies with this process anyway."""

    async def wait_for_change(self) -> None:
        """Wait a moment: processes of this machine are looked at for nothing."""
        await asyncio.sleep(POLL_INTERVAL_S)

    async def free_slots(self, batch: Batch) -> int | None:
        """Set no limit: what finds no slot waits here."""
        return None

    async def acquire_submit_slot(self) -> None:
        """Set no pace."""

    async def find(self, wave: Wave) -> str | None:
        """Look for the wave among what this object started, and in the process table."""
        if any((wave.key, index) in self._jobs for index in wave.attempts):
            return _reference()
        return _reference() if find_processes(wave.key) else None

    async def submit(self, wave: Wave) -> str:
        """Queue the wave's elements for slots of their pool."""
        pool = self._pool_of(wave.batch)
        for index in wave.attempts:
            job = _Job(wave, index)
            self._jobs[wave.key, index] = job
            pool.waiting.append(job)
        if pool.dispatcher is None or pool.dispatcher.done():
            pool.dispatcher = asyncio.create_task(self._dispatch(pool))
        return _reference()

    async def observe(self, wave: Wave, reference: str) -> Mapping[int, Observation]:
        """Say how each element's process is."""
        seen: dict[int, Observation] = {}
        strangers = [index for index in wave.attempts if (wave.key, index) not in self._jobs]
        running = bool(strangers) and bool(find_processes(wave.key))
        for index in wave.attempts:
            job = self._jobs.get((wave.key, index))
            if job is not None:
                seen[index] = self._observe_job(job)
            elif running and not storage.exists(wave.batch.result_uri(index, wave.attempts[index])):
                seen[index] = Observation(JobState.RUNNING, host=platform.node())
            else:
                seen[index] = Observation(JobState.GONE)
        return seen

    async def cancel(self, wave: Wave, reference: str | None) -> None:
        """Take the wave out of the queue, end its processes, and see that they have ended."""
        for index in wave.attempts:
            job = self._jobs.get((wave.key, index))
            if job is not None:
                job.cancelled = True
        for number, wait_s in ((signal.SIGTERM, STOP_GRACE_S), (signal.SIGKILL, STOP_GRACE_S)):
            deadline = time.monotonic() + wait_s
            while time.monotonic() < deadline:
                _signal_all(wave.key, number)
                if not self._is_running(wave):
                    return
                await asyncio.sleep(SLOT_POLL_S)
        raise Transient("processes do not end", where=wave.batch.id, got=find_processes(wave.key))

    async def read_log(
        self, batch: Batch, index: int, attempt: int, offset: int, limit: int = CHUNK_BYTES
    ) -> bytes:
        """Read the log file from an offset on."""
        return read_log_file(batch, index, attempt, offset, limit)

    def _observe_job(self, job: _Job) -> Observation:
        host = platform.node()
        if job.process is None and job.ended_with is None:
            return Observation(JobState.CANCELLED if job.cancelled else JobState.WAITING)
        code = job.ended_with
        if job.process is not None and (code is None or job.is_last):
            its_own = job.process.poll()
            code = its_own if code is None or its_own is None else code
        if code is None:
            return Observation(JobState.RUNNING, host=host)
        if code == 0:
            return Observation(JobState.COMPLETED, exit_code=0, host=host)
        if code < 0:
            return Observation(JobState.FAILED, signal=-code, host=host)
        return Observation(JobState.FAILED, exit_code=code, host=host)

    def _is_running(self, wave: Wave) -> bool:
        for index in wave.attempts:
            job = self._jobs.get((wave.key, index))
            if job is not None and job.process is not None and job.process.poll() is None:
                return True
        return bool(find_processes(wave.key))

    def _pool_of(self, batch: Batch) -> _Pool:
        key = _pool_key(batch)
        if key not in self._pools:
            self._pools[key] = _Pool(SlotFolder(local_work_path(batch.pool_uri), batch.slots))
        return self._pools[key]

    async def _dispatch(self, pool: _Pool) -> None:
        """Start waiting elements, each as soon as a slot is free."""
        try:
            await self._start_waiting(pool)
        finally:
            pool.slots.wait_openly(waiting=False)

    async def _start_waiting(self, pool: _Pool) -> None:
        while pool.waiting:
            job = pool.waiting[0]
            if job.cancelled:
                pool.waiting.popleft()
                continue
            try:
                slot = pool.slots.try_take()
                pool.slots.wait_openly(waiting=slot is None)
                if slot is None:
                    await asyncio.sleep(SLOT_POLL_S)
                    continue
                pool.waiting.popleft()
                try:
                    self._start(pool, job, slot)
                finally:
                    os.close(slot)
            except MusterError as error:
                log.error("%s does not start: %s", job.wave.key, error)  # noqa: TRY400
                job.ended_with = error.exit_code
                if pool.waiting and pool.waiting[0] is job:
                    pool.waiting.popleft()

    def _start(self, pool: _Pool, job: _Job, slot: int) -> None:
        """Start a runner with one element, and feed it where more of the wave wait."""
        more = bool(pool.waiting) and pool.waiting[0].wave is job.wave
        runner = start_runner(job.wave, job.index, slot, self._store_url, fed=more)
        job.process = runner.process
        if runner.channel is not None:
            task = asyncio.create_task(self._feed(pool, job, runner))
            self._feeding.add(task)
            task.add_done_callback(self._feeding.discard)

    async def _feed(self, pool: _Pool, job: _Job, runner: Runner) -> None:
        """Hand a runner one waiting element after the other, while it is its turn."""
        running = job
        until_s = time.monotonic() + TURN_S

        def end_and_take_next(index: int, code: int) -> int | None:
            nonlocal running
            if index != running.index:
                return None
            running.ended_with, running.is_last = code, True
            while pool.waiting and pool.waiting[0].cancelled:
                pool.waiting.popleft()
            if not pool.waiting or pool.waiting[0].wave is not job.wave:
                return None
            if time.monotonic() > until_s and pool.slots.others_wait():
                return None
            running.is_last = False
            running = pool.waiting.popleft()
            running.process = runner.process
            return running.index

        await feed_runner(runner, end_and_take_next)


def find_processes(key: str) -> dict[int, list[int]]:
    """Find the runners of a submission in the process table: element index → pids."""
    found: dict[int, list[int]] = {}
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            if environment.get("MUSTER_JOB") != key or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if environment.get("MUSTER_ROLE") != "step":
                found.setdefault(int(environment["MUSTER_INDEX"]), []).append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied, KeyError, ValueError):
            continue
    return found


def _signal_all(key: str, number: signal.Signals) -> None:
    for pids in find_processes(key).values():
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def _reference() -> str:
    return f"{platform.node()}:{os.getpid()}"


def _pool_key(batch: Batch) -> str:
    return f"{batch.pool_uri} {batch.slots}"
