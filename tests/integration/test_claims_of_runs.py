"""Who follows a run, who may look at it, and what was overtaken by what came before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from muster.jobs.runs.verdict import give_verdict
from muster.model.outcome import Outcome
from muster.model.resources import Resources
from muster.store import batches, claims, runs
from muster.store.records import AttemptEnd, Claim, RunState
from tests.batches import make_batch

if TYPE_CHECKING:
    from pathlib import Path

    from muster.store.database import Database


@pytest.fixture
def two(db: Database, tmp_path: Path) -> tuple[str, str]:
    """Two batches of a run: one, and one that comes after it."""
    runs.open_run(db, "run", workflow="trait_inference", params={}, work_uri=str(tmp_path))
    made = [make_batch(tmp_path, [{}], name=name) for name in ("before", "after")]
    runs.create_batches(db, [("group", batch) for batch in made])
    return made[0].id, made[1].id


def submit(db: Database, batch_id: str) -> tuple[Claim, int]:
    claim = claims.take_claim(db, batch_id)
    (element,) = batches.read_batch(db, claim).elements
    wave, _ = batches.intend_submission(
        db, claim, {element.id: (1 + len(element.attempts), Resources(), "/log")}
    )
    batches.record_submitted(db, claim, wave, "1")
    return claim, batches.read_elements(db, batch_id)[0].attempts[-1].id


def attempt(db: Database, batch_id: str, outcome: Outcome) -> None:
    claim, attempt_id = submit(db, batch_id)
    batches.record_running(db, claim, {attempt_id: "node"})
    batches.record_ends(db, claim, [AttemptEnd(attempt_id, outcome)])


def test_what_somebody_follows_is_not_looked_at_by_others(
    db: Database, two: tuple[str, str]
) -> None:
    claim, _ = submit(db, two[0])
    assert claims.find_detached(db) == []
    claims.detach(db, claim)
    assert claims.find_detached(db, "run") == [two[0]]
    assert not claims.is_followed(db, "run")
    assert claims.find_unattended(db, 0.0) == [], "it is meant to run without anybody"
    claims.record_heartbeat(db, claim)
    assert claims.find_detached(db) == []
    assert claims.is_followed(db, "run")


@pytest.mark.parametrize("ended_as", [Outcome.SUCCEEDED, Outcome.MISSING_INPUT])
def test_what_was_made_without_a_mended_band_is_made_again(
    db: Database, two: tuple[str, str], ended_as: Outcome
) -> None:
    before, after = two
    attempt(db, before, Outcome.SOFTWARE_ERROR)
    attempt(db, after, ended_as)
    attempt(db, before, Outcome.SOFTWARE_ERROR)
    assert not claims.renew_overtaken(db, after, [before], []), "nothing was mended"
    attempt(db, before, Outcome.SUCCEEDED)
    assert claims.renew_overtaken(db, after, [before], [before])
    assert batches.read_elements(db, after)[0].state == "pending"


def test_what_a_person_cancelled_is_not_made_again(db: Database, two: tuple[str, str]) -> None:
    before, after = two
    attempt(db, after, Outcome.CANCELLED)
    claims.request_cancel(db, claims.take_claim(db, after), "person")
    attempt(db, before, Outcome.SUCCEEDED)
    assert not claims.renew_overtaken(db, after, [before], [before])


def test_a_cancelled_run_stays_so_where_it_is_asked(db: Database, two: tuple[str, str]) -> None:
    for batch_id in two:
        attempt(db, batch_id, Outcome.SUCCEEDED)
    runs.record_plan(db, "run", [], {})
    runs.end_run(db, "run", RunState.CANCELLED, "cancelled by a person")
    assert not give_verdict(db, "run", leave_cancelled=True).good
    assert runs.read_run(db, "run").state is RunState.CANCELLED
