"""Which tests go together, and which come first, where several processes run them (``-n 2``).

A file's tests stay in one process, as they share what its fixtures start, and so do all files that
share a live Airflow or a cluster.  What takes minutes starts at once, so that only short files are
left for the end, when no process may be left waiting for another.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

TOGETHER = ("tests/integration/airflow/", "tests/integration/slurm/")
"""Folders whose files share a service that starts once."""

LONGEST_FIRST = ("airflow", "slurm", "system")
"""Markers and folders, in the order in which their tests start; all others start last."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    """Hand out whole files, or whole folders of TOGETHER, in the order of collection."""
    from xdist.scheduler import LoadScopeScheduling

    class FileScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            folders = (folder for folder in TOGETHER if nodeid.startswith(folder))
            return next(folders, nodeid.partition("::")[0])

    config.option.loadscopereorder = False
    return FileScheduling(config, log)


def pytest_configure(config: pytest.Config) -> None:
    """Let threads that wait for each other sleep, in a process that is one of several.

    OpenMP's would spin, and on processors that others need, a second's training takes minutes.
    """
    if hasattr(config, "workerinput"):
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put what takes long first, in a process that is one of several."""
    if hasattr(config, "workerinput"):
        items.sort(key=_rank)


def _rank(item: pytest.Item) -> int:
    ranks = (rank for rank, name in enumerate(LONGEST_FIRST) if name in item.keywords)
    return next(ranks, len(LONGEST_FIRST))
