"""A third workflow, as any package may add one: the words of texts, counted, checked and summed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from muster import storage
from muster.config import SizeMib, parse_config
from muster.errors import InvalidInput
from muster.jobs.planning.inspection import inspect_items, write_plan
from muster.jobs.planning.params import OneOrMore, RunParams, find_relative
from muster.jobs.planning.workflow import NoInterval, Workflow
from muster.model.plan import Decision, PlannedElement
from muster.model.step import StepContext

WORKFLOW = Workflow(
    name="census",
    inspect="census.inspect",
    stages=(("census.count",), ("census.check",)),
    needs=("census.count",),
    final_steps=("census.total",),
    params="muster_test_census:CensusParams",
    interval=NoInterval("a text has no date: start it once by hand"),
    noun="text",
)


class CensusParams(RunParams):
    """Parameters of a census.

    Attributes
    ----------
    texts : tuple of str
        Files, one a line.
    folder : str
        Where the counts go.
    least_words : int
        A text with fewer is wrong.
    longest : int
        A longer text is refused.
    """

    texts: Annotated[tuple[str, ...], OneOrMore, Field(min_length=1)]
    folder: str
    least_words: Annotated[int, Field(ge=0)] = 1
    longest: SizeMib = 1

    def relative_locations(self) -> list[str]:
        return find_relative([*self.texts, self.folder])


def inspect_texts(
    *,
    params: dict[str, Any],
    plan: Path,
    bands: str = "",
    gpus: dict[str, int] | None = None,
    context: StepContext = StepContext(),  # noqa: B008 - frozen
) -> dict[str, Any]:
    checked = parse_config(CensusParams, params, "params of census")
    folder = checked.folder

    def plan_text(uri: str) -> list[PlannedElement]:
        if storage.stat(uri).bytes > checked.longest << 20:
            raise InvalidInput("text is too long", where=uri, expected=f"{checked.longest} MiB")
        name = Path(uri).stem
        counted, right = f"{folder}/{name}.json", f"{folder}/{name}.right"
        return [
            element("count", name, inputs={"source": uri}, outputs={"counted": counted}),
            element(
                "check",
                name,
                inputs={"source": counted, "least": checked.least_words},
                outputs={"right": right},
            ),
        ]

    def refuse_text(uri: str, decision: Decision, reason: str) -> list[PlannedElement]:
        return [element(step, Path(uri).stem, decision, reason) for step in ("count", "check")]

    elements = inspect_items(checked.texts, plan_text, refuse_text, context)
    counts = [e.outputs["counted"] for e in elements if "counted" in e.outputs]
    total = f"{folder}/total.json"
    elements.append(element("total", "total", inputs={"counts": counts}, outputs={"total": total}))
    facts = {"texts": len(checked.texts)}
    return write_plan(plan, WORKFLOW.name, elements, facts, products={"total": total})


def element(
    step: str, name: str, decision: Decision = Decision.RUN, reason: str = "asked for", **more: Any
) -> PlannedElement:
    return PlannedElement(
        step=f"census.{step}", name=name, group=name, decision=decision, reason=reason, **more
    )


def count_words(*, source: str, counted: Path) -> dict[str, int]:
    words = len(storage.read_text(source).split())
    counted.write_text(json.dumps(words))
    return {"words": words}


def check_count(*, source: str, least: int, right: Path) -> None:
    words = json.loads(storage.read_text(source))
    if words < least:
        raise InvalidInput("too few words", where=source, got=words, expected=f"at least {least}")
    right.write_text("yes")


def sum_counts(*, counts: list[str], total: Path) -> None:
    total.write_text(json.dumps(sum(json.loads(storage.read_text(uri)) for uri in counts)))
