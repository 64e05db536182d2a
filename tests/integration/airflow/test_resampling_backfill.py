"""Resampling as its users meet it: months by backfill, one of them without input, over REST."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from muster.store import runs
from tests.months import assert_month_is_right, expected_cover, read, write_config, write_month

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.airflow.conftest import Muster

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(900)]

DAG = "resampling"
MONTHS = (1, 2, 3, 4, 5, 6)
ABSENT = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with five months of six, and a resampling.yaml for all of them."""
    made = tmp_path_factory.mktemp("months")
    for month in MONTHS:
        if month != ABSENT:
            write_month(made, month)
    write_config(made)
    return made


@pytest.fixture(scope="module")
def backfilled(muster: Muster, folder: Path) -> dict[int, str]:
    """Month → the run that a backfill of half a year has made for it."""
    before = len(muster.api.runs(DAG))
    interval = (datetime(2019, 1, 1, tzinfo=UTC), datetime(2019, 6, 30, tzinfo=UTC))
    told = {"config": str(folder / "resampling.yaml"), "memory": "256MiB"}
    backfill = muster.api.backfill(DAG, interval, told, max_active_runs=3)
    muster.wait(lambda: muster.api.backfill_ended(backfill), 700)
    made = [run.run_id for run in muster.api.runs(DAG)[before:]]
    starts = {run_id: runs.read_run(muster.db, f"{DAG}.{run_id}").interval_start for run_id in made}
    return {start.month: run_id for run_id, start in starts.items() if start is not None}


def test_five_months_are_right_to_the_cell(
    muster: Muster, folder: Path, backfilled: dict[int, str]
) -> None:
    assert sorted(backfilled) == list(MONTHS)
    for month in MONTHS:
        if month == ABSENT:
            continue
        run_id = backfilled[month]
        state = muster.api.run(DAG, run_id).state
        assert state == "success", muster.api.task_log(DAG, run_id, ("verdict", -1))
        record = runs.read_run(muster.db, f"{DAG}.{run_id}")
        assert record.state == "succeeded"
        assert record.params["memory"] == "256MiB", "what is said goes before the file"
        states = muster.states(DAG, run_id)
        assert states["resample", "wind"] == states["resample", "cover"] == "success"
        assert states["merge", ""] == "success"
        assert_month_is_right(folder, month)


def test_the_month_without_input_says_so_and_makes_nothing(
    muster: Muster, folder: Path, backfilled: dict[int, str]
) -> None:
    run_id = backfilled[ABSENT]
    assert muster.api.run(DAG, run_id).state == "failed"
    elements = runs.read_status(muster.db, f"{DAG}.{run_id}")
    states = {element.group: element.state for element in elements if element.group != "inputs"}
    assert states == dict.fromkeys(("wind", "cover", "merge"), "missing_input")
    log = muster.api.task_log(DAG, run_id, ("verdict", -1))
    assert "wind: missing_input" in log
    assert "wind-2019-04.tif" in log
    assert "0 of 0 succeeded" in log
    tasks = muster.states(DAG, run_id)
    assert tasks["inspect", ""] == tasks["plan", ""] == "success"
    assert {s for (task, _), s in tasks.items() if task in ("resample", "merge")} == {"skipped"}
    assert "missing_input" in muster.api.task_log(DAG, run_id, ("merge", -1))
    assert not (folder / "out" / "all-2019-04.parquet").exists()
    assert not list((folder / "out").glob("2019/04/*.tif"))


def test_the_plan_tells_every_decision_with_its_reason(
    muster: Muster, backfilled: dict[int, str]
) -> None:
    log = muster.api.task_log(DAG, backfilled[1], ("plan", -1))
    for name in ("wind", "cover"):
        (line,) = [
            line for line in log.splitlines() if f"{name} resampling.resample: run: " in line
        ]
        assert "10 × 10" in line, "how a cell is made, and why"


@pytest.mark.thorough
def test_the_month_that_arrives_is_made_when_its_run_is_cleared(
    muster: Muster, folder: Path, backfilled: dict[int, str]
) -> None:
    run_id = backfilled[ABSENT]
    write_month(folder, ABSENT)
    muster.api.clear(DAG, run_id, ["inspect"], include_downstream=True)
    muster.wait(lambda: muster.api.run(DAG, run_id).state != "failed", 30)
    assert muster.api.wait_for_run(DAG, run_id, 400).state == "success"
    assert_month_is_right(folder, ABSENT)


@pytest.mark.thorough
def test_a_run_without_a_merge_says_so_and_a_dataset_that_fails_leaves_the_other_alone(
    muster: Muster, folder: Path, tmp_path: Path
) -> None:
    spoilt = tmp_path / "spoilt-2019-01.tif"
    spoilt.write_bytes((folder / "wind-2019-01.tif").read_bytes()[:900])
    datasets = [
        {"name": "cover", "path": str(folder / "cover-{year}-{month}.tif"), "method": "max"},
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


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"month": 3}, "month without year"),
        ({"configg": "x"}, "unknown params; got: configg"),
        ({"config": "/nowhere/resampling.yaml"}, "/nowhere/resampling.yaml"),
        ({"target": {}}, "placeholder {year}"),
    ],
)
def test_params_that_mean_nothing_are_refused(
    muster: Muster, folder: Path, changes: dict[str, Any], says: str
) -> None:
    run_id = muster.api.trigger(DAG, {"config": str(folder / "resampling.yaml"), **changes})
    assert muster.api.wait_for_run(DAG, run_id, 200).state == "failed"
    tasks = {task.task_id: task for task in muster.api.task_instances(DAG, run_id)}
    failed = next(t for t in ("open", "inspect", "plan") if tasks[t].state == "failed")
    assert tasks[failed].try_number == 1, "no retry can mend a parameter"
    assert says in muster.api.task_log(DAG, run_id, (failed, -1))
    assert tasks["verdict"].state == "failed"
    assert tasks["merge"].state in {"skipped", "upstream_failed"}
