"""That Jobs and pods of the cluster under test behave as Kubernetes documents it.

With KUBECONFIG and ``-m kubernetes`` the same tests ask a real cluster.  Each class names the pages
of https://kubernetes.io/docs that it reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.kubernetes_cluster.indexes import format_indexes, parse_indexes
from tests.kubernetes_fixtures import RealCluster
from tests.kubernetes_under_test import make_job

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kubernetes_fixtures import MakeKubernetes
    from tests.kubernetes_under_test import KubernetesUnderTest

SLEEP = ["sleep", "600"]
TRACKING = "batch.kubernetes.io/job-tracking"


def conditions(item: dict[str, Any]) -> dict[str, str | None]:
    """Return the conditions that are true, with their reasons."""
    found = item["status"].get("conditions") or []
    return {one["type"]: one.get("reason") for one in found if one["status"] == "True"}


def state(pod: dict[str, Any]) -> dict[str, Any]:
    """Return what a pod's container is: its kind of state and what belongs to it."""
    statuses = pod["status"].get("containerStatuses")
    return statuses[0]["state"] if statuses else {}


def shell(text: str) -> list[str]:
    return ["/bin/sh", "-c", text]


def lives(pid: int) -> bool:
    """Say whether a process runs; one that nobody has waited for does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class TestIndexedJobs:
    """Concepts / Workloads / Jobs: completion mode, backoff limit per index, termination."""

    def test_indexes_are_written_as_in_a_status(self) -> None:
        assert format_indexes({1, 3, 4, 5, 7}) == "1,3-5,7"
        assert format_indexes({0, 1}) == "0,1"
        assert parse_indexes("1,3-5,7") == {1, 3, 4, 5, 7}
        assert parse_indexes("") == set()

    def test_each_index_runs_once_and_is_counted(self, kubernetes: KubernetesUnderTest) -> None:
        job = kubernetes.run_job(shell("echo at $JOB_COMPLETION_INDEX"), 3)
        status = kubernetes.job_ended(job)["status"]
        assert (status["succeeded"], status["completedIndexes"]) == (3, "0-2")
        assert list(conditions({"status": status})) == ["SuccessCriteriaMet", "Complete"]
        assert status["completionTime"] >= status["startTime"]
        pods = kubernetes.pods_of(job)
        for index, pod in enumerate(pods):
            assert pod["metadata"]["name"].startswith(f"{job}-{index}-")
            assert TRACKING not in pod["metadata"].get("finalizers", [])
            log = kubernetes.do("GET", kubernetes.path("pods", pod["metadata"]["name"], "log"))
            assert log == f"at {index}\n"

    def test_an_index_that_fails_fails_alone(self, kubernetes: KubernetesUnderTest) -> None:
        job = kubernetes.run_job(shell("exit $((JOB_COMPLETION_INDEX * 65))"), 3)
        status = kubernetes.job_ended(job)["status"]
        assert (status["completedIndexes"], status["failedIndexes"]) == ("0", "1,2")
        assert (status["succeeded"], status["failed"]) == (1, 2)
        reasons = conditions({"status": status})
        assert reasons["Failed"] == reasons["FailureTarget"] == "FailedIndexes"
        assert "completionTime" not in status
        ends = [state(pod)["terminated"] for pod in kubernetes.pods_of(job)]
        assert [end["exitCode"] for end in ends] == [0, 65, 130]
        assert [end["reason"] for end in ends] == ["Completed", "Error", "Error"]

    def test_no_more_than_the_parallelism_run_at_once(
        self, kubernetes: KubernetesUnderTest
    ) -> None:
        job = kubernetes.run_job(SLEEP, 4, parallelism=2)
        kubernetes.until(lambda: kubernetes.find("jobs", job)["status"].get("ready") == 2)
        assert len(kubernetes.pods_of(job)) == 2
        kubernetes.delete("jobs", job)

    def test_a_suspended_job_ends_its_pods_and_runs_their_indexes_again(
        self, kubernetes: KubernetesUnderTest
    ) -> None:
        """Jobs: suspending a Job; its pods do not count as failed."""
        job = kubernetes.run_job(SLEEP)
        first = kubernetes.running_pod(job)
        kubernetes.suspend(job, suspended=True)
        kubernetes.until(lambda: not kubernetes.pods_of(job))
        status = kubernetes.find("jobs", job)["status"]
        assert conditions({"status": status}) == {"Suspended": "JobSuspended"}
        assert not status.get("failedIndexes")
        assert "startTime" not in status
        kubernetes.suspend(job, suspended=False)
        assert kubernetes.running_pod(job) != first
        assert "startTime" in kubernetes.find("jobs", job)["status"]
        kubernetes.delete("jobs", job)

    def test_a_deleted_pod_is_a_failed_index(self, kubernetes: KubernetesUnderTest) -> None:
        """Jobs: pod replacement policy; a terminating pod is counted when it has failed."""
        job = kubernetes.run_job(SLEEP, 2)
        kubernetes.until(lambda: kubernetes.find("jobs", job)["status"].get("ready") == 2)
        pods = kubernetes.pods_of(job)
        kubernetes.delete("pods", pods[0]["metadata"]["name"])
        kubernetes.until(lambda: kubernetes.find("jobs", job)["status"].get("failedIndexes") == "0")
        kubernetes.until(lambda: len(kubernetes.pods_of(job)) == 1)
        assert kubernetes.pods_of(job)[0]["metadata"]["uid"] == pods[1]["metadata"]["uid"]
        kubernetes.delete("jobs", job)

    def test_a_job_takes_its_pods_along_or_leaves_them(
        self, kubernetes: KubernetesUnderTest
    ) -> None:
        """Use cascading deletion; a raw call without a policy leaves the pods of a Job."""
        ended = [kubernetes.run_job(shell("true")) for _ in range(3)]
        for job in ended:
            kubernetes.job_ended(job)
        kubernetes.delete("jobs", ended[0])
        kubernetes.delete("jobs", ended[1], propagationPolicy="Foreground")
        kubernetes.do("DELETE", kubernetes.path("jobs", ended[2]))
        for job in ended:
            kubernetes.until(lambda job=job: kubernetes.find("jobs", job) is None)
        kubernetes.until(lambda: not kubernetes.pods_of(ended[0]))
        assert kubernetes.pods_of(ended[1]) == []
        orphan = kubernetes.pods_of(ended[2])[0]["metadata"]
        assert "ownerReferences" not in orphan
        kubernetes.delete("pods", orphan["name"])

    def test_a_job_goes_when_its_time_after_the_end_is_over(
        self, kubernetes: KubernetesUnderTest
    ) -> None:
        """Jobs: TTL mechanism for finished Jobs."""
        job = kubernetes.run_job(shell("true"), job={"ttlSecondsAfterFinished": 0})
        kubernetes.until(lambda: kubernetes.find("jobs", job) is None)
        assert kubernetes.pods_of(job) == []


class TestPods:
    """Concepts / Workloads / Pod lifecycle; Tasks: environment, resources."""

    def test_variables_come_from_all_their_sources(self, kubernetes: KubernetesUnderTest) -> None:
        """Tasks: define dependent variables; expose pod information; distribute credentials."""
        kubernetes.make_secret("s3", KEY="hidden", OTHER="2")
        kubernetes.make_config_map("site", MODE="test")
        index = "metadata.labels['batch.kubernetes.io/job-completion-index']"
        env = [
            {"name": "A", "value": "$(KEY)-$(NOWHERE)-$$(KEY)"},
            {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s3", "key": "OTHER"}}},
            {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": index}}},
            {"name": "D", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}},
        ]
        site = {"configMapRef": {"name": "site", "optional": True}}
        job = kubernetes.run_job(
            [*shell('echo "$A|$B|$C|$D|$MODE|$1|$0"'), "$(MODE)", "$$(MODE) $(B)"],
            container={
                "env": env,
                "envFrom": [{"secretRef": {"name": "s3"}}, site],
                "resources": {"limits": {"memory": "64Mi"}},
            },
        )
        kubernetes.job_ended(job)
        name = kubernetes.pods_of(job)[0]["metadata"]["name"]
        log = kubernetes.do("GET", kubernetes.path("pods", name, "log"))
        assert log == "hidden-$(NOWHERE)-$(KEY)|2|0|67108864|test|$(MODE) 2|test\n"

    def test_too_much_memory_ends_the_container(self, kubernetes: KubernetesUnderTest) -> None:
        """Resource management: a container that exceeds its memory limit."""
        code = "a = bytearray(120 << 20); import time; time.sleep(60)"
        job = kubernetes.run_job(
            ["python", "-S", "-c", code],
            container={"resources": {"limits": {"memory": "64Mi"}}},
        )
        kubernetes.job_ended(job)
        end = state(kubernetes.pods_of(job)[0])["terminated"]
        assert (end["reason"], end["exitCode"]) == ("OOMKilled", 137)

    def test_a_pod_ends_at_its_deadline(self, kubernetes: KubernetesUnderTest) -> None:
        """Pod API: activeDeadlineSeconds; the reason is the pod's, the exit code the process's."""
        trap = "trap 'echo told; exit 0' TERM; while :; do sleep 0.05; done"
        job = kubernetes.run_job(shell(trap), pod={"activeDeadlineSeconds": 1})
        kubernetes.job_ended(job)
        pod = kubernetes.pods_of(job)[0]
        assert (pod["status"]["phase"], pod["status"]["reason"]) == ("Failed", "DeadlineExceeded")
        assert state(pod)["terminated"]["exitCode"] == 0
        log = kubernetes.do("GET", kubernetes.path("pods", pod["metadata"]["name"], "log"))
        assert log == "told\n"

    def test_what_does_not_end_when_told_is_killed(self, kubernetes: KubernetesUnderTest) -> None:
        """Pod lifecycle: pod termination flow; a grace of less than two seconds is two."""
        job = kubernetes.run_job(shell("trap '' TERM; while :; do sleep 0.1; done"))
        name = kubernetes.running_pod(job)
        kubernetes.delete("pods", name, gracePeriodSeconds=1)
        leaving = kubernetes.find("pods", name)
        assert leaving["metadata"]["deletionGracePeriodSeconds"] == 1
        assert leaving["status"]["phase"] == "Running"
        kubernetes.job_ended(job)

    def test_an_eviction_says_so_and_lets_the_pod_go(self, kubernetes: KubernetesUnderTest) -> None:
        """API-initiated eviction; Disruptions: pod disruption conditions."""
        job = kubernetes.run_job(SLEEP, pod={"terminationGracePeriodSeconds": 30})
        name = kubernetes.running_pod(job)
        with_finalizer = kubernetes.find("pods", name)["metadata"]["finalizers"]
        assert TRACKING in with_finalizer
        kubernetes.evict(name)
        assert kubernetes.job_ended(job)["status"]["failedIndexes"] == "0"
        kubernetes.until(lambda: kubernetes.find("pods", name) is None)

    @pytest.mark.parametrize(
        ("container", "reasons", "words"),
        [
            (
                {"image": "registry.invalid/muster:1"},
                {"ErrImagePull", "ImagePullBackOff"},
                "registry.invalid",
            ),
            (
                {"image": "registry.invalid/m:1", "imagePullPolicy": "Never"},
                {"ErrImageNeverPull"},
                "is not present with pull policy of Never",
            ),
            ({"image": "No Name"}, {"InvalidImageName"}, "invalid reference format"),
            (
                {"envFrom": [{"secretRef": {"name": "absent"}}]},
                {"CreateContainerConfigError"},
                'secret "absent" not found',
            ),
            (
                {"securityContext": {"runAsNonRoot": True, "runAsUser": 0}},
                {"CreateContainerConfigError"},
                "container's runAsUser breaks non-root policy",
            ),
        ],
    )
    def test_what_keeps_a_container_from_starting_is_said(
        self,
        kubernetes: KubernetesUnderTest,
        container: dict[str, Any],
        reasons: set[str],
        words: str,
    ) -> None:
        """Images: ImagePullBackOff; Debug pods: my pod stays waiting."""
        job = kubernetes.run_job(SLEEP, container=container)
        pod = kubernetes.pod_of(
            job, lambda pod: state(pod).get("waiting", {}).get("reason") in reasons
        )
        assert words in state(pod)["waiting"]["message"]
        assert pod["status"]["phase"] == "Pending"
        code, said = kubernetes.call("GET", kubernetes.path("pods", pod["metadata"]["name"], "log"))
        assert (code, said["reason"]) == (400, "BadRequest")
        kubernetes.delete("jobs", job)

    def test_a_key_that_a_secret_lacks_is_waited_for(self, kubernetes: KubernetesUnderTest) -> None:
        """Tasks: distribute credentials; the container starts when the key is there."""
        kubernetes.make_secret("half", KEY="1")
        source = {"secretKeyRef": {"name": "half", "key": "OTHER"}}
        env = [{"name": "A", "valueFrom": source}]
        job = kubernetes.run_job(shell("exit $A"), container={"env": env})
        pod = kubernetes.pod_of(job, lambda pod: "message" in state(pod).get("waiting", {}))
        assert state(pod)["waiting"]["reason"] == "CreateContainerConfigError"
        said = f"couldn't find key OTHER in Secret {kubernetes.namespace}/half"
        assert state(pod)["waiting"]["message"] == said
        kubernetes.delete("secrets", "half")
        kubernetes.make_secret("half", OTHER="0")
        assert kubernetes.job_ended(job)["status"]["completedIndexes"] == "0"

    def test_a_pod_runs_without_a_job(self, kubernetes: KubernetesUnderTest) -> None:
        """As KubernetesPodOperator makes it: it stays until it is deleted."""
        template = make_job("x", shell("exit 7"), container={"image": kubernetes.image})
        body = {"metadata": {"generateName": "alone-"}, **template["spec"]["template"]}
        made = kubernetes.create("pods", body)
        assert made["status"]["phase"] == "Pending"
        name = made["metadata"]["name"]
        assert name.startswith("alone-")
        path = kubernetes.path("pods", name, "status")
        kubernetes.until(lambda: kubernetes.do("GET", path)["status"]["phase"] == "Failed")
        assert state(kubernetes.find("pods", name))["terminated"]["exitCode"] == 7
        kubernetes.delete("pods", name)
        kubernetes.until(lambda: kubernetes.find("pods", name) is None)

    def test_a_command_that_is_not_there_is_a_failed_start(
        self, kubernetes: KubernetesUnderTest
    ) -> None:
        job = kubernetes.run_job(["no-such-program"])
        kubernetes.job_ended(job)
        end = state(kubernetes.pods_of(job)[0])["terminated"]
        assert (end["reason"], end["exitCode"]) == ("StartError", 128)

    def test_all_that_a_container_has_started_ends_with_it(
        self, kubernetes: KubernetesUnderTest, tmp_path: Path
    ) -> None:
        """The first process of a container ends: its process namespace is gone."""
        if kubernetes.real:
            pytest.skip("the processes of a real cluster are not seen from here")
        file = tmp_path / "pid"
        kubernetes.make_claim("work", tmp_path)
        job = kubernetes.run_job(
            shell(f"setsid sleep 600 & echo $! > {file}; exit 3"),
            container={"volumeMounts": [{"name": "work", "mountPath": str(tmp_path)}]},
            pod={"volumes": [{"name": "work", "persistentVolumeClaim": {"claimName": "work"}}]},
        )
        kubernetes.job_ended(job)
        assert not lives(int(file.read_text()))

    def test_scratch_is_a_folder_of_the_pod_alone(self, kubernetes: KubernetesUnderTest) -> None:
        """Volumes: emptyDir, secret."""
        kubernetes.make_secret("token", value="s3cret")
        job = kubernetes.run_job(
            shell('echo mine > "$SCRATCH/file"; cat "$SCRATCH/file" "$1"'),
            container={
                "args": ["sh", "/etc/token/value"],
                "env": [{"name": "SCRATCH", "value": "/scratch"}],
                "volumeMounts": [
                    {"name": "scratch", "mountPath": "/scratch"},
                    {"name": "token", "mountPath": "/etc/token", "readOnly": True},
                ],
            },
            pod={
                "volumes": [
                    {"name": "scratch", "emptyDir": {"sizeLimit": "1Gi"}},
                    {"name": "token", "secret": {"secretName": "token"}},
                ]
            },
        )
        kubernetes.job_ended(job)
        name = kubernetes.pods_of(job)[0]["metadata"]["name"]
        assert kubernetes.do("GET", kubernetes.path("pods", name, "log")) == "mine\ns3cret"

    def test_a_pod_that_fills_its_scratch_is_evicted(self, kubernetes: KubernetesUnderTest) -> None:
        """Volumes: emptyDir's sizeLimit; local ephemeral storage: exceeding it."""
        job = kubernetes.run_job(
            shell("head -c 3000000 /dev/zero > $SCRATCH/file; sleep 600"),
            container={
                "env": [{"name": "SCRATCH", "value": "/scratch"}],
                "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
            },
            pod={"volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": "1Mi"}}]},
        )
        kubernetes.job_ended(job)
        status = kubernetes.pods_of(job)[0]["status"]
        assert (status["phase"], status["reason"]) == ("Failed", "Evicted")
        assert 'EmptyDir volume "scratch" exceeds the limit "1Mi"' in status["message"]


