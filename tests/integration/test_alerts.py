"""Alerts against a real store: found from the record, sent once, and again only when not sent."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from muster.backends.local import LocalBackend
from muster.errors import Transient
from muster.jobs.runs.alerts import (
    Alert,
    count_retried,
    find_alerts,
    find_unreachable_quorum,
    is_tried_again,
    send_alerts,
    send_once,
)
from muster.jobs.supervision.retry import BackOff
from muster.jobs.supervision.supervisor import Supervisor
from muster.model.notifier import WebhookNotifier
from muster.store import alerts, batches, claims, runs
from muster.store.records import RunState
from tests.batches import add_steps_to_path, make_batch

if TYPE_CHECKING:
    from pathlib import Path

    from muster.store.database import Database

OPS = WebhookNotifier(kind="webhook", url_variable="URL")
ALL = {"ops": OPS}


class Inbox:
    """Keeps what is sent, or refuses it."""

    def __init__(self) -> None:
        self.got: list[tuple[str, Alert]] = []
        self.away = False

    def __call__(self, name: str, notifier: Any, alert: Alert) -> None:
        if self.away:
            raise Transient("away")
        self.got.append((name, alert))

    def kinds(self) -> list[tuple[str, str]]:
        return [(name, alert.kind) for name, alert in self.got]


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


def open_run(db: Database, run_id: str = "run", **params: Any) -> None:
    runs.open_run(db, run_id, workflow="trait_inference", params=params, work_uri="/nowhere")


def make_older(db: Database, minutes: float, run_id: str = "run") -> None:
    with db.transaction() as cursor:
        cursor.execute(
            "UPDATE run SET created_at = created_at - make_interval(mins => %(m)s),"
            " planned_at = planned_at - make_interval(mins => %(m)s),"
            " ended_at = ended_at - make_interval(mins => %(m)s) WHERE id = %(run)s",
            {"m": minutes, "run": run_id},
        )
        cursor.execute(
            "UPDATE attempt SET submitted_at = submitted_at - make_interval(mins => %(m)s),"
            " started_at = started_at - make_interval(mins => %(m)s),"
            " progress_at = progress_at - make_interval(mins => %(m)s)",
            {"m": minutes},
        )


def test_a_failed_run_is_told_once_to_each(db: Database, inbox: Inbox) -> None:
    open_run(db)
    runs.end_run(db, "run", RunState.FAILED, "3 of 5 succeeded")
    both = {"ops": OPS, "chat": OPS}
    for _ in range(3):
        send_alerts(db, both, inbox)
    assert inbox.kinds() == [("ops", "failure"), ("chat", "failure")]
    assert inbox.got[0][1].message == "3 of 5 succeeded"
    assert inbox.got[0][1].text == "Muster: failure: run: 3 of 5 succeeded"


def test_who_mends_a_run_that_fails_again_is_told_again(db: Database, inbox: Inbox) -> None:
    open_run(db)
    runs.record_plan(db, "run", [], {})
    for _ in range(2):
        runs.end_run(db, "run", RunState.FAILED, "1 of 2 succeeded")
        send_alerts(db, ALL, inbox)
        runs.reopen_run(db, "run")
        send_alerts(db, ALL, inbox)
    assert inbox.kinds() == [("ops", "failure")] * 2


def test_no_news_of_what_ended_well_was_cancelled_or_failed_long_ago(
    db: Database, inbox: Inbox
) -> None:
    for number, state in enumerate((RunState.SUCCEEDED, RunState.CANCELLED, RunState.FAILED)):
        open_run(db, f"run{number}")
        runs.end_run(db, f"run{number}", state, "over")
        make_older(db, 25 * 60, f"run{number}")
    send_alerts(db, ALL, inbox)
    assert inbox.got == []


def test_what_a_notifier_is_not_there_for_it_is_not_told(db: Database, inbox: Inbox) -> None:
    open_run(db)
    runs.end_run(db, "run", RunState.FAILED, "over")
    told = {
        "other": OPS.model_copy(update={"workflows": ("mock_campaign",)}),
        "idle": OPS.model_copy(update={"events": ("no_progress",)}),
        "mine": OPS.model_copy(update={"workflows": ("trait_inference",)}),
    }
    send_alerts(db, told, inbox)
    assert inbox.kinds() == [("mine", "failure")]


def test_an_alert_that_was_not_sent_is_sent_another_time(db: Database, inbox: Inbox) -> None:
    open_run(db)
    runs.end_run(db, "run", RunState.FAILED, "over")
    inbox.away = True
    done = send_alerts(db, ALL, inbox)
    assert (done.sent, len(done.failed)) == ((), 1)
    assert "not sent: away" in done.failed[0]
    inbox.away = False
    assert len(send_alerts(db, ALL, inbox).sent) == 1
    assert len(inbox.got) == 1


def test_of_many_processes_one_sends_it(db: Database, inbox: Inbox) -> None:
    open_run(db)
    alert = Alert("failure", "run", "trait_inference", "over")
    with ThreadPoolExecutor(4) as pool:
        sent = list(pool.map(lambda _: send_once(db, "ops", OPS, alert, inbox), range(20)))
    assert sent.count(True) == 1
    assert len(inbox.got) == 1
    assert not send_once(db, "ops", OPS, Alert("failure", "none", "x", "?"), inbox)


@pytest.mark.parametrize(("minutes", "told"), [(59, False), (61, True)])
def test_a_run_that_stands_still_is_told_after_its_time(
    db: Database, inbox: Inbox, minutes: float, told: bool
) -> None:
    open_run(db)
    make_older(db, minutes)
    send_alerts(db, ALL, inbox)
    assert inbox.kinds() == ([("ops", "no_progress")] if told else [])
    if told:
        assert "for 61 minutes" in inbox.got[0][1].message
        soon = {"soon": OPS.model_copy(update={"no_progress_minutes": 5})}
        send_alerts(db, soon, inbox)
        assert inbox.kinds()[-1] == ("soon", "no_progress")


def test_work_that_goes_on_is_progress(db: Database, tmp_path: Path) -> None:
    batch = make_batch(tmp_path, [{"text": "a"}])
    open_run(db)
    runs.create_batches(db, [("SLA", batch)])
    claim = claims.take_claim(db, batch.id)
    (element,) = batches.read_elements(db, batch.id)
    attempts = {element.id: (1, batch.resources, batch.log_uri(0, 1))}
    submission, _ = batches.intend_submission(db, claim, attempts)
    batches.record_submitted(db, claim, submission, "1")
    (element,) = batches.read_elements(db, batch.id)
    batches.record_running(db, claim, {element.attempts[0].id: None})
    make_older(db, 90)

    def idle_minutes() -> float:
        (watched,) = alerts.read_watched(db, 0)
        return watched.idle_s / 60

    assert 89 < idle_minutes() < 92
    with db.transaction() as cursor:
        cursor.execute("UPDATE attempt SET progress_at = now() - interval '10 min'")
    assert 9 < idle_minutes() < 11
    with db.transaction() as cursor:  # a job's clock may be wrong
        cursor.execute("UPDATE attempt SET progress_at = now() + interval '9 days'")
    assert 0 <= idle_minutes() < 1


@pytest.fixture
def _steps(monkeypatch: pytest.MonkeyPatch) -> None:
    add_steps_to_path(monkeypatch)


@pytest.mark.slow
@pytest.mark.usefixtures("_steps")
def test_a_quorum_out_of_reach_is_told_from_real_attempts(
    db: Database, tmp_path: Path, inbox: Inbox
) -> None:
    for n, how in enumerate(("invalid", "raise", "fine")):
        if n == 0:
            open_run(db, quorum=0.5)
        ledger = str(tmp_path / f"ledger{n}")
        batch = make_batch(
            tmp_path, [{"how": how, "ledger": ledger}], step="test.misbehave", name=f"b{n}"
        )
        runs.create_batches(db, [(f"T{n}", batch)])
    runs.record_plan(db, "run", [], {})
    run = runs.read_run(db, "run")
    assert find_unreachable_quorum(db, run) is None
    for n in (0, 1):
        claim = claims.take_claim(db, f"run.b{n}")
        asyncio.run(Supervisor(db, LocalBackend(), claim, back_off=BackOff(0.01, 0.02)).run())
    assert count_retried(db, "run") == {("T0", "test.misbehave"): 0, ("T1", "test.misbehave"): 0}
    (element,) = batches.read_elements(db, "run.b1")
    assert len(element.attempts) == 2
    first = type(element)(
        element.id, element.index, element.name, element.state, element.attempts[:1]
    )
    batch = batches.read_spec(db, "run.b1")
    assert is_tried_again(batch, first, 1)
    assert not is_tried_again(batch, element, 1)
    reason = find_unreachable_quorum(db, run)
    assert reason == ("2 failed for good, 0 succeeded, 1 open: a quorum of 50.0% is out of reach")
    send_alerts(db, ALL, inbox)
    send_alerts(db, ALL, inbox)
    assert inbox.kinds() == [("ops", "quorum_out_of_reach")]


def test_a_quorum_that_the_store_does_not_know_is_never_told(db: Database) -> None:
    open_run(db)
    runs.record_plan(db, "run", [], {})
    assert find_alerts(db, ALL) == []
