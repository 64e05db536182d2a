"""A work directory that the cluster has at another place: batches go there, and results come back.

Sending looks first, in one command, at what is there already; only what differs goes, by SFTP,
under a temporary name.  Collecting is one command for all batches: what is new comes as a stream,
so that a thousand results cost one round trip, and whatever has arrived when a connection breaks
has not to come again.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import stat
import uuid
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muster.backends.remote import login_node
from muster.backends.remote.mirror_arrivals import Arrivals
from muster.backends.remote.mirror_paths import WorkPaths, is_translated
from muster.backends.remote.ssh_login import import_asyncssh
from muster.backends.remote.transport import NotAllCame
from muster.errors import ConfigError, InvalidInput, MissingInput, Transient
from muster.storage.files import os_errors_at
from muster.storage.temporaries import PART_SUFFIX

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    import asyncssh

    from muster.backends.remote.ssh import RemoteProcess, SshCommands

UPLOADS = 16
TIMEOUT_S = 120.0
SLOWEST_BYTES_PER_S = 100_000
ROUNDS = 4
BUFFER_BYTES = 64 << 10
"""How much is gathered before it is written: a thread for every small file costs more than it."""
NO_PYTHON = 69
_FIND_PYTHON = f"""\
for python in "$@"; do
  if command -v "$python" >/dev/null 2>&1; then exec "$python" -I -S -c "$0"; fi
