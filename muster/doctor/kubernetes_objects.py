"""What else of a namespace and a cluster a pod names: Secrets, claims, classes, and are they there.

They are found in the pod as it is rendered, so that the pool's further template is looked at, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from muster.doctor.check import Check, bad, doubtful

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    Found = Mapping["Named", "Mapping[str, Any] | None"]

_WORDS = {
    "Secret": "env_from, environment_from, store and pull_secrets",
    "ConfigMap": "env_from and environment_from",
    "PersistentVolumeClaim": "volumes",
    "ServiceAccount": "service_account",
    "PriorityClass": "priority_class",
    "RuntimeClass": "runtime_class",
}


@dataclass(frozen=True)
class Named:
    """An object that a pod names.

    Attributes
    ----------
    kind, name : str
        What it is.
    keys : tuple of str
        Those of a Secret or ConfigMap that the pod takes one by one.
    optional : bool
        Whether the pod starts without it.
    pulls : bool
        Whether it is what an image is pulled with.
    """

    kind: str
    name: str
    keys: tuple[str, ...] = ()
    optional: bool = False
    pulls: bool = False

    def __str__(self) -> str:
        """Say which it is."""
        return f"{self.kind} {self.name}"


def find_named_objects(spec: Mapping[str, Any]) -> list[Named]:
    """List what a pod names, each once."""
    found: dict[tuple[str, str], Named] = {}
    for one in _list_named(spec):
        known = found.get((one.kind, one.name), one)
        found[one.kind, one.name] = Named(
            one.kind,
            one.name,
            tuple(dict.fromkeys((*known.keys, *one.keys))),
            known.optional and one.optional,
            known.pulls and one.pulls,
        )
    return list(found.values())


def check_objects(
    label: str, found: Found, namespace: str, *, work_claim: str | None, slots: int
) -> list[Check]:
    """Say what of that which a pod names is there, and what is not as it should be.

    Parameters
    ----------
    found : mapping of Named to mapping or None
        What was looked at, as the API server has it; None of what is not there.
    work_claim : str or None
        The claim that the work directory lies in.
    """
    checks, good = [], []
    for named, item in found.items():
        problem = _check_object(label, named, item, namespace)
        if problem is None and item is not None and named.kind == "PersistentVolumeClaim":
            problem = _check_claim(
                label, named, item, shared=named.name == work_claim and slots > 1
            )
        if problem is not None:
            checks.append(problem)
        elif item is not None:
            good.append(str(named))
    if good:
        verb = "is" if len(good) == 1 else "are"
        checks.insert(0, Check(label, True, f"{', '.join(good)} {verb} there"))
    return checks


def describe_unseen(label: str, unseen: Iterable[Named]) -> list[Check]:
    """Say what may not be looked at; the pod that is sent later tells whether it is there."""
    names = ", ".join(str(named) for named in unseen)
    if not names:
        return []
    said = f"may not look at {names} (no right to get them): whether they are there, the pod tells"
    return [Check(label, True, said)]


def _check_object(
    label: str, named: Named, item: Mapping[str, Any] | None, namespace: str
) -> Check | None:
    scope = "the cluster" if named.kind.endswith("Class") else f"namespace {namespace}"
    if item is None and named.optional:
        return None
    if item is None and named.pulls:
        return doubtful(
            label,
            f"no {named} in {scope}: images are pulled without it",
            do="make it, or correct pull_secrets of the pool",
        )
    if item is None:
        return bad(
            label, f"no {named}", where=scope,
            do=f"make it, or correct {_WORDS[named.kind]} of the pool",
        )  # fmt: skip
    if named.kind not in ("Secret", "ConfigMap"):
        return None
    keys = {*(item.get("data") or {}), *(item.get("binaryData") or {})}
    missing = [key for key in named.keys if key not in keys]
    if missing and not named.optional:
        return bad(
            label, f"{named} lacks {', '.join(missing)}", where=scope,
            got=", ".join(sorted(keys)) or "no key at all",
            do=f"add it, or correct {_WORDS[named.kind]} of the pool",
        )  # fmt: skip
    return None


def _check_claim(
    label: str, named: Named, item: Mapping[str, Any], *, shared: bool
) -> Check | None:
    phase = (item.get("status") or {}).get("phase")
    if phase == "Lost":
        return bad(label, f"{named} has lost its volume", got=phase, do="make another one")
    if item["metadata"].get("deletionTimestamp"):
        return bad(label, f"{named} is being deleted", do="make another one")
    modes = (item.get("spec") or {}).get("accessModes") or []
    if shared and not {"ReadWriteMany"} & set(modes):
        return doubtful(
            label,
            f"{named} holds the work directory and is for one node alone: pods on another node "
            "wait for it",
            got=", ".join(modes) or "no access mode",
            do='use a claim with ReadWriteMany, or work = "s3://…" of the site',
        )
    return None


def _list_named(spec: Mapping[str, Any]) -> Iterator[Named]:
    for key, kind in (
        ("serviceAccountName", "ServiceAccount"),
        ("priorityClassName", "PriorityClass"),
        ("runtimeClassName", "RuntimeClass"),
    ):
        if spec.get(key):
            yield Named(kind, spec[key])
    for one in spec.get("imagePullSecrets") or ():
        yield Named("Secret", one["name"], pulls=True)
    for volume in spec.get("volumes") or ():
        yield from _list_sources(volume)
        for source in (volume.get("projected") or {}).get("sources") or ():
            yield from _list_sources(source)
    for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        for source in container.get("envFrom") or ():
            yield from _list_refs(source, "secretRef", "configMapRef")
        for variable in container.get("env") or ():
            yield from _list_refs(
                variable.get("valueFrom") or {}, "secretKeyRef", "configMapKeyRef"
            )


def _list_refs(source: Mapping[str, Any], secret: str, config_map: str) -> Iterator[Named]:
    for key, kind in ((secret, "Secret"), (config_map, "ConfigMap")):
        said = source.get(key)
        if said and said.get("name"):
            keys = (said["key"],) if "key" in said else ()
            yield Named(kind, said["name"], keys, bool(said.get("optional")))


def _list_sources(volume: Mapping[str, Any]) -> Iterator[Named]:
    """List what a volume, or one source of a projected one, is made of."""
    if claim := volume.get("persistentVolumeClaim"):
        yield Named("PersistentVolumeClaim", claim["claimName"])
    for key, kind in (("secret", "Secret"), ("configMap", "ConfigMap")):
        said = volume.get(key) or {}
        if name := said.get("secretName") or said.get("name"):
            keys = tuple(item["key"] for item in said.get("items") or ())
            yield Named(kind, name, keys, bool(said.get("optional")))
