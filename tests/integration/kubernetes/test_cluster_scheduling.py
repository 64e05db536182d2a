"""That pods of the cluster under test go to nodes, or wait, as Kubernetes documents it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.kubernetes_under_test import KubernetesUnderTest

SLEEP = ["sleep", "600"]


class TestScheduling:
    """Concepts / Scheduling: assigning pods to nodes, taints; Policies: resource quotas."""

    def test_what_fits_no_node_says_so_in_the_scheduler_s_words(
        self, kubernetes: KubernetesUnderTest
    ) -> None:
        job = kubernetes.run_job(
            SLEEP, container={"resources": {"limits": {"cpu": "1000", "memory": "64Mi"}}}
        )
        pod = kubernetes.pod_of(job, lambda pod: pod["status"].get("conditions"))
        found = pod["status"]["conditions"][0]
        assert (found["type"], found["status"]) == ("PodScheduled", "False")
        assert found["reason"] == "Unschedulable"
        assert "nodes are available: " in found["message"]
        assert "Insufficient cpu" in found["message"]
        name = pod["metadata"]["name"]
        kubernetes.until(
            lambda: any(e["reason"] == "FailedScheduling" for e in kubernetes.events_of(name))
        )
        kubernetes.delete("jobs", job)

    def test_a_claim_that_is_not_there_is_waited_for(self, kubernetes: KubernetesUnderTest) -> None:
        """Persistent volumes: claims as volumes."""
        volume = {"name": "work", "persistentVolumeClaim": {"claimName": "nowhere"}}
        job = kubernetes.run_job(SLEEP, pod={"volumes": [volume]})
        pod = kubernetes.pod_of(job, lambda pod: pod["status"].get("conditions"))
        words = 'persistentvolumeclaim "nowhere" not found'
        assert words in pod["status"]["conditions"][0]["message"]
        kubernetes.delete("jobs", job)

    def test_a_pod_goes_where_its_labels_and_tolerations_let_it(
        self, kubernetes: KubernetesUnderTest
    ) -> None:
        if kubernetes.real:
            pytest.skip("the nodes of a real cluster are its own")
        gpu = {"resources": {"limits": {"nvidia.com/gpu": "1"}}}
        toleration = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
        hostname = {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": ["cpu-1"]}
        term = {"nodeSelectorTerms": [{"matchExpressions": [hostname]}]}
        needed = {"requiredDuringSchedulingIgnoredDuringExecution": term}
        jobs = [
            kubernetes.run_job(SLEEP, container=gpu, pod={"tolerations": [toleration]}),
            kubernetes.run_job(SLEEP, pod={"affinity": {"nodeAffinity": needed}}),
            kubernetes.run_job(SLEEP, pod={"nodeSelector": {"kubernetes.io/hostname": "cpu-1"}}),
            kubernetes.run_job(SLEEP, container=gpu),
        ]
        pods = [kubernetes.pod_of(job, lambda p: p["status"].get("conditions")) for job in jobs]
        assert [pod["spec"].get("nodeName") for pod in pods] == ["gpu-1", "cpu-2", "cpu-1", None]
        assert pods[3]["status"]["conditions"][0]["message"].startswith(
            "0/3 nodes are available: 1 node(s) had untolerated taint {nvidia.com/gpu: present},"
            " 2 Insufficient nvidia.com/gpu."
        )
        for job in jobs:
            kubernetes.delete("jobs", job)

    def test_a_quota_keeps_pods_from_being_made_until_it_goes(
        self, kubernetes: KubernetesUnderTest
    ) -> None:
        kubernetes.set_quota("none", pods="0")
        job = kubernetes.run_job(["true"])
        kubernetes.until(lambda: kubernetes.events_of(job))
        event = kubernetes.events_of(job)[0]
        assert (event["reason"], event["type"]) == ("FailedCreate", "Warning")
        assert "exceeded quota: none, requested: pods=1, used: pods=0" in event["message"]
        kubernetes.delete("resourcequotas", "none")
        kubernetes.job_ended(job)
