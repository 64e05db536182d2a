"""Lists and their pages: each page of a list is of the moment of the first."""

from __future__ import annotations

import base64
import json
import secrets
from typing import TYPE_CHECKING, Any

from tests.kubernetes_cluster.statuses import ApiRefusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kubernetes_cluster.resources import Resource
    from tests.kubernetes_cluster.storage import Storage

    Object = dict[str, Any]

TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You can start"
    " a new list without the continue parameter."
)


class Lists:
    """Answers lists, and keeps what is left of those that were begun."""

    def __init__(self, store: Storage) -> None:
        self._store = store
        self._left: dict[str, tuple[int, list[Object]]] = {}

    def answer(
        self,
        resource: Resource,
        namespace: str,
        matches: Callable[[Object], bool],
        query: dict[str, str],
    ) -> Object:
        """Return one page, or all."""
        limit = int(query.get("limit") or 0)
        if "continue" in query:
            version, items = self._take(query["continue"])
        else:
            version = self._store.version
            items = [item for item in self._store.list(resource.plural, namespace) if matches(item)]
        page, rest = (items[:limit], items[limit:]) if limit else (items, [])
        meta: Object = {"resourceVersion": str(version)}
        if rest:
            meta["continue"] = self._keep(version, rest)
            if not query.get("labelSelector") and not query.get("fieldSelector"):
                meta["remainingItemCount"] = len(rest)
        return {
            "kind": f"{resource.kind}List",
            "apiVersion": resource.api_version,
            "metadata": meta,
            "items": [_bare(item) for item in page],
        }

    def _keep(self, version: int, rest: list[Object]) -> str:
        token = json.dumps({"v": "meta.k8s.io/v1", "rv": version, "start": secrets.token_hex(8)})
        text = base64.urlsafe_b64encode(token.encode()).decode()
        self._left[text] = (version, rest)
        return text

    def _take(self, token: str) -> tuple[int, list[Object]]:
        found = self._left.get(token)
        if found is None:
            raise ApiRefusal(400, "continue key is not valid: illegal base64 data")
        if found[0] < self._store.oldest:
            raise ApiRefusal(410, TOO_OLD)
        return found


def _bare(item: Object) -> Object:
    """In a list, the objects of built-in kinds do not say what they are."""
    return {key: value for key, value in item.items() if key not in ("kind", "apiVersion")}
