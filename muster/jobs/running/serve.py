"""The warm side of a step's process: it runs one element after the other, and stays imported.

``python -m muster.jobs.running.serve FD PARENT`` reads tasks from an inherited socket, a
line of JSON each, and answers each by a line.  Before each element the process is as the first one
found it, as far as a step can be expected to change it: working directory, environment, umask,
signal handlers and standard input and output.  Modules, their globals (NumPy's and Python's random
state among them), native libraries and what these have allocated stay: that is what is warm.  A
step takes its randomness from the seed that it is given, or is no warm step: a function with the
attribute ``own_process = True`` has a process of its own for each element.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import logging
import os
import signal
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from muster.jobs.running import kept
from muster.jobs.running.child import die_with_parent, run_task
from muster.log import configure_logging
from muster.model.step import load_step

LONGEST_LINE = 64 << 20
"""Bytes of a task, or of an answer: more is nothing that an element or its facts would hold."""
LONGEST_ANSWER = 4 << 20

log = logging.getLogger(__name__)

_load = functools.cache(load_step)  # to look for it takes longer than many a step
_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2)


def serve(descriptor: int, parent_pid: int) -> int:
    """Run tasks from a socket until the other side closes it, and return the exit code."""
    die_with_parent(parent_pid)
    configure_logging()
    kept.allow_keeping()
    home = _Home()
    with socket.socket(fileno=descriptor) as channel, channel.makefile("rb") as tasks:
        while line := tasks.readline(LONGEST_LINE):
            answer = _run(json.loads(line), home)
            channel.sendall(json.dumps(answer).encode() + b"\n")
    return os.EX_OK


@dataclass
class _Home:
    """What a step finds around it, and may leave otherwise."""

    folder: str = field(default_factory=os.getcwd)
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    umask: int = field(default_factory=lambda: os.umask(0o022))
    streams: tuple[Any, Any, Any] = field(
        default_factory=lambda: (sys.stdin, sys.stdout, sys.stderr)
    )

    handlers: list[logging.Handler] = field(default_factory=lambda: logging.getLogger().handlers[:])

    def __post_init__(self) -> None:
        os.umask(self.umask)

    def restore(self, environment: dict[str, str]) -> None:
        """Make everything as it was, with the variables of one element."""
        wanted, found = self.environment | environment, dict(os.environ)
        for name in found.keys() - wanted.keys():
            del os.environ[name]
        for name, value in wanted.items():
            if found.get(name) != value:
                os.environ[name] = value
        os.chdir(self.folder)
        os.umask(self.umask)
        sys.stdin, sys.stdout, sys.stderr = self.streams
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_DFL:
                signal.signal(number, signal.SIG_DFL)
        if logging.getLogger().handlers != self.handlers:
            configure_logging()
            self.handlers = logging.getLogger().handlers[:]


def _run(task: dict[str, Any], home: _Home) -> dict[str, Any]:
    """Run one element and say how it went, and what is left of it in the process."""
    home.restore(task["environment"])
    with _output_to(task["log"]):
        can_reset = _reset_peak()
        code, report = run_task(task, _load)
        _flush()
    if len(report) > LONGEST_ANSWER:
        code = os.EX_SOFTWARE
        message = f"the step's facts are {len(report)} bytes of JSON; at most {LONGEST_ANSWER}"
        report = json.dumps({"error_class": "SoftwareError", "message": message, "outcome": None})
    left = kept.has_left()
    peak_mib, kept_mib = _read_peak_mib(), kept.kept_rss_mib()
    return {
        "id": task["id"],
        "code": code,
        "report": report,
        "peak_rss_mib": peak_mib + kept_mib if can_reset and peak_mib is not None else None,
        "rss_mib": _read_rss_mib() + kept_mib,
        "left": left,
        "own_process": _wants_own_process(task["step"]),
    }


@contextlib.contextmanager
def _output_to(path: str | None) -> Any:
    """Let standard output and error go into a log of the element's own, where it has one."""
    if path is None:
        yield
        return
    kept = [os.dup(1), os.dup(2)]
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)
        yield
    finally:
        for number, former in zip((1, 2), kept, strict=True):
            os.dup2(former, number)
            os.close(former)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # a step may have closed it
            stream.flush()
    ctypes.CDLL(None).fflush(None)


def _reset_peak() -> bool:
    """Let the kernel measure the peak of memory from here on; say whether it does."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _read_peak_mib() -> float | None:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return None


def _read_rss_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * kept.PAGE_BYTES / 2**20


def _wants_own_process(step: str) -> bool:
    try:
        return bool(getattr(_load(step), "own_process", False))
    except Exception:  # whatever keeps it from being loaded was said when it was to run
        return True


if __name__ == "__main__":
    sys.exit(serve(*map(int, sys.argv[1:3])))
