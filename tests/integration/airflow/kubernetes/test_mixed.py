"""One run on three backends: predict in pods, the area of applicability on Slurm, the rest here.

Only the site file says where a step runs; the map is the one that this machine makes alone.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from muster.store import pods, runs
from tests.integration.airflow.conftest import REPOSITORY, start_muster
from tests.integration.airflow.kubernetes.conftest import OnKubernetes
from tests.integration.airflow.slurm.test_trait_inference import ENGINES, digest, run_here
from tests.integration.airflow.test_trait_inference import TRAIT, conf, splot, verdict_log
from tests.integration.slurm.conftest import skip_without_slurm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kubernetes_under_test import KubernetesUnderTest

__all__ = ["splot"]

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.slow,
    pytest.mark.slurm,
    pytest.mark.thorough,
    pytest.mark.timeout(900),
]

PODS = """
[pools.pods]
backend = "kubernetes"
image = "{image}"
slots = 8
max_memory = "4GiB"
volumes = [{{ path = "{folder}", claim = "mixed-work" }}]
[kubernetes.tests]
kubeconfig = "{kubeconfig}"
namespace = "{namespace}"
result_grace = "00:00:05"
"""
OPERATORS = {
    "inspect": "LocalBatchOperator",
    "trait.predict": "KubernetesBatchOperator",
    "trait.cov": "LocalBatchOperator",
    "trait.aoa": "SlurmBatchOperator",
    "trait.build": "LocalBatchOperator",
}


@pytest.fixture
def mixed(
    kubernetes: KubernetesUnderTest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OnKubernetes]:
    """An Airflow whose site places one step of the workflow on each cluster."""
    skip_without_slurm()
    seen = tmp_path_factory.getbasetemp()  # inputs, products and the work directory lie below it
    kubernetes.make_claim("mixed-work", seen)
    words = PODS.format(
        image=kubernetes.image,
        folder=seen,
        kubeconfig=kubernetes.kubeconfig,
        namespace=kubernetes.namespace,
    )
    with start_muster(
        tmp_path_factory.mktemp("mixed"), ("traits.aoa",), ("traits.predict",), words
    ) as found:
        yield OnKubernetes(found.live, found.db, found.folder, found.site, found.slurm, kubernetes)


def test_each_step_runs_where_the_site_says_and_the_map_is_the_same(
    mixed: OnKubernetes, splot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = mixed.api.trigger("trait_inference", conf(splot, tmp_path / "there", engines=ENGINES))
    state = mixed.api.wait_for_run("trait_inference", run_id, 600).state
    assert state == "success", verdict_log(mixed, run_id)
    operators = {
        task["task_id"]: task["operator_name"]
        for task in mixed.api.call("GET", "dags/trait_inference/tasks")["tasks"]
    }
    assert {name: operators[name] for name in OPERATORS} == OPERATORS

    name = f"trait_inference.{run_id}"
    rows = {row.step.removeprefix("traits."): row for row in runs.read_status(mixed.db, name)}
    nodes = {pod["spec"]["nodeName"] for pod in mixed.kubernetes.list("pods")}
    assert rows["predict"].host in nodes
    assert rows["aoa"].host in ("gpu1", "gpu2")
    assert rows["build"].host not in nodes | {"gpu1", "gpu2"}
    (job,) = [
        job
        for job in mixed.kubernetes.list("jobs")
        if job["metadata"]["annotations"]["muster.dev/batch"].endswith(f"traits.predict.{TRAIT}")
    ]
    kept = pods.read_pod(mixed.db, job["metadata"]["annotations"]["muster.dev/batch"])
    assert kept is not None
    assert kept["metadata"]["annotations"]["example.org/hooked"] == "by the site"

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY)]))
    there = tmp_path / "there" / f"{TRAIT}.tif"
    assert digest(there) == digest(run_here(mixed, splot, tmp_path))  # type: ignore[arg-type]
