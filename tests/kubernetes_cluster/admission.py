"""What the server does to an object before it stores it: defaults, then who may forbid it."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from tests.kubernetes_cluster.limits import default_limit_range, fill_in_limits, find_over_limits
from tests.kubernetes_cluster.quantities import parse_quantity
from tests.kubernetes_cluster.resources import RESOURCES
from tests.kubernetes_cluster.statuses import NotEmulated, forbidden
from tests.kubernetes_cluster.validation import (
    check_job,
    check_metadata,
    check_name,
    check_pod_spec,
    refuse_problems,
)

if TYPE_CHECKING:
    from tests.kubernetes_cluster.storage import Storage

    Object = dict[str, Any]

ENDED = ("Succeeded", "Failed")


def admit(store: Storage, plural: str, item: Object) -> None:
    """Fill in defaults, check, and refuse what may not be made; changes the object."""
    resource = RESOURCES[plural]
    meta = item["metadata"]
    problems = [*check_name(resource, meta), *check_metadata(meta)]
    refuse_problems(resource, item, problems)
    if plural == "jobs":
        _default_job(item)
        refuse_problems(resource, item, check_job(item))
    elif plural == "pods":
        ranges = store.list("limitranges", meta.get("namespace", ""))
        fill_in_limits(ranges, item["spec"])
        _default_pod(item)
        refuse_problems(resource, item, check_pod_spec(item["spec"]))
        _check_classes(store, item)
        why = ", ".join(find_over_limits(ranges, item["spec"]))
        if why:
            raise forbidden(resource, meta.get("name") or meta.get("generateName", ""), why)
    elif plural == "secrets":
        for key, value in (item.pop("stringData", None) or {}).items():
            item.setdefault("data", {})[key] = base64.b64encode(value.encode()).decode()
        item.setdefault("type", "Opaque")
    elif plural == "persistentvolumeclaims":
        item["status"] = {"phase": "Bound"}
    elif plural == "limitranges":
        default_limit_range(item)
    elif plural == "namespaces":
        item["status"] = {"phase": "Active"}
    _check_quotas(store, plural, item)


def _default_job(job: Object) -> None:
    spec = job["spec"]
    for key, value in {
        "parallelism": 1,
        "completionMode": "NonIndexed",
        "suspend": False,
        "podReplacementPolicy": "TerminatingOrFailed",
    }.items():
        if spec.get(key) is None:
            spec[key] = value
    if spec.get("backoffLimit") is None:
        spec["backoffLimit"] = 6 if spec.get("backoffLimitPerIndex") is None else 2**31 - 1
    default_pod_spec(spec["template"]["spec"])
    job["status"] = {}


def finish_job(job: Object, uid: str) -> None:
    """Bind the pods to come to a Job by its uid."""
    meta, spec = job["metadata"], job["spec"]
    meta["uid"] = uid
    meta["generation"] = 1
    template = spec["template"].setdefault("metadata", {})
    labels = template["labels"] = dict(template.get("labels") or {})
    if not meta.get("labels"):
        meta["labels"] = dict(labels)
    labels["batch.kubernetes.io/controller-uid"] = labels["controller-uid"] = uid
    labels["batch.kubernetes.io/job-name"] = labels["job-name"] = meta["name"]
    spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}


def default_pod_spec(spec: Object) -> None:
    for key, value in {
        "dnsPolicy": "ClusterFirst",
        "schedulerName": "default-scheduler",
        "terminationGracePeriodSeconds": 30,
        "securityContext": {},
    }.items():
        spec.setdefault(key, value)
    for container in spec.get("containers") or []:
        latest = container.get("image", "").rpartition("/")[2].partition(":")[2] in ("", "latest")
        digest = "@" in container.get("image", "")
        policy = "Always" if latest and not digest else "IfNotPresent"
        container.setdefault("imagePullPolicy", policy)
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        container.setdefault("terminationMessagePolicy", "File")
        resources = container.setdefault("resources", {})
        if resources.get("limits"):
            resources["requests"] = {**resources["limits"], **(resources.get("requests") or {})}


def _default_pod(pod: Object) -> None:
    spec = pod["spec"]
    default_pod_spec(spec)
    if spec.setdefault("restartPolicy", "Always") != "Never":
        raise NotEmulated("pods that are restarted")
    spec.setdefault("serviceAccountName", "default")
    spec.setdefault("enableServiceLinks", True)
    spec.setdefault("priority", 0)
    tolerations = spec.setdefault("tolerations", [])
    for name in ("not-ready", "unreachable"):
        key = f"node.kubernetes.io/{name}"
        if not any(t.get("key") in (key, None) for t in tolerations):
            tolerations.append(
                {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
            )
    pod["status"] = {"phase": "Pending", "qosClass": "Burstable"}


def _check_classes(store: Storage, pod: Object) -> None:
    meta, spec = pod["metadata"], pod["spec"]
    resource, name = RESOURCES["pods"], meta.get("name") or meta.get("generateName", "")
    account = spec["serviceAccountName"]
    if store.find("serviceaccounts", meta["namespace"], account) is None:
        where = f"{meta['namespace']}/{account}"
        why = f'error looking up service account {where}: serviceaccount "{account}" not found'
        raise forbidden(resource, name, why)
    priority = spec.get("priorityClassName")
    if priority:
        found = store.find("priorityclasses", "", priority)
        if found is None:
            raise forbidden(resource, name, f"no PriorityClass with name {priority} was found")
        spec["priority"] = found["value"]
    runtime = spec.get("runtimeClassName")
    if runtime and store.find("runtimeclasses", "", runtime) is None:
        why = f'pod rejected: RuntimeClass "{runtime}" not found'
        raise forbidden(resource, name, why)


# -- quotas ----------------------------------------------------------------------------------


def requests_of(pod: Object) -> dict[str, float]:
    found: dict[str, float] = {}
    for container in pod["spec"]["containers"]:
        for name, text in (container.get("resources", {}).get("requests") or {}).items():
            found[name] = found.get(name, 0.0) + parse_quantity(text)
    return found


def _usage(item: Object, plural: str, name: str) -> float | None:
    """Return how much of a quota's resource an object uses; None where it does not say."""
    if name == f"count/{RESOURCES[plural].qualified}" or name == plural:
        return 1.0
    if plural != "pods" or name.startswith("count/") or name in RESOURCES:
        return 0.0
    side, _, what = name.partition(".")
    if side in ("limits", "requests") and what:
        amounts = [c.get("resources", {}).get(side) or {} for c in item["spec"]["containers"]]
        if any(what not in amount for amount in amounts) and "/" not in what:
            return None
        return sum(parse_quantity(amount.get(what, 0)) for amount in amounts)
    if name in ("cpu", "memory"):
        return _usage(item, plural, f"requests.{name}")
    raise NotEmulated(f"a quota of {name}")


