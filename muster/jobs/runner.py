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
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from muster import storage
from muster.errors import InvalidInput, MusterError, SoftwareError, Superseded
from muster.jobs.child import THREAD_VARIABLES
from muster.jobs.model import Artifact, Batch, Element, Order, Result
from muster.jobs.orders import read_batch_file, read_order
from muster.jobs.outcome import EXIT_CODES, TERMINATED, Outcome, exit_code_of, outcome_of_signal
from muster.jobs.publish_progress import PUBLISH_INTERVAL_S, ProgressPublisher
from muster.jobs.scratch import SCRATCH_PREFIX, scratch_folder

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

POLL_S = 0.1
MEMORY_POLL_S = 0.5
STOP_GRACE_S = 5.0
MEDIA_TYPES = {
    ".tif": "image/tiff",
    ".json": "application/json",
    ".parquet": "application/vnd.apache.parquet",
}


@dataclass
class _Ended:
    """How an element's work ended, before it is written down."""

    outcome: str
    exit_code: int | None = None
    signal: int | None = None
    max_rss_mib: float | None = None
    artifacts: tuple[Artifact, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    error_class: str | None = None
    message: str | None = None

    @classmethod
    def of_error(cls, error: MusterError) -> _Ended:
        superseded = isinstance(error, Superseded)
        outcome = Outcome.SUPERSEDED if superseded else EXIT_CODES[error.exit_code]
        return cls(outcome.value, error_class=type(error).__name__, message=str(error))


class ElementRunner:
    """Runs one element of a batch as the fence orders it.

    Parameters
    ----------
    batch : Batch
        The batch, as frozen.
    index : int
        Which of its elements.
    submission : str
        The submission key that this job was started with; the fence must name it.
    progress_every_s : float
        How often the element's progress is published at most, in seconds.
    """

    def __init__(
        self,
        batch: Batch,
        index: int,
        submission: str,
        progress_every_s: float = PUBLISH_INTERVAL_S,
    ) -> None:
        if index >= len(batch.elements):
            raise InvalidInput(
                "no such element",
                where=batch.uri,
                got=index,
                expected=f"0 … {len(batch.elements) - 1}",
            )
        self.batch = batch
        self.element: Element = batch.elements[index]
        self.submission = submission
        self.progress_every_s = progress_every_s
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
        order = read_order(self.batch, self.element.index)
        if order is None or order.submission != self.submission:
            log.warning("superseded before the start: %s", self.element.name)
            return os.EX_OK
        started = datetime.now(UTC)
        clock = time.monotonic()
        with tempfile.TemporaryDirectory(
            prefix=f"{SCRATCH_PREFIX}{os.getpid()}-", dir=scratch_folder(self.batch)
        ) as scratch:
            try:
                ended = self._run(order, Path(scratch))
            except MusterError as error:
                log.error("%s", error)  # noqa: TRY400 - one line for people
                ended = _Ended.of_error(error)
        result = Result(
            submission=order.submission,
            index=self.element.index,
            attempt=order.attempt,
            outcome=TERMINATED if ended.outcome == TERMINATED else Outcome(ended.outcome),
            exit_code=ended.exit_code,
            signal=ended.signal,
            started_at=started,
            seconds=round(time.monotonic() - clock, 3),
            max_rss_mib=ended.max_rss_mib,
            host=platform.node(),
            pid=os.getpid(),
            artifacts=ended.artifacts,
            facts=ended.facts,
            error_class=ended.error_class,
            message=ended.message,
        )
        uri = self.batch.result_uri(self.element.index, order.attempt)
        storage.write_bytes(uri, result.model_dump_json(indent=1).encode())
        log.info("%s: %s in %.1f s", self.element.name, result.outcome, result.seconds)
        return exit_code_of(ended.outcome)

    def _run(self, order: Order, scratch: Path) -> _Ended:
        if self._stopping:
            return _Ended(TERMINATED, message="told to stop before the start")
        # Another run may write the same file now: only this element's own leftovers are swept.
        owner = f"{self.batch.id}/{self.element.index}"
        with ExitStack() as stack:
            staged = {}
            for name, uri in self.element.outputs.items():
                storage.sweep(uri, owner)
                staged[name] = storage.stage(uri, scratch, owner)
                stack.callback(staged[name].discard)
            ended = self._run_child(order, scratch, {n: s.path for n, s in staged.items()})
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
                self._publish(name, output, order) for name, output in staged.items()
            )
            return ended

    def _publish(self, name: str, output: storage.Staged, order: Order) -> Artifact:
        uri = self.element.outputs[name]
        published = output.publish(lambda: self._check_current(order))
        suffix = Path(uri).suffix.lower()
        media_type = MEDIA_TYPES.get(suffix) or mimetypes.guess_type(uri)[0]
        return Artifact(
            name=name,
            uri=uri,
            sha256=published.sha256,
            bytes=published.bytes,
            media_type=media_type or "application/octet-stream",
        )

    def _check_current(self, order: Order) -> None:
        """Refuse to publish for an attempt that is no longer the current one."""
        if read_order(self.batch, self.element.index) != order:
            raise Superseded("a newer attempt has taken over", where=self.element.name)

    def _run_child(self, order: Order, scratch: Path, outputs: dict[str, Path]) -> _Ended:
        task, report, said = (scratch / f"{n}.json" for n in ("task", "report", "progress"))
        work = scratch / "scratch"
        work.mkdir()
        threads = order.resources.cpus
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
                    "memory_mib": order.resources.memory_mib,
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
            "MUSTER_ROLE": "step",
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "muster.jobs.child", str(task)],
            env=environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        watch = _Watch(process, order)
        with ProgressPublisher(self.batch, self.element.index, order, said, self.progress_every_s):
            ended = watch.until_end(lambda: self._stopping)
        ended.max_rss_mib = round(watch.peak_rss_mib, 1)
        return _with_report(ended, report, self.batch.step)


