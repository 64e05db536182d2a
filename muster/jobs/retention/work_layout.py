"""What lies in a work directory, told by its name: the folders of runs, band rasters, leftovers.

The names are those that workflows, runners and storage give.  What has another name is nobody's
that is known here, and is not told.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from muster import storage
from muster.model.plan import BAND_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

_RUN = re.compile(r"(runs/[^/]+)/.*", re.DOTALL)
_BAND = re.compile(rf"bands/(?:.*/)?{BAND_NAME}", re.DOTALL)
_SCRATCH = re.compile(
    r"(pools/[^/]+/scratch/muster-scratch-([0-9a-f]{12}-\d+)-[^/]+)/.*", re.DOTALL
)
_DRAFT = re.compile(r"((?:[^/]+/)*?\.muster-[^/]+)(?:/.*)?", re.DOTALL)
_DOCTOR = re.compile(r"(doctor/[0-9a-f]{32}|doctor-[0-9a-f]{32})(?:/.*)?", re.DOTALL)


class Kind(StrEnum):
    """What something in the work directory is."""

    RUN = "run"
    BAND = "band"
    TEMPORARY = "temporary"
    SCRATCH = "scratch"
    DRAFT = "draft"
    DOCTOR = "doctor"
    LINK = "link"
    LOAD = "load"


@dataclass(frozen=True)
class Found:
    """A file or folder of the work directory.

    Attributes
    ----------
    name : str
        Relative to the work directory; a load, which lies in the store, is named in words.
    kind : Kind
        What it is.
    files, bytes : int
        What lies in it.
    changed_at : datetime
        When anything in it was last changed.
    is_folder : bool
        Whether it is a folder with all that is in it.
    writer : bool or None
        Of what a process writes: whether that still runs; None where it cannot be known.
    """

    name: str
    kind: Kind
    files: int
    bytes: int
    changed_at: datetime
    is_folder: bool = False
    writer: bool | None = None


def find_work(work_uri: str) -> list[Found]:
    """Look at a work directory once, and tell what is known for what it is."""
    found: dict[tuple[Kind, str], Found] = {}
    for entry in storage.walk(work_uri):
        for one in _recognize(entry):
            former = found.get((one.kind, one.name))
            if former is not None:
                one = replace(
                    one,
                    files=former.files + one.files,
                    bytes=former.bytes + one.bytes,
                    changed_at=max(former.changed_at, one.changed_at),
                )
            found[one.kind, one.name] = one
    return sorted(found.values(), key=lambda one: (one.kind, one.name))


def is_run_folder(name: str) -> bool:
    """Say whether a name in a work directory is that of a run's folder."""
    found = _RUN.fullmatch(f"{name}/")
    return found is not None and found[1] == name


def _recognize(entry: storage.Entry) -> Iterator[Found]:
    """Tell what an entry belongs to: a run's folder, and what a process left, at most."""
    name, is_file = entry.name, not entry.name.endswith("/")

    def belongs(to: str, kind: Kind, writer: bool | None = None) -> Found:
        return Found(
            name=to,
            kind=kind,
            files=int(is_file),
            bytes=entry.bytes,
            changed_at=entry.modified_at,
            is_folder=to != name,
            writer=writer,
        )

    run = _RUN.fullmatch(name)
    if run is not None:
        yield belongs(run[1], Kind.RUN)
    elif entry.is_link:
        yield belongs(name, Kind.LINK)
        return
    if (scratch := _SCRATCH.fullmatch(name)) is not None:
        yield belongs(scratch[1], Kind.SCRATCH, storage.is_writer_alive(scratch[2]))
    elif (doctor := _DOCTOR.fullmatch(name)) is not None:
        yield belongs(doctor[1], Kind.DOCTOR)
    elif (draft := _DRAFT.fullmatch(name)) is not None:
        yield belongs(draft[1], Kind.DRAFT)
    elif (temporary := _temporary_of(name)) is not None:
        yield belongs(temporary, Kind.TEMPORARY, storage.writer_is_alive(temporary))
    elif _BAND.fullmatch(name) is not None:
        yield belongs(name, Kind.BAND)


def _temporary_of(name: str) -> str | None:
    """Return the temporary file or folder that an entry is, or lies in; None if there is none."""
    if storage.PART_SUFFIX not in name:
        return None
    *folders, last = name.removesuffix("/").split("/")
    for depth, folder in enumerate(folders, start=1):
        if storage.parse_temporary(folder) is not None:
            return "/".join(folders[:depth])
    return name if last.startswith(".") and storage.is_temporary(last) else None
