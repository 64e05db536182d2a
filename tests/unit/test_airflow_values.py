"""Values for the official Airflow chart: they fit the chart muster beside it, and hold no secret.

MUSTER_AIRFLOW_CHART names a folder or archive of the official chart, against whose own schema and
templates the values are then held.
"""

from __future__ import annotations

import functools
import json
import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from muster.config import read_yaml
from tests.chart import (
    AIRFLOW_VALUES,
    CHART,
    NAMESPACE,
    REPOSITORY,
    Manifest,
    ask_helm,
    invalid,
    lay_over,
    of_kind,
    one,
    pod_templates,
    read_values,
    render,
    walk,
)

OFFICIAL = os.environ.get("MUSTER_AIRFLOW_CHART")
official = pytest.mark.skipif(
    OFFICIAL is None, reason="MUSTER_AIRFLOW_CHART does not name Airflow's official chart"
)
EXECUTORS = ("kubernetes-executor", "celery-executor")
STACKS = [(*work, executor) for work in ((), ("work-volume",)) for executor in EXECUTORS]
README = (CHART / "README.md").read_text()


def read_stack(*names: str) -> dict[str, Any]:
    """Lay the value files over each other as ``helm -f … -f …`` does."""
    files = [read_yaml(AIRFLOW_VALUES / f"{name}.yaml", ()) for name in names]
    return functools.reduce(lay_over, files)


def secrets_of(values: Any) -> set[str]:
    """Return the names of all Secrets that values or manifests refer to."""
    found = set()
    for path, value in walk(values):
        key = path.rpartition(".")[2]
        if key in ("secretName",) or (key.endswith(("SecretName",)) and value):
            found.add(value)
        if key == "jwtSecretName" or path.endswith("secretKeyRef.name"):
            found.add(value)
    return found


def test_both_charts_speak_of_the_same_airflow() -> None:
    values = read_stack("base")
    pyproject = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    pins = pyproject["project"]["optional-dependencies"]["airflow"]
    assert f"apache-airflow=={values['airflowVersion']}" in pins
    assert (
        values["defaultAirflowTag"]
        == yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    )
    assert values["defaultAirflowRepository"] == read_values("minimal")["image"]["repository"]


def test_airflow_runs_as_the_user_of_its_image() -> None:
    dockerfile = REPOSITORY / "docker" / "airflow.Dockerfile"
    values = read_stack("base")
    user = re.search(r"^USER (\d+):(\d+)$", dockerfile.read_text(), re.MULTILINE)
    assert user is not None
    assert (str(values["uid"]), str(values["gid"])) == user.groups()
    assert values["securityContexts"]["pod"]["runAsUser"] == values["uid"]


@pytest.mark.parametrize("names", [("base",), ("base", "work-volume")])
def test_what_airflow_mounts_is_made_by_the_chart(names: tuple[str, ...]) -> None:
    values = read_stack(*names)
    manifests = render(read_values("shared-volume"))
    made = {(m["kind"], m["metadata"]["name"]) for m in manifests}
    site, *work = values["volumes"]
    maps = [source["configMap"]["name"] for source in site["projected"]["sources"]]
    assert {("ConfigMap", name) for name in maps} <= made
    for volume in work:
        claim = volume["persistentVolumeClaim"]["claimName"]
        assert ("PersistentVolumeClaim", claim) in made
    assert {m["name"] for m in values["volumeMounts"]} == {v["name"] for v in values["volumes"]}
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    path = f"/etc/muster/{defaults['site']['name']}.toml"
    assert {"name": "MUSTER_SITE", "value": path} in values["env"]
    (pools,) = values["scheduler"]["extraInitContainers"]
    assert {"name": "MUSTER_SITE", "value": path} in pools["env"]
    script = Path(pools["command"][-1])
    assert str(script.parent) == "/etc/muster"
    assert script.name in one(manifests, "ConfigMap", "muster-pools")["data"]
    assert values["volumeMounts"][0]["mountPath"] == "/etc/muster"