class _Watch:
    """Watches an element's process: its memory, its time, and the wish to stop it."""

    def __init__(self, process: subprocess.Popen[bytes], order: Order) -> None:
        self.process = process
        self.limits = order.resources
        self.peak_rss_mib = 0.0
        self._started = time.monotonic()
        self._measured = self._started

    def until_end(self, stopping: Callable[[], bool]) -> _Ended:
        """Wait for the process, ending it where it must end, and say how it ended."""
        while True:
            pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
            if pid:
                self.peak_rss_mib = max(self.peak_rss_mib, usage.ru_maxrss / 1024)
                self.process.returncode = os.waitstatus_to_exitcode(status)
                return self._natural_end(self.process.returncode)
            verdict = self._must_end(stopping)
            if verdict is not None:
                self._kill()
                return verdict
            time.sleep(POLL_S)

    def _must_end(self, stopping: Callable[[], bool]) -> _Ended | None:
        limits = self.limits
        if stopping():
            return _Ended(TERMINATED, message="told to stop")
        now = time.monotonic()
        if now - self._measured >= MEMORY_POLL_S:
            self._measured = now
            rss_mib = self._rss_mib()
            self.peak_rss_mib = max(self.peak_rss_mib, rss_mib)
            if limits.memory_mib is not None and rss_mib > limits.memory_mib:
                return _Ended(
                    Outcome.OUT_OF_MEMORY.value,
                    message=f"used {rss_mib:.0f} MiB of memory; limit: {limits.memory_mib} MiB",
                )
        if limits.time_limit_s is not None and now - self._started > limits.time_limit_s:
            return _Ended(
                Outcome.TIMED_OUT.value,
                message=f"took longer than its limit of {limits.time_limit_s} s",
            )
        return None

    def _natural_end(self, returncode: int) -> _Ended:
        if returncode == 0:
            return _Ended(Outcome.SUCCEEDED.value, exit_code=0)
        if returncode < 0:
            name = signal.Signals(-returncode).name
            # Who kills from outside (an out-of-memory killer, a scheduler that ends a job) is
            # known to the scheduler alone.
            outside = -returncode in (signal.SIGTERM, signal.SIGKILL)
            return _Ended(
                TERMINATED if outside else outcome_of_signal(-returncode).value,
                signal=-returncode,
                error_class=name,
                message=f"the step's process was ended by {name}",
            )
        outcome = EXIT_CODES.get(returncode, Outcome.SOFTWARE_ERROR)
        return _Ended(outcome.value, exit_code=returncode, message=f"exit code {returncode}")

    def _rss_mib(self) -> float:
        """Resident memory of the process and all below it, in MiB."""
        total = 0
        try:
            process = psutil.Process(self.process.pid)
            for member in [process, *process.children(recursive=True)]:
                try:
                    total += member.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
        except psutil.NoSuchProcess:
            return 0.0
        return total / 2**20

    def _kill(self) -> None:
        for number, grace_s in ((signal.SIGTERM, STOP_GRACE_S), (signal.SIGKILL, None)):
            os.killpg(self.process.pid, number)
            try:
                self.process.wait(grace_s)
            except subprocess.TimeoutExpired:
                continue
            else:
                return


def _with_report(ended: _Ended, report: Path, step: str) -> _Ended:
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


def run_elements(
    batch_uri: str,
    indexes: list[int] | None,
    submission: str,
    workers: int,
    progress_every_s: float = PUBLISH_INTERVAL_S,
) -> int:
    """Run elements of a batch inside a job, and return the worst exit code.

    Parameters
    ----------
    batch_uri : str
        Where batch.json lies.
    indexes : list of int or None
        Which elements; None runs all whose fence names this submission.
    submission : str
        The submission key of this job (MUSTER_JOB).
    workers : int
        How many elements run at once.
    progress_every_s : float
        As in :class:`ElementRunner`.
    """
    batch = read_batch_file(batch_uri)
    if indexes is None:
        orders = {e.index: read_order(batch, e.index) for e in batch.elements}
        indexes = [i for i, order in orders.items() if order and order.submission == submission]
    runners = [ElementRunner(batch, index, submission, progress_every_s) for index in indexes]

    def stop(*_: object) -> None:
        for runner in runners:
            runner.request_stop()

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        if len(runners) == 1:
            codes = [runners[0].run_to_code()]
        else:
            with ThreadPoolExecutor(max_workers=workers) as pool:
                codes = list(pool.map(ElementRunner.run_to_code, runners))
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return max(codes, default=os.EX_OK)


__all__ = ["ElementRunner", "read_batch_file", "read_order", "run_elements"]
