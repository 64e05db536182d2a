"""Options of the simulation suite and parameters of the galaxy model, checked by their own models.

Neither the suite's nor the model's packages need be installed for that.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from muster.config import ConfigProblem, render_value
from muster.errors import ConfigError
from muster.mocks.galaxies.model import MODEL_REGISTRY, load_model, split_model_name
from muster.mocks.halos.source import SOURCE_REGISTRY, LimitsRedshifts, load_source

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from muster.entry_points import Registry
    from muster.frozen import Frozen


_KINDS = re.compile(r"should be (?:a valid |a whole |a )?(integer|number|boolean|true)\b")
"""What is said of a text where a number or a flag is wanted."""


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
    suite, model = science.simulation_suite, science.galaxy_model
    registered, _ = split_model_name(model)
    return [
        *(
            _find_name_problems("simulation_suite", suite, SOURCE_REGISTRY)
            or _find_wrong("box", science.box, load_source(suite).parse_options)
        ),
        *(
            _find_name_problems("galaxy_model", registered, MODEL_REGISTRY)
            or _find_wrong("parameters", science.parameters, load_model(model).parse)
        ),
    ]


def _find_name_problems(key: str, name: str, registry: Registry[Any]) -> list[ConfigProblem]:
    if name not in registry:
        known = ", ".join(registry.names())
        return [ConfigProblem(("science", key), "wrong", "unknown", repr(name), known)]
    try:
        registry.load(name)
    except ConfigError as error:
        return [ConfigProblem(("science", key), "wrong", str(error))]
    return []


def _find_wrong(
    key: str, options: Mapping[str, Any], parse: Callable[[Mapping[str, Any]], Frozen]
) -> list[ConfigProblem]:
    try:
        found = _find_coerced(options, parse(options))
    except ConfigError as error:
        own = _config_problems(error)
        found = own or [ConfigProblem((), "wrong", str(error))]
        found += _find_coerced_beside(options, parse, {problem.path for problem in found})
    return _place(("science", key), found)


def _config_problems(error: ConfigError) -> list[ConfigProblem]:
    return [problem for problem in error.problems if isinstance(problem, ConfigProblem)]


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
        return _find_other(given, path, flag=True)
    return _find_other(given, path, flag=False) if isinstance(parsed, int | float) else []


def _find_other(given: Any, path: tuple[str, ...], *, flag: bool) -> list[ConfigProblem]:
    """Say that a value is none of the flags, or numbers, that are taken at its place."""
    if flag:
        right, wanted = isinstance(given, bool), "should be true or false"
    else:
        right = not isinstance(given, bool) and not _is_quoted_number(given)
        wanted = "should be a number"
    return [] if right else [ConfigProblem(path, "wrong", wanted, render_value(given))]


def _find_coerced_beside(
    options: Mapping[str, Any],
    parse: Callable[[Mapping[str, Any]], Frozen],
    told: Collection[tuple[str, ...]],
) -> list[ConfigProblem]:
    """List what :func:`_find_coerced` does, of options that are wrong elsewhere.

    Nothing was made of them that would show what is wanted at a place.  A text in the place of each
    value shows it: a number and a flag are asked for in their own words.
    """
    try:
        parse(_put_texts(options))
    except ConfigError as error:
        asked = [problem for problem in _config_problems(error) if problem.path not in told]
    else:
        return []
    return [
        other
        for problem in asked
        if (kind := _KINDS.match(problem.message)) is not None
        for other in _find_other(
            _value_at(options, problem.path), problem.path, flag=kind[1] in ("true", "boolean")
        )
    ]


def _put_texts(given: Any) -> Any:
    if isinstance(given, dict):
        return {key: _put_texts(value) for key, value in given.items()}
    return [_put_texts(item) for item in given] if isinstance(given, list) else "no number"


def _value_at(options: Any, path: Sequence[str]) -> Any:
    """Return the value at a path, or what the path ends in before."""
    for part in path:
        if isinstance(options, dict) and part in options:
            options = options[part]
        elif isinstance(options, list) and part.isdigit() and int(part) < len(options):
            options = options[int(part)]
        else:
            break
    return options


def _is_quoted_number(given: Any) -> bool:
    try:
        return isinstance(given, str) and math.isfinite(float(given))
    except ValueError:
        return False


def _place(path: tuple[str, ...], problems: list[ConfigProblem]) -> list[ConfigProblem]:
    """Put the problems of a part where the part stands."""
    return [replace(problem, path=(*path, *problem.path)) for problem in problems]
