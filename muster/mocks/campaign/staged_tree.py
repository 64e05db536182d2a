"""What lies at the permanent place of a campaign, by one listing: sizes, and links in the way."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from muster import storage
from muster.errors import InvalidInput
from muster.mocks.campaign.folder import folder_errors_at

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


@dataclass(frozen=True)
class StagedTree:
    """What one listing has found below a staged tree.

    Attributes
    ----------
    sizes : dict of str to int
        Name relative to the tree → bytes, of files and objects.
    links : frozenset of str
        Names of symbolic links, which are never followed.
    """

    sizes: dict[str, int]
    links: frozenset[str]

    def check_no_link_leads(self, names: Iterable[str], *, where: str) -> None:
        """Refuse files that would be read or written through a link.

        Raises
        ------
        InvalidInput
            Where a file, or a folder above it, is a link.
        """
        if not self.links:
            return
        for name in names:
            path = PurePosixPath(name)
            for above in (path, *path.parents):
                if str(above) in self.links:
                    raise InvalidInput(
                        "a link lies at the destination, and links are not followed",
                        where=storage.join(where, str(above)),
                        do="put the folder or file itself there, or choose another destination",
                    )


def place_outside(root: Path, destination: str, name: str) -> str:
    """Return the URI of a tree of this name at a destination.

    Raises
    ------
    InvalidInput
        When it lies in the campaign's folder.
    """
    there = storage.join(destination, name)
    if storage.name_below(f"{there}/x", str(root)) is not None:
        raise InvalidInput(
            "the destination lies in the campaign's folder",
            where=root,
            got=there,
            do="name a folder elsewhere",
        )
    return there


def make_destination(there: str) -> None:
    """Make the folder of a staged tree, where it lies on a file system.

    Raises
    ------
    InvalidInput
        When it cannot be made, or not be written.
    Transient
        When the file system failed.
    """
    path = storage.local_path(there)
    if path is None:
        return  # S3 answers only to a real upload
    with folder_errors_at(path, "destination", "make it writable, or choose another destination"):
        path.mkdir(parents=True, exist_ok=True)
        probe = storage.temporary_sibling(path / "probe")
        probe.touch()
        probe.unlink()


def list_staged(there: str) -> StagedTree:
    """List what lies at a destination; what killed stagings left half-written is removed."""
    sizes = {}
    links = set()
    left = []
    yesterday = datetime.now(UTC) - timedelta(days=1)
    is_local = storage.local_path(there) is not None
    for entry in storage.walk(there):
        # An upload that was not completed is not visible: no object is a temporary.
        if is_local and (found := storage.parse_temporary(entry.name.rpartition("/")[2])):
            alive = storage.is_writer_alive(found.writer)
            if alive is False or (alive is None and entry.modified_at < yesterday):
                left.append(entry.name)
        elif entry.is_link:
            links.add(entry.name)
        elif not entry.name.endswith("/"):
            sizes[entry.name] = entry.bytes
    storage.delete_below(there, left)
    return StagedTree(sizes, frozenset(links))
