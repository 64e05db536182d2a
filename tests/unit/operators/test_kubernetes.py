"""The operator of batches on Kubernetes: a KubernetesPodOperator, and what it makes of a pod."""

from __future__ import annotations

import copy
import inspect
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from airflow.providers.cncf.kubernetes.operators import pod as provider
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.cncf.kubernetes.secret import Secret
from airflow.sdk import DAG
from kubernetes.client import models as k8s

from muster.backends.kubernetes.render import render_job, render_pod
from muster.errors import ConfigError, InvalidInput
from operators.batch import BatchOperator
from operators.kubernetes import KubernetesBatchOperator
from tests.unit.backends.kubernetes.waves import EVERYTHING, make_batch, make_target, make_wave

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Json = dict[str, Any]

OF_AIRFLOW = {
    "metadata.labels.airflow_version": "3.3.2",
    "metadata.labels.dag_id": "d",
    "metadata.labels.kubernetes_pod_operator": "True",
    "metadata.labels.map_index": "3",
    "metadata.labels.run_id": "manual__2026-03-01T000000-486e6f24d",
    "metadata.labels.task_id": "t",
}
CONTAINER = "spec.containers[muster]"
LONGEST_FIELD = 4096
"""Characters of a template field that Airflow shows."""


def make(**words: Any) -> KubernetesBatchOperator:
    with DAG("d"):
        return KubernetesBatchOperator(task_id="t", step="traits.predict", batch={}, **words)


def dress(batch: Any = None, operator: KubernetesBatchOperator | None = None, **words: Any) -> Json:
    ti = SimpleNamespace(dag_id="d", task_id="t", map_index=3, try_number=2)
    context: Any = {"ti": ti, "run_id": "manual__2026-03-01T00:00:00", "dag": None}
    return (operator or make(**words)).dress_pod(batch or make_batch(), context)


def flatten(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """List the leaves of a pod; things in lists go by their name where they have one."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from flatten(inner, f"{path}.{key}".removeprefix("."))
    elif isinstance(value, list) and value:
        for place, inner in enumerate(value):
            named = inner.get("name", place) if isinstance(inner, dict) else place
            yield from flatten(inner, f"{path}[{named}]")
    else:
        yield path, value


def added(dressed: Json, batch: Any = None) -> Json:
    """Return what a dressed pod says beyond Muster's; it has to say all of that."""
    ours, theirs = dict(flatten(render_pod(batch or make_batch()))), dict(flatten(dressed))
    return {path: value for path, value in theirs.items() if ours.get(path) != value}


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any], None]], None]:
    """Set a site's pod_mutation_hook."""
    return lambda change: monkeypatch.setattr(provider, "pod_mutation_hook", change)


class TestClass:
    def test_it_is_both(self) -> None:
        operator = make()
        assert isinstance(operator, BatchOperator)
        assert isinstance(operator, KubernetesPodOperator)
        for verb in ("execute", "on_kill"):
            assert getattr(type(operator), verb) is getattr(BatchOperator, verb)
        assert operator.do_xcom_push
        assert set(KubernetesPodOperator.template_fields) < set(operator.template_fields)

    def test_it_is_serialised_and_mapped(self) -> None:
        from airflow.serialization.serialized_objects import DagSerialization

        with DAG("d") as dag:
            KubernetesBatchOperator(task_id="one", step="s", batch={"batches": {}}, pool="gke")
            KubernetesBatchOperator.partial(
                task_id="mapped", step="s", pool="gke", labels={"cost": "a"}
            ).expand(batch=[{"batches": {}}])
        text = json.dumps(DagSerialization.to_dict(dag))
        back = DagSerialization.from_dict(json.loads(text))
        tasks = {task.task_id: task for task in back.tasks}
        assert {name: task.pool for name, task in tasks.items()} == {"one": "gke", "mapped": "gke"}
        assert all("pod_spec" in task.template_fields for task in tasks.values())
        assert tasks["one"].ui_color == KubernetesBatchOperator.ui_color

    def test_a_mapped_task_is_one_of_its_own(self) -> None:
        with DAG("d") as dag:
            KubernetesBatchOperator.partial(task_id="t", step="s", labels={"cost": "a"}).expand(
                batch=[{"batches": {}}]
            )
        unmapped = dag.task_dict["t"].unmap({"batch": {"batches": {}}})
        dressed = dress(operator=unmapped)
        assert added(dressed) == OF_AIRFLOW | {"metadata.labels.cost": "a"}

    @pytest.mark.parametrize("mapped", [False, True])
    def test_what_is_of_the_pod_stays_text_where_a_dag_renders_objects(self, mapped: bool) -> None:
        words: Json = {
            "task_id": "t",
            "step": "s",
            "labels": {"cost": "42", "of": "{{ run_id }}"},
            "env_vars": {"A": "1e3", "B": "{{ 7 }}"},
        }
        with DAG("d", render_template_as_native_obj=True) as dag:
            if mapped:
                KubernetesBatchOperator.partial(**words).expand(batch=["{{ {'a': 1} }}"])
            else:
                KubernetesBatchOperator(batch="{{ {'a': 1} }}", **words)
        task: Any = dag.task_dict["t"]
        if mapped:
            task = task.unmap({"batch": "{{ {'a': 1} }}"})
        task.render_template_fields({"run_id": "2026", "ti": None})
        assert task.batch == {"a": 1}
        assert added(dress(operator=task)) == OF_AIRFLOW | {
            "metadata.labels.cost": "42",
            "metadata.labels.of": "2026",
            f"{CONTAINER}.env[A].name": "A",
            f"{CONTAINER}.env[A].value": "1e3",
            f"{CONTAINER}.env[B].name": "B",
            f"{CONTAINER}.env[B].value": "7",
        }


