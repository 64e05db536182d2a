"""How far a run is: counted, estimated where that is possible, and said in one line."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from muster.jobs.runs.run_progress import RunProgress, describe_job, describe_running, summarize_run
from muster.store.runs import ElementStatus

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def element(state: str, step: str = "s", **more: Any) -> ElementStatus:
    return ElementStatus(
        step=step, group="g", name="e", state=state, reason=None, batch_id="b", attempts=1,
        host=None, seconds=more.pop("seconds", None), max_rss_mib=None, message=None,
        log_uri=None, **more,
    )  # fmt: skip


def left_s(*elements: ElementStatus, planned: bool = True) -> float | None:
    eta_at = summarize_run(elements, NOW, planned=planned).eta_at
    return None if eta_at is None else (eta_at - NOW).total_seconds()


def test_what_is_done_runs_and_waits_is_counted() -> None:
    states = ["succeeded", "reused", "transient", "running", "waiting", "pending", "not_asked"]
    found = summarize_run([element(s) for s in states], NOW, planned=True)
    assert found == RunProgress(done=3, running=1, waiting=2, eta_at=None)
    assert found.describe(NOW) == "3 of 6 done, 1 running, 2 waiting"


def test_with_nothing_waiting_the_last_one_running_ends_the_run() -> None:
    running = [element("running", eta_at=after(s)) for s in (30, 90, 60)]
    assert left_s(*running) == 90
    assert left_s(*running, planned=False) is None


def test_what_waits_takes_what_the_others_took() -> None:
    """Two run, three wait, each of 100 s: 20 + 80 + 300 s of work for two at once."""
    done = [element("succeeded", seconds=s) for s in (90.0, 110.0)]
    running = [element("running", eta_at=after(s)) for s in (20, 80)]
    assert left_s(*done, *running, *[element("waiting")] * 3) == 200


def test_what_runs_stands_for_what_waits_where_nothing_has_ended() -> None:
    running = element("running", started_at=after(-60), eta_at=after(40))
    assert left_s(running, element("pending")) == 140


def test_what_says_nothing_takes_what_the_others_took() -> None:
    silent = element("running", started_at=after(-30))
    assert left_s(element("succeeded", seconds=100.0), silent) == 70
    assert left_s(silent) is None


@pytest.mark.parametrize(
    "others",
    [
        [element("pending", "another step")],
        [element("running", "another step", started_at=NOW)],
    ],
)
def test_a_step_of_which_nothing_is_known_leaves_the_end_unknown(
    others: list[ElementStatus],
) -> None:
    assert left_s(element("running", started_at=after(-9), eta_at=after(50)), *others) is None


def test_what_should_be_over_has_no_end_in_sight() -> None:
    late = element("running", progress=0.9, eta_at=after(-1), progress_message="nearly")
    assert left_s(late) is None
    assert describe_running(late, NOW) == "90 % · nearly"


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (
            {"progress": 0.42, "progress_message": "window 84 of 200", "eta_at": after(190)},
            "42 % · window 84 of 200 · about 3 min left (12:03:10Z)",
        ),
        (
            {"progress": 0.42, "eta_at": after(2 * 86_400)},
            "42 % · about 2 d left (2026-03-03 12:00Z)",
        ),
        ({"progress": 0.0, "progress_message": "opening"}, "0 % · opening"),
        ({}, ""),
    ],
)
def test_a_running_element_is_said_in_one_line(known: dict[str, Any], expected: str) -> None:
    assert describe_running(element("running", **known), NOW) == expected


def test_what_has_ended_says_nothing_of_progress() -> None:
    assert describe_running(element("transient", progress=0.4, progress_message="x"), NOW) == ""


def test_a_runs_line_says_when_it_is_done() -> None:
    found = RunProgress(done=12, running=3, waiting=25, eta_at=after(7_200))
    assert found.describe(NOW) == (
        "12 of 40 done, 3 running, 25 waiting · about 2 h left (14:00:00Z)"
    )


def test_an_open_job_is_named_as_its_cluster_names_it() -> None:
    place = {"backend": "slurm", "reference": "17"}
    assert describe_job(element("waiting", **place)) == "job 17"
    silent = element("waiting", **place, degraded="the cluster does not answer")
    assert describe_job(silent) == "job 17 · the cluster does not answer"
    running = replace(element("running", **place), host="cpu1")
    assert describe_job(running) == "job 17 on cpu1"
    assert describe_job(element("succeeded", **place)) == ""
    assert describe_job(element("pending", **place)) == "", "that of an earlier attempt"
    assert describe_job(element("running", backend="local", reference="here:1")) == ""
