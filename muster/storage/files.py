"""Local and shared file systems: the only place that renames, syncs and explains OSErrors."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat as stat_modes
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from muster.errors import InvalidInput, MissingInput, MusterError, SoftwareError, Transient
from muster.storage.place import (
    CHUNK_BYTES,
    ContentMismatch,
    Entry,
    Occupied,
    Published,
    Stat,
)
from muster.storage.temporaries import is_temporary, temporary_sibling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_NOT_ALLOWED = {
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.ENOTEMPTY,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EINVAL,
}
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_NO_SPACE = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}


def explain_os_error(error: OSError, where: object) -> MusterError:
    """Turn an OSError into the Muster error of its class.

    Absent is MissingInput; not permitted, read-only or of the wrong kind is InvalidInput; no
    space, and all else that a file system (perhaps over a network) may say, is Transient.
    """
    got = error.strerror or repr(error)
    if error.errno == errno.ENOENT:
        return MissingInput("no such file", where=where)
    if error.errno in _NOT_ALLOWED:
        return InvalidInput("cannot be read or written", where=where, got=got)
    if error.errno in _NO_SPACE:
        return Transient("no space left to write", where=where, got=got, do="free some space")
    return Transient("the file system failed", where=where, got=got)


@contextlib.contextmanager
def os_errors_at(where: object) -> Iterator[None]:
    """Raise every OSError of the block as the Muster error of its class."""
    try:
        yield
    except MusterError:  # some of ours are OSErrors too, and have said it already
        raise
    except OSError as error:
        raise explain_os_error(error, where) from error


def _scan(folder: Path) -> list[tuple[str, os.stat_result]]:
    """List a folder, links not followed, without what is removed meanwhile."""
    found = []
    try:
        with os.scandir(folder) as items:
            for item in items:
                with contextlib.suppress(FileNotFoundError):
                    found.append((item.name, item.stat(follow_symlinks=False)))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return found


def _modified_at(status: os.stat_result) -> datetime:
    return datetime.fromtimestamp(status.st_mtime, UTC)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hash_file(path: Path) -> Published:
    """Return the SHA-256 and the size of a local file, read as a stream and fsynced."""
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
        os.fsync(file.fileno())
    return Published(digest.hexdigest(), size)


def replace_durably(temporary: Path, path: Path) -> None:
    """Rename a synced file over its target and make the new name durable."""
    temporary.replace(path)
    sync_folder(path.parent)


def check_sha256(path: Path, got: str, expected: str | None) -> None:
    """Refuse a file whose content is not what its record states."""
    if expected is not None and got != expected:
        raise ContentMismatch(
            "the file is not what its record states", where=path, got=got, expected=expected
        )


def _copy_hashing(source: Path, target: Path) -> Published:
    """Copy a file durably, and return the SHA-256 and size of what was read."""
    digest = hashlib.sha256()
    size = 0
    with source.open("rb") as reader, target.open("xb") as writer:
        while chunk := reader.read(CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
            writer.write(chunk)
        writer.flush()
        os.fsync(writer.fileno())
        # What is read back next shall come from the disk, not from memory.
        os.posix_fadvise(writer.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return Published(digest.hexdigest(), size)


def _name_exclusively(temporary: Path, path: Path) -> None:
    """Give a synced file its name unless another file has it, and make the name durable."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise Occupied("another file lies there", where=path) from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if path.exists():
            raise Occupied("another file lies there", where=path) from None
        temporary.replace(path)
    else:
        temporary.unlink()
    sync_folder(path.parent)


@dataclass(frozen=True)
class StagedFile:
    """A file in the making under a hidden name beside its target."""

    uri: str
    target: Path
    path: Path

    def publish(self, check: Callable[[], None] | None = None) -> Published:
        """Sync and rename; only then does the target exist, or have its new content.

        ``check`` is called last before the rename, and keeps it from happening by raising.
        """
        if not self.path.is_file():
            raise SoftwareError("nothing was written to publish", where=self.uri)
        with os_errors_at(self.uri):
            published = hash_file(self.path)
        if check is not None:
            check()
        with os_errors_at(self.uri):
            replace_durably(self.path, self.target)
        return published

    def discard(self) -> None:
        """Remove what was written, if anything was."""
        with os_errors_at(self.uri):
            self.path.unlink(missing_ok=True)


