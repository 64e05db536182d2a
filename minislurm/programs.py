"""Where the programs of Slurm are, and what to type where they are not."""

from __future__ import annotations

import shutil
from pathlib import Path

from muster.errors import MissingInput

PACKAGES = "slurmctld slurmd slurm-client munge"
ACCOUNTING_PACKAGES = "slurmdbd slurm-wlm-mysql-plugin mariadb-server"

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Folders with programs; daemons lie in those that an ordinary user's PATH does not have."""

_NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "sinfo")
_ACCOUNTING = ("mariadbd", "mariadb-install-db", "slurmdbd", "sacctmgr")


def find_programs(search_path: str = SEARCH_PATH, *, accounting: bool = False) -> dict[str, Path]:
    """Return the path of each program that a cluster needs.

    Raises
    ------
    MissingInput
        Naming what is not there, and the Debian packages that have it.
    """
    wanted = _NEEDED + (_ACCOUNTING if accounting else ())
    found = {name: shutil.which(name, path=search_path) for name in wanted}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        packages = PACKAGES
        if set(missing) <= set(_ACCOUNTING):
            packages = ACCOUNTING_PACKAGES
        elif accounting:
            packages = f"{PACKAGES} {ACCOUNTING_PACKAGES}"
        raise MissingInput(
            "Slurm is not installed on this machine",
            where=search_path,
            got=f"no {', '.join(missing)}",
            do=f"apt-get install --no-install-recommends {packages}",
        )
    return {name: Path(path) for name, path in found.items() if path is not None}
