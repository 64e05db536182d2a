"""How a pod and an index of a Job are, from what the API server shows of them.

Why a pod ended is said in three places, and they are read in this order: a condition tells who took
the pod away, its status what the node did with it, and its container how the process ended.  The
last alone would blame the code for a node that was drained.
"""

from __future__ import annotations

import os
import re
import signal as signals
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from muster.backends.kubernetes.names import INDEX_ANNOTATION
from muster.errors import SoftwareError, one_line
from muster.model.kubernetes_words import CONTAINER
from muster.model.outcome import ALIVE, JobState, Observation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Judgement = tuple[JobState, str | None, str | None]
"""State, reason and message of a pod."""

UNANSWERED_S = 120.0
"""So long after its grace period a pod may still be seen, in seconds: then its node is lost."""
LONGEST_MESSAGE = 1000

_DISRUPTIONS = {
    "PreemptionByScheduler": JobState.PREEMPTED,
    "EvictionByEvictionAPI": JobState.PREEMPTED,
    "DeletionByTaintManager": JobState.NODE_FAILED,
    "DeletionByPodGC": JobState.NODE_FAILED,
    "TerminationByKubelet": JobState.NODE_FAILED,
}
"""Reasons of the condition DisruptionTarget; others are taken for a preemption."""

_OF_NODE = re.compile(
    r"NodeLost|NodeShutdown|Shutdown|Terminated|NodeAffinity|NodeSelectorMismatching|NodePorts"
    r"|UnexpectedAdmissionError|TopologyAffinityError|OutOf.+|Unexpected.+|.+AdmissionError"
)
"""A pod's reasons by which a node says that it could not run it, or could not go on."""

_OWN_EVICTION = re.compile(
    r"Usage of EmptyDir volume|exceeded its local ephemeral storage limit"
    r"|local ephemeral storage usage exceeds"
)
"""An eviction of a pod that wrote more than it may: any node would do the same."""

_NO_START = frozenset({"StartError", "ContainerCannotRun", "RunContainerError"})
_WRONG_COMMAND = re.compile(r"executable file not found|no such file or directory|permission den")
_TOLD_TO_STOP = frozenset({128 + signals.SIGTERM, 128 + signals.SIGKILL})


@dataclass(frozen=True)
class PodState:
    """How a pod is.

    Attributes
    ----------
    name : str
        Its name.
    index : int or None
        Of the Job's indexes, the one that it runs.
    state : JobState
        In no scheduler's own words.
    reason, message : str or None
        Why it waits or how it ended, in Kubernetes' word for it, and its sentence.
    exit_code, signal : int or None
        How its process ended, where it has.
    host : str or None
        Its node.
    created_at, started_at, ended_at : datetime or None
        When it was made, and when its process began and ended.
    deleted_at : datetime or None
        When its grace period ends, where it was deleted.
    """

    name: str
    index: int | None
    state: JobState
    reason: str | None = None
    message: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    host: str | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    deleted_at: datetime | None = None

    @property
    def told(self) -> str | None:
        """Reason and message in one line; None where there is neither."""
        words = [one_line(text) for text in (self.reason, self.message) if text]
        return ": ".join(dict.fromkeys(words))[:LONGEST_MESSAGE] or None

    @property
    def observation(self) -> Observation:
        """The same as all backends say it."""
        seconds = None
        if self.started_at is not None and self.ended_at is not None:
            seconds = max(0.0, (self.ended_at - self.started_at).total_seconds())
        return Observation(
            self.state,
            exit_code=self.exit_code,
            signal=self.signal,
            host=self.host,
            started_at=self.started_at,
            seconds=seconds,
            message=self.told,
        )


def parse_pod(pod: Mapping[str, Any]) -> PodState:
    """Parse a pod as the API server has it.

    Raises
    ------
    SoftwareError
        When it is not as a pod should be.
    """
    try:
        return _parse_pod(pod)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SoftwareError("cannot understand a pod", got=f"{error!r}: {pod!r}"[:500]) from error


def observe_index(
    job: Mapping[str, Any] | None,
    index: int,
    pod: Mapping[str, Any] | None,
    now: datetime | None = None,
) -> Observation:
    """Say how an index of a Job is.

    Parameters
    ----------
    job : mapping or None
        The Job, as the API server has it; None where there is none any more.
    index : int
        Which.
    pod : mapping or None
        The newest pod of the index; None where there is none any more, or none yet.
    now : datetime or None
        The present, by default this machine's: a pod that outlives its grace period for long is on
        a node that is lost.

    Raises
    ------
    SoftwareError
        When Job or pod are not as they should be.
    """
    found = None if pod is None else parse_pod(pod)
    if found is not None and _is_unanswered(found, now or datetime.now(UTC)):
        found = _lost(found)
    if job is None:
        gone = Observation(JobState.GONE, message="its Job is no more")
        return gone if found is None else found.observation
    status = job.get("status") or {}
    if index in parse_indexes(status.get("completedIndexes") or ""):
        ended = found is not None and found.state is JobState.COMPLETED
        return found.observation if found and ended else Observation(JobState.COMPLETED, 0)
    has_failed = index in parse_indexes(status.get("failedIndexes") or "")
    if found is None or (has_failed and found.state in ALIVE):  # of an older pod, which has gone
        return _observe_without_pod(job, has_failed=has_failed)
    if found.state is JobState.COMPLETED or has_failed:
        return found.observation
    if is_suspended(job):
        return _waiting(job)
    is_over = is_ended(job) or job["metadata"].get("deletionTimestamp") is not None
    if found.state is JobState.CANCELLED and not is_over:
        return Observation(JobState.WAITING, message="its pod was taken away; another one follows")
    return found.observation