@pytest.mark.parametrize("names", STACKS)
def test_values_hold_no_secret_and_every_one_is_told(names: tuple[str, ...]) -> None:
    values = read_stack("base", *names)
    named = secrets_of(values)
    assert named >= {"airflow-database", "muster-store", "airflow-jwt-secret"}
    assert [name for name in named if f"`{name}`" not in README] == []
    held = {
        "fernetKey",
        "jwtSecret",
        "apiSecretKey",
        "password",
        "pass",
        "brokerUrl",
        "extraSecrets",
    }
    assert [path for path, _ in walk(values) if path.rpartition(".")[2] in held] == []
    assert not re.search(r"://[^\s/]*:[^\s/]*@", json.dumps(values))


def test_two_triggerers_supervise() -> None:
    triggerer = read_stack("base")["triggerer"]
    assert triggerer["replicas"] == 2
    assert triggerer["podDisruptionBudget"]["enabled"] is True


# ── with the official chart ───────────────────────────────────────────────────────────────────


def rendered(names: tuple[str, ...]) -> list[Manifest]:
    values = read_stack("base", *names)
    return render(values, Path(OFFICIAL or ""), NAMESPACE, release="airflow")


@official
@pytest.mark.parametrize("names", STACKS)
def test_the_official_chart_takes_the_values(names: tuple[str, ...]) -> None:
    known = ask_helm("defaults", Path(OFFICIAL or ""), {})
    assert read_stack("base", *names).keys() <= known.keys()
    manifests = rendered(names)
    for version in ("1.30", "1.36"):
        assert [found for m in manifests if (found := invalid(m, version))] == []
    accounts = {m["metadata"]["name"] for m in of_kind(manifests, "ServiceAccount")}
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    assert {subject["name"] for subject in defaults["rbac"]["subjects"]} <= accounts
    generated = {"airflow-broker-url"}  # of the chart's own, for Celery alone
    assert {m["metadata"]["name"] for m in of_kind(manifests, "Secret")} <= generated
    assert [name for name in secrets_of(manifests) if f"`{name}`" not in README] == []
    assert one(manifests, "StatefulSet", "airflow-triggerer")["spec"]["replicas"] == 2


@official
@pytest.mark.parametrize("names", STACKS)
def test_every_part_of_airflow_finds_site_and_store(names: tuple[str, ...]) -> None:
    manifests = rendered(names)
    parts = of_kind(manifests, "Deployment", "StatefulSet")
    pods = {m["metadata"]["name"]: m["spec"]["template"] for m in parts}
    if names[-1] == "kubernetes-executor":
        config = one(manifests, "ConfigMap", "airflow-config")["data"]
        pods["airflow-worker"] = yaml.safe_load(config["pod_template_file.yaml"])
    for part in ("api-server", "dag-processor", "scheduler", "triggerer", "worker"):
        main = pods[f"airflow-{part}"]["spec"]["containers"][0]
        assert main["image"] == "registry.example.org/muster-airflow:0.1.0"
        variables = {v["name"]: v for v in main["env"]}
        store = {"secretKeyRef": {"name": "muster-store", "key": "url"}}
        assert variables["MUSTER_STORE_URL"]["valueFrom"] == store
        paths = {mount["mountPath"] for mount in main["volumeMounts"]}
        assert "/etc/muster" in paths
        assert ("/work" in paths) is ("work-volume" in names)
    first, then, *_ = pods["airflow-scheduler"]["spec"]["initContainers"]
    assert (first["name"], then["name"]) == ("wait-for-airflow-migrations", "import-pools")


@official
@pytest.mark.parametrize("executor", EXECUTORS)
def test_no_part_of_airflow_runs_as_root(executor: str) -> None:
    manifests = rendered((executor,))
    for template in pod_templates(manifests):
        spec = template["spec"]
        ours = [c for c in spec["containers"] if "muster-airflow" in c["image"]]
        for container in ours:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert spec["securityContext"]["runAsNonRoot"] is True
