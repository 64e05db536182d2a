"""Pools on Kubernetes in a site file: what they become, and what is refused in a line."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from muster.backends.kubernetes.names import INDEX_VARIABLE, OWN_ANNOTATIONS, OWN_LABELS
from muster.errors import ConfigError, MissingInput
from muster.jobs.planning.freeze import plan_batches
from muster.model.environment import HOST_VARIABLE, STORE_VARIABLE
from muster.model.kubernetes_target import Kubernetes, KubernetesTarget
from muster.model.kubernetes_words import OWN_NAMES, OWN_PREFIXES, OWN_VARIABLES
from muster.model.plan import Decision, Plan, PlannedElement, PlannedPlacement
from muster.pools import KubernetesPool, KubernetesSection
from muster.site import SITES_FOLDER, read_site, render_pools

if TYPE_CHECKING:
    from pathlib import Path

    from muster.site import Site

SITE = """
work = "/shared/muster/work"
[kubernetes.gke]
context = "gke"
namespace = "muster-jobs"
python = "python3"
[kubernetes.gke.defaults]
image = "example.org/compute:1"
scratch = "20GiB"
volumes = [{ claim = "muster-work", path = "/shared/muster" }]
labels = { "team" = "maps" }
[pools.cpu]
backend = "kubernetes"
slots = 100
max_memory = "120GiB"
[pools.gpu]
backend = "kubernetes"
slots = 8
image = "example.org/compute-gpu@sha256:DIGEST"
gpu = "nvidia.com/mig-1g.10gb"
shm = "8GiB"
node_selector = { "pool" = "l4" }
tolerations = [{ key = "nvidia.com/gpu", operator = "Exists" }]
env_from = [{ secret = "s3" }]
environment_from = { "TOKEN" = { secret = "earthdata", key = "token" } }
namespace = "gpu-jobs"
python = "/opt/python"
ttl = "30d"
pack = 2
[placement]
"traits.predict" = { pool = "cpu", cpus = 2, memory = "4GiB" }
"traits.aoa" = { pool = "gpu", gpus = 1 }
""".replace("DIGEST", "ab" * 32)


def write(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


def target(site: Site, name: str) -> KubernetesTarget:
    pool = site.pools[name]
    assert isinstance(pool, KubernetesPool)
    return pool.target(site)


def test_a_pool_says_what_its_pods_are_and_its_cluster_what_they_share(tmp_path: Path) -> None:
    site = read_site(write(tmp_path, SITE))
    cpu, gpu = target(site, "cpu"), target(site, "gpu")
    work = {"claim": "muster-work", "path": "/shared/muster"}
    cluster = Kubernetes(name="gke", context="gke", namespace="muster-jobs", python="python3")
    given: dict[str, Any] = {
        "image": "example.org/compute:1", "scratch": "20GiB", "volumes": [work],
        "labels": {"team": "maps"}, "cluster": cluster,
    }  # fmt: skip
    assert cpu == KubernetesTarget.model_validate(given)
    assert gpu.image == f"example.org/compute-gpu@sha256:{'ab' * 32}"
    assert (gpu.gpu, gpu.shm, gpu.pack) == ("nvidia.com/mig-1g.10gb", 8192, 2)
    assert (gpu.scratch, gpu.labels, gpu.volumes) == (20480, {"team": "maps"}, cpu.volumes)
    assert timedelta(seconds=gpu.ttl) == timedelta(days=30)
    assert (gpu.cluster.namespace, gpu.cluster.python) == ("gpu-jobs", "/opt/python")
    assert gpu.cluster.context == "gke"
    for place in (cpu, gpu):
        assert KubernetesTarget.model_validate_json(place.model_dump_json()) == place


def test_batches_of_one_cluster_and_namespace_share_a_connection(tmp_path: Path) -> None:
    site = read_site(write(tmp_path, SITE))
    cpu, gpu = target(site, "cpu"), target(site, "gpu")
    assert cpu.connection != gpu.connection
    alike = read_site(write(tmp_path, SITE.replace('namespace = "gpu-jobs"\n', "")))
    assert target(alike, "cpu").connection == target(alike, "gpu").connection


@pytest.mark.parametrize(
    ("said", "way"),
    [
        ('connection = "kubernetes_default"', (None, None, "kubernetes_default")),
        ('context = "other"', ("other", "/k", None)),
        ("", ("gke", "/k", None)),
    ],
)
def test_a_pool_may_be_reached_another_way(
    tmp_path: Path, said: str, way: tuple[str | None, ...]
) -> None:
    text = SITE.replace('context = "gke"', 'context = "gke"\nkubeconfig = "/k"')
    text = text.replace('namespace = "gpu-jobs"', said)
    cluster = target(read_site(write(tmp_path, text)), "gpu").cluster
    assert (cluster.context, cluster.kubeconfig, cluster.connection) == way


def test_a_cluster_that_is_found_here_needs_no_table(tmp_path: Path) -> None:
    text = """
