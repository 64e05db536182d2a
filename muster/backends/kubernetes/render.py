"""What a wave is submitted with: a pod of its batch, and an Indexed Job of such pods.

Everything here is made of values, without a look at the world.  The pod says nothing of a wave, so
that Airflow can dress it once for all of them; the Job lays key, elements, resources and excluded
nodes over it.  Commands are lists of words, no shell reads them, and no name can become one: the
dollar signs of a word, of which Kubernetes would make references to variables, are doubled.

The elements of a wave are named in a file beside the batch: index of a pod → line of that file.
"""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any

import yaml

from muster import storage
from muster.backends.array_tasks import (
    first_wave,
    job_time_s,
    longest_task,
    plan_tasks,
    render_elements,
)
from muster.backends.kubernetes.merge import check_dressed, find_named, merge_pod
from muster.backends.kubernetes.names import (
    ANNOTATION_BATCH,
    ANNOTATION_KEY,
    HOSTNAME_LABEL,
    INDEX_VARIABLE,
    LABEL_KEY,
    LABEL_MANAGED,
    LABEL_RUN,
    LABEL_STEP,
    MANAGED_BY,
    job_name,
    key_label,
    label_value,
)
from muster.backends.kubernetes.volumes import render_mounts, render_volumes
from muster.errors import InvalidInput, one_line
from muster.model.environment import HOST_VARIABLE, STORE_VARIABLE, TIME_LIMIT_VARIABLE
from muster.model.kubernetes_target import KubernetesTarget
from muster.model.kubernetes_words import CONTAINER, SCRATCH_PATH
from muster.model.slurm_target import check_variables

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from muster.model.batch import Batch
    from muster.model.kubernetes_words import EnvFrom, KeyFrom, Toleration
    from muster.model.resources import Resources
    from muster.model.wave import Wave

KUBERNETES_FOLDER = "kubernetes"
ELEMENTS_FILE = "elements"
JOB_VARIABLE = "MUSTER_JOB"
ELEMENTS_VARIABLE = "MUSTER_ELEMENTS"
MOST_INDEXES = 100_000
"""Indexes of one Job."""
MOST_AT_ONCE = 10_000
"""Pods of one Job that Kubernetes runs at once, where it has many indexes."""
KUEUE_PREFIX = "kueue.x-k8s.io/"
"""Labels for Kueue are the Job's alone: it would count pods that have them a second time."""

_NODE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")


def render_batch(batch: Batch) -> str:
    """Render the Job of a batch's first wave as YAML, and the list of elements behind it."""
    wave = first_wave(batch)
    target = target_of(batch)
    job = render_job(wave, render_pod(batch))
    text = yaml.safe_dump(job, sort_keys=False, allow_unicode=True, width=100)
    lines = render_elements(wave.order, target.pack).splitlines()
    shown = "".join(f"#   {line}\n" for line in lines[:10])
    more = f"#   … {len(lines) - 10} lines more\n" if len(lines) > 10 else ""
    return f"---\n{text}# {one_line(elements_uri(wave))}: elements of each index\n{shown}{more}"


def elements_uri(wave: Wave) -> str:
    """Return where the list of a wave's elements lies."""
    return storage.join(wave.batch.work_uri, KUBERNETES_FOLDER, wave.key, ELEMENTS_FILE)


def render_pod(batch: Batch) -> dict[str, Any]:
    """Render the pod of a batch: what all its waves have in common.

    Raises
    ------
    InvalidInput
        When the batch has no place on Kubernetes, its pool's template says what is Muster's, or the
        step needs the store and the pool names no Secret for its URL.
    """
    target = target_of(batch)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": target.cluster.namespace,
            "labels": _labels_of_pods(target) | _own_labels(batch),
            "annotations": {**target.annotations, ANNOTATION_BATCH: batch.id},
        },
        "spec": _spec(batch, target),
    }
    return merge_pod(pod, target.pod_template, where=f"pod_template of pool {batch.pool}")


def render_job(wave: Wave, template: Mapping[str, Any]) -> dict[str, Any]:
    """Render the Job of a wave.

    Parameters
    ----------
    wave : Wave
        What is submitted.
    template : mapping
        The pod, as :func:`render_pod` gives it, or as others have added to it since.

    Raises
    ------
    InvalidInput
        When the template no longer says what it has to, or a word of the wave's own is none of
        Kubernetes'.
    """
    batch, target = wave.batch, target_of(wave.batch)
    check_dressed(render_pod(batch), template, where=f"pod template of {batch.id}")
    tasks = plan_tasks(wave.order, target.pack)
    if len(tasks) > MOST_INDEXES:
        raise InvalidInput(
            "too many elements for one Job", where=batch.id, got=len(tasks),
            expected=f"at most {MOST_INDEXES}", do="say array_size, or pack more into a pod",
        )  # fmt: skip
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(wave.key),
            "namespace": target.cluster.namespace,
            "labels": {**target.labels, **_own_labels(batch), LABEL_KEY: key_label(wave.key)},
            "annotations": {
                **target.annotations,
                ANNOTATION_BATCH: batch.id,
                ANNOTATION_KEY: wave.key,
            },
        },
        "spec": {
            "completionMode": "Indexed",
            "completions": len(tasks),
            "parallelism": min(len(tasks), batch.wave_slots, MOST_AT_ONCE),
            "backoffLimitPerIndex": 0,
            "podReplacementPolicy": "Failed",
            "ttlSecondsAfterFinished": target.ttl,
            "template": _template(wave, target, template),
        },
    }


