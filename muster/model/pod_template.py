"""A pool's further pod template: what a site may add to its pods beyond the pool's own keys.

It says what Muster has no key for: host aliases, spread constraints, init containers, volumes of
other kinds.  What Muster sets itself, or has a key for, is refused with that key's name, so that
nothing is said in two places.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator

from muster.model.kubernetes_words import (
    CONTAINER,
    check_labels,
    check_metadata_names,
    check_variable,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SPEC_KEYS = {
    "nodeSelector": "node_selector",
    "tolerations": "tolerations",
    "affinity": "affinity",
    "priorityClassName": "priority_class",
    "runtimeClassName": "runtime_class",
    "serviceAccountName": "service_account",
    "serviceAccount": "service_account",
    "imagePullSecrets": "pull_secrets",
    "terminationGracePeriodSeconds": "termination_grace",
    "securityContext": "run_as_user, run_as_group and fs_group",
    **dict.fromkeys(
        (
            "activeDeadlineSeconds", "automountServiceAccountToken", "enableServiceLinks",
            "ephemeralContainers", "hostIPC", "hostPID", "hostname", "nodeName", "priority",
            "restartPolicy", "setHostnameAsFQDN", "shareProcessNamespace", "subdomain",
        )
    ),
}  # fmt: skip
"""Keys of a pod's spec that are Muster's → the pool's keys that say them, if any."""

CONTAINER_KEYS = {
    "image": "image",
    "imagePullPolicy": "image_pull_policy",
    "envFrom": "env_from",
    "securityContext": "run_as_user and run_as_group",
    **dict.fromkeys(
        (
            "args", "command", "restartPolicy", "stdin", "stdinOnce", "tty", "workingDir",
            "livenessProbe", "readinessProbe", "startupProbe",
        )
    ),
}  # fmt: skip
"""Keys of Muster's container that are Muster's → the pool's keys that say them, if any."""

_RESOURCES = ("cpu", "memory")


def check_pod_template(template: dict[str, Any]) -> dict[str, Any]:
    """Refuse what a further pod template may not say; return it without apiVersion and kind.

    Raises
    ------
    ValueError
        At the first key that is Muster's, or not a pod's.
    """
    _check_plain(template, "")
    if template.get("apiVersion", "v1") != "v1" or template.get("kind", "Pod") != "Pod":
        raise ValueError("should be of kind Pod, apiVersion v1, or say neither")
    said = {key: value for key, value in template.items() if key not in ("apiVersion", "kind")}
    _check_keys(said, ("metadata", "spec"), "")
    metadata = _mapping(said, "metadata")
    _check_keys(metadata, ("annotations", "labels"), "metadata.")
    check_labels(_texts(metadata, "labels"))
    check_metadata_names(_texts(metadata, "annotations"))
    spec = _mapping(said, "spec")
    _check_own(spec, SPEC_KEYS, "spec")
    containers = _list(spec, "containers")
    if len(containers) > 1 or any(one.get("name") != CONTAINER for one in containers):
        raise ValueError(f"spec.containers: may hold one container alone, named {CONTAINER!r}")
    for container in containers:
        _check_container(container, f"spec.containers[{CONTAINER}]")
    return said


def _check_container(container: Mapping[str, Any], where: str) -> None:
    _check_own(container, CONTAINER_KEYS, where)
    for variable in _list(container, "env"):
        check_variable(str(variable.get("name")))
    resources = _mapping(container, "resources")
    for kind in ("limits", "requests"):
        for name in _mapping(resources, kind):
            if name in _RESOURCES:
                raise ValueError(f"{where}.resources: {name} is said by the placement")


def _check_own(said: Mapping[str, Any], own: Mapping[str, str | None], where: str) -> None:
    for key in said:
        if key in own:
            named = own[key]
            how = "is set by Muster itself" if named is None else f"is said by the pool's {named}"
            raise ValueError(f"{where}.{key}: {how}")


def _check_keys(said: Mapping[str, Any], allowed: Iterable[str], where: str) -> None:
    for key in said:
        if key not in allowed:
            raise ValueError(f"unknown key {where}{key}; there are {', '.join(allowed)}")


def _check_plain(value: Any, where: str) -> None:
    """Refuse what JSON cannot hold, such as the dates of TOML and YAML."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise ValueError(f"{where or 'the template'}: key {key!r} should be a text")  # noqa: TRY004 - pydantic's
            _check_plain(inner, f"{where}.{key}".removeprefix("."))
    elif isinstance(value, list | tuple):
        for place, inner in enumerate(value):
            _check_plain(inner, f"{where}[{place}]")
    elif not isinstance(value, str | int | float | bool | None):
        raise ValueError(f"{where}: {type(value).__name__} should be a text or a number")  # noqa: TRY004 - pydantic's


def _mapping(said: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = said.get(key)
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{key}: should be a mapping")
    return value or {}


def _texts(said: Mapping[str, Any], key: str) -> dict[str, str]:
    value = _mapping(said, key)
    for name, text in value.items():
        if not isinstance(text, str):
            raise ValueError(f"{key}.{name}: should be a text, in quotes")  # noqa: TRY004 - pydantic's
    return value


def _list(said: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    value = said.get(key)
    if value is not None and (
        not isinstance(value, list) or not all(isinstance(one, dict) for one in value)
    ):
        raise ValueError(f"{key}: should be a list of mappings")
    return value or []


PodTemplate = Annotated[dict[str, Any], AfterValidator(check_pod_template)]
"""A pod as YAML has it, of what a pool has no key for."""