work = "s3://bucket/work"
[pools]
pods = { backend = "kubernetes", slots = 1, image = "a:1", ntasks = 4 }
[placement]
"traits.predict" = { pool = "pods" }
"""
    place = target(read_site(write(tmp_path, text)), "pods")
    assert place.cluster == Kubernetes(name="kubernetes")
    assert place.launch_command(2) == ("mpirun", "--bind-to", "none", "-n", "4")


def test_airflows_pools_say_what_they_are(tmp_path: Path) -> None:
    pools = render_pools(read_site(write(tmp_path, SITE)))
    assert pools["gpu"]["description"] == "kubernetes pool, namespace gpu-jobs of site mine"


KEYS = (
    "affinity, annotations, backend, cluster, connection, context, cpu_limit, env_from, "
    "environment, environment_from, fs_group, gpu, image, image_pull_policy, labels, launcher, "
    "max_memory, max_time, namespace, node_selector, ntasks, pack, pod_template, priority_class, "
    "pull_secrets, python, run_as_group, run_as_user, runtime_class, scratch, service_account, "
    "shm, slots, start_grace, store, termination_grace, tolerations, ttl, volumes"
)
IMAGE = 'image = "example.org/compute:1"'
SHM = 'shm = "8GiB"'


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("slots = 8", "slots = 8\nnodes = 2",
         f"unknown key; where: {{path}}; got: pools.gpu.nodes; expected: {KEYS}"),
        ("slots = 8", "slots = 0", "pools.gpu.slots: a pool needs at least one slot"),
        ("slots = 8\n", "", "a key is missing; where: {path}; expected: pools.gpu.slots"),
        ("[kubernetes.gke]", "[kubernetes.gke]\nhost = 'x'", "got: kubernetes.gke.host; expected: "
         "connection, context, defaults, in_cluster, kubeconfig, namespace, python, requests_per"),
        ("[kubernetes.gke]", "[kubernetes.gke]\nin_cluster = true",
         "kubernetes.gke: context or kubeconfig, in_cluster: only one of these"),
        ("[kubernetes.gke.defaults]", "[kubernetes.gke.defaults]\nslots = 3",
         "got: kubernetes.gke.defaults.slots"),
        ('"muster-jobs"', '"Muster"', "kubernetes.gke.namespace: is no DNS label"),
        (IMAGE, 'image = "example.org/compute"', "defaults.image: has no tag and no digest"),
        (IMAGE, 'image = "example.org/compute:latest"', "defaults.image: is tagged latest"),
        (IMAGE, 'image = "example.org/a b:1"', "defaults.image: is no image"),
        (IMAGE, "", "pool 'cpu': (top level): no image is said"),
        (SHM, "shm = 8", "pools.gpu.shm: a size needs its unit"),
        (SHM, 'volumes = [{ claim = "w", path = "/tmp" }]', "volumes: more than one at /tmp"),
        (SHM, 'volumes = [{ claim = "w", path = "/a/../b" }]', "pools.gpu.volumes.0.path"),
        (SHM, 'volumes = [{ claim = "w", path = "/a", empty_dir = "1GiB" }]',
         "pools.gpu.volumes.0: is either a claim or an empty_dir"),
        (SHM, 'volumes = [{ claim = "w", path = "/a", memory = true }]', "only with empty_dir"),
        (SHM, 'volumes = [{ claim = "w", path = "/elsewhere" }]',
         "pods of pool 'gpu' do not see the work directory '/shared/muster/work'"),
        (SHM, 'volumes = [{ claim = "w", path = "/shared/muster", read_only = true }]',
         "do not see the work directory"),
        (SHM, 'volumes = [{ claim = "w", path = "/shared/mus" }]', "do not see the work directory"),
        ('work = "/shared/muster/work"\n', "", "do not see the work directory"),
        ("nvidia.com/mig-1g.10gb", "gpu", "pools.gpu.gpu"),
        ('operator = "Exists"', 'operator = "Is"', "pools.gpu.tolerations.0.operator"),
        ('operator = "Exists"', 'operator = "Exists", value = "x"', "Exists has no value"),
        ('operator = "Exists"', 'toleration_seconds = 3', "only with effect = 'NoExecute'"),
        ('{ "pool" = "l4" }', '{ "pool" = "a b" }', "is no label of a node"),
        ('{ secret = "s3" }', '{ secret = "s3", config_map = "c" }', "either a secret or a con"),
        ('{ secret = "s3" }', '{ secret = "S3" }', "pools.gpu.env_from.0.secret: is no name of"),
        (', key = "token"', "", "a key is missing; where: {path}; expected: pools.gpu.environ"),
        ('"TOKEN" =', '"MUSTER_JOB" =', "variable 'MUSTER_JOB' is set by Muster itself"),
        ('"TOKEN" =', '"a b" =', "no variable can have this name: 'a b'"),
        (SHM, 'environment = { "TOKEN" = "x" }', "both in environment and environment_from: TOKEN"),
        ('"team" = "maps"', '"team" = "a b"', "a label holds at most 63 letters"),
        ('"team" = "maps"', '"muster.dev/key" = "x"', "is set by Muster itself, or by Kubernetes"),
        (SHM, 'annotations = { "a b" = "x" }', "'a b' is no name of a label"),
        (SHM, "run_as_user = 0", "pools.gpu.run_as_user"),
        (SHM, "fs_group = 0", "pools.gpu.fs_group"),
        (SHM, 'affinity = { "podAfinity" = {} }', "'podAfinity' is none of nodeAffinity"),
        (SHM, 'launcher = ["mpirun"]', "pools.gpu: launcher: only with ntasks of 2 or more"),
        (SHM, 'ntasks = 2\nlauncher = ["/usr/bin/srun"]', "launcher: a pod has no srun"),
        (SHM, 'cluster = "far"', "pool 'gpu' is on cluster 'far'; there are ['gke']"),
        ("[kubernetes.gke]", "[kubernetes.far]\n[kubernetes.gke]",
         "pool 'cpu' does not say which cluster; there are ['far', 'gke']"),
        ("[kubernetes.gke]", "[kubernetes.'a b']\n[kubernetes.gke]", "kubernetes name 'a b' may"),
        (SHM, 'pod_template = { "spec" = { "nodeName" = "n1" } }',
         "pools.gpu.pod_template: spec.nodeName: is set by Muster itself"),
        (SHM, 'pod_template = { "spec" = { "tolerations" = [] } }',
         "spec.tolerations: is said by the pool's tolerations"),
        (SHM, 'pod_template = { "spec" = { "containers" = [{ "name" = "base" }] } }',
         "spec.containers: may hold one container alone, named 'muster'"),
        (SHM, 'pod_template = { "spec" = { "containers" = '
         '[{ "name" = "muster", "image" = "x" }] } }',
         "spec.containers[muster].image: is said by the pool's image"),
        (SHM, 'pod_template = { "spec" = { "containers" = '
         '[{ "name" = "muster", "resources" = { "limits" = { "memory" = "1Gi" } } }] } }',
         "spec.containers[muster].resources: memory is said by the placement"),
        (SHM, 'pod_template = { "spec" = { "containers" = '
         '[{ "name" = "muster", "env" = [{ "name" = "MUSTER_WORK" }] }] } }',
         "variable 'MUSTER_WORK' is set by Muster itself"),
        (SHM, 'pod_template = { "sepc" = {} }', "unknown key sepc; there are metadata, spec"),
        (SHM, 'pod_template = { "kind" = "Job" }', "should be of kind Pod"),
        (SHM, 'pod_template = { "metadata" = { "name" = "x" } }', "unknown key metadata.name"),
        (SHM, 'pod_template = { "metadata" = { "labels" = { "job-name" = "x" } } }',
         "'job-name' is set by Muster itself, or by Kubernetes"),
        (SHM, 'pod_template = { "metadata" = { "annotations" = { "a" = true } } }',
         "annotations.a: should be a text, in quotes"),
        (SHM, 'pod_template = { "spec" = { "hostAliases" = 2026-01-01 } }',
         "spec.hostAliases: date should be a text or a number"),
        (SHM, 'pod_template = { "spec" = [] }', "spec: should be a mapping"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_pool_is_said_in_one_line(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    assert old in SITE
    path = write(tmp_path, SITE.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        read_site(path)
    message = str(caught.value)
    assert says.format(path=path) in message
    assert path in message
    assert "\n" not in message


TEMPLATE = """
apiVersion: v1
kind: Pod
spec:
  hostAliases: [{ip: 10.0.0.1, hostnames: [s3.internal]}]
