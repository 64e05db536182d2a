"""What is wrong with an object beyond its fields' types: names, labels, and a Job's own rules."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tests.kubernetes_cluster.quantities import parse_quantity
from tests.kubernetes_cluster.schema import MISSING, UNKNOWN, check_fields
from tests.kubernetes_cluster.statuses import ApiRefusal, NotEmulated, invalid

if TYPE_CHECKING:
    from tests.kubernetes_cluster.resources import Resource

    Problems = list[tuple[str, str]]

LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
SUBDOMAIN = re.compile(
    r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
)
_NAME_PART = re.compile(r"(?=.{1,63}$)[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")

_JOB_UNKNOWN = (
    "activeDeadlineSeconds",
    "managedBy",
    "manualSelector",
    "maxFailedIndexes",
    "podFailurePolicy",
    "selector",
    "successPolicy",
)
_POD_UNKNOWN = (
    "ephemeralContainers",
    "initContainers",
    "resourceClaims",
    "schedulingGates",
    "topologySpreadConstraints",
)
_VOLUMES = {"configMap", "emptyDir", "persistentVolumeClaim", "secret"}
_SUBDOMAIN_WORDS = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or"
    " '.', and must start and end with an alphanumeric character"
)
_LABEL_WORDS = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or"
    " '.', and must start and end with an alphanumeric character"
)


def check_body(resource: Resource, body: Any, *, strict: bool = True) -> None:
    """Refuse what is not an object of this resource, in the server's words."""
    if not isinstance(body, dict):
        raise ApiRefusal(400, "the request body is not an object")
    for field, expected in (("kind", resource.kind), ("apiVersion", resource.api_version)):
        if body.get(field, expected) != expected:
            raise ApiRefusal(
                400,
                f"the {field} in the data ({body[field]}) does not match the expected"
                f" {field} ({expected})",
            )
    problems = check_fields(body, resource.kind, resource.api_version)
    unknown = [problem for problem in problems if problem.startswith(UNKNOWN)]
    missing = [problem for problem in problems if problem.startswith(MISSING)]
    mistyped = [problem for problem in problems if problem not in [*unknown, *missing]]
    said = f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}'
    if mistyped:
        raise ApiRefusal(400, f"{said}: {mistyped[0]}")
    if unknown and strict:
        raise ApiRefusal(400, f"{said}: strict decoding error: {', '.join(unknown)}")
    if missing:
        fields = [(problem.split('"')[1], "Required value") for problem in missing]
        raise invalid(resource, (body.get("metadata") or {}).get("name", ""), fields)


def check_metadata(meta: dict[str, Any], path: str = "metadata") -> Problems:
    """Return what is wrong with names, labels and annotations."""
    problems: Problems = []
    for key, value in (meta.get("labels") or {}).items():
        if not _is_qualified(key):
            problems.append((f"{path}.labels", f'Invalid value: "{key}": name part is no name'))
        if value and not _NAME_PART.fullmatch(value):
            problems.append((f"{path}.labels", f'Invalid value: "{value}": {_LABEL_WORDS}'))
    annotations = meta.get("annotations") or {}
    for key in annotations:
        if not _is_qualified(key):
            problems.append(
                (f"{path}.annotations", f'Invalid value: "{key}": name part is no name')
            )
    if sum(len(key) + len(value) for key, value in annotations.items()) > 256 * 1024:
        problems.append((f"{path}.annotations", "Too long: may not be more than 262144 bytes"))
    return problems


def _is_qualified(key: str) -> bool:
    prefix, slash, name = key.rpartition("/")
    return bool(_NAME_PART.fullmatch(name) and (not slash or SUBDOMAIN.fullmatch(prefix)))


def check_name(resource: Resource, meta: dict[str, Any]) -> Problems:
    name = meta.get("name") or (f"{meta['generateName']}x" if meta.get("generateName") else "")
    if not name:
        return [("metadata.name", "Required value: name or generateName is required")]
    short = resource.plural in ("namespaces",)
    if not (LABEL if short else SUBDOMAIN).fullmatch(name):
        return [("metadata.name", f'Invalid value: "{name}": {_SUBDOMAIN_WORDS}')]
    return []


