"""What the database itself guarantees, whoever writes to it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import psycopg2
import pytest

from muster.errors import ClaimLost, IllegalTransition, MissingInput, StoreUnavailable
from muster.model.outcome import Outcome
from muster.model.plan import Decision, PlannedElement
from muster.model.resources import Resources
from muster.store import batches, claims, pods, runs
from muster.store.database import Database
from muster.store.records import AttemptEnd, Claim, RunState
from muster.store.schema import migrate, read_versions
from tests.batches import make_batch, store_batch

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def claim(db: Database, tmp_path: Path) -> Claim:
    batch = store_batch(db, make_batch(tmp_path, [{"text": "a"}, {"text": "b"}]))
    return claims.take_claim(db, batch.id)


def intend(db: Database, claim: Claim) -> tuple[int, list[int]]:
    record = batches.read_batch(db, claim)
    numbers = {e.id: len(e.attempts) + 1 for e in record.elements}
    submission, _ = batches.intend_submission(
        db, claim, {e: (n, Resources(), "log") for e, n in numbers.items()}
    )
    record = batches.read_batch(db, claim)
    return submission, [e.attempts[-1].id for e in record.elements]


def test_an_attempt_that_ended_stays_as_it_ended(db: Database, claim: Claim) -> None:
    _, attempts = intend(db, claim)
    batches.record_ends(db, claim, [AttemptEnd(attempts[0], Outcome.SUCCEEDED)])
    for change in ("state = 'running', outcome = NULL, ended_at = NULL", "outcome = 'lost'"):
        with (
            pytest.raises(IllegalTransition, match="has ended as succeeded"),
            db.transaction() as c,
        ):
            c.execute(f"UPDATE attempt SET {change} WHERE id = %s", (attempts[0],))
    batches.record_ends(db, claim, [AttemptEnd(attempts[0], Outcome.LOST)])
    element = batches.read_batch(db, claim).elements[0]
    assert (element.state, element.attempts[0].outcome) == ("succeeded", Outcome.SUCCEEDED)


@pytest.mark.parametrize(
    ("said", "kept"),
    [("a\0b", "ab"), (r"a\u0000b", r"a\u0000b"), ("a\\\0b", "a\\b"), ("“é” \U0001f600\n%s", None)],
)
def test_any_text_of_a_job_is_recorded(db: Database, claim: Claim, said: str, kept: str) -> None:
    _, attempts = intend(db, claim)
    end = AttemptEnd(attempts[0], Outcome.SOFTWARE_ERROR, message=said, facts={"said": said})
    batches.record_ends(db, claim, [end])
    with db.transaction() as cursor:
        cursor.execute("SELECT message, facts ->> 'said' FROM attempt WHERE state = 'ended'")
        assert cursor.fetchall() == [(kept or said, kept or said)]


def test_a_number_that_is_none_keeps_no_end_from_the_record(db: Database, claim: Claim) -> None:
    _, attempts = intend(db, claim)
    end = AttemptEnd(attempts[0], Outcome.SUCCEEDED, seconds=float("nan"), max_rss_mib=1.5)
    batches.record_ends(db, claim, [end])
    with db.transaction() as cursor:
        cursor.execute("SELECT seconds, max_rss_mib FROM attempt WHERE state = 'ended'")
        assert cursor.fetchall() == [(None, 1.5)]


def test_a_batch_that_is_frozen_anew_is_read_anew(db: Database, tmp_path: Path) -> None:
    batch = store_batch(db, make_batch(tmp_path, [{"text": "a"}]))
    claim = claims.take_claim(db, batch.id)
    held = batches.read_batch(db, claim).batch
    assert batches.read_batch(db, claim).batch is held
    runs.create_batches(db, [("group", make_batch(tmp_path, [{"text": "another"}]))])
    assert batches.read_batch(db, claim).batch.elements[0].inputs == {"text": "another"}
    assert batches.read_spec(db, batch.id).elements[0].inputs == {"text": "another"}


def test_an_attempt_never_goes_back(db: Database, claim: Claim) -> None:
    submission, attempts = intend(db, claim)
    batches.record_submitted(db, claim, submission, "ref")
    batches.record_running(db, claim, {attempts[0]: "host"})
    with pytest.raises(IllegalTransition, match="running back to planned"), db.transaction() as c:
        c.execute("UPDATE attempt SET state = 'planned' WHERE id = %s", (attempts[0],))


def test_only_the_newest_claim_writes(db: Database, claim: Claim) -> None:
    submission, attempts = intend(db, claim)
    claims.take_claim(db, claim.batch_id)
    for write in (
        lambda: batches.record_submitted(db, claim, submission, "ref"),
        lambda: batches.record_ends(db, claim, [AttemptEnd(attempts[0], Outcome.SUCCEEDED)]),
        lambda: batches.record_cancelled(db, claim),
        lambda: claims.request_cancel(db, claim, "kill"),
        lambda: batches.read_batch(db, claim),
        lambda: intend(db, claim),
    ):
        with pytest.raises(ClaimLost):
            write()
    with db.transaction() as cursor:
        cursor.execute("SELECT DISTINCT state FROM attempt")
        assert cursor.fetchall() == [("planned",)]


def test_one_open_submission_a_batch_and_wave(db: Database, claim: Claim) -> None:
    intend(db, claim)
    with pytest.raises(psycopg2.errors.UniqueViolation), db.transaction() as cursor:
        cursor.execute(
            "INSERT INTO submission (batch_id, wave, key, fingerprint, claim)"
            " SELECT batch_id, wave, key || 'x', fingerprint, claim FROM submission"
        )


def test_a_submission_ends_with_its_last_attempt(db: Database, claim: Claim) -> None:
    _, attempts = intend(db, claim)
    batches.record_ends(db, claim, [AttemptEnd(attempts[0], Outcome.SUCCEEDED)])
    assert batches.read_batch(db, claim).submissions
    batches.record_ends(db, claim, [AttemptEnd(attempts[1], Outcome.TRANSIENT)])
    assert not batches.read_batch(db, claim).submissions


def test_a_clear_starts_a_generation_and_a_retry_does_not(db: Database, claim: Claim) -> None:
    generation = lambda c: batches.read_batch(db, c).generation  # noqa: E731
    first = claims.take_claim(db, claim.batch_id, max_tries=2)
    assert generation(first) == 1
    assert generation(claims.take_claim(db, claim.batch_id, max_tries=2)) == 1
    assert generation(claims.take_claim(db, claim.batch_id, max_tries=4)) == 2
    assert generation(claims.take_claim(db, claim.batch_id, max_tries=4)) == 2


def test_a_cancelled_batch_that_airflow_tries_again_starts_afresh(
    db: Database, claim: Claim
) -> None:
    """A scheduler that takes a task for an orphan kills it, and then starts it again."""
    first = claims.take_claim(db, claim.batch_id, max_tries=2)
    claims.request_cancel(db, first, "kill")
    assert batches.read_batch(db, claims.take_claim(db, claim.batch_id)).cancel_requested
    again = batches.read_batch(db, claims.take_claim(db, claim.batch_id, max_tries=2))
    assert (again.cancel_requested, again.generation) == (False, 2)


@pytest.mark.parametrize("by", ["person", "reconcile"])
def test_what_was_ended_on_purpose_stays_ended(db: Database, claim: Claim, by: str) -> None:
    claims.request_cancel(db, claims.take_claim(db, claim.batch_id, max_tries=2), by)
    again = claims.take_claim(db, claim.batch_id, max_tries=2)
    assert batches.read_batch(db, again).cancel_requested
    cleared = claims.take_claim(db, claim.batch_id, max_tries=4)
    assert not batches.read_batch(db, cleared).cancel_requested


def test_a_new_generation_keeps_what_succeeded_and_what_runs(db: Database, claim: Claim) -> None:
    _, attempts = intend(db, claim)
    batches.record_ends(db, claim, [AttemptEnd(attempts[0], Outcome.SUCCEEDED)])
    fresh = claims.take_claim(db, claim.batch_id, fresh=True)
    record = batches.read_batch(db, fresh)
    assert [e.state for e in record.elements] == ["succeeded", "running"]
    assert len(record.submissions) == 1


def test_a_plan_made_again_changes_nothing_that_is_the_same(
    db: Database, claim: Claim, tmp_path: Path
) -> None:
    _, attempts = intend(db, claim)
    ends = [AttemptEnd(a, Outcome.SUCCEEDED) for a in attempts]
    batches.record_ends(db, claim, ends)
    store_batch(db, make_batch(tmp_path, [{"text": "a"}, {"text": "b"}]))
    assert {e.state for e in batches.read_elements(db, claim.batch_id)} == {"succeeded"}
    store_batch(db, make_batch(tmp_path, [{"text": "a"}, {"text": "other"}]))
    assert {e.state for e in batches.read_elements(db, claim.batch_id)} == {"pending"}


def test_what_a_new_inspection_wants_again_runs_again(
    db: Database, claim: Claim, tmp_path: Path
) -> None:
    """Somebody deleted the file of an element that had succeeded, and cleared the run."""
    _, attempts = intend(db, claim)
    batches.record_ends(db, claim, [AttemptEnd(a, Outcome.SUCCEEDED) for a in attempts])
    batch = make_batch(tmp_path, [{"text": "a"}, {"text": "b"}])
    runs.create_batches(db, [("group", batch)], again=True)
    record = batches.read_batch(db, claims.take_claim(db, claim.batch_id))
    assert {e.state for e in record.elements} == {"pending"}
    assert record.generation == 2


def test_a_plan_made_again_may_have_fewer_elements(db: Database, tmp_path: Path) -> None:
    batch = make_batch(tmp_path, [{"text": "a"}, {"text": "b"}, {"text": "c"}])
    store_batch(db, batch)
    fewer = [e.model_copy(update={"index": i}) for i, e in enumerate(batch.elements[1:])]
    settled = PlannedElement(
        step=batch.step, name=batch.elements[0].name, group="group", decision=Decision.REUSED,
        reason="there",
    )  # fmt: skip
    runs.record_plan(db, "run", [settled], {})
    store_batch(db, batch.model_copy(update={"elements": tuple(fewer)}))
    found = batches.read_elements(db, batch.id)
    assert [(e.index, e.name) for e in found] == [(0, "b-e1"), (1, "b-e2")]


def test_a_nul_in_a_message_is_recorded_without_it(db: Database, claim: Claim) -> None:
    _, attempts = intend(db, claim)
    end = AttemptEnd(attempts[0], Outcome.TRANSIENT, message="a b", facts={"x": "nul \x00 in it"})
    batches.record_ends(db, claim, [end])
    assert batches.read_batch(db, claim).elements[0].state == "transient"


def test_what_nobody_supervises_is_found(db: Database, claim: Claim) -> None:
    intend(db, claim)
    assert claims.find_unattended(db, 3600) == []
    assert claims.find_unattended(db, 0) == [claim.batch_id]


def test_runs_are_found_by_a_part_of_their_name(db: Database) -> None:
    for name in ("wf.manual__2026-01-01", "wf.manual__2026-02-01"):
        runs.open_run(db, name, workflow="wf", params={}, work_uri="w")
    assert runs.find_run(db, "2026-02").id == "wf.manual__2026-02-01"
    with pytest.raises(Exception, match="several runs fit"):
        runs.find_run(db, "manual")
    with pytest.raises(MissingInput, match="no such run"):
        runs.find_run(db, "2027")
    runs.end_run(db, "wf.manual__2026-01-01", RunState.FAILED, "why")
    assert runs.find_run(db, "2026-01").message == "why"


def test_migrating_at_once_and_again_is_safe(database: str) -> None:
    failures: list[Exception] = []

    def apply() -> None:
        try:
            migrate(database)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=apply) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert migrate(database) == "0009"
    assert read_versions(database) == ("0009", "0009")


def test_a_store_that_is_away_comes_back_without_a_restart(db: Database) -> None:
    with db.transaction() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone() or (0,)
    other = Database(db.url)
    with other.transaction() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", (pid,))
    other.close()
    with pytest.raises(StoreUnavailable), db.transaction() as cursor:
        cursor.execute("SELECT 1")
    with db.transaction() as cursor:
        cursor.execute("SELECT 1")


def test_every_foreign_key_is_indexed(db: Database) -> None:
    with db.transaction() as cursor:
        cursor.execute(
            """
            SELECT c.conrelid::regclass::text, a.attname FROM pg_constraint c
            JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
            WHERE c.contype = 'f' AND NOT EXISTS (
                SELECT 1 FROM pg_index i WHERE i.indrelid = c.conrelid AND i.indkey[0] = a.attnum)
            """
        )
        assert cursor.fetchall() == []


def test_a_run_that_nobody_goes_on_with_is_ended(db: Database, claim: Claim) -> None:
    _, attempts = intend(db, claim)
    assert runs.end_abandoned(db, 0) == [], "something of it is open"
    batches.record_ends(db, claim, [AttemptEnd(a, Outcome.TRANSIENT) for a in attempts])
    assert runs.end_abandoned(db, 3600) == []
    assert runs.end_abandoned(db, 0) == ["run"]
    assert runs.read_run(db, "run").state == RunState.CANCELLED
    assert runs.end_abandoned(db, 0) == []


def test_a_batch_is_the_same_to_the_digit_as_it_was_frozen(db: Database, tmp_path: Path) -> None:
    """It is known by the sha256 of its file: numbers must come back as they were written."""
    inputs = {"large": 1e17, "small": -0.0, "tiny": 5e-324, "whole": 3, "whole_float": 3.0}
    batch = store_batch(db, make_batch(tmp_path, [inputs]))
    assert batches.read_spec(db, batch.id).fingerprint == batch.fingerprint


def test_a_pod_template_is_that_of_the_present_generation_to_the_letter(
    db: Database, claim: Claim
) -> None:
    assert pods.read_pod(db, claim.batch_id) is None
    template = {"spec": {"containers": [{"name": "z", "args": ["a\\b", "é"]}]}, "metadata": {}}
    pods.record_pod(db, claim, {"metadata": {}})
    pods.record_pod(db, claim, template)
    read = pods.read_pod(db, claim.batch_id)
    assert (read, list(read or ())) == (template, ["spec", "metadata"])
    cleared = claims.take_claim(db, claim.batch_id, fresh=True)
    assert pods.read_pod(db, claim.batch_id) is None
    with pytest.raises(ClaimLost):
        pods.record_pod(db, claim, template)
    pods.record_pod(db, cleared, {"metadata": {"name": "next"}})
    assert pods.read_pod(db, claim.batch_id) == {"metadata": {"name": "next"}}