class TestPod:
    def test_what_airflow_adds_are_labels(self) -> None:
        assert added(dress()) == OF_AIRFLOW

    def test_a_pool_with_everything_loses_nothing(self) -> None:
        batch = make_batch(2, EVERYTHING)
        assert added(dress(batch), batch) == OF_AIRFLOW

    def test_a_pod_has_no_list_of_elements_and_is_shown_whole(self) -> None:
        one, many = (dress(make_batch(count)) for count in (1, 2_000))
        assert len(str(one)) == len(str(many)), "but for the hash in the batch's URI"
        for target in (make_target(), EVERYTHING):
            shown = yaml.safe_dump(dress(make_batch(1, target)), sort_keys=False, width=100)
            assert len(shown) < LONGEST_FIELD

    def test_what_a_hook_adds_reaches_each_wave(self, hook: Any) -> None:
        def change(pod: Any) -> None:
            pod.metadata.labels["cost-centre"] = "ecology"
            pod.spec.tolerations = [k8s.V1Toleration(key="late", operator="Exists")]
            pod.spec.containers[0].image = "mirror.example.org/muster/compute:1.2"
            pod.spec.containers[0].env.append(k8s.V1EnvVar(name="HTTPS_PROXY", value="proxy:3128"))

        hook(change)
        dressed = dress()
        assert added(dressed) == OF_AIRFLOW | {
            "metadata.labels.cost-centre": "ecology",
            "spec.tolerations[0].key": "late",
            "spec.tolerations[0].operator": "Exists",
            f"{CONTAINER}.image": "mirror.example.org/muster/compute:1.2",
            f"{CONTAINER}.env[HTTPS_PROXY].name": "HTTPS_PROXY",
            f"{CONTAINER}.env[HTTPS_PROXY].value": "proxy:3128",
        }
        pod = render_job(make_wave(), dressed)["spec"]["template"]
        assert pod["metadata"]["labels"]["cost-centre"] == "ecology"
        assert pod["spec"]["containers"][0]["image"].startswith("mirror.")

    @pytest.mark.parametrize(
        ("change", "got"),
        [
            (lambda p: p.metadata.labels.pop("muster.dev/run"), "metadata.labels.muster.dev/run"),
            (lambda p: setattr(p.spec, "restart_policy", "OnFailure"), "spec.restartPolicy"),
            (lambda p: setattr(p.spec, "active_deadline_seconds", 60), "activeDeadlineSeconds"),
            (lambda p: setattr(p.spec.containers[0], "args", ["sleep"]), f"{CONTAINER}.args"),
            (lambda p: setattr(p.spec.containers[0], "env", []), f"{CONTAINER}.env"),
            (lambda p: setattr(p.spec.containers[0], "name", "base"), "spec.containers"),
            (lambda p: p.spec.containers.append(k8s.V1Container(name="x")), "another container"),
            (lambda p: setattr(p.metadata, "namespace", "other"), "another namespace; .*other"),
        ],
    )
    def test_what_a_hook_may_not_change_is_refused_in_a_line(
        self, hook: Any, change: Any, got: str
    ) -> None:
        hook(change)
        with pytest.raises(InvalidInput, match=got.replace("[", r"\[")) as caught:
            dress()
        assert "task t" in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_policy_that_changes_what_has_no_effect_is_refused(self) -> None:
        operator = make()
        operator.get_logs = False
        with pytest.raises(ConfigError, match="get_logs is not for batches"):
            dress(operator=operator)


TEMPLATE: Json = {
    "metadata": {"annotations": {"team": "ml"}},
    "spec": {
        "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["data"]}],
        "containers": [{"name": "base", "env": [{"name": "A", "value": "1"}]}],
    },
}
OF_TEMPLATE = {
    "metadata.annotations.team": "ml",
    "spec.hostAliases[0].ip": "10.0.0.1",
    "spec.hostAliases[0].hostnames[0]": "data",
    f"{CONTAINER}.env[A].name": "A",
    f"{CONTAINER}.env[A].value": "1",
}


