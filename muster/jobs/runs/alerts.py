"""What is worth an alert: a run that failed, that can no longer succeed, or that stands still.

Found from the store alone, so that it does not matter who supervises the run, or whether anybody
does.  Each alert is sent once a run and notifier.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from muster.errors import MusterError
from muster.jobs.planning.workflow import find_workflow
from muster.jobs.runs.verdict import GOOD, INPUTS, read_quorum
from muster.jobs.supervision.retry import BackOff, Stop, decide_retry
from muster.model.notifier import KINDS
from muster.model.outcome import Outcome
from muster.store import alerts, batches
from muster.store.records import RunState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from muster.jobs.planning.workflow import Workflow
    from muster.model.batch import Batch
    from muster.model.notifier import AlertKind, SlackNotifier, SmtpNotifier, WebhookNotifier
    from muster.store.alerts import ElementCount, WatchedRun
    from muster.store.database import Database
    from muster.store.records import ElementRecord, Run

    AnyNotifier = WebhookNotifier | SmtpNotifier | SlackNotifier
    Send = Callable[[str, AnyNotifier, "Alert"], None]

FAILED_WITHIN_S = 86_400.0
"""A run that failed longer ago is no news, for a notifier that is new."""
RETRIED = tuple(o.value for o in Outcome if o not in (Outcome.SUCCEEDED, Outcome.MISSING_INPUT))
"""States of elements that have failed, for good or until their next attempt."""


@dataclass(frozen=True)
class Alert:
    """What is told of a run, in one line."""

    kind: AlertKind
    run: str
    workflow: str
    message: str

    @property
    def text(self) -> str:
        """The line that a person reads."""
        return f"Muster: {self.kind.replace('_', ' ')}: {self.run}: {self.message}"

    def to_dict(self) -> dict[str, Any]:
        """State it for programs; ``text`` is what chat services show."""
        return {
            "kind": self.kind,
            "run": self.run,
            "workflow": self.workflow,
            "message": self.message,
            "text": self.text,
            "sent_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }


@dataclass(frozen=True)
class Sent:
    """The alerts that were sent, and those that could not be, in a line each."""

    sent: tuple[str, ...]
    failed: tuple[str, ...]


@dataclass(frozen=True)
class Standing:
    """How what a quorum counts stands: succeeded, failed for good, and still open."""

    succeeded: int
    failed: int
    open: int


def quorum_out_of_reach(standing: Standing, quorum: float) -> bool:
    """Tell whether a run fails even if all that is open succeeds.

    Parameters
    ----------
    standing : Standing
        Counts of groups or elements; those without their input count nowhere.
    quorum : float
        Share that must succeed, in [0, 1].
    """
    best = standing.succeeded + standing.open
    return best < quorum * (best + standing.failed) - 1e-9 or (best == 0 and standing.failed > 0)


def count_standing(
    workflow: Workflow, counts: Iterable[ElementCount], retried: Mapping[tuple[str, str], int]
) -> Standing:
    """Count what the quorum of a workflow counts.

    Parameters
    ----------
    counts : iterable of ElementCount
        Of the whole run.
    retried : mapping of (str, str) to int
        Group and step → how many of its failed elements are to be tried again.
    """
    totals: Counter[str] = Counter()
    groups: dict[str, Counter[str]] = {}
    seen: Counter[tuple[str, str]] = Counter()
    for one in counts:
        if one.group == INPUTS:
            continue
        by_state = Counter({_standing_of(one.state): one.count})
        if one.state in RETRIED:
            at = one.group, one.step
            again = min(one.count, retried.get(at, 0) - seen[at])
            seen[at] += again
            by_state = Counter(failed=one.count - again, open=again)
        if workflow.judged != "element":
            groups.setdefault(one.group, Counter()).update(by_state)
        elif one.step in workflow.judged_steps:
            totals.update(by_state)
    totals.update(_standing_of_group(found) for found in groups.values())
    return Standing(totals["succeeded"], totals["failed"], totals["open"])


def _standing_of(state: str) -> str:
    if state in GOOD:
        return "succeeded"
    return "apart" if state == Outcome.MISSING_INPUT else "open"


def _standing_of_group(found: Counter[str]) -> str:
    """Say how a group stands: what failed for good speaks for it, then what is open."""
    return next((s for s in ("failed", "open", "apart") if found[s]), "succeeded")


def count_retried(db: Database, run_id: str) -> dict[tuple[str, str], int]:
    """Count the failed elements of a run that are to be tried again: (group, step) → elements."""
    found: Counter[tuple[str, str]] = Counter()
    for batch_id, group, generation in alerts.find_failing_batches(db, run_id, RETRIED):
        batch = batches.read_spec(db, batch_id)
        found[group, batch.step] += sum(
            element.state in RETRIED and is_tried_again(batch, element, generation)
            for element in batches.read_elements(db, batch_id)
        )
    return dict(found)


def is_tried_again(batch: Batch, element: ElementRecord, generation: int) -> bool:
    """Tell whether the retry policy gives a failed element another attempt."""
    past = [a for a in element.attempts if a.generation == generation and a.outcome is not None]
    if not past:
        return False
    step = decide_retry(
        [a.outcome for a in past if a.outcome is not None],
        past[-1].resources,
        batch.caps,
        back_off=BackOff(),
        policy=batch.retries,
    )
    return not isinstance(step, Stop)


def find_alerts(db: Database, notifiers: Mapping[str, AnyNotifier]) -> list[tuple[str, Alert]]:
    """Find what the notifiers are to be told: (name of the notifier, alert) pairs."""
    found = []
    for watched in alerts.read_watched(db, FAILED_WITHIN_S):
        run = watched.run
        wanted = {
            kind: [name for name, n in notifiers.items() if n.wants(kind, run.workflow)]
            for kind in KINDS
        }
        if run.state is RunState.FAILED:
            alert = Alert("failure", run.id, run.workflow, run.message or "failed")
            found += [(name, alert) for name in wanted["failure"]]
            continue
        found += [
            (name, Alert("no_progress", run.id, run.workflow, _describe_idle(watched)))
            for name in wanted["no_progress"]
            if watched.idle_s >= 60 * notifiers[name].no_progress_minutes
        ]
        reason = find_unreachable_quorum(db, run) if wanted["quorum_out_of_reach"] else None
        if reason is not None:
            alert = Alert("quorum_out_of_reach", run.id, run.workflow, reason)
            found += [(name, alert) for name in wanted["quorum_out_of_reach"]]
    return found


def find_unreachable_quorum(db: Database, run: Run) -> str | None:
    """Say why a run can no longer reach its quorum; None while it can, or where none is known.

    Only a quorum that the run's own params hold is known here: what a person says to Airflow alone
    is known to the verdict.
    """
    workflow = find_workflow(run.workflow)
    if workflow is None or run.planned_at is None or run.params.get("quorum") is None:
        return None
    quorum = read_quorum(run)
    standing = count_standing(
        workflow, alerts.count_elements(db, run.id), count_retried(db, run.id)
    )
    if not quorum_out_of_reach(standing, quorum):
        return None
    return (
        f"{standing.failed} failed for good, {standing.succeeded} succeeded, {standing.open} open:"
        f" a quorum of {quorum:.1%} is out of reach"
    )


def send_alerts(db: Database, notifiers: Mapping[str, AnyNotifier], send: Send) -> Sent:
    """Send what the notifiers are to be told and were not yet; no failure ends the others.

    Parameters
    ----------
    notifiers : mapping
        Of the site, by name.
    send : callable
        ``send(name, notifier, alert)``; raises MusterError where it could not be sent.
    """
    sent, failed = [], []
    for name, alert in find_alerts(db, notifiers):
        try:
            if send_once(db, name, notifiers[name], alert, send):
                sent.append(f"{name}: {alert.text}")
        except MusterError as error:
            failed.append(f"{name}: {alert.text}: not sent: {error}")
    return Sent(tuple(sent), tuple(failed))


def send_once(db: Database, name: str, notifier: AnyNotifier, alert: Alert, send: Send) -> bool:
    """Send an alert unless this notifier was told of it before; return whether it was sent now.

    Raises
    ------
    MusterError
        When it could not be sent; it is sent another time then.
    """
    event_id = alerts.claim_alert(db, alert.run, alert.kind, name, alert.message)
    if event_id is None:
        return False
    try:
        send(name, notifier, alert)
    except BaseException:
        alerts.release_alert(db, event_id)
        raise
    return True


def _describe_idle(watched: WatchedRun) -> str:
    minutes = int(watched.idle_s // 60)
    return f"nothing has started, ended or reported progress for {minutes} minutes"