def check_job(job: dict[str, Any]) -> Problems:
    """Return what is wrong with an Indexed Job, after its defaults are set."""
    spec = job["spec"]
    for field in _JOB_UNKNOWN:
        if spec.get(field) is not None:
            raise NotEmulated(f"a Job's {field}")
    if spec["completionMode"] != "Indexed" or spec.get("backoffLimitPerIndex") != 0:
        raise NotEmulated("Jobs other than Indexed ones with backoffLimitPerIndex 0")
    problems: Problems = []
    if spec.get("completions") is None:
        words = "Required value: when completion mode is Indexed"
        problems.append(("spec.completions", words))
    for field in ("completions", "parallelism", "ttlSecondsAfterFinished"):
        if (spec.get(field) or 0) < 0:
            words = f"Invalid value: {spec[field]}: must be greater than or equal to 0"
            problems.append((f"spec.{field}", words))
    if spec["parallelism"] > 100_000:
        words = f"Invalid value: {spec['parallelism']}: must be less than or equal to 100000"
        problems.append(("spec.parallelism", words))
    if spec["podReplacementPolicy"] not in ("Failed", "TerminatingOrFailed"):
        words = f'Unsupported value: "{spec["podReplacementPolicy"]}"'
        problems.append(("spec.podReplacementPolicy", words))
    last = f"{job['metadata']['name']}-{max((spec.get('completions') or 1) - 1, 0)}"
    if not LABEL.fullmatch(last):
        words = f'Invalid value: "{last}": will not able to create pod with invalid DNS label'
        problems.append(("metadata.name", words))
    return problems + _check_template(spec["template"])


def _check_template(template: dict[str, Any]) -> Problems:
    policy = template["spec"].get("restartPolicy", "Always")
    problems = check_metadata(template.get("metadata") or {}, "spec.template.metadata")
    if policy == "Always":
        words = 'Required value: valid values: "OnFailure", "Never"'
        problems.append(("spec.template.spec.restartPolicy", words))
    elif policy != "Never":
        words = f'Invalid value: "{policy}": only `Never` is supported'
        problems.append(("spec.template.spec.restartPolicy", words))
    return problems + check_pod_spec(template["spec"], "spec.template.spec")


def check_pod_spec(spec: dict[str, Any], path: str = "spec") -> Problems:
    """Return what is wrong with a pod; refuse what cannot be acted."""
    for field in _POD_UNKNOWN:
        if spec.get(field):
            raise NotEmulated(f"a pod's {field}")
    containers = spec.get("containers") or []
    if not containers:
        return [(f"{path}.containers", "Required value")]
    if len(containers) > 1:
        raise NotEmulated("pods of several containers")
    problems: Problems = []
    for volume in spec.get("volumes") or []:
        if unknown := set(volume) - _VOLUMES - {"name"}:
            raise NotEmulated(f"volumes of the kind {unknown.pop()}")
    volumes = {volume["name"] for volume in spec.get("volumes") or []}
    for number, container in enumerate(containers):
        where = f"{path}.containers[{number}]"
        problems += _check_container(container, volumes, where)
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline < 2**31:
        words = f"Invalid value: {deadline}: must be between 1 and 2147483647, inclusive"
        problems.append((f"{path}.activeDeadlineSeconds", words))
    return problems


def _check_container(container: dict[str, Any], volumes: set[str], where: str) -> Problems:
    problems: Problems = []
    if not LABEL.fullmatch(container["name"]):
        words = f'Invalid value: "{container["name"]}": a lowercase RFC 1123 label'
        problems.append((f"{where}.name", words))
    if not container.get("image"):
        problems.append((f"{where}.image", "Required value"))
    for mount in container.get("volumeMounts") or []:
        if mount["name"] not in volumes:
            problems.append((f"{where}.volumeMounts[0].name", f'Not found: "{mount["name"]}"'))
    for entry in container.get("env") or []:
        if entry.get("value") and entry.get("valueFrom"):
            words = "Invalid value: may not be specified when `value` is not empty"
            problems.append((f"{where}.env[0].valueFrom", words))
    return problems + _check_resources(container.get("resources") or {}, f"{where}.resources")


def _check_resources(resources: dict[str, Any], where: str) -> Problems:
    problems: Problems = []
    amounts: dict[str, dict[str, float]] = {"limits": {}, "requests": {}}
    for side, found in amounts.items():
        for name, text in (resources.get(side) or {}).items():
            if "/" not in name and name not in ("cpu", "memory", "ephemeral-storage"):
                words = f'Invalid value: "{name}": must be a standard resource type or fully'
                problems.append((f"{where}.{side}[{name}]", f"{words} qualified"))
                continue
            try:
                found[name] = parse_quantity(text)
            except ValueError:
                words = f'Invalid value: "{text}": quantities must match the regular expression'
                problems.append((f"{where}.{side}[{name}]", words))
    limits, requests = amounts["limits"], amounts["requests"]
    for name, amount in requests.items():
        extended = "/" in name
        if name in limits and (amount > limits[name] or (extended and amount != limits[name])):
            words = f'Invalid value: "{resources["requests"][name]}": must be '
            words += "equal to" if extended else "less than or equal to"
            problems.append((f"{where}.requests", f"{words} {name} limit"))
        if extended and name not in limits:
            problems.append(
                (
                    f"{where}.limits",
                    "Required value: Limit must be set for non overcommitable resources",
                )
            )
    return problems


def refuse_problems(resource: Resource, item: dict[str, Any], problems: Problems) -> None:
    if problems:
        meta = item["metadata"]
        raise invalid(resource, meta.get("name") or meta.get("generateName", ""), problems)
