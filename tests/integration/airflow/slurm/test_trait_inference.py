"""The workflow on a cluster: the same files as on this machine, and two GPUs where they are asked.

Inputs are the real plots of the tests of the workflow on one machine.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from muster.jobs.planning.workflow import load_workflow
from muster.jobs.runs.local_run import LocalRun
from muster.site import Site
from muster.store import runs
from tests.integration.airflow.conftest import start_muster
from tests.integration.airflow.slurm.conftest import on_slurm
from tests.integration.airflow.test_trait_inference import TRAIT, conf, splot, verdict_log
from tests.integration.slurm.conftest import skip_without_slurm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.airflow.slurm.conftest import OnSlurm

__all__ = ["splot"]

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.slow,
    pytest.mark.slurm,
    pytest.mark.thorough,
    pytest.mark.timeout(900),
]

BANDS = ("predict", "cov", "aoa")
ALL = tuple(f"traits.{step}" for step in ("inspect", *BANDS, "build"))
ENGINES = {"predict": "quantised", "cov": "quantised", "aoa": "tree"}
"""Said by hand: what the plan chooses by trying may differ where the machine is busy."""


@pytest.fixture(scope="module")
def muster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnSlurm]:
    """An Airflow whose site places every step of the workflow on the cluster."""
    skip_without_slurm()
    with start_muster(tmp_path_factory.mktemp("all"), ALL) as started:
        yield on_slurm(started)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run_here(muster: OnSlurm, splot: Path, folder: Path) -> Path:
    """Make the product on this machine, in this process; return it."""
    pool = {"backend": "local", "slots": 2}
    steps = load_workflow("trait_inference").steps
    site = Site.model_validate(
        {
            "name": "here",
            "work": str(folder / "work"),
            "pools": {"local": pool},
            "placement": {step: {"pool": "local", "cpus": 2} for step in steps},
        }
    )
    told = conf(splot, folder / "products", engines=ENGINES)
    run = LocalRun(
        muster.db, site, load_workflow("trait_inference"), f"here-{folder.name}", lambda *_: None
    )
    assert asyncio.run(run.run(told)).good
    return folder / "products" / f"{TRAIT}.tif"


def test_the_map_is_the_same_as_without_a_cluster(
    muster: OnSlurm, splot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = conf(splot, tmp_path / "there", engines=ENGINES)
    run_id = muster.api.trigger("trait_inference", told)
    state = muster.api.wait_for_run("trait_inference", run_id, 600).state
    log = verdict_log(muster, run_id)
    assert state == "success", log
    assert f"{TRAIT}: succeeded" in log
    assert set(muster.states("trait_inference", run_id).values()) == {"success"}
    product = tmp_path / "there" / f"{TRAIT}.tif"

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).resolve().parents[4])]))
    assert digest(product) == digest(run_here(muster, splot, tmp_path))

    name = f"trait_inference.{run_id}"
    assert runs.read_run(muster.db, name).state == "succeeded"
    rows = {row.step: row for row in runs.read_status(muster.db, name)}
    hosts = {step.removeprefix("traits."): row.host for step, row in rows.items()}
    assert {host[:3] for step, host in hosts.items() if host and step != "aoa"} == {"cpu"}
    assert hosts["aoa"] in ("gpu1", "gpu2"), "as the node calls itself, not the machine below it"
    assert muster.queue() == []

    (batch,) = (Path(muster.live.home) / "work" / "runs").glob(f"*/batches/traits.aoa.{TRAIT}")
    said = [path.read_text() for path in batch.rglob("job.out")]
    assert len(said) == 1
    gpus = said[0].partition("GPUS=")[2].splitlines()[0].split(",")
    assert len(set(gpus)) == 2, said

    operators = {
        task["task_id"]: task["operator_name"]
        for task in muster.api.call("GET", "dags/trait_inference/tasks")["tasks"]
    }
    assert {operators[f"trait.{step}"] for step in (*BANDS, "build")} == {"SlurmBatchOperator"}
