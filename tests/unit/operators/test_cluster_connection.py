"""Airflow's connections as Muster's own client of a cluster takes them."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from muster.backends.kubernetes import connect
from muster.backends.kubernetes.connect import load_configuration, use_connections
from muster.errors import Transient
from muster.model.kubernetes_target import Kubernetes
from operators.cluster_connection import load_connection

if TYPE_CHECKING:
    from pathlib import Path

SERVER = "https://api.example.org:6443"


@pytest.fixture(autouse=True)
def _airflow_reads_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "_airflow", None)
    use_connections(load_connection)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)


@pytest.fixture
def kubeconfig() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "a",
        "clusters": [{"name": "a", "cluster": {"server": SERVER}}],
        "users": [{"name": "a", "user": {"token": "planted"}}],
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
    }


def load(monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any]) -> Any:
    """Read a connection that says this."""
    said = json.dumps({"conn_type": "kubernetes", "extra": extra})
    monkeypatch.setenv("AIRFLOW_CONN_GKE", said)
    return asyncio.run(load_configuration(Kubernetes(connection="gke")))


@pytest.mark.parametrize("prefix", ["", "extra__kubernetes__"])
@pytest.mark.parametrize("how", ["path", "text"])
def test_a_kubeconfig_by_its_path_or_as_text(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    kubeconfig: dict[str, Any],
    how: str,
    prefix: str,
) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(kubeconfig))
    by_path, by_text = {"kube_config_path": str(file)}, {"kube_config": json.dumps(kubeconfig)}
    extra = by_path if how == "path" else by_text
    found = load(monkeypatch, {f"{prefix}{key}": value for key, value in extra.items()})
    assert found.host == SERVER
    assert found.api_key["BearerToken"].endswith("planted")
    assert found.verify_ssl


def test_verification_may_be_turned_off(
    monkeypatch: pytest.MonkeyPatch, kubeconfig: dict[str, Any]
) -> None:
    extra = {"kube_config": json.dumps(kubeconfig), "disable_verify_ssl": True}
    assert not load(monkeypatch, extra).verify_ssl


def test_one_that_says_nothing_means_the_pod_that_airflow_runs_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    with pytest.raises(Transient, match=r"Service certification file|Service token"):
        load(monkeypatch, {})


@pytest.mark.parametrize(
    ("extra", "got"),
    [
        ({"kube_config_path": "/absent/kubeconfig"}, "Invalid kube-config file"),
        ({"kube_config_path": "/a", "in_cluster": True}, "mutually exclusive"),
        ({"kube_config": "not: [a kubeconfig"}, ""),
        ({"kube_config": '{"a": 1}'}, ""),
    ],
)
def test_one_that_cannot_be_used_is_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any], got: str
) -> None:
    with pytest.raises(Transient, match="connection 'gke'") as caught:
        load(monkeypatch, extra)
    assert got in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_that_there_is_not_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_GKE", raising=False)
    with pytest.raises(Transient, match="connection 'gke'"):
        asyncio.run(load_configuration(Kubernetes(connection="gke")))
