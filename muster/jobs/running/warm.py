"""One process for the elements of a job that run one after the other: it stays warm between them.

Its imports, compiled programs and allocated memory serve the next element.  What ends it (a crash,
a kill, the limits) is charged to the element that it was running, and the next one finds a fresh
process.  So does one that follows a step that left processes behind, that wants a process of its
own, or whose memory has grown: see :func:`why_replace`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from muster.errors import SoftwareError
from muster.jobs.running.serve import LONGEST_ANSWER
from muster.jobs.running.watch import POLL_S, Ended, Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from muster.model.attempt import Fence

LARGEST_SHARE = 0.6
"""A process that keeps more than this of an element's memory is replaced before the next one."""
GROWTH_ELEMENTS = 8
GROWTH_MIB = 64.0
"""So is one that has grown with each of so many elements in a row, by so much in all."""
END_PATIENCE_S = 5.0

log = logging.getLogger(__name__)


def why_replace(rss_mib: Sequence[float], limit_mib: int | None) -> str | None:
    """Say why a process should be replaced before its next element; None where it may stay.

    Parameters
    ----------
    rss_mib : sequence of float
        Resident memory after each element that it ran, in MiB, oldest first.
    limit_mib : int or None
        What an element may use, in MiB.
    """
    if limit_mib is not None and rss_mib and rss_mib[-1] > LARGEST_SHARE * limit_mib:
        return f"it keeps {rss_mib[-1]:.0f} MiB, of the {limit_mib} that an element may use"
    last = rss_mib[-GROWTH_ELEMENTS - 1 :]
    if len(last) > GROWTH_ELEMENTS:
        grown = last[-1] - last[0]
        always = all(after > before for before, after in itertools.pairwise(last))
        if always and grown > GROWTH_MIB:
            return f"it has grown by {grown:.0f} MiB in {GROWTH_ELEMENTS} elements"
    return None


@dataclass
class _Process:
    """A process that waits for elements, or runs one."""

    popen: subprocess.Popen[bytes]
    channel: socket.socket
    threads: int
    rss_mib: list[float] = field(default_factory=list)
    word: bytearray = field(default_factory=bytearray)


