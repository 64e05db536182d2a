"""The objects, one counter of versions for all of them, and the history that watches read.

What is read from here must not be changed in place; :meth:`Storage.edit` gives a copy to change.
"""

from __future__ import annotations

import contextlib
import copy
import json
import secrets
import uuid
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tests.kubernetes_cluster.resources import RESOURCES
from tests.kubernetes_cluster.statuses import already_exists, conflict, not_found

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

    Object = dict[str, Any]
    Key = tuple[str, str]

HISTORY = 5000
NAME_LETTERS = "bcdfghjklmnpqrstvwxz2456789"


def now(after_s: float = 0.0) -> str:
    """The time as an object's metadata has it."""
    return (datetime.now(UTC) + timedelta(seconds=after_s)).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def random_suffix(length: int = 5) -> str:
    return "".join(secrets.choice(NAME_LETTERS) for _ in range(length))


@dataclass(frozen=True)
class Change:
    """One write: ADDED, MODIFIED or DELETED."""

    version: int
    plural: str
    kind: str
    item: Object
    before: Object | None

    @cached_property
    def raw(self) -> str:
        return json.dumps(self.item)


class Storage:
    """All objects of the cluster."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self.version = 1000
        self.oldest = self.version
        self.history: deque[Change] = deque()
        self.watchers: list[tuple[str, asyncio.Queue[Change | None]]] = []
        self.known_events: dict[tuple[str, str, str], str] = {}
        self._on_change = on_change
        self._items: dict[str, dict[Key, Object]] = {plural: {} for plural in RESOURCES}

    # -- reading ---------------------------------------------------------------------------

    def list(self, plural: str, namespace: str = "") -> list[Object]:
        """Return the objects of a resource in the order of their keys."""
        items = self._items[plural]
        return [items[key] for key in sorted(items) if not namespace or key[0] == namespace]

    def find(self, plural: str, namespace: str, name: str) -> Object | None:
        return self._items[plural].get((namespace, name))

    def get(self, plural: str, namespace: str, name: str) -> Object:
        found = self.find(plural, namespace, name)
        if found is None:
            raise not_found(RESOURCES[plural], name)
        return found

    # -- writing ---------------------------------------------------------------------------

    def create(self, plural: str, item: Object) -> Object:
        """Store a new object and fill in what the server decides."""
        resource = RESOURCES[plural]
        item = copy.deepcopy(item)
        meta = item["metadata"]
        if not meta.get("name"):
            meta["name"] = meta["generateName"] + random_suffix()
        key = (meta.get("namespace", ""), meta["name"])
        if key in self._items[plural]:
            raise already_exists(resource, meta["name"])
        meta.setdefault("uid", str(uuid.uuid4()))
        meta["creationTimestamp"] = now()
        for server_side in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"):
            meta.pop(server_side, None)
        item = {"kind": resource.kind, "apiVersion": resource.api_version, **item}
        self._commit("ADDED", plural, key, item, None)
        return item

    def update(self, plural: str, item: Object) -> Object:
        """Store what an object has become; it goes once it is deleted and nothing holds it."""
        meta = item["metadata"]
        key = (meta.get("namespace", ""), meta["name"])
        before = self._items[plural].get(key)
        if before is None:
            raise not_found(RESOURCES[plural], meta["name"])
        if before["metadata"]["resourceVersion"] != meta["resourceVersion"]:
            why = "the object has been modified; please apply your changes to the latest version"
            raise conflict(RESOURCES[plural], meta["name"], f"{why} and try again")
        deleted = meta.get("deletionTimestamp") and not meta.get("deletionGracePeriodSeconds")
        if deleted and not meta.get("finalizers"):
            self._commit("DELETED", plural, key, item, before)
        elif item != before:
            self._commit("MODIFIED", plural, key, item, before)
        return item

    @contextlib.contextmanager
    def edit(self, plural: str, namespace: str, name: str) -> Iterator[Object]:
        """Give a copy of an object, and store what has become of it in the end."""
        item = copy.deepcopy(self.get(plural, namespace, name))
        yield item
        self.update(plural, item)

    def delete(self, plural: str, namespace: str, name: str, grace_s: int = 0) -> Object:
        """Delete an object: now, or when its grace has passed and its finalizers are gone."""
        item = copy.deepcopy(self.get(plural, namespace, name))
        meta = item["metadata"]
        earlier = meta.get("deletionGracePeriodSeconds")
        if earlier is None or grace_s < earlier:
            meta["deletionTimestamp"] = now(grace_s)
            meta["deletionGracePeriodSeconds"] = grace_s
        return self.update(plural, item)

    def _commit(
        self, kind: str, plural: str, key: Key, item: Object, before: Object | None
    ) -> None:
        self.version += 1
        item["metadata"]["resourceVersion"] = str(self.version)
        if kind == "DELETED":
            del self._items[plural][key]
        else:
            self._items[plural][key] = item
        change = Change(self.version, plural, kind, item, before)
        self.history.append(change)
        if len(self.history) > HISTORY:
            self.oldest = self.history.popleft().version
        for watched, queue in self.watchers:
            if watched == plural:
                queue.put_nowait(change)
        self._on_change()

    # -- history ---------------------------------------------------------------------------

    def compact(self) -> None:
        """Forget the history, as etcd does after some minutes."""
        self.history.clear()
        self.oldest = self.version

    def since(self, plural: str, version: int) -> list[Change] | None:
        """Return what has changed after a version; None where that is forgotten."""
        if version < self.oldest:
            return None
        return [c for c in self.history if c.plural == plural and c.version > version]
