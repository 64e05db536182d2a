"""What a run has come to, group by group: one pure judgement over the store's record."""

from __future__ import annotations

import contextlib
import logging
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from muster.errors import MusterError, StoreUnavailable
from muster.imports import load_named
from muster.jobs.planning.workflow import load_workflow
from muster.model.outcome import Outcome
from muster.store import runs
from muster.store.records import RunState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from muster.jobs.planning.workflow import Workflow
    from muster.store.database import Database
    from muster.store.runs import ElementStatus

log = logging.getLogger(__name__)

GOOD = frozenset({"succeeded", "reused", "not_asked"})
INPUTS = "inputs"
"""The group of a run's inspection, which is nobody's result."""


@dataclass(frozen=True)
class GroupVerdict:
    """How one group (a trait) stands.

    ``state`` is ``succeeded``, ``missing_input`` (reported apart, nobody's failure), or ``failed``.
    """

    name: str
    state: str
    steps: dict[str, str]
    reasons: tuple[str, ...]

    def describe(self) -> str:
        """Say it in one line."""
        steps = ", ".join(
            f"{step.rpartition('.')[2]} {state}" for step, state in self.steps.items()
        )
        why = f" ({'; '.join(self.reasons)})" if self.reasons else ""
        return f"{self.name}: {self.state}: {steps}{why}"


@dataclass(frozen=True)
class Verdict:
    """How a run stands.

    Attributes
    ----------
    good : bool
        Whether it was planned and its success quorum was reached.
    summary : str
        One line.
    groups : tuple of GroupVerdict
        By name.
    """

    good: bool
    summary: str
    groups: tuple[GroupVerdict, ...]

    def describe(self) -> str:
        """Say it group by group, the summary last."""
        return "\n".join([*(group.describe() for group in self.groups), self.summary])


def judge(
    statuses: Sequence[ElementStatus],
    *,
    planned: bool,
    quorum: float = 1.0,
    cause: str | None = None,
) -> Verdict:
    """Judge a run by its elements.

    Parameters
    ----------
    statuses : sequence of ElementStatus
        Every element of the run but its inspection.
    planned : bool
        Whether the run's plan was completed.
    quorum : float
        Share of the groups, in [0, 1], that must succeed; groups without their input do not count,
        but a run in which nothing succeeded is never good.
    cause : str, optional
        Why there is no plan, where that is known.
    """
    by_group: dict[str, list[ElementStatus]] = defaultdict(list)
    for status in statuses:
        by_group[status.group].append(status)
    groups = tuple(_judge_group(name, members) for name, members in by_group.items())
    if not planned:
        why = f": {cause}" if cause else ": see the tasks open, inspect and plan"
        return Verdict(False, f"the run has no completed plan{why}", groups)
    counts = {
        s: sum(g.state == s for g in groups) for s in ("succeeded", "failed", "missing_input")
    }
    judged = counts["succeeded"] + counts["failed"]
    good = counts["succeeded"] > 0 and counts["succeeded"] >= quorum * judged - 1e-9
    summary = (
        f"{counts['succeeded']} of {judged} succeeded (quorum {quorum:.1%}),"
        f" {counts['failed']} failed, {counts['missing_input']} without their input"
    )
    return Verdict(good, summary, groups)


def give_verdict(
    db: Database, run_id: str, *, quorum: float = 1.0, leave_cancelled: bool = False
) -> Verdict:
    """Judge a run, record how it ended, and do what its workflow does at the end.

    With ``leave_cancelled`` a run that somebody has cancelled meanwhile stays so in the record.

    The verdict stands whatever becomes of that last part: a failure is logged and recorded.
    """
    run = runs.read_run(db, run_id)
    statuses = sort_statuses(load_workflow(run.workflow), runs.read_status(db, run.id))
    inspections = [s for s in statuses if s.group == INPUTS]
    verdict = judge(
        [s for s in statuses if s.group != INPUTS],
        planned=run.planned_at is not None,
        quorum=quorum,
        cause=next((_why(s) for s in inspections if s.state not in GOOD), None),
    )
    if leave_cancelled and run.state is RunState.CANCELLED:
        return replace(verdict, good=False, summary=f"cancelled: {verdict.summary}")
    state = RunState.SUCCEEDED if verdict.good else RunState.FAILED
    runs.end_run(db, run.id, state, verdict.summary)
    _conclude(db, run.id, verdict)
    return verdict


def sort_statuses(
    workflow: Workflow | None, statuses: Iterable[ElementStatus]
) -> list[ElementStatus]:
    """Bring elements into the order of group and step, the final steps last."""
    steps, final_steps = (workflow.steps, workflow.final_steps) if workflow else ((), ())

    def rank(status: ElementStatus) -> tuple[bool, str, int]:
        number = steps.index(status.step) if status.step in steps else -1
        return status.step in final_steps, status.group, number

    return sorted(statuses, key=rank)


def _conclude(db: Database, run_id: str, verdict: Verdict) -> None:
    run = runs.read_run(db, run_id)
    conclude = load_workflow(run.workflow).conclude
    if conclude is None:
        return
    try:
        load_named(conclude)(db, run, verdict)
    except (MusterError, OSError) as error:
        told = f"the verdict stands, but what follows it failed: {error}"
        log.warning("%s", told)
        with contextlib.suppress(StoreUnavailable):  # which may be what has just failed
            runs.record_event(db, run_id, "conclude", told)


def _why(status: ElementStatus) -> str:
    return status.message or status.reason or status.state


def _judge_group(name: str, members: Sequence[ElementStatus]) -> GroupVerdict:
    states: dict[str, str] = {}
    for member in members:  # of several elements of a step, one that is not good speaks for it
        if states.get(member.step) is None or states[member.step] in GOOD:
            states[member.step] = member.state
    reasons = tuple(dict.fromkeys(_why(member) for member in members if member.state not in GOOD))
    if all(state in GOOD for state in states.values()):
        state = "succeeded"
    elif all(s in GOOD or s == Outcome.MISSING_INPUT for s in states.values()):
        state = "missing_input"
    else:
        state = "failed"
    return GroupVerdict(name, state, states, reasons)
