"""That the API of the cluster under test lists, watches and refuses as Kubernetes documents it.

The pages are Reference / API concepts (lists, pages, watches, bookmarks, 410 Gone, validation of
fields) and Reference / Common definitions / Status.
"""

from __future__ import annotations

import urllib.parse
from typing import TYPE_CHECKING, Any

import pytest

from tests.kubernetes_cluster.quantities import parse_quantity
from tests.kubernetes_cluster.schema import check_fields
from tests.kubernetes_fixtures import StandInUnderTest
from tests.kubernetes_under_test import make_job

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kubernetes_under_test import KubernetesUnderTest

SLEEP = ["sleep", "600"]


@pytest.fixture
def standin(kubernetes: KubernetesUnderTest) -> Iterator[StandInUnderTest]:
    """The stand-in with an empty namespace: this asks what it does behind its API."""
    if not isinstance(kubernetes, StandInUnderTest):
        pytest.skip("a real cluster is not tested, it is used")
    with kubernetes.own_namespace() as standin:
        yield standin


def suspended(standin: StandInUnderTest, name: str, **labels: str) -> dict[str, Any]:
    """Create a Job that makes no pods."""
    job = make_job(name, SLEEP, job={"suspend": True}, labels={"suite": "api", **labels})
    return standin.create("jobs", job)


