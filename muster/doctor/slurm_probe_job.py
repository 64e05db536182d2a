"""One small job through a pool: submitted as any other, watched with patience, and never left."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from muster import storage
from muster.backends.attempt_log import local_work_path
from muster.backends.slurm.backend import submission_folder
from muster.backends.slurm.parse import is_alive, is_stuck, observe_row
from muster.doctor.slurm_findings import explain_end, explain_wait
from muster.errors import MusterError, Transient
from muster.model.attempt import Result
from muster.model.fence import write_fences
from muster.model.outcome import JobState

if TYPE_CHECKING:
    from muster.backends.remote.transport import WorkFiles
    from muster.backends.slurm.backend import SlurmBackend
    from muster.backends.slurm.client import SlurmClient
    from muster.backends.slurm.parse import JobRow
    from muster.model.wave import Wave

RUN_PATIENCE_S = 180.0
LOOK_FIRST_S, LOOK_LONGEST_S = 0.5, 5.0
OUTPUT_BYTES = 20_000


@dataclass(frozen=True)
class ProbeEnd:
    """How the job ended.

    Attributes
    ----------
    result : Result or None
        What it left.
    trouble : MusterError or None
        Why there is no result.
    took_s : float
        How long it took from its submission until its result was seen here, in seconds.
    waited_s : float or None
        How long it waited of that, where that is known.
    node : str or None
        Where it ran, by Slurm's name.
    """

    result: Result | None
    trouble: MusterError | None
    took_s: float
    waited_s: float | None = None
    node: str | None = None


class ProbeJob:
    """One wave of one element.

    Parameters
    ----------
    backend : SlurmBackend
        What submits and cancels it.
    client, files : SlurmClient, WorkFiles
        What it is watched by.
    wave : Wave
        The job.
    said_at : str
        Where the site says how a job starts.
    """

    def __init__(
        self,
        backend: SlurmBackend,
        client: SlurmClient,
        files: WorkFiles,
        wave: Wave,
        said_at: str,
    ) -> None:
        self._backend = backend
        self._client = client
        self._files = files
        self._wave = wave
        self._said_at = said_at
        self._row: JobRow | None = None
        self._submitted_s = 0.0

    async def run(self, patience_s: float, start_s: int | None = None) -> ProbeEnd:
        """Submit it, and wait until it has ended or is not worth waiting for.

        Parameters
        ----------
        patience_s : float
            How long it may wait to begin, in seconds.
        start_s : int or None
            When Slurm expects to start it, in seconds since 1970.

        Raises
        ------
        MusterError
            When it could not be submitted, or perhaps not be cancelled.
        """
        wave = self._wave
        await asyncio.to_thread(write_fences, wave)
        await self._backend.acquire_submit_slot()
        self._submitted_s = time.monotonic()
        try:
            await self._backend.submit(wave)
            trouble = await self._watch(patience_s, start_s)
        finally:
            await self._end()
        result = await self._read_result()
        row = self._row
        waited_s = None
        if row is not None and row.started_at is not None and row.submitted_at is not None:
            waited_s = max(0.0, (row.started_at - row.submitted_at).total_seconds())
        return ProbeEnd(
            result,
            None if result is not None else trouble,
            time.monotonic() - self._submitted_s,
            waited_s,
            row.node if row is not None else None,
        )

    async def _watch(self, patience_s: float, start_s: int | None) -> MusterError | None:
        """Return when there is a result, or why there will be none."""
        pause_s = LOOK_FIRST_S
        waits_until = time.monotonic() + patience_s
        ends_by: float | None = None
        while True:
            if await self._read_result() is not None:
                await self._look()
                return None
            row = await self._look()
            now = time.monotonic()
            if row is None or not is_alive(row):
                return await self._await_result(row)
            if observe_row(row).state is JobState.WAITING:
                ends_by = None
                if is_stuck(row) or now > waits_until:
                    start = _say_start(start_s)
                    return explain_wait(row, now - self._submitted_s, start)
            else:
                ends_by = ends_by or now + max(patience_s, RUN_PATIENCE_S)
                if now > ends_by:
                    return MusterError(
                        "the job runs and does not end; it was cancelled",
                        where=row.node,
                        got=f"{row.state} for {now - ends_by + RUN_PATIENCE_S:.0f} s",
                        do=f"see {self._folder}/job.out",
                    )
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, LOOK_LONGEST_S)

    async def _look(self) -> JobRow | None:
        rows = await self._client.read_queue(self._wave.key)
        self._row = next((row for row in rows if row.name == self._wave.key), None) or self._row
        return self._row if rows else None

    async def _await_result(self, row: JobRow | None) -> MusterError | None:
        """Wait for the result of a job that has ended, as file systems may show it late."""
        deadline = time.monotonic() + self._backend.result_grace_s
        failed = row is not None and row.state != "COMPLETED"
        while await self._read_result() is None:
            if failed or time.monotonic() > deadline:
                break
            await asyncio.sleep(LOOK_FIRST_S)
        else:
            return None
        if row is None:
            return MusterError(
                "the job has left the queue without a result", where=self._folder,
                do=f"see {self._folder}/job.out",
            )  # fmt: skip
        output = await asyncio.to_thread(self._read_output)
        return explain_end(row, output, self._folder, self._said_at)

    async def _read_result(self) -> Result | None:
        await self._files.collect([str(local_work_path(self._wave.batch.work_uri))])
        uri = self._wave.batch.result_uri(0, 1)
        if not await asyncio.to_thread(storage.exists, uri):
            return None
        return Result.model_validate_json(await asyncio.to_thread(storage.read_bytes, uri))

    @property
    def _folder(self) -> str:
        return str(submission_folder(self._wave))

    def _read_output(self) -> str:
        uri = storage.join(self._folder, "job.out")
        if not storage.exists(uri):
            return ""
        return storage.read_tail(uri, OUTPUT_BYTES).decode("utf-8", "replace")

    async def _end(self) -> None:
        """Leave nothing in the queue, whatever has happened."""
        try:
            await self._backend.cancel(self._wave, None)
        except Transient as error:
            raise Transient(
                "the job may be left in the queue",
                where=self._backend.cluster.name,
                got=error,
                do=f"scancel --name={self._wave.key}",
            ) from error


def _say_start(start_s: int | None) -> str | None:
    if start_s is None or start_s < time.time() + 1:
        return None
    return time.strftime("on %Y-%m-%d at %H:%M", time.localtime(start_s))
