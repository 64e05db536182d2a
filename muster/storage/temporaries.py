"""Names of temporary files: one function makes them, one regular expression recognises them.

A file is written under a hidden name beside its target and renamed when it is complete.  The name
holds the target's, the owner, the host, the process and a random part, so that the sweep removes
leftovers of killed writers and never a file that another process is writing.  The temporary of a
temporary is named for the same target and owner: names do not nest, and none escapes the sweep.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import shutil
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from pathlib import Path

PART_SUFFIX = ".part"
"""The end of every temporary name, by which leftovers of killed writers are found."""

START_BYTES = 120
"""Bytes of the target's name in a temporary name; file systems limit a name to 255 bytes."""

_TEMPORARY = re.compile(
    r"\.(?P<start>.*)\.(?P<owner>[0-9a-f]{12})\.(?P<writer>[0-9a-f]{12}-[0-9]+)\.[0-9a-f]{32}"
    rf"{re.escape(PART_SUFFIX)}(?:\..*)?",
    re.DOTALL,
)


@dataclass(frozen=True)
class Temporary:
    """A parsed temporary name.

    Attributes
    ----------
    start : str
        The first bytes of the target's name, see :func:`start_of`.
    owner : str
        Digest of the owner.
    writer : str
        The process that writes the file, see :func:`writer_name`.
    """

    start: str
    owner: str
    writer: str


def parse_temporary(name: str) -> Temporary | None:
    """Parse a temporary name; None for any other name.

    A nested name (``..NAME.….part.….part``) gives the innermost target and owner and the outermost
    writer.  A name with a suffix that a library added (``.NAME.….part.ovr.tmp``) is one too.
    """
    found = _TEMPORARY.fullmatch(name)
    if found is None:
        return None
    outer = Temporary(**found.groupdict())
    inner = parse_temporary(outer.start)
    return outer if inner is None else Temporary(inner.start, inner.owner, outer.writer)


def is_temporary(name: str) -> bool:
    """Return whether a file name is that of a temporary file."""
    return name.endswith(PART_SUFFIX) or parse_temporary(name) is not None


def temporary_sibling(path: Path, owner: str = "") -> Path:
    """Return a hidden unique name in the folder of ``path``, on the same file system.

    Parameters
    ----------
    path : Path
        The target.  Where it is itself a temporary, the name is made for the temporary's target.
    owner : str
        Whose leftovers the sweep may remove although their process may still run; by default that
        of the temporary ``path``, or nobody.
    """
    target = parse_temporary(path.name)
    start = start_of(path.name) if target is None else target.start
    whose = target.owner if target is not None and not owner else digest(owner)
    return path.with_name(f".{start}.{whose}.{writer_name()}.{uuid.uuid4().hex}{PART_SUFFIX}")


def sweep_temporary_siblings(path: Path, owner: str = "") -> None:
    """Remove leftovers of killed writers beside a path.

    Removed are temporaries of this owner, if it has a name, and of dead processes of this host,
    files and folders alike.  One that cannot be removed, another user's for example, stays.
    """
    if not path.parent.is_dir():
        return
    for sibling in path.parent.iterdir():
        found = parse_temporary(sibling.name)
        if found is None or found.start != start_of(path.name):
            continue
        is_own = bool(owner) and found.owner == digest(owner)
        if is_own or is_writer_alive(found.writer) is False:
            if sibling.is_dir() and not sibling.is_symlink():
                shutil.rmtree(sibling, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    sibling.unlink()


def start_of(name: str) -> str:
    """Return the first START_BYTES bytes of a name; a character that the cut splits is left out."""
    return name.encode("utf-8", "ignore")[:START_BYTES].decode("utf-8", "ignore")


def digest(text: str) -> str:
    """Return 12 hexadecimal digits for an owner or a host."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def writer_name() -> str:
    """Return a name of this process that is unique on a disk that several hosts share."""
    return f"{digest(platform.node())}-{os.getpid()}"


def writer_is_alive(name: str) -> bool | None:
    """Return whether the writer of a temporary file runs; None where this host cannot know."""
    found = parse_temporary(name.rpartition("/")[2])
    return None if found is None else is_writer_alive(found.writer)


def is_writer_alive(writer: str) -> bool | None:
    """Return whether the process of a :func:`writer_name` runs; None where it cannot be known."""
    host, _, pid = writer.partition("-")
    if host != digest(platform.node()) or not pid.isdigit():
        return None
    return is_alive(int(pid))


def is_alive(pid: int) -> bool:
    """Return whether a process of this host runs."""
    try:
        # Without a parent that collects them, as in many containers, the dead stay as zombies.
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
