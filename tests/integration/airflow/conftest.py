"""One live Airflow for all tests below: the repository's DAGs, and those of bare batches.

Where Slurm is installed its site has a cluster, too: ``traits.predict`` runs there, all other steps
run on this machine.  ``sbatch`` is found behind a program of the tests' own, which submits, and can
end the triggerer between the cluster's answer and the record of it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from minislurm.cluster import SlurmCluster
from minislurm.config import ClusterOptions
from minislurm.programs import find_programs
from muster.errors import MissingInput
from muster.jobs.planning.workflow import WORKFLOWS, load_workflow
from muster.laptop.airflow_api import wait_until
from muster.laptop.services import Wishes
from muster.site import read_site
from muster.store.database import Database
from tests.batches import STEPS_FOLDER
from tests.integration.live_airflow import LiveAirflow, start_live_airflow

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from muster.laptop.airflow_api import TaskInstance
    from muster.site import Site
    from tests.airflow_client import AirflowClient

REPOSITORY = Path(__file__).resolve().parents[3]
DAG_FILES = (
    REPOSITORY / "dags" / "maintenance.py",
    REPOSITORY / "dags" / "mock_campaign.py",
    REPOSITORY / "dags" / "resampling.py",
    REPOSITORY / "dags" / "trait_inference.py",
    Path(__file__).parent / "dags" / "batches.py",
    Path(__file__).parent / "dags" / "census.py",
    Path(__file__).parent / "dags" / "echo.py",
    Path(__file__).parent / "dags" / "kubernetes_batches.py",
)
PAUSED = {"batches", "echo", "slurm_batches"}
"""DAGs of the tests' own, which Airflow pauses as it finds them; workflows it does not."""

PODS_DAGS = ("kubernetes_batches", "kubernetes_held")
"""Of one file."""

SLURM_DAG_FILE = Path(__file__).parent / "dags" / "slurm_batches.py"

# The cap on memory is what lets a test make a step fail for good: see test_trait_inference.
POOL_HERE = 'pools.local = { backend = "local", slots = 2, max_memory = "60MiB" }'

# Each job of the pool l40s prints GPUS before it starts, so that a test can read what it was given.
CLUSTER = """
[pools.genoa]
backend = "slurm"
partition = "genoa"
slots = 80
max_memory = "8GiB"
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
"""

SETTINGS = """\
def pod_mutation_hook(pod):
    pod.metadata.annotations["example.org/hooked"] = "by the site"
"""
"""Settings of this installation, in a file of the name that Airflow looks for."""

STEPS = (
    *(step for name in WORKFLOWS for step in load_workflow(name).steps),
    *(f"census.{name}" for name in ("inspect", "count", "check", "total")),
)
ON_SLURM = ("traits.predict",)
"""What runs on the cluster of the Airflow that all tests share; all else runs on this machine."""

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
class Muster:
    """A live Airflow with its store, and its cluster where Slurm is installed."""

    live: LiveAirflow
    db: Database
    folder: Path
    site: Site
    slurm: SlurmCluster | None

    @property
    def api(self) -> AirflowClient:
        return self.live.api

    def states(self, dag_id: str, run_id: str) -> dict[tuple[str, str], str]:
        """Return task and label → state."""
        return {
            (task.task_id, task.label): task.state
            for task in self.api.task_instances(dag_id, run_id)
        }

    def task(self, dag_id: str, run_id: str, task_id: str) -> TaskInstance:
        found = [t for t in self.api.task_instances(dag_id, run_id) if t.task_id == task_id]
        assert len(found) == 1, found
        return found[0]

    def wait(self, reached: Callable[[], object], patience_s: float = 120.0) -> None:
        assert wait_until(lambda: bool(reached()), patience_s, 0.1), self.live.tails()


