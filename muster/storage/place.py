"""What a file and an S3 object have in common: the types that the rest of Muster sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from muster.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

CHUNK_BYTES = 1 << 20
"""How much of a stream is in memory at a time."""


class Occupied(InvalidInput):
    """Another file or object lies where one was to be put."""


class ContentMismatch(InvalidInput):
    """A file does not have the SHA-256 that its record states."""


@dataclass(frozen=True)
class Stat:
    """Size and version of a file or object.

    Attributes
    ----------
    bytes : int
        Size.
    version : str
        A text that changes when the content does: mtime in ns for a file, the ETag on S3.
    """

    bytes: int
    version: str


@dataclass(frozen=True)
class Entry:
    """What :func:`muster.storage.walk` finds below a folder.

    Attributes
    ----------
    name : str
        Relative to the folder; it ends in ``/`` where it is a folder with nothing in it.
    bytes : int
        Size; 0 for a folder and a link.
    modified_at : datetime
        When its content was last changed, UTC.
    is_link : bool
        Whether it is a symbolic link, which is not followed.
    """

    name: str
    bytes: int
    modified_at: datetime
    is_link: bool = False


@dataclass(frozen=True)
class Published:
    """What was published: the SHA-256 (64 hexadecimal digits) and the size in bytes."""

    sha256: str
    bytes: int


class Staged(Protocol):
    """A file in the making: write to ``path``, then publish or discard it, once."""

    @property
    def path(self) -> Path:
        """The local path to write to."""

    def publish(self, check: Callable[[], None] | None = None) -> Published:
        """Put the file where it belongs, whole and durably."""

    def discard(self) -> None:
        """Remove what was written, if anything was."""


class Place(Protocol):
    """One file or object, or the folder or key prefix of that name."""

    def exists(self) -> bool:
        """Say whether there is a file or an object here."""

    def stat(self) -> Stat:
        """Return size and version."""

    def chunks(self) -> Iterator[bytes]:
        """Yield the content in pieces of at most CHUNK_BYTES."""

    def part(self, start: int, stop: int) -> bytes:
        """Return the bytes from an offset to another, as far as there are any."""

    def write(self, data: bytes) -> None:
        """Write the whole content atomically."""

    def names(self) -> list[str]:
        """Return the sorted names directly below."""

    def delete(self) -> None:
        """Delete, if there."""

    def walk(self) -> Iterator[Entry]:
        """Yield everything below, temporaries too, in no order."""

    def delete_below(self, names: Sequence[str]) -> None:
        """Delete files or objects by their names below."""

    def prune(self, name: str) -> None:
        """Remove the folders at and below a name that have nothing in them."""

    def fetch(self, path: Path) -> None:
        """Copy to a local path."""

    def deposit(self, path: Path, sha256: str | None, *, replace: bool) -> Published:
        """Put a copy of a local file here, verified by its SHA-256."""

    def recorded_sha256(self) -> str | None:
        """Return the SHA-256 that was stored with the content, if one was."""

    def stage(self, scratch: Path | None, owner: str = "") -> Staged:
        """Give a local path to write to, marked as an owner's."""
