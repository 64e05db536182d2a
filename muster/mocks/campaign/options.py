"""Options of the simulation suite and parameters of the galaxy model, checked by their own models.

Neither the suite's nor the model's packages need be installed for that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from muster.config import ConfigProblem
from muster.errors import ConfigError
from muster.mocks.galaxies.model import load_model, model_names
from muster.mocks.halos.source import LimitsRedshifts, load_source, source_names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class Named(Protocol):
    """What of the block science names a suite and a model, with their options."""

    @property
    def simulation_suite(self) -> str:
        """The suite."""

    @property
    def box(self) -> Mapping[str, Any]:
        """Its options."""

    @property
    def galaxy_model(self) -> str:
        """The galaxy model."""

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Its parameters."""


@dataclass(frozen=True)
class NamedOptions:
    """Names and options out of a block that is wrong elsewhere."""

    simulation_suite: str
    box: Mapping[str, Any]
    galaxy_model: str
    parameters: Mapping[str, Any]

    @classmethod
    def read(cls, science: Any) -> NamedOptions | None:
        """Return what a block says; None where these keys are wrong themselves."""
        if not isinstance(science, dict):
            return None
        suite, model = science.get("simulation_suite"), science.get("galaxy_model")
        box, parameters = science.get("box", {}), science.get("parameters", {})
        if not (isinstance(suite, str) and isinstance(model, str)):
            return None
        if not (isinstance(box, dict) and isinstance(parameters, dict)):
            return None
        return cls(suite, box, model, parameters)


def find_option_problems(science: Named) -> list[ConfigProblem]:
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
            problems += _place(("science", inner), load(name, options))
        except _Unknown:
            known = ", ".join(names())
            problems.append(ConfigProblem(("science", key), "wrong", "unknown", repr(name), known))
        except ConfigError as error:
            found = [p for p in error.problems if isinstance(p, ConfigProblem)]
            problems += _place(
                ("science", inner), found or [ConfigProblem((), "wrong", str(error))]
            )
    return problems


def find_redshift_problems(suite: str, redshifts: Sequence[float]) -> list[ConfigProblem]:
    """List the redshifts that a suite says it cannot make; nothing of an unknown suite."""
    try:
        source = load_source(suite)
    except ConfigError:
        return []
    if not isinstance(source, LimitsRedshifts):
        return []
    found = ((n, z, source.find_redshift_problem(z)) for n, z in enumerate(redshifts))
    return [
        ConfigProblem(("science", "redshifts", str(n)), "wrong", problem, str(z))
        for n, z, problem in found
        if problem is not None
    ]


class _Unknown(Exception):
    """There is no suite or model of that name."""


def _parse_box(name: str, options: Mapping[str, Any]) -> list[ConfigProblem]:
    return _find_coerced(options, _load(load_source, name).parse_options(options))


def _parse(name: str, options: Mapping[str, Any]) -> list[ConfigProblem]:
    return _find_coerced(options, _load(load_model, name).parse(options))


def _find_coerced(given: Any, parsed: Any, path: tuple[str, ...] = ()) -> list[ConfigProblem]:
    """List texts and flags that were taken for numbers, and what was taken for flags.

    The models of suites and galaxy models, those of other packages too, may be lenient; a campaign
    file is not.  A text that is no number itself, as that of a size or a time, may become one.
    """
    if isinstance(given, dict):
        if isinstance(parsed, dict):
            pairs = [(key, parsed.get(key)) for key in given]
        else:
            pairs = [(key, getattr(parsed, str(key), None)) for key in given]
        return [
            problem
            for key, value in pairs
            for problem in _find_coerced(given[key], value, (*path, str(key)))
        ]
    if isinstance(given, list | tuple) and isinstance(parsed, list | tuple):
        return [
            problem
            for position, (item, value) in enumerate(zip(given, parsed, strict=False))
            for problem in _find_coerced(item, value, (*path, str(position)))
        ]
    if isinstance(parsed, bool):
        wanted = None if isinstance(given, bool) else "should be true or false"
    elif isinstance(parsed, int | float):
        is_number = not isinstance(given, bool) and not _is_quoted_number(given)
        wanted = None if is_number else "should be a number"
    else:
        wanted = None
    return [] if wanted is None else [ConfigProblem(path, "wrong", wanted, repr(given))]


def _is_quoted_number(given: Any) -> bool:
    try:
        return isinstance(given, str) and math.isfinite(float(given))
    except ValueError:
        return False


def _load(load: Callable[[str], Any], name: str) -> Any:
    try:
        return load(name)
    except ConfigError as error:
        raise _Unknown from error


def _place(path: tuple[str, ...], problems: list[ConfigProblem]) -> list[ConfigProblem]:
    """Put the problems of a part where the part stands."""
    return [replace(problem, path=(*path, *problem.path)) for problem in problems]
