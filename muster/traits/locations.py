"""Locations with placeholders: where a trait's bundle lies, and where a year's products go.

One string has to serve all traits and all years of a backfill, so it may hold ``{trait}``,
``{trait_set}``, ``{year}`` and ``{month}``; a typing error in it must be found before a run starts.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from muster.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


def find_placeholders(location: str) -> list[str]:
    """List the names of the placeholders in a location, in order."""
    return _PLACEHOLDER.findall(location)


def check_location(location: str, allowed: Collection[str]) -> list[str]:
    """List what is wrong with a location, in sentences."""
    if not location.strip():
        return ["location is empty"]
    problems = [
        f"unknown placeholder {{{name}}}, allowed are "
        f"{', '.join('{' + name + '}' for name in sorted(allowed))}"
        for name in find_placeholders(location)
        if name not in allowed
    ]
    if any(character in _PLACEHOLDER.sub("", location) for character in "{}"):
        problems.append("unbalanced brace")
    if any(ord(character) < 32 or ord(character) == 127 for character in location):
        problems.append("control character")
    return problems


def fill_location(location: str, values: Mapping[str, str | None]) -> str:
    """Put values for the placeholders of a location.

    Parameters
    ----------
    location : str
        As :func:`check_location` accepts it.
    values : mapping of str to str or None
        None where there is no value for the placeholder in this run.

    Raises
    ------
    ConfigError
        When a placeholder has no value.
    """

    def value_of(match: re.Match[str]) -> str:
        value = values.get(match[1])
        if value is None:
            raise ConfigError(
                f"no value for the placeholder {{{match[1]}}}",
                where=location,
                do="give the run an interval (interval_start and interval_end; --year on the "
                "command line), or name the location without it"
                if match[1] in ("year", "month")
                else None,
            )
        return value

    return _PLACEHOLDER.sub(value_of, location)


def locate_bundle(models: str, trait: str, values: Mapping[str, str | None] | None = None) -> str:
    """Say where a trait's bundle lies.

    Parameters
    ----------
    models : str
        Location of all bundles; where it does not hold ``{trait}``, the trait is the folder's
        name below it.
    trait : str
        The trait.
    values : mapping of str to str or None, optional
        Of the other placeholders.
    """
    if "trait" not in find_placeholders(models):
        models = models.rstrip("/") + "/{trait}"
    return fill_location(models, {**(values or {}), "trait": trait})
