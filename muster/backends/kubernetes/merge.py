"""What is laid over a pod, and what may not be changed of it.

A pool's further template only adds: where it says something else than Muster does, it is refused.
What Airflow, a site's policies and hooks make of a pod may add too, and may choose where a pod runs
and which mirror its image comes from; the rest has to stay, or the pod would not do its work.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from muster.errors import ConfigError, InvalidInput
from muster.model.kubernetes_words import CONTAINER

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_CONTAINER = f"spec.containers[{CONTAINER}]"
_NAMED = {"containers": "name", "env": "name", "volumeMounts": "mountPath", "volumes": "name"}
"""Lists of named things → what they are told apart by."""
_WHOLE = frozenset({"args", "command"})
"""Lists of which every word counts, and its place."""

FREE = frozenset(
    {
        "apiVersion", "kind", "metadata.namespace",
        "spec.affinity", "spec.imagePullSecrets", "spec.nodeSelector", "spec.priorityClassName",
        "spec.runtimeClassName", "spec.serviceAccountName", "spec.tolerations",
        *(
            f"{_CONTAINER}.{key}"
            for key in ("image", "imagePullPolicy", "resources", "terminationMessagePolicy")
        ),
    }
)  # fmt: skip
"""What others may change of a pod: where and as who it runs, and where its image comes from."""
ABSENT = ("activeDeadlineSeconds", "hostPID", "hostIPC", "shareProcessNamespace")
"""What nobody may add to the spec of a pod: its deadline is that of each wave."""


def merge_pod(pod: dict[str, Any], more: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """Return a pod with a further template laid over it.

    Lists of named things are joined by name, other lists one behind the other.

    Raises
    ------
    ConfigError
        When the template says something else than the pod does.
    """
    merged: dict[str, Any] = _merge(pod, more, "", where)
    return merged


def check_dressed(pod: Mapping[str, Any], dressed: Mapping[str, Any], *, where: str) -> None:
    """Refuse a pod of which others have changed what is Muster's.

    Parameters
    ----------
    pod : mapping
        As it was given away.
    dressed : mapping
        What has become of it.

    Raises
    ------
    InvalidInput
        When it no longer says all that it has to.
    """
    spec = dressed.get("spec")
    changed = next(_find_changes(pod, dressed, ""), None)
    if changed is None and isinstance(spec, dict):
        changed = next((f"spec.{key}" for key in ABSENT if spec.get(key)), None)
    if changed is not None:
        raise InvalidInput(
            "the pod was changed where it is Muster's",
            where=where,
            got=changed,
            do="let the pod template, the cluster policy or the mutation hook leave it as it is",
        )


def find_named(things: Iterable[dict[str, Any]], name: str) -> dict[str, Any]:
    """Return the one of several that has a name.

    Raises
    ------
    InvalidInput
        When none has it.
    """
    for thing in things:
        if thing.get("name") == name:
            return thing
    raise InvalidInput("nothing in the pod has this name", got=name)


def _merge(ours: Any, more: Any, path: str, where: str) -> Any:
    if isinstance(ours, dict) and isinstance(more, dict):
        merged = copy.deepcopy(ours)
        for key, value in more.items():
            inner = f"{path}.{key}".removeprefix(".")
            known = merged.get(key)
            new = known is None
            merged[key] = copy.deepcopy(value) if new else _merge(known, value, inner, where)
        return merged
    if isinstance(ours, list) and isinstance(more, list):
        return _merge_lists(ours, more, path, where)
    if ours == more:
        return ours
    raise _otherwise(path, ours, more, where)


def _merge_lists(ours: list[Any], more: list[Any], path: str, where: str) -> list[Any]:
    key = _NAMED.get(path.rpartition(".")[2])
    merged = copy.deepcopy(ours)
    for value in more:
        name = value.get(key) if key is not None and isinstance(value, dict) else None
        inner = f"{path}[{name}]"
        place = None if name is None else _place_of(merged, key, name)
        if place is None:
            merged.append(copy.deepcopy(value))
        elif inner == _CONTAINER:
            merged[place] = _merge(merged[place], value, inner, where)
        elif merged[place] != value:
            raise _otherwise(inner, merged[place], value, where)
    return merged


def _find_changes(ours: Any, theirs: Any, path: str) -> Iterator[str]:
    """List where the one no longer says what the other did."""
    if path in FREE or ours == theirs:
        return
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            yield from _find_changes(value, theirs.get(key), f"{path}.{key}".removeprefix("."))
        return
    last = path.rpartition(".")[2]
    if not isinstance(ours, list) or not isinstance(theirs, list) or last in _WHOLE:
        yield f"{path} is {theirs!r}, not {ours!r}"
        return
    key = _NAMED.get(last)
    if key is None:
        yield from (f"{path} is without {value!r}" for value in ours if value not in theirs)
        return
    for value in ours:
        named = [one for one in theirs if isinstance(one, dict) and one.get(key) == value[key]]
        if len(named) != 1:
            yield f"{path}[{value[key]}] is there {len(named)} times"
        else:
            yield from _find_changes(value, named[0], f"{path}[{value[key]}]")
    if last == "containers" and len(theirs) > len(ours):
        yield f"{path} has another container, with which no pod ends"


def _place_of(things: Sequence[Any], key: str | None, name: Any) -> int | None:
    return next(
        (n for n, one in enumerate(things) if isinstance(one, dict) and one.get(key) == name), None
    )


def _otherwise(path: str, ours: Any, more: Any, where: str) -> ConfigError:
    return ConfigError(
        f"{path} is said already, and otherwise", where=where, got=repr(more), expected=repr(ours)
    )
