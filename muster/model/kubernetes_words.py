"""What a site file may say in Kubernetes' own words: names, labels, images, volumes, variables.

All of it is checked when the site file is read, so that no pool waits for the API server's no.
"""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from muster.config import SizeMib
from muster.frozen import Frozen

if TYPE_CHECKING:
    from collections.abc import Callable

CONTAINER = "muster"
"""Name of the container that a pod's elements run in."""
SCRATCH_PATH = "/tmp"
SHM_PATH = "/dev/shm"
GPU = "nvidia.com/gpu"

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_QUALIFIED = re.compile(rf"({_SUBDOMAIN}/)?[A-Za-z0-9]([A-Za-z0-9_.-]{{0,61}}[A-Za-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_PATH_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    r"(?:(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]+)?/)?"
    rf"{_PATH_PART}(?:/{_PATH_PART})*(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DATA_KEY = re.compile(r"[A-Za-z0-9._-]{1,253}")

OWN_PREFIXES = ("muster.dev/", "batch.kubernetes.io/")
OWN_NAMES = frozenset({"app.kubernetes.io/managed-by", "job-name", "controller-uid"})
OWN_VARIABLES = re.compile(r"MUSTER_.*|JOB_COMPLETION_INDEX")
"""Variables of a pod that Muster and Kubernetes set."""


def _matching(pattern: re.Pattern[str], what: str, longest: int) -> Callable[[str], str]:
    def check(text: str) -> str:
        if len(text) > longest or not pattern.fullmatch(text):
            raise ValueError(f"is no {what} (at most {longest} characters)")
        return text

    return check


def _image(text: str) -> str:
    """Refuse an image that may be another one tomorrow, or on the next node."""
    match = _IMAGE.fullmatch(text)
    if match is None:
        raise ValueError("is no image: 'registry.example.org/muster/compute:1.2'")
    if match["digest"] is None and match["tag"] is None:
        raise ValueError("has no tag and no digest: 'NAME:TAG', or 'NAME@sha256:…'")
    if match["digest"] is None and match["tag"] == "latest":
        raise ValueError(
            "is tagged latest, which differs from day to day and from node to node: name a "
            "version, or a digest"
        )
    return text


def _folder(path: str) -> str:
    if not path.startswith("/") or not path.isprintable() or ":" in path:
        raise ValueError("should be an absolute path without ':'")
    if posixpath.normpath(path) != path or path == "/":
        raise ValueError("should be a folder below /, without '..' and '/' at its end")
    return path


def _below(path: str) -> str:
    if path.startswith("/") or posixpath.normpath(path) != path or ".." in path.split("/"):
        raise ValueError("should be a path inside the claim, without '..' and '/' at its ends")
    return path


def check_metadata_names(names: dict[str, str]) -> dict[str, str]:
    """Refuse names of labels or annotations that are none, or that others set.

    Raises
    ------
    ValueError
        When there is one.
    """
    for name in names:
        if not _QUALIFIED.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a label: 'team', 'example.org/team'")
        if name in OWN_NAMES or name.startswith(OWN_PREFIXES):
            raise ValueError(f"{name!r} is set by Muster itself, or by Kubernetes")
    return names


def check_labels(labels: dict[str, str]) -> dict[str, str]:
    """Refuse labels that Kubernetes would not take, or that others set.

    Raises
    ------
    ValueError
        When there is one.
    """
    for name, value in labels.items():
        if not _VALUE.fullmatch(value):
            raise ValueError(
                f"{name!r}: a label holds at most 63 letters, digits, '-', '_' and '.', not "
                f"{value!r}"
            )
    return check_metadata_names(labels)


def _selector(labels: dict[str, str]) -> dict[str, str]:
    for name, value in labels.items():
        if not _QUALIFIED.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ValueError(f"{name!r} = {value!r} is no label of a node")
    return labels


def check_variable(name: str) -> str:
    """Refuse the name of a variable that no process has, or that Muster sets.

    Raises
    ------
    ValueError
        When it is one.
    """
    if not _VARIABLE.fullmatch(name):
        raise ValueError(f"no variable can have this name: {name!r}")
    if OWN_VARIABLES.fullmatch(name):
        raise ValueError(f"variable {name!r} is set by Muster itself")
    return name


def _variables(variables: dict[str, str]) -> dict[str, str]:
    for name, value in variables.items():
        check_variable(name)
        if "\0" in value:
            raise ValueError(f"variable {name!r} holds a NUL")
    return variables


