"""What a doctor looks at beside jobs and pods; that it may not is an answer, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from muster.backends.kubernetes.client import NOT_FOUND, ApiError

if TYPE_CHECKING:
    from muster.backends.kubernetes.client import ApiClient
    from muster.doctor.kubernetes_objects import Named

FORBIDDEN = 403
_CORE = "/api/v1/namespaces/{namespace}/"
PATHS = {
    "Secret": f"{_CORE}secrets/",
    "ConfigMap": f"{_CORE}configmaps/",
    "PersistentVolumeClaim": f"{_CORE}persistentvolumeclaims/",
    "ServiceAccount": f"{_CORE}serviceaccounts/",
    "PriorityClass": "/apis/scheduling.k8s.io/v1/priorityclasses/",
    "RuntimeClass": "/apis/node.k8s.io/v1/runtimeclasses/",
}
"""Kind of an object → where the API server has those; the name follows."""


class Looks:
    """Looks at objects that an account may perhaps not look at.

    Parameters
    ----------
    client : ApiClient
        What speaks to the API server.
    """

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    async def get(self, namespace: str, named: Named) -> tuple[bool, dict[str, Any] | None]:
        """Get an object: whether that is allowed, and what it is, None where there is none."""
        path = PATHS[named.kind].format(namespace=quote(namespace, safe=""))
        return await self._get(f"{path}{quote(named.name, safe='')}")

    async def get_namespace(self, namespace: str) -> tuple[bool, dict[str, Any] | None]:
        """Get a namespace, as :meth:`get` does an object."""
        return await self._get(_CORE.format(namespace=quote(namespace, safe="")).rstrip("/"))

    async def list_of(self, namespace: str, plural: str) -> list[dict[str, Any]] | None:
        """List objects of a namespace; None where that is not allowed."""
        return await self._list(f"{_CORE.format(namespace=quote(namespace, safe=''))}{plural}")

    async def list_nodes(self) -> list[dict[str, Any]] | None:
        """List the cluster's nodes; None where that is not allowed."""
        return await self._list("/api/v1/nodes")

    async def _get(self, path: str) -> tuple[bool, dict[str, Any] | None]:
        try:
            return True, await self._client.call("GET", path)
        except ApiError as error:
            if error.status not in (FORBIDDEN, NOT_FOUND):
                raise
            return error.status == NOT_FOUND, None

    async def _list(self, path: str) -> list[dict[str, Any]] | None:
        try:
            return (await self._client.list_all(path, {}))[0]
        except ApiError as error:
            if error.status != FORBIDDEN:
                raise
            return None
