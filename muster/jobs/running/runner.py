"""What runs inside a job: it supervises one element's process and leaves one result file.

The order of things is what makes an effect happen once.  The fence is read before the start and
again before anything is published; outputs are written under temporary names and renamed; the
result file is written last, and names the submission that it belongs to.  Whoever finds a result
file may rely on every artifact that it lists.
"""

from __future__ import annotations

import json
import logging
import mimetypes
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from muster import storage
from muster.errors import InvalidInput, MissingInput, MusterError, SoftwareError, Superseded
from muster.jobs.running.child import THREAD_VARIABLES
from muster.jobs.running.publish_progress import PUBLISH_INTERVAL_S, ProgressPublisher
from muster.jobs.running.watch import Ended, Watch
from muster.log import make_formatter
from muster.model.attempt import Artifact, Fence, Result
from muster.model.fence import read_batch_file, read_fence
from muster.model.outcome import TERMINATED, Outcome, exit_code_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from muster.model.batch import Batch, Element

log = logging.getLogger(__name__)

SCRATCH_PREFIX = "muster-scratch-"
MEDIA_TYPES = {
    ".tif": "image/tiff",
    ".json": "application/json",
    ".parquet": "application/vnd.apache.parquet",
}


@dataclass(frozen=True)
class Running:
    """How a job runs its elements.

    Attributes
    ----------
    submission : str
        The submission key of this job (MUSTER_JOB).
    workers : int
        How many elements run at once.
    progress_every_s : float
        How often an element's progress is published at most, in seconds.
    own_logs : bool
        Whether each element's output goes into a log of its own, as where several elements share
        a job; else it goes where that of this process goes.
    """

    submission: str
    workers: int = 1
    progress_every_s: float = PUBLISH_INTERVAL_S
    own_logs: bool = False


