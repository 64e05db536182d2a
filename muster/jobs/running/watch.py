"""An element's process, watched from outside: its memory, its time, and how it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psutil

from muster.errors import Superseded
from muster.model.outcome import EXIT_CODES, TERMINATED, Outcome, outcome_of_signal

if TYPE_CHECKING:
    from collections.abc import Callable

    from muster.errors import MusterError
    from muster.model.attempt import Artifact, Fence

POLL_S = 0.1
MEMORY_POLL_S = 0.5
STOP_GRACE_S = 5.0


@dataclass
class Ended:
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
    def of_error(cls, error: MusterError) -> Ended:
        """Say how work ended that an error of ours has ended."""
        superseded = isinstance(error, Superseded)
        outcome = Outcome.SUPERSEDED if superseded else EXIT_CODES[error.exit_code]
        return cls(outcome.value, error_class=type(error).__name__, message=str(error))

    @classmethod
    def of_exit(cls, code: int) -> Ended:
        """Say how work ended by an exit code, or by a signal where the code is negative."""
        if code == 0:
            return cls(Outcome.SUCCEEDED.value, exit_code=0)
        if code < 0:
            name = signal.Signals(-code).name
            # Who kills from outside (an out-of-memory killer, a scheduler that ends a job) is
            # known to the scheduler alone.
            outside = -code in (signal.SIGTERM, signal.SIGKILL)
            return cls(
                TERMINATED if outside else outcome_of_signal(-code).value,
                signal=-code,
                error_class=name,
                message=f"the step's process was ended by {name}",
            )
        outcome = EXIT_CODES.get(code, Outcome.SOFTWARE_ERROR)
        return cls(outcome.value, exit_code=code, message=f"exit code {code}")


class Watch:
    """Watches one element in a process: its memory, its time, and the wish to stop it.

    Parameters
    ----------
    process : subprocess.Popen
        What it runs in.
    fence : Fence
        With its limits.
    fresh : bool
        Whether nothing has run there before, so that the kernel's account of it is the element's.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], fence: Fence, *, fresh: bool = True
    ) -> None:
        self.process = process
        self._fresh = fresh
        self.limits = fence.resources
        self.peak_rss_mib = 0.0
        self._started = time.monotonic()
        self._measured = self._started

    def until_end(self, stopping: Callable[[], bool]) -> Ended:
        """Wait for the process, ending it where it must end, and say how it ended."""
        while True:
            ended = self.look()
            if ended is not None:
                return ended
            verdict = self.must_end(stopping)
            if verdict is not None:
                self.kill()
                return verdict
            time.sleep(POLL_S)

    def look(self) -> Ended | None:
        """Say how the process has ended; None while it runs."""
        pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
        if not pid:
            return None
        if self._fresh:
            self.peak_rss_mib = max(self.peak_rss_mib, usage.ru_maxrss / 1024)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        return Ended.of_exit(self.process.returncode)

    def await_end(self, patience_s: float) -> Ended:
        """Wait for a process that listens no more; after a while it is ended."""
        deadline = time.monotonic() + patience_s
        while (ended := self.look()) is None:
            if time.monotonic() > deadline:
                self.kill()
                return Ended(
                    Outcome.SOFTWARE_ERROR.value, message="the step closed its process's line"
                )
            time.sleep(POLL_S / 10)
        return ended

    def must_end(self, stopping: Callable[[], bool]) -> Ended | None:
        """Say why the process must be ended now; None where it may go on."""
        limits = self.limits
        if stopping():
            return Ended(TERMINATED, message="told to stop")
        now = time.monotonic()
        if now - self._measured >= MEMORY_POLL_S:
            self._measured = now
            rss_mib = self._rss_mib()
            self.peak_rss_mib = max(self.peak_rss_mib, rss_mib)
            if limits.memory_mib is not None and rss_mib > limits.memory_mib:
                return Ended(
                    Outcome.OUT_OF_MEMORY.value,
                    message=f"used {rss_mib:.0f} MiB of memory; limit: {limits.memory_mib} MiB",
                )
        if limits.time_limit_s is not None and now - self._started > limits.time_limit_s:
            return Ended(
                Outcome.TIMED_OUT.value,
                message=f"took longer than its limit of {limits.time_limit_s} s",
            )
        return None

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

    def kill(self) -> None:
        """End the process and its group, with a moment to stop by itself."""
        for number, grace_s in ((signal.SIGTERM, STOP_GRACE_S), (signal.SIGKILL, None)):
            os.killpg(self.process.pid, number)
            try:
                self.process.wait(grace_s)
            except subprocess.TimeoutExpired:
                continue
            else:
                return
