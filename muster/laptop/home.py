"""The folder of one laptop installation, MUSTER_HOME: where its databases, logs and secrets lie."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import secrets
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING

from muster.errors import InvalidInput
from muster.storage import explain_os_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ADMIN = "admin"
"""The one user of the page."""


@dataclass(frozen=True)
class Home:
    """Paths below MUSTER_HOME."""

    folder: Path

    @property
    def postgres(self) -> Path:
        """Cluster folder of the embedded Postgres."""
        return self.folder / "postgres"

    @property
    def logs(self) -> Path:
        """Logs of the components, one file each, and below them those of the tasks."""
        return self.folder / "logs"

    @property
    def airflow(self) -> Path:
        """AIRFLOW_HOME."""
        return self.folder / "airflow"

    @property
    def processes(self) -> Path:
        """Records of the running components."""
        return self.folder / "processes"

    @property
    def passwords(self) -> Path:
        """The page's users and passwords, as Airflow's SimpleAuthManager reads them."""
        return self.folder / "passwords.json"

    @property
    def port(self) -> Path:
        """The page's port at the last start."""
        return self.folder / "port"

    @property
    def migrated(self) -> Path:
        """What Airflow's database was last migrated to."""
        return self.folder / "migrated.json"

    def log(self, component: str) -> Path:
        """Log file of a component."""
        if component == "postgres":
            return self.postgres / "log"
        return self.logs / f"{component}.log"


@dataclass(frozen=True)
class Secrets:
    """What the components share and nobody else may know; made once and kept.

    Attributes
    ----------
    admin_password : str
        Password of the page's user ``admin``.
    jwt_secret, api_secret_key : str
        Keys that sign the tokens of tasks and the page's sessions.
    fernet_key : str
        Key that encrypts Airflow's connections.
    """

    admin_password: str = field(default_factory=lambda: secrets.token_urlsafe(12), repr=False)
    jwt_secret: str = field(default_factory=lambda: secrets.token_urlsafe(48), repr=False)
    api_secret_key: str = field(default_factory=lambda: secrets.token_urlsafe(48), repr=False)
    fernet_key: str = field(
        default_factory=lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        repr=False,
    )


def make_home(folder: Path) -> Home:
    """Return the home in a folder, made where it is not there, closed to other users.

    Raises
    ------
    InvalidInput
        Where the folder cannot be made or written to.
    """
    home = Home(folder.resolve())
    try:
        home.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for part in (home.logs, home.airflow, home.processes):
            part.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise explain_os_error(error, home.folder) from error
    return home


def read_or_make_secrets(home: Home) -> Secrets:
    """Read the installation's secrets, making them at the first start."""
    path = home.folder / "secrets.json"
    if path.exists():
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            known = Secrets(**{item.name: str(content[item.name]) for item in fields(Secrets)})
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidInput(
                "the secrets of this installation cannot be read",
                where=path,
                got=type(error).__name__,
                do="remove the file, and new ones are made",
            ) from error
    else:
        known = Secrets()
        write_private(path, json.dumps(asdict(known)))
    passwords = json.dumps({ADMIN: known.admin_password})
    if not home.passwords.exists() or home.passwords.read_text(encoding="utf-8") != passwords:
        write_private(home.passwords, passwords)
    return known


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read; it is never seen half-written or open to all."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)


@contextlib.contextmanager
def only_one(home: Home, tell: Callable[[str], None]) -> Iterator[None]:
    """Let one process at a time start or stop this installation; the next one waits."""
    with (home.folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell("waiting for another start or stop of this installation")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def read_tail(path: Path, lines: int = 20) -> str:
    """Return the last lines of a log, or nothing where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 64 * 1024))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