done
exit {NO_PYTHON}
"""


@dataclass(frozen=True)
class _File:
    """A file to send; its content is read again where it is not translated."""

    path: str
    there: str
    mode: int
    mtime_s: int
    size: int
    sha256: str
    content: bytes | None = None


class MirroredFiles:
    """Brings files to a cluster that does not see the work directory, and back.

    A batch's file names paths of this side and is translated on its way, and so are results and a
    ``plan.json`` on theirs: the elements that a plan names are frozen here into batches, which are
    translated again when they are sent.

    Parameters
    ----------
    ssh : SshCommands
        The way to the cluster.
    here, there : str
        The work directory on this side and on the cluster.
    python : str or None
        A Python to try first on the login node.
    folder : str
        Name of a batch's folder that the scheduler's own files lie in.
    limit_bytes : int
        How much one look brings at most, about; four looks where results wait.
    """

    shared = False

    def __init__(
        self,
        ssh: SshCommands,
        here: str,
        there: str,
        *,
        folder: str,
        python: str | None = None,
        limit_bytes: int = 64 << 20,
    ) -> None:
        self._folder = folder
        self._python = python
        self.paths = WorkPaths(here, there)
        self._ssh = ssh
        self._limit_bytes = limit_bytes
        self._collecting = asyncio.Lock()

    def there(self, path: str) -> str:
        """Return the path on the cluster; InvalidInput outside the work directory."""
        return self.paths.to_there(path)

    async def send(self, paths: Sequence[str]) -> None:
        """Bring files, and folders with all that is in them, to the cluster.

        Raises
        ------
        Transient
            When not all of them are there.
        InvalidInput, MissingInput
            When one is not there, lies elsewhere, or may not be written there.
        """
        folders, files = await asyncio.to_thread(self._plan, paths)
        request = {
            "do": "look",
            "folders": list(folders.items()),
            "files": [(file.there, file.size) for file in files],
        }
        size = sum(file.size for file in files)
        timeout_s = TIMEOUT_S + size / SLOWEST_BYTES_PER_S
        async with self._run(request, timeout_s) as process:
            said = await process.stdout.read()
            await _end(process)
        try:
            found = json.loads(said)
        except ValueError as error:
            raise Transient("the login node did not answer whole", got=said[-200:]) from error
        differ = [
            file
            for file, there in zip(files, found, strict=True)
            if there != [file.mode, file.sha256]
        ]
        if differ:
            await self._upload(differ, timeout_s)

    async def collect(self, folders: Sequence[str]) -> None:
        """Bring back what is new: each result behind its log and its outputs.

        Raises
        ------
        NotAllCame
            When results of some folders wait for their files, or could not be read.
        Transient
            When nobody knows; what came is here, whole.
        """
        async with self._collecting:
            arrivals = Arrivals(self.paths, list(folders), self._folder)
            for _ in range(ROUNDS):
                end = await self._collect(arrivals)
                problems = end["problems"]
                late = arrivals.unsound | set(end["waiting"])
                if problems or not late:
                    break
        if late:
            raise NotAllCame(
                "not all could be read on the cluster"
                if problems
                else "more has come than one look brings back; the next goes on",
                where=str(self._ssh.login.host),
                got="; ".join(problems) or f"{end['withheld']} results wait for their files",
                folders=[folders[number] for number in late],
            )

    async def _collect(self, arrivals: Arrivals) -> dict[str, Any]:
        request = {
            "do": "collect",
            "limit": self._limit_bytes,
            "share": max(self._limit_bytes // 4, 1),
            "scheduler": self._folder,
            "folders": await asyncio.to_thread(arrivals.describe),
        }
        async with self._run(request, TIMEOUT_S) as process:
            pieces: list[tuple[dict[str, Any], bytes]] = []
            waiting = 0
            while line := await process.stdout.readline():
                try:
                    header: dict[str, Any] = json.loads(line)
                except ValueError:
                    break
                if "end" in header:
                    await asyncio.to_thread(arrivals.take_all, pieces)
                    await _end(process)
                    return header
                data = await process.stdout.readexactly(header["n"])
                pieces.append((header, data))
                waiting += len(line) + len(data)
                if waiting >= BUFFER_BYTES:
                    await asyncio.to_thread(arrivals.take_all, pieces)
                    pieces, waiting = [], 0
            await _end(process)
        raise Transient("the login node did not answer whole", where=self._ssh.login.host)

    @contextlib.asynccontextmanager
    async def _run(self, request: dict[str, Any], timeout_s: float) -> AsyncIterator[RemoteProcess]:
        """Run our program on the login node, with whatever Python is there."""
        program = Path(login_node.__file__).read_text(encoding="utf-8")
        pythons = (self._python, "python3", "/usr/libexec/platform-python")
        token = uuid.uuid4().hex
        packed = base64.b64encode(zlib.compress(json.dumps({**request, "token": token}).encode()))
        command = ["sh", "-c", _FIND_PYTHON, program, *filter(None, pythons)]
        data = packed.decode() + "\n"
        async with self._ssh.run(command, timeout_s=timeout_s, data=data) as process:
            try:
                # what is called python3 may be a script, and say something itself
                await process.stdout.readuntil(f"{token}\n".encode())
            except asyncio.IncompleteReadError as error:
                await _end(process)
                raise Transient(
                    "the login node did not answer", where=self._ssh.login.host
                ) from error
            yield process

    def _plan(self, paths: Sequence[str]) -> tuple[dict[str, int], list[_File]]:
        """List the folders there are to be, and the files with what is in them."""
        folders: dict[str, int] = {self.paths.there: 0o755}
        files: dict[str, _File] = {}

        def add(path: str) -> None:
            status = os.stat(path)  # a link to a file goes as the file
            above = [parent for parent in Path(path).parents if self._is_inside(str(parent))]
            for parent in reversed(above):
                self._add_folder(folders, str(parent))
            if stat.S_ISDIR(status.st_mode):
                self._add_folder(folders, path)
                for name in sorted(os.listdir(path)):
                    inner = f"{path.rstrip('/')}/{name}"
                    is_link_to_folder = os.path.islink(inner) and os.path.isdir(inner)
                    if name.startswith(".") and name.endswith(PART_SUFFIX):
                        continue
                    if is_link_to_folder:
                        raise InvalidInput("a link to a folder cannot be sent", where=inner)
                    with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                        add(inner)
            elif stat.S_ISREG(status.st_mode):
                files[path] = _read(path, self.paths, status)
            else:
                raise InvalidInput("neither a file nor a folder", where=path)

        for path in paths:
            self.paths.to_there(path)
            with os_errors_at(path):
                if not os.path.exists(path):
                    raise MissingInput("no such file to send", where=path)
                add(path)
        return folders, list(files.values())

    def _add_folder(self, folders: dict[str, int], path: str) -> None:
        mode = stat.S_IMODE(os.stat(path).st_mode) & 0o777 | stat.S_IRWXU
        folders.setdefault(self.paths.to_there(path), mode)

    def _is_inside(self, path: str) -> bool:
        return path == self.paths.here or path.startswith(f"{self.paths.here}/")

    async def _upload(self, files: Sequence[_File], timeout_s: float) -> None:
        library = import_asyncssh()
        gate = asyncio.Semaphore(UPLOADS)

        async def put(sftp: asyncssh.SFTPClient, file: _File) -> None:
            async with gate:
                await _put(sftp, file)

        try:
            async with self._ssh.sftp(timeout_s) as sftp, asyncio.TaskGroup() as group:
                for file in files:
                    group.create_task(put(sftp, file))
        except BaseExceptionGroup as errors:  # what is not the connection's own is raised again
            error = _first(errors)
            if isinstance(error, library.SFTPPermissionDenied):
                raise InvalidInput(
                    "may not be written on the cluster", where=self.paths.there, got=error
                ) from error
            if not isinstance(error, (library.Error, OSError, EOFError)):
                raise error from None
            raise Transient(
                "not all files could be sent", where=self._ssh.login.host, got=error
            ) from error


async def _put(sftp: asyncssh.SFTPClient, file: _File) -> None:
    """Write a file under a temporary name that nobody else may read, and rename it."""
    library = import_asyncssh()
    folder, name = os.path.split(file.there)
    temporary = os.fsencode(f"{folder}/.muster-{uuid.uuid4().hex}{PART_SUFFIX}")
    private = library.SFTPAttrs(permissions=0o600)
    times = {"atime": file.mtime_s, "mtime": file.mtime_s}
    async with sftp.open(temporary, "wb", attrs=private) as target:
        if file.content is not None:
            await target.write(file.content)
        else:
            with open(file.path, "rb") as source:
                while chunk := await asyncio.to_thread(source.read, 1 << 20):
                    await target.write(chunk)
        await target.setstat(library.SFTPAttrs(permissions=file.mode, **times))
    await sftp.posix_rename(temporary, os.fsencode(f"{folder}/{name}"))


def _read(path: str, paths: WorkPaths, status: os.stat_result) -> _File:
    """Read what is to be sent, and what it will be there."""
    content = None
    digest = hashlib.sha256()
    size = 0
    if is_translated(os.path.basename(path)):
        try:
            content = paths.translate_to_there(Path(path).read_bytes())
        except ValueError as error:
            raise InvalidInput("not JSON", where=path, got=error) from error
        digest.update(content)
        size = len(content)
    else:
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
                size += len(chunk)
    mode = stat.S_IMODE(status.st_mode) & 0o777
    there = paths.to_there(path)
    return _File(path, there, mode, int(status.st_mtime), size, digest.hexdigest(), content)


async def _end(process: RemoteProcess) -> None:
    """See that our program has ended well."""
    code, said = await process.end()
    if code == NO_PYTHON:
        raise ConfigError(
            "no Python on the login node",
            do="install python3 there, or set the cluster's python to one that is there",
        )
    if code != 0:
        last = said.strip().splitlines()[-1:]
        raise Transient("the program on the login node failed", got=last or f"exit code {code}")


def _first(errors: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
