"""One batch and one plan in which every field says something other than its default.

The one place where the pins import the model, so that moving it touches no pin.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache, wraps
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from pydantic import BaseModel, ValidationError

from muster.model.attempt import Artifact, Fence, LogSpan, Progress, Result
from muster.model.batch import Batch, Element
from muster.model.coordinates import Coordinates
from muster.model.kubernetes_target import KubernetesTarget
from muster.model.outcome import Outcome
from muster.model.plan import Decision, Plan, PlannedElement, PlannedPlacement
from muster.model.resources import Caps, PartialResources, Resources
from muster.model.retry_policy import RetryPolicy
from muster.model.slurm_target import Cluster, SlurmTarget
from muster.model.wave import Wave
from tests.unit.pins.golden_files import read_golden

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Batch", "Fence", "Plan", "Progress", "Resources", "Result", "Wave"]

AT = datetime(2024, 3, 1, 12, 34, 56, 789000, tzinfo=UTC)

_Model = TypeVar("_Model", bound=BaseModel)


def read_stored(model: type[_Model], name: str) -> _Model:
    """Read a golden file as what a running job, or the store, holds it for."""
    return _told(f"golden/{name} is read", lambda: model.model_validate_json(read_golden(name)))


def pinned(make: Callable[[], _Model]) -> Callable[[], _Model]:
    """Make a thing once, and say in a line where it can no longer be made of these fields."""
    return wraps(make)(cache(lambda: _told(f"{make.__name__} is made", make)))


def _told(what: str, make: Callable[[], _Model]) -> _Model:
    try:
        return make()
    except ValidationError as error:
        problems = error.errors()
    moved = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in problems[:4])
    return pytest.fail(
        f"{what} no longer: {moved}. Its fields are stored by runs that go on: keep them, or add"
        " a migration",
        pytrace=False,
    )


@pinned
def slurm_batch() -> Batch:
    return Batch(
        id="0123456789.traits.aoa.SLA",
        run="trait_inference.manual__2024-03-01T00:00:00+00:00",
        step="traits.aoa",
        backend="slurm",
        pool="gpu_l40s",
        slots=8,
        resources=Resources(cpus=8, memory_mib=131072, time_limit_s=14400, gpus=2),
        caps=Caps(memory_mib=256000, time_limit_s=86400),
        elements=(
            Element(
                index=0, name="SLA", inputs={"engine": "tree"}, outputs={"aoa": "/bands/a.tif"}
            ),
            Element(
                index=1,
                name="Größe",
                inputs={"predictors": ["/a.tif", "s3://b/c.tif"], "window_px": 512, "former": None},
                outputs={"aoa": "s3://bands/b.tif"},
            ),
            Element(index=2, name="plain"),
        ),
        work_uri="/shared/muster/work/runs/r/batches/traits.aoa.SLA",
        pool_uri="/shared/muster/work/pools/gpu_l40s",
        seed=7,
        slurm=SlurmTarget(
            partition="l40s",
            account="m1234",
            qos="normal",
            constraint="gpu&hbm80g",
            reservation="course_1",
            gres="gpu:l40s",
            nodes=2,
            ntasks=4,
            exclusive=True,
            pack=2,
            options={"mail-type": "FAIL", "nice": 100, "spread-job": True},
            cluster=Cluster(
                name="genoa",
                transport="ssh",
                host="login.example.org",
                port=2222,
                user="ada",
                key="/home/ada/.ssh/id_ed25519",
                known_hosts="/home/ada/.ssh/known_hosts",
                work="/scratch/ada/muster",
                poll_every="00:00:45",
                result_grace="00:01:30",
                submissions_per_s=0.5,
                python="/opt/muster/bin/python",
                prelude=("module load gcc",),
                container=("apptainer", "exec", "--nv", "/images/muster.sif"),
                environment={"TMPDIR": "/tmp"},
            ),
            work_root="/shared/muster/work",
        ),
        deadline_s=172800,
        environment={"GDAL_CACHEMAX": "256"},
        looks=True,
        needs_store=True,
    )


@pinned
def local_batch() -> Batch:
    """As batches were frozen before plans said whether they need the store, with older files."""
    return Batch(
        id="0123456789.traits.predict.SLA",
        run="r",
        step="traits.predict",
        backend="local",
        pool="local",
        elements=(Element(index=0, name="SLA"),),
        work_uri="/work/runs/r/batches/traits.predict.SLA",
        pool_uri="/work/pools/local",
    )


@pinned
def campaign_batch() -> Batch:
    """As batches of a campaign are frozen, with all that the two above cannot say."""
    of_slurm = slurm_batch()
    small, large = of_slurm.elements[:2]
    return of_slurm.model_copy(
        update={
            "elements": (
                small,
                large.model_copy(update={"resources": Resources(cpus=8, memory_mib=196608)}),
            ),
            "target": of_slurm.target.model_copy(
                update={"launcher": ("srun", "--mpi=pmix", "-n", "{ntasks}", "-c", "{cpus}")}
            ),
            "retries": RetryPolicy(
                max_retries=3, backoff="fixed", first_delay_s=10.0, longest_delay_s=60.0
            ),
            "array_size": 100,
            "layout": 2,
        }
    )


@pinned
def kubernetes_target() -> KubernetesTarget:
    said: dict[str, Any] = {
        "image": "example.org/muster/compute:1.2",
        "image_pull_policy": "Always",
        "node_selector": {"pool": "l4"},
        "tolerations": [
            {
                "key": "nvidia.com/gpu",
                "operator": "Equal",
                "value": "present",
                "effect": "NoExecute",
                "toleration_seconds": 30,
            }
        ],
        "affinity": {"podAntiAffinity": {}},
        "priority_class": "muster-gpu",
        "runtime_class": "nvidia",
        "service_account": "muster-jobs",
        "gpu": "nvidia.com/mig-1g.10gb",
        "pull_secrets": ["registry"],
        "environment": {"AWS_ENDPOINT_URL": "https://s3.example.org"},
        "env_from": [{"secret": "s3", "prefix": "S3_", "optional": True}],
        "environment_from": {
            "TOKEN": {"config_map": "settings", "key": "token", "optional": True},
        },
        "store": {"secret": "muster-store", "key": "url"},
        "volumes": [
            {"path": "/data", "claim": "inputs", "sub_path": "v2", "read_only": True},
            {"path": "/cache", "empty_dir": "50GiB", "memory": True},
        ],
        "scratch": "20GiB",
        "shm": "8GiB",
        "labels": {"kueue.x-k8s.io/queue-name": "gpu"},
        "annotations": {"example.org/cost-centre": "m1234"},
        "ttl": "7d",
        "start_grace": "00:20:00",
        "termination_grace": "00:01:00",
        "cpu_limit": True,
        "run_as_user": 1000,
        "run_as_group": 1001,
        "fs_group": 1002,
        "pack": 2,
        "pod_template": {"spec": {"schedulerName": "volcano"}},
        "ntasks": 4,
        "launcher": ["mpirun", "-n", "{ntasks}"],
        "cluster": {
            "name": "gke",
            "context": "gke",
            "kubeconfig": "/home/ada/.kube/config",
            "namespace": "muster-jobs",
            "requests_per_s": 5.0,
            "result_grace": "00:01:30",
            "stuck_after": "00:10:00",
            "python": "/opt/muster/bin/python",
        },
    }
    return KubernetesTarget.model_validate(said)


@pinned
def kubernetes_batch() -> Batch:
    of_campaign = campaign_batch()
    return of_campaign.model_copy(update={"target": kubernetes_target(), "id": "0123456789.aoa"})


@pinned
def plan() -> Plan:
    """As plans were written before they placed anything."""
    return Plan(
        workflow="trait_inference",
        elements=(
            PlannedElement(
                step="traits.predict",
                name="SLA",
                group="SLA",
                decision=Decision.RUN,
                reason="not there yet",
                inputs={"bundle": "/models/SLA", "engine": "lightgbm", "window_px": None},
                outputs={
                    "prediction": "/work/bands/default/static/SLA/predict-0123456789abcdef.tif"
                },
                needs_store=True,
            ),
            *(
                PlannedElement(
                    step=f"traits.{task}",
                    name="SLA",
                    group="SLA",
                    decision=decision,
                    reason="because",
                )
                for task, decision in (
                    ("cov", Decision.REUSED),
                    ("aoa", Decision.MISSING_INPUT),
                    ("build", Decision.INVALID_INPUT),
                    ("inspect", Decision.NOT_ASKED),
                )
            ),
        ),
        facts={"pixels": 9, "grid": "3 × 3"},
        products={"SLA": "/maps/SLA.tif"},
        cached=("cov-0123456789abcdef.tif", "predict-0123456789abcdef.tif"),
        made_at=AT,
    )


@pinned
def campaign_plan() -> Plan:
    """As campaigns are planned: coordinates, resources of one element, placements."""
    of_trait = plan()
    first, *rest = of_trait.elements
    located = first.model_copy(
        update={
            "coordinates": Coordinates(
                realization=7, redshift=1.1, trait="SLA", dataset="d", month="2024-03"
            ),
            "resources": PartialResources(
                cpus=4, memory_mib=1024, time_limit_s=600, gpus=1, memory_factor=2.0
            ),
        }
    )
    placement = PlannedPlacement(
        step="traits.predict",
        group="SLA",
        job_type="gpu_intensive",
        pool="gpu_l40s",
        account="m1234",
        resources=PartialResources(memory_factor=0.5),
        retries=RetryPolicy(max_retries=3),
        array_size=100,
        pack=4,
        slots=64,
    )
    return of_trait.model_copy(update={"elements": (located, *rest), "placements": (placement,)})


@pinned
def fence() -> Fence:
    return Fence(
        submission="0123456789.traits.aoa.SLA.w1.0a1b2c3d",
        attempt=3,
        resources=Resources(cpus=8, memory_mib=131072, time_limit_s=14400, gpus=2),
        longest_s=3600.5,
    )


@pinned
def result() -> Result:
    return Result(
        submission="0123456789.traits.aoa.SLA.w1.0a1b2c3d",
        index=1,
        attempt=3,
        outcome=Outcome.SOFTWARE_ERROR,
        exit_code=70,
        signal=11,
        started_at=AT,
        seconds=12.345,
        max_rss_mib=678.9,
        host="gpu1",
        pid=4321,
        artifacts=(
            Artifact(
                name="aoa", uri="/bands/a.tif", sha256="ab" * 32, bytes=17, media_type="image/tiff"
            ),
        ),
        facts={"inside_fraction": 0.5},
        error_class="ValueError",
        message="ValueError: planted at aoa.py:1",
        log=LogSpan(name="slurm/0123456789.traits.aoa.SLA.w1.0a1b2c3d/0.out", begin=12, end=345),
    )


@pinned
def progress() -> Progress:
    return Progress(
        submission="0123456789.traits.aoa.SLA.w1.0a1b2c3d",
        index=1,
        attempt=3,
        fraction=0.42,
        message="window 84 of 200",
        left_s=180.5,
        at=AT,
    )


def left_at_default(model: BaseModel, path: str = "") -> Iterator[str]:
    """List the fields of a model, and of the models in it, that only say their default."""
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        where = f"{path}.{name}".lstrip(".")
        if not field.is_required() and value == field.get_default(call_default_factory=True):
            yield where
        if isinstance(value, BaseModel):
            yield from left_at_default(value, where)


def render_plan(plan: Any) -> str:
    """Render a plan as the inspections of both workflows write it."""
    text: str = plan.model_dump_json(indent=1)
    return text
