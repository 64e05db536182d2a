"""What the report of a doctor's job says, and whose clock is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from muster import __version__
from muster.doctor.probe import ahead_s, check_clocks, check_gpus, check_software

FACTS: dict[str, Any] = {
    "host": "gpu1",
    "executable": "/opt/bin/python",
    "muster": __version__,
    "missing_packages": [],
    "cuda_visible_devices": None,
    "gpus": [],
}


@pytest.mark.parametrize(
    ("told_s", "expected_s"), [(105.0, 0.0), (110.0, 0.0), (170.0, 60.0), (60.0, -40.0)]
)
def test_a_clock_is_ahead_only_by_what_is_sure(told_s: float, expected_s: float) -> None:
    assert ahead_s(told_s, 100.0, 110.0) == expected_s


def test_a_clock_that_tells_whole_seconds_is_not_behind_by_a_part_of_one() -> None:
    assert ahead_s(100.0, 100.9, 101.0, resolution_s=1.0) == 0.0
    assert ahead_s(98.0, 100.5, 101.0, resolution_s=1.0) == -1.5


def test_clocks_that_differ_by_more_than_half_a_minute_are_told() -> None:
    assert check_clocks("c", {"the store": 2.0, "cpu1": -27.0}).mark == "ok"
    check = check_clocks("c", {"the store": 20.0, "cpu1": -20.0})
    assert check.mark == "warn"
    assert "the clock of the store is 40 s ahead of that of cpu1" in check.finding


def test_another_version_there_is_bad() -> None:
    assert check_software("p", FACTS) == []
    (check,) = check_software("p", {**FACTS, "muster": "0.0.9"})
    assert not check.good
    assert f"got: 0.0.9; expected: {__version__}" in check.finding


def test_missing_packages_are_named() -> None:
    (check,) = check_software("p", {**FACTS, "missing_packages": ["numba", "scipy"]})
    assert not check.good
    assert "lacks numba, scipy; where: /opt/bin/python" in check.finding


def test_which_gpus_a_job_was_given() -> None:
    assert check_gpus("p", FACTS, 0) == []
    assert check_gpus("p", FACTS, 1)[0].mark == "BAD"
    given = {**FACTS, "cuda_visible_devices": "0"}
    assert check_gpus("p", given, 1)[0].mark == "warn"
    (check,) = check_gpus("p", {**given, "gpus": ["GPU 0: NVIDIA L40S"]}, 1)
    assert (check.mark, check.finding) == ("ok", "the job was given GPU 0: NVIDIA L40S")
