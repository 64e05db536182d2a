"""Retention of a campaign's working copies, after it was staged.

Only what lies at the permanent place as it lies here goes, and only when the staging was complete.
The record of the campaign (metadata) always stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from muster import storage
from muster.config import render_keep
from muster.counts import count_of
from muster.errors import MissingInput
from muster.mocks.campaign.facts import CATALOGS, require_local
from muster.mocks.campaign.ledger import CompletedStaging, read_completed
from muster.mocks.campaign.stage import list_working_files
from muster.report.formats import format_bytes

if TYPE_CHECKING:
    from datetime import datetime

    from muster.mocks.campaign.outputs import CampaignRetention
    from muster.mocks.campaign.stage import WorkingFile

PARTS = (CATALOGS, "logs", "qa")
"""Folders of a campaign that have a retention of their own."""


@dataclass(frozen=True)
class KeptReport:
    """What a campaign's retention has removed, or would remove.

    Attributes
    ----------
    removed : dict of str to int
        Folder → files.
    bytes : int
        Their size.
    notes : tuple of str
        What stays that one would expect to go, and why.
    dry_run : bool
        Whether it is still there.
    """

    removed: dict[str, int]
    bytes: int
    notes: tuple[str, ...]
    dry_run: bool

    def to_dict(self) -> dict[str, Any]:
        """State it for programs."""
        return {**vars(self), "notes": list(self.notes)}

    def describe(self) -> list[str]:
        """State it in a line each, the summary last."""
        did = "would be removed" if self.dry_run else "removed"
        counts = ", ".join(
            f"{count_of(n, 'file')} of {part}" for part, n in self.removed.items() if n
        )
        return [*self.notes, f"{did}: {counts or 'nothing'} ({format_bytes(self.bytes)})"]


def clean_campaign(
    folder: str, retention: CampaignRetention, *, now: datetime, dry_run: bool = False
) -> KeptReport:
    """Remove working copies that were staged longer ago than the campaign keeps them.

    Parameters
    ----------
    folder : str
        The campaign's folder, on this machine.
    retention : CampaignRetention
        Seconds that catalogs, logs and qa are kept; None is for good.
    now : datetime
        With its zone.
    dry_run : bool
        Report, and remove nothing.

    Raises
    ------
    MissingInput
        When the campaign was never completely staged, or the staged tree is gone.
    """
    root = require_local(folder)
    staging = read_completed(root)
    if staging is None:
        raise MissingInput(
            "the campaign was never completely staged, so that nothing may be removed",
            where=root,
            do="stage it",
        )
    files, _ = list_working_files(root)
    there = {entry.name: entry.bytes for entry in storage.walk(staging.destination)}
    if not there:
        raise MissingInput(
            "the staged campaign is not there",
            where=staging.destination,
            do="mount the destination, or stage the campaign again",
        )
    removed = dict.fromkeys(PARTS, 0)
    notes = []
    size = 0
    for part in PARTS:
        keep_s: int | None = getattr(retention, part)
        due = keep_s is not None and staging.at + timedelta(seconds=keep_s) <= now
        mine = [file for file in files if file.name.startswith(f"{part}/")]
        if not due:
            if mine and keep_s is not None:
                notes.append(f"{part}: kept for {render_keep(keep_s)} after {staging.at:%F %H:%M}")
            continue
        going = [file for file in mine if _lies_there(file, staging, there)]
        if len(going) < len(mine):
            notes.append(f"{part}: {len(mine) - len(going)} files are not staged as they are here")
        removed[part] = len(going)
        size += sum(file.bytes for file in going)
        if not dry_run:
            storage.delete_below(str(root), [file.name for file in going])
            _prune(root.as_posix(), part, going)
    return KeptReport(removed, size, tuple(notes), dry_run)


def _lies_there(file: WorkingFile, staging: CompletedStaging, there: dict[str, int]) -> bool:
    staged = staging.files.get(file.name)
    return (
        staged is not None
        and staged.version == file.version
        and there.get(file.name) == staged.bytes
    )


def _prune(root: str, part: str, gone: list[WorkingFile]) -> None:
    """Remove the folders that are empty now; the campaign's own folders stay."""
    if part == CATALOGS:
        for realization in sorted({file.name.split("/")[1] for file in gone}):
            storage.prune(storage.join(root, part), realization)
