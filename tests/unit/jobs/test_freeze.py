"""What a batch is frozen with: the site's words, once and for good."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from muster.errors import ConfigError
from muster.jobs.planning.cost import estimate_cost
from muster.jobs.planning.freeze import Freezer, FrozenPlan, plan_batches
from muster.model.batch import Batch, Element
from muster.model.coordinates import Coordinates
from muster.model.environment import STORE_VARIABLE, store_variables
from muster.model.plan import Decision, Plan, PlannedElement, PlannedPlacement, describe_decisions
from muster.model.resources import Caps, PartialResources, Resources
from muster.model.retry_policy import RetryPolicy
from muster.model.slurm_target import SlurmTarget
from muster.model.target import LocalTarget
from muster.pools import SlurmPool
from muster.site import Site, read_site
from tests.stored_campaign import make_site


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


# -- what a plan says of its placement ------------------------------------------------------------

STEP = "mocks.populate"


def planned(z: float, group: str = "p0", **more: Any) -> PlannedElement:
    return PlannedElement(
        **{
            "step": STEP, "name": f"r0_z{z}", "group": group, "decision": Decision.RUN,
            "reason": "", "coordinates": Coordinates(realization=0, redshift=z), **more,
        }
    )  # fmt: skip


def freeze_placed(
    *elements: PlannedElement, overrides: dict[str, Any] | None = None, **placement: Any
) -> FrozenPlan:
    placements = (PlannedPlacement(**{"step": STEP, **placement}),) if placement else ()
    plan = Plan(workflow="mock_campaign", elements=elements, placements=placements)
    site = make_site(Path("/shared"))
    return plan_batches(site, "run", "/shared/work/runs/run", plan, overrides or {})


def only_batch(frozen: FrozenPlan) -> Batch:
    ((_, batch),) = frozen.batches
    return batch


def test_without_a_placement_of_the_plan_the_site_places() -> None:
    batch = only_batch(freeze_placed(planned(1.0)))
    assert (batch.pool, batch.retries, batch.array_size) == ("cpu", None, None)
    assert {"retries", "array_size"}.isdisjoint(json.loads(batch.to_json()))
    assert "resources" not in json.loads(batch.to_json())["elements"][0]
    assert isinstance(batch.target, SlurmTarget)
    assert batch.target.account == "m1"


def test_a_job_type_gives_pool_and_resources() -> None:
    batch = only_batch(freeze_placed(planned(1.0), job_type="gpu_intensive", account="m9"))
    assert batch.pool == "gpu"
    assert batch.resources == Resources(cpus=8, gpus=2, memory_mib=48 * 1024, time_limit_s=3600)
    assert isinstance(batch.target, SlurmTarget)
    assert (batch.target.partition, batch.target.account) == ("l40s", "m9")
    assert Batch.model_validate_json(batch.to_json()) == batch


@pytest.mark.parametrize(("factor", "mib"), [(0.5, 24 * 1024), (1, 48 * 1024), (2, 64 * 1024)])
def test_a_memory_factor_stops_at_the_cap_of_the_pool(factor: float, mib: int) -> None:
    wish = PartialResources(memory_factor=factor)
    batch = only_batch(freeze_placed(planned(1.0), job_type="gpu_intensive", resources=wish))
    assert batch.resources.memory_mib == mib


def test_the_run_has_the_last_word_on_resources() -> None:
    wish = PartialResources(time_limit_s=1800)
    said = {STEP: {"time": "00:10:00", "memory": None}}
    batch = only_batch(freeze_placed(planned(1.0), overrides=said, resources=wish))
    assert (batch.resources.time_limit_s, batch.resources.memory_mib) == (600, 4096)


def test_an_element_asks_for_what_differs_from_the_others() -> None:
    low = PartialResources(memory_factor=2.0)
    same = PartialResources(memory_mib=4096)
    frozen = freeze_placed(planned(1.0), planned(0.1, resources=low), planned(0.2, resources=same))
    batch = only_batch(frozen)
    assert [e.resources for e in batch.elements] == [
        None, batch.resources.model_copy(update={"memory_mib": 8192}), None,
    ]  # fmt: skip
    assert batch.resources_of(1).memory_mib == 8192
    assert frozen.coordinates == {
        batch.id: [Coordinates(realization=0, redshift=z) for z in (1.0, 0.1, 0.2)]
    }


def test_policy_and_array_size_are_frozen_with_the_batch() -> None:
    policy = RetryPolicy(max_retries=3, backoff="fixed")
    batch = only_batch(freeze_placed(planned(1.0), retries=policy, array_size=100))
    assert (batch.retries, batch.array_size) == (policy, 100)
    again = Batch.model_validate_json(batch.to_json())
    assert (again, again.fingerprint) == (batch, batch.fingerprint)


def test_a_group_may_be_placed_elsewhere_than_the_others() -> None:
    elements = (planned(1.0), planned(1.1, "p1"))
    placements = (
        PlannedPlacement(step=STEP, group="p1", pool="gpu"),
        PlannedPlacement(step=STEP, array_size=7),
    )
    plan = Plan(workflow="mock_campaign", elements=elements, placements=placements)
    frozen = plan_batches(make_site(Path("/shared")), "run", "/shared/work/runs/run", plan, {})
    found = {group: (batch.pool, batch.array_size) for group, batch in frozen.batches}
    assert found == {"p0": ("cpu", 7), "p1": ("gpu", None)}


@pytest.mark.parametrize(
    ("placement", "message"),
    [
        ({"job_type": "huge"}, "no such job type; where: placement of mocks.populate; got: huge"),
        ({"pool": "moon"}, "no such pool; .* got: moon; expected: cpu, gpu, here"),
        ({"job_type": "local", "account": "m9"}, "only a pool on Slurm charges an account"),
        ({"account": "m 9"}, "account of mocks.populate"),
        ({"resources": PartialResources(memory_mib=10**6)}, "more than the pool gives"),
        ({"resources": PartialResources(time_limit_s=10**6)}, "more than the pool gives"),
        ({"step": "mocks.paint"}, "the site does not place this step"),
    ],
)
def test_a_placement_that_the_site_cannot_give_is_refused(
    placement: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        freeze_placed(planned(1.0), **placement)


def test_an_element_that_asks_for_more_than_the_pool_gives_is_refused() -> None:
    huge = PartialResources(memory_mib=10**6)
    with pytest.raises(ConfigError, match="more than the pool gives"):
        freeze_placed(planned(1.0, resources=huge))


@pytest.mark.parametrize("z", [-0.1, float("nan"), float("inf")])
def test_coordinates_that_are_none_are_refused(z: float) -> None:
    with pytest.raises(ValidationError):
        Coordinates(redshift=z)
    with pytest.raises(ValidationError):
        Coordinates(month="2024-13")


def test_the_cost_of_elements_with_resources_of_their_own_is_counted() -> None:
    long = PartialResources(time_limit_s=4 * 3600, gpus=1)
    batch = only_batch(freeze_placed(planned(1.0), planned(0.1, resources=long)))
    cost = estimate_cost([batch], [])
    assert (cost.elements, cost.cpu_hours_at_most, cost.gpu_hours_at_most) == (2, 24.0, 4.0)


def test_a_plan_is_described_by_a_line_a_batch_and_reason() -> None:
    def element(group: str, name: str, decision: Decision, reason: str) -> PlannedElement:
        return PlannedElement(
            step="mocks.populate", name=name, group=group, decision=decision, reason=reason
        )

    elements = [
        *(element("b0", f"r{n}", Decision.RUN, "it is not there") for n in range(400)),
        element("b0", "r400", Decision.REUSED, "it is there"),
        element("b1", "b1", Decision.RUN, "it is not there"),
    ]
    assert describe_decisions(elements) == [
        "b0 mocks.populate: run: it is not there; 400 elements, the first is r0",
        "b0 mocks.populate: reused: it is there; r400",
        "b1 mocks.populate: run: it is not there",
    ]
    lacking = (element("b0", f"r{n}", Decision.MISSING_INPUT, f"no r{n}") for n in range(1001))
    assert describe_decisions([*lacking, *elements])[:2] == [
        "mocks.populate: 1001 missing_input, r0: no r0",
        "mocks.populate: 401 run, r0: it is not there",
    ]
