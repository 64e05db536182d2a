"""Resampling as its users meet it: months by backfill, one of them without input, over REST."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
import yaml
from rasterio import Affine

from muster.store import runs

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.airflow.conftest import Muster

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(900)]

DAG = "resampling"
MONTHS = (1, 2, 3, 4, 5, 6)
ABSENT = 4
BLOCK = 10
ROWS, COLS = 3, 5
"""Of the target: no square, so that swapped axes fail."""
NODATA = -999.0

Array = np.ndarray[Any, Any]


def make_wind(month: int) -> Array:
    """Make a field, (row, col), that no flip or transpose leaves as it is, with a hole."""
    row, col = np.mgrid[0 : ROWS * BLOCK, 0 : COLS * BLOCK]
    field = month * 100.0 + row * 0.5 - col * 0.25 + (row * col) % 7
    field[:BLOCK, :BLOCK] = np.nan  # a whole cell
    field[BLOCK : BLOCK + 3, 2 * BLOCK : 2 * BLOCK + 5] = np.nan  # a part of one
    return field.astype("float32")


def make_cover(month: int) -> Array:
    row, col = np.mgrid[0 : ROWS * BLOCK, 0 : COLS * BLOCK]
    return ((row // 3 + col // 4 + month) % 5 + 1).astype("uint8")


def blocks(values: Array) -> Array:
    """Bring the pixels of each cell together: (row, col, pixel)."""
    cells = values.reshape(ROWS, BLOCK, COLS, BLOCK).swapaxes(1, 2)
    return cells.reshape(ROWS, COLS, BLOCK * BLOCK)


def expected_wind(month: int) -> Array:
    cells = blocks(make_wind(month)).astype("float64")
    counts = np.isfinite(cells).sum(axis=2)
    with np.errstate(invalid="ignore"):
        return np.where(counts > 0, np.nansum(cells, axis=2) / counts, np.nan)


def expected_cover(month: int) -> Array:
    found: Array = blocks(make_cover(month)).max(axis=2)
    return found


def write_month(folder: Path, month: int) -> None:
    profile = {
        "driver": "GTiff", "count": 1, "height": ROWS * BLOCK, "width": COLS * BLOCK,
        "crs": "EPSG:4326", "transform": Affine(0.01, 0, 5, 0, -0.01, 48),
    }  # fmt: skip
    wind = make_wind(month)
    path = folder / f"wind-2019-{month:02}.tif"
    with rasterio.open(path, "w", dtype="float32", nodata=NODATA, **profile) as dataset:
        dataset.write(np.where(np.isnan(wind), NODATA, wind), 1)
    path = folder / f"cover-2019-{month:02}.tif"
    with rasterio.open(path, "w", dtype="uint8", nodata=0, **profile) as dataset:
        dataset.write(make_cover(month), 1)


def write_config(folder: Path) -> Path:
    paths = {name: f"{name}-{{year}}-{{month}}.tif" for name in ("wind", "cover")}
    data = {
        "target": {"crs": "EPSG:4326", "resolution": 0.1, "extent": [5, 47.7, 5.5, 48]},
        "datasets": [
            {"name": "wind", "path": paths["wind"], "method": "average"},
            {"name": "cover", "path": paths["cover"], "method": "max"},
        ],
        "output": "out/{year}/{month}",
        "merge": {"output": "out/all-{year}-{month}.parquet", "incomplete": "drop"},
    }
    path = folder / "resampling.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def read(path: Path) -> Array:
    with rasterio.open(path) as dataset:
        assert dataset.crs == rasterio.CRS.from_epsg(4326)
        assert dataset.transform.almost_equals(Affine(0.1, 0, 5, 0, -0.1, 48), 1e-9)
        values: Array = np.ma.filled(dataset.read(1, masked=True).astype("float64"), np.nan)
    return values


def assert_month_is_right(folder: Path, month: int) -> None:
    out = folder / "out"
    wind, cover = expected_wind(month), expected_cover(month)
    made = read(out / "2019" / f"{month:02}" / "wind.tif")
    np.testing.assert_allclose(made, wind, rtol=1e-6)
    np.testing.assert_array_equal(read(out / "2019" / f"{month:02}" / "cover.tif"), cover)
    table = pq.read_table(out / f"all-2019-{month:02}.parquet").to_pydict()
    row, col = np.nonzero(np.isfinite(wind))
    assert table["row_idx"] == row.tolist()
    assert table["col_idx"] == col.tolist()
    np.testing.assert_allclose(table["wind"], wind[row, col], rtol=1e-6)
    assert table["cover"] == cover[row, col].tolist()
    np.testing.assert_allclose(table["x"], 5.05 + 0.1 * col)
    np.testing.assert_allclose(table["y"], 47.95 - 0.1 * row)


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


def test_the_month_that_arrives_is_made_when_its_run_is_cleared(
    muster: Muster, folder: Path, backfilled: dict[int, str]
) -> None:
    run_id = backfilled[ABSENT]
    write_month(folder, ABSENT)
    muster.api.clear(DAG, run_id, ["inspect"], include_downstream=True)
    muster.wait(lambda: muster.api.run(DAG, run_id).state != "failed", 30)
    assert muster.api.wait_for_run(DAG, run_id, 400).state == "success"
    assert_month_is_right(folder, ABSENT)


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
