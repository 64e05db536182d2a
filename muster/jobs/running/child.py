"""The process that a step function really runs in; the runner watches it from outside.

``python -m muster.jobs.running.child TASK`` reads one JSON task, runs the step, and leaves one JSON
report beside it.  It ends with the exit code of the error's class, so that a report that was never
written (a crash, a kill) is told from one that was.
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
from typing import Any

from muster.errors import MusterError, one_line
from muster.jobs.running.eta import EtaEstimator, describe_progress
from muster.log import configure_logging
from muster.model.outcome import Outcome
from muster.model.step import StepContext, call_step, load_step

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
    report_path = Path(task["report"])
    try:
        report = {"facts": _run(task)}
        _write_report(report_path, report)
    except MusterError as error:
        log.error("%s", error)  # noqa: TRY400 - one line for people; the class says the rest
        _write_report(report_path, _failure(error, None))
        return error.exit_code
    except MemoryError as error:
        log.exception("the step ran out of memory")
        _write_report(report_path, _failure(error, Outcome.OUT_OF_MEMORY))
        return os.EX_SOFTWARE
    except Exception as error:
        log.exception("the step failed")
        _write_report(report_path, _failure(error, Outcome.SOFTWARE_ERROR))
        return os.EX_SOFTWARE
    return os.EX_OK


def _run(task: dict[str, Any]) -> dict[str, Any]:
    context = StepContext(
        threads=task["threads"],
        memory_mib=task["memory_mib"],
        seed=task["seed"],
        scratch=Path(task["scratch"]),
        progress=_ProgressReport(Path(task["progress"])),
    )
    outputs = {name: Path(path) for name, path in task["outputs"].items()}
    return dict(call_step(load_step(task["step"]), task["inputs"], outputs, context))


class _ProgressReport:
    """Tell the log and the runner how far the step is, neither more often than it can use.

    The runner reads a file beside the report: a step must never wait for a store or a network.
    A word that comes too soon after another is written a little later, unless a newer one is.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._logged = time.monotonic()
        self._estimator = EtaEstimator(self._logged)
        self._said: dict[str, Any] | None = None
        self._writer: threading.Timer | None = None
        self._lock = threading.Lock()

    def __call__(self, fraction: float, message: str) -> None:
        now = time.monotonic()
        with self._lock:  # a step may have threads
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
            _write_report(self._path, said)
        self._said = None
        self._writer = threading.Timer(WRITE_INTERVAL_S, self._write_later)
        self._writer.daemon = True
        self._writer.start()

    def _write_later(self) -> None:
        with self._lock:
            self._writer = None
            if self._said is not None:
                self._write(self._said)


def _failure(error: BaseException, outcome: Outcome | None) -> dict[str, Any]:
    summary = str(error) if isinstance(error, MusterError) else _summary(error)
    return {
        "error_class": type(error).__name__,
        "message": summary,
        "outcome": outcome.value if outcome else None,
    }


def _summary(error: BaseException) -> str:
    """Fold an unexpected error into one line that says where it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return one_line(f"{type(error).__name__}: {error}{place}")


def _write_report(path: Path, report: dict[str, Any]) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(report), encoding="utf-8")
    part.replace(path)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
