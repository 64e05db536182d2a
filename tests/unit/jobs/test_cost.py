"""What planned batches will cost, with and without a past."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from muster.jobs.planning.cost import describe_cost, estimate_cost
from muster.model.resources import Resources
from muster.model.slurm_target import SlurmTarget
from muster.store.history import Took
from tests.batches import make_batch

if TYPE_CHECKING:
    from pathlib import Path

    from muster.model.batch import Batch

ASKED = Resources(cpus=4, time_limit_s=7200)


def planned(
    folder: Path, count: int = 3, step: str = "test.write", resources: Resources = ASKED
) -> Batch:
    return make_batch(folder, [{}] * count, step=step, resources=resources)


def test_at_most_is_the_limit_of_every_element(tmp_path: Path) -> None:
    gpu = Resources(cpus=2, gpus=1, time_limit_s=1800)
    cost = estimate_cost([planned(tmp_path), planned(tmp_path, 2, "test.gpu", gpu)], [])
    assert (cost.elements, cost.cpu_hours_at_most, cost.gpu_hours_at_most) == (5, 26.0, 1.0)
    assert (cost.cpu_hours_expected, cost.gpu_hours_expected) == (None, None)
    assert cost.untried == ("test.write", "test.gpu")
    assert describe_cost(cost).splitlines() == [
        "5 elements; at most 26 CPU-hours and 1 GPU-hours, when each is tried once",
        "nobody knows yet how long test.write, test.gpu will take",
    ]


def test_expected_is_the_median_of_what_had_the_same_cpus(tmp_path: Path) -> None:
    took = [
        Took("test.write", 4, 0, (1800.0, 3600.0, 36000.0)),
        Took("test.write", 8, 0, (1.0,) * 9),
        Took("test.other", 4, 0, (1.0,) * 9),
    ]
    cost = estimate_cost([planned(tmp_path)], took)
    assert (cost.cpu_hours_expected, cost.gpu_hours_expected) == (12.0, 0.0)
    assert cost.untried == ()
    assert describe_cost(cost).splitlines() == [
        "3 elements; at most 24 CPU-hours, when each is tried once",
        "about 12 CPU-hours, by what past attempts took",
    ]


def test_each_rank_has_the_cpus_and_each_node_the_gpus(tmp_path: Path) -> None:
    asked = Resources(cpus=4, gpus=2, time_limit_s=3600)
    slurm = SlurmTarget(ntasks=8, nodes=2)
    batch = make_batch(tmp_path, [{}] * 3, resources=asked, slurm=slurm)
    took = [Took("test.write", 4, 2, (3600.0,)), Took("test.write", 4, 2, (900.0,), ranks=8)]
    cost = estimate_cost([batch, planned(tmp_path, 1, resources=asked)], took)
    assert (cost.cpu_hours_at_most, cost.gpu_hours_at_most) == (3 * 32 + 4, 3 * 4 + 2)
    assert (cost.cpu_hours_expected, cost.gpu_hours_expected) == (3 * 8 + 4, 3 * 1 + 2)


def test_other_cpus_are_better_than_nothing(tmp_path: Path) -> None:
    cost = estimate_cost([planned(tmp_path)], [Took("test.write", 8, 0, (1800.0,))])
    assert cost.cpu_hours_expected == pytest.approx(6.0)


def test_a_step_without_a_limit_has_no_upper_bound(tmp_path: Path) -> None:
    free = planned(tmp_path, 1, "test.free", Resources(cpus=2))
    cost = estimate_cost([planned(tmp_path), free], [Took("test.free", 2, 0, (18.0,))])
    assert cost.cpu_hours_at_most is None
    assert cost.gpu_hours_at_most == 0.0
    assert describe_cost(cost).splitlines() == [
        "4 elements; no upper bound: test.free asked for no time limit",
        "nobody knows yet how long test.write will take",
    ]


def test_nothing_costs_nothing() -> None:
    assert describe_cost(estimate_cost([], [])) == "nothing is to be computed"
