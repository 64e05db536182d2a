"""The page of a report: whole, escaped, asking for nothing, and saying what a person looks for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from muster.errors import SoftwareError
from muster.model.outcome import Outcome
from muster.report import render
from muster.report.render import render_report
from muster.report.sums import NEXT, list_failures, sum_steps
from muster.store.records import RunState
from muster.traits.report import TEMPLATE, TraitResult
from tests.documents import Document, parse_document
from tests.stories import BEGAN, HOSTILE, make_run, make_story, whole

if TYPE_CHECKING:
    from muster.report.read import RunStory

OK, OOM = Outcome.SUCCEEDED, Outcome.OUT_OF_MEMORY


def show(story: RunStory, *results: TraitResult, unseen: str | None = None) -> Document:
    html = render_report(story, TEMPLATE, traits=list(results), output="/data/maps", unseen=unseen)
    document = parse_document(html)
    for place in document.points_to:
        assert place.startswith(("data:", "#", "../")), place
    anchors = [place[1:] for place in document.points_to if place.startswith("#")]
    assert set(anchors) <= set(document.ids)
    return document


def test_the_heading_says_what_when_how_long_and_what_came_of_it() -> None:
    document = show(make_story({"leaf_area": whole()}), TraitResult("leaf_area", "succeeded"))
    for said in (
        "trait_inference.manual__2026-03-01T22:30:00+00:00",
        "Maps of 1 trait, trait set splot",
        "1 of 1 succeeded (quorum 100.0%), 0 failed",
        "2026-03-01 22:30:00 UTC",
        "2026-03-01 23:32:00 UTC",
        "1 h 2 min",
        "Muster 0.1.0",
    ):
        assert said in document.text, said
    assert "What failed" not in document.text


def test_times_of_another_zone_are_told_in_utc() -> None:
    from datetime import timedelta, timezone

    began = BEGAN.astimezone(timezone(timedelta(hours=5)))
    document = show(make_story({}, make_run(created_at=began)))
    assert "2026-03-01 22:30:00 UTC" in document.text


def test_a_trait_is_told_with_its_worth_and_unknown_is_a_dash() -> None:
    told = TraitResult(
        "leaf_area", "succeeded", product="/data/maps/leaf_area.tif", link="../leaf_area.tif",
        unit="mm²", description="Area of a leaf", try_id="3117",
        cv={"r2": 0.6123, "rmse": 12.345, "n": 12345}, inside_fraction=0.8765,
    )  # fmt: skip
    document = show(
        make_story({"leaf_area": whole(), "other": whole("missing_input")}),
        told,
        TraitResult("other", "missing_input"),
    )
    row = document.row("leaf_area Area of a leaf", "succeeded", "mm²")
    assert row[3:] == [
        "3117", "0.612", "12.3", "–", "–", "12\u202f345", "87.6 %", "GeoTIFF"
    ]  # fmt: skip
    assert document.row("other", "missing input", "–")[3:] == ["–"] * 8


def test_products_that_are_not_seen_are_named_and_not_linked() -> None:
    unseen = "the products are on far, in /far/maps, which is not seen from here"
    told = TraitResult("leaf_area", "succeeded", product="/far/maps/leaf_area.tif", note=unseen)
    document = show(make_story({"leaf_area": whole()}), told, unseen=unseen)
    rows = [row for row in document.rows if row[:2] == ["leaf_area", "succeeded"]]
    assert [row[-1] for row in rows] == ["/far/maps/leaf_area.tif"]
    assert document.text.count(unseen) == 2
    assert "The links work" not in document.text
    assert not any(place.startswith("../") for place in document.points_to)


def test_no_name_or_message_becomes_a_tag_or_a_template() -> None:
    run = make_run(
        id=HOSTILE, message=HOSTILE, work_uri=HOSTILE, facts={HOSTILE: HOSTILE},
        params={HOSTILE: [HOSTILE, {HOSTILE: HOSTILE}]},
    )  # fmt: skip
    story = make_story({HOSTILE: whole(aoa=(OOM,))}, run, {("traits.predict", HOSTILE): HOSTILE})
    hostile_attempts = tuple(
        replace(
            element,
            why=HOSTILE,
            attempts=tuple(
                replace(a, host=HOSTILE, message=HOSTILE, log_uri=HOSTILE, pool=HOSTILE)
                for a in element.attempts
            ),
        )
        for element in story.elements
    )
    result = TraitResult(
        HOSTILE, HOSTILE, product=HOSTILE, unit=HOSTILE, description=HOSTILE, try_id=HOSTILE,
        engines=(HOSTILE,), note=HOSTILE,
    )  # fmt: skip
    document = show(replace(story, elements=hostile_attempts), result)
    assert "script" not in document.tags
    assert "30247" not in document.text
    assert document.text.count(HOSTILE) > 20


def test_what_was_reused_and_why() -> None:
    story = make_story(
        {"a": whole("reused", build=(OK,)), "b": whole("not_asked")},
        reasons={("traits.build", "a"): "a band is new"},
    )
    document = show(story)
    assert document.row("traits.predict", "reused 1 not asked 1")
    assert document.row("a", "predict", "reused")[3] == "why traits.predict is reused"
    assert document.row("a", "build", "computed")[3] == "a band is new"
    assert not list_failures(story)


def test_a_failure_says_why_where_its_log_is_and_what_to_do() -> None:
    story = make_story({"a": whole(aoa=(OOM, OOM)), "b": whole("missing_input")})
    document = show(story)
    assert "a: aoa" in document.text
    assert "out of memory after 2 attempts" in document.text
    assert "the traits.aoa broke; do: mend it" in document.text
    assert NEXT[OOM] in document.text
    assert "/work/logs/traits.aoa-2.log" in document.text
    assert document.text.index("a: aoa") < document.text.index("b: predict")


def test_steps_that_fail_for_one_reason_are_told_together() -> None:
    story = make_story({"a": whole("missing_input")})
    same = tuple(replace(e, why="no bundle") if e.name == "a" else e for e in story.elements)
    (failure,) = list_failures(replace(story, elements=same))
    assert failure.steps == ("traits.predict", "traits.cov", "traits.aoa", "traits.build")


def test_every_outcome_has_something_to_do() -> None:
    assert {*Outcome} - {OK} <= set(NEXT)


def test_attempts_stand_beside_what_they_asked_for_and_add_up() -> None:
    story = make_story({"a": whole(cov=(OOM, OK)), "b": whole()})
    (cov,) = [s for s in sum_steps(story) if s.step == "traits.cov"]
    assert (cov.elements, cov.attempts, cov.seconds, cov.cpu_hours) == (2, 3, 2700.0, 3.0)
    assert (cov.longest_s, cov.time_limit_s, cov.longest_wait_s) == (900.0, 3600, 30.0)
    assert (cov.peak_mib, cov.memory_mib, cov.cpus) == (1024.0, 2048, 4)
    assert cov.engines == ("numba",)
    document = show(story)
    assert document.row("traits.cov", "3 for 2")[1:5] == [
        "3 for 2",
        "3.00",
        "45 min",
        "15 min / 1 h",
    ]
    assert document.row("all")[1:4] == ["10", "10.0", "2 h 30 min"]
    assert document.row("a cov, attempt 1", "out of memory")[-1].startswith("the traits.cov broke")


def test_a_run_still_going_says_so_and_fails_nothing() -> None:
    running = whole((None,), build="pending")
    story = make_story({"a": running, "b": whole()}, make_run(RunState.PLANNED))
    document = show(story)
    assert "The run is not over." in document.text
    assert "still going: 5 of 9 elements are over" in document.text
    assert [g.state for g in story.groups] == ["running", "succeeded"]
    assert "What failed" not in document.text


def test_what_a_run_did_not_reach_is_no_success() -> None:
    story = make_story({"a": whole(build="pending")}, make_run(RunState.CANCELLED))
    assert [f.state for f in list_failures(story)] == ["pending"]
    assert NEXT["pending"] in show(story).text


def test_a_run_without_a_plan_has_a_report() -> None:
    run = make_run(RunState.FAILED, planned_at=None, message="the run has no completed plan")
    story = make_story({"inputs": {"inspect": (Outcome.MISSING_INPUT,)}}, run)
    document = show(story)
    assert "Nothing: the run has no plan." in document.text
    assert "inputs: inspect" in document.text


def test_many_attempts_are_summed_and_those_that_failed_are_listed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(render, "MOST_ATTEMPTS", 3)
    document = show(make_story({"a": whole(), "b": whole(aoa=(OOM,))}))
    assert "Of 9 attempts, 3 are listed" in document.text
    assert document.row("b aoa, attempt 1", "out of memory")
    assert document.row("all")[1] == "9"


def test_many_failures_are_folded() -> None:
    story = make_story({f"t{i}": whole(aoa=(OOM,)) for i in range(12)})
    assert "2 more" in show(story).text


def test_of_too_many_elements_those_that_failed_are_listed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(render, "MOST_ELEMENTS", 5)
    traits = {f"t{n:02d}": whole() for n in range(10)} | {"z": whole(build=(OOM,))}
    document = show(make_story(traits))
    assert "Of 44 elements, 5 are listed" in document.text
    assert document.row("z", "build", "out of memory")
    assert not [row for row in document.rows if row[:2] == ["t09", "build"]]


def test_of_too_many_failures_the_number_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "MOST_FAILURES", 12)
    document = show(make_story({f"t{n:02d}": whole(build=(OOM,)) for n in range(20)}))
    assert document.text.count("Next:") == 12
    assert "10 more" in document.text
    assert "8 more are not listed here" in document.text


def test_a_template_that_is_wrong_is_an_error_of_ours() -> None:
    with pytest.raises(SoftwareError, match="cannot be rendered"):
        render_report(make_story({}), TEMPLATE)  # knows nothing of traits
    with pytest.raises(SoftwareError, match="cannot be rendered"):
        render_report(make_story({}, make_run(params={"traits": 1}, created_at=None)))
