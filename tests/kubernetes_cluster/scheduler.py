"""Which node a pod goes to, and in which words the scheduler says that it goes to none."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from tests.kubernetes_cluster.admission import ENDED, requests_of
from tests.kubernetes_cluster.conditions import find_condition, is_true, set_condition, write_event
from tests.kubernetes_cluster.quantities import parse_quantity
from tests.kubernetes_cluster.statuses import NotEmulated

if TYPE_CHECKING:
    from tests.kubernetes_cluster.storage import Storage

    Object = dict[str, Any]
    Used = dict[str, dict[str, float]]


def schedule(store: Storage) -> None:
    """Bind each pod that waits for a node, or say why it goes on waiting."""
    pods = store.list("pods")
    waiting = [
        pod
        for pod in pods
        if not pod["spec"].get("nodeName")
        and pod["status"]["phase"] == "Pending"
        and not pod["metadata"].get("deletionTimestamp")
    ]
    if not waiting:
        return
    nodes, used = store.list("nodes"), count_used(pods)
    waiting.sort(key=lambda pod: int(pod["metadata"]["resourceVersion"]))
    for pod in sorted(waiting, key=lambda pod: -pod["spec"].get("priority", 0)):
        claim = missing_claim(store, pod)
        reasons = {
            node["metadata"]["name"]: [claim] if claim else misfits(pod, node, used)
            for node in nodes
        }
        fits = [name for name, why in reasons.items() if not why]
        if fits:
            chosen = min(fits, key=lambda name: used[name]["pods"])
            _bind(store, pod, chosen)
            for name, amount in {**requests_of(pod), "pods": 1.0}.items():
                used[chosen][name] += amount
        else:
            _tell(store, pod, no_node_message(reasons))


def count_used(pods: list[Object]) -> Used:
    used: Used = defaultdict(lambda: defaultdict(float))
    for pod in pods:
        node = pod["spec"].get("nodeName")
        if node and pod["status"]["phase"] not in ENDED:
            for name, amount in {**requests_of(pod), "pods": 1.0}.items():
                used[node][name] += amount
    return used


def missing_claim(store: Storage, pod: Object) -> str:
    """Return the scheduler's words for a volume claim that is not there."""
    for volume in pod["spec"].get("volumes") or []:
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        namespace = pod["metadata"]["namespace"]
        if claim and store.find("persistentvolumeclaims", namespace, claim) is None:
            return f'persistentvolumeclaim "{claim}" not found'
    return ""


def misfits(pod: Object, node: Object, used: Used) -> list[str]:
    """Return why a pod cannot go to a node: the words of the first check that it fails."""
    spec = pod["spec"]
    taint = next((t for t in _taints(node) if not _tolerates(spec, t)), None)
    if node["spec"].get("unschedulable"):
        return ["node(s) were unschedulable"]
    if taint is not None:
        value = taint.get("value", "")
        return [f"node(s) had untolerated taint {{{taint['key']}: {value}}}"]
    if not _selected(spec, node):
        return ["node(s) didn't match Pod's node affinity/selector"]
    name = node["metadata"]["name"]
    room = {key: parse_quantity(text) for key, text in node["status"]["allocatable"].items()}
    if used[name]["pods"] + 1 > room.get("pods", 110):
        return ["Too many pods"]
    return [
        f"Insufficient {key}"
        for key, amount in requests_of(pod).items()
        if amount > 0 and used[name][key] + amount > room.get(key, 0.0)
    ]


def _taints(node: Object) -> list[Object]:
    return [t for t in node["spec"].get("taints") or [] if t["effect"] != "PreferNoSchedule"]


def _tolerates(spec: Object, taint: Object) -> bool:
    for toleration in spec.get("tolerations") or []:
        exists = toleration.get("operator", "Equal") == "Exists"
        same_key = toleration.get("key") in (taint["key"], *((None, "") if exists else ()))
        same_value = exists or toleration.get("value", "") == taint.get("value", "")
        if same_key and same_value and toleration.get("effect") in (taint["effect"], None, ""):
            return True
    return False


def _selected(spec: Object, node: Object) -> bool:
    labels = node["metadata"].get("labels", {})
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    needed = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if not needed:
        return True
    return any(
        all(_matches(labels, e) for e in term.get("matchExpressions") or [])
        and all(
            _matches({"metadata.name": node["metadata"]["name"]}, e)
            for e in term.get("matchFields") or []
        )
        for term in needed["nodeSelectorTerms"]
    )


def _matches(labels: dict[str, str], expression: Object) -> bool:
    key, operator = expression["key"], expression["operator"]
    values = expression.get("values") or []
    if operator in ("In", "NotIn"):
        return (labels.get(key) in values) is (operator == "In")
    if operator in ("Exists", "DoesNotExist"):
        return (key in labels) is (operator == "Exists")
    if operator in ("Gt", "Lt"):
        number, limit = int(labels.get(key, 0)), int(values[0])
        return key in labels and (number > limit if operator == "Gt" else number < limit)
    raise NotEmulated(f"the node selector operator {operator}")


def no_node_message(reasons: dict[str, list[str]]) -> str:
    """Count the reasons as the scheduler does: "0/2 nodes are available: 2 Insufficient cpu."."""
    if not reasons:
        return "no nodes available to schedule pods"
    counts = Counter(why for found in reasons.values() for why in found)
    words = ", ".join(sorted(f"{number} {why}" for why, number in counts.items()))
    total = len(reasons)
    short = sum(all(w.startswith("Insuff") for w in found) for found in reasons.values())
    preemption = []
    if total - short:
        preemption.append(f"{total - short} Preemption is not helpful for scheduling")
    if short:
        preemption.append(f"{short} No preemption victims found for incoming pod")
    ending = f"preemption: 0/{total} nodes are available: {', '.join(preemption)}."
    return f"0/{total} nodes are available: {words}. {ending}"


def _bind(store: Storage, pod: Object, node: str) -> None:
    meta = pod["metadata"]
    with store.edit("pods", meta["namespace"], meta["name"]) as bound:
        bound["spec"]["nodeName"] = node
        set_condition(bound, "PodScheduled")
    said = f"Successfully assigned {meta['namespace']}/{meta['name']} to {node}"
    write_event(store, pod, "default-scheduler", "Scheduled", said)


def _tell(store: Storage, pod: Object, message: str) -> None:
    known = find_condition(pod, "PodScheduled")
    if known is not None and not is_true(pod, "PodScheduled") and known["message"] == message:
        return
    meta = pod["metadata"]
    with store.edit("pods", meta["namespace"], meta["name"]) as unbound:
        set_condition(unbound, "PodScheduled", value=False, reason="Unschedulable", message=message)
    write_event(store, pod, "default-scheduler", "FailedScheduling", message, warning=True)
