"""That the faults of the stand-in are those of Kubernetes: of pods, nodes and the API server."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from tests.kubernetes_cluster.containers import marked
from tests.kubernetes_fixtures import StandInUnderTest
from tests.kubernetes_under_test import make_job

if TYPE_CHECKING:
    from tests.kubernetes_under_test import KubernetesUnderTest

SLEEP = ["sleep", "600"]


@pytest.fixture
def standin(kubernetes: KubernetesUnderTest) -> StandInUnderTest:
    """The stand-in: a real cluster has its own faults."""
    if not isinstance(kubernetes, StandInUnderTest):
        pytest.skip("a real cluster has no fault when a test asks it to")
    return kubernetes


def call(
    standin: StandInUnderTest,
    method: str,
    path: str,
    *,
    token: str = "",
    timeout: float = 5.0,
    body: bytes | None = None,
) -> tuple[int, dict[str, str]]:
    """Call as a client that is not the tests'; return the code and the headers."""
    request = urllib.request.Request(f"{standin.url}{path}", data=body, method=method)
    request.add_header("Authorization", f"Bearer {token or standin.token}")
    request.add_header("Content-Type", "application/json")
    request.add_header("User-Agent", "a client")
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            answer.read()
            return answer.status, dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers)


def seen_disrupted(standin: StandInUnderTest, job: str, since: str) -> list[str]:
    """Return the reasons of disruption that a watch shows from a version on, each once."""
    query = {"resourceVersion": since, "timeoutSeconds": "1"}
    with standin.watch("pods", labelSelector=f"job-name%3D{job}", **query) as stream:
        events = list(stream)
    found: list[str] = []
    for event in events:
        for one in event["object"]["status"].get("conditions") or []:
            if one["type"] == "DisruptionTarget" and one["reason"] not in found:
                found.append(one["reason"])
    return found


def running(standin: StandInUnderTest, **words: Any) -> tuple[str, str, str]:
    """Run a Job; return its name, its pod's and its node's."""
    job = standin.run_job(SLEEP, **words)
    pod = standin.running_pod(job)
    return job, pod, standin.find("pods", pod)["spec"]["nodeName"]


class TestDisruptions:
    """Concepts / Workloads / Disruptions; Node-pressure eviction; Node shutdowns; Taints."""

    def test_a_preempted_pod_says_so(self, standin: StandInUnderTest) -> None:
        job, pod, _ = running(standin)
        since = standin.find("pods", pod)["metadata"]["resourceVersion"]
        standin.preempt(pod)
        standin.job_ended(job)
        assert seen_disrupted(standin, job, since) == ["PreemptionByScheduler"]

    def test_a_pod_of_a_node_without_memory_fails_and_stays(
        self, standin: StandInUnderTest
    ) -> None:
        job, pod, _ = running(standin)
        standin.evict_for_memory(pod)
        standin.job_ended(job)
        status = standin.find("pods", pod)["status"]
        assert (status["phase"], status["reason"]) == ("Failed", "Evicted")
        assert status["message"].startswith("The node was low on resource: memory.")
        disrupted = [one for one in status["conditions"] if one["type"] == "DisruptionTarget"]
        assert disrupted[0]["reason"] == "TerminationByKubelet"

    def test_a_node_that_shuts_down_ends_its_pods(self, standin: StandInUnderTest) -> None:
        job, pod, node = running(standin)
        standin.shut_down_node(node)
        standin.job_ended(job)
        status = standin.find("pods", pod)["status"]
        assert (status["phase"], status["reason"]) == ("Failed", "Terminated")
        standin.restore_node(node)

    def test_a_lost_node_s_pods_are_deleted_and_then_collected(
        self, standin: StandInUnderTest
    ) -> None:
        job, pod, node = running(standin, pod={"nodeSelector": {"pool": "cpu"}})
        found = standin.find("pods", pod)["metadata"]
        standin.lose_node(node, taint_after_s=0.1, gone_after_s=None)
        standin.until(lambda: standin.find("pods", pod)["metadata"].get("deletionTimestamp"))
        lost = standin.find("pods", pod)
        assert lost["status"]["phase"] == "Running", "nobody can say that it has ended"
        assert not marked(found["uid"])
        assert not standin.find("jobs", job)["status"].get("failedIndexes")
        standin.lose_node(node, taint_after_s=0.0, gone_after_s=0.0)
        assert standin.job_ended(job)["status"]["failedIndexes"] == "0"
        reasons = seen_disrupted(standin, job, found["resourceVersion"])
        assert reasons == ["DeletionByTaintManager", "DeletionByPodGC"]
        standin.restore_node(node)

    def test_a_drained_node_takes_nothing_new(self, standin: StandInUnderTest) -> None:
        only = {"nodeSelector": {"kubernetes.io/hostname": "cpu-2"}}
        job, _, node = running(standin, pod=only)
        assert node == "cpu-2"
        standin.drain_node(node)
        standin.job_ended(job)
        job = standin.run_job(SLEEP, pod=only)
        pod = standin.pod_of(job, lambda pod: pod["status"].get("conditions"))
        assert "1 node(s) were unschedulable" in pod["status"]["conditions"][0]["message"]
        standin.restore_node(node)
        standin.running_pod(job)
        standin.delete("jobs", job)