Label = Annotated[str, AfterValidator(_matching(re.compile(_LABEL), "DNS label", 63))]
"""A name as a namespace has it."""

Name = Annotated[str, AfterValidator(_matching(re.compile(_SUBDOMAIN), "name of an object", 253))]
"""A name as most objects have it: a Secret, a claim, a priority class."""

ResourceName = Annotated[
    str,
    Field(pattern=rf"^{_SUBDOMAIN}/[A-Za-z0-9]([A-Za-z0-9_.-]{{0,61}}[A-Za-z0-9])?$"),
]
"""A resource of a device plugin: nvidia.com/gpu, nvidia.com/mig-1g.10gb."""

Line = Annotated[str, Field(min_length=1, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""A text without line breaks."""

DataKey = Annotated[str, AfterValidator(_matching(_DATA_KEY, "key of a Secret", 253))]

Image = Annotated[str, AfterValidator(_image)]
"""An image with a tag or a digest."""

Folder = Annotated[str, AfterValidator(_folder)]
Below = Annotated[str, AfterValidator(_below)]
Labels = Annotated[dict[str, str], AfterValidator(check_labels)]
Annotations = Annotated[dict[str, str], AfterValidator(check_metadata_names)]
Selector = Annotated[dict[str, str], AfterValidator(_selector)]
PodVariables = Annotated[dict[str, str], AfterValidator(_variables)]


class Toleration(Frozen):
    """A taint of nodes that pods of a pool tolerate.

    Attributes
    ----------
    key, operator, value, effect
        As Kubernetes takes them.
    toleration_seconds : int or None
        How long a pod stays on a node that gets such a taint, in seconds.
    """

    key: str | None = None
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _check(self) -> Toleration:
        if self.operator == "Exists" and self.value is not None:
            raise ValueError("operator Exists has no value")
        if self.key is None and self.operator != "Exists":
            raise ValueError("a toleration without a key needs operator = 'Exists'")
        if self.key is not None and not _QUALIFIED.fullmatch(self.key):
            raise ValueError(f"{self.key!r} is no key of a taint")
        if self.value is not None and not _VALUE.fullmatch(self.value):
            raise ValueError(f"{self.value!r} is no value of a taint")
        if self.toleration_seconds is not None and self.effect != "NoExecute":
            raise ValueError("toleration_seconds: only with effect = 'NoExecute'")
        return self


class _Source(Frozen):
    """A Secret or a ConfigMap.

    Attributes
    ----------
    secret, config_map : str or None
        Its name: one of both.
    optional : bool
        Whether a pod starts without it.
    """

    secret: Name | None = None
    config_map: Name | None = None
    optional: bool = False

    @model_validator(mode="after")
    def _check(self) -> _Source:
        if (self.secret is None) == (self.config_map is None):
            raise ValueError("names either a secret or a config_map")
        return self


class EnvFrom(_Source):
    """A Secret or ConfigMap whose keys are all variables of a pod.

    Attributes
    ----------
    secret, config_map, optional
        Which.
    prefix : str
        What the variables' names begin with.
    """

    prefix: Annotated[str, Field(pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$")] = ""


class KeyFrom(_Source):
    """One key of a Secret or ConfigMap.

    Attributes
    ----------
    secret, config_map, optional
        Which.
    key : str
        Its key.
    """

    key: DataKey


class SecretKey(Frozen):
    """One key of a Secret.

    Attributes
    ----------
    secret, key : str
        Its name and key.
    """

    secret: Name
    key: DataKey


class Volume(Frozen):
    """A volume of a pool's pods: a claim that keeps what is written, or an empty folder.

    Attributes
    ----------
    path : str
        Where pods see it.
    claim : str or None
        Name of a PersistentVolumeClaim.
    sub_path : str or None
        Folder of the claim, where not all of it is meant.
    read_only : bool
        Whether pods may only read it.
    empty_dir : int or None
        Size of an empty folder that ends with the pod, in MiB.
    memory : bool
        Whether the empty folder is memory, which counts as the pod's.
    """

    path: Folder
    claim: Name | None = None
    sub_path: Below | None = None
    read_only: bool = False
    empty_dir: SizeMib | None = None
    memory: bool = False

    @model_validator(mode="after")
    def _check(self) -> Volume:
        if (self.claim is None) == (self.empty_dir is None):
            raise ValueError("is either a claim or an empty_dir with its size")
        if self.claim is None and (self.sub_path is not None or self.read_only):
            raise ValueError("sub_path and read_only: only with a claim")
        if self.claim is not None and self.memory:
            raise ValueError("memory: only with empty_dir")
        return self
