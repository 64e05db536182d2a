"""The operator of a batch on Kubernetes: a KubernetesPodOperator whose pod and life are Muster's.

Its class and its arguments are those that cluster policies, mutation hooks and people know.  What
they make of the pod of a batch is kept in the store, and every wave of the batch is submitted with
it.  The life of the pods is that of any other deferred batch.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
from airflow.sdk.exceptions import AirflowFailException

from muster.backends.kubernetes.merge import check_dressed, merge_pod
from muster.backends.kubernetes.render import render_pod, target_of
from muster.backends.registry import BACKENDS
from muster.config import read_yaml
from muster.errors import InvalidInput, MissingInput
from muster.model.kubernetes_target import KubernetesTarget
from muster.model.kubernetes_words import CONTAINER
from muster.store import batches, pods
from muster.store.database import Database
from operators.batch import BatchOperator
from operators.pod_arguments import check_cluster, check_own

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from airflow.sdk import Context
    from jinja2 import Environment

    from muster.model.batch import Batch
    from muster.store.records import Claim

TERMINATION_MESSAGE_POLICY = "FallbackToLogsOnError"
POD_KEYS = ("apiVersion", "kind", "metadata", "spec")
BASE_CONTAINER = KubernetesPodOperator.BASE_CONTAINER_NAME
TRY_LABEL = "try_number"
"""Dropped: a pod outlives the try that submitted it, and Airflow's cleanup-pods goes by it."""


class KubernetesBatchOperator(BatchOperator, KubernetesPodOperator):
    """Runs batches as Jobs on a Kubernetes cluster: deferred, and supervised by the triggerer.

    Parameters
    ----------
    step, batch
        As of :class:`operators.batch.BatchOperator`.
    do_xcom_push : bool
        Whether what the task returns is kept; no pod is asked for anything.
    termination_message_policy : str
        Of the pods' container.
    kwargs
        As of KubernetesPodOperator, where they dress the pod; others are refused.
    """

    template_fields: Sequence[str] = (
        "batch",
        "pod_spec",
        *KubernetesPodOperator.template_fields,
    )
    template_fields_renderers = {
        **KubernetesPodOperator.template_fields_renderers,
        "pod_spec": "yaml",
    }
    overwrite_rtif_after_execution = True
    ui_color = BACKENDS["kubernetes"].colour

    def __init__(
        self,
        *,
        do_xcom_push: bool = True,
        termination_message_policy: str = TERMINATION_MESSAGE_POLICY,
        **kwargs: Any,
    ) -> None:
        # Pushing by KubernetesPodOperator would add a sidecar to the pod; here it is the task's.
        super().__init__(
            do_xcom_push=False, termination_message_policy=termination_message_policy, **kwargs
        )
        self.do_xcom_push = do_xcom_push
        self.pod_spec: str | None = None
        check_own(vars(self), f"task {self.task_id}")

    def _do_render_template_fields(
        self,
        parent: Any,
        template_fields: Iterable[str],
        context: Context,
        jinja_env: Environment,
        seen_oids: set[int],
    ) -> None:
        """Render what is of the pod as texts, though the DAG makes Python objects of all else.

        A label "42" is no number to Kubernetes.
        """
        render = super()._do_render_template_fields
        if parent is not self:
            render(parent, template_fields, context, jinja_env, seen_oids)
            return
        fields = list(template_fields)
        own = [name for name in fields if name in BatchOperator.template_fields]
        render(parent, own, context, jinja_env, seen_oids)
        native, self.render_template_as_native_obj = self.render_template_as_native_obj, False
        try:
            of_pod = [name for name in fields if name not in own]
            render(parent, of_pod, context, self.get_template_env(), seen_oids)
        finally:
            self.render_template_as_native_obj = native

    def resume(self, context: Context, event: dict[str, Any]) -> Any:
        """Say how a deferred batch ended, and show its pod again."""
        db = Database.from_environment()
        batch = batches.read_spec(db, event["batch"])
        self._show(batch, pods.read_pod(db, batch.id))
        return super().resume(context, event)

    def _take_claim(self, context: Context, db: Database, batch: Batch) -> Claim:
        """Take the claim, and keep the pod that this generation's waves are submitted with."""
        if not isinstance(batch.target, KubernetesTarget):  # frozen before the site was changed
            return super()._take_claim(context, db, batch)
        try:
            template = self.dress_pod(batch, context)
        except (InvalidInput, MissingInput) as error:
            raise AirflowFailException(str(error)) from None
        claim = super()._take_claim(context, db, batch)
        pods.record_pod(db, claim, template)
        self._show(batch, template)
        return claim

    def dress_pod(self, batch: Batch, context: Context | None = None) -> dict[str, Any]:
        """Return the pod of a batch as this task's arguments, policies and hooks make it.

        Raises
        ------
        InvalidInput
            When one of them changes what is Muster's.
        """
        where = f"task {self.task_id}"
        ours, cluster = render_pod(batch), target_of(batch).cluster
        check_own(vars(self), where)
        check_cluster(vars(self), cluster, where)
        dressing = copy.copy(self)
        dressing.do_xcom_push = False
        dressing.namespace = cluster.namespace
        dressing.random_name_suffix = False
        dressing.base_container_name = CONTAINER
        dressing.pod_template_file = dressing.pod_template_dict = None
        dressing.full_pod_spec = _typed(self._lay_templates(ours, where), where)
        made = PodGenerator.serialize_pod(dressing.build_pod_request_obj(context, dry_run=True))
        template = _tidy(made, ours)
        check_dressed(ours, template, where=where)
        if template["metadata"].get("namespace") != cluster.namespace:
            raise InvalidInput(
                "the pod was moved to another namespace",
                where=where,
                got=template["metadata"].get("namespace"),
                expected=cluster.namespace,
                do="say namespace in the cluster's table of the site file",
            )
        return template

    def _lay_templates(self, pod: dict[str, Any], where: str) -> dict[str, Any]:
        """Lay the task's own pod templates over a pod: they add, and change nothing."""
        if self.pod_template_file:
            template = read_yaml(Path(self.pod_template_file), POD_KEYS)
            pod = merge_pod(pod, _as_template(template), where=self.pod_template_file)
        elif self.pod_template_dict:
            template = self.pod_template_dict
            pod = merge_pod(pod, _as_template(template), where=f"pod_template_dict of {where}")
        if self.full_pod_spec:
            template = PodGenerator.serialize_pod(self.full_pod_spec)
            pod = merge_pod(pod, _as_template(template), where=f"full_pod_spec of {where}")
        return pod

    def _show(self, batch: Batch, template: Mapping[str, Any] | None) -> None:
        """Let the task's page tell what was frozen with the batch, and its pod."""
        if isinstance(batch.target, KubernetesTarget):
            self.kubernetes_conn_id = batch.target.cluster.connection
            self.namespace = batch.target.cluster.namespace
        if template is not None:
            self.pod_spec = yaml.safe_dump(dict(template), sort_keys=False, width=100)


