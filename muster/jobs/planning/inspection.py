"""The skeleton of an inspection: item by item a decision or a clear error, then plan.json."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from muster.errors import ConfigError, InvalidInput, MissingInput
from muster.model.plan import Decision, Plan, PlannedElement, count_decisions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from muster.errors import MusterError
    from muster.model.coordinates import Coordinates
    from muster.model.plan import PlannedPlacement
    from muster.model.step import StepContext

Elements = list[PlannedElement]


def inspect_items(
    names: Sequence[str],
    plan_item: Callable[[str], Elements],
    refuse_item: Callable[[str, Decision, str], Elements],
    context: StepContext,
    *,
    own_errors: tuple[type[MusterError], ...] = (InvalidInput, ConfigError),
    locate: Callable[[str], Coordinates] | None = None,
) -> Elements:
    """Plan each item of a run; what is wrong with one is said in its own elements.

    Parameters
    ----------
    names : sequence of str
        Of the items.
    plan_item : callable
        ``plan_item(name)``: the elements of an item, by what is there.
    refuse_item : callable
        ``refuse_item(name, decision, reason)``: its elements where it cannot be computed.
    context : StepContext
        Progress.
    own_errors : tuple of type
        Errors that concern the item alone, beside MissingInput; others end the inspection.
    locate : callable, optional
        ``locate(name)``: coordinates of an item's elements.
    """
    elements: Elements = []
    for number, name in enumerate(names):
        context.progress(number / len(names), f"inspecting {name}")
        try:
            planned = plan_item(name)
        except MissingInput as error:
            planned = refuse_item(name, Decision.MISSING_INPUT, str(error))
        except own_errors as error:
            planned = refuse_item(name, Decision.INVALID_INPUT, str(error))
        if locate is not None:
            where = {"coordinates": locate(name)}
            planned = [element.model_copy(update=where) for element in planned]
        elements += planned
    return elements


def write_plan(
    path: Path,
    workflow: str,
    elements: Elements,
    facts: dict[str, Any],
    *,
    products: dict[str, str],
    cached: Sequence[str] = (),
    placements: Sequence[PlannedPlacement] = (),
) -> dict[str, Any]:
    """Write plan.json, and return the facts of the inspection with its decisions.

    Parameters
    ----------
    facts : dict
        What the inspection learnt.
    products, cached, placements
        As of :class:`muster.model.plan.Plan`.
    """
    facts = {**facts, "decisions": count_decisions(elements)}
    plan = Plan(
        workflow=workflow,
        elements=tuple(elements),
        facts=facts,
        products=products,
        cached=tuple(sorted(set(cached))),
        placements=tuple(placements),
    )
    path.write_text(plan.model_dump_json(indent=1))
    return facts
