"""A Slurm cluster of this machine's own: started in a second, and gone without a trace.

Every daemon runs in the foreground of a session of its own, so that its process id is known, may
be killed, paused and started again alone, and belongs to nobody else.  A Slurm that the machine
has already, with daemons of its own, is neither used nor touched.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import subprocess
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from minislurm.cgroups import remove_cgroups
from minislurm.config import NODES, ClusterOptions, Layout, daemon_names, render_commands
from minislurm.folder import check_folder, make_database, make_folder, plan_layout, write_folder
from minislurm.leftovers import find_leftovers
from minislurm.programs import SEARCH_PATH, find_programs
from muster.errors import ConfigError, SoftwareError
from muster.laptop.environment import MARKER
from muster.laptop.home import Home, only_one
from muster.laptop.processes import (
    Children,
    Record,
    StartFailed,
    check_listeners,
    end_processes,
    find_component,
    find_processes,
    read_records,
    write_record,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

READY_PATIENCE_S = 60.0
_UP = frozenset({"idle", "mixed", "allocated", "completing"})


def _say_nothing(_: str) -> None:
    """Discard what there is to tell."""


@dataclass
class SlurmCluster:
    """One cluster in one folder.

    Daemons are named ``munged``, ``slurmctld``, ``slurmd.cpu1`` (and so on for each node), and
    ``mariadbd`` and ``slurmdbd`` where accounting was asked for.

    Attributes
    ----------
    folder : Path
        Where everything lies; it need not exist.
    options : ClusterOptions
        What the daemons are told.
    search_path : str
        Folders with Slurm's programs, as in PATH.
    tell : callable
        Called with a line for each thing that is done.
    """

    folder: Path
    options: ClusterOptions = field(default_factory=ClusterOptions)
    search_path: str = SEARCH_PATH
    tell: Callable[[str], None] = _say_nothing
    _children: Children = field(default_factory=Children, repr=False)
    _layout: Layout | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.folder = check_folder(self.folder)

    @property
    def home(self) -> Home:
        """The folder, as the records of processes are kept in it."""
        return Home(self.folder)

    @property
    def daemons(self) -> tuple[str, ...]:
        """Names of the daemons, in the order in which they are started."""
        return daemon_names(accounting=self.options.accounting)

    @property
    def layout(self) -> Layout:
        """Where the parts of the cluster are, once it was started."""
        if self._layout is None:
            raise ConfigError("this cluster was not started", where=self.folder)
        return self._layout

    @property
    def environment(self) -> dict[str, str]:
        """All variables that a command of this cluster needs, and no other."""
        user = pwd.getpwuid(os.geteuid())
        return {
            "PATH": self.search_path,
            "HOME": str(Path.home()),
            "USER": user.pw_name,
            "LOGNAME": user.pw_name,
            "LANG": "C.UTF-8",
            "SLURM_CONF": str(self.folder / "slurm.conf"),
        }

    @cached_property
    def programs(self) -> dict[str, Path]:
        """The programs that the cluster needs."""
        return find_programs(self.search_path, accounting=self.options.accounting)

    def start(self, patience_s: float = READY_PATIENCE_S) -> None:
        """Start what does not run, and return when all nodes can take jobs.

        A folder that had a cluster before goes on with its jobs and its ports.

        Raises
        ------
        MissingInput
            Where Slurm is not installed.
        ConfigError
            Where the cluster runs with other settings.
        StartFailed
            Naming the daemon, with the last lines of its log.
        """
        find_programs(self.search_path, accounting=self.options.accounting)
        make_folder(self.folder)
        with only_one(self.home, self.tell):
            running = bool(self.running())
            self._layout = plan_layout(self.folder, self.options, running=running)
            write_folder(self._layout, self.options, running=running)
            if self.options.accounting:
                make_database(self._layout, self.programs)
            try:
                # Each needs those before it; the nodes need one another no more.
                for daemon in self.daemons:
                    self.start_daemon(daemon, wait=not daemon.startswith("slurmd."))
                self.wait_ready(patience_s)
            except BaseException:  # also of who loses patience: no daemon is left to itself
                if not running:
                    self._end_all()
                raise
            problems = check_listeners(find_processes(self.home))
            if problems and self._layout.everywhere:
                self.tell(
                    "this machine's name is not on loopback: other machines can reach the "
                    "daemons, which answer to nobody without this cluster's munge key"
                )
            elif problems:
                self._end_all()
                raise SoftwareError(
                    "reachable from other machines; stopped", got="; ".join(problems)
                )

    def stop(self) -> None:
        """End every process of the cluster, jobs included; its files stay.

        Raises
        ------
        SoftwareError
            Naming what does not end.
        """
        if not self.folder.is_dir():
            return
        with only_one(self.home, self.tell):
            self._end_all()

    def running(self) -> dict[str, int]:
        """Return the daemons that run, paused ones too, and their process ids."""
        self._children.collect()
        return {
            name: process.pid
            for name, record in read_records(self.home).items()
            if (process := find_component(self.home, record)) is not None
        }

    def start_daemon(self, daemon: str, *, wait: bool = True) -> None:
        """Start one daemon that does not run; by default, return when it can be reached."""
        self._check_name(daemon)
        if daemon in self.running():
            return
        self.tell(f"starting {daemon}")
        for stale in self._sockets(daemon):
            stale.unlink(missing_ok=True)
        output = self._output(daemon)
        command = render_commands(self.layout, self.options, self.programs)[daemon]
        environment = {
            **self.environment,
            "MYSQL_UNIX_PORT": str(self.layout.database_socket),
            # The last one, which is the last that slurmstepd writes its title over.
            MARKER: str(self.folder),
        }
        process = self._children.start(command, environment, self.folder, output)
        try:
            created_s = psutil.Process(process.pid).create_time()
        except psutil.NoSuchProcess:
            raise StartFailed(daemon, "ended at once", output) from None
        write_record(self.home, Record(daemon, process.pid, created_s, {}))
        if wait:
            self._wait_until_reachable([daemon], READY_PATIENCE_S)

    def terminate(self, daemon: str, patience_s: float = 20.0) -> None:
        """Ask a daemon to end, and return when it has ended; the jobs of a node go on."""
        self._end_one(daemon, signal.SIGTERM, patience_s)

    def kill(self, daemon: str) -> None:
        """End a daemon without asking; the jobs of a node go on."""
        self._end_one(daemon, signal.SIGKILL, 10.0)

    def pause(self, daemon: str) -> None:
        """Stop a daemon in the middle of what it does: it is there and does not answer."""
        process = self._find(daemon)
        process.suspend()
        while process.status() != psutil.STATUS_STOPPED:  # the signal may find it inside a call
            time.sleep(0.01)

    def resume(self, daemon: str) -> None:
        """Let a paused daemon go on."""
        self._find(daemon).resume()

    def run(
        self, *command: str, text: str | None = None, timeout_s: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of Slurm's with this cluster, ``text`` as its input, whatever it exits."""
        return subprocess.run(
            command,
            env=self.environment,
            input=text or "",
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )

    def wait_ready(self, patience_s: float = READY_PATIENCE_S) -> None:
        """Return when the controller answers and each node whose slurmd runs can take jobs.

        Raises
        ------
        StartFailed
            Naming the daemon that ended or did not answer in time.
        """
        deadline = time.monotonic() + patience_s
        daemons = [daemon for daemon in self.daemons if daemon in read_records(self.home)]
        nodes = [f"slurmd.{node}" for node in NODES]
        self._wait_until_reachable(
            [daemon for daemon in daemons if daemon not in nodes or daemon in self.running()],
            patience_s,
        )
        while True:
            waiting = self._find_waiting()
            if not waiting:
                return
            if time.monotonic() > deadline:
                late, state = next(iter(waiting.items()))
                raise StartFailed(
                    late, f"is not ready after {patience_s:.0f} s ({state})", self._output(late)
                )
            time.sleep(0.05)

    def _find_waiting(self) -> dict[str, str]:
        """Return the daemons that are not ready, each with what is seen of it."""
        if self.run("scontrol", "ping", timeout_s=30).returncode != 0:
            return {"slurmctld": "does not answer"}
        answer = self.run("sinfo", "--noheader", "--Node", "--format=%N %T")
        states = dict(line.split(maxsplit=1) for line in answer.stdout.splitlines())
        running = self.running()
        return {
            f"slurmd.{node}": states.get(node, "unknown")
            for node in NODES
            if f"slurmd.{node}" in running and states.get(node) not in _UP
        }

    def _wait_until_reachable(self, daemons: Iterable[str], patience_s: float) -> None:
        deadline = time.monotonic() + patience_s
        for daemon in daemons:
            while not self._is_reachable(daemon):
                output = self._output(daemon)
                if daemon not in self.running():
                    raise StartFailed(daemon, "ended while starting", output)
                if time.monotonic() > deadline:
                    raise StartFailed(daemon, f"cannot be reached after {patience_s:.0f} s", output)
                time.sleep(0.02)

    def _is_reachable(self, daemon: str) -> bool:
        """Say whether a daemon listens, without the line in its log that a visit would leave."""
        sockets = self._sockets(daemon)
        if sockets:
            return all(path.exists() for path in sockets)
        try:
            connections = self._find(daemon).net_connections(kind="tcp")
        except (ConfigError, psutil.Error):
            return False
        port = self.layout.ports[daemon]
        return any(
            connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
            for connection in connections
        )

    def _end_one(self, daemon: str, number: signal.Signals, patience_s: float) -> None:
        process = self._find(daemon)
        process.send_signal(number)
        deadline = time.monotonic() + patience_s
        while daemon in self.running():
            if time.monotonic() > deadline:
                raise SoftwareError(
                    f"{daemon} does not end", where=self.folder, got=f"process {process.pid}"
                )
            time.sleep(0.01)

    def _end_all(self) -> None:
        """End the daemons, those first that others serve, then the jobs and all that is left."""
        for daemon in self.running():
            # One that is paused could not even be asked to end.
            self.resume(daemon)
        nodes = [daemon for daemon in self.daemons if daemon.startswith("slurmd.")]
        others = [daemon for daemon in reversed(self.daemons) if daemon not in nodes]
        for group in (nodes, *([daemon] for daemon in others)):
            self._ask_to_end(group)
        self._kill_leftovers()
        problems = end_processes(self.home, self._children)
        remove_cgroups(self.folder)
        if problems:
            raise SoftwareError("not everything could be stopped", got="; ".join(problems))

    def _kill_leftovers(self, patience_s: float = 10.0) -> None:
        """Kill the processes of jobs; what one of them starts meanwhile is found the next time."""
        deadline = time.monotonic() + patience_s
        while left := find_leftovers(self.folder, self.folder / "slurm.conf"):
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            if time.monotonic() > deadline:
                raise SoftwareError(
                    "jobs cannot be stopped", got=f"processes {[process.pid for process in left]}"
                )
            time.sleep(0.02)

    def _ask_to_end(self, daemons: Iterable[str], patience_s: float = 10.0) -> None:
        running = self.running()
        processes = [psutil.Process(running[name]) for name in daemons if name in running]
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline and set(daemons) & self.running().keys():
            time.sleep(0.01)

    def _find(self, daemon: str) -> psutil.Process:
        self._check_name(daemon)
        record = read_records(self.home).get(daemon)
        process = None if record is None else find_component(self.home, record)
        if process is None:
            raise ConfigError("does not run", where=daemon)
        return process

    def _check_name(self, daemon: str) -> None:
        if daemon not in self.daemons:
            raise ConfigError(
                "not a daemon of this cluster", got=daemon, expected=", ".join(self.daemons)
            )

    def _sockets(self, daemon: str) -> list[Path]:
        sockets = {
            "munged": self.layout.munge_socket,
            "mariadbd": self.layout.database_socket,
        }
        return [sockets[daemon]] if daemon in sockets else []

    def _output(self, daemon: str) -> Path:
        """Return the file of what a daemon prints: its log from the first moment, without times."""
        return self.folder / "logs" / f"{daemon}.out"
