"""When a step will be done: steady, fast and slow, at the start and at the end."""

from __future__ import annotations

import math

import pytest

from muster.jobs.running.eta import (
    EtaEstimator,
    describe_progress,
    describe_roughly,
    describe_seconds,
)

CLOCK_S = 1_000.0


def estimate(reports: list[tuple[float, float]]) -> EtaEstimator:
    """Report (fraction, seconds since the start), on a clock that did not start at zero."""
    estimator = EtaEstimator(CLOCK_S)
    for fraction, at_s in reports:
        estimator.report(fraction, CLOCK_S + at_s)
    return estimator


def test_a_steady_step_is_told_exactly() -> None:
    estimator = EtaEstimator(CLOCK_S)
    for number in range(1, 100):
        estimator.report(number / 100, CLOCK_S + 2.0 * number)
        left_s = estimator.left_s()
        if number >= 2:
            assert left_s == pytest.approx(2.0 * (100 - number))
        else:
            assert left_s is None


@pytest.mark.parametrize("reports", [[], [(0.0, 60.0)], [(0.009, 60.0)], [(0.5, 2.9)]])
def test_nothing_is_told_too_early(reports: list[tuple[float, float]]) -> None:
    assert estimate(reports).left_s() is None


def test_a_step_that_slows_down_is_followed() -> None:
    """Half of it at 1 % a second, the rest ten times slower: the overall mean says 21 s left."""
    quick = [(0.01 * n, 1.0 * n) for n in range(1, 51)]
    slow = [(0.5 + 0.01 * n, 50.0 + 10.0 * n) for n in range(1, 31)]
    left_s = estimate(quick + slow).left_s()
    assert left_s is not None
    assert 0.9 * 200 <= left_s <= 200


def test_a_step_that_speeds_up_is_followed() -> None:
    slow = [(0.01 * n, 10.0 * n) for n in range(1, 21)]
    quick = [(0.2 + 0.005 * n, 200.0 + 0.5 * n) for n in range(1, 141)]
    mean_s = 0.1 * 270.0 / 0.9
    left_s = estimate(slow + quick).left_s()
    assert left_s is not None
    assert 10.0 <= left_s <= 0.7 * mean_s


def test_a_slow_start_is_forgotten() -> None:
    """An import of 20 s is no part of what a window takes."""
    reports = [(0.01 * n, 20.0 + 1.0 * n) for n in range(1, 81)]
    assert estimate(reports).left_s() == pytest.approx(20.0, rel=0.1)


def test_one_odd_window_does_not_upset_it() -> None:
    steady = [(0.01 * n, 10.0 * n) for n in range(1, 51)]
    before_s = estimate(steady).left_s()
    after_s = estimate([*steady, (0.51, 540.0)]).left_s()
    assert before_s is not None
    assert after_s is not None
    assert before_s < after_s < 1.4 * before_s


def test_a_fraction_only_grows_and_is_never_outside_its_range() -> None:
    estimator = EtaEstimator(CLOCK_S)
    reported = [0.2, 0.1, math.nan, -3.0, 0.5, math.inf, 7.0]
    assert [estimator.report(f, CLOCK_S + n) for n, f in enumerate(reported)] == [
        0.2, 0.2, 0.2, 0.2, 0.5, 0.5, 1.0,
    ]  # fmt: skip
    assert estimator.left_s() == 0.0


def test_what_would_take_for_ever_is_not_told() -> None:
    steady = [(0.01 * n, 1.0 * n) for n in range(1, 51)]
    assert estimate([*steady, (0.5, 1e8)]).left_s() is None


def test_a_clock_that_stands_or_goes_back_does_no_harm() -> None:
    estimator = estimate([(0.1, 10.0), (0.2, 10.0), (0.3, 5.0)])
    left_s = estimator.left_s()
    assert left_s is not None
    assert left_s >= 0.0


def test_a_long_silence_makes_it_later_and_not_sooner() -> None:
    steady = [(0.01 * n, 1.0 * n) for n in range(1, 51)]
    assert (estimate([*steady, (0.5, 650.0)]).left_s() or 0.0) > 10 * 50


@pytest.mark.parametrize(
    ("seconds", "exactly", "roughly"),
    [
        (-5.0, "0 s", "less than 30 s"),
        (29.4, "29 s", "less than 30 s"),
        (59.6, "1 min", "about 1 min"),
        (89.0, "1 min 29 s", "about 1 min"),
        (190.0, "3 min 10 s", "about 3 min"),
        (3_600.0, "1 h", "about 60 min"),
        (7_530.0, "2 h 5 min", "about 2 h"),
        (273_600.0, "3 d 4 h", "about 3 d"),
    ],
)
def test_durations_are_said_for_people(seconds: float, exactly: str, roughly: str) -> None:
    assert describe_seconds(seconds) == exactly
    assert describe_roughly(seconds) == roughly


@pytest.mark.parametrize(
    ("fraction", "left_s", "expected"),
    [
        (0.42, 190.0, "42 % window 84 of 200, 3 min 10 s left"),
        (0.29, None, "29 % window 84 of 200"),
        (0.9999, 2.0, "99 % window 84 of 200, 2 s left"),
        (1.0, 0.0, "100 % window 84 of 200"),
    ],
)
def test_progress_is_one_line(fraction: float, left_s: float | None, expected: str) -> None:
    assert describe_progress(fraction, "window 84 of 200", left_s) == expected
