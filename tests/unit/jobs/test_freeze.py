"""What a batch is frozen with: the site's words, once and for good."""

from __future__ import annotations

import pytest

from muster.jobs.planning.freeze import Freezer, plan_batches
from muster.model.batch import Batch, Element
from muster.model.environment import STORE_VARIABLE, store_variables
from muster.model.plan import Decision, Plan, PlannedElement
from muster.model.resources import Caps, Resources
from muster.model.slurm_target import SlurmTarget
from muster.model.target import LocalTarget
from muster.site import Site, SlurmPool, read_site


def freeze(site: Site, step: str) -> Batch:
    elements = [Element(index=0, name="SLA")]
    return Freezer(site, "run", f"{site.work_uri}/runs/run", {}).freeze(step, "SLA", elements)


def test_a_batch_on_slurm_is_frozen_with_its_place() -> None:
    site = read_site("genoa")
    batch = freeze(site, "traits.aoa")
    pool = site.pools["gpu_l40s"]
    assert isinstance(pool, SlurmPool)
    assert batch.backend == "slurm"
    assert batch.target == pool.target(site)
    assert isinstance(batch.target, SlurmTarget)
    assert (batch.target.partition, batch.target.gres) == ("l40s", "gpu:l40s")
    assert batch.target.cluster.name == "genoa"
    assert batch.resources == Resources(
        cpus=8, memory_mib=128 * 1024, time_limit_s=4 * 3600, gpus=2
    )
    assert batch.caps == Caps(memory_mib=250 * 1024, time_limit_s=86400)
    assert Batch.model_validate_json(batch.to_json()) == batch


@pytest.mark.parametrize("needs", [(), (False, True), (False, False), (True,)])
def test_a_batch_needs_the_store_where_one_of_its_elements_does(needs: tuple[bool, ...]) -> None:
    elements = tuple(
        PlannedElement(
            step="traits.aoa", name=str(number), group="SLA", decision=decision, reason="",
            needs_store=needed,
        )
        for decision, flags in ((Decision.RUN, needs or (False,)), (Decision.REUSED, (True,)))
        for number, needed in enumerate(flags)
    )  # fmt: skip
    plan = Plan(workflow="traits", elements=elements)
    ((_, batch),) = plan_batches(read_site("laptop"), "run", "/work/runs/run", plan, {}).batches
    assert batch.needs_store is any(needs)
    told = {STORE_VARIABLE: "postgresql://here"} if any(needs) else {}
    assert store_variables(batch, "postgresql://here") == told
    assert store_variables(batch, None) == {}


def test_a_batch_frozen_before_plans_said_so_is_as_it_was_and_told_nothing() -> None:
    frozen = freeze(read_site("laptop"), "traits.aoa")
    assert "needs_store" not in frozen.to_json()
    again = Batch.model_validate_json(frozen.to_json())
    assert (again, again.uri) == (frozen, frozen.uri)
    assert store_variables(again, "postgresql://here") == {}


def test_a_local_batch_has_no_place_on_slurm() -> None:
    assert freeze(read_site("laptop"), "traits.aoa").target == LocalTarget()
