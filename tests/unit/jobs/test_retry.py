"""Every case of the one function that says whether there is another attempt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.jobs.supervision.retry import BUDGET, FREE, Again, BackOff, Stop, decide_retry
from muster.model.outcome import Outcome
from muster.model.resources import Caps, Resources

End = Outcome
HAD = Resources(memory_mib=1000, time_limit_s=100)
ROOMY = Caps(memory_mib=10**9, time_limit_s=10**9)


def decide(outcomes: list[Outcome], had: Resources = HAD, caps: Caps = ROOMY) -> Again | Stop:
    return decide_retry(outcomes, had, caps, back_off=BackOff(1.0, 60.0))


@pytest.mark.parametrize(
    ("outcome", "retries"),
    [
        (End.MISSING_INPUT, 0),
        (End.INVALID_INPUT, 0),
        (End.CANCELLED, 0),
        (End.SOFTWARE_ERROR, 1),
        (End.TRANSIENT, 3),
        (End.NODE_FAILED, 5),
        (End.PREEMPTED, 5),
        (End.LOST, 5),
        (End.SUPERSEDED, 5),
        (End.OUT_OF_MEMORY, 5),
        (End.TIMED_OUT, 5),
    ],
)
def test_budget(outcome: Outcome, retries: int) -> None:
    for tries in range(1, retries + 1):
        assert isinstance(decide([outcome] * tries), Again), tries
    assert isinstance(decide([outcome] * (retries + 1)), Stop)


def test_every_outcome_has_a_budget() -> None:
    assert set(BUDGET) == set(Outcome) - {End.SUCCEEDED, End.NOT_BEGUN}, "not begun: no attempt"


def test_a_success_is_the_end() -> None:
    assert isinstance(decide([End.TRANSIENT, End.SUCCEEDED]), Stop)


def test_a_free_retry_uses_up_no_other_budget() -> None:
    assert isinstance(decide([End.LOST, End.NODE_FAILED, End.SOFTWARE_ERROR]), Again)
    assert isinstance(decide([End.SOFTWARE_ERROR, End.LOST, End.SOFTWARE_ERROR]), Stop)


def test_free_retries_share_one_budget() -> None:
    mixed = [End.NODE_FAILED, End.LOST, End.PREEMPTED, End.NODE_FAILED, End.LOST]
    assert isinstance(decide(mixed), Again)
    assert isinstance(decide([*mixed, End.PREEMPTED]), Stop)


@pytest.mark.parametrize(
    ("outcome", "grown"),
    [
        (End.OUT_OF_MEMORY, Resources(memory_mib=1500, time_limit_s=100)),
        (End.TIMED_OUT, Resources(memory_mib=1000, time_limit_s=150)),
        (End.TRANSIENT, HAD),
        (End.SOFTWARE_ERROR, HAD),
    ],
)
def test_only_what_was_lacking_grows(outcome: Outcome, grown: Resources) -> None:
    again = decide([outcome])
    assert isinstance(again, Again)
    assert again.resources == grown


def test_growth_stops_at_the_cap() -> None:
    again = decide([End.OUT_OF_MEMORY], HAD, Caps(memory_mib=1200))
    assert isinstance(again, Again)
    assert again.resources.memory_mib == 1200
    assert isinstance(decide([End.OUT_OF_MEMORY] * 2, again.resources, Caps(memory_mib=1200)), Stop)


def test_no_limit_cannot_grow() -> None:
    assert isinstance(decide([End.OUT_OF_MEMORY], Resources()), Stop)


@given(st.lists(st.sampled_from([*BUDGET, End.SUCCEEDED]), min_size=1, max_size=60))
def test_no_history_is_retried_for_ever(outcomes: list[Outcome]) -> None:
    """Whatever happens, there are at most as many attempts as all budgets together allow."""
    most = sum(v for o, v in BUDGET.items() if o not in FREE) + 5 + len(BUDGET)
    tried: list[Outcome] = []
    for outcome in outcomes:
        tried.append(outcome)
        if isinstance(decide(tried), Stop):
            break
    assert len(tried) <= most


def test_back_off_grows_is_bounded_and_repeats_for_a_seed() -> None:
    back_off = BackOff(first_s=2.0, longest_s=30.0)
    for failures, step in ((1, 2.0), (2, 4.0), (3, 8.0), (9, 30.0)):
        delays = {back_off.delay_s(failures, seed) for seed in range(50)}
        assert all(step / 2 <= d <= step for d in delays)
        assert len(delays) > 40, "elements must not come back all at once"
        assert back_off.delay_s(failures, 7) == back_off.delay_s(failures, 7)
