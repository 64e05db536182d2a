"""A report made from a real store: what is read, where it goes, and that no verdict needs it."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from muster.jobs.planning.workflow import WORKFLOWS, load_workflow
from muster.jobs.runs.verdict import give_verdict
from muster.model.outcome import Outcome
from muster.model.plan import Decision, Plan, PlannedElement
from muster.model.resources import Resources
from muster.report.read import read_story
from muster.report.write import write_report
from muster.store import batches, claims, runs
from muster.store.history import read_tried
from muster.store.records import AttemptEnd, RunState
from tests.batches import make_batch
from tests.documents import parse_document

if TYPE_CHECKING:
    from pathlib import Path

    from muster.store.database import Database

RUN = "run"
STEP = "traits.predict"
WRONG = replace(load_workflow("trait_inference"), conclude="muster.traits.conclude:no_such")


def params(folder: Path) -> dict[str, Any]:
    return {
        "traits": ["b-e0", "b-e1"], "predictors": [str(folder / "p.tif")],
        "models": str(folder / "models"), "output": str(folder / "maps"),
    }  # fmt: skip


def plan(db: Database, folder: Path) -> None:
    """Open and plan a run: b-e0 is to be computed, b-e1 has no input."""
    work = folder / "work"
    runs.open_run(db, RUN, workflow="trait_inference", params=params(folder), work_uri=str(work))
    batch = make_batch(folder, [{}], step=STEP)
    runs.create_batches(db, [("b-e0", batch)])
    absent = PlannedElement(
        step=STEP, name="b-e1", group="b-e1", decision=Decision.MISSING_INPUT, reason="no bundle"
    )
    run = absent.model_copy(
        update={"name": "b-e0", "group": "b-e0", "decision": Decision.RUN, "reason": "not there"}
    )
    made = Plan(workflow="trait_inference", elements=(run, absent))
    work.mkdir(parents=True, exist_ok=True)
    (work / "plan.json").write_text(made.model_dump_json(), encoding="utf-8")
    runs.record_plan(db, RUN, [absent], {"products": {}})


def end(db: Database, *outcomes: Outcome) -> None:
    """Try the one element so often, with these outcomes."""
    claim = claims.take_claim(db, "run.b")
    for number, outcome in enumerate(outcomes, start=1):
        (element,) = batches.read_batch(db, claim).elements
        asked = Resources(cpus=2 * number, memory_mib=100, time_limit_s=60)
        wave, _ = batches.intend_submission(db, claim, {element.id: (number, asked, "/log")})
        batches.record_submitted(db, claim, wave, "ref")
        attempt = batches.read_batch(db, claim).elements[0].attempts[-1].id
        batches.record_running(db, claim, {attempt: "node"})
        end = AttemptEnd(attempt, outcome, seconds=30.0, max_rss_mib=50.0, facts={"pixels": 7})
        batches.record_ends(db, claim, [end])


@pytest.fixture
def planned(db: Database, tmp_path: Path) -> Database:
    plan(db, tmp_path)
    return db


def test_every_attempt_is_read_with_what_it_asked_for_and_used(planned: Database) -> None:
    end(planned, Outcome.TRANSIENT, Outcome.SUCCEEDED)
    first, second = read_tried(planned, RUN)
    assert (first.outcome, second.outcome) == (Outcome.TRANSIENT, Outcome.SUCCEEDED)
    assert (first.number, second.number) == (1, 2)
    assert second.resources == Resources(cpus=4, memory_mib=100, time_limit_s=60)
    assert (second.step, second.group, second.element) == (STEP, "b-e0", "b-e0")
    assert (second.backend, second.pool, second.host) == ("local", "local", "node")
    assert (second.seconds, second.max_rss_mib, second.facts) == (30.0, 50.0, {"pixels": 7})
    assert second.cpu_hours == pytest.approx(30 * 4 / 3600)
    assert second.waited_s is not None
    assert second.log_uri == "/log"


def test_the_plan_says_why_also_of_what_was_run(planned: Database, tmp_path: Path) -> None:
    end(planned, Outcome.SUCCEEDED)
    run = runs.read_run(planned, RUN)
    reasons = {e.name: e.reason for e in read_story(planned, run).elements}
    assert reasons == {"b-e0": "not there", "b-e1": "no bundle"}
    (tmp_path / "work" / "plan.json").unlink()
    reasons = {e.name: e.reason for e in read_story(planned, run).elements}
    assert reasons == {"b-e0": None, "b-e1": "no bundle"}


def test_a_verdict_leaves_a_report_beside_the_products(planned: Database, tmp_path: Path) -> None:
    end(planned, Outcome.SUCCEEDED)
    assert give_verdict(planned, RUN).good
    uri = runs.read_run(planned, RUN).facts["report"]
    assert uri == str(tmp_path / "maps" / "reports" / "run.html")
    html = (tmp_path / "maps" / "reports" / "run.html").read_text(encoding="utf-8")
    document = parse_document(html)
    assert "1 of 1 succeeded (quorum 100.0%), 0 failed, 1 without their input" in document.text
    assert document.row("b-e1", "predict", "missing input")[3] == "no bundle"


def test_a_verdict_that_is_given_again_writes_it_again(planned: Database, tmp_path: Path) -> None:
    end(planned, Outcome.INVALID_INPUT)
    assert not give_verdict(planned, RUN).good
    report = tmp_path / "maps" / "reports" / "run.html"
    assert "invalid input after 1 attempt" in parse_document(report.read_text("utf-8")).text
    claims.take_claim(planned, "run.b", fresh=True)
    claim = claims.take_claim(planned, "run.b")
    (element,) = batches.read_batch(planned, claim).elements
    batches.intend_submission(planned, claim, {element.id: (2, Resources(), "/log")})
    attempt = batches.read_batch(planned, claim).elements[0].attempts[-1].id
    batches.record_ends(planned, claim, [AttemptEnd(attempt, Outcome.SUCCEEDED)])
    assert give_verdict(planned, RUN).good
    document = parse_document(report.read_text("utf-8"))
    assert "1 of 1 succeeded" in document.text
    assert document.row("all")[1] == "2"


def test_a_run_that_was_never_planned_has_its_report_in_its_work(
    db: Database, tmp_path: Path
) -> None:
    work = str(tmp_path / "work")
    runs.open_run(db, RUN, workflow="trait_inference", params=params(tmp_path), work_uri=work)
    assert not give_verdict(db, RUN).good
    assert runs.read_run(db, RUN).facts["report"] == f"{work}/report.html"
    assert not (tmp_path / "maps").exists()


def test_a_run_of_any_workflow_has_a_report_and_a_copy_is_nobodys_fact(
    db: Database, tmp_path: Path
) -> None:
    runs.open_run(db, RUN, workflow="test", params={"a": [1]}, work_uri=str(tmp_path / "work"))
    run = runs.read_run(db, RUN)
    copy = str(tmp_path / "copy.html")
    assert write_report(db, run, copy) == copy
    assert "report" not in runs.read_run(db, RUN).facts
    assert write_report(db, run) == str(tmp_path / "work" / "report.html")
    assert runs.read_run(db, RUN).facts["report"] == str(tmp_path / "work" / "report.html")
    parse_document((tmp_path / "copy.html").read_text("utf-8"))


def test_half_a_character_costs_no_report(planned: Database, tmp_path: Path) -> None:
    end(planned, Outcome.SUCCEEDED)
    maps = tmp_path / "maps"
    maps.mkdir()
    (maps / "b-e0.json").write_text('{"properties": {"muster:description": "a \\ud800 leaf"}}')
    build = PlannedElement(
        step="traits.build", name="b-e0", group="b-e0", decision=Decision.REUSED, reason="there"
    )
    runs.record_plan(planned, RUN, [build], {"products": {"b-e0": str(maps / "b-e0.tif")}})
    assert give_verdict(planned, RUN).good
    assert "a ? leaf" in (maps / "reports" / "run.html").read_text(encoding="utf-8")


def events(db: Database) -> list[tuple[str, str]]:
    with db.transaction() as cursor:
        cursor.execute("SELECT kind, message FROM event WHERE batch_id IS NULL ORDER BY id")
        return list(cursor.fetchall())


@pytest.mark.parametrize("fault", ["no folder", "a wrong template"])
def test_a_report_that_fails_is_told_and_changes_no_verdict(
    planned: Database, tmp_path: Path, fault: str,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    end(planned, Outcome.SUCCEEDED)
    if fault == "no folder":
        (tmp_path / "maps").write_text("a file where the folder should be")
    else:
        monkeypatch.setattr("muster.traits.report.TEMPLATE", "traits/no-such.html.j2")
    with caplog.at_level(logging.WARNING):
        assert give_verdict(planned, RUN).good
    run = runs.read_run(planned, RUN)
    assert run.state is RunState.SUCCEEDED
    assert "report" not in run.facts
    assert [kind for kind, _ in events(planned)] == ["verdict", "conclude"]
    said = events(planned)[1][1]
    assert said in caplog.text
    assert "the verdict stands" in said


def test_what_no_workflow_could_mean_to_ignore_is_not_ignored(
    planned: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(WORKFLOWS, "trait_inference", f"{__name__}:WRONG")
    with pytest.raises(AttributeError):
        give_verdict(planned, RUN)
