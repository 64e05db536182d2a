"""Names of a campaign and of its catalogues.

A naming scheme is a text with fields in braces.  It is parsed here and never handed to
``str.format`` as it stands: that would let a file read attributes of objects.
"""

from __future__ import annotations

import re
import string
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DEFAULT_SCHEME = "mock_z{redshift:.3f}"
SUFFIX = ".hdf5"
LONGEST_NAME = 120
FIELDS: dict[str, re.Pattern[str]] = {
    "cosmology": re.compile(""),
    "phase": re.compile(""),
    "realization": re.compile(r"(0[1-9])?d?"),
    "redshift": re.compile(r"(0[1-9]\d?)?(\.\d{1,2})?[feg]?"),
}
"""Field → the formats that it may have."""

_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*")


@lru_cache(maxsize=64)
def parse_scheme(scheme: str) -> tuple[tuple[str, str | None, str], ...]:
    """Take a naming scheme apart.

    Returns
    -------
    tuple of (str, str or None, str)
        Text, the field after it, and the field's format; the field is None at the end.

    Raises
    ------
    ValueError
        When a field or format is not allowed, or a brace has no partner.
    """
    parts: list[tuple[str, str | None, str]] = []
    for text, field, spec, conversion in string.Formatter().parse(scheme):
        if field is not None:
            if field not in FIELDS:
                raise ValueError(
                    f"unknown field {{{field}}}; allowed are "
                    f"{', '.join('{' + name + '}' for name in FIELDS)}"
                )
            if conversion or not FIELDS[field].fullmatch(spec or ""):
                raise ValueError(
                    f"{{{field}}} has a format that is not allowed: "
                    + ("it takes none" if field in ("cosmology", "phase") else _EXAMPLES[field])
                )
        parts.append((text, field, spec or ""))
    return tuple(parts)


_EXAMPLES = {
    "realization": "as in {realization:04d}",
    "redshift": "as in {redshift:.3f} or {redshift:06.3f}",
}


def check_scheme(scheme: str) -> str:
    """Refuse a scheme that names no file.

    Raises
    ------
    ValueError
        Says which part is wrong.
    """
    parts = parse_scheme(scheme)
    text = "".join(part[0] for part in parts)
    if scheme.endswith((SUFFIX, ".h5")):
        raise ValueError(f"ends in a suffix: leave it out, {SUFFIX} is appended")
    if not re.fullmatch(r"[A-Za-z0-9._+-]*", text) or scheme.startswith("."):
        raise ValueError("may hold letters, digits, _ . + - and fields in braces; no . in front")
    return scheme


def fill_scheme(scheme: str, values: Mapping[str, str | int | float]) -> str:
    """Name a catalogue's file.

    Parameters
    ----------
    scheme : str
        As :func:`check_scheme` accepts it.
    values : mapping
        ``cosmology``, ``phase``, ``realization``, ``redshift``.

    Raises
    ------
    ValueError
        When a field has no value, or the name would be no plain file name.
    """
    name = ""
    for text, field, spec in parse_scheme(scheme):
        name += text
        if field is not None:
            if field not in values:
                raise ValueError(f"the box says no {field}, so that {{{field}}} has no value")
            name += format(values[field], spec)
    if not _SAFE.fullmatch(name) or len(name) > LONGEST_NAME:
        raise ValueError(
            f"names a file {name[:60]!r}: letters, digits, _ . + - and at most {LONGEST_NAME} "
            "characters make a name"
        )
    return name + SUFFIX


def find_clash(scheme: str, values: Iterable[Mapping[str, str | int | float]]) -> str | None:
    """Say which two redshifts of one realization would have the same file; None where none do.

    Parameters
    ----------
    values : iterable of mapping
        The fields of each redshift.
    """
    seen: dict[str, str | int | float] = {}
    for fields in values:
        name, redshift = fill_scheme(scheme, fields), fields["redshift"]
        if name in seen:
            return f"does not tell redshifts apart: {seen[name]} and {redshift} are both {name}"
        seen[name] = redshift
    return None


def slug(name: str) -> str:
    """Make a campaign's name safe in a path: lower case, other characters _."""
    return re.sub(r"[^a-z0-9]", "_", name.lower())


def campaign_label(version: str, name: str) -> str:
    """Name a campaign's folder: VERSION_NAME."""
    return f"{version}_{slug(name)}"