class ElementRunner:
    """Runs one element of a batch as the fence orders it.

    Parameters
    ----------
    batch : Batch
        The batch, as frozen.
    index : int
        Which of its elements.
    how : Running
        With the submission key that this job was started with; the fence must name it.
    """

    def __init__(self, batch: Batch, index: int, how: Running) -> None:
        if index >= len(batch.elements):
            raise InvalidInput(
                "no such element",
                where=batch.uri,
                got=index,
                expected=f"0 … {len(batch.elements) - 1}",
            )
        self.batch = batch
        self.element: Element = batch.elements[index]
        self.how = how
        self._log = log
        self._output: int | None = None  # of the step's process; None: as this one's
        self._stopping = False  # a plain flag: a signal handler must not touch a lock

    def request_stop(self) -> None:
        """Stop the element: its process is ended, nothing is published."""
        self._stopping = True

    def run_to_code(self) -> int:
        """Run the element; where not even its result can be written, the exit code says why."""
        try:
            return self.run()
        except MusterError as error:
            log.error("%s", error)  # noqa: TRY400 - one line for people
            return error.exit_code

    def run(self) -> int:
        """Run the element to its end and return the exit code that tells how it ended."""
        fence = read_fence(self.batch, self.element.index)
        if fence is None or fence.submission != self.how.submission:
            log.warning("superseded before the start: %s", self.element.name)
            return os.EX_OK
        former = self._read_former(fence)
        if former is not None:  # a controller that has crashed may start a job again, id and all
            log.warning("%s has run already: %s", self.element.name, former.outcome)
            return exit_code_of(former.outcome)
        with self._own_log(fence):
            return self._run_and_tell(fence)

    def _read_former(self, fence: Fence) -> Result | None:
        """Read the result of this very attempt, where it has one; being told to stop is none."""
        uri = self.batch.result_uri(self.element.index, fence.attempt)
        try:
            result = Result.model_validate_json(storage.read_bytes(uri))
        except (MissingInput, ValidationError):
            return None
        same = result.submission == fence.submission and result.outcome != TERMINATED
        return result if same else None

    @contextmanager
    def _own_log(self, fence: Fence) -> Iterator[None]:
        """Let what the element says go into its own log, where that is wanted."""
        path = storage.local_path(self.batch.log_uri(self.element.index, fence.attempt))
        if not self.how.own_logs or path is None:
            yield
            return
        with storage.os_errors_at(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a", encoding="utf-8")
        with file:
            handler = logging.StreamHandler(file)
            handler.setFormatter(make_formatter())
            self._log = logging.getLogger(f"muster.element.{self.element.index}")
            self._log.propagate = False
            self._log.handlers[:] = [handler]
            self._output = file.fileno()
            yield

    def _run_and_tell(self, fence: Fence) -> int:
        """Run the element, write its result, and say how it ended."""
        started = datetime.now(UTC)
        clock = time.monotonic()
        with tempfile.TemporaryDirectory(
            prefix=scratch_prefix(), dir=scratch_folder(self.batch)
        ) as scratch:
            try:
                ended = self._run(fence, Path(scratch))
            except MusterError as error:
                self._log.error("%s", error)
                ended = Ended.of_error(error)
        result = Result(
            submission=fence.submission,
            index=self.element.index,
            attempt=fence.attempt,
            outcome=TERMINATED if ended.outcome == TERMINATED else Outcome(ended.outcome),
            exit_code=ended.exit_code,
            signal=ended.signal,
            started_at=started,
            seconds=round(time.monotonic() - clock, 3),
            max_rss_mib=ended.max_rss_mib,
            host=host_name(),
            pid=os.getpid(),
            artifacts=ended.artifacts,
            facts=ended.facts,
            error_class=ended.error_class,
            message=ended.message,
        )
        uri = self.batch.result_uri(self.element.index, fence.attempt)
        storage.write_bytes(uri, result.model_dump_json(indent=1).encode())
        self._log.info("%s: %s in %.1f s", self.element.name, result.outcome, result.seconds)
        return exit_code_of(ended.outcome)

    def _run(self, fence: Fence, scratch: Path) -> Ended:
        if self._stopping:
            return Ended(TERMINATED, message="told to stop before the start")
        # Another run may write the same file now: only this element's own leftovers are swept.
        owner = f"{self.batch.id}/{self.element.index}"
        with ExitStack() as stack:
            staged = {}
            for name, uri in self.element.outputs.items():
                storage.sweep(uri, owner)
                staged[name] = storage.stage(uri, scratch, owner)
                stack.callback(staged[name].discard)
            ended = self._run_child(fence, scratch, {n: s.path for n, s in staged.items()})
            if ended.outcome != Outcome.SUCCEEDED:
                return ended
            for name, output in staged.items():
                if not output.path.exists():
                    raise SoftwareError(
                        "the step did not write its output",
                        where=self.element.outputs[name],
                        got=name,
                    )
            ended.artifacts = tuple(
                self._publish(name, output, fence) for name, output in staged.items()
            )
            return ended

    def _publish(self, name: str, output: storage.Staged, fence: Fence) -> Artifact:
        uri = self.element.outputs[name]
        published = output.publish(lambda: self._check_current(fence))
        suffix = Path(uri).suffix.lower()
        media_type = MEDIA_TYPES.get(suffix) or mimetypes.guess_type(uri)[0]
        return Artifact(
            name=name,
            uri=uri,
            sha256=published.sha256,
            bytes=published.bytes,
            media_type=media_type or "application/octet-stream",
        )

    def _check_current(self, fence: Fence) -> None:
        """Refuse to publish for an attempt that is no longer the current one."""
        if read_fence(self.batch, self.element.index) != fence:
            raise Superseded("a newer attempt has taken over", where=self.element.name)

    def _run_child(self, fence: Fence, scratch: Path, outputs: dict[str, Path]) -> Ended:
        task, report, said = (scratch / f"{n}.json" for n in ("task", "report", "progress"))
        work = scratch / "scratch"
        work.mkdir()
        threads = fence.resources.cpus
        task.write_text(
            json.dumps(
                {
                    "parent_pid": os.getpid(),
                    "report": str(report),
                    "progress": str(said),
                    "step": self.batch.step,
                    "inputs": self.element.inputs,
                    "outputs": {name: str(path) for name, path in outputs.items()},
                    "threads": threads,
                    "memory_mib": fence.resources.memory_mib,
                    "seed": self.batch.seed,
                    "scratch": str(work),
                }
            ),
            encoding="utf-8",
        )
        environment = {
            **os.environ,
            **{variable: str(threads) for variable in THREAD_VARIABLES},
            **self.batch.environment,
            "MUSTER_INDEX": str(self.element.index),
            "MUSTER_ATTEMPT": str(fence.attempt),
            "MUSTER_ROLE": "step",
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "muster.jobs.running.child", str(task)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=None if self._output is None else subprocess.STDOUT,
            start_new_session=True,
        )
        watch = Watch(process, fence)
        with ProgressPublisher(
            self.batch, self.element.index, fence, said, self.how.progress_every_s
        ):
            ended = watch.until_end(lambda: self._stopping)
        ended.max_rss_mib = round(watch.peak_rss_mib, 1)
        return _with_report(ended, report, self.batch.step)


def _with_report(ended: Ended, report: Path, step: str) -> Ended:
    """Add to the process's end what the step itself reported, where it lived to report."""
    if ended.outcome in {TERMINATED, Outcome.OUT_OF_MEMORY, Outcome.TIMED_OUT} or ended.signal:
        return ended
    if not report.exists():
        if ended.outcome == Outcome.SUCCEEDED:
            raise SoftwareError("the step's process ended without a report", where=step)
        return ended
    said = json.loads(report.read_text(encoding="utf-8"))
    ended.facts = said.get("facts", {})
    ended.error_class = said.get("error_class", ended.error_class)
    ended.message = said.get("message", ended.message)
    ended.outcome = said.get("outcome") or ended.outcome
    return ended


def scratch_prefix() -> str:
    """Return what the names of this process's scratch folders begin with.

    Nodes of a cluster may share the disk: a process is known by its host and its pid.
    """
    return f"{SCRATCH_PREFIX}{storage.writer_name()}-"


def scratch_folder(batch: Batch) -> Path:
    """Give the folder for scratch folders, freed of what killed runners left there.

    It lies with the pool, on the disk that is meant for work: the system's temporary folder is
    often memory.
    """
    pool = storage.local_path(batch.pool_uri)
    folder = Path(tempfile.gettempdir()) if pool is None else pool / "scratch"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage.explain_os_error(error, folder) from error
    for former in folder.glob(f"{SCRATCH_PREFIX}*-*-*"):
        host, pid, *_ = former.name.removeprefix(SCRATCH_PREFIX).split("-")
        if storage.is_writer_alive(f"{host}-{pid}") is False:
            shutil.rmtree(former, ignore_errors=True)
    return folder


def host_name() -> str:
    """Return what the scheduler calls this machine, or what it calls itself."""
    return os.environ.get("SLURMD_NODENAME") or platform.node()


def run_elements(batch_uri: str, indexes: list[int] | None, how: Running) -> int:
    """Run elements of a batch inside a job, and return the worst exit code.

    Parameters
    ----------
    batch_uri : str
        Where batch.json lies.
    indexes : list of int or None
        Which elements; None runs all whose fence names this submission.
    how : Running
        As what, and how many at once.
    """
    batch = read_batch_file(batch_uri)
    if indexes is None:
        fences = {e.index: read_fence(batch, e.index) for e in batch.elements}
        indexes = [i for i, fence in fences.items() if fence and fence.submission == how.submission]
    runners = [ElementRunner(batch, index, how) for index in indexes]

    def stop(*_: object) -> None:
        for runner in runners:
            runner.request_stop()

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        if len(runners) == 1:
            codes = [runners[0].run_to_code()]
        else:
            with ThreadPoolExecutor(max_workers=how.workers) as pool:
                codes = list(pool.map(ElementRunner.run_to_code, runners))
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return max(codes, default=os.EX_OK)


__all__ = ["ElementRunner", "Running", "read_batch_file", "read_fence", "run_elements"]
