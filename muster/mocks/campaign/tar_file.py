"""Tar files whose bytes follow from their members alone, and an index of where each member lies.

Members are stored as they are (HDF5 is compressed already), so that one catalogue of an archive can
be read by its offset without reading the others.  Any tar program reads them.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError

from muster import storage
from muster.errors import InvalidInput
from muster.frozen import Frozen
from muster.mocks.campaign.facts import check_name
from muster.storage import os_errors_at
from muster.storage.place import CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import BinaryIO

INDEX_SUFFIX = ".index.json"
MOST_INDEX_BYTES = 256 << 20

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]


class Member(Frozen):
    """A file in a tar.

    Attributes
    ----------
    name : str
        Relative to the campaign's folder; in the tar VERSION_NAME/ stands before it.
    offset, bytes : int
        Where its content begins in the tar, and its size.
    sha256 : str
        Of its content.
    version : str
        Size and time of change of the working copy, by which a later change is seen.
    """

    name: str
    offset: Count
    bytes: Count
    sha256: Sha256
    version: str


class TarIndex(Frozen):
    """What a tar holds, and what it is: written when the tar lies whole at its place."""

    format: Literal["muster-archive-1"] = "muster-archive-1"
    tar: str
    sha256: Sha256
    bytes: Count
    members: tuple[Member, ...]


@dataclass(frozen=True)
class Content:
    """A member as it was read: name in the tar, offset, size, SHA-256."""

    name: str
    offset: int
    bytes: int
    sha256: str


class TarWriter:
    """Writes a tar file by file; a file that is not as expected leaves no trace in it.

    Parameters
    ----------
    path : Path
        The tar, which does not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("xb")
        self._whole = hashlib.sha256()

    def add(self, source: Path, name: str, expected_sha256: str | None) -> Content:
        """Add a file.

        Raises
        ------
        MissingInput
            When there is no such file.
        ContentMismatch
            When it has another SHA-256, or changes while it is read.
        """
        start, before = self._file.tell(), self._whole.copy()
        try:
            return self._add(source, name, expected_sha256)
        except BaseException:
            self._whole = before
            self._file.seek(start)
            self._file.truncate()
            raise

    def close(self) -> storage.Published:
        """Write the end, make the file durable, and return what its SHA-256 and size must be."""
        self._write(bytes(2 * tarfile.BLOCKSIZE))
        self._write(bytes(-self._file.tell() % tarfile.RECORDSIZE))
        size = self._file.tell()
        self._file.flush()
        os.fsync(self._file.fileno())
        os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        self._file.close()
        return storage.Published(self._whole.hexdigest(), size)

    def discard(self) -> None:
        """Close the file as it is."""
        self._file.close()

    def _write(self, data: bytes) -> None:
        self._whole.update(data)
        self._file.write(data)

    def _add(self, source: Path, name: str, expected_sha256: str | None) -> Content:
        digest = hashlib.sha256()
        size = 0
        with os_errors_at(source), source.open("rb") as reader:
            status = os.fstat(reader.fileno())
            header = tarfile.TarInfo(name)
            header.size, header.mtime, header.mode = status.st_size, int(status.st_mtime), 0o644
            self._write(header.tobuf(tarfile.PAX_FORMAT))
            offset = self._file.tell()
            while chunk := reader.read(CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
                self._write(chunk)
        if size != status.st_size:
            raise storage.ContentMismatch(
                "changed while it was read",
                where=source,
                got=size,
                expected=status.st_size,
                do="archive again when nothing writes to the file",
            )
        if expected_sha256 not in (None, digest.hexdigest()):
            raise storage.ContentMismatch(
                "the file is not what its record states",
                where=source,
                got=digest.hexdigest(),
                expected=expected_sha256,
                do="restore the file, or remove it and run 'muster campaign submit --verify'",
            )
        self._write(bytes(-size % tarfile.BLOCKSIZE))
        return Content(name, offset, size, digest.hexdigest())


class _Hashing:
    """A stream that remembers the SHA-256 and size of all that was read of it."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self.digest = hashlib.sha256()
        self.bytes = 0

    def read(self, size: int) -> bytes:
        data = self._read(size)
        self.digest.update(data)
        self.bytes += len(data)
        return data


def read_tar(path: Path) -> tuple[storage.Published, list[Content]]:
    """Read a tar from its beginning to its end: its SHA-256 and size, and those of its members.

    Raises
    ------
    InvalidInput
        When it is not a tar of plain files.
    """
    contents = []
    with os_errors_at(path), path.open("rb") as file:
        hashing = _Hashing(file.read)
        try:
            with tarfile.open(fileobj=hashing, mode="r|", bufsize=CHUNK_BYTES) as tar:  # type: ignore[call-overload]
                for info in tar:
                    contents.append(_read_member(tar, info, path))
        except (tarfile.TarError, EOFError) as error:
            raise InvalidInput(
                "not a whole tar", where=path, got=error, do="move the tar away, and archive again"
            ) from error
        while hashing.read(CHUNK_BYTES):
            pass
    return storage.Published(hashing.digest.hexdigest(), hashing.bytes), contents


def _read_member(tar: tarfile.TarFile, info: tarfile.TarInfo, where: Path) -> Content:
    opened: Any = tar.extractfile(info) if info.isreg() else None
    if opened is None:
        raise InvalidInput(
            "a tar of files holds no files alone",
            where=where,
            got=info.name,
            do="move the tar away, and archive again",
        )
    digest = hashlib.sha256()
    while chunk := opened.read(CHUNK_BYTES):
        digest.update(chunk)
    return Content(info.name, info.offset_data, info.size, digest.hexdigest())


def read_index(uri: str) -> TarIndex:
    """Read the index of a tar.

    Raises
    ------
    InvalidInput
        When it is too large, or is none.
    """
    if storage.stat(uri).bytes > MOST_INDEX_BYTES:
        raise InvalidInput(
            "too large for an index",
            where=uri,
            expected=f"≤ {MOST_INDEX_BYTES} B",
            do="move it away, and archive again",
        )
    try:
        index = TarIndex.model_validate_json(storage.read_bytes(uri))
    except ValidationError as error:
        raise InvalidInput(
            "not an index of a tar",
            where=uri,
            got=error.errors(include_url=False)[0]["msg"],
            do="move the index away: the tar is read and indexed again",
        ) from None
    if not uri.endswith(f"/{index.tar}{INDEX_SUFFIX}"):
        raise InvalidInput(
            "the index of another tar",
            where=uri,
            got=index.tar,
            do="give the index the name of its tar",
        )
    for member in index.members:
        check_name(member.name, where=uri)
    return index
