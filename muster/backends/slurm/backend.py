"""The contract of all backends, kept by a Slurm cluster."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from muster import storage
from muster.backends.array_tasks import render_elements
from muster.backends.attempt_log import CHUNK_BYTES, local_work_path, read_log_file
from muster.backends.slurm.client import ClusterFull, CommandClient
from muster.backends.slurm.clients import SLURM_CLIENTS, SLURM_FOLDER
from muster.backends.slurm.parse import is_alive, is_refusal, is_stuck, observe_row
from muster.backends.slurm.poller import ClusterPoller
from muster.backends.slurm.render import (
    ELEMENTS_FILE,
    ENVIRONMENT_FILE,
    STARTED_FILE,
    job_variables,
    render_environment,
    render_script,
)
from muster.backends.slurm.submit_limiter import SubmitLimiter
from muster.errors import ConfigError, InvalidInput, Transient
from muster.model.environment import store_variables
from muster.model.outcome import JobState, Observation
from muster.model.slurm_target import SlurmTarget
from muster.storage import os_errors_at
from muster.store import clusters
from muster.store.clusters import OpenJob

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from muster.backends.remote.transport import Transport, WorkFiles
    from muster.backends.slurm.client import SlurmClient
    from muster.backends.slurm.parse import JobRow
    from muster.backends.slurm.queue_snapshot import QueueSnapshot
    from muster.model.batch import Batch
    from muster.model.slurm_target import Cluster
    from muster.model.wave import Wave
    from muster.store.database import Database

LOOK_AGAIN_S = 10.0
"""A key that is not found is looked for again after so many seconds: the accounting lags."""
CLOCK_SKEW_S = 300.0
END_PATIENCE_S = 120.0
CANCEL_AGAIN = 4
"""Of so many looks at what is to end, one asks for it again."""
END_POLL_S = (0.5, 1.0, 2.0, 4.0, 8.0)

log = logging.getLogger(__name__)


def open_slurm(db: Database, target: SlurmTarget) -> SlurmBackend:
    """Open the cluster of a batch, the way it was frozen with."""
    transport, files = open_transport(target)
    client = CommandClient(transport, db, target.cluster.name, target.account)
    return SlurmBackend(db, target.cluster, client, files, transport)


def open_transport(target: SlurmTarget) -> tuple[Transport, WorkFiles]:
    """Open the way of a batch to its cluster, and of its files there and back."""
    from muster.backends.remote.transport import SharedFiles

    if target.cluster.transport == "local":
        from muster.backends.remote.local_commands import LocalCommands

        return LocalCommands(SLURM_CLIENTS), SharedFiles()
    from muster.backends.remote.ssh import SshCommands

    commands = SshCommands(target.cluster, SLURM_CLIENTS)
    if target.cluster.work is None:
        return commands, SharedFiles()
    from muster.backends.remote.mirror import MirroredFiles

    if target.work_root is None:
        raise ConfigError("the batch does not say which work directory is mirrored")
    return commands, MirroredFiles(
        commands,
        target.work_root,
        target.cluster.work,
        folder=SLURM_FOLDER,
        python=target.cluster.python,
    )


class SlurmBackend:
    """Runs waves as jobs of a Slurm cluster: a wave is one sbatch.

    Parameters
    ----------
    db : Database
        The store, where processes share what they see of the cluster.
    cluster : Cluster
        Which cluster.
    client : SlurmClient
        What speaks to it.
    files : WorkFiles
        How the work directory is seen there.
    transport : Transport
        What is closed with the backend.
    """

    look_again_s = LOOK_AGAIN_S

    def __init__(
        self,
        db: Database,
        cluster: Cluster,
        client: SlurmClient,
        files: WorkFiles,
        transport: Transport,
    ) -> None:
        self.cluster = cluster
        self.result_grace_s = float(cluster.result_grace)
        self._db = db
        self._client = client
        self._files = files
        self._transport = transport
        self._limiter = SubmitLimiter(db, cluster, client)
        self._poller = ClusterPoller(db, cluster, client, self._limiter, files)
        self._untaken: set[str] = set()  # keys that Slurm has surely not taken
        self._asked_at: dict[str, datetime] = {}
        self._stuck: set[int] = set()
        self._known = False

    @property
    def degraded_reason(self) -> str | None:
        """What does not answer, although the queue does."""
        return self._poller.degraded_reason

    async def close(self) -> None:
        """Look no more, and close the connection; jobs go on."""
        await self._poller.close()
        await self._transport.close()

    async def wait_for_change(self) -> None:
        """Return when the cluster was looked at again."""
        await self._poller.wait_for_change()

    async def free_slots(self, batch: Batch) -> int:
        """Say how many elements one more job array may have now."""
        await self._know_cluster()
        seen = self._poller.seen
        tasks = await self._limiter.free_slots(seen.queued if seen else 0, self._poller.looked_s)
        return tasks * _pack(batch)

    async def acquire_submit_slot(self) -> None:
        """Wait for this submission's place in the row of all processes."""
        await self._know_cluster()
        await self._limiter.acquire_submit_slot()

    async def find(self, wave: Wave) -> str | None:
        """Look for the wave's key wherever it may have left a trace; twice, as all may lag."""
        if wave.key in self._untaken:
            return None
        await self._know_cluster()
        for pause_s in (self.look_again_s, 0.0):
            rows = [row for row in await self._look_for(wave) if _fits(row, wave)]
            if rows:
                return str(min(row.job_id for row in rows))
            await self._files.collect([str(local_work_path(wave.batch.work_uri))])
            begun = await asyncio.to_thread(_read_begun, submission_folder(wave))
            if begun is not None:
                return begun
            await asyncio.sleep(pause_s)
        return None

    async def submit(self, wave: Wave) -> str:
        """Submit the wave by one sbatch."""
        await self._know_cluster()
        if self._limiter.full:
            self._untaken.add(wave.key)
            raise ClusterFull("Slurm took no more jobs a while ago", where=self.cluster.name)
        self._untaken.discard(wave.key)
        folder = await asyncio.to_thread(self._write, wave)
        batch = wave.batch
        fences = dict.fromkeys(batch.fence_uri(index) for index in wave.attempts)
        orders = [batch.uri, *fences]
        await self._files.send([*(str(local_work_path(uri)) for uri in orders), str(folder)])
        there = self._files.there(str(folder))
        try:
            job_id = await self._client.submit(there, f"{there}/job.sh")
        except ClusterFull:
            self._limiter.note_full()
            self._untaken.add(wave.key)
            raise
        except InvalidInput as error:
            if not wave.excluded_hosts:
                raise
            # With all nodes excluded nothing could run: rather again on one that has failed.
            log.warning("submitting without excluded nodes: %s", error)
            return await self.submit(replace(wave, excluded_hosts=()))
        self._limiter.count(_task_count(wave))
        return str(job_id)

    async def observe(self, wave: Wave, reference: str) -> Mapping[int, Observation]:
        """Say of every element what the newest look has seen of it.

        Raises
        ------
        Transient
            When the cluster does not answer.
        """
        since = await self._submitted_at(wave)
        pack = _pack(wave.batch)
        tasks = {index: place // pack for place, index in enumerate(wave.order)}
        open_tasks = tuple(sorted({tasks[index] for index in wave.attempts}))
        job = OpenJob(wave.key, reference, since, open_tasks)
        batch_folder = str(local_work_path(wave.batch.work_uri))
        self._poller.ask(job, batch_folder)
        if self._poller.silent is not None:
            raise Transient("the cluster does not answer", where=self.cluster.name,
                            got=self._poller.silent)  # fmt: skip
        seen = self._poller.seen
        if seen is None or seen.at <= since:
            return dict.fromkeys(wave.attempts, Observation(JobState.UNKNOWN))
        rows = {index: seen.row(wave.key, reference, tasks[index]) for index in wave.attempts}
        for row in rows.values():
            if row is not None and is_stuck(row):
                self._warn_of_stuck(row)
        late: dict[int, Observation] = {}
        if not self._poller.has_come(batch_folder):
            rows = await asyncio.to_thread(_leave_out_late, wave, rows)
            late = dict.fromkeys(set(wave.attempts) - set(rows), Observation(JobState.UNKNOWN))
        gone = {tasks[index] for index, row in rows.items() if row is None}
        gone_as = await asyncio.to_thread(self._explain_gone, seen, wave, reference, gone)
        return late | {
            index: _observe(row) if row is not None else Observation(gone_as[tasks[index]])
            for index, row in rows.items()
        }

    async def cancel(self, wave: Wave, reference: str | None) -> None:
        """Cancel by the key, and return when the queue holds nothing of it that lives."""
        await self._know_cluster()
        deadline_s = time.monotonic() + END_PATIENCE_S
        for number, pause_s in enumerate((*END_POLL_S, *[END_POLL_S[-1]] * 1000)):
            alive = [
                row
                for row in await self._client.read_queue(wave.key)
                if row.name == wave.key and is_alive(row)
            ]
            if not alive:
                return
            if time.monotonic() > deadline_s:
                raise Transient(
                    "jobs do not end", where=self.cluster.name,
                    got=f"{len(alive)} of {wave.key}, {alive[0].state}",
                )  # fmt: skip
            if number % CANCEL_AGAIN == 0:
                await self._client.cancel(wave.key)
            await asyncio.sleep(pause_s)

    async def read_log(
        self, batch: Batch, index: int, attempt: int, offset: int, limit: int = CHUNK_BYTES
    ) -> bytes:
        """Read the log file from an offset on."""
        return await asyncio.to_thread(read_log_file, batch, index, attempt, offset, limit)

    @staticmethod
    def _explain_gone(
        seen: QueueSnapshot, wave: Wave, reference: str, tasks: set[int]
    ) -> dict[int, JobState]:
        """Say of tasks that nobody knows why that is so.

        Of a task that is cancelled while it waits Slurm keeps nothing.  Where the rest of its array
        is known, and it has not begun, nothing else can have become of it.
        """
        if wave.key in seen.unanswered:
            return dict.fromkeys(tasks, JobState.UNKNOWN)
        if not seen.knows(wave.key, reference):
            return dict.fromkeys(tasks, JobState.GONE)
        folder = submission_folder(wave)
        begun = {task for task in tasks if (folder / f"{STARTED_FILE}.{task}").exists()}
        return {task: JobState.GONE if task in begun else JobState.CANCELLED for task in tasks}

    def _warn_of_stuck(self, row: JobRow) -> None:
        if row.job_id not in self._stuck:
            self._stuck.add(row.job_id)
            said = (row.job_id, row.name, row.reason)
            log.warning("job %d (%s) waits for what time alone does not bring: %s", *said)

    async def _know_cluster(self) -> None:
        if not self._known:
            await asyncio.to_thread(clusters.know_cluster, self._db, self.cluster.name)
            self._known = True

    async def _submitted_at(self, wave: Wave) -> datetime:
        """Say since when a look must have begun to know of a wave, by the store's clock."""
        if wave.submitted_at is not None:
            return wave.submitted_at
        if wave.key not in self._asked_at:
            await self._know_cluster()
            look = await asyncio.to_thread(clusters.read_look, self._db, self.cluster.name)
            self._asked_at[wave.key] = look.now
        return self._asked_at[wave.key]

    async def _look_for(self, wave: Wave) -> list[JobRow]:
        rows = await self._client.read_queue(wave.key)
        if any(_fits(row, wave) for row in rows) or wave.intended_at is None:
            return rows
        limits = await self._limiter.limits()
        if limits.accounting:
            return await self._client.read_accounting(name=wave.key, since=wave.intended_at)
        if limits.job_completions:
            return await self._client.read_completions(limits.job_completions, [wave.key])
        return rows

    def _write(self, wave: Wave) -> Path:
        """Write what is submitted, for people to read and for the job to use."""
        folder = submission_folder(wave)
        told = store_variables(wave.batch, self._db.url)
        variables = {**told, **job_variables(wave, self._files.there)}
        files = {
            "job.sh": render_script(wave, slots=wave.batch.wave_slots),
            ELEMENTS_FILE: render_elements(wave.order, _pack(wave.batch)),
            ENVIRONMENT_FILE: render_environment(variables),
        }
        with os_errors_at(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for name, text in files.items():
                part = folder / f".{name}.part"
                descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                part.replace(folder / name)
        return folder


def submission_folder(wave: Wave) -> Path:
    """Return the submission's own folder, which its jobs run in."""
    return local_work_path(wave.batch.work_uri) / SLURM_FOLDER / wave.key


def _leave_out_late(wave: Wave, rows: Mapping[int, JobRow | None]) -> dict[int, JobRow | None]:
    """Leave out what has ended, where its result is still to come from the cluster."""
    return {
        index: row
        for index, row in rows.items()
        if (row is not None and is_alive(row))
        or storage.exists(wave.batch.result_uri(index, wave.attempts[index]))
    }


def _read_begun(folder: Path) -> str | None:
    """Return the id of a job that has begun a task of a submission, by the task's own note."""
    with os_errors_at(folder):
        for note in sorted(folder.glob(f"{STARTED_FILE}.*")):
            job_id = note.read_text(encoding="utf-8", errors="replace").strip()
            if job_id.isdecimal():
                return job_id
    return None


def _pack(batch: Batch) -> int:
    return batch.target.pack if isinstance(batch.target, SlurmTarget) else 1


def _observe(row: JobRow) -> Observation:
    """Say how a job is, and how long it took where it has ended."""
    seconds = None
    if row.started_at is not None and row.ended_at is not None:
        seconds = max(0.0, (row.ended_at - row.started_at).total_seconds())
    return replace(observe_row(row), started_at=row.started_at, seconds=seconds)


def _task_count(wave: Wave) -> int:
    return -(-len(wave.attempts) // _pack(wave.batch))


def _fits(row: JobRow, wave: Wave) -> bool:
    """Tell whether a job is the wave's: by its name, and by the time of its submission."""
    if row.name != wave.key or is_refusal(row):
        return False
    if row.submitted_at is None or wave.intended_at is None:
        return True
    return (wave.intended_at - row.submitted_at).total_seconds() < CLOCK_SKEW_S
