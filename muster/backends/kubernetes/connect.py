"""How a cluster's API server is reached: a kubeconfig, the pod's own account, or Airflow's word.

A batch names the way and holds no secret.  Credentials are read where the process runs, and read
again when the API server takes them no longer: tokens of programs and files expire.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from muster.errors import ConfigError, Transient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kubernetes_asyncio.client.configuration import Configuration

    from muster.model.kubernetes_target import Kubernetes

    LoadConnection = Callable[[str], Awaitable[Configuration]]
    """Airflow's connection id → what it says."""

KUBECONFIG_VARIABLE = "KUBECONFIG"
SERVICE_VARIABLE = "KUBERNETES_SERVICE_HOST"
"""Set in every pod."""

_airflow: LoadConnection | None = None


def use_connections(load: LoadConnection | None) -> None:
    """Let Airflow's side read its connections for all clusters that this process opens."""
    global _airflow
    _airflow = load


async def load_configuration(cluster: Kubernetes) -> Configuration:
    """Read how a cluster is reached, with fresh credentials.

    Raises
    ------
    Transient
        When it cannot be read here: nothing of the batch is wrong with that.
    ConfigError
        When the library is not installed.
    """
    try:
        from kubernetes_asyncio.client.configuration import Configuration
        from kubernetes_asyncio.config import (
            ConfigException,
            load_incluster_config,
            load_kube_config,
        )
    except ImportError as error:
        raise ConfigError(
            "a pool on Kubernetes needs a library that is not installed",
            got=error,
            do="make kubernetes, or pip install kubernetes-asyncio outside the repository's .venv",
        ) from error

    where = f"cluster {cluster.name}"
    named = os.environ.get(KUBECONFIG_VARIABLE)
    if cluster.connection is not None:
        if _airflow is not None:
            return await _airflow(cluster.connection)
        if not named:
            raise Transient(
                "a connection of Airflow cannot be read outside Airflow",
                where=where,
                got=f"connection {cluster.connection!r}",
                do=f"set {KUBECONFIG_VARIABLE} to a kubeconfig of this cluster",
            )
    path = cluster.kubeconfig or named or str(Path("~/.kube/config").expanduser())
    in_pod = bool(os.environ.get(SERVICE_VARIABLE))
    chosen = cluster.kubeconfig or cluster.context
    configuration: Configuration = type.__call__(Configuration)
    try:
        if cluster.in_cluster or (in_pod and not chosen and not _has_file(path)):
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            return configuration
        if not _has_file(path):
            raise Transient(
                "no kubeconfig",
                where=where,
                got=path,
                do=f"set {KUBECONFIG_VARIABLE}, or kubeconfig or in_cluster in the site file",
            )
        await load_kube_config(
            config_file=path,
            context=cluster.context,
            client_configuration=configuration,
            persist_config=False,
        )
    except ConfigException as error:
        raise Transient("credentials cannot be used", where=where, got=error) from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise Transient("the kubeconfig cannot be read", where=path, got=error) from error
    return configuration


def _has_file(paths: str) -> bool:
    return any(Path(path).is_file() for path in paths.split(os.pathsep) if path)
