"""Which quotas and limit ranges of a namespace would refuse a pod, or let fewer run than slots say.

A Job is taken in any case: it is its pods that the API server refuses, one by one and later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from muster.doctor.check import Check, bad, doubtful
from muster.doctor.kubernetes_nodes import describe_amounts, find_amounts, parse_quantity
from muster.errors import SoftwareError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from muster.doctor.kubernetes_nodes import Amounts

COMPUTE = ("cpu", "memory", "ephemeral-storage")
_SIDES = ("requests", "limits")
_DO = {
    "limits.cpu": "say 'cpu_limit = true' of the pool",
    "limits.memory": "say 'memory' of the placement",
    "requests.memory": "say 'memory' of the placement",
}


@dataclass(frozen=True)
class Quota:
    """A ResourceQuota.

    Attributes
    ----------
    name : str
        Its name.
    hard, used : dict of str to float
        How much there may be, and is now.
    spec : mapping
        As the API server has it: which pods it counts.
    """

    name: str
    hard: Amounts
    used: Amounts
    spec: Mapping[str, Any]


@dataclass(frozen=True)
class LimitRange:
    """One item of a LimitRange, for a container or a pod.

    Attributes
    ----------
    name, kind : str
        Of the LimitRange, and what the item is for.
    least, most : dict of str to float
        Of each resource.
    requests, limits : dict of str to float
        What containers get that do not say it.
    """

    name: str
    kind: str
    least: Amounts
    most: Amounts
    requests: Amounts
    limits: Amounts


@dataclass(frozen=True)
class PodAsks:
    """What one pod of a step asks a namespace for.

    Attributes
    ----------
    step : str
        Whose pod.
    spec : mapping
        The pod's.
    """

    step: str
    spec: Mapping[str, Any]


def parse_quotas(items: Iterable[Mapping[str, Any]]) -> list[Quota]:
    """Parse ResourceQuotas as the API server lists them.

    Raises
    ------
    SoftwareError
        When one is not as it should be.
    """
    return [_parsed(item, _parse_quota) for item in items]


def parse_limit_ranges(items: Iterable[Mapping[str, Any]]) -> list[LimitRange]:
    """Parse LimitRanges as the API server lists them.

    Raises
    ------
    SoftwareError
        When one is not as it should be.
    """
    return [one for item in items for one in _parsed(item, _parse_limit_range)]


def check_limit_ranges(label: str, asks: PodAsks, ranges: Sequence[LimitRange]) -> list[Check]:
    """Find limit ranges that refuse a pod."""
    checks = []
    said = amounts_of(asks, ranges)
    for full, asked in said.items():
        name = full.removeprefix("requests.")
        given = said.get(f"limits.{name}", asked)
        if name != full and asked > given:
            checks.append(
                bad(label, f"no pod of {asks.step} would be made: it asks for more than the limit "
                    "that it gets", where=f"limit range {', '.join(r.name for r in ranges)}",
                    got=_say(full, asked), expected=f"{_say(f'limits.{name}', given)} at most",
                    do=_DO.get(f"limits.{name}", "ask for less where the step is placed"))
            )  # fmt: skip
    for limit in ranges:
        for name, least in limit.least.items():
            if said.get(f"requests.{name}", 0.0) < least:
                checks.append(_refused(label, asks, limit, "requests", name, said, least, "least"))
        for name, most in limit.most.items():
            if said.get(f"limits.{name}", most + 1) > most:
                checks.append(_refused(label, asks, limit, "limits", name, said, most, "most"))
    return checks


def check_quotas(
    label: str, asks: PodAsks, quotas: Iterable[Quota], ranges: Sequence[LimitRange], slots: int
) -> list[Check]:
    """Find quotas that refuse a pod, or give room to fewer than slots."""
    checks = []
    said = amounts_of(asks, ranges)
    for quota in quotas:
        if not _counts(quota, asks):
            continue
        where = f"quota {quota.name}"
        for name, hard in quota.hard.items():
            wanted = _amount(name, said)
            full = _full_name(name)
            if wanted is None:
                checks.append(
                    bad(label, f"no pod of {asks.step} would be made: the quota counts {full}, "
                        "and the pod does not say it", where=where,
                        do=_DO.get(full, "give the namespace a LimitRange with a default"))
                )  # fmt: skip
            elif wanted > hard:
                checks.append(
                    bad(label, f"no pod of {asks.step} would be made", where=where,
                        got=f"asks for {_say(full, wanted)}",
                        expected=f"{_say(full, hard)} at most",
                        do="ask for less where the step is placed, or for a larger quota")
                )  # fmt: skip
            elif wanted * slots > hard:
                checks.append(_few(label, asks, quota, name, wanted, slots))
    return checks


def amounts_of(asks: PodAsks, ranges: Sequence[LimitRange]) -> Amounts:
    """Say what a pod asks for once limit ranges have filled in what it leaves out."""
    requests, limits = (find_amounts(asks.spec, kind) for kind in _SIDES)
    for limit in ranges:
        if limit.kind == "Container":
            limits = {**limit.limits, **limits}
            requests = {**limit.requests, **requests}
    found = {f"requests.{name}": amount for name, amount in requests.items()}
    return found | {f"limits.{name}": amount for name, amount in limits.items()}


def _few(label: str, asks: PodAsks, quota: Quota, name: str, wanted: float, slots: int) -> Check:
    room = int(quota.hard[name] / wanted)
    used = quota.used.get(name, 0.0)
    now = f", and {_say(_full_name(name), used)} of it in use" if used else ""
    return doubtful(
        label,
        f"of {slots} slots {room} can be used at once by {asks.step}: quota {quota.name} gives "
        f"{_say(_full_name(name), quota.hard[name])}{now}; other pods wait, and say so",
        do=f"slots = {room}, or ask for a larger quota",
    )


def _refused(
    label: str,
    asks: PodAsks,
    limit: LimitRange,
    side: str,
    name: str,
    said: Amounts,
    bound: float,
    which: str,
) -> Check:
    full = f"{side}.{name}"
    got = f"asks for {_say(full, said[full])}" if full in said else f"does not say {full}"
    do = "ask for what it allows where the step is placed"
    return bad(
        label, f"no pod of {asks.step} would be made", where=f"limit range {limit.name}", got=got,
        expected=f"at {which} {_say(full, bound)} a {limit.kind.lower()}",
        do=do if full in said else _DO.get(full, do),
    )  # fmt: skip


def _counts(quota: Quota, asks: PodAsks) -> bool:
    """Tell whether a quota counts a pod."""
    ends = asks.spec.get("activeDeadlineSeconds") is not None
    priority = asks.spec.get("priorityClassName")
    said = [{"scopeName": name, "operator": "Exists"} for name in quota.spec.get("scopes") or ()]
    for one in (*said, *((quota.spec.get("scopeSelector") or {}).get("matchExpressions") or ())):
        values = one.get("values") or ()
        match one.get("scopeName"):
            case "Terminating":
                inside = ends
            case "NotTerminating":
                inside = not ends
            case "BestEffort":
                inside = False
            case "PriorityClass":
                operator = one.get("operator")
                inside = {
                    "In": priority in values,
                    "NotIn": priority not in values,
                    "Exists": priority is not None,
                    "DoesNotExist": priority is None,
                }.get(str(operator), True)
            case _:
                inside = True
        if not inside:
            return False
    return True


def _full_name(name: str) -> str:
    return f"requests.{name}" if name in COMPUTE else name


def _amount(name: str, said: Amounts) -> float | None:
    """Say how much one pod counts of a quota's resource; None where it has to say it, and does not.

    0 is for what quotas count beside pods.
    """
    if name in ("pods", "count/pods", "count/jobs.batch"):
        return 1.0
    full = _full_name(name)
    side, _, what = full.partition(".")
    if side not in _SIDES or not what:
        return 0.0
    return said.get(full, None if what in COMPUTE else 0.0)


def _say(full: str, amount: float) -> str:
    side, _, name = full.partition(".")
    if side in _SIDES and name:
        return f"{describe_amounts({name: amount})} ({full})"
    return f"{amount:g} {full}"


def _parsed(item: Mapping[str, Any], parse: Callable[[Mapping[str, Any]], Any]) -> Any:
    try:
        return parse(item)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SoftwareError(
            "cannot understand a limit of a namespace", got=f"{error!r}: {item!r}"[:500]
        ) from error


def _parse_quota(item: Mapping[str, Any]) -> Quota:
    spec, status = item.get("spec") or {}, item.get("status") or {}
    return Quota(
        name=str(item["metadata"]["name"]),
        hard=_quantities(spec.get("hard")),
        used=_quantities(status.get("used")),
        spec=spec,
    )


def _parse_limit_range(item: Mapping[str, Any]) -> list[LimitRange]:
    return [
        LimitRange(
            name=str(item["metadata"]["name"]),
            kind=one["type"],
            least=_quantities(one.get("min")),
            most=_quantities(one.get("max")),
            # The API server fills these in from each other before it stores them.
            limits=_quantities({**(one.get("max") or {}), **(one.get("default") or {})}),
            requests=_quantities(
                {**(one.get("min") or {}), **(one.get("max") or {}), **(one.get("default") or {}),
                 **(one.get("defaultRequest") or {})}
            ),
        )
        for one in (item.get("spec") or {}).get("limits") or ()
        if one.get("type") in ("Container", "Pod")
    ]  # fmt: skip


def _quantities(said: Mapping[str, Any] | None) -> Amounts:
    return {name: parse_quantity(amount) for name, amount in (said or {}).items()}
