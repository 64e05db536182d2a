"""What is advised from which attempts, case by case."""

from __future__ import annotations

import itertools
import tomllib
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from muster.config import parse_config
from muster.jobs.planning.advise import (
    StepAdvice,
    advise_steps,
    quantile,
    render_placement,
    render_size,
    round_memory_mib,
    round_time_s,
    sum_waste,
)
from muster.model.outcome import Outcome
from muster.model.resources import Caps, Resources
from muster.site import Site
from muster.store.history import PlacedStep, TriedAttempt
from tests.stories import make_attempt

STEP, POOL = "traits.predict", "cpu_genoa"
ASKED = Resources(cpus=4, memory_mib=8192, time_limit_s=7200)
NUMBERS = itertools.count()
GOOD, KILLED, LATE = Outcome.SUCCEEDED, Outcome.OUT_OF_MEMORY, Outcome.TIMED_OUT


def tried(outcome: Outcome | None = GOOD, **changes: Any) -> TriedAttempt:
    """One attempt; each is of an element of its own, unless told."""
    attempt = make_attempt(STEP, changes.pop("name", f"e{next(NUMBERS)}"), 1, outcome)
    return replace(attempt, **{"resources": ASKED, **changes})


def used(mib: list[float], seconds: float = 600.0) -> list[TriedAttempt]:
    return [tried(name=f"e{i}", max_rss_mib=peak, seconds=seconds) for i, peak in enumerate(mib)]


def advise(
    attempts: list[TriedAttempt], caps: Caps | None = None, margin: float = 1.2
) -> StepAdvice:
    placed = [PlacedStep(STEP, POOL, caps or Caps(), None)]
    (advice,) = advise_steps(attempts, placed, margin=margin)
    return advice


# -- quantiles and rounding ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [([7.0], 95, 7.0), ([1.0, 2.0], 50, 1.5), ([4.0, 1.0, 3.0, 2.0], 50, 2.5),
     (list(range(1, 22)), 95, 20.0), ([0.0, 10.0], 95, 9.5)],
)  # fmt: skip
def test_quantiles_of_known_values(values: list[float], percent: int, expected: float) -> None:
    assert quantile(values, percent) == pytest.approx(expected)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 20, 101, 997])
@pytest.mark.parametrize("percent", [1, 50, 95, 99])
def test_quantiles_are_numpys_linear_ones(count: int, percent: int) -> None:
    values = np.random.default_rng(count).lognormal(5, 2, count)
    expected = np.quantile(values, percent / 100, method="linear")
    assert quantile(values.tolist(), percent) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("mib", "rounded"),
    [(1, 128), (128, 128), (128.5, 256), (1024, 1024), (1025, 1280), (1280 * 1.2, 1536),
     (4096, 4096), (4097, 5120), (19 * 1024 + 1, 20 * 1024)],
)  # fmt: skip
def test_memory_is_rounded_up_to_what_a_person_writes(mib: float, rounded: int) -> None:
    assert round_memory_mib(mib) == rounded


@pytest.mark.parametrize(
    ("seconds", "rounded"), [(2, 300), (300, 300), (300.5, 360), (360, 360), (7201, 7260)]
)
def test_time_is_rounded_up_to_minutes(seconds: float, rounded: int) -> None:
    assert round_time_s(seconds) == rounded


def test_sizes_are_written_as_site_files_have_them() -> None:
    assert (render_size(20480), render_size(1536)) == ("20GiB", "1536MiB")


# -- what succeeded -----------------------------------------------------------------------------


def test_the_advice_is_the_95th_percentile_with_the_margin() -> None:
    advice = advise(used([1000.0] * 20 + [1100.0]))
    assert advice.memory_mib is not None
    assert (advice.memory_mib.p50, advice.memory_mib.p95) == (1000.0, 1000.0)
    assert advice.memory_mib.most == 1100.0
    assert advice.advised == Resources(cpus=4, memory_mib=1280, time_limit_s=720)
    assert advice.outcomes == {"succeeded": 21}
    assert advice.notes == ()


def test_the_advice_is_never_below_the_most_that_succeeded() -> None:
    assert advise(used([1000.0] * 99 + [3000.0])).advised.memory_mib == 3072


def test_a_greater_margin_asks_for_more() -> None:
    attempts = used([1000.0] * 10)
    assert advise(attempts, margin=2).advised.memory_mib == 2048
    assert advise(attempts, margin=1).advised.memory_mib == 1024


