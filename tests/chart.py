"""Charts as Helm renders them, without a cluster: manifests, refusals, findings.

Helm is that of the package helm-python-sdk, whose wheel has 75 MB: tests that need it are skipped
where it is not installed.
"""

from __future__ import annotations

import atexit
import contextlib
import copy
import importlib.util
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from muster.config import read_yaml
from muster.site import Site, read_site

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parents[1]
CHART = REPOSITORY / "helm" / "muster"
AIRFLOW_VALUES = REPOSITORY / "helm" / "airflow-values"
VALUE_SETS = sorted(path.name.removesuffix("-values.yaml") for path in CHART.glob("ci/*.yaml"))
VERSIONS = [f"1.{minor}" for minor in range(30, 37)]
RELEASE = "muster"
NAMESPACE = "campaigns"

Manifest = dict[str, Any]


class Refused(Exception):
    """Helm refuses a chart, or its values."""


@cache
def _start_helm() -> subprocess.Popen[str]:
    if importlib.util.find_spec("helm_python") is None:
        pytest.skip("helm-python-sdk is not installed: make helm")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.helm_process"],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(process.communicate)
    return process


def ask_helm(what: str, chart: Path, values: dict[str, Any], **options: Any) -> Any:
    """Ask Helm to ``render`` or ``lint`` a chart, or for its ``defaults``."""
    process = _start_helm()
    assert process.stdin is not None
    assert process.stdout is not None
    question = {"what": what, "chart": str(chart), "values": values, "options": options}
    process.stdin.write(json.dumps(question) + "\n")
    process.stdin.flush()
    found = json.loads(process.stdout.readline())
    if "refused" in found:
        raise Refused(found["refused"])
    return found["answer"]


def read_values(name: str) -> dict[str, Any]:
    """Read one of the chart's own value sets."""
    return read_yaml(CHART / "ci" / f"{name}-values.yaml", ())


def lay_over(values: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Lay values over others as Helm does: mappings are merged, anything else is replaced."""
    merged = copy.deepcopy(values)
    for key, value in above.items():
        below = merged.get(key)
        both = isinstance(value, dict) and isinstance(below, dict)
        merged[key] = lay_over(below, value) if both else copy.deepcopy(value)
    return merged


def set_value(values: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Set one value, as ``--set path=value`` does."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return lay_over(values, value)


@cache
def _render(chart: Path, values: str, namespace: str, release: str) -> dict[str, str]:
    rendered: dict[str, str] = ask_helm(
        "render", chart, json.loads(values), name=release, namespace=namespace
    )
    return rendered


def render_files(
    values: dict[str, Any],
    chart: Path = CHART,
    namespace: str = NAMESPACE,
    release: str = RELEASE,
) -> dict[str, str]:
    """Render a chart: template → text."""
    return _render(chart, json.dumps(values, sort_keys=True), namespace, release)


def render(
    values: dict[str, Any],
    chart: Path = CHART,
    namespace: str = NAMESPACE,
    release: str = RELEASE,
) -> list[Manifest]:
    """Render a chart: its manifests, those of hooks too."""
    files = render_files(values, chart, namespace, release)
    return [
        manifest
        for name in sorted(files)
        if name.endswith(".yaml")
        for manifest in yaml.load_all(files[name], yaml.CSafeLoader)
        if manifest
    ]


def refusal(values: dict[str, Any]) -> str:
    """Return what Helm says of values that the chart refuses."""
    with pytest.raises(Refused) as refused:
        render(values)
    return str(refused.value)


def write_site(folder: Path, values: dict[str, Any]) -> Site:
    """Read the site of values as Airflow does, with the files that are mounted beside it."""
    (folder / "site.toml").write_text(values["site"]["toml"])
    for name, text in values.get("pools", {}).get("podTemplates", {}).items():
        (folder / name).write_text(text)
    return read_site(str(folder / "site.toml"))


def of_kind(manifests: list[Manifest], *kinds: str) -> list[Manifest]:
    """Return the manifests of some kinds."""
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def one(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    """Return the one manifest of a kind and name."""
    found = [m for m in of_kind(manifests, kind) if m["metadata"]["name"] == name]
    assert len(found) == 1, f"{len(found)} × {kind} {name}"
    return found[0]


def pod_templates(manifests: list[Manifest]) -> list[Manifest]:
    """Return all pod templates of manifests."""
    specs = [m["spec"]["template"] for m in manifests if "template" in m.get("spec", {})]
    return [*specs, *of_kind(manifests, "Pod")]


def walk(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Go through all that a manifest says: path, value."""
    yield path, value
    children: Any = ()
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list):
        children = enumerate(value)
    for key, child in children:
        yield from walk(child, f"{path}.{key}" if path else str(key))


def invalid(manifest: Manifest, version: str) -> str | None:
    """Return what a Kubernetes version finds wrong with a manifest, unknown fields too."""
    return _invalid(json.dumps(manifest, sort_keys=True), version)


@cache
def _invalid(text: str, version: str) -> str | None:
    manifest = json.loads(text)
    validate = pytest.importorskip(
        "kubernetes_validate", reason="kubernetes-validate is not installed: make helm"
    )
    with contextlib.suppress(validate.SchemaNotFoundError):
        try:
            validate.validate(manifest, version, strict=True)
        except validate.ValidationError as error:
            return f"{manifest['kind']}: {error.message}"
        return None
    return f"{manifest['kind']}: {manifest['apiVersion']} is not in Kubernetes {version}"
