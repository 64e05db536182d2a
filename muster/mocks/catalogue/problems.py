"""What is wrong with a catalogue: problems, and the report that lists them.  No NumPy, no h5py."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from muster import storage
from muster.storage import os_errors_at, parse_temporary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from muster.mocks.catalogue.layout import Layout
    from muster.mocks.galaxies.model import Expectation

INVALID_SUFFIX = ".invalid"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes
    ----------
    kind : str
        One of: unreadable, hostile, missing, unknown, kind, shape, unit, not_finite, outside_box,
        out_of_range, not_unique, no_host, misplaced, attribute, count, statistics.
    where : str
        Dataset, attribute, or "file".
    what : str
        A short sentence.
    rows : int or None
        How many rows; None where it is not about rows.
    first_row : int or None
        The first of them, from 0.
    got, expected : str
        What was found, and what would have been right; empty where that says nothing.
    """

    kind: str
    where: str
    what: str
    rows: int | None = None
    first_row: int | None = None
    got: str = ""
    expected: str = ""

    def describe(self) -> str:
        """Return the problem in one line."""
        parts = [f"{self.where}: {self.what}"]
        if self.rows is not None:
            parts.append(f"{self.rows} rows, the first {self.first_row}")
        parts += [
            f"{label}: {text}"
            for label, text in (("got", self.got), ("expected", self.expected))
            if text
        ]
        return "; ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can say of it."""
        return asdict(self)


@dataclass(frozen=True)
class Expected:
    """What a catalogue should be, as far as it is known; None is not checked.

    Attributes
    ----------
    box_size_mpch : float, optional
        Side of the box, comoving Mpc/h.
    redshift : float, optional
        Of the snapshot.
    layout : "lean" or "full", optional
        By default what the file says.
    galaxies : Expectation, optional
        Mean number of galaxies and its standard deviation; where that is 0, the very number.
    n_halos : int, optional
        Number of haloes, exactly.
    sigmas : float
        How many standard deviations the number of galaxies may be off.
    attributes : mapping
        Attributes of the root that must have just these values: seed, realization, fingerprint.
    """

    box_size_mpch: float | None = None
    redshift: float | None = None
    layout: Layout | None = None
    galaxies: Expectation | None = None
    n_halos: int | None = None
    sigmas: float = 6.0
    attributes: Mapping[str, Any] = field(default_factory=dict)


def write_validation_report(
    report: Path, catalogue: str, problems: Sequence[Problem], **facts: Any
) -> None:
    """Write what a validation found as JSON: ``catalogue``, ``valid``, ``problems``, ``facts``."""
    answer = {
        "catalogue": catalogue,
        "checked_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "valid": not problems,
        "problems": [problem.to_dict() for problem in problems],
        "facts": facts,
    }
    storage.write_text(str(report), json.dumps(answer, indent=1, ensure_ascii=False) + "\n")


def set_aside(path: Path, kept: Path | None = None) -> Path:
    """Move a bad file to where it is never taken for a catalogue: NAME.invalid.

    Parameters
    ----------
    path : Path
        The file.
    kept : Path, optional
        NAME, with its folder, which is made; by default ``path``, or the target of a temporary.
        An older file that was set aside there is replaced.

    Returns
    -------
    Path
        Where it lies now.
    """
    if kept is None:
        found = parse_temporary(path.name)
        kept = path if found is None else path.with_name(found.start)
    aside = kept.with_name(f"{kept.name}{INVALID_SUFFIX}")
    with os_errors_at(path):
        aside.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, aside)  # renames on one file system, copies to another
    return aside
