"""One element of a batch, run as its fence orders, and its result file.

The order of things is what makes an effect happen once.  The fence is read before the start and
again before anything is published; outputs are written under temporary names and renamed; the
result file is written last, and names the submission that it belongs to.  Whoever finds a result
file may rely on every artifact that it lists.
"""

from __future__ import annotations

import json
import mimetypes
import os
import platform
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from muster import storage
from muster.errors import MissingInput, MusterError, SoftwareError, Superseded
from muster.frozen import Frozen
from muster.jobs.running.launched import run_ranks
from muster.jobs.running.publish_progress import ProgressPublisher
from muster.jobs.running.scratch import scratch_prefix
from muster.jobs.running.seat import Output, log
from muster.jobs.running.watch import Ended, Watch
from muster.model.attempt import Artifact, Result
from muster.model.environment import HOST_VARIABLE
from muster.model.fence import read_fence
from muster.model.outcome import EXIT_TERMINATED, TERMINATED, Outcome, exit_code_of

if TYPE_CHECKING:
    from muster.jobs.running.seat import Seat, Stop
    from muster.model.attempt import Fence
    from muster.model.batch import Element

MEDIA_TYPES = {
    ".tif": "image/tiff",
    ".json": "application/json",
    ".parquet": "application/vnd.apache.parquet",
}


class _Report(Frozen):
    """What a step's process says of its step; the step could have said it in its place."""

    facts: dict[str, Any] = {}
    error_class: str | None = None
    message: str | None = None
    outcome: Literal["out_of_memory", "software_error"] | None = None