class TestTemplates:
    def test_each_kind_of_template_is_laid_over_the_pod(self, tmp_path: Path) -> None:
        file = tmp_path / "pod.yaml"
        file.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", **TEMPLATE}))
        typed = k8s.V1Pod(
            metadata=k8s.V1ObjectMeta(name="mine", annotations={"team": "ml"}),
            spec=k8s.V1PodSpec(
                host_aliases=[k8s.V1HostAlias(ip="10.0.0.1", hostnames=["data"])],
                containers=[k8s.V1Container(name="base", env=[k8s.V1EnvVar(name="A", value="1")])],
            ),
        )
        said: list[Json] = [
            {"pod_template_file": str(file)},
            {"pod_template_dict": TEMPLATE},
            {"full_pod_spec": typed},
        ]
        for words in said:
            assert added(dress(**copy.deepcopy(words))) == OF_AIRFLOW | OF_TEMPLATE

    @pytest.mark.parametrize(
        ("template", "told"),
        [
            ({"spec": {"restartPolicy": "Always"}}, "spec.restartPolicy is said already"),
            ({"spec": {"containers": [{"name": "base", "args": ["x"]}]}}, "args"),
            ({"spec": {"containers": [{"name": "side"}]}}, "another container"),
            ({"spec": {"hostAlias": [{"ip": "10.0.0.1"}]}}, "client does not know.*hostAlias"),
            ({"spec": {"containers": "none"}}, "spec.containers is said already"),
        ],
    )
    def test_what_a_template_may_not_say_is_refused(self, template: Json, told: str) -> None:
        with pytest.raises(InvalidInput, match=told) as caught:
            dress(pod_template_dict=template)
        assert "\n" not in str(caught.value)