def newest_pods(pods: Iterable[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Return the newest pod of each index: after a Job was suspended there may be several."""
    newest: dict[int, dict[str, Any]] = {}
    for pod in pods:
        index = _index_of(pod)
        if index is None:
            continue
        known = newest.get(index)
        if known is None or _age_of(pod) > _age_of(known):
            newest[index] = pod
    return newest


@lru_cache(maxsize=256)
def parse_indexes(text: str) -> frozenset[int]:
    """Parse a list of indexes as a Job's status has it: ``1,3-5``.

    Raises
    ------
    SoftwareError
        When it is none.
    """
    found: set[int] = set()
    for part in text.split(",") if text else ():
        match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", part)
        if match is None:
            raise SoftwareError("cannot understand a list of indexes", got=repr(text)[:500])
        first = int(match[1])
        found.update(range(first, int(match[2] or first) + 1))
    return frozenset(found)


def is_suspended(job: Mapping[str, Any]) -> bool:
    """Tell whether a Job waits for somebody to let it go on: a queue, or a person."""
    return bool((job.get("spec") or {}).get("suspend")) and not is_ended(job)


def is_ended(job: Mapping[str, Any]) -> bool:
    """Tell whether a Job has ended, well or not."""
    return _condition(job.get("status") or {}, "Complete", "Failed") is not None


def _observe_without_pod(job: Mapping[str, Any], *, has_failed: bool) -> Observation:
    """Say how an index is of which no pod is left to ask why."""
    failed = _condition(job.get("status") or {}, "Failed")
    if has_failed:
        return Observation(JobState.GONE, message="its pod has failed, and is no more")
    if failed is not None:
        state = JobState.TIMED_OUT if failed.get("reason") == "DeadlineExceeded" else JobState.GONE
        return Observation(state, message=_sentence(failed))
    if is_ended(job):
        return Observation(JobState.GONE, message="the Job has ended without it")
    return _waiting(job)


def _waiting(job: Mapping[str, Any]) -> Observation:
    message = "the Job is suspended" if is_suspended(job) else None
    return Observation(JobState.WAITING, message=message)


def _lost(pod: PodState) -> PodState:
    return replace(
        pod,
        state=JobState.NODE_FAILED,
        reason="NodeLost",
        message=f"node {pod.host} does not answer: the pod was deleted, and does not end",
    )


def _is_unanswered(pod: PodState, now: datetime) -> bool:
    if pod.state not in ALIVE or pod.deleted_at is None or pod.host is None:
        return False
    return now - pod.deleted_at > timedelta(seconds=UNANSWERED_S)


def _parse_pod(pod: Mapping[str, Any]) -> PodState:
    metadata, status = pod["metadata"], pod.get("status") or {}
    container = _container(status)
    current = container.get("state") or {}
    ended = current.get("terminated")
    began = ended or current.get("running") or {}
    state, reason, message = _judge(pod, status, current)
    alive = state in ALIVE or ended is None
    exit_code = None if alive or ended is None else int(ended["exitCode"])
    if state is JobState.FAILED and reason == "Evicted":
        exit_code = os.EX_DATAERR  # no retry would help, whatever its process ended with
    return PodState(
        name=str(metadata["name"]),
        index=_index_of(pod),
        state=state,
        reason=reason,
        message=message,
        exit_code=exit_code,
        signal=None if exit_code is None or not ended else int(ended.get("signal") or 0) or None,
        host=(pod.get("spec") or {}).get("nodeName"),
        created_at=_time(metadata.get("creationTimestamp")),
        started_at=_time(began.get("startedAt")),
        ended_at=None if alive or ended is None else _time(ended.get("finishedAt")),
        deleted_at=_time(metadata.get("deletionTimestamp")),
    )


def _judge(
    pod: Mapping[str, Any], status: Mapping[str, Any], current: Mapping[str, Any]
) -> Judgement:
    """Say how a pod is, and why."""
    phase = status.get("phase") or "Pending"
    ended = current.get("terminated")
    deleted = pod["metadata"].get("deletionTimestamp") is not None
    if phase == "Succeeded":
        return JobState.COMPLETED, None, None
    if phase == "Failed":
        return _judge_failed(status, ended, deleted=deleted)
    if phase == "Unknown":
        return JobState.UNKNOWN, status.get("reason"), status.get("message")
    if ended is not None and (ended["exitCode"] == 0 or not deleted):
        return _judge_failed(status, ended, deleted=False)
    if "running" in current or ended is not None:
        return JobState.RUNNING, None, None
    return JobState.WAITING, *_why_waiting(status, current)


def _judge_failed(
    status: Mapping[str, Any], ended: Mapping[str, Any] | None, *, deleted: bool
) -> Judgement:
    """Say why a pod ended: by who took it away, by its node's word, by its process's end."""
    disruption = _condition(status, "DisruptionTarget")
    reason, message = status.get("reason"), status.get("message")
    if disruption is not None:
        named = disruption.get("reason") or "DisruptionTarget"
        state = _DISRUPTIONS.get(named, JobState.PREEMPTED)
        return state, named, disruption.get("message") or message
    if reason == "DeadlineExceeded":
        return JobState.TIMED_OUT, reason, message
    if reason == "Evicted":
        own = _OWN_EVICTION.search(message or "") is not None
        return JobState.FAILED if own else JobState.NODE_FAILED, reason, message
    if reason in ("Preempting", "Preempted"):
        return JobState.PREEMPTED, reason, message
    if _OF_NODE.fullmatch(reason or ""):
        return JobState.NODE_FAILED, reason, message
    if ended is None:
        return _judge_unbegun(status)
    return _judge_process(ended, deleted=deleted)


def _judge_unbegun(status: Mapping[str, Any]) -> Judgement:
    """Say why a pod failed whose container never began."""
    for container in status.get("initContainerStatuses") or ():
        ended = (container.get("state") or {}).get("terminated") or {}
        if ended.get("exitCode"):
            told = f"{container.get('name')} ended with exit code {ended['exitCode']}"
            return JobState.FAILED, "InitContainerFailed", ended.get("message") or told
    return JobState.NODE_FAILED, status.get("reason"), status.get("message")


def _judge_process(ended: Mapping[str, Any], *, deleted: bool) -> Judgement:
    reason, message, code = ended.get("reason"), ended.get("message"), int(ended["exitCode"])
    if reason == "OOMKilled":
        return JobState.OUT_OF_MEMORY, reason, message
    if reason == "ContainerStatusUnknown":
        return JobState.NODE_FAILED, reason, message
    if reason in _NO_START:
        wrong = _WRONG_COMMAND.search(message or "") is not None
        return JobState.REFUSED if wrong else JobState.NODE_FAILED, reason, message
    if code == 0:
        return JobState.COMPLETED, None, None
    if deleted and code in _TOLD_TO_STOP:
        return JobState.CANCELLED, "Deleted", "the pod was deleted"
    return JobState.FAILED, reason, message


def _why_waiting(
    status: Mapping[str, Any], current: Mapping[str, Any]
) -> tuple[str | None, str | None]:
    """Say why a pod does not run yet."""
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return condition.get("reason"), condition.get("message")
    for container in status.get("initContainerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "PodInitializing"):
            return waiting["reason"], waiting.get("message")
    waiting = current.get("waiting") or {}
    return waiting.get("reason"), waiting.get("message")


def _container(status: Mapping[str, Any]) -> Mapping[str, Any]:
    named: Iterable[Mapping[str, Any]] = status.get("containerStatuses") or ()
    return next((one for one in named if one.get("name") == CONTAINER), {})


def _condition(status: Mapping[str, Any], *kinds: str) -> Mapping[str, Any] | None:
    """Return the first condition of one of these types that is true; None where none is."""
    conditions: Iterable[Mapping[str, Any]] = status.get("conditions") or ()
    return next(
        (one for one in conditions if one.get("type") in kinds and one.get("status") == "True"),
        None,
    )


def _sentence(condition: Mapping[str, Any]) -> str | None:
    words = [one_line(str(condition[key])) for key in ("reason", "message") if condition.get(key)]
    return ": ".join(words)[:LONGEST_MESSAGE] or None


def _index_of(pod: Mapping[str, Any]) -> int | None:
    metadata = pod["metadata"]
    for said in (metadata.get("annotations"), metadata.get("labels")):
        index = (said or {}).get(INDEX_ANNOTATION)
        if index is not None and str(index).isdecimal():
            return int(index)
    return None


def _age_of(pod: Mapping[str, Any]) -> tuple[str, bool, str]:
    """Order pods by their age; times in whole seconds may be equal."""
    metadata = pod["metadata"]
    alive = metadata.get("deletionTimestamp") is None
    return str(metadata.get("creationTimestamp") or ""), alive, str(metadata["name"])


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