@pytest.mark.thorough
def test_a_cluster_that_is_named_is_used_in_a_namespace_of_its_own(
    make_kubernetes: MakeKubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What KUBECONFIG would name, acted by a stand-in."""
    standin = make_kubernetes()
    monkeypatch.setenv("MUSTER_TEST_IMAGE", standin.image)
    cluster = RealCluster.open(standin.kubeconfig)
    assert cluster.namespace != standin.namespace
    job = cluster.run_job(shell("echo 17"))
    cluster.job_ended(job)
    path = cluster.path("pods", cluster.pods_of(job)[0]["metadata"]["name"], "log")
    assert cluster.do("GET", path) == "17\n"
    assert cluster.find("jobs", "nowhere") is None
    with pytest.raises(pytest.skip.Exception, match="a real cluster cannot go away"):
        cluster.go_away()
    cluster.remove()
    space = f"/api/v1/namespaces/{cluster.namespace}"
    standin.until(lambda: standin.call("GET", space)[0] == 404)


def test_nothing_outlives_the_stand_in(make_kubernetes: MakeKubernetes, tmp_path: Path) -> None:
    """A process that tests have started ends with them, even when nobody tells it to."""
    standin = make_kubernetes()
    standin.make_claim("work", tmp_path)
    job = standin.run_job(
        shell(f"echo $$$$ > {tmp_path}/pid; exec sleep 600"),
        container={"volumeMounts": [{"name": "work", "mountPath": str(tmp_path)}]},
        pod={"volumes": [{"name": "work", "persistentVolumeClaim": {"claimName": "work"}}]},
    )
    standin.running_pod(job)
    file = tmp_path / "pid"
    pid = int(standin.until(lambda: file.exists() and file.read_text()))
    standin.process.kill()
    standin.process.wait(10)
    standin.until(lambda: not lives(pid), 10)
