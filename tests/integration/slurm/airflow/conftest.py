"""One live Airflow and one cluster for all tests here; each of them may break both and mends them.

``sbatch`` is found behind a program of the tests' own, which does what it is asked and can end the
triggerer between the cluster's answer and the record of it.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from muster.laptop.services import Wishes
from muster.laptop.slurm.cluster import SlurmCluster
from muster.laptop.slurm.config import ClusterOptions
from muster.site import read_site
from muster.store.database import Database
from tests.batches import STEPS_FOLDER
from tests.integration.airflow.conftest import REPOSITORY, Muster
from tests.integration.live_airflow import start_live_airflow
from tests.integration.slurm.conftest import skip_without_slurm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from muster.site import Site

# GPUS is said by each job of the pool before it starts, so that a test can read what it was given.
SITE = """
[pools]
look = {{ backend = "slurm", partition = "genoa", slots = 8 }}
genoa = {{ backend = "slurm", partition = "genoa", slots = 80, max_memory = "8GiB" }}
[pools.l40s]
backend = "slurm"
partition = "l40s"
gres = "gpu:l40s"
slots = 8
prelude = ['echo "GPUS=$CUDA_VISIBLE_DEVICES"']
[clusters.mini]
poll_every = "00:00:01"
result_grace = "00:00:05"
submissions_per_s = 20
environment = {{ PYTHONPATH = "{pythonpath}" }}
[placement]
"traits.inspect" = {{ pool = "look", cpus = 1, memory = "2GiB", time = "00:30:00" }}
"traits.predict" = {{ pool = "genoa", cpus = 2, memory = "2GiB", time = "00:30:00" }}
"traits.cov" = {{ pool = "genoa", cpus = 2, memory = "2GiB", time = "00:30:00" }}
"traits.aoa" = {{ pool = "l40s", cpus = 2, memory = "2GiB", time = "00:30:00", gpus = 2 }}
"traits.build" = {{ pool = "genoa", cpus = 1, memory = "2GiB", time = "00:30:00" }}
"""

# A busy machine starts a job late and answers late: neither is to be a failure of a node.
PATIENT = {
    "BatchStartTimeout": "300",
    "SlurmdTimeout": "300",
    "SlurmctldTimeout": "300",
    "MessageTimeout": "60",
}

SBATCH = """\
#!/bin/bash
# Submits; where the file KILL names processes, they end before anybody learns the job's id.
answer=$({sbatch} "$@")
code=$?
if read -r -a victims 2>/dev/null <"{kill}"; then
  rm "{kill}"
  kill -KILL "$PPID" "${{victims[@]}}"
fi
echo "$answer"
exit $code
"""


@dataclass
class OnSlurm(Muster):
    """A live Airflow with its store and its cluster.

    Attributes
    ----------
    slurm : SlurmCluster
        The cluster.
    site : Site
        What places steps on it.
    kill_after_sbatch : Path
        A file: the next sbatch ends the processes that it names, once the cluster has the job.
    """

    slurm: SlurmCluster
    site: Site
    kill_after_sbatch: Path

    def queue(self, prefix: str = "") -> list[tuple[str, str]]:
        """Return name and state of the jobs that wait or run, an array's tasks by themselves."""
        answer = self.slurm.run("squeue", "-h", "-r", "-t", "PD,CF,R,CG,S", "-o", "%j %T")
        assert answer.returncode == 0, answer.stderr
        rows = [line.split(" ") for line in answer.stdout.splitlines()]
        return [(name, state) for name, state in rows if name.startswith(prefix)]


def _write_sbatch(folder: Path, kill: Path) -> None:
    folder.mkdir()
    program = folder / "sbatch"
    program.write_text(SBATCH.format(sbatch=shutil.which("sbatch"), kill=kill))
    program.chmod(0o755)


@pytest.fixture(scope="session")
def muster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnSlurm]:
    skip_without_slurm()
    folder = tmp_path_factory.mktemp("on-slurm")
    dags = folder / "dags"
    dags.mkdir()
    for path in (
        REPOSITORY / "dags" / "trait_inference.py",
        Path(__file__).parent / "dags" / "slurm_batches.py",
    ):
        shutil.copy(path, dags)
    kill = folder / "kill-after-sbatch"
    _write_sbatch(folder / "bin", kill)
    pythonpath = os.pathsep.join([str(REPOSITORY), str(STEPS_FOLDER)])
    site = folder / "site.toml"
    site.write_text(SITE.format(pythonpath=pythonpath))
    cluster = SlurmCluster(folder / "slurm", ClusterOptions(settings=PATIENT))
    cluster.start()
    environment = {
        "MUSTER_SITE": str(site),
        "PYTHONPATH": pythonpath,
        "SLURM_CONF": cluster.environment["SLURM_CONF"],
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
    }
    try:
        with start_live_airflow(folder / "home", Wishes(dags_folder=dags), environment) as live:
            for dag_id in ("trait_inference", "slurm_batches"):
                live.api.wait_for_dag(dag_id)
                live.api.unpause(dag_id)
            db = Database(live.installation.store_url)
            yield OnSlurm(live, db, folder, cluster, read_site(str(site)), kill)
            db.close()
    finally:
        cluster.stop()
