"""What becomes of an Indexed Job: its pods are made, counted, and the Job ends.

As Kubernetes' own controller: a pod is held by a tracking finalizer until it is counted; an index
fails with its first failed pod (backoffLimitPerIndex 0); pods that a suspension ends are let go
uncounted, so that their indexes run again.
"""

from __future__ import annotations

import copy
import time
from typing import TYPE_CHECKING, Any

from tests.kubernetes_cluster.admission import ENDED, admit
from tests.kubernetes_cluster.conditions import find_condition, is_true, set_condition, write_event
from tests.kubernetes_cluster.indexes import format_indexes, parse_indexes
from tests.kubernetes_cluster.statuses import ApiRefusal
from tests.kubernetes_cluster.storage import now, random_suffix

if TYPE_CHECKING:
    from tests.kubernetes_cluster.storage import Storage

    Object = dict[str, Any]

INDEX = "batch.kubernetes.io/job-completion-index"
TRACKING = "batch.kubernetes.io/job-tracking"
RETRY_S = 1.0
MOST_RETRY_S = 8.0


def owner_of(item: Object) -> str | None:
    """Return the uid of the object that controls this one."""
    owners = item["metadata"].get("ownerReferences") or []
    return next((one["uid"] for one in owners if one.get("controller")), None)


def is_finished(job: Object) -> bool:
    return is_true(job, "Complete") or is_true(job, "Failed")


def _index(pod: Object) -> int:
    return int(pod["metadata"]["annotations"][INDEX])


def _ended(pod: Object) -> bool:
    return pod["status"]["phase"] in ENDED


def _tracked(pod: Object) -> bool:
    return TRACKING in (pod["metadata"].get("finalizers") or [])


def _leaving(pod: Object) -> bool:
    return bool(pod["metadata"].get("deletionTimestamp"))


