"""What a cluster's words mean for a site: which are bad, and what there is to do."""

from __future__ import annotations

from typing import Any

import pytest

from muster.backends.kubernetes.names import RIGHTS
from muster.doctor.kubernetes_findings import (
    check_rights,
    check_version,
    explain_end,
    explain_wait,
    parse_warning,
)
from muster.doctor.kubernetes_objects import (
    Named,
    check_objects,
    describe_unseen,
    find_named_objects,
)
from muster.model.outcome import JobState, Observation

WAITS = Observation(JobState.WAITING)
FAILED = Observation(JobState.FAILED, 1, host="cpu-1", message="Error")


@pytest.mark.parametrize(
    ("version", "mark", "words"),
    [
        ("v1.29.9", "BAD", "expected: 1.30 or later"),
        ("v1.32.4-gke.1000", "ok", "backoffLimitPerIndex (stable from 1.33 on) and podReplacement"),
        ("v1.33.0", "ok", "; podReplacementPolicy (stable from 1.34 on) of its Jobs is beta there"),
        ("v1.36.1+k3s1", "ok", "Kubernetes v1.36.1+k3s1 here"),
    ],
)
def test_versions(version: str, mark: str, words: str) -> None:
    check = check_version("c", {"gitVersion": version}, " here")
    assert check.mark == mark
    assert words in check.finding
    assert ("beta" in check.finding) is (version < "v1.34" and mark == "ok")


def test_a_version_without_words_of_git() -> None:
    assert check_version("c", {"major": "1", "minor": "35+"}, "").mark == "ok"
    assert check_version("c", {}, "").mark == "BAD"


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (r'299 - "would violate PodSecurity \"restricted:latest\": x"',
         'would violate PodSecurity "restricted:latest": x'),
        ("odd", "odd"),
    ],
)  # fmt: skip
def test_warnings(header: str, words: str) -> None:
    assert parse_warning(header) == words


def test_rights() -> None:
    every = dict.fromkeys(RIGHTS, True)
    (check,) = check_rights("c", "jobs", None, every)
    assert (check.mark, check.finding[:12]) == ("ok", "this account")
    missing = {**every, ("", "pods", "watch"): False, ("", "pods/log", "get"): False}
    needed, log = check_rights("c", "jobs", "system:serviceaccount:a:b", missing)
    assert needed.mark == "BAD"
    assert needed.finding == (
        "system:serviceaccount:a:b may not watch pods; where: namespace jobs; do: add to its Role: "
        '{apiGroups: [""], resources: [pods], verbs: [watch]}'
    )
    assert log.mark == "warn"
    assert "may not get pods/log: a pod that ends before" in log.finding


