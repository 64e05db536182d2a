"""What a run has come to, by its groups or elements: one pure judgement over the store's record."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from muster.errors import MusterError, StoreUnavailable
from muster.imports import load_named
from muster.jobs.planning.workflow import load_workflow
from muster.model.outcome import Outcome
from muster.model.plan import Decision
from muster.store import runs
from muster.store.records import RunState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from muster.jobs.planning.workflow import Workflow
    from muster.store.database import Database
    from muster.store.records import Run
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
class OutcomeClass:
    """Elements of a step that ended alike, and the first of them as an example."""

    step: str
    state: str
    count: int
    example: str
    message: str | None

    def describe(self) -> str:
        """Say it in one line."""
        if self.state in GOOD:
            return f"{self.step}: {self.count} {self.state}"
        why = f", {self.message}" if self.message else ""
        return f"{self.step}: {self.count} {self.state}, such as {self.example}{why}"


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
        By name; none where the elements are judged.
    classes : tuple of OutcomeClass
        Step by step; none where the groups are judged.
    """

    good: bool
    summary: str
    groups: tuple[GroupVerdict, ...] = ()
    classes: tuple[OutcomeClass, ...] = ()

    def describe(self) -> str:
        """Say it group by group, or class by class, the summary last."""
        groups = [group.describe() for group in self.groups]
        return "\n".join([*groups, *(one.describe() for one in self.classes), self.summary])


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
        return Verdict(False, _unplanned(cause), groups)
    good, summary = _count_states(Counter(group.state for group in groups), quorum)
    return Verdict(good, summary, groups)


def judge_elements(
    statuses: Sequence[ElementStatus],
    counted: Collection[str],
    *,
    planned: bool,
    quorum: float = 1.0,
    cause: str | None = None,
) -> Verdict:
    """Judge a run by its elements, whatever groups they are in.

    Parameters
    ----------
    statuses, planned, cause
        As of :func:`judge`.
    counted : collection of str
        Steps whose elements the quorum counts.
    quorum : float
        Share of those elements, in [0, 1], that must succeed; what has no input does not count,
        but a run in which nothing succeeded is never good.  A failure in another step is one of
        the run.
    """
    members: dict[tuple[str, str], list[ElementStatus]] = defaultdict(list)
    for status in statuses:
        members[status.step, status.state].append(status)
    classes = tuple(
        OutcomeClass(step, state, len(found), found[0].name, _why_not(found[0]))
        for (step, state), found in members.items()
    )
    if not planned:
        return Verdict(False, _unplanned(cause), classes=classes)
    states: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for one in classes:
        kind = "succeeded" if one.state in GOOD else one.state
        if one.step not in counted:
            others[one.step] += one.count if kind not in ("succeeded", "missing_input") else 0
        elif one.state != Decision.NOT_ASKED:
            states[kind if kind in ("succeeded", "missing_input") else "failed"] += one.count
    good, summary = _count_states(states, quorum)
    failed = [f"{count} of {step} failed" for step, count in others.items() if count]
    return Verdict(good and not failed, "; ".join([summary, *failed]), classes=classes)


def give_verdict(
    db: Database, run_id: str, *, quorum: float | None = None, leave_cancelled: bool = False
) -> Verdict:
    """Judge a run, record how it ended, and do what its workflow does at the end.

    With ``leave_cancelled`` a run that somebody has cancelled meanwhile stays so in the record.

    The verdict stands whatever becomes of that last part: a failure is logged and recorded.

    Parameters
    ----------
    quorum : float, optional
        As of :func:`judge`; by default what the run's own params say, or all.
    """
    run = runs.read_run(db, run_id)
    workflow = load_workflow(run.workflow)
    statuses = sort_statuses(workflow, runs.read_status(db, run.id))
    inspections = [s for s in statuses if s.group == INPUTS]
    others = [s for s in statuses if s.group != INPUTS]
    cause = next((_why(s) for s in inspections if s.state not in GOOD), None)
    planned = run.planned_at is not None
    least = read_quorum(run) if quorum is None else quorum
    if workflow.judged == "element":
        verdict = judge_elements(
            others, workflow.judged_steps, planned=planned, quorum=least, cause=cause
        )
    else:
        verdict = judge(others, planned=planned, quorum=least, cause=cause)
    if leave_cancelled and run.state is RunState.CANCELLED:
        return replace(verdict, good=False, summary=f"cancelled: {verdict.summary}")
    state = RunState.SUCCEEDED if verdict.good else RunState.FAILED
    runs.end_run(db, run.id, state, verdict.summary)
    _conclude(db, run.id, verdict)
    return verdict


def read_quorum(run: Run) -> float:
    """Return the success quorum that a run's own params say, in [0, 1]; 1 where they say none."""
    said = run.params.get("quorum")
    if not isinstance(said, int | float) or isinstance(said, bool) or not 0 <= said <= 1:
        return 1.0
    return float(said)


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


def _unplanned(cause: str | None) -> str:
    why = f": {cause}" if cause else ": see the tasks open, inspect and plan"
    return f"the run has no completed plan{why}"


def _count_states(states: Mapping[str, int], quorum: float) -> tuple[bool, str]:
    """Say whether the quorum is reached, and in one line how many succeeded."""
    succeeded, failed = states.get("succeeded", 0), states.get("failed", 0)
    judged = succeeded + failed
    good = succeeded > 0 and succeeded >= quorum * judged - 1e-9
    return good, (
        f"{succeeded} of {judged} succeeded (quorum {quorum:.1%}),"
        f" {failed} failed, {states.get('missing_input', 0)} without their input"
    )


def _why_not(status: ElementStatus) -> str | None:
    return None if status.state in GOOD else status.message or status.reason


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
