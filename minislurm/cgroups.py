"""The cluster's own part of cgroup v1, without which Slurm cannot end a job for its memory.

Slurm names the groups after node and job alone, so two clusters on one machine would share them.
Here each cluster sees, as if it were the mounted hierarchy, a group that belongs to its folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from pathlib import Path

_MOUNT = Path("/sys/fs/cgroup")
_HIERARCHIES = ("freezer", "memory")


def make_cgroups(folder: Path) -> Path | None:
    """Make the groups of a cluster's folder.

    Returns
    -------
    Path or None
        A folder with a link for each hierarchy, for CgroupMountpoint; None where this machine or
        this user cannot have them.
    """
    links = folder / "cgroup"
    for hierarchy in _HIERARCHIES:
        group = _group(folder, hierarchy)
        # In cgroup v2 there is no such file at the top, and no other way to limit memory.
        if not os.access(group.parent / "tasks", os.W_OK):
            return None
        try:
            group.mkdir(exist_ok=True)
        except OSError:
            return None
    links.mkdir(exist_ok=True)
    for hierarchy in _HIERARCHIES:
        link = links / hierarchy
        link.unlink(missing_ok=True)
        link.symlink_to(_group(folder, hierarchy))
    return links


def find_members(folder: Path) -> set[int]:
    """Return the process ids in the groups of a cluster's folder, and in those below."""
    members: set[int] = set()
    for hierarchy in _HIERARCHIES:
        for group, _, _ in os.walk(_group(folder, hierarchy)):
            # A group that ends while it is looked at has no members.
            with contextlib.suppress(OSError):
                members.update(map(int, (Path(group) / "cgroup.procs").read_text().split()))
    return members


def remove_cgroups(folder: Path, patience_s: float = 5.0) -> None:
    """Remove the groups of a cluster's folder; what has members in the end stays."""
    deadline = time.monotonic() + patience_s
    groups = [_group(folder, hierarchy) for hierarchy in _HIERARCHIES]
    while any(group.exists() for group in groups):
        for top in groups:
            for group, _, _ in os.walk(top, topdown=False):
                # A group is busy for a moment after its last process has ended.
                with contextlib.suppress(OSError):
                    Path(group).rmdir()
        if time.monotonic() > deadline:
            return
        time.sleep(0.02)


def _group(folder: Path, hierarchy: str) -> Path:
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    return _MOUNT / hierarchy / f"muster-slurm-{digest}"
