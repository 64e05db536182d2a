"""The story of a run as its report tells it: what was planned, tried, and came of it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import muster
from muster.errors import InvalidInput, MissingInput
from muster.jobs.planning.plan_run import read_plan
from muster.jobs.planning.workflow import find_workflow
from muster.jobs.runs.verdict import INPUTS, GroupVerdict, judge, sort_statuses
from muster.store import runs
from muster.store.history import TriedAttempt, read_tried
from muster.store.records import RunState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from muster.store.database import Database
    from muster.store.records import Run
    from muster.store.runs import ElementStatus

GOING = frozenset({RunState.OPEN, RunState.PLANNED})
"""States of a run that is not over."""

UNFINISHED = frozenset({"pending", "waiting", "running"})
"""States of an element that may still come to something."""


@dataclass(frozen=True)
class ElementStory:
    """One element of a run.

    Attributes
    ----------
    step, group, name : str
        What it is.
    state : str
        How it stands.
    reason : str or None
        Why it was to be run or not, by the plan; None where nothing says so any more.
    why : str or None
        What it said itself when it failed.
    attempts : tuple of TriedAttempt
        Oldest first.
    """

    step: str
    group: str
    name: str
    state: str
    reason: str | None
    why: str | None
    attempts: tuple[TriedAttempt, ...] = ()


@dataclass(frozen=True)
class RunStory:
    """All that is known of a run.

    Attributes
    ----------
    run : Run
        Its row.
    steps : tuple of str
        In the order in which they run.
    groups : tuple of GroupVerdict
        How each stands; one that is not over is ``running``.
    elements : tuple of ElementStory
        In the order of group and step, the inspection included.
    made_at : datetime
        When this was read, in UTC.
    version : str
        Muster's.
    """

    run: Run
    steps: tuple[str, ...]
    groups: tuple[GroupVerdict, ...]
    elements: tuple[ElementStory, ...]
    made_at: datetime
    version: str

    @property
    def going(self) -> bool:
        """Whether the run is not over."""
        return self.run.state in GOING

    @property
    def seconds(self) -> float:
        """How long it has taken, in seconds."""
        end = self.run.ended_at if not self.going else None
        return max(0.0, ((end or self.made_at) - self.run.created_at).total_seconds())

    @property
    def sentence(self) -> str:
        """What has come of it, in one sentence."""
        if not self.going:
            return self.run.message or f"the run is {self.run.state.value}"
        if self.run.planned_at is None:
            return "still going: its inputs are being looked at"
        over = sum(e.state not in UNFINISHED for e in self.elements)
        return f"still going: {over} of {len(self.elements)} elements are over"


def read_story(db: Database, run: Run) -> RunStory:
    """Read a run's story out of the store, and the plan's reasons while its plan is there."""
    workflow = find_workflow(run.workflow)
    steps = workflow.steps if workflow else ()
    statuses = sort_statuses(workflow, runs.read_status(db, run.id))
    return tell_story(run, steps, statuses, read_tried(db, run.id), _read_reasons(run))


def tell_story(
    run: Run,
    steps: Sequence[str],
    statuses: Sequence[ElementStatus],
    tried: Sequence[TriedAttempt],
    reasons: dict[tuple[str, str], str],
) -> RunStory:
    """Put together what was read.

    Parameters
    ----------
    run : Run
        The run.
    steps : sequence of str
        In their order.
    statuses : sequence of ElementStatus
        Every element, the inspection included.
    tried : sequence of TriedAttempt
        Every attempt, oldest first.
    reasons : dict
        (step, element) → why the plan decided as it did.
    """
    attempts: dict[tuple[str, str], list[TriedAttempt]] = defaultdict(list)
    for attempt in tried:
        attempts[attempt.step, attempt.element].append(attempt)
    elements = tuple(
        ElementStory(
            step=s.step,
            group=s.group,
            name=s.name,
            state=s.state,
            # Of what was not to be run, the store itself keeps the plan's reason.
            reason=reasons.get((s.step, s.name)) or (s.reason if s.batch_id is None else None),
            why=s.message or s.reason,
            attempts=tuple(attempts[s.step, s.name]),
        )
        for s in statuses
    )
    planned = run.planned_at is not None
    groups = judge([s for s in statuses if s.group != INPUTS], planned=planned).groups
    if run.state in GOING:
        groups = tuple(_while_going(group) for group in groups)
    return RunStory(run, tuple(steps), groups, elements, datetime.now(UTC), muster.__version__)


def _while_going(group: GroupVerdict) -> GroupVerdict:
    over = UNFINISHED.isdisjoint(group.steps.values())
    return group if over else replace(group, state="running", reasons=())


def _read_reasons(run: Run) -> dict[tuple[str, str], str]:
    if run.planned_at is None:
        return {}
    try:
        plan = read_plan(run)
    except (MissingInput, InvalidInput):
        return {}  # work directories are not kept for ever
    return {(e.step, e.name): e.reason for e in plan.elements}
