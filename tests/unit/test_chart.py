"""The Helm chart: its rights are those that the backend uses, and a wrong value is told.

Manifests are those that Helm renders; Kubernetes' own schemas judge them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from muster.backends.kubernetes.names import LABEL_MANAGED, MANAGED_BY, RIGHTS
from muster.cli import COMMANDS
from muster.site import render_pools
from tests.chart import (
    CHART,
    NAMESPACE,
    REPOSITORY,
    VALUE_SETS,
    VERSIONS,
    Manifest,
    ask_helm,
    invalid,
    lay_over,
    of_kind,
    one,
    pod_templates,
    read_values,
    render,
    set_value,
    write_site,
)

RENDERED = [name for name in VALUE_SETS if name != "own-objects"]


# ── what is rendered ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", VALUE_SETS)
@pytest.mark.parametrize("version", ["1.30", "1.33", "1.36"])
def test_lint_finds_nothing(name: str, version: str) -> None:
    report = ask_helm(
        "lint",
        CHART,
        read_values(name),
        strict=True,
        namespace=NAMESPACE,
        kube_version=f"v{version}.0",
    )
    assert [m for m in report["messages"] if m["severity"] > 1] == []
    assert report["errors"] == []


@pytest.mark.parametrize("name", VALUE_SETS)
def test_manifests_are_valid_for_the_oldest_and_the_newest_cluster(name: str) -> None:
    manifests = render(read_values(name))
    assert manifests
    for version in (VERSIONS[0], VERSIONS[-1]):
        assert [found for m in manifests if (found := invalid(m, version))] == []


@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_of_all_options_are_valid_for_every_version(version: str) -> None:
    manifests = render(read_values("everything"))
    assert [found for m in manifests if (found := invalid(m, version))] == []


def test_the_schemas_refuse_what_no_cluster_knows() -> None:
    job = one(render(read_values("minimal")), "Job", "muster-migrate")
    job = lay_over(job, {"spec": {"template": {"spec": {"restartPolici": "Never"}}}})
    assert "restartPolici" in str(invalid(job, VERSIONS[0]))


def test_the_chart_names_the_clusters_it_is_for() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["kubeVersion"] == f">={VERSIONS[0]}.0-0"
    pyproject = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    assert chart["appVersion"] == pyproject["project"]["version"]


@pytest.mark.parametrize("name", VALUE_SETS)
def test_every_object_lies_where_it_is_used(name: str) -> None:
    manifests = render(read_values(name))
    jobs = read_values(name).get("jobs", {}).get("namespace", NAMESPACE)
    cluster_wide = ("Namespace", "PriorityClass", "ClusterRole", "ClusterRoleBinding")
    for manifest in manifests:
        kind, metadata = manifest["kind"], manifest["metadata"]
        if kind in cluster_wide:
            assert "namespace" not in metadata
        elif kind in ("Role", "RoleBinding", "ResourceQuota", "PersistentVolumeClaim"):
            assert metadata["namespace"] == jobs
        elif kind in ("ConfigMap", "Job"):
            assert metadata["namespace"] == NAMESPACE
    names = [(m["kind"], m["metadata"].get("namespace"), m["metadata"]["name"]) for m in manifests]
    assert len(set(names)) == len(names)


# ── rights and secrets ────────────────────────────────────────────────────────────────────────


def rights(role: Manifest) -> list[tuple[str, str, str]]:
    return sorted(
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    )


def test_the_role_holds_exactly_the_rights_of_the_backend() -> None:
    role = one(render(read_values("minimal")), "Role", "muster-launcher")
    assert rights(role) == sorted(RIGHTS)
    assert all(set(rule) == {"apiGroups", "resources", "verbs"} for rule in role["rules"])


def test_supervisors_alone_have_them_in_the_namespace_of_jobs() -> None:
    manifests = render(read_values("two-namespaces"))
    binding = one(manifests, "RoleBinding", "muster-launcher")
    assert binding["metadata"]["namespace"] == "campaign-jobs"
    assert binding["roleRef"]["name"] == "muster-launcher"
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}
        for name in ("airflow-triggerer", "airflow-worker")
    ]


def test_nodes_are_listed_only_where_that_is_granted() -> None:
    assert of_kind(render(read_values("minimal")), "ClusterRole", "ClusterRoleBinding") == []
    manifests = render(read_values("two-namespaces"))
    (role,) = of_kind(manifests, "ClusterRole")
    assert rights(role) == [("", "nodes", "list")]
    (binding,) = of_kind(manifests, "ClusterRoleBinding")
    assert binding["roleRef"]["name"] == role["metadata"]["name"]


def test_pods_of_steps_have_an_account_without_a_token_or_rights() -> None:
    for name in RENDERED:
        manifests = render(read_values(name))
        for account in of_kind(manifests, "ServiceAccount"):
            assert account["automountServiceAccountToken"] is False
        own = {account["metadata"]["name"] for account in of_kind(manifests, "ServiceAccount")}
        bound = {s["name"] for b in of_kind(manifests, "RoleBinding") for s in b["subjects"]}
        assert own
        assert not own & bound


@pytest.mark.parametrize("name", VALUE_SETS)
def test_secrets_are_named_and_never_made(name: str) -> None:
    manifests = render(read_values(name))
    assert of_kind(manifests, "Secret") == []
    for template in pod_templates(manifests):
        for container in template["spec"]["containers"]:
            for variable in container["env"]:
                secret = variable["name"].endswith(("_URL", "_CONN", "PASSWORD", "KEY", "TOKEN"))
                assert ("secretKeyRef" in variable.get("valueFrom", {})) is secret


@pytest.mark.parametrize("name", VALUE_SETS)
def test_every_pod_keeps_the_restricted_standard(name: str) -> None:
    manifests = render(read_values(name))
    for template in pod_templates(manifests):
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert all("hostPath" not in volume for volume in spec["volumes"])
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]
    assert bool(pod_templates(manifests)) is (name in RENDERED)


# ── hooks, upgrades ───────────────────────────────────────────────────────────────────────────


def test_the_store_is_migrated_before_anything_else_changes() -> None:
    job = one(render(read_values("minimal")), "Job", "muster-migrate")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["python", "-m", "muster", "migrate"]
    assert "migrate" in COMMANDS
    assert container["image"] == "registry.example.org/muster-airflow:0.1.0"
    (url,) = [v for v in container["env"] if v["name"] == "MUSTER_STORE_URL"]
    assert url["valueFrom"] == {"secretKeyRef": {"name": "muster-store", "key": "url"}}


def test_hooks_find_their_account_and_are_made_anew() -> None:
    manifests = render(read_values("everything"))
    jobs = of_kind(manifests, "Job")
    (account,) = {job["spec"]["template"]["spec"]["serviceAccountName"] for job in jobs}
    hooks = [*jobs, one(manifests, "ServiceAccount", account)]
    before = "before-hook-creation"
    for hook in hooks:
        assert hook["metadata"]["annotations"]["helm.sh/hook-delete-policy"] == before
    weights = [int(h["metadata"]["annotations"]["helm.sh/hook-weight"]) for h in hooks]
    assert weights[-1] < min(weights[:-1])
    assert {m["kind"] for m in manifests if m["kind"] in ("Deployment", "StatefulSet")} == set()


def test_pools_are_not_imported_before_airflow_has_tables() -> None:
    job = one(render(read_values("minimal")), "Job", "muster-import-pools")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "post-upgrade,post-rollback"


def test_the_script_imports_the_pools_of_the_site_file(tmp_path: Path) -> None:
    values = read_values("shared-volume")
    site = write_site(tmp_path, values)
    script = one(render(values), "ConfigMap", "muster-pools")["data"]["import-pools.sh"]
    airflow = tmp_path / "airflow"
    airflow.write_text(f'#!/bin/sh\n[ "$1 $2" = "pools import" ] && cp "$3" {tmp_path}/imported\n')
    airflow.chmod(0o700)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{Path(sys.executable).parent}:/usr/bin:/bin",
        "TMPDIR": str(tmp_path),
        "MUSTER_SITE": str(tmp_path / "site.toml"),
        "PYTHONPATH": str(REPOSITORY),
    }
    subprocess.run(["sh", "-c", script], env=environment, check=True, timeout=60)
    assert yaml.safe_load((tmp_path / "imported").read_text()) == render_pools(site)
    airflow.write_text("#!/bin/sh\nexit 3\n")
    failed = subprocess.run(["sh", "-c", script], env=environment, check=False, timeout=60)
    assert failed.returncode == 3


IMMUTABLE = {
    "RoleBinding": lambda m: m["roleRef"],
    "ClusterRoleBinding": lambda m: m["roleRef"],
    "PriorityClass": lambda m: (m["value"], m["preemptionPolicy"]),
    "PersistentVolumeClaim": lambda m: {k: v for k, v in m["spec"].items() if k != "resources"},
    "NetworkPolicy": lambda m: m["spec"]["podSelector"],
    "Deployment": lambda m: m["spec"]["selector"],
    "StatefulSet": lambda m: m["spec"]["selector"],
}
"""What an upgrade may not change: by Kubernetes' own rule, or since pods that run would be lost."""


