"""The Job of a wave: pinned word by word, and valid for two versions of Kubernetes."""

from __future__ import annotations

import copy
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kubernetes_validate
import pytest
import yaml

from muster.backends.kubernetes.names import INDEX_VARIABLE, OWN_LABELS, job_name
from muster.backends.kubernetes.render import (
    elements_uri,
    render_batch,
    render_job,
    render_pod,
)
from muster.errors import ConfigError, InvalidInput
from muster.model.batch import Batch, Element
from muster.model.resources import Caps, Resources
from muster.model.target import LocalTarget
from tests.unit.backends.kubernetes.waves import (
    EVERYTHING,
    HOSTILE,
    KEY,
    WAVES,
    make_batch,
    make_target,
    make_wave,
)

if TYPE_CHECKING:
    from muster.model.wave import Wave

GOLDEN = Path(__file__).parent / "golden"
VERSIONS = ("1.30", "1.36")


def job_of(wave: Wave) -> dict[str, Any]:
    return render_job(wave, render_pod(wave.batch))


def container_of(job: dict[str, Any]) -> dict[str, Any]:
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert isinstance(container, dict)
    return container


def expand(text: str, variables: dict[str, str]) -> str:
    """Expand $(NAME) as a kubelet does."""
    return re.sub(
        r"\$(\$|\(([^)]*)\)|)",
        lambda m: "$" if m[1] == "$" else variables.get(m[2], m[0]) if m[2] else m[0],
        text,
    )


def started(job: dict[str, Any], index: int) -> tuple[list[str], dict[str, str]]:
    """Return the command line and the plain variables of the pod of an index."""
    container = container_of(job)
    variables = {INDEX_VARIABLE: str(index)}
    for one in container["env"]:
        if "value" in one:
            variables[one["name"]] = expand(one["value"], variables)
    words = [*container["command"], *container["args"]]
    return [expand(word, variables) for word in words], variables


@pytest.mark.parametrize("name", WAVES)
def test_jobs_are_what_they_were(name: str) -> None:
    text = yaml.safe_dump(job_of(WAVES[name]), sort_keys=False, allow_unicode=True, width=100)
    path = GOLDEN / f"{name}.yaml"
    if os.environ.get("MUSTER_WRITE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
    assert "&id" not in text


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_every_job_and_pod(version: str) -> None:
    for wave in WAVES.values():
        kubernetes_validate.validate(job_of(wave), version, strict=True)
        kubernetes_validate.validate(render_pod(wave.batch), version, strict=True)


def test_a_word_that_kubernetes_does_not_know_is_refused_by_its_schemas() -> None:
    job = job_of(WAVES["one"])
    job["spec"]["template"]["spec"]["restartPolice"] = "Never"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, VERSIONS[1], strict=True)


