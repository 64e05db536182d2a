"""A login node of the tests' own: OpenSSH's server on loopback, to be cut, stopped and frozen."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from muster.model.slurm_target import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
SFTP_SERVERS = (
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/lib/ssh/sftp-server",
    "/usr/libexec/sftp-server",
)
START_S = 10.0


class Sshd:
    """A server that the current user can log in to, with its own keys.

    Attributes
    ----------
    host, port, user : str, int, str
        Where it listens, and who may log in.
    key, known_hosts : Path
        The private key to log in with, and a file that knows the server's.
    home : Path
        The home of log-in shells: empty, so that the account's own start files are not read.
    """

    host = "127.0.0.1"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir()
        self.user = getpass.getuser()
        self.port = _free_port()
        self.key = _make_key(folder / "user_key")
        self.known_hosts = folder / "known_hosts"
        self.log = folder / "sshd.log"
        self._options: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._authorized = folder / "authorized_keys"
        self._authorized.write_text(self.key.with_suffix(".pub").read_text())
        self._authorized.chmod(0o600)
        self.change_host_key()
        self._first_keys = {path: path.read_bytes() for path in folder.glob("host_key*")}
        self.trust()

    def cluster(self, **settings: object) -> Cluster:
        """Return how to reach it."""
        said = {
            "transport": "ssh",
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "key": str(self.key),
            "known_hosts": str(self.known_hosts),
        }
        return Cluster.model_validate({**said, **settings})

    def change_host_key(self, kind: str = "ed25519") -> None:
        """Give it another key, from its next start on."""
        for old in self.folder.glob("host_key*"):
            old.unlink()
        _make_key(self.folder / "host_key", kind)

    def trust(self) -> None:
        """Write the present host key to the file of known hosts."""
        words = (self.folder / "host_key.pub").read_text().split()
        self.known_hosts.write_text(f"[{self.host}]:{self.port} {words[0]} {words[1]}\n")

    def start(self, *options: str) -> None:
        """Start it, with further lines of its configuration."""
        self._options = list(options) or self._options
        sftp = next((path for path in SFTP_SERVERS if Path(path).exists()), "internal-sftp")
        config = self.folder / "sshd_config"
        # Only the first SetEnv counts.  The account's own start files may take seconds, or wait for
        # a lock of a shell that a test has killed, so log-in shells get a home of their own.
        given = [option for option in self._options if option.startswith("SetEnv ")]
        others = [option for option in self._options if option not in given]
        lines = [
            *others,
            " ".join([*(given or ["SetEnv"]), f"HOME={self.home}"]),
            f"ListenAddress {self.host}:{self.port}",
            f"HostKey {self.folder / 'host_key'}",
            f"AuthorizedKeysFile {self._authorized}",
            f"PidFile {self.folder / 'sshd.pid'}",
            f"Subsystem sftp {sftp}",
            "AuthenticationMethods publickey",
            "PermitRootLogin prohibit-password",
            "StrictModes no",
            "UsePAM no",
            "LogLevel VERBOSE",
            "MaxStartups 100",
        ]
        config.write_text("\n".join(lines) + "\n")
        assert SSHD is not None
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        self._process = subprocess.Popen(
            [SSHD, "-D", "-f", str(config), "-E", str(self.log)], stdin=subprocess.DEVNULL
        )
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                probe.settimeout(1)
                if probe.connect_ex((self.host, self.port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError(f"sshd does not start: {self.log.read_text()}")

    def stop(self) -> None:
        """End it and its connections; nobody listens then."""
        if self._process is None:
            return
        sessions = self._sessions()
        self._process.send_signal(signal.SIGCONT)
        self._process.kill()
        self._process.wait()
        self._process = None
        _kill(sessions)

    def reset(self) -> None:
        """Return to the state of a new server: first keys, an empty home, and nothing else."""
        keys = {path: path.read_bytes() for path in self.folder.glob("host_key*")}
        if self._process is None or self._options or keys != self._first_keys:
            self.stop()
            for path in keys:
                path.unlink()
            for path, content in self._first_keys.items():
                path.touch(0o600)
                path.write_bytes(content)
            self._options = []
            self.start()
        else:
            self.resume()
            self.cut()
        self.trust()
        shutil.rmtree(self.home)
        self.home.mkdir()
        os.truncate(self.log, 0)

    def cut(self) -> None:
        """Break all connections; it listens still."""
        _kill(self._sessions())

    def pause(self) -> None:
        """Freeze it and its connections: nothing is closed, and nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        for process in self._sessions():
            process.suspend()

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        for process in self._sessions():
            process.resume()
        self._process.send_signal(signal.SIGCONT)

    def count_logins(self) -> int:
        """Count the log-ins since the last reset."""
        return self.log.read_text().count("Accepted publickey")

    def count_sessions(self) -> int:
        """Count the commands and file sessions since the last reset."""
        return self.log.read_text().count("Starting session:")

    def count_connections(self) -> int:
        """Count the connections that are open."""
        assert self._process is not None
        return len(psutil.Process(self._process.pid).children())

    def _sessions(self) -> list[psutil.Process]:
        """List the server's own processes of all connections, without what they run."""
        assert self._process is not None
        sessions = []
        for process in psutil.Process(self._process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # a session may end at any time
                if process.name().startswith("sshd"):
                    sessions.append(process)
        return sessions


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=5)


def _make_key(path: Path, kind: str = "ed25519") -> Path:
    command = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def sshd_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """One server for a module."""
    if SSHD is None or shutil.which("ssh-keygen") is None:
        pytest.skip("needs OpenSSH's server (Debian: openssh-server)")
    server = Sshd(tmp_path_factory.mktemp("sshd"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def sshd(sshd_server: Sshd) -> Sshd:
    """The module's server, in the state of a new one."""
    sshd_server.reset()
    return sshd_server
