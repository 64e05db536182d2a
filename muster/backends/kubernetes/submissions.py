"""Jobs of submissions at the API server itself: made, looked up by their key, and deleted.

What is asked here is asked with lists that are from no cache, and of objects that bear the whole
key: neither the watch's lag nor a name's hash can make one submission out of another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from muster.backends.kubernetes.client import (
    CONFLICT,
    NOT_FOUND,
    ApiError,
    jobs_path,
    pods_path,
)
from muster.backends.kubernetes.names import ANNOTATION_KEY, LABEL_KEY, job_name, key_label
from muster.errors import InvalidInput, Transient

if TYPE_CHECKING:
    from collections.abc import Mapping

    from muster.backends.kubernetes.client import ApiClient

ENDED_PHASES = ("Succeeded", "Failed")


class Submissions:
    """The Jobs of one namespace.

    Parameters
    ----------
    client : ApiClient
        What speaks to the API server.
    namespace : str
        Where they lie.
    """

    def __init__(self, client: ApiClient, namespace: str) -> None:
        self._client = client
        self._namespace = namespace

    async def find(self, key: str) -> str | None:
        """Look a Job up by its key; its name, or None where there is none."""
        jobs, _ = await self._client.list_all(jobs_path(self._namespace), _labelled(key))
        return next((str(job["metadata"]["name"]) for job in jobs if is_of(job, key)), None)

    async def create(self, job: Mapping[str, Any]) -> None:
        """Create a Job; one field that Kubernetes does not know is refused, not dropped.

        Raises
        ------
        ApiError
            As the API server answers, but for a Job of this name and key that is there.
        Transient, InvalidInput
            Where one of this name is being deleted, or is another's.
        """
        query = {"fieldValidation": "Strict"}
        try:
            await self._client.call("POST", jobs_path(self._namespace), query, job)
        except ApiError as error:
            if error.status != CONFLICT or error.reason != "AlreadyExists":
                raise
            metadata = job["metadata"]
            await self._check_ours(metadata["name"], metadata["annotations"][ANNOTATION_KEY])

    async def delete(self, key: str) -> bool:
        """Delete the Job of a key with its pods; tell whether it is still there."""
        path = jobs_path(self._namespace, job_name(key))
        job = await self._read(job_name(key))
        if job is None or not is_of(job, key):
            return False
        if job["metadata"].get("deletionTimestamp") is None:
            options = {
                "apiVersion": "v1",
                "kind": "DeleteOptions",
                "propagationPolicy": "Foreground",
                "preconditions": {"uid": job["metadata"]["uid"]},
            }
            try:
                await self._client.call("DELETE", path, None, options)
            except ApiError as error:
                if error.status not in (NOT_FOUND, CONFLICT):
                    raise
        return True

    async def alive_pods(self, key: str) -> list[str]:
        """Name the pods of a key that have not ended, and their nodes."""
        found, _ = await self._client.list_all(pods_path(self._namespace), _labelled(key))
        return [
            f"{pod['metadata']['name']} on {(pod.get('spec') or {}).get('nodeName', 'no node')}"
            for pod in found
            if (pod.get("status") or {}).get("phase") not in ENDED_PHASES
        ]

    async def _read(self, name: str) -> dict[str, Any] | None:
        try:
            return await self._client.call("GET", jobs_path(self._namespace, name))
        except ApiError as error:
            if error.status == NOT_FOUND:
                return None
            raise

    async def _check_ours(self, name: str, key: str) -> None:
        """Make sure that a Job that is there already is ours, whose answer was lost."""
        job = await self._read(name)
        if job is None or job["metadata"].get("deletionTimestamp"):
            raise Transient("a Job of this name is being deleted", where=name, got=key)
        if not is_of(job, key):
            raise InvalidInput(
                "another Job has this name",
                where=f"namespace {self._namespace}, {name}",
                got=(job["metadata"].get("annotations") or {}).get(ANNOTATION_KEY, "no key"),
                expected=key,
                do="delete it, or use another namespace",
            )


def is_of(item: Mapping[str, Any], key: str) -> bool:
    """Tell whether an object is a submission's: a label holds a hash, the annotation the key."""
    return (item["metadata"].get("annotations") or {}).get(ANNOTATION_KEY) == key


def _labelled(key: str) -> dict[str, str]:
    return {"labelSelector": f"{LABEL_KEY}={key_label(key)}"}
