"""Resampling as its users meet it: months by backfill, one of them without input, over REST."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pytest

from muster.store import runs
from tests.months import assert_month_is_right, expected_cover, read, write_config, write_month

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.airflow.conftest import Muster

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(900)]

DAG = "resampling"


@dataclass(frozen=True)
class Backfill:
    """A folder with the input of all months but one, and the run that was made for each."""

    folder: Path
    months: range
    absent: int
    runs: dict[int, str]


SIX_MONTHS = pytest.param((range(7, 13), 10), id="six", marks=pytest.mark.thorough)


@pytest.fixture(scope="module", params=[pytest.param((range(1, 3), 2), id="two"), SIX_MONTHS])
def backfill(
    muster: Muster, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Backfill:
    """Months of 2019, one of them without input, as one backfill has made them.

    They overlap with no other: a month has one run in an Airflow.
    """
    months, absent = request.param
    folder = tmp_path_factory.mktemp("months")
    for month in months:
        if month != absent:
            write_month(folder, month)
    write_config(folder)
    before = len(muster.api.runs(DAG))
    interval = (
        datetime(2019, months[0], 1, tzinfo=UTC),
        datetime(2019, months[-1], 28, tzinfo=UTC),
    )
    conf = {"config": str(folder / "resampling.yaml"), "memory": "256MiB"}
    started = muster.api.backfill(DAG, interval, conf, max_active_runs=3)
    muster.wait(lambda: muster.api.backfill_ended(started), 700)
    made = [run.run_id for run in muster.api.runs(DAG)[before:]]
    starts = {run_id: runs.read_run(muster.db, f"{DAG}.{run_id}").interval_start for run_id in made}
    found = {start.month: run_id for run_id, start in starts.items() if start is not None}
    return Backfill(folder, months, absent, found)


def test_the_month_with_input_is_right_to_the_cell(muster: Muster, backfill: Backfill) -> None:
    assert sorted(backfill.runs) == list(backfill.months)
    for month in backfill.months:
        if month == backfill.absent:
            continue
        run_id = backfill.runs[month]
        state = muster.api.run(DAG, run_id).state
        assert state == "success", muster.api.task_log(DAG, run_id, ("verdict", -1))
        record = runs.read_run(muster.db, f"{DAG}.{run_id}")
        assert record.state == "succeeded"
        assert record.params["memory"] == "256MiB", "what is said goes before the file"
        states = muster.states(DAG, run_id)
        assert states["resample", "wind"] == states["resample", "cover"] == "success"
        assert states["merge", ""] == "success"
        assert_month_is_right(backfill.folder, month)


def test_the_month_without_input_says_so_and_makes_nothing(
    muster: Muster, backfill: Backfill
) -> None:
    run_id = backfill.runs[backfill.absent]
    assert muster.api.run(DAG, run_id).state == "failed"
    elements = runs.read_status(muster.db, f"{DAG}.{run_id}")
    states = {element.group: element.state for element in elements if element.group != "inputs"}
    assert states == dict.fromkeys(("wind", "cover", "merge"), "missing_input")
    log = muster.api.task_log(DAG, run_id, ("verdict", -1))
    assert "wind: missing_input" in log
    assert f"wind-2019-{backfill.absent:02}.tif" in log
    assert "0 of 0 succeeded" in log
    tasks = muster.states(DAG, run_id)
    assert tasks["inspect", ""] == tasks["plan", ""] == "success"
    assert {s for (task, _), s in tasks.items() if task in ("resample", "merge")} == {"skipped"}
    assert "missing_input" in muster.api.task_log(DAG, run_id, ("merge", -1))
    assert not (backfill.folder / "out" / f"all-2019-{backfill.absent:02}.parquet").exists()
    assert not list((backfill.folder / "out").glob(f"2019/{backfill.absent:02}/*.tif"))


def test_the_plan_tells_every_decision_with_its_reason(muster: Muster, backfill: Backfill) -> None:
    log = muster.api.task_log(DAG, backfill.runs[backfill.months[0]], ("plan", -1))
    for name in ("wind", "cover"):
        (line,) = [
            line for line in log.splitlines() if f"{name} resampling.resample: run: " in line
        ]
        assert "10 × 10" in line, "how a cell is made, and why"


@pytest.mark.parametrize("backfill", [SIX_MONTHS], indirect=True)
def test_the_month_that_arrives_is_made_when_its_run_is_cleared(
    muster: Muster, backfill: Backfill
) -> None:
    run_id = backfill.runs[backfill.absent]
    write_month(backfill.folder, backfill.absent)
    muster.api.clear(DAG, run_id, ["inspect"], include_downstream=True)
    muster.wait(lambda: muster.api.run(DAG, run_id).state != "failed", 30)
    assert muster.api.wait_for_run(DAG, run_id, 400).state == "success"
    assert_month_is_right(backfill.folder, backfill.absent)


@pytest.mark.thorough
def test_a_run_without_a_merge_says_so_and_a_dataset_that_fails_leaves_the_other_alone(
    muster: Muster, tmp_path: Path
) -> None:
    write_month(tmp_path, 1)
    spoilt = tmp_path / "spoilt-2019-01.tif"
    spoilt.write_bytes((tmp_path / "wind-2019-01.tif").read_bytes()[:900])
    datasets = [
        {"name": "cover", "path": str(tmp_path / "cover-{year}-{month}.tif"), "method": "max"},
        {"name": "spoilt", "path": str(tmp_path / "spoilt-{year}-{month}.tif"), "method": "max"},
    ]
    target = {"crs": "EPSG:4326", "resolution": 0.1, "extent": [5, 47.7, 5.5, 48]}
    told = {"target": target, "datasets": datasets, "output": str(tmp_path / "out")}
    run_id = muster.api.trigger(DAG, {**told, "year": 2019, "month": 1})
    assert muster.api.wait_for_run(DAG, run_id, 400).state == "failed"
    np.testing.assert_array_equal(
        read(tmp_path / "out" / "2019-01" / "cover.tif"), expected_cover(1)
    )
    states = muster.states(DAG, run_id)
    assert states["resample", "cover"] == "success"
    assert {state for (task, _), state in states.items() if task == "merge"} == {"skipped"}
    assert "the params ask for none" in muster.api.task_log(DAG, run_id, ("merge", -1))
    log = muster.api.task_log(DAG, run_id, ("verdict", -1))
    assert "1 of 2 succeeded" in log


def test_a_param_that_means_nothing_fails_the_run_at_once(muster: Muster, tmp_path: Path) -> None:
    """In ``inspect``; tests/integration/test_refused_params.py has what ``open`` refuses."""
    write_config(tmp_path)
    run_id = muster.api.trigger(DAG, {"config": str(tmp_path / "resampling.yaml"), "target": {}})
    assert muster.api.wait_for_run(DAG, run_id, 200).state == "failed"
    tasks = {task.task_id: task for task in muster.api.task_instances(DAG, run_id)}
    assert tasks["inspect"].state == "failed"
    assert tasks["inspect"].try_number == 1, "no retry can mend a parameter"
    assert "placeholder {year}" in muster.api.task_log(DAG, run_id, ("inspect", -1))
    assert tasks["verdict"].state == "failed"
    assert tasks["merge"].state in {"skipped", "upstream_failed"}
