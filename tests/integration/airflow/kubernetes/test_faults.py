"""Killed, cleared and marked while batches run on Kubernetes: nothing lost, nothing run twice."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import psutil
import pytest

from muster.store import batches
from tests.integration.airflow.kubernetes.conftest import PodRun
from tests.integration.airflow.slurm.cluster_run import write
from tests.integration.airflow.slurm.test_faults import family, kill_worker

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.airflow.kubernetes.conftest import OnKubernetes

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.slow,
    pytest.mark.thorough,
    pytest.mark.timeout(900),
]


def kill_triggerer(there: OnKubernetes) -> None:
    """Kill the triggerer and the child that runs its triggers, which else would go on."""
    doomed = family(there.live.pid("triggerer"))
    assert len(doomed) > 1
    for process in doomed:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    there.wait(lambda: "triggerer" not in there.live.services.running())


def test_the_triggerer_and_its_child_end_between_create_and_record(
    there: OnKubernetes, tmp_path: Path
) -> None:
    """The cluster has the Job, and nobody knows: it is found by its key."""
    there.kubernetes.hold_answers()
    run = PodRun(there, tmp_path, [write(tmp_path, 15.0, 3)])
    run.start()
    there.wait(run.jobs)
    assert len(run.submissions()) == 1
    (element, *_) = batches.read_elements(there.db, run.batch.id)
    assert element.attempts[0].state.value == "planned", "intended, and not recorded as submitted"
    kill_triggerer(there)
    there.kubernetes.release_answers()
    there.live.restart("triggerer")
    assert run.end() == "success"
    run.check_whole()
    assert len(run.submissions()) == 1, "found again, and not submitted twice"
    assert len(run.jobs()) == 1
    assert "found" in run.task_log()


def test_the_triggerer_and_its_child_end_before_create(there: OnKubernetes, tmp_path: Path) -> None:
    """The intent was another one's and never carried out: it is given up for a new submission."""
    run = PodRun(there, tmp_path, [write(tmp_path, 0.5, 2)])
    there.kubernetes.go_away()
    run.start()
    there.wait(run.submissions)
    kill_triggerer(there)
    there.kubernetes.come_back()
    there.live.restart("triggerer")
    assert run.end() == "success"
    run.check_whole()
    assert len(run.jobs()) == 1


@pytest.mark.parametrize("component", ["triggerer", "scheduler"])
def test_a_component_ends_while_pods_run(
    there: OnKubernetes, tmp_path: Path, component: str
) -> None:
    run = PodRun(there, tmp_path, [write(tmp_path, 10.0)])
    run.start()
    there.wait(lambda: len(run.running()) == 2)
    if component == "triggerer":
        kill_triggerer(there)
    else:
        there.live.kill(component)
    there.live.restart(component)
    assert run.end() == "success"
    run.check_whole()
    assert len(run.submissions()) == len(run.jobs()) == 1


def test_the_worker_ends_inside_execute(there: OnKubernetes, tmp_path: Path) -> None:
    """The claim is taken and the pod kept: the next try takes both over."""
    run = PodRun(there, tmp_path, [write(tmp_path, 2.0)], hold=True)
    run.hold.touch()
    run.start()
    there.wait(lambda: run.claims() == 1)
    assert kill_worker(there, run)  # type: ignore[arg-type]
    there.wait(lambda: run.claims() == 2)
    run.hold.unlink()
    assert run.end() == "success"
    run.check_whole()
    assert len(run.submissions()) == len(run.jobs()) == 1


def test_a_mark_deletes_the_job(there: OnKubernetes, tmp_path: Path) -> None:
    run = PodRun(there, tmp_path, [write(tmp_path, 600.0, 3)], slots=2)
    run.start()
    there.wait(lambda: len(run.running()) == 2)
    run.mark("failed")
    there.wait(lambda: not run.jobs())
    assert run.queue() == []
    assert run.end() == "failed"
    there.wait(lambda: run.outcomes() == [["cancelled"]] * 3)
    assert run.lines() == []
    assert len(run.submissions()) == 1


def test_a_cleared_task_takes_over_what_runs(there: OnKubernetes, tmp_path: Path) -> None:
    run = PodRun(there, tmp_path, [write(tmp_path, 18.0)])
    run.start()
    there.wait(lambda: len(run.running()) == 2)
    before = set(run.running())
    run.clear()
    there.wait(lambda: run.generations() == [2])
    assert set(run.running()) <= before
    assert run.end() == "success"
    run.check_whole()
    assert len(run.submissions()) == len(run.jobs()) == 1, "nothing was submitted again"
    assert run.outcomes() == [["succeeded"], ["succeeded"]]


def test_a_connection_of_airflow_reaches_the_cluster(there: OnKubernetes, tmp_path: Path) -> None:
    """Until it is there the batch waits, and says for what."""
    name = f"tests_{tmp_path.name}"
    cluster = {"connection": name, "kubeconfig": None}
    run = PodRun(there, tmp_path, [write(tmp_path, 0.5)], cluster=cluster)
    run.start()
    there.wait(lambda: name in (run.degraded() or ""))
    extra = {"kube_config_path": str(there.kubernetes.kubeconfig)}
    words = {"connection_id": name, "conn_type": "kubernetes", "extra": json.dumps(extra)}
    there.api.call("POST", "connections", words)
    assert run.end() == "success"
    run.check_whole()
    assert run.degraded() is None
    assert run.shown()["kubernetes_conn_id"] == name
