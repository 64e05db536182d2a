"""Files and S3 objects behind one small interface, so that no step cares where its data lies.

A URI is a plain path (taken literally, whatever characters it holds), a ``file:///`` URI (percent
encoding is undone) or ``s3://bucket/key`` (the key is taken literally; ``AWS_ENDPOINT_URL`` and
the other settings of boto3 apply).  What is written appears whole or not at all: a file under a
hidden temporary name beside its target, fsynced and renamed; an object by an upload that S3 makes
visible only when it is complete.  A writer that was killed leaves nothing but hidden names that
end in ``.part``, or an S3 upload that nobody sees.

Everything raises :mod:`muster.errors`: MissingInput for what is not there, InvalidInput for what
may not be read or written, Transient for a full disk or a network that failed.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from muster.storage.address import join, local_path, name_below, parse_address, require_local
from muster.storage.files import FileObject, explain_os_error, os_errors_at
from muster.storage.place import (
    ContentMismatch,
    Entry,
    Occupied,
    Place,
    Published,
    Staged,
    Stat,
)
from muster.storage.temporaries import (
    PART_SUFFIX,
    is_alive,
    is_temporary,
    is_writer_alive,
    parse_temporary,
    sweep_temporary_siblings,
    temporary_sibling,
    writer_is_alive,
    writer_name,
)

if TYPE_CHECKING:
    import builtins
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = [
    "PART_SUFFIX",
    "ContentMismatch",
    "Entry",
    "Occupied",
    "Published",
    "Staged",
    "Stat",
    "delete",
    "delete_below",
    "deposit",
    "exists",
    "explain_os_error",
    "fetch",
    "is_alive",
    "is_temporary",
    "is_writer_alive",
    "join",
    "list",
    "local_path",
    "name_below",
    "os_errors_at",
    "parse_temporary",
    "prune",
    "read_bytes",
    "read_part",
    "read_tail",
    "read_text",
    "recorded_sha256",
    "require_local",
    "sha256",
    "stage",
    "stat",
    "sweep",
    "sweep_temporary_siblings",
    "temporary_sibling",
    "walk",
    "write_bytes",
    "write_text",
    "writer_is_alive",
    "writer_name",
]


def _place(uri: str) -> Place:
    address = parse_address(uri)
    if address.bucket is None:
        return FileObject(uri, address.path)
    # boto3 takes a third of a second to import: only who uses S3 waits for it.
    from muster.storage.s3 import S3Object

    return S3Object(uri, address.bucket, address.key)


def exists(uri: str) -> bool:
    """Say whether there is a file or an object (not a folder) at a URI."""
    return _place(uri).exists()


def stat(uri: str) -> Stat:
    """Return the size in bytes and the version (mtime in ns, or ETag) of a file or object.

    Raises
    ------
    MissingInput
        When there is nothing at the URI.
    """
    return _place(uri).stat()


def read_bytes(uri: str) -> bytes:
    """Return the whole content of a small file or object."""
    return b"".join(_place(uri).chunks())


def read_part(uri: str, start: int, stop: int) -> bytes:
    """Return the bytes of a file or object from an offset to another, as far as there are any."""
    return _place(uri).part(start, stop)


def read_tail(uri: str, most_bytes: int) -> bytes:
    """Return the last bytes of a file or object, at most so many."""
    path = local_path(uri)
    if path is None:
        size = stat(uri).bytes
        return read_part(uri, max(0, size - most_bytes), size)
    with os_errors_at(uri), path.open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - most_bytes))
        return file.read()


def read_text(uri: str) -> str:
    """Return the whole content of a small file or object, decoded as UTF-8."""
    return read_bytes(uri).decode("utf-8")


def write_bytes(uri: str, data: bytes) -> None:
    """Write a small file or object; a reader sees the old content or the new, never a part."""
    _place(uri).write(data)


def write_text(uri: str, text: str) -> None:
    """Write a small text as UTF-8, as :func:`write_bytes` does."""
    write_bytes(uri, text.encode("utf-8"))


def list(uri: str) -> builtins.list[str]:
    """Return the names directly below a folder or key prefix, sorted, temporary names left out.

    A folder that does not exist has no names, as S3 cannot tell the two apart.
    """
    return _place(uri).names()


def delete(uri: str) -> None:
    """Delete a file or object; it is no error when there is none."""
    _place(uri).delete()


def walk(uri: str) -> Iterator[Entry]:
    """Yield everything below a folder or key prefix, however deep, temporaries too, in no order.

    Links are told and not followed; a folder that does not exist has nothing below it.
    """
    return _place(uri).walk()


def delete_below(uri: str, names: Sequence[str]) -> None:
    """Delete files or objects by their names below a folder; it is no error when one is gone.

    A name that ends in ``/`` is a folder, which :func:`prune` removes.

    Raises
    ------
    InvalidInput
        For a name that leads out of the folder, by itself or through a link; it is not deleted.
    """
    for name in names:
        join(uri, name.removesuffix("/"))
    _place(uri).delete_below(names)


def prune(uri: str, name: str) -> None:
    """Remove a folder below a folder, with the folders in it, as far as they are empty."""
    join(uri, name)
    _place(uri).prune(name)


def sha256(uri: str) -> str:
    """Return the SHA-256 of a file or object as 64 hexadecimal digits, read as a stream."""
    digest = hashlib.sha256()
    for chunk in _place(uri).chunks():
        digest.update(chunk)
    return digest.hexdigest()


def recorded_sha256(uri: str) -> str | None:
    """Return the SHA-256 that :func:`deposit` stored with an S3 object; None for a file.

    S3 has verified it against the content at the upload, so that nothing has to be downloaded.

    Raises
    ------
    MissingInput
        When there is nothing at the URI.
    """
    return _place(uri).recorded_sha256()


def deposit(uri: str, path: Path, *, sha256: str | None = None, replace: bool = False) -> Published:
    """Copy a local file to a URI; the copy is verified before it has its name.

    A file is synced, read back from the disk and compared by SHA-256; S3 is sent the checksum and
    refuses other content.

    Parameters
    ----------
    uri : str
        Where the copy shall lie.  Missing folders are made.
    path : Path
        The local file.
    sha256 : str, optional
        What its content must be, as 64 hexadecimal digits.
    replace : bool
        Whether the copy may take the place of another file.

    Raises
    ------
    MissingInput
        When there is no file at ``path``.
    ContentMismatch
        When the file does not have the given SHA-256.
    Occupied
        When there is a file or object at the URI already.
    Transient
        When the copy differs from the file, or cannot be written.
    """
    return _place(uri).deposit(path, sha256, replace=replace)


def fetch(uri: str, path: Path) -> None:
    """Copy a file or object to a local path, as a stream; the copy appears whole or not at all."""
    _place(uri).fetch(path)


def stage(uri: str, scratch: Path | None = None, owner: str = "") -> Staged:
    """Give a local path to write to, which :meth:`Staged.publish` then puts at the URI.

    Parameters
    ----------
    uri : str
        Where the file or object shall be.  Missing folders are made.
    scratch : Path, optional
        Folder for the file that is uploaded to S3; the system's temporary folder by default.
    owner : str
        Who writes: :func:`sweep` removes what this owner left when it was killed.

    Returns
    -------
    Staged
        With ``path`` (nothing exists there yet), ``publish()`` and ``discard()``.
    """
    return _place(uri).stage(scratch, owner)


def sweep(uri: str, owner: str) -> None:
    """Remove leftovers of killed writers beside a file: this owner's, and dead processes' of here.

    A file that another process is writing stays.
    An incomplete S3 upload is never visible, so nothing is removed there.
    """
    path = local_path(uri)
    if path is not None:
        with os_errors_at(uri):
            sweep_temporary_siblings(path, owner)
