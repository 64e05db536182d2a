"""LimitRanges: what they fill in, and which pods they refuse, in the words of LimitRanger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.kubernetes_cluster.quantities import parse_quantity
from tests.kubernetes_cluster.statuses import NotEmulated

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    Object = dict[str, Any]

KNOWN = {"type", "min", "max", "default", "defaultRequest"}


def default_limit_range(item: Object) -> None:
    """Fill a LimitRange's own defaults in from each other, as the server stores it."""
    for one in item["spec"].get("limits") or []:
        if one["type"] != "Container" or set(one) - KNOWN:
            raise NotEmulated(f"a LimitRange of {one['type']} with {sorted(set(one) - KNOWN)}")
        limits = one["default"] = {**(one.get("max") or {}), **(one.get("default") or {})}
        asked = {**(one.get("min") or {}), **limits, **(one.get("defaultRequest") or {})}
        one["defaultRequest"] = asked


def fill_in_limits(ranges: Iterable[Object], spec: Object) -> None:
    """Give containers what they do not say of requests and limits."""
    for container in spec.get("containers") or []:
        resources = container.setdefault("resources", {})
        if resources.get("limits"):
            resources["requests"] = {**resources["limits"], **(resources.get("requests") or {})}
        for one in _limits(ranges):
            for side, key in (("limits", "default"), ("requests", "defaultRequest")):
                filled = {**(one.get(key) or {}), **(resources.get(side) or {})}
                if filled:
                    resources[side] = filled


def find_over_limits(ranges: Iterable[Object], spec: Object) -> Iterator[str]:
    """Yield why containers are refused."""
    for one in _limits(ranges):
        for container in spec["containers"]:
            resources = container["resources"]
            for name, least in (one.get("min") or {}).items():
                asked = (resources.get("requests") or {}).get(name)
                said = f"minimum {name} usage per Container is {least}"
                if asked is None:
                    yield f"{said}.  No request is specified"
                elif parse_quantity(asked) < parse_quantity(least):
                    yield f"{said}, but request is {asked}"
            for name, most in (one.get("max") or {}).items():
                limit = (resources.get("limits") or {}).get(name)
                said = f"maximum {name} usage per Container is {most}"
                if limit is None:
                    yield f"{said}.  No limit is specified"
                elif parse_quantity(limit) > parse_quantity(most):
                    yield f"{said}, but limit is {limit}"


def _limits(ranges: Iterable[Object]) -> list[Object]:
    return [one for item in ranges for one in item["spec"].get("limits") or []]
