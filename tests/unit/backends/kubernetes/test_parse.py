"""Pods and Jobs as the API server shows them, and what they mean for an attempt."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from muster.backends.kubernetes.parse import (
    is_suspended,
    newest_pods,
    observe_index,
    parse_indexes,
    parse_pod,
)
from muster.errors import SoftwareError
from muster.jobs.supervision.decide_outcome import decide_outcome
from muster.model.outcome import JobState, Outcome

START, END = "2026-03-01T10:00:00Z", "2026-03-01T10:01:30Z"
GPU_LEFT = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
SPILLED = 'Usage of EmptyDir volume "scratch" exceeds the limit "10Gi". '
NODE_LOW = "The node was low on resource: memory. Container muster was using 9Gi, request is 8Gi."


def ended(code: int, reason: str = "Error", **more: Any) -> dict[str, Any]:
    said = {"exitCode": code, "reason": reason, "startedAt": START, "finishedAt": END, **more}
    return {"terminated": said}


def waiting(reason: str, message: str | None = None) -> dict[str, Any]:
    return {"waiting": {"reason": reason, **({"message": message} if message else {})}}


def condition(kind: str, reason: str, status: str = "True", message: str = "") -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def make_pod(
    phase: str,
    state: dict[str, Any] | None = None,
    *,
    index: int = 0,
    node: str | None = "n1",
    deleted: str | None = None,
    name: str = "muster-x-0-abcde",
    created: str = START,
    **status: Any,
) -> dict[str, Any]:
    containers = [{"name": "istio-proxy", "state": {"running": {}}}]
    if state is not None:
        containers.append({"name": "muster", "state": state})
    return {
        "metadata": {
            "name": name,
            "creationTimestamp": created,
            "annotations": {"batch.kubernetes.io/job-completion-index": str(index)},
            **({"deletionTimestamp": deleted} if deleted else {}),
        },
        "spec": {"nodeName": node} if node else {},
        "status": {"phase": phase, "containerStatuses": containers, **status},
    }


def make_job(*, suspend: bool = False, deleted: bool = False, **status: Any) -> dict[str, Any]:
    metadata = {"name": "muster-x", **({"deletionTimestamp": END} if deleted else {})}
    return {"metadata": metadata, "spec": {"suspend": suspend}, "status": status}


DRAINED = condition("DisruptionTarget", "EvictionByEvictionAPI", message="Eviction API: evicting")

ENDS: dict[str, tuple[dict[str, Any], Outcome]] = {
    "out of memory": (make_pod("Failed", ended(137, "OOMKilled")), Outcome.OUT_OF_MEMORY),
    "its deadline": (
        make_pod("Failed", ended(143), reason="DeadlineExceeded", message="was active"),
        Outcome.TIMED_OUT,
    ),
    "its deadline, before it ran": (
        make_pod("Failed", None, reason="DeadlineExceeded", node=None), Outcome.TIMED_OUT,
    ),
    "pressure on its node": (
        make_pod("Failed", ended(137), reason="Evicted", message=NODE_LOW), Outcome.NODE_FAILED,
    ),
    "pressure, with the condition": (
        make_pod(
            "Failed", ended(137), reason="Evicted", message=NODE_LOW,
            conditions=[condition("DisruptionTarget", "TerminationByKubelet", message=NODE_LOW)],
        ),
        Outcome.NODE_FAILED,
    ),
    "more scratch than it has": (
        make_pod("Failed", ended(137), reason="Evicted", message=SPILLED), Outcome.INVALID_INPUT,
    ),
    "a drained node": (
        make_pod("Failed", ended(143), conditions=[DRAINED], deleted=END), Outcome.PREEMPTED,
    ),
    "a drained node, out of memory at its end": (
        make_pod("Failed", ended(137, "OOMKilled"), conditions=[DRAINED]), Outcome.PREEMPTED,
    ),
    "a pod of higher priority": (
        make_pod(
            "Failed", ended(1), deleted=END,
            conditions=[condition("DisruptionTarget", "PreemptionByScheduler")],
        ),
        Outcome.PREEMPTED,
    ),
    "a taint": (
        make_pod(
            "Failed", ended(143), deleted=END,
            conditions=[condition("DisruptionTarget", "DeletionByTaintManager")],
        ),
        Outcome.NODE_FAILED,
    ),
    "its node's removal": (
        make_pod("Failed", None, conditions=[condition("DisruptionTarget", "DeletionByPodGC")]),
        Outcome.NODE_FAILED,
    ),
    "a reason of tomorrow": (
        make_pod("Failed", ended(1), conditions=[condition("DisruptionTarget", "BySomething")]),
        Outcome.PREEMPTED,
    ),
    "a critical pod": (
        make_pod("Failed", ended(143), reason="Preempting", message="critical"), Outcome.PREEMPTED,
    ),
    "its node's shutdown": (
        make_pod("Failed", ended(143), reason="Terminated", message="imminent node shutdown"),
        Outcome.NODE_FAILED,
    ),
    "a node without the GPU that it promised": (
        make_pod("Failed", None, reason="UnexpectedAdmissionError", message="Allocate failed"),
        Outcome.NODE_FAILED,
    ),
    "a node that is full": (make_pod("Failed", None, reason="OutOfcpu"), Outcome.NODE_FAILED),
    "a node that forgot it": (
        make_pod("Failed", ended(137, "ContainerStatusUnknown")), Outcome.NODE_FAILED,
    ),
    "no reason at all": (make_pod("Failed", None), Outcome.NODE_FAILED),
    "deletion": (make_pod("Failed", ended(143), deleted=END), Outcome.CANCELLED),
    "deletion, by force": (make_pod("Failed", ended(137), deleted=END), Outcome.CANCELLED),
    "wrong input": (make_pod("Failed", ended(os.EX_DATAERR)), Outcome.INVALID_INPUT),
    "wrong input, deleted later": (
        make_pod("Failed", ended(os.EX_DATAERR), deleted=END), Outcome.INVALID_INPUT,
    ),
    "input that is not there": (make_pod("Failed", ended(os.EX_NOINPUT)), Outcome.MISSING_INPUT),
    "something passing": (make_pod("Failed", ended(os.EX_TEMPFAIL)), Outcome.TRANSIENT),
    "an error of the code": (make_pod("Failed", ended(1)), Outcome.SOFTWARE_ERROR),
    "a crash": (make_pod("Failed", ended(139)), Outcome.SOFTWARE_ERROR),
    "a kill": (make_pod("Failed", ended(137)), Outcome.TRANSIENT),
    "a command that its image lacks": (
        make_pod("Failed", ended(128, "StartError", message='exec: "python": executable file not '
                                 "found in $PATH")),
        Outcome.INVALID_INPUT,
    ),
    "a GPU that does not start": (
        make_pod("Failed", ended(128, "StartError", message="nvidia-container-cli: no devices")),
        Outcome.NODE_FAILED,
    ),
    "what goes before it": (
        make_pod("Failed", waiting("PodInitializing"), initContainerStatuses=[
            {"name": "warm", "state": ended(3)}]),
        Outcome.SOFTWARE_ERROR,
    ),
    "well, without a result": (make_pod("Succeeded", ended(0, "Completed")), Outcome.LOST),
}  # fmt: skip


@pytest.mark.parametrize("why", ENDS)
def test_why_a_pod_ended(why: str) -> None:
    pod, outcome = ENDS[why]
    seen = parse_pod(pod).observation
    decided = decide_outcome(seen, None, cancelled_by_us=False, missing_for_s=60, grace_s=60)
    assert decided is outcome
    in_job = observe_index(make_job(failedIndexes="0"), 0, pod)
    assert in_job == seen
    assert seen.host == pod["spec"].get("nodeName")


def test_what_is_known_of_a_pod_that_ended() -> None:
    pod = parse_pod(make_pod("Failed", ended(137, "OOMKilled", message="a\nb"), index=7))
    assert (pod.name, pod.index, pod.reason) == ("muster-x-0-abcde", 7, "OOMKilled")
    seen = pod.observation
    assert (seen.state, seen.exit_code, seen.host) == (JobState.OUT_OF_MEMORY, 137, "n1")
    assert seen.started_at == datetime(2026, 3, 1, 10, tzinfo=UTC)
    assert seen.seconds == 90
    assert seen.message == "OOMKilled: a b"
    assert parse_pod(ENDS["more scratch than it has"][0]).told == f"Evicted: {SPILLED.strip()}"


@pytest.mark.parametrize(
    ("pod", "state", "told"),
    [
        (make_pod("Running", {"running": {"startedAt": START}}), JobState.RUNNING, None),
        (make_pod("Running", {"running": {"startedAt": START}}, deleted=END), JobState.RUNNING,
         None),
        (make_pod("Running", ended(143), deleted=END), JobState.RUNNING, None),
        (make_pod("Running", {"running": {}}, conditions=[DRAINED]), JobState.RUNNING, None),
        (make_pod("Pending", waiting("ContainerCreating")), JobState.WAITING, "ContainerCreating"),
        (make_pod("Pending", waiting("ImagePullBackOff", 'Back-off pulling image "x:1"')),
         JobState.WAITING, 'ImagePullBackOff: Back-off pulling image "x:1"'),
        (make_pod("Pending", None, node=None,
                  conditions=[condition("PodScheduled", "Unschedulable", "False", GPU_LEFT)]),
         JobState.WAITING, f"Unschedulable: {GPU_LEFT}"),
        (make_pod("Pending", waiting("PodInitializing"), initContainerStatuses=[
            {"name": "warm", "state": waiting("ErrImagePull", "no such image")}]),
         JobState.WAITING, "ErrImagePull: no such image"),
        (make_pod("Unknown", {"running": {}}, reason="NodeLost"), JobState.UNKNOWN, "NodeLost"),
        (make_pod("Running", ended(0, "Completed")), JobState.COMPLETED, None),
        (make_pod("Running", ended(70)), JobState.FAILED, "Error"),
    ],
)  # fmt: skip
def test_how_a_pod_is(pod: dict[str, Any], state: JobState, told: str | None) -> None:
    parsed = parse_pod(pod)
    assert (parsed.state, parsed.told) == (state, told)
    if state in (JobState.RUNNING, JobState.WAITING):
        assert parsed.exit_code is None
        assert parsed.observation.seconds is None


def test_a_pod_that_was_just_made_waits() -> None:
    bare = {"metadata": {"name": "p", "labels": {"batch.kubernetes.io/job-completion-index": "3"}}}
    pod = parse_pod(bare)
    assert (pod.state, pod.index, pod.host) == (JobState.WAITING, 3, None)


def test_what_is_no_pod_is_an_error_and_never_an_outcome() -> None:
    for wrong in ({}, {"metadata": {}}, make_pod("Failed", {"terminated": {"reason": "x"}}),
                  make_pod("Running", {"running": {"startedAt": "yesterday"}})):  # fmt: skip
        with pytest.raises(SoftwareError, match="cannot understand a pod"):
            parse_pod(wrong)


NO_POD: list[tuple[dict[str, Any] | None, JobState]] = [
    (make_job(), JobState.WAITING),
    (make_job(completedIndexes="0,2-4"), JobState.COMPLETED),
    (make_job(failedIndexes="0"), JobState.GONE),
    (make_job(failedIndexes="1"), JobState.WAITING),
    (make_job(suspend=True), JobState.WAITING),
    (make_job(conditions=[condition("Failed", "FailedIndexes")]), JobState.GONE),
    (make_job(conditions=[condition("Failed", "DeadlineExceeded")]), JobState.TIMED_OUT),
    (make_job(conditions=[condition("Complete", "CompletionsReached")]), JobState.GONE),
    (make_job(conditions=[condition("Failed", "x", status="False")]), JobState.WAITING),
    (None, JobState.GONE),
]


@pytest.mark.parametrize(("job", "state"), NO_POD)
def test_an_index_whose_pod_is_no_more(job: dict[str, Any] | None, state: JobState) -> None:
    assert observe_index(job, 0, None).state is state


def test_a_pod_that_ended_well_is_never_run_again() -> None:
    well = make_pod("Succeeded", ended(0, "Completed"), deleted=END, conditions=[DRAINED])
    for job in (make_job(), make_job(suspend=True), make_job(completedIndexes="0"), None):
        seen = observe_index(job, 0, well)
        assert (seen.state, seen.exit_code) == (JobState.COMPLETED, 0)
    older = make_pod("Failed", ended(143), deleted=END)
    assert observe_index(make_job(completedIndexes="0"), 0, older).state is JobState.COMPLETED


def test_a_suspended_job_waits_and_its_indexes_run_again() -> None:
    running = make_pod("Running", {"running": {"startedAt": START}})
    taken = make_pod("Failed", ended(143), deleted=END)
    suspended = make_job(suspend=True)
    assert is_suspended(suspended)
    assert observe_index(suspended, 0, running).state is JobState.WAITING
    assert observe_index(suspended, 0, taken).state is JobState.WAITING
    assert observe_index(suspended, 0, None).message == "the Job is suspended"
    resumed = make_job()
    assert observe_index(resumed, 0, taken).state is JobState.WAITING
    assert observe_index(resumed, 0, running).state is JobState.RUNNING
    over = make_job(suspend=True, conditions=[condition("Complete", "CompletionsReached")])
    assert not is_suspended(over)


def test_a_pod_that_was_deleted_is_cancelled_when_the_job_counts_it() -> None:
    deleted = make_pod("Failed", ended(143), deleted=END)
    assert observe_index(make_job(), 0, deleted).state is JobState.WAITING
    assert observe_index(make_job(failedIndexes="0"), 0, deleted).state is JobState.CANCELLED
    assert observe_index(make_job(deleted=True), 0, deleted).state is JobState.CANCELLED
    assert observe_index(None, 0, deleted).state is JobState.CANCELLED


def test_a_pod_that_outlives_its_grace_period_is_on_a_lost_node() -> None:
    pod = make_pod("Running", {"running": {"startedAt": START}}, deleted=END)
    at = datetime.fromisoformat(END)
    soon, late = at + timedelta(seconds=60), at + timedelta(seconds=150)
    assert observe_index(make_job(), 0, pod, soon).state is JobState.RUNNING
    seen = observe_index(make_job(), 0, pod, late)
    assert (seen.state, seen.host) == (JobState.NODE_FAILED, "n1")
    assert (
        seen.message == "NodeLost: node n1 does not answer: the pod was deleted, and does not end"
    )
    waits = make_pod("Pending", None, node=None, deleted=END)
    assert observe_index(make_job(), 0, waits, late).state is JobState.WAITING


def test_a_failed_index_whose_only_pod_seems_alive_has_lost_it() -> None:
    pod = make_pod("Running", {"running": {"startedAt": START}})
    assert observe_index(make_job(failedIndexes="0"), 0, pod).state is JobState.GONE


def test_of_several_pods_of_an_index_the_newest_counts() -> None:
    later = "2026-03-01T11:00:00Z"
    old = make_pod("Failed", ended(143), name="a", deleted=END)
    new = make_pod("Running", {"running": {}}, name="b", created=later)
    twin = make_pod("Failed", ended(143), name="c", created=later, deleted=later)
    other = make_pod("Pending", index=2, name="d")
    stray = make_pod("Running", name="e")
    del stray["metadata"]["annotations"]
    for pods in ([old, new, twin, other, stray], [stray, other, twin, new, old]):
        assert newest_pods(pods) == {0: new, 2: other}


def test_lists_of_indexes() -> None:
    assert parse_indexes("") == frozenset()
    assert parse_indexes("0,2-4,9") == {0, 2, 3, 4, 9}
    for wrong in ("a", "1,", "1-", "-1", "1 2"):
        with pytest.raises(SoftwareError, match="cannot understand a list of indexes"):
            parse_indexes(wrong)