def target_of(batch: Batch) -> KubernetesTarget:
    """Return where on Kubernetes a batch runs.

    Raises
    ------
    InvalidInput
        When it runs elsewhere.
    """
    if not isinstance(batch.target, KubernetesTarget):
        raise InvalidInput(
            "the batch was frozen without a place on Kubernetes",
            where=batch.id,
            got=f"backend {batch.backend}",
            do="plan the run again",
        )
    return batch.target


def _own_labels(batch: Batch) -> dict[str, str]:
    return {
        LABEL_MANAGED: MANAGED_BY,
        LABEL_STEP: label_value(batch.step),
        LABEL_RUN: label_value(batch.run),
    }


def _labels_of_pods(target: KubernetesTarget) -> dict[str, str]:
    return {n: value for n, value in target.labels.items() if not n.startswith(KUEUE_PREFIX)}


def _spec(batch: Batch, target: KubernetesTarget) -> dict[str, Any]:
    said: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": target.termination_grace,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": _security_of_pod(target),
        "serviceAccountName": target.service_account,
        "imagePullSecrets": [{"name": name} for name in target.pull_secrets],
        "priorityClassName": target.priority_class,
        "runtimeClassName": target.runtime_class,
        "nodeSelector": target.node_selector,
        "tolerations": [_toleration(toleration) for toleration in target.tolerations],
        "affinity": copy.deepcopy(target.affinity),
        "containers": [_container(batch, target)],
        "volumes": render_volumes(target),
    }
    return {key: value for key, value in said.items() if value not in (None, [], {})}


