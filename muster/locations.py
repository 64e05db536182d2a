"""Locations with placeholders: where a trait's bundle lies, and where a year's products go.

One string has to serve all traits and all years of a backfill, so it may hold ``{trait}``,
``{year}``, ``{month}`` and more; a typing error in it must be found before a run starts.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from muster import storage
from muster.errors import ConfigError, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

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
                do="give the run an interval (interval_start and interval_end; --year, and --month "
                "where it is of a month, on the command line), or name the location without it"
                if match[1] in ("year", "month")
                else None,
            )
        return value

    return _PLACEHOLDER.sub(value_of, location)


def beside(folder: Path, location: str) -> str:
    """Take a relative location as relative to a folder; others stay as they are."""
    try:
        path = storage.local_path(location)
    except InvalidInput:
        return location  # who checks it says what is wrong with it
    if "://" in location or path is None or path.is_absolute():
        return location
    # The end stays: "rasters/" means what lies in the folder.
    return os.path.normpath(folder / path) + ("/" if location.endswith("/") else "")