class JobController:
    """Keeps Jobs; ``faults`` forbids the creation of pods as an admission webhook does."""

    def __init__(self, store: Storage, deny: Any) -> None:
        self._store = store
        self._deny = deny
        self._retry: dict[str, tuple[float, float]] = {}

    def sync(self) -> None:
        """Bring every Job a step further."""
        owned: dict[str, list[Object]] = {}
        for pod in self._store.list("pods"):
            if owner := owner_of(pod):
                owned.setdefault(owner, []).append(pod)
        for job in self._store.list("jobs"):
            self._sync(job, owned.get(job["metadata"]["uid"], []))

    def _sync(self, job: Object, pods: list[Object]) -> None:
        if is_finished(job) or _leaving(job):
            self._let_go([pod for pod in pods if _ended(pod) or _leaving(job)])
            return
        suspended = job["spec"]["suspend"]
        succeeded, failed = self._read_indexes(job, pods)
        if suspended:
            pods = self._delete_active(job, pods)
        counted = [pod for pod in pods if _tracked(pod) and (_ended(pod) or self._failed(job, pod))]
        active = [pod for pod in pods if not _ended(pod) and not _leaving(pod)]
        leaving = [pod for pod in pods if not _ended(pod) and _leaving(pod)]
        over = job["spec"]["completions"] <= len(succeeded) + len(failed)
        if not suspended and not over:
            active += self._create(job, active, leaving, succeeded | failed)
        new = copy.deepcopy(job)
        status = new["status"]
        status["failed"] = status.get("failed", 0) + sum(
            pod["status"]["phase"] != "Succeeded" for pod in counted
        )
        status["succeeded"] = len(succeeded)
        status["completedIndexes"] = format_indexes(succeeded)
        status["failedIndexes"] = format_indexes(failed)
        status["active"] = len(active)
        status["terminating"] = len(leaving)
        status["ready"] = sum(is_true(pod, "Ready") for pod in active)
        status.setdefault("uncountedTerminatedPods", {})
        for key in ("active", "failed", "succeeded", "completedIndexes"):
            if not status[key]:
                del status[key]
        self._say_suspended(new, suspended=suspended)
        self._end(new, counted, succeeded, failed, over=over and not active and not leaving)

    def _read_indexes(self, job: Object, pods: list[Object]) -> tuple[set[int], set[int]]:
        status = job["status"]
        succeeded = parse_indexes(status.get("completedIndexes", ""))
        failed = parse_indexes(status.get("failedIndexes", ""))
        for pod in filter(_tracked, pods):
            if pod["status"]["phase"] == "Succeeded":
                succeeded.add(_index(pod))
            elif self._failed(job, pod):
                failed.add(_index(pod))
        return succeeded, failed

    @staticmethod
    def _failed(job: Object, pod: Object) -> bool:
        if pod["status"]["phase"] == "Failed":
            return True
        only_failed = job["spec"]["podReplacementPolicy"] == "Failed"
        return not only_failed and _leaving(pod) and pod["status"]["phase"] != "Succeeded"

    def _end(
        self,
        new: Object,
        counted: list[Object],
        succeeded: set[int],
        failed: set[int],
        *,
        over: bool,
    ) -> None:
        """Write the status, then let the counted pods go, then say that the Job has ended."""
        meta = new["metadata"]
        why = ("FailedIndexes", "Job has failed indexes")
        if not failed:
            why = ("CompletionsReached", "Reached expected number of succeeded pods")
        if len(succeeded) + len(failed) >= new["spec"]["completions"]:
            interim = "FailureTarget" if failed else "SuccessCriteriaMet"
            if find_condition(new, interim) is None:
                set_condition(new, interim, reason=why[0], message=why[1])
        self._store.update("jobs", new)
        self._let_go(counted)
        if not over:
            return
        with self._store.edit("jobs", meta["namespace"], meta["name"]) as ended:
            set_condition(ended, "Failed" if failed else "Complete", reason=why[0], message=why[1])
            if not failed:
                ended["status"]["completionTime"] = now()
        if failed:
            self._event(new, *why, warning=True)
        else:
            self._event(new, "Completed", "Job completed")

    def _say_suspended(self, job: Object, *, suspended: bool) -> None:
        status = job["status"]
        if suspended:
            if not is_true(job, "Suspended"):
                set_condition(job, "Suspended", reason="JobSuspended", message="Job suspended")
                self._event(job, "Suspended", "Job suspended")
            status.pop("startTime", None)
            return
        if is_true(job, "Suspended"):
            set_condition(job, "Suspended", value=False, reason="JobResumed", message="Job resumed")
            self._event(job, "Resumed", "Job resumed")
        status.setdefault("startTime", now())

    # -- pods ------------------------------------------------------------------------------

    def _delete_active(self, job: Object, pods: list[Object]) -> list[Object]:
        for pod in pods:
            if not _ended(pod) and not _leaving(pod):
                self._let_go([pod])
                meta = pod["metadata"]
                grace = pod["spec"]["terminationGracePeriodSeconds"] if _placed(pod) else 0
                self._store.delete("pods", meta["namespace"], meta["name"], grace)
                self._event(job, "SuccessfulDelete", f"Deleted pod: {meta['name']}")
        names = [(pod["metadata"]["namespace"], pod["metadata"]["name"]) for pod in pods]
        found = [self._store.find("pods", *name) for name in names]
        return [pod for pod in found if pod is not None]

    def _let_go(self, pods: list[Object]) -> None:
        for pod in pods:
            meta = pod["metadata"]
            if (
                not _tracked(pod)
                or self._store.find("pods", meta["namespace"], meta["name"]) is None
            ):
                continue
            with self._store.edit("pods", meta["namespace"], meta["name"]) as free:
                free["metadata"]["finalizers"].remove(TRACKING)

    def _create(
        self, job: Object, active: list[Object], leaving: list[Object], done: set[int]
    ) -> list[Object]:
        """Create the pods that are missing, the first indexes first; stop at the first refusal."""
        spec, uid = job["spec"], job["metadata"]["uid"]
        waits = len(leaving) if spec["podReplacementPolicy"] == "Failed" else 0
        held = leaving if spec["podReplacementPolicy"] == "Failed" else []
        taken = done | {_index(pod) for pod in [*active, *held]}
        missing = [index for index in range(spec["completions"]) if index not in taken]
        room = spec["parallelism"] - len(active) - waits
        due, delay = self._retry.get(uid, (0.0, RETRY_S))
        if room <= 0 or not missing or time.monotonic() < due:
            return []
        made = []
        for index in missing[:room]:
            try:
                made.append(self._create_pod(job, index))
            except ApiRefusal as refusal:
                words = f"Error creating: {refusal.message}"
                self._event(job, "FailedCreate", words, warning=True)
                self._retry[uid] = (time.monotonic() + delay, min(2 * delay, MOST_RETRY_S))
                break
        else:
            self._retry.pop(uid, None)
        return made

    def _create_pod(self, job: Object, index: int) -> Object:
        name = job["metadata"]["name"]
        template = copy.deepcopy(job["spec"]["template"])
        meta = template["metadata"]
        meta["name"] = f"{name[: 57 - len(str(index))]}-{index}-{random_suffix()}"
        meta["namespace"] = job["metadata"]["namespace"]
        annotations = meta["annotations"] = dict(meta.get("annotations") or {})
        annotations[INDEX] = meta["labels"][INDEX] = str(index)
        annotations["batch.kubernetes.io/job-index-failure-count"] = "0"
        meta["finalizers"] = [*(meta.get("finalizers") or []), TRACKING]
        meta["ownerReferences"] = [
            {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "name": name,
                "uid": job["metadata"]["uid"],
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ]
        template["spec"]["hostname"] = f"{name}-{index}"
        field = {"fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.labels['{INDEX}']"}}
        for container in template["spec"]["containers"]:
            env = container.setdefault("env", [])
            if all(entry["name"] != "JOB_COMPLETION_INDEX" for entry in env):
                env.append({"name": "JOB_COMPLETION_INDEX", "valueFrom": field})
        self._deny("pods", template)
        admit(self._store, "pods", template)
        made = self._store.create("pods", template)
        self._event(job, "SuccessfulCreate", f"Created pod: {meta['name']}")
        return made

    def _event(self, job: Object, reason: str, message: str, *, warning: bool = False) -> None:
        write_event(self._store, job, "job-controller", reason, message, warning=warning)


def _placed(pod: Object) -> bool:
    return bool(pod["spec"].get("nodeName"))
