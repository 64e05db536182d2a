"""What of KubernetesPodOperator's arguments is Muster's or the site's, and where to say it instead.

All other arguments of it dress the pod of a batch.  None is ignored in silence: one that has no
effect here is refused, whether a DAG says it, ``default_args`` or a cluster policy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from muster.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from muster.model.kubernetes_target import Kubernetes

DEFAULT_CONNECTION = "kubernetes_default"

_OWN: tuple[tuple[dict[str, Any], str, str], ...] = (
    (
        {"cmds": [], "arguments": []},
        "a pod runs Muster's own command",
        "say the step's settings in the campaign, and another image in the pool",
    ),
    (
        {"name": None, "random_name_suffix": True},
        "a pod is named after its submission key",
        "leave it out: the labels dag_id, task_id and run_id find the pods",
    ),
    (
        {"active_deadline_seconds": None},
        "a pod's deadline follows from the placement",
        "say time in the placement, and start_grace in the pool",
    ),
    (
        {"termination_grace_period": None},
        "the pool says how long a pod may take to stop",
        "say termination_grace in the pool",
    ),
    (
        {
            "startup_timeout_seconds": 120,
            "schedule_timeout_seconds": 120,
            "startup_check_interval_seconds": 5,
        },
        "the cluster's table says how long a pod may be stuck",
        "say stuck_after in the cluster's table of the site file",
    ),
    (
        {
            "durable": True,
            "poll_interval": 2,
            "base_container_status_polling_interval": 1,
            "logging_interval": None,
            "trigger_kwargs": None,
            "skip_on_exit_code": [],
            "callbacks": [],
            "_progress_callback": None,
        },
        "Muster supervises the pods, deferred and found again by their key",
        "leave it out",
    ),
    (
        {"on_finish_action": "delete_pod", "on_kill_action": "delete_pod"},
        "Jobs are kept for the pool's ttl, and deleted when a task is marked or killed",
        "say ttl in the pool",
    ),
    (
        {
            "get_logs": True,
            "init_container_logs": None,
            "_container_logs": None,
            "container_name_log_prefix_enabled": True,
            "log_formatter": None,
            "log_events_on_failure": False,
            "log_events_on_startup": True,
            "log_pod_spec_on_failure": True,
        },
        "the task's log follows the log of each element",
        "leave it out",
    ),
    (
        {"base_container_name": "base"},
        "the container of the elements has a fixed name",
        "leave it out",
    ),
    (
        {"xcom_sidecar_container_security_context": None},
        "no pod has a sidecar: results come from the work directory",
        "leave it out",
    ),
)
"""Attribute → its default, why another value has no effect, and what to do."""


def check_own(arguments: Mapping[str, Any], where: str) -> None:
    """Refuse arguments that say what is Muster's to say.

    Parameters
    ----------
    arguments : mapping of str to object
        The operator's attributes.
    where : str
        The task.

    Raises
    ------
    ConfigError
        At the first.
    """
    for defaults, why, do in _OWN:
        for name, default in defaults.items():
            got = arguments.get(name, default)
            if getattr(got, "value", got) != default:
                raise ConfigError(
                    f"{name.lstrip('_')} is not for batches: {why}", where=where, got=got, do=do
                )


def check_cluster(arguments: Mapping[str, Any], cluster: Kubernetes, where: str) -> None:
    """Refuse arguments that name another cluster or namespace than the batch was frozen with.

    Raises
    ------
    ConfigError
        At the first.
    """
    for name, value in _ways(cluster):
        got = arguments.get(name)
        if got not in (None, value) and (name, got) != ("kubernetes_conn_id", DEFAULT_CONNECTION):
            raise ConfigError(
                f"{name} is another one than the site says",
                where=where,
                got=got,
                expected="none" if value is None else value,
                do=f"say it in the table of cluster {cluster.name} in the site file",
            )


def _ways(cluster: Kubernetes) -> Iterator[tuple[str, Any]]:
    """List what a cluster says of how it is reached, by the operator's names."""
    yield "kubernetes_conn_id", cluster.connection
    yield "in_cluster", cluster.in_cluster or None
    yield "cluster_context", cluster.context
    yield "config_file", cluster.kubeconfig
    yield "namespace", cluster.namespace