@dataclass(frozen=True)
class FileObject:
    """A local path as a :class:`muster.storage.place.Place`."""

    uri: str
    path: Path

    def exists(self) -> bool:
        """Say whether there is a regular file."""
        with os_errors_at(self.uri):
            try:
                return stat_modes.S_ISREG(self.path.stat().st_mode)
            except (FileNotFoundError, NotADirectoryError):
                return False

    def stat(self) -> Stat:
        """Return size and mtime."""
        with os_errors_at(self.uri):
            status = self.path.stat()
        if not stat_modes.S_ISREG(status.st_mode):
            raise InvalidInput("not a file", where=self.uri)
        return Stat(status.st_size, str(status.st_mtime_ns))

    def chunks(self) -> Iterator[bytes]:
        """Yield the content in pieces."""
        with os_errors_at(self.uri), self.path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def part(self, start: int, stop: int) -> bytes:
        """Return the bytes from an offset to another, as far as there are any."""
        with os_errors_at(self.uri), self.path.open("rb") as file:
            file.seek(start)
            return file.read(max(0, stop - start))

    def write(self, data: bytes) -> None:
        """Write through a temporary sibling."""
        staged = self.stage(None)
        try:
            with os_errors_at(self.uri), staged.path.open("wb") as file:
                file.write(data)
            staged.publish()
        except BaseException:
            staged.discard()
            raise

    def names(self) -> list[str]:
        """Return the sorted names in the folder, without temporaries."""
        with os_errors_at(self.uri):
            try:
                names = os.listdir(self.path)
            except FileNotFoundError:
                return []
        return sorted(name for name in names if not is_temporary(name))

    def delete(self) -> None:
        """Delete the file, if there."""
        with os_errors_at(self.uri):
            try:
                self.path.unlink(missing_ok=True)
            except NotADirectoryError:
                return

    def walk(self) -> Iterator[Entry]:
        """Yield every file, link and empty folder below; links are not followed."""
        waiting = [""]
        while waiting:
            folder = waiting.pop()
            with os_errors_at(self.path / folder):
                found = _scan(self.path / folder)
            for name, status in found:
                below = f"{folder}{name}"
                if stat_modes.S_ISDIR(status.st_mode):
                    waiting.append(f"{below}/")
                elif stat_modes.S_ISLNK(status.st_mode):
                    yield Entry(below, 0, _modified_at(status), is_link=True)
                else:
                    yield Entry(below, status.st_size, _modified_at(status))
            if folder and not found:
                with contextlib.suppress(OSError):  # somebody else has removed it
                    yield Entry(folder, 0, _modified_at((self.path / folder).stat()))

    def delete_below(self, names: Sequence[str]) -> None:
        """Delete files and links, never through a link that leads out of the folder."""
        checked: set[Path] = set()
        for name in names:
            path = self.path / name
            if name.endswith("/"):
                continue  # a folder, which prune removes
            if path.parent not in checked:
                self._check_inside(path.parent)
                checked.add(path.parent)
            with os_errors_at(path), contextlib.suppress(FileNotFoundError):
                path.unlink()

    def prune(self, name: str) -> None:
        """Remove a folder below and the folders in it, deepest first, where nothing is in them."""
        top = self.path / name
        self._check_inside(top.parent)
        if top.is_symlink():
            return
        for folder, _, _ in os.walk(top, topdown=False):
            # what is not empty stays, and so do the folders above it
            with contextlib.suppress(OSError):
                Path(folder).rmdir()

    def _check_inside(self, folder: Path) -> None:
        """Refuse a folder that is, once links are followed, not below this one."""
        root = Path(os.path.realpath(self.path))
        real = Path(os.path.realpath(folder))
        if not real.is_relative_to(root):
            raise InvalidInput("leads out of its folder", where=folder, got=real, expected=root)

    def fetch(self, path: Path) -> None:
        """Copy to another local path through a temporary sibling of it."""
        # The source is looked at first, so that its absence is not blamed on the copy.
        self.stat()
        staged = FileObject(str(path), path).stage(None)
        try:
            with os_errors_at(f"{self.uri} → {path}"):
                shutil.copyfile(self.path, staged.path)
                staged.path.replace(path)
        except BaseException:
            staged.discard()
            raise

    def stage(self, scratch: Path | None, owner: str = "") -> StagedFile:
        """Give a hidden sibling of this path; missing folders are made."""
        with os_errors_at(self.uri):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        return StagedFile(self.uri, self.path, temporary_sibling(self.path, owner))

    def deposit(self, path: Path, sha256: str | None, *, replace: bool) -> Published:
        """Copy through a temporary sibling that is read back before it is renamed."""
        if not replace and self.exists():
            raise Occupied("another file lies there", where=self.uri)
        staged = self.stage(None)
        try:
            with os_errors_at(f"{path} → {self.uri}"):
                read = _copy_hashing(path, staged.path)
            check_sha256(path, read.sha256, sha256)
            with os_errors_at(self.uri):
                if hash_file(staged.path) != read:
                    raise Transient("the copy differs from the file", where=self.uri)
                name = replace_durably if replace else _name_exclusively
                name(staged.path, self.path)
        finally:
            staged.discard()
        return read

    def recorded_sha256(self) -> str | None:
        """Return None: a file system keeps no checksum."""
        self.stat()
        return None