def _number(amount: float) -> str:
    return f"{amount:.15g}"


def _check_quotas(store: Storage, plural: str, item: Object) -> None:
    namespace = item["metadata"].get("namespace", "")
    name = item["metadata"].get("name") or item["metadata"].get("generateName", "")
    alive = [
        one
        for one in store.list(plural, namespace)
        if plural != "pods" or one["status"].get("phase") not in ENDED
    ]
    for quota in store.list("resourcequotas", namespace) if namespace else ():
        hard = (quota.get("spec") or {}).get("hard") or {}
        asked = {key: _usage(item, plural, key) for key in hard}
        missing = [key for key, amount in asked.items() if amount is None]
        title = quota["metadata"]["name"]
        if missing:
            why = f"failed quota: {title}: must specify {','.join(missing)}"
            raise forbidden(RESOURCES[plural], name, why)
        used = {key: sum(_usage(one, plural, key) or 0.0 for one in alive) for key in hard}
        over = [
            key
            for key, amount in asked.items()
            if amount and used[key] + amount > parse_quantity(hard[key])
        ]
        if over:
            requested = ",".join(f"{key}={_number(asked[key] or 0)}" for key in over)
            taken = ",".join(f"{key}={_number(used[key])}" for key in over)
            limited = ",".join(f"{key}={hard[key]}" for key in over)
            why = f"exceeded quota: {title}, requested: {requested}, used: {taken}"
            raise forbidden(RESOURCES[plural], name, f"{why}, limited: {limited}")