class ElementRunner:
    """Runs one element of a batch as the fence orders it.

    Parameters
    ----------
    seat : Seat
        What it shares with the elements before and after it.
    index : int
        Which element of the batch.
    stop : Stop
        The wish to stop: its process is ended, and nothing is published.
    """

    def __init__(self, seat: Seat, index: int, stop: Stop) -> None:
        self.seat = seat
        self.batch = seat.batch
        self.element: Element = seat.batch.elements[index]
        self.how = seat.how
        self.seconds = 0.0
        self.longest_s: float | None = None
        self._output = Output(log)
        self._stop = stop

    def run(self) -> int:
        """Run the element to its end and return the exit code that tells how it ended."""
        fence, code = self._begin()
        if fence is None:
            return code
        self.longest_s = fence.longest_s
        with self.seat.output_of(self.element.index, fence) as self._output:
            started, clock = datetime.now(UTC), time.monotonic()
            ended = self._run_in_scratch(fence)
            self.seconds = time.monotonic() - clock
            self._tell(fence, ended, started)
        return exit_code_of(ended.outcome)

    def leave(self, why: str) -> int:
        """Leave the element for another job, as one that has not begun."""
        fence, code = self._begin()
        if fence is None:
            return code
        self._tell(fence, Ended(Outcome.NOT_BEGUN.value, message=why), datetime.now(UTC))
        return EXIT_TERMINATED if self._stop() else os.EX_OK

    def _begin(self) -> tuple[Fence | None, int]:
        """Read the fence; None, and an exit code, where there is nothing to do."""
        fence = read_fence(self.batch, self.element.index)
        if fence is None or fence.submission != self.how.submission:
            log.warning("superseded before the start: %s", self.element.name)
            return None, os.EX_OK
        former = self._read_former(fence)
        if former is not None:  # a controller that has crashed may start a job again, id and all
            log.warning("%s has run already: %s", self.element.name, former.outcome)
            return None, exit_code_of(former.outcome)
        return fence, os.EX_OK

    def _read_former(self, fence: Fence) -> Result | None:
        """Read the result of this very attempt, where it has one; being told to stop is none."""
        uri = self.batch.result_uri(self.element.index, fence.attempt)
        try:
            result = Result.model_validate_json(storage.read_bytes(uri))
        except (MissingInput, ValidationError):
            return None
        same = result.submission == fence.submission and result.outcome != TERMINATED
        return result if same else None

    def _run_in_scratch(self, fence: Fence) -> Ended:
        with tempfile.TemporaryDirectory(
            prefix=scratch_prefix(), dir=self.seat.scratch, ignore_cleanup_errors=True
        ) as scratch:
            try:
                return self._run(fence, Path(scratch))
            except MusterError as error:
                self._output.log.error("%s", error)  # noqa: TRY400 - one line for people
                return Ended.of_error(error)

    def _tell(self, fence: Fence, ended: Ended, started: datetime) -> None:
        """Write the result, behind all that it rests on; the log's end is among that."""
        word: Outcome | Literal["terminated"] = (
            TERMINATED if ended.outcome == TERMINATED else Outcome(ended.outcome)
        )
        seconds = round(self.seconds, 3)
        self._output.log.info("%s: %s in %.1f s", self.element.name, word, seconds)
        result = Result(
            submission=fence.submission,
            index=self.element.index,
            attempt=fence.attempt,
            outcome=word,
            exit_code=ended.exit_code,
            signal=ended.signal,
            started_at=started,
            seconds=seconds,
            max_rss_mib=ended.max_rss_mib,
            host=host_name(),
            pid=os.getpid(),
            artifacts=ended.artifacts,
            facts=ended.facts,
            error_class=ended.error_class,
            message=ended.message,
            log=self._output.span(ended=True),
        )
        self._output.copy()
        uri = self.batch.result_uri(self.element.index, fence.attempt)
        storage.write_bytes(uri, result.model_dump_json(indent=1).encode())

    def _run(self, fence: Fence, scratch: Path) -> Ended:
        if self._stop():
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
        work, said = scratch / "scratch", scratch / "progress.json"
        work.mkdir()
        task = {
            "progress": str(said),
            "step": self.batch.step,
            "inputs": self.element.inputs,
            "outputs": {name: str(path) for name, path in outputs.items()},
            "threads": fence.resources.cpus,
            "memory_mib": fence.resources.memory_mib,
            "seed": self.batch.seed,
            "scratch": str(work),
        }
        index, span = self.element.index, self._output.span()
        if self.batch.layout and self.seat.progress_uri is None:
            self.seat.progress_uri = self.batch.progress_uri(index, fence.attempt)
        with ProgressPublisher(
            self.batch,
            index,
            fence,
            said,
            self.how.progress_every_s,
            worker_uri=self.seat.progress_uri,
            log_span=span,
        ):
            launcher = self.batch.target.launch_command(fence.resources.cpus)
            if launcher is not None:
                return self._run_ranks(fence, scratch, task, launcher)
            if self.seat.worker is None:
                return self._run_alone(fence, scratch, task)
            return self._run_warm(fence, task)

    def _run_ranks(
        self, fence: Fence, scratch: Path, task: dict[str, Any], launcher: tuple[str, ...]
    ) -> Ended:
        """Run the step on the ranks that the launcher of its pool starts."""
        ended, report = run_ranks(
            task,
            fence,
            launcher,
            self.batch.target.ranks,
            scratch=scratch,
            environment=self.seat.environment(fence.resources.cpus) | self._variables(fence),
            output=self._output.descriptor,
            stopping=self._stop,
        )
        return _with_report(ended, report, self.batch.step)

    def _run_warm(self, fence: Fence, task: dict[str, Any]) -> Ended:
        """Run the step in the process that the elements of this job share."""
        worker, output = self.seat.worker, self._output
        assert worker is not None
        order = {
            **task,
            "environment": self._variables(fence),
            "log": None if output.path is None else str(output.path),
        }
        descriptor = None if output.path is not None else output.descriptor
        ended, report = worker.run(order, fence, self._stop, descriptor)
        return _with_report(ended, report, self.batch.step)

    def _run_alone(self, fence: Fence, scratch: Path, task: dict[str, Any]) -> Ended:
        """Run the step in a process of its own."""
        order, report = scratch / "task.json", scratch / "report.json"
        told = {"parent_pid": os.getpid(), "report": str(report), **task}
        order.write_text(json.dumps(told), encoding="utf-8")
        output = self._output.descriptor
        process = subprocess.Popen(
            [sys.executable, "-m", "muster.jobs.running.child", str(order)],
            env=self.seat.environment(fence.resources.cpus) | self._variables(fence),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=None if output is None else subprocess.STDOUT,
            start_new_session=True,
        )
        watch = Watch(process, fence)
        ended = watch.until_end(self._stop)
        ended.max_rss_mib = round(watch.peak_rss_mib, 1)
        said = report.read_text(encoding="utf-8") if report.exists() else None
        return _with_report(ended, said, self.batch.step)

    def _variables(self, fence: Fence) -> dict[str, str]:
        return {"MUSTER_INDEX": str(self.element.index), "MUSTER_ATTEMPT": str(fence.attempt)}


def _with_report(ended: Ended, report: str | None, step: str) -> Ended:
    """Add to the process's end what the step itself reported, where it lived to report."""
    if ended.outcome in {TERMINATED, Outcome.OUT_OF_MEMORY, Outcome.TIMED_OUT} or ended.signal:
        return ended
    if report is None:
        if ended.outcome == Outcome.SUCCEEDED:
            raise SoftwareError("the step's process ended without a report", where=step)
        return ended
    try:
        said = _Report.model_validate_json(report)
    except ValidationError as error:
        raise SoftwareError("not the report of a step", where=step, got=error) from error
    ended.facts = said.facts
    ended.error_class = said.error_class or ended.error_class
    ended.message = said.message or ended.message
    ended.outcome = said.outcome or ended.outcome
    return ended


def host_name() -> str:
    """Return what the scheduler calls this machine, or what it calls itself."""
    names = (os.environ.get(name) for name in (HOST_VARIABLE, "SLURMD_NODENAME"))
    return next(filter(None, names), None) or platform.node()
