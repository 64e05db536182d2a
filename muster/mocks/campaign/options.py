"""Options of the simulation suite and parameters of the galaxy model, checked by their own models.

Neither the suite's nor the model's packages need be installed for that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from muster.config import ConfigProblem
from muster.errors import ConfigError
from muster.mocks.galaxies.model import load_model, model_names
from muster.mocks.halos.source import load_source, source_names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from muster.mocks.campaign.science import Science


def find_option_problems(science: Science) -> list[ConfigProblem]:
    """List what is wrong with simulation_suite, box, galaxy_model and parameters."""
    problems: list[ConfigProblem] = []
    for key, name, inner, options, load, names in (
        (
            "simulation_suite",
            science.simulation_suite,
            "box",
            science.box,
            _parse_box,
            source_names,
        ),
        (
            "galaxy_model",
            science.galaxy_model,
            "parameters",
            science.parameters,
            _parse,
            model_names,
        ),
    ):
        try:
            load(name, options)
        except _Unknown:
            known = ", ".join(names())
            problems.append(ConfigProblem(("science", key), "wrong", "unknown", repr(name), known))
        except ConfigError as error:
            problems += _place(("science", inner), error)
    return problems


class _Unknown(Exception):
    """There is no suite or model of that name."""


def _parse_box(name: str, options: Mapping[str, Any]) -> None:
    _load(load_source, name).parse_options(options)


def _parse(name: str, options: Mapping[str, Any]) -> None:
    _load(load_model, name).parse(options)


def _load(load: Callable[[str], Any], name: str) -> Any:
    try:
        return load(name)
    except ConfigError as error:
        raise _Unknown from error


def _place(path: tuple[str, ...], error: ConfigError) -> list[ConfigProblem]:
    """Put the problems of a part where the part stands."""
    found = [problem for problem in error.problems if isinstance(problem, ConfigProblem)]
    if not found:
        return [ConfigProblem(path, "wrong", str(error))]
    return [
        ConfigProblem(
            (*path, *problem.path), problem.kind, problem.message, problem.got, problem.expected
        )
        for problem in found
    ]
