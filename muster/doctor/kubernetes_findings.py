"""What a cluster's own words mean for a site, in a line each: decisions, without a look at it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from muster.backends.kubernetes.names import RIGHTS
from muster.backends.kubernetes.parse import parse_pod
from muster.backends.kubernetes.refusal import (
    find_failed_creation,
    find_failed_start,
    find_hindrance,
)
from muster.counts import count_of
from muster.doctor.check import Check, bad, doubtful
from muster.doctor.kubernetes_nodes import (
    describe_amounts,
    find_amounts,
    find_lack,
    find_objection,
    is_device,
)
from muster.errors import MusterError, one_line
from muster.model.outcome import JobState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from muster.backends.kubernetes.refusal import Hindrance
    from muster.doctor.kubernetes_limits import PodAsks
    from muster.doctor.kubernetes_nodes import Node
    from muster.model.outcome import Observation
    from muster.pools import KubernetesPool

    Right = tuple[str, str, str]

OLDEST = (1, 30)
"""The oldest Kubernetes that Muster is tried with; by default it knows what its Jobs say."""
YOUNGEST_BETA = (1, 33)
MOST_KINDS = 5
"""So many kinds of nodes are told of in a line."""
WITHOUT = {
    ("", "pods/log", "get"): "a pod that ends before it can write a log leaves none",
    ("", "events", "list"): "why a Job has no pods cannot be told",
}
"""Rights that work goes on without, and what is lost then."""


def check_version(label: str, told: Mapping[str, Any], said: str) -> Check:
    """Say which Kubernetes it is, and whether it knows Indexed Jobs as they are used.

    Parameters
    ----------
    said : str
        How it was asked, and how fast it answered.
    """
    version = str(told.get("gitVersion") or f"{told.get('major')}.{told.get('minor')}")
    match = re.match(r"v?(\d+)\.(\d+)", version)
    number = (int(match[1]), int(match[2])) if match else (0, 0)
    if number < OLDEST:
        return bad(
            label, "this Kubernetes is too old for the Jobs of Muster",
            got=version, expected="1.30 or later", do="upgrade the cluster",
        )  # fmt: skip
    finding = f"Kubernetes {version}{said}"
    if number > YOUNGEST_BETA:
        return Check(label, True, finding)
    betas = "podReplacementPolicy (stable from 1.34 on)"
    if number < YOUNGEST_BETA:
        betas = f"backoffLimitPerIndex (stable from 1.33 on) and {betas}"
    return Check(label, True, f"{finding}; {betas} of its Jobs is beta there, and on by default")


def parse_warning(header: str) -> str:
    """Parse what an API server warns of, ``299 - "would violate …"``, as a header has it."""
    match = re.fullmatch(r'\d+ \S+ "(.*)"', header.strip())
    return one_line(match[1].replace('\\"', '"') if match else header)


def check_rights(
    label: str, namespace: str, user: str | None, allowed: Mapping[Right, bool]
) -> list[Check]:
    """Say which rights are missing, with the lines of a Role that give them."""
    who = user or "this account"
    missing = [right for right in RIGHTS if not allowed.get(right, False)]
    needed = [right for right in missing if right not in WITHOUT]
    checks = []
    if needed:
        checks.append(
            bad(label, f"{who} may not {_describe_rights(needed)}",
                where=f"namespace {namespace}", do=f"add to its Role: {_render_rules(needed)}")
        )  # fmt: skip
    for right in missing:
        if right in WITHOUT:
            checks.append(
                doubtful(label, f"{who} may not {_describe_rights([right])}: {WITHOUT[right]}",
                         do=f"add to its Role: {_render_rules([right])}")
            )  # fmt: skip
    if not needed:
        said = f"{who} may do in namespace {namespace} all that batches need"
        checks.insert(0, Check(label, True, said))
    return checks


def check_nodes(
    label: str, pool: KubernetesPool, spec: Mapping[str, Any], nodes: Sequence[Node]
) -> list[Check]:
    """Say on which nodes pods of a pool could run, and what those have."""
    objections = {node.name: find_objection(spec, node) for node in nodes}
    ready = [node for node in nodes if objections[node.name] is None]
    devices = [name for name in find_amounts(spec) if is_device(name)]
    later = "where nodes are added on demand this may be right, and the pod tells"
    if not ready:
        why = "; ".join(f"{name} {said}" for name, said in [*objections.items()][:3])
        return [
            doubtful(
                label,
                f"none of {count_of(len(nodes), 'node')} takes pods of this pool: {later}",
                got=why or "the cluster has no nodes now",
                do="correct node_selector, tolerations and affinity of the pool",
            )
        ]
    kinds = [*dict.fromkeys(node.describe() for node in ready)]
    more = f"; and {len(kinds) - MOST_KINDS} other kinds" if len(kinds) > MOST_KINDS else ""
    shapes = "; ".join(kinds[:MOST_KINDS]) + more
    checks = [
        Check(
            label, True, f"{len(ready)} of {count_of(len(nodes), 'node')} take its pods: {shapes}"
        )
    ]
    for device in devices:
        if not any(node.room.get(device) for node in ready):
            known = sorted({n for node in nodes for n in node.room if is_device(n)})
            checks.append(
                doubtful(
                    label,
                    f"no node that takes its pods has {device}: {later}",
                    got=f"nodes have {', '.join(known)}" if known else "no node has any device",
                    do="correct gpu or node_selector of the pool; does the device plugin run?",
                )
            )
    most_mib = max(node.room.get("memory", 0.0) for node in ready) / 2**20
    if pool.max_memory is not None and pool.max_memory > most_mib:
        checks.append(
            doubtful(
                label,
                f"max_memory is {pool.max_memory} MiB, a node has {most_mib:.0f} MiB for pods: a "
                "retry that grows above it would wait for ever",
                do=f'max_memory = "{most_mib:.0f}MiB"',
            )
        )
    return checks


def check_fit(
    label: str, asks: Iterable[tuple[PodAsks, str]], nodes: Sequence[Node]
) -> list[Check]:
    """Find pods for which no node is large enough, however empty.

    Parameters
    ----------
    asks : iterable of tuple of PodAsks and str
        A pod of each step, and what that asks for in words.
    """
    checks = []
    for one, words in asks:
        ready = [node for node in nodes if find_objection(one.spec, node) is None]
        amounts = find_amounts(one.spec)
        if not ready or any(not find_lack(amounts, node) for node in ready):
            continue
        nearest = min(ready, key=lambda node: len(find_lack(amounts, node)))
        lacks = find_lack(amounts, nearest)
        checks.append(
            doubtful(
                label,
                f"{one.step} would wait for ever, unless a larger node is added on demand",
                got=f"asks for {words}; {nearest.name} has "
                f"{describe_amounts({name: nearest.room.get(name, 0.0) for name in lacks})}",
                do="ask for less where the step is placed, or place it on another pool",
            )
        )
    return checks


def find_wait(
    pod: Mapping[str, Any] | None, events: Sequence[Mapping[str, Any]]
) -> Hindrance | None:
    """Say what keeps a pod, or the Job of one, from starting, where that has a name."""
    if pod is None:
        return find_failed_creation(events)
    return find_hindrance(parse_pod(pod)) or find_failed_start(events)


def explain_wait(
    look: Observation,
    pod: Mapping[str, Any] | None,
    events: Sequence[Mapping[str, Any]],
    waited_s: float,
) -> MusterError:
    """Say why a pod does not start, and what there is to do.

    Parameters
    ----------
    pod : mapping or None
        As the API server has it; None where there is none.
    events : sequence of mapping
        Of the pod; those of its Job where there is no pod.
    """
    hindrance = find_wait(pod, events)
    newest = sorted(events, key=lambda e: str(e.get("lastTimestamp") or e.get("eventTime") or ""))
    told = [f"{e.get('reason')}: {one_line(str(e.get('message') or ''))}" for e in newest]
    scaling = [one for one in told if "ScaleUp" in one]
    what = "the pod did not start, and was taken away"
    after = f", after {waited_s:.0f} s"
    longer = "try again with --patience 900"
    if hindrance is not None:
        words = f"{hindrance.reason}: {hindrance.message}" + after
        do = hindrance.do
        if hindrance.reason == "Unschedulable" and scaling:
            words += f" ({scaling[-1]})"
            do = longer if scaling[-1].startswith("Triggered") else do
        return MusterError(what, got=words, do=do)
    warnings = [o for o, e in zip(told, newest, strict=True) if e.get("type") == "Warning"]
    if pod is None:
        suspended = look.message == "the Job is suspended"
        return MusterError(
            "the Job did not start, and was deleted",
            got=(look.message or "it has no pod") + after,
            do="a queue has not let it start: see 'kubectl get workloads'" if suspended else longer,
        )
    pulling = bool(told) and told[-1].startswith("Pulling")
    return MusterError(
        what,
        where=(pod.get("spec") or {}).get("nodeName"),
        got=(warnings[-1] if warnings else (told[-1] if told else look.message or "waits")) + after,
        do=f"an image of some size takes long the first time: {longer}"
        if pulling and not warnings
        else "see 'kubectl describe pod' of any of yours, and correct the pool",
    )


def explain_end(look: Observation, output: str, image: str, work_uri: str) -> MusterError:
    """Say why a pod has left no result, by its end and the last of what it printed.

    Parameters
    ----------
    output : str
        The last lines of its log.
    """
    node = look.host or "the node"
    lines = [one_line(line) for line in output.splitlines() if line.strip()]
    last = lines[-1][-300:] if lines else (look.message or "nothing printed")[-300:]
    ended = look.state.value if not look.exit_code else f"{look.state}, exit code {look.exit_code}"
    if look.state is JobState.COMPLETED:
        return MusterError(
            "the pod ended well, and its result is not seen here", where=work_uri,
            got=f"no result on this machine; it ran on {node}: {last}",
            do="see that the claim or bucket is the same one there, and how far its caches lag "
            "(result_grace)",
        )  # fmt: skip
    own = next((line for line in reversed(lines) if line.startswith("muster: ")), None)
    if own is not None:
        return MusterError(
            "the pod cannot use the work directory", where=work_uri, got=f"{own} ({ended})",
            expected="what this machine has written there, and to write beside it",
            do="mount its claim at this path (volumes) with fs_group or run_as_user of who owns "
            "it, or give the credentials of S3 (env_from)",
        )  # fmt: skip
    if look.state in (JobState.FAILED, JobState.REFUSED):
        return MusterError(
            f"the environment does not start on {node}", where=f"image {image}",
            got=f"{last} ({ended})", expected="python with Muster (python of the cluster)",
            do="name an image that docs/images.md describes, or correct python",
        )  # fmt: skip
    return MusterError(
        "the pod ended without a result", where=node, got=f"{ended}; {look.message or last}",
        do="try again; see 'kubectl get events'",
    )  # fmt: skip


def _describe_rights(rights: Sequence[Right]) -> str:
    verbs: dict[str, list[str]] = {}
    for _, resource, verb in rights:
        verbs.setdefault(resource, []).append(verb)
    return "; ".join(f"{', '.join(said)} {resource}" for resource, said in verbs.items())


def _render_rules(rights: Sequence[Right]) -> str:
    """Render rules of a Role, each in a line's notation of YAML."""
    verbs: dict[tuple[str, str], list[str]] = {}
    for group, resource, verb in rights:
        verbs.setdefault((group, resource), []).append(verb)
    return ", ".join(
        f'{{apiGroups: ["{group}"], resources: [{resource}], verbs: [{", ".join(said)}]}}'
        for (group, resource), said in verbs.items()
    )