def test_few_attempts_are_told_and_the_most_is_taken() -> None:
    four, five = used([1000.0] * 3 + [2000.0]), used([1000.0] * 4 + [2000.0])
    assert advise(four).advised.memory_mib == 2560  # 2000 × 1.2 = 2400
    assert advise(four).notes == (
        "memory and time: only 4 succeeded; their most counts, not a percentile",
    )
    assert advise(five).advised.memory_mib == 2304  # p95 is 1800
    assert advise(five).notes == ()


def test_failures_that_say_nothing_of_need_are_counted_and_not_believed() -> None:
    attempts = [*used([1000.0] * 5), tried(Outcome.SOFTWARE_ERROR, max_rss_mib=9e4, seconds=9e4)]
    advice = advise(attempts)
    assert advice.advised == advise(attempts[:-1]).advised
    assert advice.outcomes == {"succeeded": 5, "software_error": 1}


def test_without_a_figure_things_stay_as_they_were_asked_for() -> None:
    advice = advise([replace(a, max_rss_mib=None) for a in used([0.0] * 5)])
    assert advice.memory_mib is None
    assert advice.advised.memory_mib == ASKED.memory_mib
    assert advice.notes == ("no peak memory is known: memory stays as it was asked for",)
    failed = advise([tried(Outcome.SOFTWARE_ERROR)])
    assert failed.advised == ASKED
    assert len(failed.notes) == 2


def test_a_few_figures_of_many_attempts_are_few() -> None:
    attempts = [replace(a, max_rss_mib=None) for a in used([0.0] * 5)]
    advice = advise([*attempts, *used([1000.0])])
    assert advice.notes == ("memory: only 1 succeeded; their most counts, not a percentile",)


# -- what was killed ----------------------------------------------------------------------------


def test_who_was_killed_for_want_of_memory_pushes_the_advice_up() -> None:
    attempts = [*used([1000.0] * 30), tried(KILLED, max_rss_mib=7900.0, seconds=10.0)]
    advice = advise(attempts)
    assert advice.memory_mib is not None
    assert advice.memory_mib.most == 1000.0
    assert advice.advised.memory_mib == 10 * 1024  # its limit of 8192 × 1.2
    assert advice.advised.time_limit_s == 720
    assert advice.notes == ("1 × killed for want of memory at 8GiB",)


def test_a_kill_is_a_bound_also_without_a_result_and_without_a_margin() -> None:
    killed = tried(KILLED, max_rss_mib=None, seconds=None)
    advice = advise([*used([1000.0] * 5), killed], margin=1)
    assert advice.advised.memory_mib == 9 * 1024
    late = tried(LATE, max_rss_mib=None, seconds=None)
    assert advise([*used([1000.0] * 5), late], margin=1).advised.time_limit_s == 7260


def test_who_ran_out_of_time_pushes_the_time_up_and_its_memory_counts() -> None:
    advice = advise([*used([1000.0] * 5), tried(LATE, max_rss_mib=5000.0, seconds=7200.0)])
    assert advice.advised.time_limit_s == 8640
    assert advice.advised.memory_mib == 6 * 1024
    assert advice.notes == ("1 × killed for want of time at 02:00:00",)


def test_where_none_succeeded_the_advice_is_a_lower_bound() -> None:
    advice = advise([tried(KILLED, max_rss_mib=8200.0, seconds=60.0)])
    assert advice.memory_mib is None
    assert advice.advised.memory_mib == 10 * 1024
    assert any(note.startswith("memory is a lower bound") for note in advice.notes)


def test_a_kill_that_says_nothing_is_told() -> None:
    asked = Resources(cpus=4)
    advice = advise([tried(KILLED, max_rss_mib=None, seconds=None, resources=asked)])
    assert advice.advised == asked
    assert "1 × killed for want of memory, how much it had is not known" in advice.notes


def test_what_a_retry_asked_for_is_not_what_was_asked_for() -> None:
    more = ASKED.model_copy(update={"memory_mib": 12288})
    attempts = [
        tried(KILLED, name="a", max_rss_mib=8200.0),
        tried(name="a", number=2, max_rss_mib=9000.0, resources=more),
    ]
    assert advise(attempts).asked == ASKED
    fresh = replace(attempts[1], number=3, generation=2)
    assert advise([*attempts, fresh]).asked == more


# -- caps and kinds -----------------------------------------------------------------------------


def test_the_pools_caps_limit_the_advice_and_say_so() -> None:
    caps = Caps(memory_mib=1100, time_limit_s=3600)
    advice = advise(used([1000.0] * 5), caps)
    assert advice.advised.memory_mib == 1100
    assert advice.notes == ("memory would be 1280MiB, the pool gives 1100MiB",)
    short = advise(used([1000.0] * 4 + [1200.0]), caps)
    assert short.notes[-1].endswith("which is less than was needed")


