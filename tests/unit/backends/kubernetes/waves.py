"""Waves on Kubernetes for the tests of what is rendered: plain ones, and one of every kind."""

from __future__ import annotations

from typing import Any

from muster.model.batch import Batch, Element
from muster.model.kubernetes_target import Kubernetes, KubernetesTarget
from muster.model.resources import Caps, Resources
from muster.model.wave import Wave

KEY = "0123456789.traits.predict.SLA.w1.89abcdef"
IMAGE = "registry.example.org/muster/compute:1.2"
DIGEST = f"registry.example.org/muster/compute-gpu@sha256:{'0123456789abcdef' * 4}"
HOSTILE = "a b\t'c' \"d\" $(touch hit) `touch hit` $(MUSTER_JOB) $$(HOME) ${HOME} \\ %a;\n#é ≥ --"
WORK = {"path": "/shared/muster", "claim": "muster-work"}


def make_target(**words: Any) -> KubernetesTarget:
    given: dict[str, Any] = {"image": IMAGE, "volumes": [WORK], **words}
    return KubernetesTarget.model_validate(given)


def make_batch(count: int = 1, target: KubernetesTarget | None = None, **changes: Any) -> Batch:
    fields: dict[str, Any] = {
        "id": "0123456789.traits.predict.SLA",
        "run": "trait_inference.manual__2026-03-01T00:00:00+00:00",
        "step": "traits.predict",
        "pool": "gke",
        "slots": 2,
        "resources": Resources(cpus=4, memory_mib=8192, time_limit_s=7200),
        "caps": Caps(),
        "elements": tuple(Element(index=i, name=f"e{i}") for i in range(count)),
        "work_uri": "/shared/muster/work/runs/one/batches/predict",
        "pool_uri": "/shared/muster/work/pools/gke",
        "layout": 2,
    } | changes
    return Batch(backend="kubernetes", kubernetes=target or make_target(), **fields)


def make_wave(count: int = 1, target: KubernetesTarget | None = None, **changes: Any) -> Wave:
    of_wave = {name: changes.pop(name) for name in ("key", "excluded_hosts") if name in changes}
    batch = make_batch(count, target, **changes)
    resources = batch.resources
    return Wave(
        batch=batch,
        attempts=dict.fromkeys(range(count), 1),
        resources=resources,
        **{"key": KEY, **of_wave},
    )


EVERYTHING = make_target(
    image=DIGEST,
    image_pull_policy="Always",
    node_selector={"cloud.google.com/gke-accelerator": "nvidia-l4"},
    tolerations=[
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "spot", "value": "true", "effect": "NoExecute", "toleration_seconds": 30},
    ],
    affinity={
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]},
                    {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["b"]}]},
                ]
            }
        }
    },
    priority_class="muster-gpu",
    runtime_class="nvidia",
    service_account="muster-jobs",
    pull_secrets=["registry"],
    environment={"AWS_ENDPOINT_URL": "https://s3.example.org", "COST": "5$ $(HOME)"},
    env_from=[{"secret": "s3"}, {"config_map": "settings", "prefix": "SITE_", "optional": True}],
    environment_from={
        "EARTHDATA_TOKEN": {"secret": "earthdata", "key": "token", "optional": True},
        "REGION": {"config_map": "settings", "key": "region"},
    },
    store={"secret": "muster-store", "key": "url"},
    volumes=[
        WORK,
        {"path": "/data", "claim": "inputs", "sub_path": "predictors/v2", "read_only": True},
        {"path": "/data/more", "claim": "inputs", "sub_path": "more"},
        {"path": "/cache", "empty_dir": "50GiB"},
    ],
    scratch="20GiB",
    shm="8GiB",
    labels={"team": "maps", "kueue.x-k8s.io/queue-name": "gpu"},
    annotations={"example.org/cost-centre": "m1234 / maps"},
    ttl="7d",
    start_grace="00:20:00",
    termination_grace="00:01:00",
    cpu_limit=True,
    run_as_user=1000,
    run_as_group=1001,
    fs_group=1002,
    cluster=Kubernetes(name="gke", namespace="muster-jobs", python="/opt/muster/bin/python"),
)
TEMPLATED = make_target(
    pod_template={
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"annotations": {"sidecar.istio.io/inject": "false"}},
        "spec": {
            "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["s3.internal"]}],
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": {"app.kubernetes.io/managed-by": "muster"}},
                }
            ],
            "initContainers": [
                {"name": "warm", "image": "example.org/warm:1", "args": ["/models"]}
            ],
            "containers": [
                {
                    "name": "muster",
                    "env": [{"name": "NCCL_DEBUG", "value": "INFO"}],
                    "resources": {"requests": {"ephemeral-storage": "30Gi"}},
                    "volumeMounts": [{"name": "models", "mountPath": "/models"}],
                }
            ],
            "volumes": [{"name": "models", "configMap": {"name": "models"}}],
        },
    }
)
GPUS = Resources(cpus=8, memory_mib=65536, time_limit_s=14400, gpus=2)
SLICE = Resources(cpus=2, memory_mib=16384, time_limit_s=3600, gpus=1)

WAVES = {
    "one": make_wave(),
    "cpu": make_wave(5, slots=200),
    "gpu": make_wave(3, make_target(), resources=GPUS),
    "mig": make_wave(2, make_target(gpu="nvidia.com/mig-1g.10gb"), resources=SLICE),
    "s3": make_wave(
        3,
        make_target(volumes=[], env_from=[{"secret": "s3"}]),
        work_uri="s3://muster/work/runs/one/batches/predict",
        pool_uri="s3://muster/work/pools/gke",
    ),
    "pvc": make_wave(2, make_target(volumes=[{**WORK, "sub_path": "team"}], fs_group=2000)),
    "packed": make_wave(10, make_target(pack=4), caps=Caps(time_limit_s=20_000)),
    "ranks": make_wave(1, make_target(ntasks=4, launcher=["mpirun", "-n", "{ntasks}"])),
    "excluded": make_wave(2, excluded_hosts=["gke-b", "gke-a", "gke-b"]),
    "template": make_wave(2, TEMPLATED),
    "everything": make_wave(
        5, EVERYTHING, resources=GPUS, needs_store=True, excluded_hosts=["gke-l4-1"],
        environment={"GDAL_CACHEMAX": "256"},
    ),
    "hostile": make_wave(
        2, make_target(environment={"SAID": HOSTILE}), step=f"a{HOSTILE}", run=HOSTILE,
        environment={"STEP": HOSTILE}, id=f"b {HOSTILE}", key=f"k {HOSTILE}",
        work_uri="/shared/muster/$(HOME)/$MUSTER_JOB/a b",
    ),
}  # fmt: skip
"""What is pinned: one wave of each kind."""
