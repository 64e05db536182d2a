"""Where the catalogues of a campaign lie besides its folder: staged, or in a tar of its archive.

Ledgers tell of staged copies.  An archiving leaves the indexes of its tars in the campaign's folder
before it removes working copies, so that the campaign can tell of them without its archive.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from muster import storage
from muster.errors import InvalidInput
from muster.frozen import Frozen
from muster.mocks.campaign.facts import CATALOGS
from muster.mocks.campaign.ledger import name_of_destination, read_copies
from muster.mocks.campaign.tar_file import MOST_INDEX_BYTES, TarIndex
from muster.storage import os_errors_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

log = logging.getLogger(__name__)

FOLDER = ".archived"
"""Hidden folder in a campaign's folder: what its archives hold, a file a destination."""

Place = Literal["here", "staged", "archived"]


@dataclass(frozen=True)
class Copy:
    """A verified copy of a catalogue.

    Attributes
    ----------
    place : {"staged", "archived"}
        What the copy is of.
    uri : str
        The copy, or the tar that it is a member of.
    sha256 : str
    bytes : int
        Of the copy.
    """

    place: Place
    uri: str
    sha256: str
    bytes: int


class ArchiveRecord(Frozen):
    """What the archive of a campaign at one destination holds: its tars that are whole."""

    format: Literal[1] = 1
    destination: str
    tars: tuple[TarIndex, ...]


def record_archive(root: Path, destination: str, tars: Iterable[TarIndex]) -> None:
    """Leave in a campaign's folder what its archive at a destination holds."""
    record = ArchiveRecord(
        destination=destination, tars=tuple(sorted(tars, key=lambda index: index.tar))
    )
    path = root / FOLDER / f"{name_of_destination(destination)}.json"
    storage.write_text(str(path), record.model_dump_json())


def find_copies(root: Path) -> dict[str, list[Copy]]:
    """Find the copies of a campaign's catalogues by its own records: name → copies, staged first.

    Raises
    ------
    InvalidInput
        When a ledger or the record of an archive is not what it should be.
    """
    copies: dict[str, list[Copy]] = {}
    for destination, files in read_copies(root):
        for file in files.values():
            uri = storage.join(destination, file.name)
            copies.setdefault(file.name, []).append(Copy("staged", uri, file.sha256, file.bytes))
    for path in sorted((root / FOLDER).glob("*.json")):
        record = _read_record(path)
        for index in record.tars:
            uri = storage.join(record.destination, index.tar)
            for member in index.members:
                copy = Copy("archived", uri, member.sha256, member.bytes)
                copies.setdefault(member.name, []).append(copy)
    return {name: found for name, found in copies.items() if name.startswith(f"{CATALOGS}/")}


def choose_copy(copies: Sequence[Copy], sha256: str, size: int) -> Copy | None:
    """Choose the first copy that is the very file of a record; None where none is."""
    return next((copy for copy in copies if (copy.sha256, copy.bytes) == (sha256, size)), None)


def part_elsewhere(root: Path, recorded: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Part catalogues that are not in the folder: those that lie elsewhere, and those that do not.

    Parameters
    ----------
    recorded : mapping of str to str
        Name → SHA-256 by the manifest.
    """
    copies = find_copies(root) if recorded else {}
    elsewhere = [
        name
        for name, sha256 in recorded.items()
        if any(copy.sha256 == sha256 for copy in copies.get(name, ()))
    ]
    if elsewhere:
        name = min(elsewhere)
        log.info(
            "%s: %d catalogues of the manifest lie elsewhere and are left there, such as %s in %s",
            root, len(elsewhere), name, copies[name][0].uri,
        )  # fmt: skip
    return elsewhere, [name for name in recorded if name not in set(elsewhere)]


def _read_record(path: Path) -> ArchiveRecord:
    what, again = "not the record of an archive", "remove it, and archive the campaign again"
    with os_errors_at(path):
        if path.stat().st_size > MOST_INDEX_BYTES:
            raise InvalidInput(what, where=path, expected=f"≤ {MOST_INDEX_BYTES} B", do=again)
        content = path.read_bytes()
    try:
        return ArchiveRecord.model_validate_json(content)
    except ValidationError as error:
        got = error.errors(include_url=False)[0]["msg"]
        raise InvalidInput(what, where=path, got=got, do=again) from None
