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
from typing import TYPE_CHECKING, Any

from pydantic import AwareDatetime, Field

from muster.frozen import Frozen

if TYPE_CHECKING:
    from collections.abc import Iterable

BAND_NAME = r"[A-Za-z0-9_.]+-[0-9a-f]{16}\.tif"
"""File name of a raster that is kept by what it is made from, for Python and for Postgres."""


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
    """

    step: str
    name: str
    group: str
    decision: Decision
    reason: str
    inputs: dict[str, Any] = {}
    outputs: dict[str, str] = {}
    needs_store: bool = False


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
    made_at : datetime
        Tells a new inspection from the same plan read again.
    """

    workflow: str
    elements: tuple[PlannedElement, ...]
    facts: dict[str, Any] = {}
    products: dict[str, str] = {}
    cached: tuple[str, ...] | None = None
    made_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))

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
