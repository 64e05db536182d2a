"""Progress in the store: forward only, for what runs, by who holds the claim."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest
from alembic import command
from sqlalchemy import create_engine

from muster.errors import ClaimLost
from muster.model.attempt import Progress
from muster.model.outcome import Outcome
from muster.model.resources import Resources
from muster.store import batches, claims, runs, schema
from muster.store.database import Database
from muster.store.progress import record_progress
from muster.store.records import AttemptEnd, Claim
from tests.batches import make_batch, store_batch

if TYPE_CHECKING:
    from pathlib import Path

    from muster.store.runs import ElementStatus

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def claim(db: Database, tmp_path: Path) -> Claim:
    batch = store_batch(db, make_batch(tmp_path, [{"text": "a"}, {"text": "b"}]))
    return claims.take_claim(db, batch.id)


@pytest.fixture
def attempts(db: Database, claim: Claim) -> list[int]:
    """Two attempts that run."""
    elements = batches.read_elements(db, claim.batch_id)
    submission, _ = batches.intend_submission(
        db, claim, {e.id: (1, Resources(), "log") for e in elements}
    )
    batches.record_submitted(db, claim, submission, "ref")
    ids = [e.attempts[0].id for e in batches.read_elements(db, claim.batch_id)]
    batches.record_running(db, claim, dict.fromkeys(ids, "host"))
    return ids


def word(fraction: float, after_s: float = 0.0, **more: Any) -> Progress:
    at = NOW + timedelta(seconds=after_s)
    values = {"submission": "key", "index": 0, "attempt": 1, "message": f"at {fraction}"}
    return Progress.model_validate(
        {**values, "fraction": fraction, "left_s": None, "at": at, **more}
    )


def status(db: Database) -> list[ElementStatus]:
    return runs.read_status(db, "run")


def test_what_runs_says_how_far_it_is_and_when_it_is_done(
    db: Database, claim: Claim, attempts: list[int]
) -> None:
    record_progress(db, claim, {attempts[0]: word(0.25, left_s=90.0), attempts[1]: word(0.001)})
    first, second = status(db)
    assert (first.progress, first.progress_message, first.progress_at) == (0.25, "at 0.25", NOW)
    assert first.eta_at == NOW + timedelta(seconds=90)
    assert (second.progress, second.eta_at) == (0.001, None)


def test_progress_never_goes_back(db: Database, claim: Claim, attempts: list[int]) -> None:
    record_progress(db, claim, {attempts[0]: word(0.5, 10)})
    record_progress(db, claim, {attempts[0]: word(0.4, 20)})
    record_progress(db, claim, {attempts[0]: word(0.6, 5)})
    assert (status(db)[0].progress, status(db)[0].progress_message) == (0.5, "at 0.5")
    record_progress(db, claim, {attempts[0]: word(0.5, 30, message="the same, later")})
    assert status(db)[0].progress_message == "the same, later"


def test_two_hundred_are_one_statement(db: Database, tmp_path: Path) -> None:
    batch = store_batch(db, make_batch(tmp_path, [{"text": "a"}] * 200, name="many"))
    claim = claims.take_claim(db, batch.id)
    elements = batches.read_elements(db, batch.id)
    batches.intend_submission(db, claim, {e.id: (1, Resources(), "log") for e in elements})
    ids = [e.attempts[0].id for e in batches.read_elements(db, batch.id)]
    batches.record_running(db, claim, dict.fromkeys(ids, "host"))
    with db.transaction() as cursor:
        cursor.execute(
            "CREATE TABLE told (n int); CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql"
            " AS 'BEGIN INSERT INTO told VALUES (1); RETURN NULL; END';"
            "CREATE TRIGGER tell AFTER UPDATE ON attempt FOR EACH STATEMENT EXECUTE FUNCTION tell()"
        )
    record_progress(db, claim, {id_: word(n / 200) for n, id_ in enumerate(ids)})
    with db.transaction() as cursor:
        cursor.execute("SELECT count(*) FROM told")
        assert cursor.fetchone() == (1,)
    assert [e.progress for e in status(db)] == [n / 200 for n in range(200)]


def test_who_lost_the_claim_records_no_progress(
    db: Database, claim: Claim, attempts: list[int]
) -> None:
    claims.take_claim(db, claim.batch_id)
    with pytest.raises(ClaimLost):
        record_progress(db, claim, {attempts[0]: word(0.5)})
    assert status(db)[0].progress is None


def test_what_ended_has_no_eta_and_stays_as_it_ended(
    db: Database, claim: Claim, attempts: list[int]
) -> None:
    said = {attempt: word(0.5, left_s=60.0) for attempt in attempts}
    record_progress(db, claim, said)
    ends = [AttemptEnd(attempts[0], Outcome.SUCCEEDED), AttemptEnd(attempts[1], Outcome.TRANSIENT)]
    batches.record_ends(db, claim, ends)
    record_progress(db, claim, {attempt: word(0.9, 60, left_s=9.0) for attempt in attempts})
    assert [(e.progress, e.eta_at) for e in status(db)] == [(1.0, None), (0.5, None)]


@pytest.mark.parametrize("value", ["-0.1", "1.1", "'NaN'"])
def test_the_database_itself_refuses_what_is_no_fraction(
    db: Database, attempts: list[int], value: str
) -> None:
    with pytest.raises(psycopg2.errors.CheckViolation), db.transaction() as cursor:
        cursor.execute(f"UPDATE attempt SET progress = {value} WHERE id = %s", (attempts[0],))


def test_a_store_of_the_first_version_is_upgraded_with_its_record(
    database: str, tmp_path: Path
) -> None:
    config = schema._config()
    with create_engine(schema._sqlalchemy_url(database)).begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    assert schema.read_versions(database) == ("0001", "0009")
    db = Database(database)
    with db.transaction() as cursor:
        cursor.execute(
            """
            INSERT INTO run (id, workflow, params, work_uri) VALUES ('run', 'w', '{}', '/w');
            INSERT INTO batch (id, run_id, step, group_name, backend, pool, spec, fingerprint)
                VALUES ('run.b', 'run', 's', 'g', 'local', 'p', '{}', 'f');
            INSERT INTO element (run_id, batch_id, step, group_name, name, index, state)
                VALUES ('run', 'run.b', 's', 'g', 'ended', 0, 'succeeded'),
                       ('run', 'run.b', 's', 'g', 'runs', 1, 'running');
            INSERT INTO submission (batch_id, wave, key, fingerprint, claim)
                VALUES ('run.b', 1, 'key', 'f', gen_random_uuid());
            INSERT INTO attempt (element_id, submission_id, number, generation, state, outcome,
                                 resources, seconds, ended_at)
                SELECT e.id, s.id, 1, 1,
                       CASE e.name WHEN 'ended' THEN 'ended' ELSE 'running' END,
                       CASE e.name WHEN 'ended' THEN 'succeeded' END, '{}', 2.5,
                       CASE e.name WHEN 'ended' THEN now() END
                FROM element e, submission s;
            """
        )
    assert schema.migrate(database) == "0009"
    ended, running = status(db)
    assert (ended.state, ended.seconds, ended.progress, ended.eta_at) == (
        "succeeded", 2.5, None, None,
    )  # fmt: skip
    claim = claims.take_claim(db, "run.b")
    with db.transaction() as cursor:
        cursor.execute("SELECT id FROM attempt WHERE state = 'running'")
        (attempt,) = cursor.fetchone() or (0,)
    record_progress(db, claim, {attempt: word(0.5)})
    assert [e.progress for e in status(db)] == [None, 0.5]
    assert running.state == "running"
    db.close()
