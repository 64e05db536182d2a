"""The processes of a cluster's jobs, found when its daemons have ended and cannot tell any more.

slurmstepd is in no session of ours, writes its title over its own environment, and gives a job
the variables of whoever submitted it.  So each of them is looked for in three ways: in the
cluster's cgroups, by the variables that Slurm sets in every job, and as slurmstepd above a job.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from minislurm.cgroups import find_members
from muster.laptop.environment import MARKER

if TYPE_CHECKING:
    from collections.abc import Mapping

_STEP = "slurmstepd"


def find_leftovers(folder: Path, slurm_conf: Path) -> list[psutil.Process]:
    """Return the living processes of jobs of the cluster in a folder, and their slurmstepds."""
    members = find_members(folder)
    spared = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid in spared or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if process.pid in members or _belongs(process.pid, folder, slurm_conf):
                found[process.pid] = process
                for parent in process.parents():
                    if parent.name() == _STEP:
                        found[parent.pid] = parent
    return list(found.values())


def _belongs(pid: int, folder: Path, slurm_conf: Path) -> bool:
    """Say whether variables show a process to be of a job; using the cluster is not enough."""
    # Not psutil's: it reads no further than the title that slurmstepd has written there.
    block = Path(f"/proc/{pid}/environ").read_bytes()
    variables = _split(block)
    if variables.get(MARKER) == str(folder):
        return True
    return variables.get("SLURM_CONF") == str(slurm_conf) and "SLURMD_NODENAME" in variables


def _split(block: bytes) -> Mapping[str, str]:
    words = os.fsdecode(block).split("\0")
    return {name: value for name, equals, value in (w.partition("=") for w in words) if equals}
