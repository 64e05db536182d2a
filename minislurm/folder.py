"""The folder of one cluster: checked, filled with what the daemons read, with ports that are free.

Ports are chosen once and written down, as whoever runs in the cluster knows them.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import random
import re
import secrets
import shutil
import socket
import subprocess
from ipaddress import ip_address
from typing import TYPE_CHECKING

from minislurm.cgroups import make_cgroups
from minislurm.config import (
    LOOPBACK,
    NODES,
    PARTITIONS,
    ClusterOptions,
    Layout,
    daemon_names,
    render_cgroup_conf,
    render_gres_conf,
    render_mpi_conf,
    render_slurm_conf,
    render_slurmdbd_conf,
)
from muster.errors import ConfigError, SoftwareError
from muster.laptop.home import write_private
from muster.storage import explain_os_error

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_USABLE = re.compile(r"[A-Za-z0-9_./+-]+")
# A step's socket is spool/NODE/NODE_JOB.STEP, and no socket may have more than 107 characters.
# The number of a job goes up to Slurm's default MaxJobId.
_LONGEST_FOLDER = 107 - len("/spool/cpu1/cpu1_67043328.4294967295")
# Below those that the kernel gives to whoever connects somewhere.
_PORTS = range(20_000, 32_000)


def check_folder(folder: Path) -> Path:
    """Return a folder's absolute path, if a cluster can live there.

    Raises
    ------
    ConfigError
        Where Slurm could not use the path.
    """
    folder = folder.resolve()
    if not _USABLE.fullmatch(str(folder)):
        raise ConfigError(
            "Slurm cannot live in this folder",
            where=folder,
            expected="a path of letters, digits and ./_+-",
            do="take another folder (MUSTER_HOME)",
        )
    if len(str(folder)) > _LONGEST_FOLDER:
        raise ConfigError(
            "the path of this folder is too long for Slurm's sockets",
            where=folder,
            got=f"{len(str(folder))} characters",
            expected=f"at most {_LONGEST_FOLDER}",
            do="take another folder (MUSTER_HOME)",
        )
    if folder.exists() and not folder.is_dir():
        raise ConfigError("not a folder", where=folder)
    return folder


def make_folder(folder: Path) -> None:
    """Make a cluster's folder and those in it, closed to other users.

    Raises
    ------
    MusterError
        Where this user cannot write there.
    """
    parts = ["state", "dev", "logs", "processes", *(f"spool/{node}" for node in NODES)]
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for part in parts:
            (folder / part).mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(13, os.strerror(13), str(folder))
    except OSError as error:
        raise explain_os_error(error, folder) from error


def plan_layout(folder: Path, options: ClusterOptions, *, running: bool) -> Layout:
    """Decide where the parts of a cluster are; a running one stays where it is."""
    address = _find_address()
    return Layout(
        folder=folder,
        hostname=socket.gethostname().partition(".")[0],
        address=address or LOOPBACK,
        everywhere=address is None,
        user=_user_name(),
        ports=_choose_ports(folder, keep=running),
        cgroups=make_cgroups(folder) if options.memory_limits else None,
    )


def write_folder(layout: Layout, options: ClusterOptions, *, running: bool) -> None:
    """Write what the daemons read.

    Raises
    ------
    ConfigError
        Where daemons run that have read something else.
    """
    files = {
        "slurm.conf": render_slurm_conf(layout, options),
        "gres.conf": render_gres_conf(layout),
        "mpi.conf": render_mpi_conf(layout),
    }
    if layout.cgroups is not None:
        files["cgroup.conf"] = render_cgroup_conf(layout)
    if options.accounting:
        files["slurmdbd.conf"] = render_slurmdbd_conf(layout)
    for name, text in files.items():
        path = layout.folder / name
        if running and _read(path) != text:
            raise ConfigError("running with other settings", where=path, do="stop it first")
        # Slurm insists on a slurmdbd.conf that nobody else can read.
        write_private(path, text)
    if not layout.munge_key.exists():
        write_private(layout.munge_key, secrets.token_hex(64))
    for number in range(max(partition.gpus for partition in PARTITIONS)):
        with contextlib.suppress(FileExistsError):
            layout.gpu_device(number).symlink_to("/dev/null")


def make_database(layout: Layout, programs: Mapping[str, Path]) -> None:
    """Make MariaDB's own tables, where there are none.

    slurmdbd starts without them, and then knows no limit of any account, as those are found by a
    procedure that is kept in one of these tables.

    Raises
    ------
    SoftwareError
        With what MariaDB says.
    """
    folder = layout.folder / "mariadb"
    complete = layout.folder / "mariadb.complete"
    if complete.exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    command = [
        str(programs["mariadb-install-db"]),
        "--no-defaults",
        f"--user={layout.user}",
        f"--datadir={folder}",
        "--auth-root-authentication-method=normal",
        "--skip-test-db",
        # Five times as fast; what a crash leaves behind is made anew.
        "--innodb-flush-method=nosync",
        "--innodb-log-file-size=64M",
    ]
    made = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if made.returncode != 0:
        raise SoftwareError(
            "MariaDB's tables cannot be made", where=folder, got=(made.stdout + made.stderr)[-500:]
        )
    complete.touch()


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise ConfigError(
            "Slurm needs a user with a name", got=f"user id {os.geteuid()}", where="/etc/passwd"
        ) from None


def _find_address() -> str | None:
    """Return the address of this machine's name, if it is one that no other machine can reach."""
    try:
        address = socket.gethostbyname(socket.gethostname())
    except OSError:
        return None
    return address if ip_address(address).is_loopback else None


def _choose_ports(folder: Path, *, keep: bool) -> dict[str, int]:
    """Return the ports of the last start, if they are to be kept or still free, or new ones."""
    path = folder / "ports.json"
    names = [name for name in daemon_names(accounting=True) if name.startswith("slurm")]
    known: dict[str, int] = {}
    with contextlib.suppress(ValueError, TypeError, OSError):
        known = {name: int(json.loads(_read(path))[name]) for name in names}
    if len(known) == len(names) and (keep or all(map(_is_free, known.values()))):
        return known
    free = (port for port in random.sample(_PORTS, len(_PORTS)) if _is_free(port))
    known = {name: next(free) for name in names}
    write_private(path, json.dumps(known))
    return known


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As Slurm binds: connections that linger after the last daemon do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
