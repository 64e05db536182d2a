"""What the work directory no longer needs: decided from what lies there and what the store knows.

Work folders of runs that ended long ago, band rasters that nothing has made or used for long, and
what dead processes left; interrupted loads into the store, too.  A user's products never lie in the
work directory, and nothing else outside it is touched.  Whatever is not known for what it is stays:
folders of runs that this store does not know may be another store's.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from muster import storage
from muster.config import render_keep
from muster.errors import MusterError, StoreUnavailable
from muster.jobs.retention.work_layout import Found, Kind, find_work, is_run_folder
from muster.model.plan import BAND_NAME
from muster.store.retention import (
    BandUse,
    LeftLoad,
    RunUse,
    drop_left_load,
    find_left_loads,
    holding_plans,
    holding_run,
    mark_removed,
    read_band_use,
    read_run_uses,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from muster.site import Retention, Site
    from muster.store.database import Database

log = logging.getLogger(__name__)

T = TypeVar("T")

LEFTOVER_AGE = timedelta(days=1)
FOREIGN_AGE = timedelta(days=7)
"""How long what another machine may be writing must have been untouched."""

FILES_AT_ONCE = 200
BANDS_AT_ONCE = 20
"""What is deleted while others are kept waiting: seconds at most, also on a slow file system."""


@dataclass(frozen=True)
class Removal:
    """Something that goes: what, why, and which run's or load's it was."""

    found: Found
    why: str
    run: str | None = None
    load: LeftLoad | None = None


@dataclass(frozen=True)
class Clearance:
    """What goes, and in a line each what stays that one would expect to go.

    ``problems`` are those that somebody has to look at.
    """

    removals: tuple[Removal, ...]
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """How much goes."""
        return sum(removal.found.bytes for removal in self.removals)

    def to_dict(self) -> dict[str, Any]:
        """Say it for programs."""
        return {
            "removals": [
                {
                    "name": r.found.name,
                    "kind": r.found.kind.value,
                    "run": r.run,
                    "why": r.why,
                    "files": r.found.files,
                    "bytes": r.found.bytes,
                }
                for r in self.removals
            ],
            "bytes": self.bytes,
            "notes": list(self.notes),
            "problems": list(self.problems),
        }

    def describe(self, *, dry_run: bool = False) -> list[str]:
        """Say it in a line each, the sum last."""
        lines = [
            f"{_render_bytes(r.found.bytes):>10}  {r.found.name}: {r.why}" for r in self.removals
        ]
        lines += self.notes
        lines += [f"could not be removed: {problem}" for problem in self.problems]
        if not self.removals:
            return [*lines, "nothing to clean"]
        did = "would be removed" if dry_run else "removed"
        return [*lines, f"{len(self.removals)} {did}, {_render_bytes(self.bytes)} in all"]


def plan_clearance(
    found: Iterable[Found],
    runs: Mapping[str, RunUse],
    bands: BandUse,
    retention: Retention,
    now: datetime,
) -> Clearance:
    """Decide what goes.

    Parameters
    ----------
    found : iterable of Found
        What lies in the work directory.
    runs : mapping of str to RunUse
        Folder (``runs/NAME``) → the run that it belongs to.
    bands : BandUse
        Which band rasters are needed.
    retention : Retention
        How long what is kept.
    now : datetime
        The present.
    """
    every = list(found)
    removals = [
        Removal(one, f"its run ended {_age(now, run.active_at)} ago", run.id)
        for one in every
        if one.kind is Kind.RUN
        and (run := runs.get(one.name)) is not None
        and run.ended
        and _is_over(run.active_at, retention.runs, now)
    ]
    folders = tuple(f"{removal.found.name}/" for removal in removals)
    old = [
        one
        for one in every
        if one.kind is Kind.BAND
        and _is_over(one.changed_at, retention.bands, now)
        and one.name.rpartition("/")[2] not in bands.names
    ]
    notes = [
        f"{one.name} is a link, which is not followed" for one in every if one.kind is Kind.LINK
    ]
    if old and bands.planning:
        notes.append(_say_planning(len(old), bands.planning))
    else:
        unused = f"made {{}} ago, and not used for {render_keep(retention.bands)}"
        removals += [Removal(one, unused.format(_age(now, one.changed_at))) for one in old]
    for one in every:
        why = _why_leftover(one, now)
        if why is not None and not one.name.startswith(folders):
            removals.append(Removal(one, why))
    return Clearance(tuple(removals), tuple(notes))


def clean_work(
    db: Database, site: Site, *, dry_run: bool = False, now: datetime | None = None
) -> Clearance:
    """Remove what the work directory no longer needs, and return what was removed.

    With it go loads into Postgres that were interrupted, after as long as the work folders of runs.
    What has been loaded stays: somebody may query it.

    It may be killed at any moment and called again.

    Parameters
    ----------
    dry_run : bool
        Only say what would go.
    now : datetime, optional
        The present.
    """
    now = now or datetime.now(UTC)
    used_after = _since(site.retention.bands, now)
    found = find_work(site.work_uri)
    runs = _by_folder(site.work_uri, read_run_uses(db))
    bands = read_band_use(db, used_after, BAND_NAME)
    planned = plan_clearance(found, runs, bands, site.retention, now)
    if site.retention.runs is not None:
        left = find_left_loads(db, _since(site.retention.runs, now))
        loads = tuple(_removal_of(load, now) for load in left)
        planned = replace(planned, removals=planned.removals + loads)
    return planned if dry_run else _Clearing(db, site, now).act(planned)


class _Clearing:
    """Does what was planned, as far as it still holds."""

    def __init__(self, db: Database, site: Site, now: datetime) -> None:
        self.db = db
        self.work_uri = site.work_uri
        self.retention = site.retention
        self.now = now
        self.removed: list[Removal] = []
        self.notes: list[str] = []
        self.problems: list[str] = []

    def act(self, planned: Clearance) -> Clearance:
        self.notes += planned.notes
        bands = [r for r in planned.removals if r.found.kind is Kind.BAND]
        for lot in _lots(bands, BANDS_AT_ONCE):
            self._try(lot[0].found.name, partial(self._remove_bands, lot))
        for removal in planned.removals:
            name = removal.found.name
            if removal.run is not None:
                self._try(name, partial(self._remove_run, removal, removal.run))
            elif removal.load is not None:
                self._try(name, partial(self._remove_load, removal, removal.load))
            elif removal.found.kind is not Kind.BAND:
                self._try(name, partial(self._remove_leftover, removal))
        return Clearance(
            tuple(self.removed), tuple(dict.fromkeys(self.notes)), tuple(self.problems)
        )

    def _try(self, name: str, remove: Callable[[], None]) -> None:
        """Remove something; what cannot be removed must not keep the rest."""
        try:
            remove()
        except StoreUnavailable:
            raise
        except MusterError as error:
            log.error("%s stays: %s", name, error)  # noqa: TRY400 - one line for people
            self.problems.append(f"{name}: {error}")

    def _remove_run(self, removal: Removal, run: str) -> None:
        active_before = _since(self.retention.runs, self.now)
        name = removal.found.name
        if not mark_removed(self.db, run, active_before, f"{name} removed: {removal.why}"):
            self.notes.append(f"{name} stays: its run goes on")
            return
        for lot in [*_lots(_names_below(self.work_uri, name), FILES_AT_ONCE), None]:
            with holding_run(self.db, run, active_before) as held:
                if held is None:
                    self.notes.append(f"{name} stays in part: its run was taken up again")
                    return
                if lot is None:
                    storage.prune(self.work_uri, name)
                else:
                    storage.delete_below(self.work_uri, lot)
        self.removed.append(removal)

    def _remove_bands(self, lot: Sequence[Removal]) -> None:
        """Remove rasters, and leave their folders: a step may be about to write there."""
        used_after = _since(self.retention.bands, self.now)
        with holding_plans(self.db, used_after, BAND_NAME) as bands:
            if bands.planning:
                self.notes.append(_say_planning(len(lot), bands.planning))
                return
            unused = [r for r in lot if r.found.name.rpartition("/")[2] not in bands.names]
            storage.delete_below(self.work_uri, [r.found.name for r in unused])
        self.removed += unused

    def _remove_load(self, removal: Removal, load: LeftLoad) -> None:
        if drop_left_load(self.db, load, _since(self.retention.runs, self.now)):
            self.removed.append(removal)
        else:
            self.notes.append(f"{removal.found.name} stay: somebody goes on loading them")

    def _remove_leftover(self, removal: Removal) -> None:
        name = removal.found.name
        if removal.found.is_folder:
            storage.delete_below(self.work_uri, _names_below(self.work_uri, name))
            storage.prune(self.work_uri, name)
        else:
            storage.delete_below(self.work_uri, [name])
        self.removed.append(removal)


def _removal_of(load: LeftLoad, now: datetime) -> Removal:
    found = Found(
        name=f"{load.store} of dataset {load.dataset}",
        kind=Kind.LOAD,
        files=0,
        bytes=load.bytes,
        changed_at=load.active_at,
    )
    return Removal(found, f"interrupted, and left alone for {_age(now, load.active_at)}", load=load)


def _by_folder(work_uri: str, runs: Iterable[RunUse]) -> dict[str, RunUse]:
    """Arrange runs by their folders in a work directory; those of another one are left out."""
    found: dict[str, RunUse] = {}
    for run in sorted(runs, key=lambda run: (not run.ended, run.active_at)):
        name = storage.name_below(run.work_uri, work_uri)
        if name is not None and is_run_folder(name):
            found[name] = run
    return found


def _names_below(work_uri: str, folder: str) -> list[str]:
    below = storage.walk(storage.join(work_uri, folder))
    return [f"{folder}/{entry.name}" for entry in below]


def _why_leftover(one: Found, now: datetime) -> str | None:
    """Say why something goes that a process left; None where it stays, or is nothing such."""
    age = now - one.changed_at
    if age < LEFTOVER_AGE or one.writer:
        return None
    said = _age(now, one.changed_at)
    if one.kind is Kind.SCRATCH:
        return f"scratch of a process that is gone, {said} old"
    if one.kind is Kind.TEMPORARY and one.writer is False:
        return f"half-written by a process that is gone, {said} ago"
    if one.kind is Kind.TEMPORARY and age >= FOREIGN_AGE:
        return f"half-written, and left alone for {said}"
    if one.kind is Kind.DRAFT:
        return f"a draft, left alone for {said}"
    if one.kind is Kind.DOCTOR:
        return f"of a 'muster doctor' {said} ago"
    return None


def _say_planning(count: int, planning: Sequence[str]) -> str:
    return (
        f"{count} band rasters stay for now: {', '.join(planning[:3])} is being planned and may"
        " reuse them; where nobody goes on with it, run 'muster reconcile' first"
    )


def _since(keep_s: int | None, now: datetime) -> datetime:
    return now - timedelta(seconds=keep_s or 0)


def _is_over(at: datetime, keep_s: int | None, now: datetime) -> bool:
    return keep_s is not None and at < _since(keep_s, now)


def _age(now: datetime, at: datetime) -> str:
    hours = int((now - at).total_seconds() // 3600)
    return f"{hours // 24} days" if hours >= 48 else f"{hours} hours"


def _render_bytes(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _lots(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
