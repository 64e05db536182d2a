"""Every case of the one function that says whether there is another attempt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.jobs.supervision.retry import BUDGET, FREE, Again, BackOff, Stop, decide_retry
from muster.model.outcome import Outcome
from muster.model.resources import Caps, Resources
from muster.model.retry_policy import RetryPolicy

End = Outcome
HAD = Resources(memory_mib=1000, time_limit_s=100)
ROOMY = Caps(memory_mib=10**9, time_limit_s=10**9)


def decide(
    outcomes: list[Outcome],
    had: Resources = HAD,
    caps: Caps = ROOMY,
    policy: RetryPolicy | None = None,
) -> Again | Stop:
    return decide_retry(outcomes, had, caps, back_off=BackOff(1.0, 60.0), policy=policy)


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


@pytest.mark.parametrize("most", [0, 1, 2, 3])
@pytest.mark.parametrize("outcome", sorted(set(BUDGET) - FREE))
def test_a_policy_caps_the_further_attempts_and_raises_none(outcome: Outcome, most: int) -> None:
    allowed = min(most, BUDGET[outcome])
    policy = RetryPolicy(max_retries=most)
    for tries in range(1, allowed + 1):
        assert isinstance(decide([outcome] * tries, policy=policy), Again), tries
    assert isinstance(decide([outcome] * (allowed + 1), policy=policy), Stop)


def test_a_policy_counts_all_classes_together_but_the_free_ones() -> None:
    policy = RetryPolicy(max_retries=2)
    mixed = [End.TRANSIENT, End.OUT_OF_MEMORY]
    assert isinstance(decide(mixed, policy=policy), Again)
    assert isinstance(decide([*mixed, End.TIMED_OUT], policy=policy), Stop)
    assert isinstance(decide([*mixed, End.NODE_FAILED], policy=policy), Again)
    stopped = decide([*mixed, End.NODE_FAILED, End.SOFTWARE_ERROR], policy=policy)
    assert stopped == Stop("software_error, and the 2 retries of its campaign are spent")


@pytest.mark.parametrize("outcome", sorted(FREE))
def test_free_retries_are_not_capped_by_a_policy(outcome: Outcome) -> None:
    assert isinstance(decide([outcome] * 5, policy=RetryPolicy(max_retries=0)), Again)
    assert isinstance(decide([outcome] * 6, policy=RetryPolicy(max_retries=0)), Stop)


@pytest.mark.property
@given(
    st.lists(st.sampled_from([*BUDGET, End.SUCCEEDED]), min_size=1, max_size=12),
    st.integers(min_value=0, max_value=12),
)
def test_a_policy_never_allows_what_the_budget_does_not(outcomes: list[Outcome], most: int) -> None:
    capped = decide(outcomes, policy=RetryPolicy(max_retries=most))
    if isinstance(capped, Again):
        assert capped == decide(outcomes)
        charged = sum(outcome not in FREE for outcome in outcomes)
        assert outcomes[-1] in FREE or charged <= most


def test_a_policy_without_a_cap_changes_nothing() -> None:
    for outcome in BUDGET:
        for tries in range(1, 8):
            assert decide([outcome] * tries, policy=RetryPolicy()) == decide([outcome] * tries)


def test_a_fixed_back_off_stays_and_none_is_none() -> None:
    usual = BackOff(first_s=2.0, longest_s=30.0)
    fixed = usual.of(RetryPolicy(backoff="fixed"))
    assert all(1.0 <= fixed.delay_s(failures, 7) <= 2.0 for failures in range(1, 40))
    assert usual.of(RetryPolicy(backoff="none")).delay_s(9, 7) == 0.0
    assert usual.of(None) == usual.of(RetryPolicy()) == usual
    said = usual.of(RetryPolicy(first_delay_s=60.0))
    assert (said.first_s, said.longest_s) == (60.0, 60.0), "never shorter than the first"
    slow = usual.of(RetryPolicy(first_delay_s=1.0, longest_delay_s=8.0))
    assert 4.0 <= slow.delay_s(5000, 7) <= 8.0