class TestObjects:
    def test_a_name_is_given_once(self, standin: StandInUnderTest) -> None:
        made = suspended(standin, "twice")
        assert made["metadata"]["uid"]
        labels = made["spec"]["template"]["metadata"]["labels"]
        assert labels["batch.kubernetes.io/job-name"] == "twice"
        assert made["spec"]["backoffLimit"] == 2**31 - 1
        code, said = standin.call("POST", standin.path("jobs"), make_job("twice", SLEEP))
        assert (code, said["kind"], said["reason"]) == (409, "Status", "AlreadyExists")
        assert said["message"] == 'jobs.batch "twice" already exists'
        assert said["details"] == {"name": "twice", "group": "batch", "kind": "jobs"}

    def test_what_is_not_there_is_not_found(self, standin: StandInUnderTest) -> None:
        code, said = standin.call("GET", standin.path("jobs", "nowhere"))
        assert (code, said["reason"], said["code"]) == (404, "NotFound", 404)
        assert said["message"] == 'jobs.batch "nowhere" not found'
        code, said = standin.call("DELETE", standin.path("pods", "nowhere"))
        assert (code, said["message"]) == (404, 'pods "nowhere" not found')
        path = "/apis/batch/v1/namespaces/nowhere/jobs"
        code, said = standin.call("POST", path, make_job("x", SLEEP))
        assert (code, said["message"]) == (404, 'namespaces "nowhere" not found')

    @pytest.mark.parametrize(
        ("name", "words", "code", "said"),
        [
            ("a", {"job": {"noSuch": 1}}, 400, 'decoding error: unknown field "spec.noSuch"'),
            (
                "a",
                {"container": {"resource": {}}},
                400,
                'unknown field "spec.template.spec.containers[0].resource"',
            ),
            (
                "a",
                {"container": {"name": None}},
                422,
                "spec.template.spec.containers[0].name: Required value",
            ),
            ("a", {"job": {"completions": "3"}}, 400, "json: cannot unmarshal string into"),
            ("a", {"job": {"completions": None}}, 422, "spec.completions: Required value"),
            ("A_b", {}, 422, 'metadata.name: Invalid value: "A_b": a lowercase RFC 1123'),
            ("a" * 60, {"completions": 5000}, 422, "will not able to create pod with invalid DNS"),
            ("a", {"labels": {"k": "a b"}}, 422, 'metadata.labels: Invalid value: "a b"'),
            ("a", {"labels": {"k": "x" * 64}}, 422, "metadata.labels: Invalid value"),
            ("a", {"pod": {"restartPolicy": "Always"}}, 422, "restartPolicy: Required value"),
            (
                "a",
                {"container": {"resources": {"limits": {"memory": "1 GiB"}}}},
                422,
                "quantities must match",
            ),
            (
                "a",
                {"container": {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}},
                422,
                'Not found: "v"',
            ),
            ("a", {"pod": {"activeDeadlineSeconds": 0}}, 422, "activeDeadlineSeconds: Invalid"),
        ],
    )
    def test_a_wrong_job_is_refused_by_field(
        self, standin: StandInUnderTest, name: str, words: dict[str, Any], code: int, said: str
    ) -> None:
        completions = words.pop("completions", 1)
        job = make_job(name, SLEEP, completions, **words)
        answered, answer = standin.call("POST", standin.path("jobs"), job)
        assert (answered, answer["status"]) == (code, "Failure")
        assert answer["reason"] == {400: "BadRequest", 422: "Invalid"}[code]
        assert said in answer["message"]
        if code == 422:
            assert answer["details"]["causes"][0]["field"] in answer["message"]

    def test_what_cannot_change_stays(self, standin: StandInUnderTest) -> None:
        suspended(standin, "fixed")
        path = standin.path("jobs", "fixed")
        code, said = standin.call("PATCH", path, {"spec": {"completions": 5}})
        assert (code, said["reason"]) == (422, "Invalid")
        assert "field is immutable" in said["message"]
        changed = standin.do("PATCH", path, {"metadata": {"labels": {"suite": None, "a": "b"}}})
        assert "suite" not in changed["metadata"]["labels"]

    @pytest.mark.parametrize(
        ("spec", "said"),
        [
            ({"priorityClassName": "nowhere"}, "no PriorityClass with name nowhere was found"),
            ({"runtimeClassName": "nowhere"}, 'RuntimeClass "nowhere" not found'),
            ({"serviceAccountName": "nowhere"}, 'serviceaccount "nowhere" not found'),
        ],
    )
    def test_a_pod_of_unknown_classes_is_forbidden(
        self, standin: StandInUnderTest, spec: dict[str, Any], said: str
    ) -> None:
        template = make_job("x", SLEEP, pod=spec)["spec"]["template"]
        code, answer = standin.call(
            "POST", standin.path("pods"), {"metadata": {"name": "alone"}, **template}
        )
        assert (code, answer["reason"]) == (403, "Forbidden")
        assert said in answer["message"]

    @pytest.mark.parametrize(
        ("method", "path", "code"),
        [
            ("GET", "/api/v1/namespaces/default/services", 404),
            ("GET", "/apis/batch/v2/namespaces/default/jobs", 404),
            ("DELETE", "/apis/batch/v1/namespaces/default/jobs", 405),
            ("PUT", "/apis/batch/v1/namespaces/default/jobs/a", 405),
            ("GET", "/api/v1/namespaces/default/pods?resourceVersionMatch=Exact", 501),
            ("POST", "/apis/batch/v1/namespaces/default/jobs", 501),
        ],
    )
    def test_what_is_not_known_is_refused_and_noted(
        self, standin: StandInUnderTest, method: str, path: str, code: int
    ) -> None:
        policy = {"podFailurePolicy": {"rules": []}}
        body = make_job("a", SLEEP, job=policy) if method == "POST" else None
        assert standin.call(method, path, body)[0] == code
        noted = standin.take_refused()
        assert [(one["method"], one["status"]) for one in noted] == [(method, code)]
        assert standin.take_refused() == []

    def test_what_the_server_makes_is_valid_too(self, standin: StandInUnderTest) -> None:
        job = standin.run_job(["false"])
        standin.job_ended(job)
        pod = standin.pods_of(job)[0]["metadata"]["name"]
        found = [standin.find("jobs", job), standin.find("pods", pod)]
        events = standin.events_of(pod)
        found += [standin.find("events", event["metadata"]["name"]) for event in events]
        found.append(standin.do("GET", "/api/v1/nodes/gpu-1"))
        assert {"Scheduled", "Started"} <= {event["reason"] for event in events}
        for item in found:
            problems = check_fields(item, item["kind"], item["apiVersion"])
            assert problems == [], item["kind"]

    def test_a_namespace_goes_with_all_that_is_in_it(self, standin: StandInUnderTest) -> None:
        """Concepts / Namespaces: what is in it is removed first, and nothing new is let in."""
        with standin.own_namespace() as doomed:
            doomed.running_pod(doomed.run_job(["sleep", "600"]))
        path = f"/api/v1/namespaces/{doomed.namespace}"
        code, said = doomed.call("POST", doomed.path("jobs"), make_job("late", SLEEP))
        assert code == 404 or "because it is being terminated" in said["message"]
        standin.until(lambda: standin.call("GET", path)[0] == 404)
        assert doomed.list("pods") == doomed.list("events") == []


