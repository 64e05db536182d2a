"""Airflow's connections to Kubernetes clusters, read for Muster's own client of the API server."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import yaml

from muster.backends.kubernetes.connect import SERVICE_VARIABLE
from muster.errors import Transient

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kubernetes_asyncio.client.configuration import Configuration

_WAYS = ("in_cluster", "kube_config_path", "kube_config")
"""What a connection says of how the API server is reached."""


async def load_connection(conn_id: str) -> Configuration:
    """Read what a connection of Airflow says, with fresh credentials.

    A connection that says nothing means the account of this process's pod, or else the default
    kubeconfig, as it does for KubernetesPodOperator.

    Raises
    ------
    Transient
        When it cannot be read or used now: nothing of a batch is wrong with that.
    """
    from airflow.providers.cncf.kubernetes.hooks.kubernetes import AsyncKubernetesHook
    from airflow.sdk.exceptions import AirflowException, AirflowRuntimeError
    from kubernetes_asyncio.client.configuration import Configuration
    from kubernetes_asyncio.config import ConfigException

    configuration: Configuration = type.__call__(Configuration)
    hook = AsyncKubernetesHook(conn_id=conn_id, client_configuration=configuration)
    try:
        extras = await hook.get_conn_extras()
        said = any(_read_field(extras, way) for way in _WAYS)
        if not said and os.environ.get(SERVICE_VARIABLE):
            hook.in_cluster = True
        async with hook.get_conn() as client:
            found: Configuration = client.configuration
    except (
        AirflowException,
        AirflowRuntimeError,
        ConfigException,
        OSError,
        ValueError,
        yaml.YAMLError,
    ) as error:
        raise Transient(
            "Airflow's connection cannot be used",
            where=f"connection {conn_id!r}",
            got=error,
            do="mend it under Admin, Connections: batches wait meanwhile",
        ) from error
    unverified = _read_field(extras, "disable_verify_ssl")
    if str(unverified).strip().lower() == "true":
        found.verify_ssl = False
    return found


def _read_field(extras: Mapping[str, Any], name: str) -> Any:
    """Return a field of a connection, which older ones have under a longer name."""
    return extras.get(name) or extras.get(f"extra__kubernetes__{name}")
