"""Runs of a campaign that are not over: those that a process goes on with, and those left behind.

A command that is killed leaves its run open, and its elements count as queued or running.  The next
submit ends such a run first, unless its jobs go on on a cluster; what a living run has before it is
not planned a second time.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from muster.backends import Backends
from muster.backends.registry import BACKENDS
from muster.errors import InvalidInput, MusterError, Transient
from muster.jobs.runs.cancel_run import cancel_run, end_batches
from muster.jobs.runs.detached import look_at_detached
from muster.jobs.runs.reconcile import SILENT_FOR_S
from muster.jobs.runs.verdict import give_verdict
from muster.mocks.campaign.placement import STEP
from muster.mocks.campaign.selection import select
from muster.mocks.coordinates import Coordinate
from muster.mocks.failed import find_failed
from muster.mocks.find import find_record_of
from muster.mocks.params import MockParams
from muster.store import runs, unfinished
from muster.store.campaigns import hold_opening_lock
from muster.store.records import RunState
from muster.store.unfinished import read_ahead

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from muster.mocks.find import FoundCampaign
    from muster.store.database import Database
    from muster.store.unfinished import UnfinishedRun

log = logging.getLogger(__name__)

ENDED_WITHIN_S = 300.0
"""How long the cluster of a run that was left behind may take to end its jobs."""

OPENED_WITHIN_S = 600.0
"""How long another run of the campaign may take to be opened: it may initialize the campaign."""

LEFT_BEHIND = "the process that followed it has ended"


def read_unfinished(db: Database, campaign_id: int) -> list[UnfinishedRun]:
    """List the runs of a campaign that are not over, newest first."""
    here = [name for name, backend in BACKENDS.items() if not backend.outlives_supervisor]
    return unfinished.read_unfinished(db, campaign_id, here)


def list_left_behind(db: Database, found: FoundCampaign) -> list[str]:
    """List the runs of a campaign that are not over and that nothing goes on with."""
    going = [] if found.record is None else read_unfinished(db, found.record.id)
    return [run.id for run in going if not run.is_attended(SILENT_FOR_S)]


async def end_left_behind(db: Database, found: FoundCampaign, *, beside: str | None = None) -> None:
    """End the runs of a campaign that nothing goes on with any more; log it in a line each.

    What had ended by itself is recorded as it ended, and what still runs on this machine is
    cancelled.  Jobs on a cluster go on: their run waits for who follows it.

    Raises
    ------
    Transient
        When the jobs of one do not end, as where its cluster does not answer.
    """
    if found.record is None:
        return
    campaign_id = found.record.id
    before = await asyncio.to_thread(read_unfinished, db, campaign_id)
    await _look_at_jobs(db, [run for run in before if run.has_jobs])
    left = await asyncio.to_thread(read_unfinished, db, campaign_id)
    for run in left:
        if run.is_attended(SILENT_FOR_S):
            continue
        await _end_batches(db, run.id)
        if run.detached:  # its jobs were meant to end alone, and did
            verdict = await asyncio.to_thread(give_verdict, db, run.id)
            log.warning("run %s, which was left alone, is over: %s", run.id, verdict.summary)
        else:
            await asyncio.to_thread(runs.end_run, db, run.id, RunState.CANCELLED, LEFT_BEHIND)
            log.warning("run %s is ended: %s", run.id, LEFT_BEHIND)


async def look_at_left_alone(db: Database, found: FoundCampaign) -> None:
    """Record what has become of the jobs of runs that no process follows.

    A run of which all has ended well is judged; another is left to the next submit, and to who
    follows it.
    """
    if found.record is None:
        return
    going = await asyncio.to_thread(read_unfinished, db, found.record.id)
    await _look_at_jobs(db, [run for run in going if run.has_jobs and run.is_left_alone])


async def _end_batches(db: Database, run_id: str) -> None:
    try:
        async with asyncio.timeout(ENDED_WITHIN_S):
            await end_batches(db, run_id, "reconcile")
    except TimeoutError as error:
        raise Transient(
            "a run that was left behind does not end",
            where=run_id,
            got=f"no answer of its cluster in {ENDED_WITHIN_S:.0f} s",
            do=f"try again when the cluster answers, or look with 'muster status {run_id}'",
        ) from error


async def _look_at_jobs(db: Database, left_alone: Iterable[UnfinishedRun]) -> None:
    """Record what has become of jobs that were left alone; a cluster that is silent is told."""
    backends = Backends(db)
    try:
        for run in left_alone:
            try:
                await look_at_detached(db, backends, run.id)
            except Transient as error:
                log.warning("not looked at just now: %s", error)
    finally:
        await backends.close()


@contextmanager
def hold_opening(db: Database, run_id: str, params: MockParams) -> Iterator[None]:
    """Open no other run of the campaign meanwhile; refuse one that makes what a run has before it.

    A run is prepared and recorded within, whoever starts it, so that of two that are started at
    once the second sees the first.

    Raises
    ------
    InvalidInput
        When a run that is going has any of the catalogues before it.
    Transient
        When another run of the campaign is not opened in time.
    """
    if params.dry_run:
        yield
        return
    campaign = params.campaign
    with hold_opening_lock(db, campaign.folder_uri, OPENED_WITHIN_S) as lock:
        found = find_record_of(db, campaign)
        check_not_in_hand(db, found, _list_wanted(db, found, params), beside=run_id)
        yield
        lock.check()


def _list_wanted(
    db: Database, found: FoundCampaign, params: MockParams
) -> list[tuple[int, float | None]]:
    if not params.failed_only:
        return [(c.realization, c.redshift) for c in select(params.campaign, params.selection)]
    if found.record is None:
        return []
    failed, _ = find_failed(db, found.record.id, params.max_attempts)
    return [(element.realization, element.redshift) for element in failed]


def check_not_in_hand(
    db: Database,
    found: FoundCampaign,
    wanted: Sequence[tuple[int, float | None]],
    *,
    beside: str | None = None,
) -> None:
    """Make sure that no run that is going has any of the catalogues before it.

    What was left behind is not going.

    Parameters
    ----------
    wanted : sequence of (int, float)
        Realization and redshift of what is to be made.
    beside : str, optional
        The run that is to make it, where that is recorded already.

    Raises
    ------
    InvalidInput
        When one has, and how to follow it or to end it.
    """
    if found.record is None:
        return
    asked = set(wanted)
    for run in read_unfinished(db, found.record.id):
        if run.id == beside or not run.is_attended(SILENT_FOR_S):
            continue
        common = sorted(_coordinates_ahead(db, found, run) & asked)
        if not common:
            continue
        label = found.campaign.label
        by = f"'muster campaign monitor {label}'"
        if run.is_left_alone:
            by = f"'muster wait {run.id}'"
        raise InvalidInput(
            "a run of the campaign is going that makes the same catalogues",
            where=label,
            got=f"{run.id}: {len(common):,} of {len(asked):,}, {Coordinate(*common[0]).name} first",
            do=f"follow it with {by}, or end it with 'muster campaign cancel {label}'; "
            "other slices, realizations and redshifts may be submitted beside it",
        )


def _coordinates_ahead(
    db: Database, found: FoundCampaign, run: UnfinishedRun
) -> set[tuple[int, float]]:
    """Return what a run has before it; of one that is not planned yet, all that it selects."""
    if run.state is RunState.PLANNED:
        return read_ahead(db, run.id, STEP)
    try:
        params = MockParams.model_validate(runs.read_run(db, run.id).params)
        chosen = select(params.campaign, params.selection)
    except (MusterError, ValueError) as error:  # of another version: all of it, to be safe
        log.info("%s: its selection is not read: %s", run.id, error)
        chosen = select(found.campaign)
    return {(c.realization, c.redshift) for c in chosen}


async def cancel_campaign(db: Database, found: FoundCampaign) -> list[str]:
    """Cancel every run of a campaign that is not over; say it in a line a run.

    Raises
    ------
    InvalidInput
        When none is going.
    """
    going = await asyncio.to_thread(read_unfinished, db, found.require_record().id)
    if not going:
        raise InvalidInput(
            "no run of the campaign is going",
            got=found.campaign.label,
            do="leave it: 'muster campaign status' shows its runs",
        )
    return [(await cancel_run(db, run.id)).summarize() for run in going]
