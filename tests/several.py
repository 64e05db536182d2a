"""Which tests stay together, and which come first, where several processes run them (``-n 3``).

A file's tests stay in one process, as they share what its fixtures start, and so do all files that
share a live Airflow or a cluster.  With ``--split-services`` each of these files may run anywhere:
every process starts the service that it needs, which pays where tests take far longer than that.
What takes minutes starts first, so that only short files are left for the end, when no process may
be left waiting for another.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

TOGETHER = ("tests/integration/airflow/", "tests/integration/slurm/", "tests/system/")
"""Folders whose files share a service that starts once."""

ALONE = ("tests/integration/slurm/test_faults.py",)
"""Files in which each test starts services of its own: with ``--split-services`` one by one."""

LONGEST_FIRST = TOGETHER
"""Folders in the order in which their tests start; all others start last."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let files that share a service be split among the processes."""
    parser.addoption(
        "--split-services",
        action="store_true",
        help="with -n: start a live Airflow or a cluster in each process that needs one",
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    """Hand out whole files, or whole folders of TOGETHER, in the order of collection."""
    from xdist.scheduler import LoadScopeScheduling

    split = config.getoption("split_services")
    together, alone = ((), ALONE) if split else (TOGETHER, ())

    class FileScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            if nodeid.startswith(alone):
                return nodeid
            folders = (folder for folder in together if nodeid.startswith(folder))
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
    folders = enumerate(LONGEST_FIRST)
    ranks = (rank for rank, folder in folders if item.nodeid.startswith(folder))
    return next(ranks, len(LONGEST_FIRST))