def fixed(manifests: list[Manifest]) -> dict[tuple[str, str], Any]:
    return {
        (m["kind"], m["metadata"]["name"]): IMMUTABLE[m["kind"]](m)
        for m in manifests
        if m["kind"] in IMMUTABLE
    }


def test_an_upgrade_to_all_options_and_the_next_version_keeps_what_cannot_change(
    tmp_path: Path,
) -> None:
    least = read_values("minimal")
    most = lay_over(least, read_values("everything"))
    del most["fullnameOverride"]
    most["jobs"]["serviceAccount"] = {}
    most["site"]["toml"] = most["site"]["toml"].replace("campaigns-work", "muster-work")
    newer = tmp_path / "muster"
    shutil.copytree(CHART, newer)
    text = (newer / "Chart.yaml").read_text()
    (newer / "Chart.yaml").write_text(text.replace("0.1.0", "2.3.4"))
    before, after = fixed(render(least)), fixed(render(most, newer))
    assert before
    assert {key: after[key] for key in before} == before
    again = fixed(render(most))
    assert again == after
    jobs = [m for m in render(most, newer) if m["kind"] == "Job"]
    assert all("helm.sh/hook" in job["metadata"]["annotations"] for job in jobs)


def checksum(values: dict[str, Any]) -> str:
    (template,) = {
        t["metadata"]["annotations"]["checksum/site"] for t in pod_templates(render(values))
    }
    return str(template)


