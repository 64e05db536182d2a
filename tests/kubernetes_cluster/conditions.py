"""Conditions of pods, Jobs and nodes, and the events that controllers write."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from tests.kubernetes_cluster.storage import now

if TYPE_CHECKING:
    from tests.kubernetes_cluster.storage import Storage

    Object = dict[str, Any]


def find_condition(item: Object, kind: str) -> Object | None:
    conditions = item.get("status", {}).get("conditions") or []
    return next((one for one in conditions if one["type"] == kind), None)


def is_true(item: Object, kind: str) -> bool:
    found = find_condition(item, kind)
    return found is not None and found["status"] == "True"


def set_condition(
    item: Object, kind: str, *, value: bool | str = True, reason: str = "", message: str = ""
) -> None:
    """Set a condition; its time changes only when its value does."""
    status = item.setdefault("status", {})
    conditions = status.setdefault("conditions", [])
    word = value if isinstance(value, str) else ("True" if value else "False")
    new = {"type": kind, "status": word, "lastTransitionTime": now()}
    new |= {key: text for key, text in (("reason", reason), ("message", message)) if text}
    found = find_condition(item, kind)
    if found is None:
        conditions.append(new)
        return
    if found["status"] == word:
        new["lastTransitionTime"] = found["lastTransitionTime"]
    conditions[conditions.index(found)] = new


def write_event(
    store: Storage, item: Object, source: str, reason: str, message: str, *, warning: bool = False
) -> None:
    """Write an event about an object, or count it where the same one is there already."""
    meta = item["metadata"]
    namespace = meta.get("namespace", "default")
    uid = meta["uid"]
    same = (uid, reason, message)
    known = store.known_events.get(same)
    if known is not None and store.find("events", namespace, known) is not None:
        with store.edit("events", namespace, known) as event:
            event["count"] += 1
            event["lastTimestamp"] = now()
        return
    name = store.known_events[same] = f"{meta['name']}.{uuid.uuid4().hex[:16]}"
    store.create(
        "events",
        {
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {
                "kind": item["kind"],
                "namespace": namespace,
                "name": meta["name"],
                "uid": uid,
                "apiVersion": item["apiVersion"],
                "resourceVersion": meta["resourceVersion"],
            },
            "reason": reason,
            "message": message,
            "type": "Warning" if warning else "Normal",
            "source": {"component": source},
            "firstTimestamp": now(),
            "lastTimestamp": now(),
            "count": 1,
            "eventTime": None,
            "reportingComponent": source,
            "reportingInstance": "",
        },
    )