class TestLists:
    def test_selectors_choose_by_labels_and_fields(self, standin: StandInUnderTest) -> None:
        """Concepts / Labels and selectors; Field selectors."""
        for name, tier in (("one", "a"), ("two", "b")):
            suspended(standin, name, tier=tier)
        suspended(standin, "three")
        for selector, names in {
            "tier": {"one", "two"},
            "!tier": {"three"},
            "tier=a": {"one"},
            "tier==a,suite=api": {"one"},
            "tier!=a": {"two", "three"},
            "tier in (a, c)": {"one"},
            "tier notin (a)": {"two", "three"},
            "suite=api,tier=none": set(),
        }.items():
            query = urllib.parse.quote(selector)
            found = standin.list("jobs", f"?labelSelector={query}")
            assert {job["metadata"]["name"] for job in found} == names, selector
        found = standin.list("jobs", "?fieldSelector=metadata.name%3Dtwo")
        assert [job["metadata"]["name"] for job in found] == ["two"]
        code, said = standin.call("GET", f"{standin.path('jobs')}?fieldSelector=spec.suspend=true")
        assert (code, "field label not supported: spec.suspend" in said["message"]) == (400, True)

    def test_the_objects_of_a_list_do_not_say_their_kind(self, standin: StandInUnderTest) -> None:
        suspended(standin, "bare")
        answer = standin.do("GET", standin.path("jobs"))
        assert (answer["kind"], answer["apiVersion"]) == ("JobList", "batch/v1")
        assert not {"kind", "apiVersion"} & set(answer["items"][0])

    def test_pages_are_of_one_moment_and_expire(self, standin: StandInUnderTest) -> None:
        for name in ("a", "b", "c"):
            suspended(standin, name)
        path = standin.path("jobs")
        first = standin.do("GET", f"{path}?limit=2")
        assert [job["metadata"]["name"] for job in first["items"]] == ["a", "b"]
        assert first["metadata"]["remainingItemCount"] == 1
        standin.delete("jobs", "c")
        rest = f"{path}?limit=2&continue={first['metadata']['continue']}"
        second = standin.do("GET", rest)
        assert [job["metadata"]["name"] for job in second["items"]] == ["c"]
        assert second["metadata"] == {"resourceVersion": first["metadata"]["resourceVersion"]}
        standin.expire_history()
        code, said = standin.call("GET", rest)
        assert (code, said["reason"]) == (410, "Expired")


