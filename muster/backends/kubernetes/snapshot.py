"""What a watch knows: Jobs as they are, and pods as they are or were last.

Of 40,000 pods as JSON has them a process would grow by half a gigabyte: each is kept as a few
hundred bytes of text, of what their state is read from.
"""

from __future__ import annotations

import json
import time
from typing import Any

DELETED_KEPT_S = 900.0
"""So long the pods of a Job that was deleted are remembered, in seconds."""
SWEEP_S = 60.0
JOB_LABELS = ("batch.kubernetes.io/job-name", "job-name")

_METADATA = (
    "name", "uid", "creationTimestamp", "deletionTimestamp", "labels", "annotations"
)  # fmt: skip
_SPEC = ("nodeName", "activeDeadlineSeconds")
_STATUS = (
    "phase", "reason", "message", "conditions", "startTime", "containerStatuses",
    "initContainerStatuses",
)  # fmt: skip


class Jobs:
    """Jobs by name, without their pods' template."""

    def __init__(self) -> None:
        self._jobs: dict[str, dict[str, Any]] = {}

    def get(self, name: str) -> dict[str, Any] | None:
        """Return a Job; None where none is known."""
        return self._jobs.get(name)

    def replace(self, items: list[dict[str, Any]]) -> None:
        """Keep what a list has given, and nothing else."""
        self._jobs.clear()
        for item in items:
            self.put(item)

    def put(self, item: dict[str, Any]) -> None:
        """Keep a Job that is new or has changed."""
        spec = {name: said for name, said in (item.get("spec") or {}).items() if name != "template"}
        metadata = {n: said for n, said in item["metadata"].items() if n != "managedFields"}
        self._jobs[metadata["name"]] = {
            "metadata": metadata,
            "spec": spec,
            "status": item.get("status") or {},
        }

    def remove(self, item: dict[str, Any]) -> None:
        """Forget a Job that was deleted."""
        self._jobs.pop(item["metadata"]["name"], None)


class Pods:
    """Pods by the name of their Job; those that were deleted as they were last."""

    def __init__(self) -> None:
        self._pods: dict[str, dict[str, bytes]] = {}
        self._deleted: dict[str, float] = {}  # pod → when (monotonic)
        self._swept_s = time.monotonic()

    def of_job(self, name: str) -> list[dict[str, Any]]:
        """Return what is known of a Job's pods."""
        return [json.loads(pod) for pod in self._pods.get(name, {}).values()]

    def is_deleted(self, pod: dict[str, Any]) -> bool:
        """Tell whether a pod is no more."""
        return pod["metadata"]["name"] in self._deleted

    def replace(self, items: list[dict[str, Any]]) -> None:
        """Keep what a list has given; of others remember how they were last."""
        present = {item["metadata"]["name"] for item in items}
        now_s = time.monotonic()
        for pods in self._pods.values():
            for name in pods:
                if name not in present:
                    self._deleted.setdefault(name, now_s)
        for item in items:
            self.put(item)
        self._forget_old()

    def put(self, item: dict[str, Any]) -> None:
        """Keep a pod that is new or has changed."""
        job = _job_of(item)
        if job is not None:
            name = item["metadata"]["name"]
            self._deleted.pop(name, None)
            self._pods.setdefault(job, {})[name] = _trim(item)

    def remove(self, item: dict[str, Any]) -> None:
        """Remember how a pod was that was deleted."""
        self.put(item)
        self._deleted[item["metadata"]["name"]] = time.monotonic()
        self._forget_old()

    def _forget_old(self) -> None:
        """Forget pods that were deleted long ago."""
        now_s = time.monotonic()
        if now_s - self._swept_s < SWEEP_S:
            return
        self._swept_s, oldest_s = now_s, now_s - DELETED_KEPT_S
        old = {name for name, at_s in self._deleted.items() if at_s < oldest_s}
        if not old:
            return
        for job in list(self._pods):
            kept = {name: pod for name, pod in self._pods[job].items() if name not in old}
            if kept:
                self._pods[job] = kept
            else:
                del self._pods[job]
        for name in old:
            del self._deleted[name]


def _job_of(pod: dict[str, Any]) -> str | None:
    labels = pod["metadata"].get("labels") or {}
    return next((labels[name] for name in JOB_LABELS if name in labels), None)


def _trim(pod: dict[str, Any]) -> bytes:
    """Keep of a pod what its state is read from."""
    kept = {
        part: {name: pod[part][name] for name in names if name in pod[part]}
        for part, names in (("metadata", _METADATA), ("spec", _SPEC), ("status", _STATUS))
        if pod.get(part)
    }
    return json.dumps(kept, separators=(",", ":")).encode()
