"""What a container sees: its variables, its mounted folders, and its command with both put in."""

from __future__ import annotations

import base64
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.kubernetes_cluster.quantities import parse_quantity

if TYPE_CHECKING:
    from tests.kubernetes_cluster.storage import Storage

    Object = dict[str, Any]


class ConfigProblem(Exception):
    """What the kubelet waits for, and says meanwhile."""


class MountProblem(Exception):
    """A volume that is not there yet."""


@dataclass(frozen=True)
class Mounts:
    """Where each mount path of a container really lies on this machine."""

    local: dict[str, str]

    def translate(self, text: str) -> str:
        """Put the real folder in place of a mount path at the start of a word."""
        scheme, path = ("file://", text[7:]) if text.startswith("file://") else ("", text)
        for mount in sorted(self.local, key=len, reverse=True):
            if path == mount or path.startswith(f"{mount}/"):
                return f"{scheme}{self.local[mount]}{path[len(mount) :]}"
        return text


def expand(text: str, known: dict[str, str]) -> str:
    """Put variables in place of $(NAME); $$ is a dollar, and an unknown name stays."""

    def replace(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        return known.get(found[1], found[0])

    return re.sub(r"\$\$|\$\(([^()]*)\)", replace, text)


def make_mounts(store: Storage, pod: Object, folder: Path) -> Mounts:
    """Make the folders of a pod's volumes; MountProblem where one cannot be had."""
    volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes") or []}
    container = pod["spec"]["containers"][0]
    local = {}
    for mount in container.get("volumeMounts") or []:
        volume, path = volumes[mount["name"]], mount["mountPath"].rstrip("/")
        if "persistentVolumeClaim" in volume:
            if not Path(path).is_dir():
                name = volume["name"]
                raise MountProblem(f'MountVolume.SetUp failed for volume "{name}": no {path} here')
            local[path] = path
        else:
            own = folder / "volumes" / volume["name"]
            own.mkdir(parents=True, exist_ok=True)
            _fill(store, pod, volume, own)
            local[path] = str(own / mount["subPath"] if "subPath" in mount else own)
    return Mounts(local)


def _fill(store: Storage, pod: Object, volume: Object, folder: Path) -> None:
    for plural, key, words in (
        ("secrets", "secret", "secret"),
        ("configmaps", "configMap", "configmap"),
    ):
        source = volume.get(key)
        if source is None:
            continue
        name = source.get("secretName") or source.get("name")
        data = _read_data(store, plural, pod["metadata"]["namespace"], name)
        if data is None and not source.get("optional"):
            said = f'MountVolume.SetUp failed for volume "{volume["name"]}" : {words}'
            raise MountProblem(f'{said} "{name}" not found')
        wanted = {item["key"]: item["path"] for item in source.get("items") or []}
        for entry, value in (data or {}).items():
            if not wanted or entry in wanted:
                (folder / wanted.get(entry, entry)).write_text(value)


def _read_data(store: Storage, plural: str, namespace: str, name: str) -> dict[str, str] | None:
    found = store.find(plural, namespace, name)
    if found is None:
        return None
    data = found.get("data") or {}
    if plural == "secrets":
        return {key: base64.b64decode(text).decode() for key, text in data.items()}
    return dict(data)


def make_environment(store: Storage, pod: Object) -> dict[str, str]:
    """Return the variables that the pod gives; ConfigProblem where a source is missing."""
    container = pod["spec"]["containers"][0]
    namespace = pod["metadata"]["namespace"]
    known: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        for plural, key, word in (
            ("secrets", "secretRef", "secret"),
            ("configmaps", "configMapRef", "configmap"),
        ):
            ref = source.get(key)
            if ref is None:
                continue
            data = _read_data(store, plural, namespace, ref["name"])
            if data is None and not ref.get("optional"):
                raise ConfigProblem(f'{word} "{ref["name"]}" not found')
            prefix = source.get("prefix", "")
            known |= {f"{prefix}{name}": value for name, value in (data or {}).items()}
    for entry in container.get("env") or []:
        if "valueFrom" in entry:
            value = _value_from(store, pod, entry["valueFrom"])
        else:
            value = expand(entry.get("value") or "", known)
        if value is not None:
            known[entry["name"]] = value
    return known


def _value_from(store: Storage, pod: Object, source: Object) -> str | None:
    namespace = pod["metadata"]["namespace"]
    for plural, key, word in (
        ("secrets", "secretKeyRef", "Secret"),
        ("configmaps", "configMapKeyRef", "ConfigMap"),
    ):
        ref = source.get(key)
        if ref is None:
            continue
        data = _read_data(store, plural, namespace, ref["name"])
        if data is not None and ref["key"] in data:
            return data[ref["key"]]
        if ref.get("optional"):
            return None
        if data is None:
            raise ConfigProblem(f'{word.lower()} "{ref["name"]}" not found')
        raise ConfigProblem(f"couldn't find key {ref['key']} in {word} {namespace}/{ref['name']}")
    if "fieldRef" in source:
        return _field(pod, source["fieldRef"]["fieldPath"])
    if "resourceFieldRef" in source:
        return _amount(pod, source["resourceFieldRef"])
    raise ConfigProblem(f"unknown source {source}")


def _field(pod: Object, path: str) -> str:
    if found := re.fullmatch(r"metadata\.(labels|annotations)\['([^']+)'\]", path):
        return str((pod["metadata"].get(found[1]) or {}).get(found[2], ""))
    value: Any = pod
    for part in path.split("."):
        value = value.get(part, "") if isinstance(value, dict) else ""
    return str(value)


def _amount(pod: Object, ref: Object) -> str:
    side, _, what = ref["resource"].partition(".")
    resources = pod["spec"]["containers"][0].get("resources", {})
    amount = parse_quantity((resources.get(side) or {}).get(what, "0"))
    return str(math.ceil(amount / parse_quantity(ref.get("divisor") or "1")))