class TestServer:
    """Reference / API concepts; Flow control; Authenticating; Dynamic admission control."""

    def test_it_is_away_and_comes_back(self, standin: StandInUnderTest) -> None:
        path = standin.path("jobs")
        assert call(standin, "GET", path)[0] == 200
        standin.go_away()
        with pytest.raises(urllib.error.URLError, match="refused"):
            call(standin, "GET", path)
        standin.come_back()
        assert call(standin, "GET", path)[0] == 200
        standin.go_away(0.2)
        time.sleep(0.4)
        assert call(standin, "GET", path)[0] == 200

    def test_a_watch_breaks_without_an_end(self, standin: StandInUnderTest) -> None:
        request = urllib.request.Request(f"{standin.url}{standin.path('jobs')}?watch=true")
        request.add_header("Authorization", f"Bearer {standin.token}")
        with urllib.request.urlopen(request, timeout=5) as answer:
            standin.until(lambda: standin.break_watches())
            with pytest.raises((http.client.IncompleteRead, ConnectionError)):
                answer.read()

    def test_a_watch_may_be_silent(self, standin: StandInUnderTest) -> None:
        """As over a connection that is half open: what was missed comes later, in order."""
        version = standin.do("GET", standin.path("configmaps"))["metadata"]["resourceVersion"]
        standin.mute_watches()
        query = {"resourceVersion": version, "timeoutSeconds": "2"}
        with standin.watch("configmaps", **query) as events:
            for name in ("first", "second"):
                standin.make_config_map(name)
            standin.mute_watches(muted=False)
            names = [next(events)["object"]["metadata"]["name"] for _ in range(2)]
        assert names == ["first", "second"]

    def test_it_does_what_it_does_not_answer(self, standin: StandInUnderTest) -> None:
        standin.hold_answers()
        standin.cut_answers("delete")
        path = standin.path("jobs")
        body = json.dumps(make_job("held", SLEEP, job={"suspend": True})).encode()
        with pytest.raises(TimeoutError):
            call(standin, "POST", path, body=body, timeout=0.3)
        assert standin.find("jobs", "held") is not None
        assert call(standin, "POST", path, body=body)[0] == 409
        with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
            call(standin, "DELETE", f"{path}/held?propagationPolicy=Background")
        assert standin.find("jobs", "held") is None

    def test_it_is_too_busy_or_broken_for_so_many_calls(self, standin: StandInUnderTest) -> None:
        path = standin.path("jobs")
        standin.throttle(1, retry_after_s=7)
        code, headers = call(standin, "GET", path)
        assert (code, headers["Retry-After"]) == (429, "7")
        standin.fail_calls(2)
        assert [call(standin, "GET", path)[0] for _ in range(3)] == [500, 500, 200]

    def test_only_the_token_of_today_is_valid(self, standin: StandInUnderTest) -> None:
        path, old = standin.path("jobs"), standin.token
        standin.rotate_token()
        assert call(standin, "GET", path, token=old)[0] == 401
        assert call(standin, "GET", path)[0] == 200
        assert standin.token in standin.kubeconfig.read_text()

    def test_a_webhook_refuses_jobs_and_pods(self, standin: StandInUnderTest) -> None:
        standin.deny("jobs", "no team label")
        code, said = standin.call("POST", standin.path("jobs"), make_job("denied", SLEEP))
        assert (code, said["reason"]) == (403, "Forbidden")
        words = 'admission webhook "policy.example.org" denied the request: no team label'
        assert said["message"] == words
        standin.mend()
        standin.deny("jobs", "not so", code=400, reason="BadRequest")
        code, said = standin.call("POST", standin.path("jobs"), make_job("denied", SLEEP))
        assert (code, said["reason"]) == (400, "BadRequest")
        standin.mend()
        standin.deny("pods", "no team label")
        job = standin.run_job(SLEEP)
        standin.until(lambda: standin.events_of(job))
        event = standin.events_of(job)[0]
        assert (event["reason"], event["message"]) == ("FailedCreate", f"Error creating: {words}")
        standin.delete("jobs", job)

    def test_rights_are_enforced_and_told(self, standin: StandInUnderTest) -> None:
        standin.set_rights([("batch", "jobs", "list")])
        assert call(standin, "GET", standin.path("jobs"))[0] == 200
        assert call(standin, "GET", standin.path("pods"))[0] == 403
        for resource, verb, allowed in (("jobs", "list", True), ("jobs", "create", False)):
            spec = {"resourceAttributes": {"group": "batch", "resource": resource, "verb": verb}}
            review = standin.do(
                "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {"spec": spec}
            )
            assert review["status"]["allowed"] is allowed

    def test_each_call_of_a_client_is_written_down(self, standin: StandInUnderTest) -> None:
        standin.forget_calls()
        call(standin, "GET", standin.path("jobs"))
        call(standin, "GET", f"{standin.path('pods')}?watch=true&timeoutSeconds=0")
        call(standin, "GET", standin.path("pods", "none", "log"))
        words = ("verb", "group", "resource", "subresource", "status")
        found = {tuple(one.get(word) for word in words) for one in standin.calls()}
        assert found == {
            ("list", "batch", "jobs", "", 200),
            ("watch", "", "pods", "", 200),
            ("get", "", "pods", "log", 404),
        }
        assert standin.used_rights() == {
            ("batch", "jobs", "list"),
            ("", "pods", "watch"),
            ("", "pods/log", "get"),
        }