MOUNT = k8s.V1VolumeMount(name="v", mount_path="/v")
VOLUME = k8s.V1Volume(name="v", empty_dir=k8s.V1EmptyDirVolumeSource())
FROM_FIELD = k8s.V1EnvVarSource(field_ref=k8s.V1ObjectFieldSelector(field_path="status.podIP"))
HONOURED: dict[str, tuple[Any, str]] = {
    "affinity": (
        {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
        "spec.affinity",
    ),
    "annotations": ({"a": "b"}, "metadata.annotations.a"),
    "configmaps": (["names"], f"{CONTAINER}.envFrom"),
    "container_resources": (
        k8s.V1ResourceRequirements(limits={"ephemeral-storage": "1Gi"}),
        f"{CONTAINER}.resources.limits.ephemeral-storage",
    ),
    "dns_config": (k8s.V1PodDNSConfig(nameservers=["10.0.0.2"]), "spec.dnsConfig"),
    "dnspolicy": ("Default", "spec.dnsPolicy"),
    "env_from": (
        [k8s.V1EnvFromSource(secret_ref=k8s.V1SecretEnvSource(name="s"))],
        f"{CONTAINER}.envFrom",
    ),
    "env_vars": ({"A": "1"}, f"{CONTAINER}.env[A]"),
    "host_aliases": ([k8s.V1HostAlias(ip="10.0.0.1", hostnames=["d"])], "spec.hostAliases"),
    "hostname": ("h", "spec.hostname"),
    "hostnetwork": (True, "spec.hostNetwork"),
    "image": ("other.example.org/muster:2", f"{CONTAINER}.image"),
    "image_pull_policy": ("Always", f"{CONTAINER}.imagePullPolicy"),
    "image_pull_secrets": ([k8s.V1LocalObjectReference(name="s")], "spec.imagePullSecrets"),
    "init_containers": ([k8s.V1Container(name="i", image="x:1")], "spec.initContainers"),
    "labels": ({"a": "b"}, "metadata.labels.a"),
    "node_selector": ({"gpu": "l4"}, "spec.nodeSelector.gpu"),
    "pod_runtime_info_envs": (
        [k8s.V1EnvVar(name="IP", value_from=FROM_FIELD)],
        f"{CONTAINER}.env[IP]",
    ),
    "ports": ([k8s.V1ContainerPort(container_port=80)], f"{CONTAINER}.ports"),
    "priority_class_name": ("high", "spec.priorityClassName"),
    "runtime_class_name": ("gvisor", "spec.runtimeClassName"),
    "schedulername": ("volcano", "spec.schedulerName"),
    "secrets": ([Secret("env", "TOKEN", "s", "k")], f"{CONTAINER}.env[TOKEN]"),
    "service_account_name": ("runner", "spec.serviceAccountName"),
    "subdomain": ("s", "spec.subdomain"),
    "termination_message_policy": ("File", f"{CONTAINER}.terminationMessagePolicy"),
    "tolerations": ([k8s.V1Toleration(key="k", operator="Exists")], "spec.tolerations"),
    "volume_mounts": ([MOUNT], f"{CONTAINER}.volumeMounts[v]"),
    "volumes": ([VOLUME], "spec.volumes[v]"),
}
"""Argument → a value of it, and where the pod then differs."""

REFUSED: Json = {
    "active_deadline_seconds": 60,
    "arguments": ["x"],
    "base_container_name": "main",
    "base_container_status_polling_interval": 9,
    "callbacks": [object],
    "cmds": ["x"],
    "container_logs": True,
    "container_name_log_prefix_enabled": False,
    "durable": False,
    "get_logs": False,
    "init_container_logs": True,
    "log_events_on_failure": True,
    "log_events_on_startup": False,
    "log_formatter": str,
    "log_pod_spec_on_failure": False,
    "logging_interval": 9,
    "name": "mine",
    "on_finish_action": "keep_pod",
    "on_kill_action": "keep_pod",
    "poll_interval": 9,
    "progress_callback": print,
    "random_name_suffix": False,
    "schedule_timeout_seconds": 9,
    "skip_on_exit_code": 99,
    "startup_check_interval_seconds": 9,
    "startup_timeout_seconds": 9,
    "termination_grace_period": 9,
    "trigger_kwargs": {"a": 1},
    "xcom_sidecar_container_security_context": {"runAsUser": 1},
}
CHANGES_OURS: Json = {
    "automount_service_account_token": True,
    "container_security_context": {"privileged": True},
    "security_context": {"runAsUser": 0},
}
"""Refused as a hook would be that makes the same of the pod."""
OTHER_CLUSTER: Json = {
    "cluster_context": "other",
    "config_file": "/other",
    "in_cluster": True,
    "kubernetes_conn_id": "other",
    "namespace": "other",
}
TEMPLATES = {"full_pod_spec", "pod_template_dict", "pod_template_file"}
SAME_FOR_ALL = {
    "deferrable",  # batches on a cluster always are
    "do_xcom_push",  # of the task, and no pod has a sidecar for it
    "is_delete_operator_pod",  # the provider itself ignores it
    "reattach_on_restart",  # the old name of durable
}


class TestArguments:
    def test_each_argument_is_honoured_or_refused(self) -> None:
        """A provider with another argument fails here, and not in silence."""
        known = inspect.signature(KubernetesPodOperator.__init__).parameters
        sorts = (
            HONOURED, REFUSED, CHANGES_OURS, OTHER_CLUSTER, TEMPLATES, SAME_FOR_ALL,
        )  # fmt: skip
        assert sorted(name for sort in sorts for name in sort) == sorted(
            set(known) - {"self", "kwargs"}
        )

    @pytest.mark.parametrize("name", HONOURED)
    def test_one_that_dresses_the_pod(self, name: str) -> None:
        value, path = HONOURED[name]
        paths = set(added(dress(**{name: copy.deepcopy(value)}))) - set(OF_AIRFLOW)
        assert paths
        assert all(found.startswith(path) for found in paths), paths

    @pytest.mark.parametrize("name", REFUSED)
    def test_one_that_is_musters_is_refused_in_a_sentence(self, name: str) -> None:
        with pytest.raises(ConfigError, match=rf"^(schedule_|startup_|{name})") as caught:
            make(**{name: REFUSED[name]})
        assert "where: task t" in str(caught.value)
        assert "; do: " in str(caught.value)

    @pytest.mark.parametrize("name", CHANGES_OURS)
    def test_one_that_changes_what_is_musters_is_refused(self, name: str) -> None:
        with pytest.raises(InvalidInput, match="the pod was changed where it is Muster's"):
            dress(**{name: CHANGES_OURS[name]})

    @pytest.mark.parametrize("name", OTHER_CLUSTER)
    def test_one_that_names_another_cluster_is_refused(self, name: str) -> None:
        with pytest.raises(ConfigError, match=f"{name} is another one than the site says"):
            dress(**{name: OTHER_CLUSTER[name]})

    def test_one_that_names_the_same_cluster_is_taken(self) -> None:
        cluster = {"connection": "gke", "namespace": "jobs"}
        batch = make_batch(1, make_target(cluster=cluster))
        dressed = dress(batch, kubernetes_conn_id="gke", namespace="jobs")
        assert added(dressed, batch) == OF_AIRFLOW

    def test_a_value_that_is_said_twice_is_refused(self) -> None:
        with pytest.raises(InvalidInput, match=r"env\[HOME\] is there 2 times"):
            dress(env_vars={"HOME": "/root"})