class WarmWorker:
    """Runs elements of one job, one after the other, in a process that stays.

    It is used from one thread, which must outlive it: the kernel ends the process with the thread.

    Parameters
    ----------
    environment : callable
        Gives the environment of the process, from the number of threads that its steps may use.
    """

    def __init__(self, environment: Callable[[int], dict[str, str]]) -> None:
        self._environment = environment
        self._process: _Process | None = None
        self._number = 0
        self.started = 0

    def run(
        self,
        task: Mapping[str, Any],
        fence: Fence,
        stopping: Callable[[], bool],
        output: int | None,
    ) -> tuple[Ended, str | None]:
        """Run a task; return how it ended, and the step's report where it lived to give one.

        Parameters
        ----------
        task : mapping
            As :func:`muster.jobs.running.child.run_task` takes it, with ``environment``, the
            variables of this element, and ``log``, the path of its own log or None.
        fence : Fence
            With its limits.
        stopping : callable
            Whether it is to be stopped.
        output : int or None
            Where a process that has to be started writes what belongs to no log of an element's.
        """
        process = self._ready(fence.resources.cpus, output)
        self._number += 1
        order = json.dumps({**task, "id": self._number}).encode() + b"\n"
        watch = Watch(process.popen, fence, fresh=not process.rss_mib)
        try:
            ended, answer = self._follow(process, watch, order, stopping)
        except BaseException:
            self._drop(kill=True)
            raise
        ended.max_rss_mib = round(watch.peak_rss_mib, 1)
        if answer is None:
            self._drop(kill=True)
            return ended, None
        peak_mib = answer["peak_rss_mib"]
        if peak_mib is not None:
            ended.max_rss_mib = round(max(watch.peak_rss_mib, peak_mib), 1)
        self._note_end(process, answer, fence.resources.memory_mib)
        return ended, answer["report"]

    def close(self) -> None:
        """Let the process end; nothing runs in it."""
        self._drop(kill=False)

    def _ready(self, threads: int, output: int | None) -> _Process:
        process = self._process
        if process is not None and (process.threads != threads or process.popen.poll() is not None):
            self._drop(kill=True)
        if self._process is None:
            self._process = self._start(threads, output)
        return self._process

    def _start(self, threads: int, output: int | None) -> _Process:
        ours, theirs = socket.socketpair()
        with theirs:
            words = (str(theirs.fileno()), str(os.getpid()))
            try:
                popen = subprocess.Popen(
                    [sys.executable, "-m", "muster.jobs.running.serve", *words],
                    env=self._environment(threads),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=None if output is None else subprocess.STDOUT,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
            except BaseException:
                ours.close()
                raise
        ours.setblocking(False)
        self.started += 1
        return _Process(popen, ours, threads)

    def _follow(
        self, process: _Process, watch: Watch, order: bytes, stopping: Callable[[], bool]
    ) -> tuple[Ended, dict[str, Any] | None]:
        """Send an order, and wait for its answer or its end."""
        left = memoryview(order)
        while True:
            poll = select.poll()
            poll.register(process.channel, select.POLLIN | (select.POLLOUT if left else 0))
            events = dict(poll.poll(POLL_S * 1000)).get(process.channel.fileno(), 0)
            try:
                if events & select.POLLIN:
                    line = _receive(process)
                    if line is not None:
                        return _parse(line, self._number)
                    continue
                if left and events & select.POLLOUT:
                    left = left[process.channel.send(left) :]
                if not events & (select.POLLHUP | select.POLLERR):
                    ended = watch.look()
                else:
                    ended = watch.await_end(END_PATIENCE_S)
            except (BrokenPipeError, ConnectionResetError):
                ended = watch.await_end(END_PATIENCE_S)
            if ended is None:
                ended = watch.must_end(stopping)
                if ended is not None:
                    watch.kill()
            if ended is not None:
                return ended, None

    def _note_end(self, process: _Process, answer: Mapping[str, Any], limit: int | None) -> None:
        """Decide whether the process may have another element."""
        process.rss_mib.append(answer["rss_mib"])
        why = why_replace(process.rss_mib, limit)
        if answer["own_process"]:
            why = "each element of this step has a process of its own"
        elif answer["left"]:
            why = "the step has left processes behind"
        if why is not None:
            log.debug("a fresh process for the next element: %s", why)
            self._drop(kill=bool(answer["left"]))

    def _drop(self, *, kill: bool) -> None:
        """Be without a process: it ends by itself when its orders end, or is ended."""
        process, self._process = self._process, None
        if process is None:
            return
        process.channel.close()
        if not kill:
            try:
                process.popen.wait(END_PATIENCE_S)
            except subprocess.TimeoutExpired:
                kill = True
        if kill:
            _end_group(process.popen)


def _end_group(popen: subprocess.Popen[bytes]) -> None:
    """Kill a process and all that it has left in its session's group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(popen.pid, signal.SIGKILL)
    if popen.returncode is None:
        popen.wait()


def _receive(process: _Process) -> bytes | None:
    """Take what has come; the line, where it is whole."""
    data = process.channel.recv(1 << 20)
    if not data:
        raise BrokenPipeError
    process.word += data
    if len(process.word) > 2 * LONGEST_ANSWER + (1 << 20):
        raise SoftwareError("the step's process says more than an answer", got=len(process.word))
    end = process.word.find(b"\n")
    if end < 0:
        return None
    line = bytes(process.word[:end])
    del process.word[: end + 1]
    return line


def _parse(line: bytes, number: int) -> tuple[Ended, dict[str, Any]]:
    """Read an answer; a step shares the process that writes it, so it is believed in form only."""
    try:
        said = json.loads(line)
        answer = {
            "report": str(said["report"]),
            "peak_rss_mib": None if said["peak_rss_mib"] is None else float(said["peak_rss_mib"]),
            "rss_mib": float(said["rss_mib"]),
            "left": bool(said["left"]),
            "own_process": bool(said["own_process"]),
        }
        code = int(said["code"])
        right = said["id"] == number
    except (ValueError, TypeError, KeyError) as error:
        raise SoftwareError("not an answer of the step's process", got=repr(line[:200])) from error
    if not right:
        raise SoftwareError("the step's process answers for another element", got=said["id"])
    return Ended.of_exit(code), answer


__all__ = ["WarmWorker", "why_replace"]
