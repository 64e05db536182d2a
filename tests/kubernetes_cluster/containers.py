"""A container as a local process: its log, its memory, and its end with all that it started."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MARK = "MUSTER_STANDIN_POD"
_PR_SET_PDEATHSIG = 1
_PAGE = os.sysconf("SC_PAGE_SIZE")
_libc = ctypes.CDLL(None)


@dataclass
class ContainerLog:
    """The lines that a container has written, each with its time."""

    lines: list[tuple[datetime, bytes]] = field(default_factory=list)
    ended: bool = False
    _open: bytes = b""
    _readers: set[asyncio.Event] = field(default_factory=set)

    def write(self, data: bytes) -> None:
        *whole, self._open = (self._open + data).split(b"\n")
        moment = datetime.now(UTC)
        self.lines += [(moment, line + b"\n") for line in whole]
        self._wake()

    def close(self) -> None:
        if self._open:
            self.lines.append((datetime.now(UTC), self._open))
            self._open = b""
        self.ended = True
        self._wake()

    def tail(self, most_lines: int = 80, most_bytes: int = 2048) -> str:
        text = b"".join(line for _, line in self.lines[-most_lines:])
        return text[-most_bytes:].decode(errors="replace")

    @contextlib.contextmanager
    def reader(self) -> Iterator[asyncio.Event]:
        """Give an event that is set whenever there is more."""
        event = asyncio.Event()
        self._readers.add(event)
        try:
            yield event
        finally:
            self._readers.discard(event)

    def _wake(self) -> None:
        for event in self._readers:
            event.set()


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Container:
    """A process group of its own, and what has escaped from it."""

    def __init__(
        self, uid: str, command: Sequence[str], environment: Mapping[str, str], folder: Path
    ) -> None:
        self.uid = uid
        self.log = ContainerLog()
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.out_of_memory = False
        self._pipe, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(writing, True)
        try:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                env={**environment, MARK: uid},
                cwd=folder,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        except BaseException:
            os.close(self._pipe)
            raise
        finally:
            os.close(writing)
        loop = asyncio.get_running_loop()
        self._pidfd = os.pidfd_open(self._process.pid)
        loop.add_reader(self._pipe, self._read)
        loop.add_reader(self._pidfd, self._end)

    @property
    def pid(self) -> int:
        return self._process.pid

    def terminate(self) -> None:
        """Ask the first process to end, as a runtime does; the others are its own business."""
        if not self.exited.done():
            self._process.terminate()

    def kill(self) -> None:
        if not self.exited.done():
            self._process.kill()

    def memory_bytes(self) -> int:
        return sum(_resident(pid) for pid in _family(self.pid))

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._pipe, 65536):
                self.log.write(data)
            asyncio.get_running_loop().remove_reader(self._pipe)

    def _end(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        code = self._process.wait()
        kill_marked(self.uid)
        self._read()
        loop.remove_reader(self._pipe)
        os.close(self._pipe)
        self.log.close()
        self.exited.set_result(128 - code if code < 0 else code)


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def _family(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            text = Path(f"/proc/{pid}/task/{thread}/children").read_text()
            for child in text.split():
                yield from _family(int(child))


def marked(uid: str = "") -> list[int]:
    """Return the processes that a pod has started, by a variable that they inherit."""
    sign = f"{MARK}={uid}".encode()
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                variables = Path(f"/proc/{name}/environ").read_bytes().split(b"\0")
                if sign in variables:
                    found.append(int(name))
    return found


def kill_marked(uid: str) -> None:
    """End all that a container has left: with its first process, a container is gone."""
    for _ in range(10):
        left = marked(uid)
        if not left:
            return
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
