"""The page of a report: a story in, one whole HTML document out, and nothing asked of anybody.

Everything is escaped, since names and messages are anybody's text.  The page holds its style and
its pictures itself, and a policy of its own forbids the browser to fetch or run anything.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import jinja2

from muster.errors import SoftwareError
from muster.jobs.runs.verdict import GOOD, INPUTS
from muster.model.outcome import Outcome
from muster.report import formats
from muster.report.read import UNFINISHED
from muster.report.sums import list_engines, list_failures, sum_steps

if TYPE_CHECKING:
    from collections.abc import Callable

    from muster.report.read import RunStory

_Item = TypeVar("_Item")

TEMPLATE = "report/report.html.j2"
MOST_ATTEMPTS = 2000
"""How many attempts are listed one by one; their sums hold all of them."""

MOST_ELEMENTS = 2000
MOST_FAILURES = 500
"""How many elements and failures are listed; a campaign has 40,000, which no browser shows."""

SHOWN_FAILURES = 10
"""How many failures are told in the open; the rest is folded."""

# What is wrong with a template comes out as whatever Python says of the expression in it.
_TEMPLATE_ERRORS = (
    jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError,
)  # fmt: skip


def render_report(story: RunStory, template: str = TEMPLATE, **more: Any) -> str:
    """Render a run's report.

    Parameters
    ----------
    story : RunStory
        The run.
    template : str
        Path of the template within the package.
    more
        What a workflow's own template knows beside the story; ``params`` are the run's parameters
        in an order for people.

    Raises
    ------
    SoftwareError
        When the template is wrong.
    """
    attempts = [(element, attempt) for element in story.elements for attempt in element.attempts]
    sums = sum_steps(story)
    # What has no input is nobody's failure: it is told after the others.
    failures = sorted(list_failures(story), key=lambda f: f.state == Outcome.MISSING_INPUT)
    elements = [element for element in story.elements if element.group != INPUTS]
    try:
        return (
            _environment()
            .get_template(template)
            .render(
                story=story,
                run=story.run,
                sums=sums,
                planned=[s for s in sums if s.step in {e.step for e in elements}],
                elements=_list_some(elements, MOST_ELEMENTS, lambda e: e.state in GOOD),
                element_count=len(elements),
                failures=failures[:MOST_FAILURES],
                failure_count=len(failures),
                shown_failures=SHOWN_FAILURES,
                attempts=_list_some(
                    attempts, MOST_ATTEMPTS, lambda pair: pair[1].outcome == Outcome.SUCCEEDED
                ),
                attempt_count=len(attempts),
                **{"params": story.run.params, **more},
            )
        )
    except _TEMPLATE_ERRORS as error:
        raise SoftwareError(
            "the report cannot be rendered",
            where=template,
            got=f"{type(error).__name__}: {error}",
        ) from error


def _list_some(items: list[_Item], most: int, is_good: Callable[[_Item], bool]) -> list[_Item]:
    """Return the items, or where there are too many those first that somebody will look for."""
    return items if len(items) <= most else sorted(items, key=is_good)[:most]


def tone(state: str) -> str:
    """Name the colour that a state is shown in."""
    if state in GOOD:
        return "good" if state == "succeeded" else "quiet"
    if state in UNFINISHED or state in ("open", "planned"):
        return "going"
    return "absent" if state == Outcome.MISSING_INPUT else "bad"


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("muster", package_path=""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "time": formats.format_time,
        "iso": formats.format_iso,
        "hours": formats.format_hours,
        "done": formats.format_done,
        "seconds": formats.format_seconds,
        "mib": formats.format_mib,
        "number": formats.format_number,
        "share": formats.format_share,
        "state": formats.format_state,
        "step": formats.format_step,
        "facts": formats.format_facts,
        "value": formats.format_value,
        "engines": list_engines,
        "tone": tone,
    }
    return environment
