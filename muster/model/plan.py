"""plan.json: what a workflow's inspection found, and what is therefore to be run.

It is written by a step placed on a pool (looking at rasters is compute) and read by the side that
creates elements in the store.  It is the same for every workflow: a list of planned elements, each
with a decision and the reason for it.
"""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AwareDatetime, Field, SerializerFunctionWrapHandler, model_serializer

from muster.frozen import Frozen
from muster.model.coordinates import Coordinates
from muster.model.resources import PartialResources
from muster.model.retry_policy import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Iterable

BAND_NAME = r"[A-Za-z0-9_.]+-[0-9a-f]{16}\.tif"
"""File name of a raster that is kept by what it is made from, for Python and for Postgres."""

MOST_LINES = 1000
"""Lines that describe a plan at most, where it is told batch by batch and reason by reason."""


class Decision(StrEnum):
    """What the plan decided about an element."""

    RUN = "run"
    REUSED = "reused"
    MISSING_INPUT = "missing_input"
    INVALID_INPUT = "invalid_input"
    NOT_ASKED = "not_asked"


class PlannedElement(Frozen):
    """One element as planned.

    Attributes
    ----------
    step : str
        Dotted name of the step.
    name : str
        Name of the element.
    group : str
        What a person follows through the run (a trait); one mapped task group each.
    decision : Decision
        Whether it runs.
    reason : str
        Why, in a sentence for people.
    inputs, outputs : dict
        As in :class:`muster.model.batch.Element`.
    needs_store : bool
        Whether its job reads from Postgres or loads into it, and is told where that is.
    coordinates : Coordinates or None
        Where it stands, as columns of its record.
    resources : PartialResources or None
        What it asks for, where that is not what its step asks for.
    """

    step: str
    name: str
    group: str
    decision: Decision
    reason: str
    inputs: dict[str, Any] = {}
    outputs: dict[str, str] = {}
    needs_store: bool = False
    coordinates: Coordinates | None = None
    resources: PartialResources | None = None

    @model_serializer(mode="wrap")
    def _leave_out_none(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        said: dict[str, Any] = handler(self)
        for name in ("coordinates", "resources"):
            if getattr(self, name) is None:
                said.pop(name, None)
        return said


class PlannedPlacement(Frozen):
    """Where and how a plan's batches of a step run, where that is not the site's word.

    Attributes
    ----------
    step : str
        Dotted name of the step.
    group : str or None
        The only group that it is meant for; None for all that have none of their own.
    job_type : str or None
        One of the site's job types: its pool and resources take the place of the placement's.
    pool : str or None
        A pool of the site, before that of the job type.
    account : str or None
        Slurm account that is charged, in place of the pool's.
    resources : PartialResources or None
        What each element asks for, in place of the placement's or the job type's.
    retries : RetryPolicy or None
        Retry policy of the batches.
    array_size : int or None
        The most elements of one wave, and so of one Slurm array.
    pack : int or None
        Elements that one job of a cluster works through, in place of the pool's.
    slots : int or None
        The most elements of a batch that run at once, up to the pool's slots.
    """

    step: str
    group: str | None = None
    job_type: str | None = None
    pool: str | None = None
    account: Annotated[str, Field(min_length=1)] | None = None
    resources: PartialResources | None = None
    retries: RetryPolicy | None = None
    array_size: Annotated[int, Field(ge=1)] | None = None
    pack: Annotated[int, Field(ge=1)] | None = None
    slots: Annotated[int, Field(ge=1)] | None = None


class Plan(Frozen):
    """All elements of a run.

    Attributes
    ----------
    workflow : str
        Name of the workflow.
    elements : tuple of PlannedElement
        All, whatever was decided.
    facts : dict
        What the inspection learnt (grid, sizes).
    products : dict of str to str
        Group → URI of its product.
    cached : tuple of str, or None
        File names of all rasters in the workflow's cache that the run makes or reuses; None in a
        plan that was written before plans said so.
    placements : tuple of PlannedPlacement
        Placements that differ from the site's.
    made_at : datetime
        Tells a new inspection from the same plan read again.
    """

    workflow: str
    elements: tuple[PlannedElement, ...]
    facts: dict[str, Any] = {}
    products: dict[str, str] = {}
    cached: tuple[str, ...] | None = None
    placements: tuple[PlannedPlacement, ...] = ()
    made_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))

    @model_serializer(mode="wrap")
    def _leave_out_empty(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        said: dict[str, Any] = handler(self)
        if not self.placements:
            said.pop("placements", None)
        return said

    def placement_of(self, step: str, group: str) -> PlannedPlacement:
        """Return the placement of a step's batch in a group; an empty one where none is planned."""
        of_step = {p.group: p for p in self.placements if p.step == step}
        return of_step.get(group) or of_step.get(None) or PlannedPlacement(step=step)

    def cached_names(self) -> list[str]:
        """List the file names of cached rasters, which retention must leave alone."""
        if self.cached is None:
            return sorted(set(re.findall(BAND_NAME, self.model_dump_json())))
        return list(self.cached)


def count_decisions(elements: Iterable[PlannedElement]) -> dict[str, dict[str, int]]:
    """Count the decisions of each step."""
    counts: dict[str, Counter[str]] = {}
    for element in elements:
        counts.setdefault(element.step, Counter())[element.decision.value] += 1
    return {step: dict(sorted(counter.items())) for step, counter in counts.items()}


def describe_decisions(elements: Iterable[PlannedElement]) -> list[str]:
    """Describe what was decided: a line a group, step, decision and reason.

    Where these are too many, as with a file of its own that each element lacks, a line a step and
    decision, with the first reason.
    """
    alike: dict[tuple[str, str, str, str], list[str]] = {}
    for e in elements:
        names = alike.setdefault((e.group, e.step, e.decision.value, e.reason), [])
        names.append(e.name)
    if len(alike) <= MOST_LINES:
        return [_describe_alike(*kind, names) for kind, names in alike.items()]
    by_decision: dict[tuple[str, str], tuple[str, list[str]]] = {}
    for (_, step, decision, reason), names in alike.items():
        by_decision.setdefault((step, decision), (reason, []))[1].extend(names)
    return [
        f"{step}: {len(names)} {decision}, {names[0]}: {reason}"
        for (step, decision), (reason, names) in by_decision.items()
    ]


def _describe_alike(group: str, step: str, decision: str, reason: str, names: list[str]) -> str:
    line = f"{group} {step}: {decision}: {reason}"
    if len(names) > 1:
        return f"{line}; {len(names)} elements, the first is {names[0]}"
    return line if names[0] == group else f"{line}; {names[0]}"
