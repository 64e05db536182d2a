"""Bytes of what lies in a work directory: jobs that run, and the store, hold such files now."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.pins import frozen
from tests.unit.pins.golden_files import check_golden, check_literal

if TYPE_CHECKING:
    from collections.abc import Callable

FINGERPRINT = "0d611753500833243cc88047582aff633280ac0196101cf57bfb06f4ace68c6b"
USER = "is stored by batches that run now, whose jobs are found by these bytes"


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("batch-slurm.json", frozen.slurm_batch),
        ("batch-local.json", frozen.local_batch),
        ("batch-campaign.json", frozen.campaign_batch),
        ("batch-kubernetes.json", frozen.kubernetes_batch),
    ],
)
def test_a_batch_is_frozen_into_the_same_bytes(name: str, make: Callable[[], frozen.Batch]) -> None:
    check_golden(name, make().to_json(), USER)


@pytest.mark.parametrize("of", ["slurm", "local", "campaign", "kubernetes"])
def test_a_stored_batch_is_read_and_stays_what_it_is(of: str) -> None:
    """A field that is new must not change the bytes, and so the fingerprint, of what is stored."""
    name = f"batch-{of}.json"
    check_golden(name, frozen.read_stored(frozen.Batch, name).to_json(), USER)


def test_the_files_of_a_batch_have_their_names() -> None:
    batch = frozen.read_stored(frozen.Batch, "batch-slurm.json")
    there = batch.work_uri
    check_literal(
        "files of a batch",
        {
            "fingerprint": batch.fingerprint,
            "batch": batch.uri,
            "fence": batch.fence_uri(1),
            "result": batch.result_uri(1, 2),
            "progress": batch.progress_uri(1, 2),
            "log": batch.log_uri(1, 2),
        },
        {
            "fingerprint": FINGERPRINT,
            "batch": f"{there}/batch-{FINGERPRINT[:12]}.json",
            "fence": f"{there}/fence/1",
            "result": f"{there}/results/1/2.json",
            "progress": f"{there}/progress/1/2.json",
            "log": f"{there}/logs/1/2.log",
        },
        USER,
    )


def test_the_files_of_a_batch_of_the_second_layout_have_their_names() -> None:
    batch = frozen.read_stored(frozen.Batch, "batch-campaign.json")
    there = batch.work_uri
    check_literal(
        "files of a batch of layout 2",
        [
            batch.fence_uri(1),
            batch.result_uri(1, 2),
            batch.progress_uri(1, 2),
            batch.log_uri(1, 2),
        ],
        [
            f"{there}/fences.json",
            f"{there}/results/1.2.json",
            f"{there}/progress/1.2.json",
            f"{there}/logs/1.2.log",
        ],
        USER,
    )


def test_results_and_fences_of_before_are_the_same_bytes() -> None:
    """Without what is new: a supervisor or a job of an earlier version reads them."""
    fence = frozen.fence().model_copy(update={"longest_s": None})
    assert "longest_s" not in fence.model_dump_json()
    result = frozen.result().model_copy(update={"log": None})
    assert '"log"' not in result.model_dump_json(indent=1)


@pytest.mark.parametrize(
    "make", [frozen.campaign_batch, frozen.campaign_plan, frozen.fence, frozen.result]
)
def test_what_is_pinned_says_something_in_every_field(make: Callable[[], frozen.Batch]) -> None:
    """Else a field that is renamed might be left at its default, and nobody would see it."""
    assert list(frozen.left_at_default(make())) == []


def test_what_is_pinned_of_kubernetes_says_something_in_every_field_but_other_ways() -> None:
    left = list(frozen.left_at_default(frozen.kubernetes_target()))
    assert left == ["cluster.in_cluster", "cluster.connection"]


def test_a_plan_is_written_in_the_same_bytes_and_read_again() -> None:
    user = "is read by the task plan, maybe of a later version than its inspection"
    check_golden("plan.json", frozen.render_plan(frozen.plan()), user)
    read = frozen.read_stored(frozen.Plan, "plan.json")
    check_golden("plan.json", frozen.render_plan(read), user)
    assert read.cached_names() == ["cov-0123456789abcdef.tif", "predict-0123456789abcdef.tif"]


def test_the_plan_of_a_campaign_is_written_in_the_same_bytes_and_read_again() -> None:
    user = "is read by the task plan, maybe of a later version than its inspection"
    check_golden("plan-campaign.json", frozen.render_plan(frozen.campaign_plan()), user)
    assert frozen.read_stored(frozen.Plan, "plan-campaign.json") == frozen.campaign_plan()


def test_a_plan_of_before_it_listed_what_is_cached_is_searched_for_it() -> None:
    written = frozen.plan().model_dump(mode="json", exclude={"cached"})
    read = frozen.Plan.model_validate(written)
    assert read.cached_names() == ["predict-0123456789abcdef.tif"]


def test_fence_result_and_progress_are_the_same_bytes() -> None:
    user = "passes between a supervisor and jobs that may be of another version"
    check_golden("fence.json", frozen.fence().model_dump_json(), user)
    check_golden("result.json", frozen.result().model_dump_json(indent=1), user)
    check_golden("progress.json", frozen.progress().model_dump_json(), user)
    assert frozen.read_stored(frozen.Fence, "fence.json") == frozen.fence()
    assert frozen.read_stored(frozen.Result, "result.json") == frozen.result()
    assert frozen.read_stored(frozen.Progress, "progress.json") == frozen.progress()