def _as_template(pod: Mapping[str, Any]) -> dict[str, Any]:
    """Return a pod as a further template; its container "base" is the one of the elements."""
    template = copy.deepcopy({key: value for key, value in pod.items() if value is not None})
    metadata, spec = template.get("metadata"), template.get("spec")
    if isinstance(metadata, dict):
        metadata.pop("name", None)
    containers = spec.get("containers") if isinstance(spec, dict) else None
    for container in containers if isinstance(containers, list) else []:
        if isinstance(container, dict) and container.get("name") == BASE_CONTAINER:
            container["name"] = CONTAINER
    return template


def _typed(pod: dict[str, Any], where: str) -> Any:
    """Return a pod as the Kubernetes client has it, which knows no other keys than its own."""
    typed = PodGenerator.deserialize_model_dict(pod)
    try:
        check_dressed(pod, PodGenerator.serialize_pod(typed), where=where)
    except InvalidInput as error:
        raise InvalidInput(
            "the Kubernetes client does not know all of the pod",
            where=where,
            got=error,
            do="correct the pod template, or update the provider cncf-kubernetes",
        ) from error
    return typed


def _tidy(made: dict[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what says nothing, and what is of one try alone."""
    metadata, spec = made["metadata"], made["spec"]
    metadata.pop("name", None)
    metadata["labels"].pop(TRY_LABEL, None)
    containers = [_without_empty(container, {}) for container in spec["containers"]]
    return {
        **made,
        "metadata": _without_empty(metadata, ours["metadata"]),
        "spec": {**_without_empty(spec, ours["spec"]), "containers": containers},
    }


def _without_empty(said: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in said.items()
        if key in ours or value not in (None, False, [], {}, "")
    }
