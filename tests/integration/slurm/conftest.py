"""A real Slurm: one cluster for the tests that only use it, new ones for those that break it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from minislurm.cluster import SlurmCluster
from minislurm.config import ClusterOptions
from minislurm.programs import find_programs
from muster.errors import MissingInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    MakeCluster = Callable[..., SlurmCluster]


def skip_without_slurm(*, accounting: bool = False) -> None:
    """Skip the test where the programs are not installed, and say what would install them."""
    try:
        find_programs(accounting=accounting)
    except MissingInput as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def slurm_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """A cluster that all tests share; it is used through its ``environment``, and never broken."""
    skip_without_slurm()
    cluster = SlurmCluster(tmp_path_factory.mktemp("slurm"))
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture
def make_slurm_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeCluster]:
    """Start clusters of the test's own, which it may break; arguments as for ClusterOptions."""
    clusters = []

    def make(*, start: bool = True, **options: object) -> SlurmCluster:
        chosen = ClusterOptions(**options)
        skip_without_slurm(accounting=chosen.accounting)
        cluster = SlurmCluster(tmp_path_factory.mktemp("slurm"), chosen)
        clusters.append(cluster)
        if start:
            cluster.start()
        return cluster

    yield make
    for cluster in clusters:
        cluster.stop()
