"""What nodes a cluster has, and on which of them the pods of a pool could run.

It is what the scheduler goes by before it looks at what is in use, and no more: spread constraints
and volumes that are bound to a zone are its own matter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from muster.errors import SoftwareError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Labels = Mapping[str, str]
    Amounts = dict[str, float]

_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|([KMGTPE]i|[numkMGTPE]))?")
_UNITS = {
    **{sign: 10.0**power for sign, power in zip("num", (-9, -6, -3), strict=True)},
    **{sign: 1000.0**power for power, sign in enumerate("kMGTPE", 1)},
    **{f"{sign}i": 1024.0**power for power, sign in enumerate("KMGTPE", 1)},
}
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
MIB = 2.0**20


@dataclass(frozen=True)
class Node:
    """A node, and what it has for pods.

    Attributes
    ----------
    name : str
        Its name.
    labels : mapping of str to str
        What selectors go by.
    taints : tuple of mapping
        Those that keep pods off that do not tolerate them.
    room : dict of str to float
        What pods may ask for together: CPUs, bytes of memory, devices.
    ready, cordoned : bool
        Whether it answers, and whether an administrator lets nothing new onto it.
    """

    name: str
    labels: Labels
    taints: tuple[Mapping[str, Any], ...]
    room: Amounts
    ready: bool = True
    cordoned: bool = False

    def describe(self) -> str:
        """Say what it has, in a few words."""
        devices = {name: amount for name, amount in self.room.items() if is_device(name) and amount}
        return describe_amounts({n: self.room.get(n, 0.0) for n in ("cpu", "memory")} | devices)


def parse_quantity(text: object) -> float:
    """Parse an amount as Kubernetes writes it: ``500m``, ``16Gi``, ``1e3``.

    Raises
    ------
    ValueError
        When it is none.
    """
    match = _QUANTITY.fullmatch(str(text))
    if match is None:
        raise ValueError(f"{text!r} is no quantity")
    number, power, unit = match.groups()
    return float(number + (power or "")) * _UNITS.get(unit, 1.0)


def parse_nodes(items: Iterable[Mapping[str, Any]]) -> list[Node]:
    """Parse nodes as the API server lists them.

    Raises
    ------
    SoftwareError
        When one is not as a node should be.
    """
    nodes = []
    for item in items:
        try:
            nodes.append(_parse_node(item))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise SoftwareError(
                "cannot understand a node", got=f"{error!r}: {item!r}"[:500]
            ) from error
    return nodes


def find_amounts(spec: Mapping[str, Any], kind: str = "requests") -> Amounts:
    """Sum what the containers of a pod ask for; a request that is not said is the limit."""
    found: Amounts = {}
    for container in spec.get("containers") or ():
        resources = container.get("resources") or {}
        limits = resources.get("limits") or {}
        said = {**limits, **(resources.get("requests") or {})} if kind == "requests" else limits
        for name, amount in said.items():
            found[name] = found.get(name, 0.0) + parse_quantity(amount)
    return found


def find_objection(spec: Mapping[str, Any], node: Node) -> str | None:
    """Say why the scheduler keeps a pod off a node, however empty it is; None where it does not."""
    if not node.ready:
        return "is not ready"
    if node.cordoned:
        return "is cordoned"
    for key, value in (spec.get("nodeSelector") or {}).items():
        if node.labels.get(key) != value:
            return f"has {key} = {node.labels.get(key, 'none')}, not {value}"
    if not _is_in_affinity(spec, node):
        return "is not meant by affinity"
    for taint in node.taints:
        if not _tolerates(spec, taint):
            said = f"{taint.get('key')}={taint.get('value', '')}:{taint.get('effect')}"
            return f"has the taint {said}, which is not tolerated"
    return None


def find_lack(asks: Amounts, node: Node) -> list[str]:
    """Name what a node has too little of, however empty it is."""
    return [name for name, amount in asks.items() if amount > node.room.get(name, 0.0)]


def describe_amounts(amounts: Mapping[str, float]) -> str:
    """Say what is asked for or had, in a few words."""
    words = []
    for name, amount in amounts.items():
        if name == "cpu":
            words.append(f"{amount:g} CPU" + ("" if amount == 1 else "s"))
        elif name in ("memory", "ephemeral-storage"):
            words.append(f"{amount / MIB:.0f} MiB" + ("" if name == "memory" else f" of {name}"))
        else:
            words.append(f"{amount:g} {name}")
    return ", ".join(words)


def is_device(name: str) -> bool:
    """Tell whether a resource is a device plugin's."""
    return "/" in name and not name.startswith(("kubernetes.io/", "hugepages-"))


def _parse_node(item: Mapping[str, Any]) -> Node:
    spec, status = item.get("spec") or {}, item["status"]
    taints = [t for t in spec.get("taints") or () if t.get("effect") != "PreferNoSchedule"]
    return Node(
        name=str(item["metadata"]["name"]),
        labels=item["metadata"].get("labels") or {},
        taints=tuple(taints),
        room={name: parse_quantity(text) for name, text in status["allocatable"].items()},
        ready=any(
            one.get("type") == "Ready" and one.get("status") == "True"
            for one in status.get("conditions") or ()
        ),
        cordoned=bool(spec.get("unschedulable")),
    )


def _tolerates(spec: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    for toleration in spec.get("tolerations") or ():
        exists = toleration.get("operator") == "Exists"
        key = toleration.get("key") or None
        same_key = key == taint.get("key") or (exists and key is None)
        same_value = exists or (toleration.get("value") or "") == (taint.get("value") or "")
        if same_key and same_value and toleration.get("effect") in (None, "", taint.get("effect")):
            return True
    return False


def _is_in_affinity(spec: Mapping[str, Any], node: Node) -> bool:
    """Tell whether a node is one of those that affinity requires: of its terms one suffices."""
    required = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(_REQUIRED)
    if not required:
        return True
    return any(
        all(_matches(node.labels, one) for one in term.get("matchExpressions") or ())
        and all(_matches({"metadata.name": node.name}, o) for o in term.get("matchFields") or ())
        for term in required.get("nodeSelectorTerms") or ()
        if term.get("matchExpressions") or term.get("matchFields")
    )


def _matches(labels: Labels, expression: Mapping[str, Any]) -> bool:
    value = labels.get(str(expression.get("key")))
    values: Sequence[str] = expression.get("values") or ()
    match expression.get("operator"):
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt":
            return _is_above(value, values)
        case "Lt":
            return value is not None and _is_above(values[0] if values else None, [value])
        case _:
            return True  # of a later Kubernetes: the scheduler will tell


def _is_above(value: str | None, values: Sequence[str]) -> bool:
    try:
        return value is not None and int(value) > int(values[0])
    except (ValueError, IndexError):
        return False
