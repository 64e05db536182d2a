"""What an archiving reports: tars, files, removed working copies, and problems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from muster.counts import count_of
from muster.report.formats import format_bytes

if TYPE_CHECKING:
    from muster.mocks.campaign.stage_report import StageProblem


@dataclass(frozen=True)
class ArchiveReport:
    """What an archiving has done.

    Attributes
    ----------
    destination : str
        Folder of the tars.
    written : tuple of str
        Tars written now.
    entered : tuple of str
        Tars found there whole, without an index, as a kill leaves them.
    files, bytes : int
        What the tars written now hold.
    already : int
        Files that were archived before.
    removed, removed_bytes : int
        Working copies removed.
    problems : tuple of StageProblem
        Files and tars that are not as they should be.
    elsewhere : int
        Catalogues whose working copy was removed, and that are staged, or archived at another
        place: they are not archived here.
    """

    destination: str
    written: tuple[str, ...]
    entered: tuple[str, ...]
    files: int
    bytes: int
    already: int
    removed: int
    removed_bytes: int
    problems: tuple[StageProblem, ...]
    elsewhere: int = 0

    @property
    def complete(self) -> bool:
        """Whether every file of the campaign's folder lies in a verified tar."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """State it for programs."""
        return {
            **{name: value for name, value in vars(self).items() if name != "problems"},
            "complete": self.complete,
            "problems": [vars(problem) for problem in self.problems],
        }

    def describe(self) -> list[str]:
        """State it in a line each, the summary last."""
        end = "complete" if self.complete else "not complete"
        elsewhere = f" {self.elsewhere} elsewhere," if self.elsewhere else ""
        problems = count_of(len(self.problems), "problem")
        removed = count_of(self.removed, "working copy", "working copies")
        return [
            *(f"{p.kind}: {p.name}: {p.message}" for p in self.problems),
            *(f"written: {name}" for name in self.written),
            f"{self.destination}: {end}: {count_of(self.files, 'file')}"
            f" ({format_bytes(self.bytes)}) archived, {self.already} before,{elsewhere}"
            f" {removed} removed ({format_bytes(self.removed_bytes)}), {problems}",
        ]
