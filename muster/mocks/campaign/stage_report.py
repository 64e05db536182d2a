"""What a staging reports: how far it is, what it has done, and what is not at its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from muster.counts import count_of
from muster.report.formats import format_bytes

ProblemKind = Literal["missing", "changed", "occupied", "failed", "unreadable"]


@dataclass(frozen=True)
class StageProblem:
    """A file that is not at its permanent place, and why.

    ``kind``: missing (recorded, and not there), changed (not what its record states, or what was
    staged), occupied (another file lies at its place), failed (could not be copied this time),
    unreadable (a link, or not to be read).
    """

    name: str
    kind: ProblemKind
    message: str


@dataclass(frozen=True)
class StageProgress:
    """How far a staging is: files and bytes done, of how many."""

    files: int
    of_files: int
    bytes: int
    of_bytes: int
    name: str


@dataclass(frozen=True)
class StageReport:
    """What a staging has done.

    Attributes
    ----------
    destination : str
        The staged tree.
    copied, entered, already : int
        Files copied now; found there, equal, and entered into the ledger; staged before.
    bytes : int
        Bytes copied now.
    problems : tuple of StageProblem
        By name.
    stopped : str or None
        Why the rest was not tried.
    elsewhere : int
        Catalogues whose working copy was removed, and that are archived, or staged at another
        place: they are not copied.
    """

    destination: str
    copied: int
    entered: int
    already: int
    bytes: int
    problems: tuple[StageProblem, ...]
    stopped: str | None = None
    elsewhere: int = 0

    @property
    def complete(self) -> bool:
        """Whether every file of the campaign's folder lies at its permanent place."""
        return not self.problems and self.stopped is None

    def to_dict(self) -> dict[str, Any]:
        """State it for programs."""
        return {
            "destination": self.destination,
            "complete": self.complete,
            "copied": self.copied,
            "entered": self.entered,
            "already": self.already,
            "elsewhere": self.elsewhere,
            "bytes": self.bytes,
            "problems": [vars(problem) for problem in self.problems],
            "stopped": self.stopped,
        }

    def describe(self) -> list[str]:
        """State it in a line each, the summary last."""
        lines = [f"{p.kind}: {p.name}: {p.message}" for p in self.problems]
        if self.stopped is not None:
            lines.append(f"stopped: {self.stopped}")
        end = "complete" if self.complete else "not complete"
        elsewhere = f" {self.elsewhere} archived or staged elsewhere," if self.elsewhere else ""
        return [
            *lines,
            f"{self.destination}: {end}: {self.copied} copied ({format_bytes(self.bytes)}),"
            f" {self.entered} found there, {self.already} staged before,{elsewhere}"
            f" {count_of(len(self.problems), 'problem')}",
        ]
