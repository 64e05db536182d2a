"""The process that a step function really runs in; the runner watches it from outside.

``python -m muster.jobs.running.child TASK`` reads one JSON task, runs the step, and leaves one JSON
report beside it.  It ends with the exit code of the error's class, so that a report that was never
written (a crash, a kill) is told from one that was.  One that stays and runs one task after the
other is :mod:`muster.jobs.running.serve`; one of several ranks, :mod:`muster.jobs.running.rank`.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muster.errors import MusterError, one_line
from muster.jobs.running.eta import EtaEstimator, describe_progress
from muster.log import configure_logging
from muster.model.outcome import Outcome
from muster.model.ranks import Rank
from muster.model.step import StepContext, call_step, load_step

if TYPE_CHECKING:
    from collections.abc import Callable

    from muster.model.step import StepFunction

log = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1
PROGRESS_INTERVAL_S = 10.0
WRITE_INTERVAL_S = 0.2
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "GDAL_NUM_THREADS",
)


def die_with_parent(parent_pid: int) -> None:
    """Ask the kernel to kill this process when its parent dies, and die now if it has already."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(os.EX_TEMPFAIL)


def main(task_path: Path) -> int:
    """Run the task at a path and return the exit code."""
    task = json.loads(task_path.read_text(encoding="utf-8"))
    die_with_parent(task["parent_pid"])
    configure_logging()
    code, report = run_task(task)
    write_text(Path(task["report"]), report)
    return code


def run_task(
    task: dict[str, Any],
    load: Callable[[str], StepFunction] = load_step,
    rank: Rank = Rank(),  # noqa: B008 - frozen
) -> tuple[int, str]:
    """Run a task; return the exit code that tells how it ended, and its report as JSON.

    Parameters
    ----------
    task : dict
        What to run: the step, its inputs and outputs, and what its context says.
    load : callable
        What gives a step's function by its name.
    rank : Rank
        Which rank this is; rank 0 alone tells of progress.
    """
    progress = _ProgressReport(Path(task["progress"]) if rank.number == 0 else None)
    try:
        return os.EX_OK, json.dumps({"facts": _run(task, progress, load, rank)})
    except MusterError as error:
        log.error("%s", error)  # noqa: TRY400 - one line for people; the class says the rest
        return error.exit_code, _failure(error, None)
    except MemoryError as error:
        log.exception("the step ran out of memory")
        return os.EX_SOFTWARE, _failure(error, Outcome.OUT_OF_MEMORY)
    except Exception as error:
        log.exception("the step failed")
        return os.EX_SOFTWARE, _failure(error, Outcome.SOFTWARE_ERROR)
    finally:
        progress.close()


def _run(
    task: dict[str, Any],
    progress: _ProgressReport,
    load: Callable[[str], StepFunction],
    rank: Rank,
) -> dict[str, Any]:
    context = StepContext(
        threads=task["threads"],
        memory_mib=task["memory_mib"],
        seed=task["seed"],
        scratch=Path(task["scratch"]),
        progress=progress,
        rank=rank.number,
        ranks=rank.count,
    )
    outputs = {name: Path(path) for name, path in task["outputs"].items()}
    return dict(call_step(load(task["step"]), task["inputs"], outputs, context))


class _ProgressReport:
    """Tell the log and the runner how far the step is, neither more often than it can use.

    The runner reads a file beside the report: a step must never wait for a store or a network.
    A word that comes too soon after another is written a little later, unless a newer one is.
    Without a path it tells nobody.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._logged = time.monotonic()
        self._estimator = EtaEstimator(self._logged)
        self._said: dict[str, Any] | None = None
        self._writer: threading.Timer | None = None
        self._lock = threading.Lock()
        self._closed = False

    def close(self) -> None:
        """Write the last word now, and no other after it."""
        with self._lock:
            self._closed = True
            if self._writer is not None:
                self._writer.cancel()
            if self._said is not None:
                self._write(self._said)

    def __call__(self, fraction: float, message: str) -> None:
        now = time.monotonic()
        with self._lock:  # a step may have threads
            if self._closed or self._path is None:
                return
            believed = self._estimator.report(fraction, now)
            left_s = self._estimator.left_s()
            message = one_line(str(message))
            at = datetime.now(UTC).isoformat()
            said = {"fraction": believed, "message": message, "left_s": left_s, "at": at}
            if self._writer is None:
                self._write(said)
            else:
                self._said = said
            due = now - self._logged >= PROGRESS_INTERVAL_S or believed >= 1.0
            if due:
                self._logged = now
        if due:
            log.info("%s", describe_progress(believed, message, left_s))

    def _write(self, said: dict[str, Any]) -> None:
        """Write now, and see later whether there is more to write."""
        with contextlib.suppress(OSError):  # a full disk is the step's own to find
            if self._path is not None:
                write_text(self._path, json.dumps(said))
        self._said = None
        if self._closed:
            return
        self._writer = threading.Timer(WRITE_INTERVAL_S, self._write_later)
        self._writer.daemon = True
        self._writer.start()

    def _write_later(self) -> None:
        with self._lock:
            self._writer = None
            if self._said is not None and not self._closed:
                self._write(self._said)


def _failure(error: BaseException, outcome: Outcome | None) -> str:
    summary = str(error) if isinstance(error, MusterError) else _summary(error)
    report: dict[str, Any] = {
        "error_class": type(error).__name__,
        "message": summary,
        "outcome": outcome.value if outcome else None,
    }
    if getattr(error, "is_echo", False):  # of another rank's failure, which says more
        report["is_echo"] = True
    return json.dumps(report)


def _summary(error: BaseException) -> str:
    """Fold an unexpected error into one line that says where it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return one_line(f"{type(error).__name__}: {error}{place}")


def write_text(path: Path, text: str) -> None:
    """Write a file that is whole as soon as it is there."""
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