@contextlib.contextmanager
def find_test_steps() -> Iterator[None]:
    """Find the steps of the tests' own, which the site places, in this process too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(STEPS_FOLDER))
        yield


@contextlib.contextmanager
def start_muster(
    folder: Path,
    on_slurm: Collection[str] = ON_SLURM,
    on_pods: Collection[str] = (),
    pods: str = "",
) -> Iterator[Muster]:
    """Start an Airflow, and a cluster where Slurm is installed, with these steps placed there.

    Parameters
    ----------
    folder : Path
        Where all of it lies.
    on_slurm, on_pods : collection of str
        Steps for the cluster, and for the pool ``pods``; all else runs on this machine.
    pods : str
        What the site file says of the pool ``pods``.
    """
    cluster = _start_cluster(folder / "slurm")
    dags = folder / "dags"
    dags.mkdir()
    for path in DAG_FILES if cluster is None else (*DAG_FILES, SLURM_DAG_FILE):
        shutil.copy(path, dags)
    settings = folder / "settings"
    settings.mkdir()
    (settings / "airflow_local_settings.py").write_text(SETTINGS)
    pythonpath = os.pathsep.join([str(REPOSITORY), str(STEPS_FOLDER)])
    site = folder / "site.toml"
    rendered = _render_site(on_slurm if cluster else (), pythonpath, on_pods)
    # Pods see what their site mounts: a folder that the site file names.
    work = f'work = "{folder / "work"}"\n' if pods else ""
    site.write_text(work + rendered + pods)
    environment = {"MUSTER_SITE": str(site), "PYTHONPATH": f"{pythonpath}{os.pathsep}{settings}"}
    if cluster is not None:
        environment["SLURM_CONF"] = cluster.environment["SLURM_CONF"]
        environment["PATH"] = f"{_write_sbatch(folder)}{os.pathsep}{os.environ['PATH']}"
    try:
        with (
            find_test_steps(),
            start_live_airflow(folder / "home", Wishes(dags_folder=dags), environment) as live,
        ):
            for path in dags.glob("*.py"):
                if path.stem not in ("maintenance", "kubernetes_batches"):
                    live.api.wait_for_dag(path.stem)
                if path.stem in PAUSED:
                    live.api.unpause(path.stem)
            for dag_id in PODS_DAGS:
                live.api.wait_for_dag(dag_id)
                live.api.unpause(dag_id)
            db = Database(live.installation.store_url)
            yield Muster(live, db, folder, read_site(str(site)), cluster)
            db.close()
    finally:
        if cluster is not None:
            cluster.stop()


def _start_cluster(folder: Path) -> SlurmCluster | None:
    try:
        find_programs(accounting=False)
    except MissingInput:
        return None
    cluster = SlurmCluster(folder, ClusterOptions(settings=PATIENT))
    cluster.start()
    return cluster


def _render_site(on_slurm: Collection[str], pythonpath: str, on_pods: Collection[str]) -> str:
    """Render a site file; the second GPU of ``traits.aoa`` is a test's, see slurm/."""
    lines = [POOL_HERE]
    for step in STEPS:
        pool, gpus = ("l40s", ", gpus = 2") if step == "traits.aoa" else ("genoa", "")
        placed = f'pool = "{pool}", cpus = 2, memory = "2GiB", time = "00:30:00"{gpus}'
        here = 'pool = "local"'
        if step in on_pods:
            here = 'pool = "pods", cpus = 2, memory = "2GiB", time = "00:30:00"'
        lines.append(f'placement."{step}" = {{ {placed if step in on_slurm else here} }}')
    return "\n".join(lines) + (CLUSTER.format(pythonpath=pythonpath) if on_slurm else "\n")


def _write_sbatch(folder: Path) -> Path:
    """Write the program before ``sbatch``; return its folder."""
    programs = folder / "bin"
    programs.mkdir()
    program = programs / "sbatch"
    program.write_text(SBATCH.format(sbatch=shutil.which("sbatch"), kill=kill_after_sbatch(folder)))
    program.chmod(0o755)
    return programs


def kill_after_sbatch(folder: Path) -> Path:
    """Return the file whose processes the next sbatch ends, once the cluster has the job."""
    return folder / "kill-after-sbatch"


@pytest.fixture(scope="package")
def muster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Muster]:
    with start_muster(tmp_path_factory.mktemp("live")) as started:
        yield started


def processes_of(folder: Path) -> list[int]:
    """Find everything that works for a batch below a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            if str(folder) in environment.get("MUSTER_WORK", ""):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found
