"""The shared Airflow as tests of batches on Kubernetes see it; each mends what it breaks."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from muster.backends.kubernetes.names import ANNOTATION_BATCH
from tests.batches import make_batch
from tests.integration.airflow.conftest import Muster
from tests.integration.airflow.slurm.cluster_run import ClusterRun
from tests.integration.kubernetes.backend_under_test import make_target

if TYPE_CHECKING:
    from pathlib import Path

    from muster.model.batch import Batch
    from tests.kubernetes_under_test import KubernetesUnderTest


@dataclass
class OnKubernetes(Muster):
    """A live Airflow with its store, and the Kubernetes that its batches run on."""

    kubernetes: KubernetesUnderTest


@pytest.fixture
def there(muster: Muster, kubernetes: KubernetesUnderTest) -> OnKubernetes:
    return OnKubernetes(
        muster.live, muster.db, muster.folder, muster.site, muster.slurm, kubernetes
    )


class PodRun(ClusterRun):
    """One run of the DAG of bare batches on Kubernetes.

    Parameters
    ----------
    cluster : dict, optional
        What this run's cluster says of itself, beside a name of its own: a run has its own watch.
    muster, folder, wishes, hold
        As of :class:`ClusterRun`.
    """

    muster: OnKubernetes  # type: ignore[assignment]

    def __init__(
        self,
        muster: OnKubernetes,
        folder: Path,
        wishes: list[list[dict[str, Any]]],
        *,
        cluster: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        named = {"name": f"k{uuid.uuid4().hex[:8]}", **(cluster or {})}
        self.target = make_target(muster.kubernetes, folder, cluster=named)
        super().__init__(muster, folder, wishes, **options)  # type: ignore[arg-type]
        self.dag_id = f"kubernetes_{self.task_id.removeprefix('run_')}"

    def _place_batch(self, wishes: list[dict[str, Any]], options: dict[str, Any]) -> Batch:
        batch = make_batch(self.folder, wishes, **options)
        return batch.model_copy(update={"target": self.target})

    def jobs(self) -> list[dict[str, Any]]:
        """Return the Jobs of this run, ended ones too."""
        ours = {batch.id for batch in self.batches}
        return [
            job
            for job in self.muster.kubernetes.list("jobs")
            if job["metadata"]["annotations"].get(ANNOTATION_BATCH) in ours
        ]

    def queue(self) -> list[tuple[str, str]]:
        """Return the pods of this run that wait or run: name and state."""
        ours = {batch.id for batch in self.batches}
        found = [
            (pod["metadata"]["name"], pod["status"]["phase"])
            for pod in self.muster.kubernetes.list("pods")
            if pod["metadata"].get("annotations", {}).get(ANNOTATION_BATCH) in ours
        ]
        return [(name, phase) for name, phase in found if phase not in ("Succeeded", "Failed")]

    def running(self) -> list[str]:
        """Return the elements that have begun to run, as their pods are named."""
        return [name for name, phase in self.queue() if phase == "Running"]

    def calls(self, verb: str, resource: str = "jobs") -> int:
        """Count the calls of the batches, which no other test may make meanwhile."""
        return sum(
            (call.get("verb"), call.get("resource")) == (verb, resource)
            for call in self.muster.kubernetes.calls()
        )

    def shown(self, number: int = 0) -> dict[str, Any]:
        """Return the template fields of a task as its page shows them."""
        path = f"dags/{self.dag_id}/dagRuns/{self.run_id}/taskInstances/{self.task_id}/{number}"
        found: dict[str, Any] = self.muster.api.call("GET", path)["rendered_fields"]
        return found