SPEC: dict[str, Any] = {
    "serviceAccountName": "jobs",
    "imagePullSecrets": [{"name": "registry"}],
    "volumes": [
        {"name": "a", "persistentVolumeClaim": {"claimName": "work"}},
        {"name": "b", "projected": {"sources": [{"configMap": {"name": "site"}}]}},
        {"name": "c", "secret": {"secretName": "s3", "items": [{"key": "ca", "path": "ca"}]}},
        {"name": "d", "emptyDir": {}},
    ],
    "initContainers": [{"name": "i", "envFrom": [{"configMapRef": {"name": "first"}}]}],
    "containers": [
        {
            "env": [
                {"name": "A", "value": "x"},
                {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s3", "key": "token"}}},
                {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            ],
            "envFrom": [{"secretRef": {"name": "s3", "optional": True}}],
        }
    ],
}


def test_what_a_pod_names_is_found_once() -> None:
    assert find_named_objects(SPEC) == [
        Named("ServiceAccount", "jobs"),
        Named("Secret", "registry", pulls=True),
        Named("PersistentVolumeClaim", "work"),
        Named("ConfigMap", "site"),
        Named("Secret", "s3", ("ca", "token")),
        Named("ConfigMap", "first"),
    ]


def test_objects_that_are_not_as_they_should_be() -> None:
    claim = {"metadata": {}, "spec": {"accessModes": ["ReadWriteOnce"]}, "status": {}}
    found = {
        Named("Secret", "s3", ("ca", "token")): {"data": {"ca": "", "key": ""}},
        Named("Secret", "registry", pulls=True): None,
        Named("ConfigMap", "maybe", optional=True): None,
        Named("PersistentVolumeClaim", "work"): claim,
        Named("RuntimeClass", "nvidia"): {},
    }
    good, keys, pulls, alone = check_objects("p", found, "jobs", work_claim="work", slots=2)
    assert (good.mark, good.finding) == ("ok", "RuntimeClass nvidia is there")
    assert keys.mark == "BAD"
    assert keys.finding.startswith("Secret s3 lacks token; where: namespace jobs; got: ca, key; ")
    assert (pulls.mark, "images are pulled without it" in pulls.finding) == ("warn", True)
    assert (alone.mark, "got: ReadWriteOnce; " in alone.finding) == ("warn", True)
    (seen,) = check_objects(
        "p", {Named("PersistentVolumeClaim", "work"): claim}, "jobs", work_claim="work", slots=1
    )
    assert seen.mark == "ok"
    lost = {**claim, "status": {"phase": "Lost"}}
    (check,) = check_objects(
        "p", {Named("PersistentVolumeClaim", "w"): lost}, "jobs", work_claim=None, slots=1
    )
    assert check.mark == "BAD"


def test_what_may_not_be_looked_at_is_one_line() -> None:
    assert describe_unseen("p", []) == []
    (check,) = describe_unseen("p", [Named("Secret", "a"), Named("ConfigMap", "b")])
    assert check.mark == "ok"
    assert check.finding.startswith("may not look at Secret a, ConfigMap b (no right to get them)")


def pod(
    reason: str | None = None, message: str | None = None, *, scheduled: bool = True
) -> dict[str, Any]:
    status: dict[str, Any] = {"phase": "Pending"}
    if scheduled:
        waiting = {"reason": reason, "message": message}
        status["containerStatuses"] = [{"name": "muster", "state": {"waiting": waiting}}]
    else:
        condition = {"type": "PodScheduled", "status": "False", "reason": reason}
        status["conditions"] = [{**condition, "message": message}]
    return {
        "metadata": {"name": "p"}, "spec": {"nodeName": "cpu-1" if scheduled else None},
        "status": status,
    }  # fmt: skip


def event(reason: str, message: str, kind: str = "Normal", second: int = 0) -> dict[str, Any]:
    time = f"2026-01-01T00:00:{second:02}Z"
    metadata = {"name": reason.lower(), "creationTimestamp": time}
    return {"metadata": metadata, "reason": reason, "message": message, "type": kind,
            "lastTimestamp": time}  # fmt: skip


UNSCHEDULABLE = pod("Unschedulable", "0/3 nodes are available", scheduled=False)


@pytest.mark.parametrize(
    ("pod", "events", "words"),
    [
        (pod("ImagePullBackOff", "no such host"), [],
         "ImagePullBackOff: no such host, after 9 s; do: correct image"),
        (UNSCHEDULABLE, [], "0/3 nodes are available, after 9 s; do: wait for a node"),
        (UNSCHEDULABLE, [event("NotTriggerScaleUp", "pod didn't trigger scale-up")],
         "after 9 s (NotTriggerScaleUp: pod didn't trigger scale-up); do: wait for a node"),
        (UNSCHEDULABLE, [event("TriggeredScaleUp", "pod triggered scale-up: 0->1")],
         "(TriggeredScaleUp: pod triggered scale-up: 0->1); do: try again with --patience 900"),
        (pod("ContainerCreating"), [event("FailedMount", "no volume", "Warning", 1),
                                    event("Scheduled", "to cpu-1", second=2)],
         "where: cpu-1; got: FailedMount: no volume, after 9 s; do: see 'kubectl describe pod'"),
        (pod("ContainerCreating"), [event("Scheduled", "to cpu-1"),
                                    event("Pulling", "Pulling image", second=1)],
         "got: Pulling: Pulling image, after 9 s; do: an image of some size takes long"),
        (None, [event("FailedCreate", "exceeded quota: q", "Warning")],
         "FailedCreate: exceeded quota: q, after 9 s; do: wait for other work to end"),
        (None, [], "the Job did not start, and was deleted; got: it has no pod, after 9 s"),
    ],
)  # fmt: skip
def test_why_a_pod_waits(
    pod: dict[str, Any] | None, events: list[dict[str, Any]], words: str
) -> None:
    assert words in str(explain_wait(WAITS, pod, events, 9.0))


def test_a_job_that_a_queue_holds() -> None:
    look = Observation(JobState.WAITING, message="the Job is suspended")
    said = str(explain_wait(look, None, [], 9.0))
    assert "got: the Job is suspended, after 9 s; do: a queue has not let it start" in said


@pytest.mark.parametrize(
    ("look", "output", "words"),
    [
        (FAILED, "python: No module named muster\n",
         "the environment does not start on cpu-1; where: image i:1; got: python: No module named "
         "muster (failed, exit code 1)"),
        (Observation(JobState.REFUSED, message="exec: not found"), "",
         "got: exec: not found (refused)"),
        (FAILED, "muster: no such file; where: /w/batch.json\n",
         "the pod cannot use the work directory"),
        (Observation(JobState.COMPLETED, 0), "", "the pod ended well, and its result is not seen"),
        (Observation(JobState.OUT_OF_MEMORY, 137, message="OOMKilled"), "x\n",
         "the pod ended without a result; where: the node; got: out_of_memory, exit code 137; "),
    ],
)  # fmt: skip
def test_why_a_pod_left_no_result(look: Observation, output: str, words: str) -> None:
    assert words in str(explain_end(look, output, "i:1", "/w"))
