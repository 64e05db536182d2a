"""When a run can no longer succeed: against the verdict itself, with all that is open done well."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.jobs.planning.workflow import load_workflow
from muster.jobs.runs.alerts import (
    Alert,
    Standing,
    count_standing,
    quorum_out_of_reach,
)
from muster.jobs.runs.verdict import judge
from muster.store.alerts import ElementCount
from muster.store.runs import ElementStatus

TRAITS = load_workflow("trait_inference")
BY_ELEMENT = replace(TRAITS, judged="element", counted=("traits.predict",))


@pytest.mark.parametrize(
    ("succeeded", "failed", "still_open", "quorum", "expected"),
    [
        (0, 0, 10, 1.0, False),
        (5, 0, 5, 1.0, False),
        (5, 1, 4, 1.0, True),
        (5, 1, 4, 0.9, False),
        (0, 1, 9, 0.9, False),
        (0, 2, 8, 0.9, True),
        (9, 1, 0, 0.9, False),
        (0, 3, 0, 0.0, True),  # a run in which nothing succeeded is never good
        (0, 3, 1, 0.0, False),
        (0, 0, 0, 1.0, False),  # nothing is counted: all lack their input, or nothing is planned
    ],
)
def test_the_quorum_is_out_of_reach_when_the_best_end_misses_it(
    succeeded: int, failed: int, still_open: int, quorum: float, expected: bool
) -> None:
    assert quorum_out_of_reach(Standing(succeeded, failed, still_open), quorum) is expected


def status(group: str, state: str) -> ElementStatus:
    return ElementStatus(
        "traits.predict", group, group, state, None, None, 1, None, None, None, None, None
    )


@pytest.mark.property
@given(
    st.lists(
        st.sampled_from(["succeeded", "software_error", "missing_input", "pending"]), max_size=40
    ),
    st.sampled_from([0.0, 0.5, 0.9, 0.95, 1.0]),
)
def test_it_says_what_the_verdict_says_of_the_best_end(states: list[str], quorum: float) -> None:
    best = [
        status(f"g{n}", "succeeded" if state == "pending" else state)
        for n, state in enumerate(states)
    ]
    failed = states.count("software_error")
    standing = Standing(states.count("succeeded"), failed, states.count("pending"))
    good = judge(best, planned=True, quorum=quorum).good
    if failed:
        assert quorum_out_of_reach(standing, quorum) is not good
    else:
        assert not quorum_out_of_reach(standing, quorum)


def test_elements_are_counted_of_the_counted_steps_alone() -> None:
    counts = [
        ElementCount("batch_0000", "traits.predict", "succeeded", 150),
        ElementCount("batch_0000", "traits.predict", "reused", 20),
        ElementCount("batch_0000", "traits.predict", "missing_input", 7),
        ElementCount("batch_0000", "traits.predict", "running", 3),
        ElementCount("batch_0000", "traits.predict", "software_error", 8),
        ElementCount("batch_0000", "traits.predict", "invalid_input", 2),
        ElementCount("batch_0001", "traits.predict", "pending", 100),
        ElementCount("batch_0001", "traits.predict", "timed_out", 4),
        ElementCount("batch_0000", "traits.cov", "software_error", 99),
        ElementCount("inputs", "traits.predict", "software_error", 99),
    ]
    retried = {("batch_0000", "traits.predict"): 5}
    assert count_standing(BY_ELEMENT, counts, retried) == Standing(170, 5 + 4, 3 + 5 + 100)


def test_a_group_fails_by_any_step_and_is_open_while_any_is() -> None:
    for states in product(["succeeded", "missing_input", "software_error", "pending"], repeat=2):
        counts = [
            ElementCount("SLA", step, state, 1)
            for step, state in zip(("traits.predict", "traits.build"), states, strict=True)
        ]
        found = count_standing(TRAITS, counts, {})
        expected = Standing(
            int(set(states) == {"succeeded"}),
            int("software_error" in states),
            int("software_error" not in states and "pending" in states),
        )
        assert found == expected, states
    again = {("SLA", "traits.predict"): 1}
    one = [ElementCount("SLA", "traits.predict", "transient", 1)]
    assert count_standing(TRAITS, one, again) == Standing(0, 0, 1)
    assert count_standing(TRAITS, one, {}) == Standing(0, 1, 0)


def test_an_alert_says_it_in_one_line_and_for_programs() -> None:
    alert = Alert("quorum_out_of_reach", "mock_campaign.x", "mock_campaign", "5 failed for good")
    assert alert.text == "Muster: quorum out of reach: mock_campaign.x: 5 failed for good"
    told = alert.to_dict()
    assert {"kind", "run", "workflow", "message", "text", "sent_at"} == set(told)
    assert told["sent_at"].endswith("+00:00")
