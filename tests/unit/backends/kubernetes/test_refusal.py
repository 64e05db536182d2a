"""What the API server says to a Job that it does not take, and why a pod does not start."""

from __future__ import annotations

from typing import Any

import pytest

from muster.backends.kubernetes.parse import PodState
from muster.backends.kubernetes.refusal import (
    classify_refusal,
    explain_refusal,
    find_failed_creation,
    find_failed_start,
    find_hindrance,
)
from muster.errors import InvalidInput, Transient
from muster.model.outcome import JobState
from tests.unit.backends.kubernetes.waves import make_batch

QUOTA = (
    'jobs.batch "muster-x" is forbidden: exceeded quota: gpu, requested: count/jobs.batch=1, used: '
    "count/jobs.batch=5, limited: count/jobs.batch=5"
)
RBAC = (
    'jobs.batch is forbidden: User "system:serviceaccount:a:b" cannot create resource "jobs" in '
    'API group "batch" in the namespace "ns"'
)
POD_QUOTA = (
    'Error creating: pods "muster-x-0-abcde" is forbidden: exceeded quota: gpu, requested: '
    "requests.nvidia.com/gpu=2, used: requests.nvidia.com/gpu=8, limited: requests.nvidia.com/gpu=8"
)

REFUSALS = [
    (409, "AlreadyExists", 'jobs.batch "muster-x" already exists', "exists", None),
    (409, "Conflict", "the object has been modified", "busy", None),
    (403, "Forbidden", QUOTA, "busy", None),
    (429, "TooManyRequests", "too many requests", "busy", None),
    (500, "InternalError", 'failed calling webhook "kueue": connection refused', "busy", None),
    (500, "InternalError", "etcdserver: leader changed", "unreachable", None),
    (503, "ServiceUnavailable", "apiserver is shutting down", "unreachable", None),
    (504, "Timeout", "request did not complete", "unreachable", None),
    (401, "Unauthorized", "Unauthorized", "unreachable", None),
    (403, "Forbidden", RBAC, "refused", "give the account the rights"),
    (403, "Forbidden", 'admission webhook "policy" denied the request: image not allowed',
     "refused", "correct the pool"),
    (403, "Forbidden", "failed quota: gpu: must specify limits.memory", "refused", "say memory"),
    (400, "BadRequest", 'strict decoding error: unknown field "spec.x"', "refused", "correct"),
    (404, "NotFound", 'namespaces "ns" not found', "refused", "make it, or correct namespace"),
    (413, "RequestEntityTooLarge", "limit is 3145728", "refused", "correct the pool"),
    (422, "Invalid", 'Job.batch "x" is invalid: spec.template', "refused", "correct the pool"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "reason", "message", "refusal", "do"), REFUSALS)
def test_an_answer_is_for_good_for_now_or_unknown(
    status: int, reason: str, message: str, refusal: str, do: str | None
) -> None:
    assert classify_refusal(status, reason, message) == refusal
    error = explain_refusal(status, reason, f"{message}\n", make_batch())
    assert f"{status} {reason}: {message}" in str(error)
    assert isinstance(error, InvalidInput if refusal == "refused" else Transient)
    if do is not None:
        assert "where: pool gke, batch 0123456789.traits.predict.SLA" in str(error)
        assert f"do: {do}" in str(error)


WAITS = [
    ("ImagePullBackOff", 'Back-off pulling image "x:1"', True, "correct image"),
    ("ErrImagePull", "not found", True, "pull_secrets"),
    ("InvalidImageName", "couldn't parse image reference", True, "correct image"),
    ("CreateContainerConfigError", 'secret "s3" not found', True, "make it in the namespace"),
    ("CreateContainerConfigError", "couldn't find key url in Secret ns/store", True, "store"),
    ("CreateContainerConfigError", "container has runAsNonRoot and image has non-numeric user",
     True, "say run_as_user"),
    ("Unschedulable", "0/2 nodes are available: 2 Insufficient nvidia.com/gpu.", False, "node_sel"),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "message", "lasting", "do"), WAITS)
def test_a_pod_that_does_not_start_says_why(
    reason: str, message: str, lasting: bool, do: str
) -> None:
    pod = PodState("p", 0, JobState.WAITING, reason, f"{message}\n")
    found = find_hindrance(pod)
    assert found is not None
    assert found.lasting is lasting
    assert do in found.do
    assert str(found) == f"{reason}: {message}; do: {found.do}"


def test_a_pod_that_only_starts_or_runs_is_not_hindered() -> None:
    for state, reason in (
        (JobState.WAITING, None),
        (JobState.WAITING, "ContainerCreating"),
        (JobState.WAITING, "PodInitializing"),
        (JobState.FAILED, "ErrImagePull"),
    ):
        assert find_hindrance(PodState("p", 0, state, reason)) is None


def event(message: str, at: str, reason: str = "FailedCreate") -> dict[str, Any]:
    metadata = {"creationTimestamp": "2026-03-01T00:00:00Z"}
    return {"metadata": metadata, "reason": reason, "message": message, "lastTimestamp": at}


def test_a_job_without_pods_says_why_by_its_newest_event() -> None:
    assert find_failed_creation([]) is None
    assert find_failed_creation([event("x", "1", "SuccessfulCreate")]) is None
    denied = 'Error creating: pods "x" is forbidden: violates PodSecurity "restricted:latest"'
    found = find_failed_creation([event(denied, "2026-03-01T00:00:01Z")])
    assert found is not None
    assert found.lasting
    assert "pod_template" in found.do
    found = find_failed_creation(
        [event(POD_QUOTA, "2026-03-01T00:00:05Z"), event(denied, "2026-03-01T00:00:01Z")]
    )
    assert found is not None
    assert not found.lasting
    assert found.message == POD_QUOTA
    limited = (
        'Pod "x" is invalid: spec.containers[0].resources.requests: Invalid value: "16": must be '
        "less than or equal to cpu limit of 500m"
    )
    found = find_failed_creation([event(limited, "2026-03-01T00:00:01Z")])
    assert found is not None
    assert "cpu_limit of the pool" in found.do
    account = 'error looking up service account ns/x: serviceaccount "x" not found'
    late = event(account, "2026-03-01T00:00:01Z") | {
        "series": {"lastObservedTime": "2026-03-01T00:00:09Z"}
    }
    found = find_failed_creation([event(POD_QUOTA, "2026-03-01T00:00:05Z"), late])
    assert found is not None
    assert "service_account" in found.do


MOUNT = 'MountVolume.SetUp failed for volume "claim-0" : mount failed: exit status 32'


def test_a_pod_that_its_node_does_not_start_says_why_by_its_newest_event() -> None:
    assert find_failed_start([]) is None
    assert find_failed_start([event("to n1", "1", "Scheduled")]) is None
    began = event("to n1", "2026-03-01T00:00:01Z", "Scheduled")
    failed = event(MOUNT, "2026-03-01T00:00:05Z", "FailedMount")
    found = find_failed_start([failed, began])
    assert found is not None
    assert (found.reason, found.message, found.lasting) == ("FailedMount", MOUNT, False)
    assert "see that the claim is bound" in found.do
    pulls = event('Pulling image "x:1"', "2026-03-01T00:00:05Z", "Pulling")
    assert find_failed_start([failed, pulls]) is None  # it was mounted since
    absent = 'MountVolume.SetUp failed for volume "ca" : secret "ca" not found'
    found = find_failed_start([event(absent, "2026-03-01T00:00:05Z", "FailedMount")])
    assert found is not None
    assert found.lasting
    assert "make it in the namespace" in found.do
