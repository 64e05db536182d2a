"""A step on several ranks, as its runner sees it: one launcher, and what its ranks reported."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from muster.errors import SoftwareError
from muster.frozen import Frozen
from muster.jobs.running.rank import crash_of, report_of
from muster.jobs.running.watch import Ended, Watch
from muster.model.outcome import TERMINATED, Outcome
from muster.storage import writer_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from muster.model.attempt import Fence

LONGEST_REPORT = 4 << 20
SIGNALLED = 128
"""A launcher's exit code is this and the signal, where a signal has ended a rank."""


CRASHES = {
    "Segmentation fault": signal.SIGSEGV,
    "Aborted": signal.SIGABRT,
    "Bus error": signal.SIGBUS,
    "Floating": signal.SIGFPE,
    "Illegal instruction": signal.SIGILL,
}
"""First of a crashed rank's last words, which are faulthandler's: srun may tell the others' end."""


class _Failure(Frozen):
    """What a rank that failed says, of which the code and whether it is another's are read here."""

    exit_code: int
    error_class: str | None = None
    message: str | None = None
    outcome: str | None = None
    is_echo: bool = False


def run_ranks(
    task: Mapping[str, Any],
    fence: Fence,
    launcher: Sequence[str],
    ntasks: int,
    *,
    scratch: Path,
    environment: Mapping[str, str],
    output: int | None,
    stopping: Callable[[], bool],
) -> tuple[Ended, str | None]:
    """Run a task on ranks; return how it ended, and the report of the rank that says most.

    Parameters
    ----------
    task : mapping
        As :func:`muster.jobs.running.child.run_task` takes it.
    fence : Fence
        With its limits.
    launcher : sequence of str
        The command that starts the ranks.
    ntasks : int
        How many there are to be.
    scratch : Path
        Folder of the task and the reports; all nodes see it.
    environment : mapping
        Variables of the ranks.
    output : int or None
        Descriptor that they write to; None: as this process.
    stopping : callable
        Whether they are to be stopped.

    Raises
    ------
    SoftwareError
        When the launcher is not found.
    """
    if shutil.which(launcher[0], path=environment.get("PATH")) is None:
        raise SoftwareError(
            "the launcher of the pool is not found",
            where=environment.get("PATH"),
            got=launcher[0],
            do="load it in the prelude of the pool, or correct 'launcher'",
        )
    order, report = scratch / "task.json", scratch / "report.json"
    told = {
        **task,
        "report": str(report),
        "ntasks": ntasks,
        "runner": writer_name(),
        "environment": {n: v for n, v in environment.items() if os.environ.get(n) != v},
    }
    order.write_text(json.dumps(told), encoding="utf-8")
    rank = (sys.executable, "-m", "muster.jobs.running.rank", str(order))
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "muster.jobs.running.launch", str(os.getpid())),
            *launcher,
            *rank,
        ],
        env={
            **environment,
            "SLURM_KILL_BAD_EXIT": "1",  # for srun: a rank that fails ends the others
            "SRUN_CPUS_PER_TASK": str(fence.resources.cpus),
        },
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
        start_new_session=True,
    )
    watch = Watch(process, fence)
    ended = watch.until_end(stopping)
    peak_rss_mib = round(watch.peak_rss_mib, 1)
    said: str | None = None
    if ended.exit_code is not None:
        # Whatever the code: srun may end with 0 where it had to end the ranks by force.
        failed = _find_failure(report, ntasks)
        if failed is not None:
            ended, said = failed
        elif ended.exit_code == 0 and report.exists():
            said = _read(report)
        elif stopping():  # a scheduler tells all processes of a job, launchers too
            ended = Ended(TERMINATED, message="told to stop")
        else:
            ended = _of_launcher(ended)
    ended.max_rss_mib = peak_rss_mib
    return ended, said


def _find_failure(report: Path, ntasks: int) -> tuple[Ended, str | None] | None:
    """Say how a rank failed, by its report or its last words; None where none left any."""
    reports = _read_failures(report, ntasks)
    if reports and not reports[0][0].is_echo:
        return _as_reported(*reports[0])
    for number in range(ntasks):
        words = _read(crash_of(report, number)) or ""
        for name, crash in CRASHES.items():
            if name in words.partition("\n")[0]:
                return _of_signal(crash, f"rank {number}"), None
    return _as_reported(*reports[0]) if reports else None


def _of_launcher(ended: Ended) -> Ended:
    """Say how ranks ended of which none has left a word."""
    code = ended.exit_code or 0
    if code - SIGNALLED in {int(number) for number in signal.Signals}:
        return _of_signal(code - SIGNALLED, "a rank")
    return Ended(
        Outcome.SOFTWARE_ERROR.value,
        exit_code=code,
        message=f"the launcher ended with exit code {code}, and no rank says why; see the log",
    )


def _read_failures(report: Path, ntasks: int) -> list[tuple[_Failure, str]]:
    """Read what ranks say that failed: the first first, those behind that failed with another."""
    found = []
    for number in range(ntasks):
        path = report_of(report, number)
        text = _read(path)
        try:
            failure = None if text is None else _Failure.model_validate_json(text)
        except ValidationError:
            continue  # of a rank that did not fail, or of none
        if text is not None and failure is not None and failure.exit_code > 0:
            found.append((failure.is_echo, path.stat().st_mtime_ns, number, failure, text))
    return [(failure, text) for *_, failure, text in sorted(found, key=lambda entry: entry[:3])]


def _as_reported(failure: _Failure, text: str) -> tuple[Ended, str]:
    """Say how a rank failed; the report without what only ranks say."""
    said = {n: v for n, v in json.loads(text).items() if n not in {"exit_code", "is_echo"}}
    return Ended.of_exit(failure.exit_code), json.dumps(said)


def _of_signal(number: int, who: str) -> Ended:
    ended = Ended.of_exit(-number)
    ended.message = f"{who} was ended by {ended.error_class}"
    return ended


def _read(path: Path) -> str | None:
    """Read a report; None where there is none, or no report could be so long."""
    try:
        if path.stat().st_size > LONGEST_REPORT:
            return None
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return None