class TestWatches:
    def test_a_watch_goes_on_from_a_list(self, standin: StandInUnderTest) -> None:
        version = standin.do("GET", standin.path("jobs"))["metadata"]["resourceVersion"]
        with standin.watch("jobs", resourceVersion=version) as events:
            suspended(standin, "seen")
            event = next(events)
            assert (event["type"], event["object"]["kind"]) == ("ADDED", "Job")
            assert int(event["object"]["metadata"]["resourceVersion"]) > int(version)
            event = next(events)
            assert event["type"] == "MODIFIED"
            assert event["object"]["status"]["conditions"][0]["type"] == "Suspended"
            standin.delete("jobs", "seen")
            assert next(events)["type"] == "DELETED"

    def test_a_watch_from_nowhere_begins_with_all(self, standin: StandInUnderTest) -> None:
        suspended(standin, "old")
        with standin.watch("jobs", timeoutSeconds="5") as events:
            assert next(events)["object"]["metadata"]["name"] == "old"

    def test_what_comes_to_fit_a_selector_is_added_and_what_no_longer_does_deleted(
        self, standin: StandInUnderTest
    ) -> None:
        version = standin.do("GET", standin.path("jobs"))["metadata"]["resourceVersion"]
        suspended(standin, "other")
        query = {"resourceVersion": version, "labelSelector": "tier%3Da"}
        with standin.watch("jobs", **query) as events:
            for tier in ("a", None):
                body = {"metadata": {"labels": {"tier": tier}}}
                standin.do("PATCH", standin.path("jobs", "other"), body)
            assert [next(events)["type"] for _ in range(2)] == ["ADDED", "DELETED"]

    def test_a_watch_ends_at_its_time_after_a_bookmark(self, standin: StandInUnderTest) -> None:
        version = standin.do("GET", standin.path("jobs"))["metadata"]["resourceVersion"]
        standin.make_config_map("moves-the-version")
        query = {"resourceVersion": version, "timeoutSeconds": "1", "allowWatchBookmarks": "true"}
        with standin.watch("jobs", **query) as events:
            seen = list(events)
        assert [event["type"] for event in seen] == ["BOOKMARK"]
        assert int(seen[0]["object"]["metadata"]["resourceVersion"]) > int(version)
        with standin.watch("jobs", resourceVersion=version, timeoutSeconds="1") as events:
            assert list(events) == []

    def test_a_watch_that_begins_too_early_says_gone(self, standin: StandInUnderTest) -> None:
        version = standin.do("GET", standin.path("jobs"))["metadata"]["resourceVersion"]
        suspended(standin, "later")
        standin.expire_history()
        with standin.watch("jobs", resourceVersion=version) as events:
            (event,) = list(events)
        assert event["type"] == "ERROR"
        assert (event["object"]["code"], event["object"]["reason"]) == (410, "Expired")
        assert "too old resource version" in event["object"]["message"]


class TestLogs:
    def test_a_log_is_followed_to_its_end(self, standin: StandInUnderTest) -> None:
        """Reference / Pod / read log: follow, tailLines, limitBytes, timestamps, sinceTime."""
        text = "for i in 1 2 3; do echo line $i; sleep 0.1; done"
        job = standin.run_job(["/bin/sh", "-c", text])
        path = standin.path("pods", standin.running_pod(job), "log")
        whole = standin.do("GET", f"{path}?follow=true")
        assert whole == "line 1\nline 2\nline 3\n"
        assert standin.do("GET", f"{path}?tailLines=1") == "line 3\n"
        assert standin.do("GET", f"{path}?limitBytes=9") == "line 1\nli"
        stamped = standin.do("GET", f"{path}?timestamps=true").splitlines()
        moment, _, line = stamped[1].partition(" ")
        assert line == "line 2"
        since = standin.do("GET", f"{path}?sinceTime={moment[:26]}Z")
        assert since == "line 2\nline 3\n"
        code, said = standin.call("GET", f"{path}?container=other")
        assert (code, "is not valid for pod" in said["message"]) == (400, True)
        standin.delete("jobs", job)


def test_amounts_are_read_as_kubernetes_writes_them() -> None:
    """Reference / Common definitions / Quantity."""
    assert [parse_quantity(text) for text in ("500m", "2", "1Ki", "1.5Gi", "2k")] == [
        *(0.5, 2.0, 1024.0),
        *(1.5 * 2**30, 2000.0),
    ]
    with pytest.raises(ValueError, match="GiB"):
        parse_quantity("1GiB")
