"""Processes that outlive whoever started them: started in a session of their own, recorded, ended.

A record holds the start time beside the process id, so that a number that was given to somebody
else in the meantime is never signalled.  A component that was killed leaves children behind
(Airflow's workers, the jobs that they run); they are found by their session and by the variable
MUSTER_SERVICES in their environment.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

import psutil

from muster.errors import SoftwareError
from muster.laptop.environment import MARKER
from muster.laptop.home import read_tail, write_private

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from muster.laptop.home import Home

_IDLE_WORKER = "LocalExecutor: <idle>"
_LOG_LIMIT_BYTES = 64 << 20


class StartFailed(SoftwareError):
    """A component did not start.

    Attributes
    ----------
    component : str
        Which one.
    tail : str
        The last lines of its log.
    """

    def __init__(self, component: str, what: str, log: Path) -> None:
        super().__init__(f"{component} {what}", where=log, do="read its log; 'make stop' cleans up")
        self.component = component
        self.tail = read_tail(log)


@dataclass(frozen=True)
class Record:
    """A component that was started.

    Attributes
    ----------
    component : str
        Its name.
    pid : int
        Its process id, which is also that of its session and process group.
    created_s : float
        When the process was made, in seconds since the epoch, as the kernel says.
    settings : dict of str to str
        A digest of each variable that it was started with.
    """

    component: str
    pid: int
    created_s: float
    settings: dict[str, str]


class Children:
    """The processes that this process has started itself, which it must collect when they end."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path
    ) -> subprocess.Popen[bytes]:
        """Start a process in a session of its own, its output appended to a log."""
        with contextlib.suppress(FileNotFoundError):
            if log.stat().st_size > _LOG_LIMIT_BYTES:
                log.replace(log.with_name(f"{log.name}.1"))
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            process = subprocess.Popen(
                command,
                env=dict(environment),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        finally:
            os.close(descriptor)
        self._processes.append(process)
        return process

    def collect(self) -> None:
        """Collect those that have ended, so that they do not stay as zombies."""
        self._processes = [process for process in self._processes if process.poll() is None]


def write_record(home: Home, record: Record) -> None:
    """Record a component that was started."""
    write_private(home.processes / f"{record.component}.json", json.dumps(asdict(record)))


def read_records(home: Home) -> dict[str, Record]:
    """Return the recorded components by name, running or not."""
    records = {}
    for path in sorted(home.processes.glob("*.json")):
        with contextlib.suppress(ValueError, TypeError, OSError):
            record = Record(**json.loads(path.read_text(encoding="utf-8")))
            records[record.component] = record
    return records


def forget_record(home: Home, component: str) -> None:
    """Forget a component that has ended."""
    (home.processes / f"{component}.json").unlink(missing_ok=True)


def find_component(home: Home, record: Record) -> psutil.Process | None:
    """Return the recorded process, if it runs and is still the same one."""
    try:
        process = psutil.Process(record.pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        # A clock that was set moves the start time; the marker then still tells.
        same = abs(process.create_time() - record.created_s) < 2 or _marker(process) == str(
            home.folder
        )
    except psutil.NoSuchProcess:
        return None
    return process if same else None


def find_processes(home: Home) -> list[psutil.Process]:
    """Return every living process of the installation, but this one and those above it.

    They are found by their marker, by the session of a recorded component, or as descendants of
    either.
    """
    spared = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    records = read_records(home).values()
    components = {record.pid for record in records if find_component(home, record) is not None}
    sessions = {record.pid for record in records if _owns_session(home, record)}
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        if process.pid in spared:
            continue
        with contextlib.suppress(psutil.Error, ProcessLookupError, PermissionError):
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            session = os.getsid(process.pid)
            # Whoever leads a session is the component itself or has been given its number.
            inside = session in sessions and session != process.pid
            if inside or process.pid in components or _marker(process) == str(home.folder):
                found[process.pid] = process
                for child in process.children(recursive=True):
                    found.setdefault(child.pid, child)
    return [process for pid, process in found.items() if pid not in spared]


def end_processes(home: Home, children: Children, patience_s: float = 15.0) -> list[str]:
    """End all processes of the installation: components asked, what is left then killed.

    Only the components themselves are asked: a task that was asked to end would take it for a
    wish to cancel its work, while one that was killed is taken up again at the next start.

    Returns
    -------
    list of str
        What could not be ended: a line a process.
    """
    components = [
        process
        for record in read_records(home).values()
        if (process := find_component(home, record)) is not None
    ]
    for process in components:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGTERM)
    _wait(components, children, patience_s)
    deadline = time.monotonic() + 10
    while left := find_processes(home):
        if time.monotonic() > deadline:
            return [f"process {process.pid} ({_title(process)}) does not end" for process in left]
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        _wait(left, children, 2)
    children.collect()
    for component in read_records(home):
        forget_record(home, component)
    return []


def end_idle_orphans(home: Home) -> None:
    """End the idle workers that a scheduler left which was killed.

    Those that still run a task may finish it.  The others would stay for ever: each of them holds
    the end of the queue that the next one waits at.
    """
    for process in find_processes(home):
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            leader = os.getsid(process.pid)
            if _IDLE_WORKER in " ".join(process.cmdline()) and not psutil.pid_exists(leader):
                process.kill()


def check_listeners(processes: Sequence[psutil.Process]) -> list[str]:
    """Return a line for each of the processes that can be reached from another machine."""
    problems = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            for connection in process.net_connections(kind="tcp"):
                address = connection.laddr
                if connection.status != psutil.CONN_LISTEN:
                    continue
                if not ip_address(address.ip).is_loopback:
                    problems.append(
                        f"process {process.pid} ({_title(process)}) listens on "
                        f"{address.ip}:{address.port}"
                    )
    return problems


def _owns_session(home: Home, record: Record) -> bool:
    """Say whether a session is still the component's: its leader is it, or is gone."""
    return not psutil.pid_exists(record.pid) or find_component(home, record) is not None


def _marker(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(MARKER)
    except (psutil.AccessDenied, psutil.ZombieProcess, OSError):
        return None


def _title(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())[:80] or process.name()
    return "ended"


def _wait(processes: Sequence[psutil.Process], children: Children, patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        children.collect()
        if not any(_runs(process) for process in processes):
            return
        time.sleep(0.1)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