def test_attempts_with_other_cpus_are_told_apart_and_the_newest_is_last() -> None:
    wide = ASKED.model_copy(update={"cpus": 48})
    attempts = [tried(name="a", resources=wide), tried(name="b"), tried(name="c", resources=wide)]
    other = replace(tried(name="a"), step="traits.cov")
    advice = advise_steps([*attempts, other], [])
    assert [(a.step, a.asked.cpus) for a in advice] == [
        (STEP, 4), (STEP, 48), ("traits.cov", 4),
    ]  # fmt: skip
    assert "cpus = 48" in render_placement(advice)
    assert render_placement(advice).count(f'"{STEP}" =') == 1


def test_attempts_that_are_not_over_are_left_out() -> None:
    assert advise_steps([tried(None)], []) == []


def test_the_queue_counts_every_attempt_that_started() -> None:
    attempts = [tried(), tried(Outcome.TRANSIENT), tried(started_at=None)]
    late = attempts[1].started_at
    assert late is not None
    attempts[1] = replace(attempts[1], started_at=late + timedelta(seconds=60))
    waited = advise(attempts).waited_s
    assert waited is not None
    assert (waited.p50, waited.most) == (60.0, 90.0)


# -- waste --------------------------------------------------------------------------------------


def test_waste_is_what_was_held_and_not_used() -> None:
    asked = Resources(cpus=4, memory_mib=8192, time_limit_s=7200, gpus=2)
    good = tried(resources=asked, seconds=3600.0, max_rss_mib=2048.0)
    waste = sum_waste([good])
    assert (waste.cpu_hours, waste.cpu_hours_lost, waste.cpu_hours_unused) == (4.0, 0.0, 4.0)
    assert (waste.memory_gib_h, waste.memory_gib_h_unused) == (8.0, 6.0)
    assert (waste.gpu_hours, waste.gpu_hours_lost) == (2.0, 0.0)
    failed = replace(good, outcome=Outcome.SOFTWARE_ERROR)
    wide = sum_waste([replace(good, ranks=6, nodes=3)])
    assert (wide.cpu_hours, wide.cpu_hours_unused) == (24.0, 24.0)
    assert (wide.gpu_hours, wide.memory_gib_h, wide.memory_gib_h_unused) == (6.0, 24.0, 18.0)
    both = sum_waste([good, failed])
    assert (both.cpu_hours, both.cpu_hours_lost, both.gpu_hours_lost) == (8.0, 4.0, 2.0)


def test_waste_of_what_left_no_result_is_by_the_record() -> None:
    asked = Resources(cpus=2)
    gone = tried(Outcome.LOST, resources=asked, seconds=None, max_rss_mib=None)
    waste = sum_waste([gone])  # 14.5 minutes from its start to its end
    assert waste.cpu_hours == waste.cpu_hours_lost == pytest.approx(2 * 14.5 / 60)
    assert (waste.cpu_hours_unused, waste.memory_gib_h) == (0.0, 0.0)
    assert sum_waste([replace(gone, started_at=None)]).cpu_hours == 0.0


# -- the site file ------------------------------------------------------------------------------


def test_the_rendered_lines_are_taken_by_a_site_file() -> None:
    gpu = Resources(cpus=48, memory_mib=1000, time_limit_s=60, gpus=1)
    bare = Resources(cpus=1)
    lost = {"outcome": Outcome.LOST, "max_rss_mib": None, "seconds": None}
    attempts = [
        *used([16900.0] * 5, seconds=2000.0),
        replace(tried(name="a", resources=gpu), step="traits.aoa"),
        replace(tried(name="a", resources=bare), step="traits.build", **lost),
    ]
    caps = Caps(memory_mib=20 * 1024, time_limit_s=30 * 3600)
    placed = [PlacedStep(STEP, POOL, caps, 90000), PlacedStep("traits.aoa", POOL, caps, None)]
    text = render_placement(advise_steps(attempts, placed))
    assert text.splitlines()[0] == (
        '"traits.predict" = { pool = "cpu_genoa", cpus = 4, memory = "20GiB", time = "00:40:00",'
        ' deadline = "1-01:00:00" }'
    )
    placement = tomllib.loads(f"[placement]\n{text}")["placement"]
    pools = {POOL: {"backend": "local", "slots": 1, "max_memory": "20GiB"}}
    site = parse_config(Site, {"name": "s", "pools": pools, "placement": placement}, "site")
    assert site.placement[STEP].resources == Resources(cpus=4, memory_mib=20480, time_limit_s=2400)
    assert site.placement["traits.aoa"].gpus == 1
    assert site.placement["traits.build"].resources == bare
