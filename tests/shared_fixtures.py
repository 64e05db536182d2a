"""Folders that a test run makes once, however many processes share its tests (``-n 2``).

A session fixture is made once a process; what takes seconds to make and nobody changes, such as
trained models, is made by the first process that needs it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest


def make_once(
    tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]
) -> Path:
    """Return a folder that ``make`` filled, in this process or in another one of the run.

    Parameters
    ----------
    name : str
        Name of the folder, unique in the test run.
    make : callable
        Fills the empty folder that it is given.  Where it fails, or is killed, the next caller
        starts again with an empty folder.

    Notes
    -----
    A file beside the folder, and no rename, says that it is complete: what lies in it may hold its
    own absolute path.
    """
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder, complete = base / name, base / f"{name}.complete"
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            complete.touch()
    return folder