def test_pods_tell_another_site_by_its_checksum() -> None:
    values = read_values("shared-volume")
    assert checksum(values) == checksum(set_value(values, "hooks.backoffLimit", 1))
    other = values["site"]["toml"].replace("slots = 20", "slots = 21")
    template = {"cpu-pod.yaml": "spec: {schedulerName: other}\n"}
    sums = {
        checksum(values),
        checksum(set_value(values, "site.toml", other)),
        checksum(set_value(values, "pools.podTemplates", template)),
    }
    assert len(sums) == 3


# ── networks, quotas, volumes ─────────────────────────────────────────────────────────────────


def test_nothing_reaches_pods_of_steps_and_they_reach_what_is_named() -> None:
    policy = one(render(read_values("two-namespaces")), "NetworkPolicy", "muster-jobs")
    spec = policy["spec"]
    assert policy["metadata"]["namespace"] == "campaign-jobs"
    assert spec["podSelector"] == {"matchLabels": {LABEL_MANAGED: MANAGED_BY}}
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert spec["ingress"] == []
    ports = [{p["port"] for p in rule["ports"]} for rule in spec["egress"]]
    assert ports == [{53}, {9000}, {5432}]


@pytest.mark.parametrize("name", VALUE_SETS)
def test_no_rule_of_a_policy_is_open_to_all(name: str) -> None:
    for policy in of_kind(render(read_values(name)), "NetworkPolicy"):
        for rule in policy["spec"]["egress"]:
            assert rule["to"]
            assert rule["ports"]
            assert {} not in rule["to"]


def test_pods_of_steps_reach_postgres_only_where_steps_load_into_it() -> None:
    values = set_value(read_values("two-namespaces"), "networkPolicy.postgres.jobs", False)
    manifests = render(values)
    jobs = one(manifests, "NetworkPolicy", "muster-jobs")["spec"]["egress"]
    hooks = one(manifests, "NetworkPolicy", "muster-hooks")["spec"]
    assert [[p["port"] for p in rule["ports"]] for rule in jobs] == [[53, 53], [9000]]
    assert [[p["port"] for p in rule["ports"]] for rule in hooks["egress"]] == [[53, 53], [5432]]
    for template in pod_templates(manifests):
        labels = template["metadata"]["labels"]
        assert hooks["podSelector"]["matchLabels"].items() <= labels.items()
        (expression,) = hooks["podSelector"]["matchExpressions"]
        assert labels[expression["key"]] in expression["values"]


def test_a_gpu_pool_has_a_class_and_a_quota_of_its_pods() -> None:
    manifests = render(read_values("everything"))
    quota = one(manifests, "ResourceQuota", "campaigns-a100")["spec"]
    assert quota["hard"] == {
        "requests.nvidia.com/gpu": "8",
        "pods": "16",
        "requests.cpu": "96",
        "requests.memory": "1Ti",
    }
    (scope,) = quota["scopeSelector"]["matchExpressions"]
    assert scope == {"scopeName": "PriorityClass", "operator": "In", "values": ["campaigns-a100"]}
    priority = one(manifests, "PriorityClass", "campaigns-a100")
    assert (priority["value"], priority["preemptionPolicy"]) == (1000, "PreemptLowerPriority")
    assert priority["globalDefault"] is False
    assert one(manifests, "ResourceQuota", "campaigns-jobs")["spec"]["hard"] == {"pods": "200"}


def test_slices_are_counted_and_a_class_of_the_clusters_own_is_not_made() -> None:
    manifests = render(read_values("mixed"))
    assert of_kind(manifests, "PriorityClass") == []
    quota = one(manifests, "ResourceQuota", "muster-slices")["spec"]
    assert quota["hard"] == {"requests.nvidia.com/mig-1g.10gb": "14"}
    assert quota["scopeSelector"]["matchExpressions"][0]["values"] == ["batch-low"]


def test_the_work_directory_is_shared_and_outlives_the_release() -> None:
    claim = one(render(read_values("shared-volume")), "PersistentVolumeClaim", "muster-work")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert claim["spec"]["resources"]["requests"]["storage"] == "20Ti"
    assert of_kind(render(read_values("own-objects")), "PersistentVolumeClaim") == []


def test_a_namespace_of_jobs_keeps_the_restricted_standard() -> None:
    namespace = one(render(read_values("two-namespaces")), "Namespace", "campaign-jobs")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert namespace["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
