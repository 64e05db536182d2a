"""The shared Airflow as tests on its cluster see it; each of them may break both and mends them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.integration.airflow.conftest import Muster, kill_after_sbatch
from tests.integration.slurm.conftest import skip_without_slurm

if TYPE_CHECKING:
    from pathlib import Path

    from minislurm.cluster import SlurmCluster


@dataclass
class OnSlurm(Muster):
    """A live Airflow with its store and its cluster.

    Attributes
    ----------
    slurm : SlurmCluster
        The cluster.
    kill_after_sbatch : Path
        A file: the next sbatch ends the processes that it names, once the cluster has the job.
    """

    slurm: SlurmCluster
    kill_after_sbatch: Path

    def queue(self, prefix: str = "") -> list[tuple[str, str]]:
        """Return name and state of the jobs that wait or run, an array's tasks by themselves."""
        answer = self.slurm.run("squeue", "-h", "-r", "-t", "PD,CF,R,CG,S", "-o", "%j %T")
        assert answer.returncode == 0, answer.stderr
        rows = [line.split(" ") for line in answer.stdout.splitlines()]
        return [(name, state) for name, state in rows if name.startswith(prefix)]


def on_slurm(muster: Muster) -> OnSlurm:
    """Return the same Airflow, known to have a cluster."""
    assert muster.slurm is not None
    kill = kill_after_sbatch(muster.folder)
    return OnSlurm(muster.live, muster.db, muster.folder, muster.site, muster.slurm, kill)


@pytest.fixture(scope="package")
def muster(muster: Muster) -> OnSlurm:
    skip_without_slurm()
    return on_slurm(muster)
