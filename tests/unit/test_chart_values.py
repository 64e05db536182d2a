"""Values of the Helm chart: the site is taken as it is written, and a wrong value is named."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from muster.model.kubernetes_target import KubernetesTarget
from muster.site import SITES_FOLDER, read_site
from tests.chart import (
    CHART,
    NAMESPACE,
    VALUE_SETS,
    lay_over,
    of_kind,
    one,
    read_values,
    refusal,
    render,
    render_files,
    set_value,
    walk,
    write_site,
)

if TYPE_CHECKING:
    from pathlib import Path

S3 = {"s3": {"enabled": True, "cidrs": ["203.0.113.0/24"]}}


@pytest.mark.parametrize("name", [name for name in VALUE_SETS if name != "own-objects"])
def test_the_site_reaches_airflow_as_it_is_written(name: str, tmp_path: Path) -> None:
    values = read_values(name)
    manifests = render(values)
    prefix = values.get("fullnameOverride", "muster")
    data = one(manifests, "ConfigMap", f"{prefix}-site")["data"]
    assert data == {f"{values['site'].get('name', 'kubernetes')}.toml": values["site"]["toml"]}
    templates = dict(one(manifests, "ConfigMap", f"{prefix}-pools")["data"])
    del templates["import-pools.sh"]
    assert templates == values.get("pools", {}).get("podTemplates", {})
    site = write_site(tmp_path, values)
    targets = [pool.target(site) for pool in site.pools.values() if pool.backend == "kubernetes"]
    here = [t for t in targets if isinstance(t, KubernetesTarget) and t.cluster.in_cluster]
    assert here
    made = {m["metadata"]["name"] for m in of_kind(manifests, "PriorityClass")}
    assert made <= {target.priority_class for target in here}


@pytest.mark.parametrize("path", sorted(SITES_FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_every_site_of_the_repository_can_be_deployed(path: Path) -> None:
    site = read_site(str(path))
    namespaces = {
        target.cluster.namespace
        for pool in site.pools.values()
        if isinstance(target := pool.target(site), KubernetesTarget)
        if not (target.cluster.context or target.cluster.kubeconfig or target.cluster.connection)
    }
    values = {
        "image": {"repository": "registry.example.org/muster-airflow"},
        "site": {"name": path.stem, "toml": path.read_text()},
        "pools": {"podTemplates": {p.name: p.read_text() for p in SITES_FOLDER.glob("*.yaml")}},
        "jobs": {"namespace": namespaces.pop() if namespaces else ""},
        "networkPolicy": S3,
    }
    data = one(render(values), "ConfigMap", "muster-site")["data"]
    assert data[path.name] == path.read_text()


def test_notes_say_what_has_to_be_there() -> None:
    notes = render_files(read_values("everything"))["muster/templates/NOTES.txt"]
    for word in ("campaign-store", "airflow-metadata", "campaigns-work", "campaigns-a100"):
        assert word in notes
    assert f'namespace = "{NAMESPACE}"' in notes


A100 = {"gpus": 8, "priorityClass": {"value": 1000}}
WRONG: list[tuple[str, str, Any, str]] = [
    ("minimal", "image.repository", "", "image.repository is empty: name the image"),
    ("minimal", "image.repository", "a.org/x:1", 'image.repository "a.org/x:1" has a tag'),
    ("minimal", "image.tag", "latest", 'image.tag is "latest"'),
    ("minimal", "image.digest", "sha256:1", 'image.digest is "sha256:1": expected'),
    ("minimal", "image.tag", 1.2, "at '/image/tag': got number, want string"),
    ("minimal", "image.pullPolicy", "Sometimes", "at '/image/pullPolicy'"),
    ("minimal", "imagee.tag", "1", "additional properties 'imagee' not allowed"),
    ("minimal", "site.toml", "", "site.toml is empty: give the site file"),
    ("minimal", "site.toml", "[pools\n", "site.toml is not a TOML file"),
    ("minimal", "site.toml", "[pools]\n", "site.toml has no table [placement]"),
    ("minimal", "site.existingConfigMap", "mine", "site.toml and site.existingConfigMap"),
    ("minimal", "site.name", "a/b", "at '/site/name'"),
    ("minimal", "jobs.namespace", "elsewhere", 'pool "cpu" runs in the namespace "campaigns"'),
    ("minimal", "jobs.namespace", "Else_where", 'jobs.namespace is "Else_where"'),
    ("minimal", "jobs.createNamespace", True, "jobs.createNamespace is set, but jobs.namespace"),
    ("minimal", "jobs.serviceAccount.create", False, "jobs.serviceAccount.name is empty"),
    ("minimal", "jobs.quota", {"pods": "many"}, "at '/jobs/quota/pods'"),
    ("minimal", "rbac.subjects", [], "rbac.subjects is empty: name Airflow's"),
    ("minimal", "rbac.subjects", [{"nam": "x"}], "at '/rbac/subjects/0'"),
    ("minimal", "store.secretName", "", "at '/store/secretName'"),
    ("minimal", "pools.podTemplates", {"a/b.yaml": "a: 1"}, 'pools.podTemplates has a file "a/b'),
    ("minimal", "pools.podTemplates", {"a.yaml": "- 1"}, "pools.podTemplates.a.yaml is not a YAML"),
    ("minimal", "pools.podTemplates", {"a.yaml": ""}, "it is empty"),
    ("minimal", "gpuPools", {"jobs": A100}, 'gpuPools has a pool "jobs"'),
    ("minimal", "gpuPools", {"a100": {}}, "at '/gpuPools/a100': missing property 'gpus'"),
    ("minimal", "gpuPools", {"a100": {"gpus": 0}}, "at '/gpuPools/a100/gpus'"),
    ("minimal", "gpuPools", {"a": {**A100, "resource": "gpu"}}, 'gpuPools.a.resource is "gpu"'),
    ("s3", "gpuPools.b", {**A100, "priorityClass": {"name": "muster-a100"}}, "gpuPools.b.priority"),
    ("s3", "gpuPools.a100.priorityClass.value", 2000000000, "gpuPools.a100.priorityClass.value"),
    ("s3", "gpuPools.a100.priorityClass.name", "system-x", "gpuPools.a100.priorityClass.name"),
    ("s3", "work.enabled", True, "work.enabled, but site.toml keeps the work directory on s3://"),
    ("shared-volume", "work.size", "big", 'work.size is "big": expected a size with its unit'),
    ("shared-volume", "work.accessMode", "ReadOnlyMany", "at '/work/accessMode'"),
    ("s3", "networkPolicy.s3.enabled", False, "networkPolicy.s3.enabled is false, but site.toml"),
    ("s3", "networkPolicy.s3.cidrs", [], "networkPolicy.s3.enabled says no place"),
    ("s3", "networkPolicy.s3.cidrs", ["10.0.0.0"], 'networkPolicy.s3.cidrs has "10.0.0.0"'),
    ("s3", "networkPolicy.s3.ports", [0], "at '/networkPolicy/s3/ports/0'"),
    ("minimal", "networkPolicy.dns.namespace", "", "networkPolicy.dns.namespace is empty"),
    ("minimal", "networkPolicy.extraEgress", [{"from": []}], "at '/networkPolicy/extraEgress/0'"),
]


@pytest.mark.parametrize(
    ("name", "path", "value", "says"), WRONG, ids=lambda x: x if isinstance(x, str) else ""
)
def test_a_wrong_value_is_named(name: str, path: str, value: Any, says: str) -> None:
    assert says in refusal(set_value(read_values(name), path, value))


def test_a_claim_that_airflow_would_not_see_is_refused() -> None:
    values = read_values("shared-volume")
    toml = values["site"]["toml"].replace('"campaigns"', '"campaign-jobs"')
    values = lay_over(values, {"site": {"toml": toml}, "jobs": {"namespace": "campaign-jobs"}})
    assert "a claim belongs to one namespace" in refusal(values)
    assert render(set_value(values, "work.existingClaim", "shared"))


def test_a_cluster_elsewhere_may_have_any_namespace() -> None:
    values = read_values("mixed")
    toml = values["site"]["toml"]
    here = toml.replace('connection = "partner_cluster"', "in_cluster = true")
    assert 'pool "other"' in refusal(set_value(values, "site.toml", here))
    default = toml.replace('connection = "partner_cluster"\nnamespace = "visitors"\n', "")
    assert 'the namespace "default"' in refusal(set_value(values, "site.toml", default))


def test_the_schema_knows_every_value_and_no_other() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())

    def compare(node: dict[str, Any], values: dict[str, Any], where: str) -> None:
        if "$ref" in node:
            node = schema["definitions"][node["$ref"].rpartition("/")[2]]
        if "properties" not in node:
            return
        assert node["additionalProperties"] is False
        assert node["properties"].keys() - {"global"} == values.keys(), where
        for key, value in values.items():
            if isinstance(value, dict):
                compare(node["properties"][key], value, f"{where}.{key}")

    compare(schema, defaults, "")
    for path, node in walk(schema):
        if isinstance(node, dict) and node.get("type") == "object" and "properties" in node:
            assert node["additionalProperties"] is False, path
