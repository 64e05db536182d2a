"""What a run has come to, judged from its elements alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from muster.jobs.runs.verdict import judge, judge_elements, read_quorum
from muster.store.records import Run, RunState
from muster.store.runs import ElementStatus


def status(group: str, step: str, state: str, message: str | None = None) -> ElementStatus:
    return ElementStatus(
        step=f"traits.{step}", group=group, name=group, state=state, reason=None, batch_id=None,
        attempts=1, host=None, seconds=None, max_rss_mib=None, message=message, log_uri=None,
    )  # fmt: skip


def trait(name: str, predict: str, cov: str, aoa: str, build: str) -> list[ElementStatus]:
    states = zip(("predict", "cov", "aoa", "build"), (predict, cov, aoa, build), strict=True)
    return [status(name, step, state) for step, state in states]


WHOLE = trait("a", "succeeded", "reused", "not_asked", "succeeded")
NO_MODEL = trait("b", *["missing_input"] * 4)
NO_AOA = trait("c", "succeeded", "succeeded", "software_error", "succeeded")


def test_each_group_is_judged_by_itself() -> None:
    verdict = judge([*WHOLE, *NO_MODEL, *NO_AOA], planned=True)
    assert [(g.name, g.state) for g in verdict.groups] == [
        ("a", "succeeded"),
        ("b", "missing_input"),
        ("c", "failed"),
    ]
    assert not verdict.good
    assert verdict.summary.startswith("1 of 2 succeeded")


def test_what_has_no_input_does_not_count_against_the_quorum() -> None:
    assert judge([*WHOLE, *NO_MODEL], planned=True).good


def test_a_run_in_which_nothing_succeeded_is_never_good() -> None:
    assert not judge(NO_MODEL, planned=True, quorum=0.0).good
    assert not judge([], planned=True).good


def test_the_quorum_decides() -> None:
    assert judge([*WHOLE, *NO_AOA], planned=True, quorum=0.5).good
    assert not judge([*WHOLE, *NO_AOA], planned=True, quorum=0.51).good


def test_without_a_plan_there_is_no_success() -> None:
    assert not judge(WHOLE, planned=False).good


def test_what_has_not_ended_is_no_success() -> None:
    for state in ("pending", "running", "cancelled", "lost"):
        assert not judge(
            trait("a", "succeeded", "succeeded", state, "succeeded"), planned=True
        ).good


def test_it_says_trait_by_trait_why() -> None:
    bad = [*trait("a", "succeeded", "succeeded", "reused", "succeeded")[:3],
           status("a", "build", "transient", "disk full; where: /x")]  # fmt: skip
    text = judge(bad, planned=True).describe()
    assert "a: failed: predict succeeded, cov succeeded, aoa reused, build transient" in text
    assert "disk full; where: /x" in text


# -- by element ---------------------------------------------------------------------------------

POPULATE = "mocks.populate"


def mocks(**counts: int) -> list[ElementStatus]:
    """Catalogues of one batch, in the states that are named."""
    every = [state for state, count in counts.items() for _ in range(count)]
    return [
        replace(status("part-000", "x", state, f"why {state}"), step=POPULATE, name=f"r{n:04d}")
        for n, state in enumerate(every)
    ]


def other(step: str, state: str) -> ElementStatus:
    return replace(status("gather", "x", state), step=f"mocks.{step}", name=step)


@pytest.mark.parametrize(
    ("quorum", "good"), [(0.98, True), (0.99, True), (0.991, False), (1.0, False)]
)
def test_the_quorum_counts_elements_whatever_their_group(quorum: float, good: bool) -> None:
    """One in a hundred fails: as a group of its own none would have succeeded."""
    verdict = judge_elements(
        mocks(succeeded=90, reused=9, lost=1), {POPULATE}, planned=True, quorum=quorum
    )
    assert verdict.good is good
    assert verdict.summary.startswith("99 of 100 succeeded")


def test_missing_input_is_neither_success_nor_failure() -> None:
    verdict = judge_elements(mocks(succeeded=1, missing_input=99), {POPULATE}, planned=True)
    assert verdict.good
    assert verdict.summary == "1 of 1 succeeded (quorum 100.0%), 0 failed, 99 without their input"
    assert not judge_elements(mocks(missing_input=9), {POPULATE}, planned=True, quorum=0.0).good


def test_what_was_not_asked_for_is_not_counted() -> None:
    some = mocks(succeeded=1, lost=1, not_asked=98)
    assert not judge_elements(some, {POPULATE}, planned=True, quorum=0.51).good
    assert not judge_elements(mocks(not_asked=3), {POPULATE}, planned=True, quorum=0.0).good


def test_a_failure_of_another_step_is_one_of_the_run() -> None:
    done = mocks(succeeded=10)
    ended = judge_elements([*done, other("qa", "timed_out")], {POPULATE}, planned=True, quorum=0.5)
    assert not ended.good
    assert ended.summary.endswith("; 1 of mocks.qa failed")
    assert judge_elements([*done, other("qa", "missing_input")], {POPULATE}, planned=True).good
    assert judge_elements([*done, other("qa", "succeeded")], {POPULATE}, planned=True).good


def test_a_verdict_of_many_elements_is_a_line_a_class_with_an_example() -> None:
    many = [*mocks(succeeded=39_000, software_error=900, missing_input=100), other("qa", "lost")]
    lines = judge_elements(many, {POPULATE}, planned=True).describe().splitlines()
    assert lines[0] == f"{POPULATE}: 39000 succeeded"
    assert lines[1] == f"{POPULATE}: 900 software_error, such as r39000, why software_error"
    assert len(lines) == 5


def test_without_a_plan_elements_are_no_success() -> None:
    verdict = judge_elements(mocks(succeeded=1), {POPULATE}, planned=False, cause="no haloes")
    assert (verdict.good, verdict.summary) == (False, "the run has no completed plan: no haloes")


@pytest.mark.parametrize(
    ("params", "quorum"),
    [({}, 1.0), ({"quorum": None}, 1.0), ({"quorum": 0.98}, 0.98), ({"quorum": 0}, 0.0),
     ({"quorum": True}, 1.0), ({"quorum": 1.5}, 1.0), ({"quorum": "0.5"}, 1.0)],
)  # fmt: skip
def test_the_params_of_a_run_may_say_its_quorum(params: dict[str, object], quorum: float) -> None:
    run = Run(
        id="r", workflow="w", state=RunState.PLANNED, params=params, work_uri="w",
        interval_start=None, interval_end=None, facts={}, message=None,
        created_at=datetime.now(UTC), planned_at=None, ended_at=None,
    )  # fmt: skip
    assert read_quorum(run) == quorum