@pytest.mark.parametrize("name", WAVES)
def test_retries_and_time_limits_are_ours(name: str) -> None:
    spec = job_of(WAVES[name])["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["backoffLimitPerIndex"] == 0
    assert spec["podReplacementPolicy"] == "Failed"
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert not spec.keys() & {
        "activeDeadlineSeconds", "backoffLimit", "maxFailedIndexes", "podFailurePolicy"
    }  # fmt: skip
    assert spec["ttlSecondsAfterFinished"] >= 86400


@pytest.mark.parametrize("name", WAVES)
def test_every_pod_is_without_rights(name: str) -> None:
    pod = job_of(WAVES[name])["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container_of(job_of(WAVES[name]))["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_a_pod_says_nothing_of_its_wave() -> None:
    first, second = make_wave(9), make_wave(9, key="other", excluded_hosts=["n1"])
    pod = render_pod(first.batch)
    assert render_pod(second.batch) == pod
    text = yaml.safe_dump(pod)
    assert KEY not in text
    assert "e8" not in text
    assert len(text) < 4096, "Airflow's page cuts what is longer"
    before = copy.deepcopy(pod)
    render_job(first, pod)
    assert pod == before


def test_at_most_so_many_pods_run_at_once_as_the_pool_has_slots() -> None:
    spec = job_of(make_wave(5, slots=2))["spec"]
    assert (spec["completions"], spec["parallelism"]) == (5, 2)
    spec = job_of(make_wave(3, slots=200))["spec"]
    assert (spec["completions"], spec["parallelism"]) == (3, 3)
    spec = job_of(make_wave(10, make_target(pack=4), slots=200))["spec"]
    assert (spec["completions"], spec["parallelism"]) == (3, 3)
    spec = job_of(make_wave(8, slots=8, array_size=4))["spec"]
    assert (spec["completions"], spec["parallelism"]) == (8, 4)


def test_a_pods_deadline_is_that_of_its_elements_with_a_grace_for_its_start() -> None:
    def deadline(wave: Wave) -> int | None:
        found: int | None = job_of(wave)["spec"]["template"]["spec"].get("activeDeadlineSeconds")
        return found

    assert deadline(make_wave()) == 7200 + 600 + 30
    assert deadline(make_wave(3, make_target(pack=2))) == 14400 + 600 + 30
    assert deadline(make_wave(3, make_target(pack=3), caps=Caps(time_limit_s=20_000))) == 20_630
    assert deadline(make_wave(resources=Resources())) is None
    variables = started(job_of(make_wave(3, make_target(pack=2))), 0)[1]
    assert variables["MUSTER_TIME_LIMIT_S"] == "14400"
    assert "MUSTER_TIME_LIMIT_S" not in started(job_of(make_wave()), 0)[1]


def test_memory_and_gpus_are_firm_and_cpus_are_where_the_pool_says_so() -> None:
    wants = Resources(cpus=2, memory_mib=512, gpus=1)
    said = container_of(job_of(make_wave(1, make_target(ntasks=3), resources=wants)))["resources"]
    assert said["requests"] == {"cpu": "6", "memory": "512Mi", "nvidia.com/gpu": "1"}
    assert said["limits"] == {"memory": "512Mi", "nvidia.com/gpu": "1"}
    limited = make_target(cpu_limit=True, gpu="nvidia.com/mig-1g.10gb")
    said = container_of(job_of(make_wave(1, limited, resources=wants)))["resources"]
    assert said["limits"] == {"cpu": "2", "memory": "512Mi", "nvidia.com/mig-1g.10gb": "1"}
    said = container_of(job_of(make_wave(1, resources=Resources())))["resources"]
    assert said == {"requests": {"cpu": "1"}}


def test_a_retry_asks_for_what_its_wave_says() -> None:
    wave = make_wave()
    more = type(wave)(wave.batch, "again", {0: 2}, Resources(cpus=4, memory_mib=12288, gpus=1))
    said = container_of(job_of(more))["resources"]
    assert said["requests"] == {"cpu": "4", "memory": "12288Mi", "nvidia.com/gpu": "1"}


def test_nodes_are_excluded_from_every_way_to_a_node() -> None:
    spec = job_of(WAVES["everything"])["spec"]["template"]["spec"]
    terms = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    rule = {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": ["gke-l4-1"]}
    assert [term["matchExpressions"][-1] for term in terms["nodeSelectorTerms"]] == [rule, rule]
    assert [len(term["matchExpressions"]) for term in terms["nodeSelectorTerms"]] == [2, 2]
    assert "NotIn" not in str(EVERYTHING.affinity), "the pool's own words stay what they are"
    with pytest.raises(InvalidInput, match="not a node"):
        job_of(make_wave(excluded_hosts=["a b"]))


def test_no_text_becomes_a_command_or_a_reference() -> None:
    wave = WAVES["hostile"]
    words, variables = started(job_of(wave), 1)
    assert words[:5] == ["python", "-m", "muster", "run", wave.batch.uri]
    assert words[5:] == ["--logs", "--elements", elements_uri(wave), "--place", "1"]
    assert variables["SAID"] == HOSTILE
    assert variables["STEP"] == HOSTILE
    assert variables["MUSTER_JOB"] == wave.key
    assert variables["MUSTER_WORK"] == wave.batch.work_uri
    with pytest.raises(InvalidInput, match="NUL"):
        job_of(make_wave(environment={"A": "\0"}))
    with pytest.raises(InvalidInput, match="'a b'"):
        job_of(make_wave(environment={"a b": "c"}))


def test_a_step_may_set_what_its_pool_sets_and_not_what_makes_the_pod_its_own() -> None:
    target = make_target(
        environment={"A": "pool", "HOME": "/home"},
        environment_from={"B": {"secret": "s", "key": "k"}},
    )
    own = dict.fromkeys(("MUSTER_JOB", "MUSTER_WORK", "MUSTER_ELEMENTS"), "x")
    wave = make_wave(1, target, environment={"A": "step", "B": "step", **own})
    job = job_of(wave)
    _, variables = started(job, 0)
    assert (variables["A"], variables["B"], variables["HOME"]) == ("step", "step", "/home")
    assert variables["MUSTER_WORK"] == wave.batch.work_uri
    assert variables["MUSTER_JOB"] == KEY
    assert variables["MUSTER_ELEMENTS"] == elements_uri(wave)
    names = [one["name"] for one in container_of(job)["env"]]
    assert len(names) == len(set(names))


def test_the_stores_url_is_named_and_never_written() -> None:
    with pytest.raises(InvalidInput, match="names no Secret that holds its URL"):
        render_pod(make_batch(needs_store=True))
    target = make_target(store={"secret": "muster-store", "key": "url"})
    said = {one["name"]: one for one in container_of(job_of(make_wave(1, target)))["env"]}
    assert "MUSTER_STORE_URL" not in said
    wave = make_wave(1, target, needs_store=True)
    said = {one["name"]: one for one in container_of(job_of(wave))["env"]}
    assert said["MUSTER_STORE_URL"] == {
        "name": "MUSTER_STORE_URL",
        "valueFrom": {"secretKeyRef": {"name": "muster-store", "key": "url"}},
    }


def test_the_node_tells_its_name() -> None:
    said = {one["name"]: one for one in container_of(job_of(make_wave()))["env"]}
    assert said["MUSTER_HOST"]["valueFrom"] == {"fieldRef": {"fieldPath": "spec.nodeName"}}


def test_labels_of_kueue_are_the_jobs_alone() -> None:
    job = job_of(WAVES["everything"])
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpu"
    assert "kueue.x-k8s.io/queue-name" not in labels
    assert labels["team"] == job["metadata"]["labels"]["team"] == "maps"
    assert labels.keys() >= OWN_LABELS


def test_a_claim_that_is_seen_at_two_places_is_one_volume() -> None:
    spec = job_of(WAVES["everything"])["spec"]["template"]["spec"]
    names = [volume["name"] for volume in spec["volumes"]]
    assert len(names) == len(set(names))
    mounts = {mount["mountPath"]: mount for mount in spec["containers"][0]["volumeMounts"]}
    assert mounts["/data"]["name"] == mounts["/data/more"]["name"]
    assert mounts["/data"]["readOnly"] is True
    assert {volume["name"] for volume in spec["volumes"]} == {m["name"] for m in mounts.values()}


def test_what_is_shown_before_a_run_is_yaml_and_names_the_elements() -> None:
    elements = tuple(Element(index=i, name=str(i)) for i in range(30))
    text = render_batch(make_batch(elements=elements, array_size=20, target=make_target(pack=2)))
    (job,) = yaml.safe_load_all(text)
    assert job["spec"]["completions"] == 10
    assert "#   0 1\n#   2 3\n" in text
    batch = make_batch(id="b\n- x: y", elements=elements)
    assert yaml.safe_load(render_batch(batch))["kind"] == "Job"
    assert "#   … 20 lines more" in render_batch(batch)


def test_a_batch_of_another_backend_has_no_pod() -> None:
    batch = make_batch().model_copy(update={"target": LocalTarget()})
    with pytest.raises(InvalidInput, match=r"without a place on Kubernetes; .*plan the run again"):
        render_pod(batch)


def test_a_batch_is_frozen_with_its_pods() -> None:
    batch = WAVES["everything"].batch
    assert Batch.model_validate_json(batch.to_json()) == batch
    assert '"kubernetes": {' in batch.to_json()


def test_more_indexes_than_a_job_may_have_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muster.backends.kubernetes.render.MOST_INDEXES", 3)
    job_of(make_wave(3))
    with pytest.raises(InvalidInput, match=r"too many elements.*4.*say array_size"):
        job_of(make_wave(4))


def dressed(wave: Wave) -> dict[str, Any]:
    """Return a pod as Airflow and a site's policies dress it."""
    pod = render_pod(wave.batch)
    pod["metadata"] |= {"name": "task-x", "namespace": "elsewhere"}
    pod["metadata"]["labels"] |= {"dag_id": "d", "task_id": "t", "kubernetes_pod_operator": "True"}
    spec = pod["spec"]
    spec["nodeSelector"] = {"pool": "policy"}
    spec["schedulerName"] = "volcano"
    spec["tolerations"] = [{"key": "policy", "operator": "Exists"}]
    container = spec["containers"][0]
    container["image"] = f"mirror.internal/{container['image']}"
    container["env"].append({"name": "HTTPS_PROXY", "value": "http://proxy"})
    container["terminationMessagePolicy"] = "File"
    container["resources"]["limits"]["rdma/hca"] = "1"
    spec["volumes"].append({"name": "ca", "configMap": {"name": "ca"}})
    container["volumeMounts"].append({"name": "ca", "mountPath": "/etc/ca"})
    return pod


def test_what_others_add_to_a_pod_stays() -> None:
    wave = make_wave(resources=Resources(memory_mib=512))
    job = render_job(wave, dressed(wave))
    kubernetes_validate.validate(job, VERSIONS[1], strict=True)
    template = job["spec"]["template"]
    assert template["metadata"]["labels"]["dag_id"] == "d"
    assert template["metadata"].keys() == {"labels", "annotations"}
    assert template["spec"]["nodeSelector"] == {"pool": "policy"}
    assert container_of(job)["resources"]["limits"] == {"rdma/hca": "1", "memory": "512Mi"}
    assert "HTTPS_PROXY" in started(job, 0)[1]
    assert job["metadata"]["namespace"] == "default"


def other_command(pod: dict[str, Any]) -> None:
    pod["spec"]["containers"][0]["args"].append("--all")


def other_variable(pod: dict[str, Any]) -> None:
    pod["spec"]["containers"][0]["env"].append({"name": "MUSTER_WORK", "value": "/elsewhere"})


def no_variable(pod: dict[str, Any]) -> None:
    said = pod["spec"]["containers"][0]["env"]
    said[:] = [one for one in said if one["name"] != "MUSTER_HOST"]


def restarts(pod: dict[str, Any]) -> None:
    pod["spec"]["restartPolicy"] = "OnFailure"


def sidecar(pod: dict[str, Any]) -> None:
    pod["spec"]["containers"].append({"name": "airflow-xcom-sidecar", "image": "alpine"})


def other_label(pod: dict[str, Any]) -> None:
    pod["metadata"]["labels"]["app.kubernetes.io/managed-by"] = "helm"


def root(pod: dict[str, Any]) -> None:
    pod["spec"]["securityContext"]["runAsNonRoot"] = False


def capabilities(pod: dict[str, Any]) -> None:
    pod["spec"]["containers"][0]["securityContext"]["capabilities"]["drop"] = []


def deadline(pod: dict[str, Any]) -> None:
    pod["spec"]["activeDeadlineSeconds"] = 60


def other_name(pod: dict[str, Any]) -> None:
    pod["spec"]["containers"][0]["name"] = "base"


def no_mount(pod: dict[str, Any]) -> None:
    pod["spec"]["containers"][0]["volumeMounts"] = []


def no_spec(pod: dict[str, Any]) -> None:
    del pod["spec"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (other_command, r"spec\.containers\[muster\]\.args is "),
        (other_variable, r"env\[MUSTER_WORK\] is there 2 times"),
        (no_variable, r"env\[MUSTER_HOST\] is there 0 times"),
        (restarts, r"spec\.restartPolicy is 'OnFailure', not 'Never'"),
        (sidecar, r"spec\.containers has another container"),
        (other_label, r"managed-by is 'helm', not 'muster'"),
        (root, r"runAsNonRoot is False, not True"),
        (capabilities, r"capabilities\.drop is without 'ALL'"),
        (deadline, r"spec\.activeDeadlineSeconds"),
        (other_name, r"spec\.containers\[muster\] is there 0 times"),
        (no_mount, r"volumeMounts\[/tmp\] is there 0 times"),
        (no_spec, r"spec is None"),
    ],
)
def test_a_pod_that_was_changed_where_it_is_ours_is_refused(change: Any, told: str) -> None:
    wave = make_wave()
    pod = dressed(wave)
    change(pod)
    with pytest.raises(InvalidInput, match=told):
        render_job(wave, pod)


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ({"spec": {"volumes": [{"name": "scratch", "emptyDir": {}}]}},
         r"spec\.volumes\[scratch\] is said already.*pod_template of pool gke"),
        ({"spec": {"containers": [{"name": "muster", "env": [{"name": "HOME", "value": "/x"}]}]}},
         r"env\[HOME\] is said already"),
        ({"spec": {"containers": [{"name": "muster", "terminationMessagePolicy": "File"}]}},
         r"terminationMessagePolicy is said already.*got: 'File'"),
        ({"spec": {"containers": [
            {"name": "muster", "volumeMounts": [{"name": "x", "mountPath": "/tmp"}]}]}},
         r"volumeMounts\[/tmp\] is said already"),
    ],
)  # fmt: skip
def test_a_template_that_says_otherwise_than_the_pool_is_refused(
    template: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        render_pod(make_batch(target=make_target(pod_template=template)))


def test_names_are_those_of_the_key_alone() -> None:
    assert job_name(KEY) == job_name(KEY) != job_name(f"{KEY}x")
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", f"{job_name(HOSTILE)}-99999")
