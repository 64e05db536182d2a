"""The few patches that are known: a Job's suspend and parallelism, labels and annotations."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from tests.kubernetes_cluster.statuses import ApiRefusal, invalid
from tests.kubernetes_cluster.validation import check_body, check_metadata, refuse_problems

if TYPE_CHECKING:
    from tests.kubernetes_cluster.resources import Target
    from tests.kubernetes_cluster.storage import Storage

    Object = dict[str, Any]

KINDS = ("application/merge-patch+json", "application/strategic-merge-patch+json")
MUTABLE = {
    "jobs": ("suspend", "parallelism", "ttlSecondsAfterFinished", "backoffLimit"),
    "pods": ("activeDeadlineSeconds",),
}


def merge(item: Any, patch: Any) -> Any:
    """Merge as RFC 7386 says: None takes away."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(item) if isinstance(item, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def patch_item(store: Storage, target: Target, patch: Object, content_type: str) -> Object:
    """Change an object, but nothing of it that may not change."""
    if content_type not in KINDS:
        raise ApiRefusal(415, f"the body of the request was in an unknown format: {content_type}")
    resource = target.resource
    item = store.get(resource.plural, target.namespace, target.name)
    merged = merge(copy.deepcopy(item), patch)
    check_body(resource, merged)
    kept = {**item, "spec": _fixed(item, resource.plural), "metadata": _identity(item)}
    changed = {**merged, "spec": _fixed(merged, resource.plural), "metadata": _identity(merged)}
    if kept != changed:
        words = "Invalid value: field is immutable"
        raise invalid(resource, target.name, [("spec", words)])
    refuse_problems(resource, merged, check_metadata(merged["metadata"]))
    return store.update(resource.plural, merged)


def _fixed(item: Object, plural: str) -> Object:
    return {key: value for key, value in item["spec"].items() if key not in MUTABLE[plural]}


def _identity(item: Object) -> Object:
    free = ("labels", "annotations", "finalizers")
    return {key: value for key, value in item["metadata"].items() if key not in free}
