"""What goes from a work directory: decided from what lies there and what the store knows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from muster.jobs.retention.retention import plan_clearance
from muster.jobs.retention.work_layout import Found, Kind
from muster.site import Retention
from muster.store.records import RunState
from muster.store.retention import BandUse, RunUse

NOW = datetime(2026, 5, 7, tzinfo=UTC)
BAND = "bands/default/static/height/predict-0123456789abcdef.tif"
UNUSED = BandUse(frozenset(), ())


def ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


def found(kind: Kind, name: str, days: float, writer: bool | None = None) -> Found:
    return Found(name, kind, 1, 10, ago(days), writer=writer)


def use(state: RunState, days: float, has_open: bool = False) -> dict[str, RunUse]:
    return {"runs/r": RunUse("r", state, "/w/runs/r", ago(days), has_open)}


def going(
    *every: Found, runs: dict[str, RunUse] | None = None, bands: BandUse = UNUSED
) -> list[str]:
    planned = plan_clearance(every, runs or {}, bands, Retention(), NOW)
    return [removal.found.name for removal in planned.removals]


@pytest.mark.parametrize(
    ("state", "days", "has_open", "goes"),
    [
        (RunState.SUCCEEDED, 31, False, True),
        (RunState.FAILED, 31, False, True),
        (RunState.CANCELLED, 31, False, True),
        (RunState.SUCCEEDED, 29, False, False),
        (RunState.SUCCEEDED, 31, True, False),
        (RunState.OPEN, 31, False, False),
        (RunState.PLANNED, 31, False, False),
    ],
)
def test_a_runs_folder_goes_by_its_end(
    state: RunState, days: float, has_open: bool, goes: bool
) -> None:
    folder = found(Kind.RUN, "runs/r", 100)
    assert going(folder, runs=use(state, days, has_open)) == (["runs/r"] if goes else [])
    assert going(folder) == [], "a run that the store does not know"


@pytest.mark.parametrize(
    ("days", "names", "planning", "goes"),
    [
        (31, (), (), True),
        (29, (), (), False),
        (31, (BAND.rpartition("/")[2],), (), False),
        (31, (), ("new",), False),
    ],
)
def test_a_band_goes_by_its_use(
    days: float, names: tuple[str, ...], planning: tuple[str, ...], goes: bool
) -> None:
    bands = BandUse(frozenset(names), planning)
    assert going(found(Kind.BAND, BAND, days), bands=bands) == ([BAND] if goes else [])


def test_that_bands_wait_for_a_plan_is_told_only_where_they_do() -> None:
    bands = BandUse(frozenset(), ("new",))
    waiting = plan_clearance([found(Kind.BAND, BAND, 31)], {}, bands, Retention(), NOW)
    assert "new is being planned" in waiting.notes[0]
    assert plan_clearance([], {}, bands, Retention(), NOW).notes == ()


def test_what_goes_with_its_run_is_told_once() -> None:
    part = found(Kind.TEMPORARY, "runs/r/.x.part", 31, writer=False)
    folder = found(Kind.RUN, "runs/r", 31)
    assert going(folder, part, runs=use(RunState.FAILED, 31)) == ["runs/r"]
    assert going(folder, part, runs=use(RunState.OPEN, 31)) == ["runs/r/.x.part"]
