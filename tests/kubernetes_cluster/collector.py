"""What is taken away: dependents of what is gone, Jobs after their time, pods of lost nodes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tests.kubernetes_cluster.admission import ENDED
from tests.kubernetes_cluster.conditions import set_condition
from tests.kubernetes_cluster.job_controller import TRACKING, is_finished, owner_of
from tests.kubernetes_cluster.storage import read_time

if TYPE_CHECKING:
    from tests.kubernetes_cluster.storage import Storage

    Object = dict[str, Any]

FOREGROUND = "foregroundDeletion"


def delete_pod(store: Storage, pod: Object, grace_s: int | None = None) -> Object:
    """Delete a pod as the server does: with its grace where it is on a node, else at once."""
    meta = pod["metadata"]
    grace = pod["spec"]["terminationGracePeriodSeconds"] if grace_s is None else grace_s
    if not pod["spec"].get("nodeName") or pod["status"]["phase"] in ENDED:
        grace = 0
    return store.delete("pods", meta["namespace"], meta["name"], grace)


def collect(store: Storage) -> None:
    """Take away all that is due."""
    jobs = {job["metadata"]["uid"]: job for job in store.list("jobs")}
    _collect_jobs(store)
    _collect_pods(store, jobs)
    for namespace in store.list("namespaces"):
        if namespace["metadata"].get("deletionTimestamp"):
            _empty(store, namespace["metadata"]["name"])


def _collect_jobs(store: Storage) -> None:
    for job in store.list("jobs"):
        meta, ttl = job["metadata"], job["spec"].get("ttlSecondsAfterFinished")
        if ttl is None or not is_finished(job) or meta.get("deletionTimestamp"):
            continue
        ended = max(
            read_time(one["lastTransitionTime"])
            for one in job["status"]["conditions"]
            if one["type"] in ("Complete", "Failed")
        )
        if (datetime.now(UTC) - ended).total_seconds() >= ttl:
            delete_job(store, job, "Foreground")


def delete_job(store: Storage, job: Object, policy: str) -> Object:
    """Delete a Job: first it or first its pods, or it alone."""
    meta = job["metadata"]
    namespace, name = meta["namespace"], meta["name"]
    if policy == "Foreground":
        with store.edit("jobs", namespace, name) as held:
            finalizers = held["metadata"].setdefault("finalizers", [])
            if FOREGROUND not in finalizers:
                finalizers.append(FOREGROUND)
        return store.delete("jobs", namespace, name)
    if policy == "Orphan":
        for pod in store.list("pods", namespace):
            if owner_of(pod) == meta["uid"]:
                with store.edit("pods", namespace, pod["metadata"]["name"]) as orphan:
                    del orphan["metadata"]["ownerReferences"]
    return store.delete("jobs", namespace, name)


def _collect_pods(store: Storage, jobs: dict[str, Object]) -> None:
    nodes = {node["metadata"]["name"] for node in store.list("nodes")}
    live = {uid: 0 for uid, job in jobs.items() if job["metadata"].get("deletionTimestamp")}
    for pod in store.list("pods"):
        meta, owner = pod["metadata"], owner_of(pod)
        node = pod["spec"].get("nodeName")
        if node and node not in nodes:
            _mark_failed(store, pod, "PodGC: node no longer exists")
        elif not node and meta.get("deletionTimestamp") and pod["status"]["phase"] not in ENDED:
            _mark_failed(store, pod, "")
        current = store.find("pods", meta["namespace"], meta["name"])
        if current is None:
            continue
        doomed = owner is not None and (owner not in jobs or owner in live)
        if TRACKING in (current["metadata"].get("finalizers") or []) and (owner is None or doomed):
            with store.edit("pods", meta["namespace"], meta["name"]) as free:
                free["metadata"]["finalizers"].remove(TRACKING)
            current = store.find("pods", meta["namespace"], meta["name"])
        if current is not None and doomed and not current["metadata"].get("deletionTimestamp"):
            delete_pod(store, current)
        if owner in live and store.find("pods", meta["namespace"], meta["name"]) is not None:
            live[owner] += 1
    for uid, count in live.items():
        meta = jobs[uid]["metadata"]
        if count or store.find("jobs", meta["namespace"], meta["name"]) is None:
            continue
        with store.edit("jobs", meta["namespace"], meta["name"]) as free:
            finalizers = free["metadata"].get("finalizers") or []
            free["metadata"]["finalizers"] = [one for one in finalizers if one != FOREGROUND]


def _mark_failed(store: Storage, pod: Object, message: str) -> None:
    """As the collector of pods does: failed, then deleted by force."""
    meta = pod["metadata"]
    if pod["status"]["phase"] not in ENDED:
        with store.edit("pods", meta["namespace"], meta["name"]) as failed:
            failed["status"]["phase"] = "Failed"
            if message:
                set_condition(failed, "DisruptionTarget", reason="DeletionByPodGC", message=message)
    if store.find("pods", meta["namespace"], meta["name"]) is not None:
        store.delete("pods", meta["namespace"], meta["name"])


def _empty(store: Storage, namespace: str) -> None:
    """Take away what is in a namespace that goes, and then the namespace."""
    left = 0
    for job in store.list("jobs", namespace):
        if not job["metadata"].get("deletionTimestamp"):
            delete_job(store, job, "Background")
    for pod in store.list("pods", namespace):
        left += 1
        if not pod["metadata"].get("deletionTimestamp"):
            delete_pod(store, pod)
    for plural in ("secrets", "configmaps", "persistentvolumeclaims", "resourcequotas", "events"):
        for item in store.list(plural, namespace):
            store.delete(plural, namespace, item["metadata"]["name"])
    if left == 0:
        for account in store.list("serviceaccounts", namespace):
            store.delete("serviceaccounts", namespace, account["metadata"]["name"])
        with store.edit("namespaces", "", namespace) as gone:
            gone["metadata"]["finalizers"] = []
