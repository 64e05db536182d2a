"""Names of steps, and of the keyword arguments of their functions: both are stored in plans."""

from __future__ import annotations

import inspect

from muster.model.step import STEPS, load_step
from tests.unit.pins.golden_files import check_golden, check_literal

USER = "is stored in plans and batches, whose jobs call it by these keywords"


def describe(function: object) -> str:
    lines = []
    for parameter in inspect.signature(function).parameters.values():  # type: ignore[arg-type]
        default = "required" if parameter.default is parameter.empty else repr(parameter.default)
        if parameter.name == "context":
            default = type(parameter.default).__name__
        lines.append(f"  {parameter.kind.description} {parameter.name} = {default}\n")
    return "".join(lines)


def test_every_step_takes_the_keywords_that_plans_hold() -> None:
    table = "".join(f"{name}\n{describe(load_step(name))}" for name in sorted(STEPS))
    check_golden("steps.txt", table, USER)


def test_a_step_says_what_it_said_of_a_signature() -> None:
    """The table itself: each kind of parameter, and each default, is told apart."""

    def step(*, bundle: str, cov: float = 1e-6, **more: int) -> None: ...

    check_literal(
        "the table of signatures",
        describe(step),
        "  keyword-only bundle = required\n  keyword-only cov = 1e-06\n"
        "  variadic keyword more = required\n",
        USER,
    )
