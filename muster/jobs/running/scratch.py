"""Folders of elements' own for temporary things, and the removal of what killed runners left."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from muster import storage

if TYPE_CHECKING:
    from muster.model.batch import Batch

SCRATCH_PREFIX = "muster-scratch-"


def scratch_prefix() -> str:
    """Return what the names of this process's scratch folders begin with.

    Nodes of a cluster may share the disk: a process is known by its host and its pid.
    """
    return f"{SCRATCH_PREFIX}{storage.writer_name()}-"


def scratch_folder(batch: Batch) -> Path:
    """Give the folder for scratch folders, freed of what killed runners left there.

    It lies with the pool, on the disk that is meant for work: the system's temporary folder is
    often memory.
    """
    pool = storage.local_path(batch.pool_uri)
    folder = Path(tempfile.gettempdir()) if pool is None else pool / "scratch"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage.explain_os_error(error, folder) from error
    for former in folder.glob(f"{SCRATCH_PREFIX}*-*-*"):
        host, pid, *_ = former.name.removeprefix(SCRATCH_PREFIX).split("-")
        if storage.is_writer_alive(f"{host}-{pid}") is False:
            shutil.rmtree(former, ignore_errors=True)
    return folder