def _container(batch: Batch, target: KubernetesTarget) -> dict[str, Any]:
    said: dict[str, Any] = {
        "name": CONTAINER,
        "image": target.image,
        "imagePullPolicy": target.image_pull_policy,
        "command": [_escape(target.cluster.python), "-m", "muster"],
        "args": [
            "run",
            _escape(batch.uri),
            "--logs",
            "--elements",
            f"$({ELEMENTS_VARIABLE})",
            "--place",
            f"$({INDEX_VARIABLE})",
        ],
        "env": _variables(batch, target),
        "envFrom": [_env_from(source) for source in target.env_from],
        "resources": _resources(batch.resources, target),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": render_mounts(target),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    return {key: value for key, value in said.items() if value != []}


def _variables(batch: Batch, target: KubernetesTarget) -> list[dict[str, Any]]:
    """List the variables that all waves have; later ones take the place of earlier ones."""
    try:
        check_variables(batch.environment)
    except ValueError as error:
        raise InvalidInput("a pod cannot have this variable", where=batch.id, got=error) from error
    values = {
        "PYTHONUNBUFFERED": "1",
        "HOME": SCRATCH_PATH,
        "TMPDIR": SCRATCH_PATH,
        **target.environment,
        **batch.environment,
        # the last word: nobody's settings make a pod another one
        "MUSTER_BATCH": batch.uri,
        "MUSTER_WORK": batch.work_uri,
    }
    said: dict[str, dict[str, Any]] = {
        name: {"name": name, "value": _escape(value)} for name, value in values.items()
    }
    for name, source in target.environment_from.items():
        if name not in batch.environment:
            said[name] = {"name": name, "valueFrom": _key_from(source)}
    said[HOST_VARIABLE] = {
        "name": HOST_VARIABLE,
        "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}},
    }
    if batch.needs_store:
        said[STORE_VARIABLE] = {"name": STORE_VARIABLE, "valueFrom": _store(batch, target)}
    return list(said.values())


def _store(batch: Batch, target: KubernetesTarget) -> dict[str, Any]:
    """Refer to the store's URL, which holds a password and is never written into a pod."""
    if target.store is None:
        raise InvalidInput(
            "the step needs the store, and the pool names no Secret that holds its URL",
            where=f"pool {batch.pool}, step {batch.step}",
            do='say \'store = { secret = "…", key = "…" }\' of the pool',
        )
    return {"secretKeyRef": {"name": target.store.secret, "key": target.store.key}}


def _template(wave: Wave, target: KubernetesTarget, template: Mapping[str, Any]) -> dict[str, Any]:
    """Lay what is a wave's own over the pod of its batch."""
    metadata, spec = template.get("metadata") or {}, copy.deepcopy(template["spec"])
    container = find_named(spec["containers"], CONTAINER)
    longest = longest_task(wave.order, target.pack)
    time_s = job_time_s(wave.resources, wave.batch.caps, longest)
    variables = {JOB_VARIABLE: wave.key, ELEMENTS_VARIABLE: elements_uri(wave)}
    if time_s is not None and longest > 1:
        variables[TIME_LIMIT_VARIABLE] = str(time_s)
    container["env"] = [
        *(one for one in container["env"] if one["name"] not in variables),
        *({"name": name, "value": _escape(value)} for name, value in variables.items()),
    ]
    container["resources"] = _lay_resources(container.get("resources") or {}, wave, target)
    if time_s is not None:
        spec["activeDeadlineSeconds"] = time_s + target.start_grace + target.termination_grace
    if wave.excluded_hosts:
        spec["affinity"] = _exclude(spec.get("affinity") or {}, wave.excluded_hosts)
    return {
        "metadata": {
            "labels": {**metadata["labels"], LABEL_KEY: key_label(wave.key)},
            "annotations": {**metadata["annotations"], ANNOTATION_KEY: wave.key},
        },
        "spec": spec,
    }


def _lay_resources(
    said: Mapping[str, Any], wave: Wave, target: KubernetesTarget
) -> dict[str, dict[str, str]]:
    ours = _resources(wave.resources, target)
    own = {"cpu", "memory", target.gpu}
    laid = {
        kind: {n: v for n, v in (said.get(kind) or {}).items() if n not in own} | ours.get(kind, {})
        for kind in ("requests", "limits")
    }
    return {kind: quantities for kind, quantities in laid.items() if quantities}


def _resources(wants: Resources, target: KubernetesTarget) -> dict[str, dict[str, str]]:
    """Say what a pod asks for: of memory and GPUs it never gets more than that."""
    cpus = str(wants.cpus * (target.ntasks or 1))
    firm: dict[str, str] = {}
    if wants.memory_mib is not None:
        firm["memory"] = f"{wants.memory_mib}Mi"
    if wants.gpus:
        firm[target.gpu] = str(wants.gpus)
    limits = {"cpu": cpus, **firm} if target.cpu_limit else firm
    return {"requests": {"cpu": cpus, **firm}} | ({"limits": limits} if limits else {})


def _exclude(affinity: Mapping[str, Any], hosts: Sequence[str]) -> dict[str, Any]:
    """Keep pods off nodes, whatever else they are kept to: each of its terms alone suffices."""
    for host in hosts:
        if not _NODE.fullmatch(host):
            raise InvalidInput("not a node that Kubernetes has", got=repr(host))
    of_nodes = dict(affinity.get("nodeAffinity") or {})
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    terms = (of_nodes.get(required) or {}).get("nodeSelectorTerms") or [{}]
    of_nodes[required] = {
        "nodeSelectorTerms": [
            {
                **term,
                "matchExpressions": [
                    *(term.get("matchExpressions") or []),
                    {"key": HOSTNAME_LABEL, "operator": "NotIn", "values": sorted(set(hosts))},
                ],
            }
            for term in terms
        ]
    }
    return {**affinity, "nodeAffinity": of_nodes}


def _security_of_pod(target: KubernetesTarget) -> dict[str, Any]:
    said = {
        "runAsNonRoot": True,
        "runAsUser": target.run_as_user,
        "runAsGroup": target.run_as_group,
        "fsGroup": target.fs_group,
        "fsGroupChangePolicy": None if target.fs_group is None else "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    return {key: value for key, value in said.items() if value is not None}


def _toleration(toleration: Toleration) -> dict[str, Any]:
    said = toleration.model_dump(exclude_none=True)
    seconds = said.pop("toleration_seconds", None)
    return said if seconds is None else {**said, "tolerationSeconds": seconds}


def _env_from(source: EnvFrom) -> dict[str, Any]:
    kind = "secretRef" if source.secret else "configMapRef"
    said: dict[str, Any] = {kind: {"name": source.secret or source.config_map}}
    if source.optional:
        said[kind]["optional"] = True
    return {"prefix": source.prefix, **said} if source.prefix else said


def _key_from(source: KeyFrom) -> dict[str, Any]:
    kind = "secretKeyRef" if source.secret else "configMapKeyRef"
    said: dict[str, Any] = {"name": source.secret or source.config_map, "key": source.key}
    return {kind: {**said, "optional": True} if source.optional else said}


def _escape(text: str) -> str:
    """Return a word that Kubernetes takes for itself, with no variable of its in it."""
    if "\0" in text:
        raise InvalidInput("no word of a pod can hold a NUL", got=repr(text))
    return text.replace("$", "$$")
