"""Processes that a step keeps for the next element of a warm process.

What else a step leaves behind costs it its process: see :mod:`muster.jobs.running.warm`.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterable

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

_kept: set[int] = set()
_may_keep = False


def allow_keeping() -> None:
    """Let steps keep processes: this process runs one element after the other, in one thread."""
    global _may_keep
    _may_keep = True


def may_keep() -> bool:
    """Return whether a step may keep processes for the next element."""
    return _may_keep


def keep(pids: Iterable[int]) -> None:
    """Keep child processes; they must end with this process."""
    _kept.update(pids)


def has_left() -> bool:
    """Return whether there are child processes that no step keeps.

    Python's tracker of shared resources ends by itself.
    """
    if not _has_children():
        _kept.clear()
        return False
    children = {child.pid for child in psutil.Process().children()}
    _kept.intersection_update(children)
    return bool(children - _kept - {_tracker_pid()})


def kept_rss_mib() -> float:
    """Return the resident memory of the processes that are kept, in MiB."""
    pages = 0
    for pid in _kept:
        with contextlib.suppress(OSError):  # it has ended
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * PAGE_BYTES / 2**20


def _has_children() -> bool:
    """Return whether there are child processes; reap none that a library waits for."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _tracker_pid() -> int | None:
    module = sys.modules.get("multiprocessing.resource_tracker")
    return None if module is None else module._resource_tracker._pid
