"""How a campaign stands: counted by the record, over all of its runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from muster.counts import count_of
from muster.mocks.campaign.placement import STEP
from muster.mocks.campaign.selection import select
from muster.mocks.unfinished import read_unfinished
from muster.store.campaign_state import (
    FailureClass,
    read_campaign_status,
    read_failures,
)
from muster.store.campaigns import read_campaign_runs
from muster.store.records import RunState

if TYPE_CHECKING:
    from muster.mocks.campaign.config import Campaign
    from muster.mocks.find import FoundCampaign
    from muster.store.database import Database
    from muster.store.records import Run
    from muster.store.unfinished import UnfinishedRun

GOING = (RunState.OPEN, RunState.PLANNED)
SILENT_FOR_S = 180.0
"""A run without a sign for so long is one that nobody goes on with, as far as it looks."""


@dataclass(frozen=True)
class RunLine:
    """A run of a campaign in a line.

    Attributes
    ----------
    id, state, message
        As in the store.
    attended : bool
        Whether it is not over and goes on, as far as this host can tell: its process runs here, or
        there is a heartbeat or an event for :data:`SILENT_FOR_S`, or its jobs go on on a cluster.
    left_alone : bool
        Whether it is not over and no process follows it: its process was killed, or it was
        submitted to be left alone.
    detached : bool
        Whether it was submitted to be left alone.
    """

    id: str
    state: str
    message: str | None
    attended: bool = False
    left_alone: bool = False
    detached: bool = False

    @property
    def moves(self) -> bool:
        """Whether its record goes on: a process follows it, or its jobs may be looked at."""
        return self.attended and (self.detached or not self.left_alone)

    def describe(self) -> str:
        """Say it in one line."""
        line = f"run {self.id}: {self.state}" + (f": {self.message}" if self.message else "")
        return line if self.advice is None else f"{line} ({self.advice})"

    @property
    def advice(self) -> str | None:
        """What to do with a run that is not over and that no process follows."""
        if self.state not in GOING:
            return None
        if self.attended:
            wait = f"no process follows it, its jobs go on: 'muster wait {self.id}' follows it"
            return wait if self.left_alone else None
        if self.detached:
            return (
                f"its jobs have ended: 'muster wait {self.id}' judges it, as the next submit does"
            )
        return "nothing goes on with it: the next submit or 'muster campaign cancel' ends it"


@dataclass(frozen=True)
class ProgressReport:
    """How a campaign stands.

    Attributes
    ----------
    campaign : str
        VERSION_NAME.
    total : int
        Catalogues of the whole campaign.
    counts : dict of str to int
        Catalogues by state: pending (those included that no run has planned), queued, running,
        completed, failed, missing_input, cancelled.
    success_rate : float or None
        Share of completed among completed and failed, in [0, 1]; None where there is neither.
    quorum : float
        Share that must succeed.
    by_redshift : dict of float to dict of str to int
        The same counts at each redshift, of what was planned.
    failures : tuple of FailureClass
        What failed, was cancelled or has no input, by outcome and error, most first.
    runs : tuple of RunLine
        Newest first.
    """

    campaign: str
    total: int
    counts: dict[str, int]
    success_rate: float | None
    quorum: float
    by_redshift: dict[float | None, dict[str, int]] = field(default_factory=dict)
    failures: tuple[FailureClass, ...] = ()
    runs: tuple[RunLine, ...] = ()

    @property
    def is_going(self) -> bool:
        """Whether somebody goes on with a run of the campaign."""
        return any(run.attended for run in self.runs)

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return {**asdict(self), "going": self.is_going}

    def describe(self) -> str:
        """Say it in one line."""
        states = ", ".join(
            f"{count:,} {state.replace('_', ' ')}" for state, count in self.counts.items() if count
        )
        rate = "" if self.success_rate is None else f"; success rate {self.success_rate:.2%}"
        return f"{self.campaign}: {count_of(self.total, 'catalogue')}: {states}{rate}"


def read_progress(db: Database, found: FoundCampaign) -> ProgressReport:
    """Count a campaign's catalogues by state.

    What no run has planned yet is pending.
    """
    campaign = found.campaign
    total = _count(campaign)
    if found.record is None:
        return ProgressReport(
            campaign.label, total, {"pending": total}, None, campaign.execution.quorum
        )
    status = read_campaign_status(db, found.record.id, step=STEP)
    unfinished = {run.id: run for run in read_unfinished(db, found.record.id)}
    counts = dict(status.counts)
    counts["pending"] += max(0, total - status.total)
    return ProgressReport(
        campaign=campaign.label,
        total=total,
        counts=counts,
        success_rate=status.success_rate,
        quorum=campaign.execution.quorum,
        by_redshift=status.by_redshift,
        failures=tuple(read_failures(db, found.record.id, step=STEP)),
        runs=tuple(
            _make_line(run, unfinished.get(run.id))
            for run in read_campaign_runs(db, found.record.id)
        ),
    )


def _make_line(run: Run, going: UnfinishedRun | None) -> RunLine:
    if going is None:
        return RunLine(run.id, run.state.value, run.message)
    attended = going.is_attended(SILENT_FOR_S)
    return RunLine(
        run.id, run.state.value, run.message, attended, going.is_left_alone, going.detached
    )


def _count(campaign: Campaign) -> int:
    return len(select(campaign))
