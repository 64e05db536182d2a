"""Batches on Kubernetes through a live Airflow: dressed, submitted, followed, shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from muster.store import pods
from tests.integration.airflow.kubernetes.conftest import PodRun
from tests.integration.airflow.slurm.cluster_run import write

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.airflow.kubernetes.conftest import OnKubernetes

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(400)]


def test_two_mapped_batches_share_a_watch(there: OnKubernetes, tmp_path: Path) -> None:
    if not there.kubernetes.real:
        there.kubernetes.forget_calls()  # type: ignore[attr-defined]
    run = PodRun(there, tmp_path, [write(tmp_path, 0.5, 1, number) for number in range(2)])
    run.start()
    assert run.end() == "success"
    run.check_whole()
    jobs = run.jobs()
    assert len(jobs) == 2

    pod = jobs[0]["spec"]["template"]
    labels = pod["metadata"]["labels"]
    assert labels["cost-centre"] == "ecology", "as the DAG says"
    assert labels["dag_id"] == "kubernetes_batches"
    assert pod["metadata"]["annotations"]["example.org/hooked"] == "by the site"
    kept = pods.read_pod(there.db, run.batches[0].id)
    assert kept is not None
    shown = yaml.safe_load(run.shown()["pod_spec"])
    assert shown == kept, "what the task's page shows is what all waves are made of"
    log = run.task_log()
    element = run.batches[0].elements[0].name
    assert f"log of {element}, attempt 1" in log
    assert f"{element}, attempt 1 | " in log, "told as it comes"

    if not there.kubernetes.real:
        made = [(verb, run.calls(verb)) for verb in ("create", "list", "watch", "delete")]
        assert made == [("create", 2), ("list", 1), ("watch", 1), ("delete", 0)]
        assert [run.calls(verb, "pods") for verb in ("list", "watch")] == [1, 1]
