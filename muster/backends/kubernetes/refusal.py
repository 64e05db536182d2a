"""Why the API server took no Job, and why a pod that it took does not start.

They ask for different things.  What was refused for good fails the wave; what was refused for now
is submitted again later; and where the answer may be lost, the Job may be there, and is looked up
by its key.  A pod that waits for what time alone does not bring, such as an image that is not
there, is given up after a while; one that waits for a node or for a quota waits on, and says so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from muster.errors import InvalidInput, MusterError, Transient, one_line
from muster.model.outcome import JobState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from muster.backends.kubernetes.parse import PodState
    from muster.model.batch import Batch

Refusal = Literal["exists", "refused", "busy", "unreachable"]

_QUOTA = re.compile(r"exceeded quota")
_WEBHOOK_AWAY = re.compile(r"failed calling webhook")
_IMAGE = frozenset(
    {
        "ErrImageNeverPull", "ErrImagePull", "ImageInspectError", "ImagePullBackOff",
        "InvalidImageName", "RegistryUnavailable", "SignatureValidationFailed",
    }
)  # fmt: skip
_START = frozenset(
    {
        "FailedAttachVolume", "FailedCreatePodContainer", "FailedCreatePodSandBox",
        "FailedMapVolume", "FailedMount", "NetworkNotReady",
    }
)  # fmt: skip
"""Events of a pod that its node has taken, and cannot start now."""
_ABSENT = re.compile(r"(secret|configmap) \S+ not found|references non-existent", re.IGNORECASE)
_CONTAINER = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})

_DO = (
    (re.compile(r"cannot \w+ resource"),
     "give the account the rights that docs/kubernetes.md lists"),
    (re.compile(r"[Ss]ecret|[Cc]onfigMap|couldn't find key"),
     "make it in the namespace, or correct environment_from, env_from and store of the pool"),
    (re.compile(r"[Vv]olume"),
     "see that the claim is bound and its storage answers, or correct volumes of the pool"),
    (re.compile(r"runAsNonRoot|non-numeric user"), "say run_as_user of the pool"),
    (re.compile(r"PodSecurity|securityContext"), "correct pod_template of the pool"),
    (re.compile(r"service ?account"),
     "make it in the namespace, or correct service_account of the pool"),
    (re.compile(r"PriorityClass"), "correct priority_class of the pool"),
    (re.compile(r"RuntimeClass"), "correct runtime_class of the pool"),
    (re.compile(r"namespaces? .* not found"), "make it, or correct namespace of the cluster"),
    (re.compile(r"must specify|maximum|minimum|LimitRange|failed quota|or equal to \w+ limit"),
     "say memory of the placement, or cpu_limit of the pool, within the namespace's limits"),
)  # fmt: skip
_DO_POOL = "correct the pool in the site file"
_DO_IMAGE = "correct image, image_pull_policy or pull_secrets of the pool"
_DO_QUOTA = "wait for other work to end, or ask for a larger quota"
_DO_STARTS = "ask whether the node is well, or correct the pool"
_DO_NODE = (
    "wait for a node, or correct what the placement asks for, and node_selector, tolerations and "
    "affinity of the pool"
)


@dataclass(frozen=True)
class Hindrance:
    """Why something that was submitted does not run.

    Attributes
    ----------
    reason : str
        Kubernetes' word for it.
    message : str
        Its own sentence, in one line.
    lasting : bool
        Whether time alone does not end it: a person has to act.
    do : str
        What that person does.
    """

    reason: str
    message: str
    lasting: bool
    do: str

    def __str__(self) -> str:
        """Say it in one line."""
        told = f"{self.reason}: {self.message}" if self.message else self.reason
        return f"{told}; do: {self.do}"


def classify_refusal(status: int, reason: str, message: str) -> Refusal:
    """Tell what an answer to a creation means that is not a success.

    Parameters
    ----------
    status : int
        Of HTTP.
    reason, message : str
        As the Status object of the answer has them.

    Returns
    -------
    {"exists", "refused", "busy", "unreachable"}
        There is one of this name; refused for good; surely not taken, and worth another try later;
        or not known.
    """
    if status == 409:
        return "exists" if reason == "AlreadyExists" else "busy"
    if status == 429 or (status == 403 and _QUOTA.search(message)):
        return "busy"
    if status == 500 and _WEBHOOK_AWAY.search(message):
        return "busy"
    if status in (401, 408) or status >= 500:
        return "unreachable"
    return "refused"


def explain_refusal(status: int, reason: str, message: str, batch: Batch) -> MusterError:
    """Return the error of a creation that did not succeed, in the server's own words.

    Returns
    -------
    InvalidInput
        When it was refused for good.
    Transient
        When it may be tried again, once it was looked up.
    """
    got = f"{status} {reason}: {one_line(message)}"
    where = f"pool {batch.pool}, batch {batch.id}"
    if classify_refusal(status, reason, message) == "refused":
        do = _find_do(message, _DO_POOL)
        return InvalidInput("Kubernetes refuses the Job", where=where, got=got, do=do)
    return Transient("Kubernetes did not take the Job", where=where, got=got)


def find_hindrance(pod: PodState) -> Hindrance | None:
    """Say why a pod waits; None where it does not, or only starts."""
    if pod.state is not JobState.WAITING or pod.reason is None:
        return None
    message = one_line(pod.message or "")
    if pod.reason in _IMAGE:
        return Hindrance(pod.reason, message, lasting=True, do=_DO_IMAGE)
    if pod.reason in _CONTAINER:
        do = _find_do(message, _DO_POOL)
        return Hindrance(pod.reason, message, lasting=True, do=do)
    if pod.reason in ("Unschedulable", "SchedulingGated"):
        return Hindrance(pod.reason, message, lasting=False, do=_DO_NODE)
    return None


def find_failed_creation(events: Iterable[Mapping[str, Any]]) -> Hindrance | None:
    """Say why a Job has no pods, by the newest event that tells so; None where none does.

    Parameters
    ----------
    events : iterable of mapping
        Those of the Job, as the API server has them.
    """
    failed = [event for event in events if event.get("reason") == "FailedCreate"]
    if not failed:
        return None
    newest = max(failed, key=_time_of)
    message = one_line(str(newest.get("message") or ""))
    if _QUOTA.search(message):
        return Hindrance("FailedCreate", message, lasting=False, do=_DO_QUOTA)
    lasting = not _WEBHOOK_AWAY.search(message)
    do = _find_do(message, _DO_POOL)
    return Hindrance("FailedCreate", message, lasting=lasting, do=do)


def find_failed_start(events: Iterable[Mapping[str, Any]]) -> Hindrance | None:
    """Say why a node does not start a pod that it took; None where its newest event is no trouble.

    What failed may have succeeded since: then the image is being pulled.

    Parameters
    ----------
    events : iterable of mapping
        Those of the pod, as the API server has them.
    """
    newest = max(events, key=lambda e: (_time_of(e), e.get("reason") not in _START), default=None)
    if newest is None or newest.get("reason") not in _START:
        return None
    message = one_line(str(newest.get("message") or ""))
    lasting = _ABSENT.search(message) is not None
    return Hindrance(str(newest["reason"]), message, lasting, _find_do(message, _DO_STARTS))


def _find_do(message: str, otherwise: str) -> str:
    return next((do for pattern, do in _DO if pattern.search(message)), otherwise)


def _time_of(event: Mapping[str, Any]) -> str:
    series = event.get("series") or {}
    times = (
        series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"),
        event["metadata"].get("creationTimestamp"),
    )  # fmt: skip
    return next((str(time) for time in times if time), "")