"""


def test_a_template_may_lie_beside_the_site_file(tmp_path: Path) -> None:
    said = 'pod_template = "pods/gpu.yaml"'
    path = write(tmp_path, SITE.replace(SHM, said))
    with pytest.raises(MissingInput, match=r"pods/gpu\.yaml"):
        read_site(path)
    (tmp_path / "pods").mkdir()
    file = tmp_path / "pods" / "gpu.yaml"
    file.write_text(TEMPLATE)
    place = target(read_site(path), "gpu")
    assert place.pod_template == {
        "spec": {"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["s3.internal"]}]}
    }
    file.write_text(TEMPLATE + "  nodeName: n1\n")
    with pytest.raises(ConfigError, match=r"pools\.gpu\.pod_template: spec\.nodeName"):
        read_site(path)
    file.write_text(TEMPLATE + TEMPLATE)
    with pytest.raises(ConfigError, match=r"gpu\.yaml, line 7; got: key 'apiVersion' is given"):
        read_site(path)
    shared = SITE.replace('scratch = "20GiB"', said)
    file.write_text(TEMPLATE)
    assert "hostAliases" in target(read_site(write(tmp_path, shared)), "cpu").pod_template["spec"]


def test_no_name_of_muster_and_kubernetes_can_be_said_by_a_pool() -> None:
    for name in OWN_LABELS | OWN_ANNOTATIONS:
        assert name in OWN_NAMES or name.startswith(OWN_PREFIXES)
    for name in (INDEX_VARIABLE, HOST_VARIABLE, STORE_VARIABLE, "MUSTER_JOB", "MUSTER_ELEMENTS"):
        assert OWN_VARIABLES.fullmatch(name)


def test_a_batch_is_frozen_with_its_pool_and_what_the_plan_says_of_it(tmp_path: Path) -> None:
    site = read_site(write(tmp_path, SITE))
    element = PlannedElement(
        step="traits.aoa", name="a", group="a", decision=Decision.RUN, reason="new"
    )
    placement = PlannedPlacement(step="traits.aoa", group="a", pack=7)
    plan = Plan(workflow="trait_inference", elements=(element,), placements=(placement,))
    ((_, batch),) = plan_batches(site, "run", "/shared/muster/work/runs/run", plan, {}).batches
    assert batch.backend == "kubernetes"
    assert isinstance(batch.target, KubernetesTarget)
    assert (batch.target.pack, batch.target.shm) == (7, 8192)
    charged = placement.model_copy(update={"account": "m1234"})
    plan = plan.model_copy(update={"placements": (charged,)})
    with pytest.raises(ConfigError, match=r"only a pool on Slurm charges.*on backend kubernetes"):
        plan_batches(site, "run", "/shared/muster/work/runs/run", plan, {})


def test_every_key_of_a_pool_and_a_cluster_is_documented(tmp_path: Path) -> None:
    text = (SITES_FOLDER.parent.parent / "docs" / "sites.md").read_text()
    section = text.partition("\n## Kubernetes\n")[2].partition("\n## ")[0]
    keys = set(KubernetesPool.model_fields) | set(KubernetesSection.model_fields)
    of_all_pools = {"backend", "slots", "max_memory", "max_time", "ntasks", "launcher"}
    assert [key for key in sorted(keys - of_all_pools) if f"`{key}`" not in section] == []
    example = section.partition("```toml\n")[2].partition("```")[0].replace("…", "ab" * 32)
    site = read_site(write(tmp_path, f"{example}[placement]\n"))
    assert target(site, "gpu_l4").shm == 8192
