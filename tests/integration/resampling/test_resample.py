"""The step as a job runs it: into files and Postgres, killed in the middle, twice at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg2
import pytest
import rasterio
import rasterio.shutil
from rasterio.transform import Affine

from muster.errors import ConfigError, InvalidInput, MissingInput
from muster.model.plan import Decision, Plan, PlannedElement
from muster.model.step import StepContext
from muster.raster.grid import Window
from muster.resampling import resample
from muster.resampling.layer import Layer
from muster.resampling.plan.inspect import inspect_datasets
from muster.resampling.resample import resample_dataset
from muster.resampling.stores.read import open_layer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from muster.store.database import Database

pytestmark = pytest.mark.slow

ROWS, COLS = 1536, 1024
STEP = """
import json, sys
from pathlib import Path
from muster.model.step import StepContext
from muster.resampling.resample import resample_dataset
inputs = json.loads(sys.argv[1])
context = StepContext(threads=2, scratch=Path(sys.argv[2]))
print(json.dumps(resample_dataset(**inputs, context=context)))
"""


def write_source(path: Path, *, seed: int = 0, left: float = 0.0) -> np.ndarray[Any, Any]:
    values = np.random.default_rng(seed).normal(size=(ROWS, COLS)).astype(np.float32)
    values[100:300, 200:700] = np.nan
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=ROWS,
        width=COLS,
        count=1,
        dtype="float32",
        crs="EPSG:32632",
        transform=Affine(10, 0, left, 0, -10, 5_000_000),
        nodata=np.nan,
        tiled=True,
        blockxsize=128,
        blockysize=128,
        compress="zstd",
    ) as dataset:
        dataset.write(values, 1)
    return values


def params(folder: Path, **more: Any) -> dict[str, Any]:
    dataset = {"name": "field", "path": str(folder / "source.tif"), "method": "average"}
    left, top = 0.0, 5_000_000.0
    return {
        "target": {
            "crs": "EPSG:32632",
            "resolution": more.pop("resolution", 20),
            "extent": [left, top - 10 * ROWS, left + 10 * COLS, top],
        },
        "datasets": [{**dataset, **more}],
        "output": str(folder / "out"),
    }


def plan(folder: Path, **more: Any) -> Plan:
    path = folder / "plan.json"
    inspect_datasets(params=params(folder, **more), plan=path)
    return Plan.model_validate_json(path.read_bytes())


def inputs(folder: Path, **more: Any) -> dict[str, Any]:
    (element,) = plan(folder, **more).elements
    assert element.decision is Decision.RUN, element.reason
    return element.inputs


def start(step_inputs: dict[str, Any], db: Database, scratch: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", STEP, json.dumps(step_inputs), str(scratch)],
        env={**os.environ, "MUSTER_STORE_URL": db.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def count_windows(db: Database) -> int:
    with db.transaction() as cursor:
        cursor.execute("SELECT count(*) FROM load_window")
        (count,) = cursor.fetchone()
    return int(count)


def read_rows(db: Database, table: str) -> list[tuple[Any, ...]]:
    with db.transaction() as cursor:
        cursor.execute(f"SELECT row_idx, col_idx, x, y, value FROM resampled.{table} ORDER BY 1, 2")
        return cursor.fetchall()


def read_whole(layer: dict[str, Any], db: Database, store: Any) -> np.ndarray[Any, Any]:
    known = Layer.model_validate(layer)
    with open_layer(known, db, store) as reader:
        return reader.read(Window(0, 0, known.grid.height, known.grid.width))


def block_mean(values: np.ndarray[Any, Any], k: int) -> np.ndarray[Any, Any]:
    blocks = values.reshape(ROWS // k, k, COLS // k, k).astype(np.float64)
    with np.errstate(invalid="ignore"), pytest.warns(RuntimeWarning, match="empty"):
        return np.nanmean(blocks, axis=(1, 3)).astype(np.float32)


@pytest.fixture
def store(db: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    monkeypatch.setenv("MUSTER_STORE_URL", db.url)
    return db


def test_every_store_holds_the_same(store: Database, tmp_path: Path) -> None:
    values = write_source(tmp_path / "source.tif")
    step = inputs(tmp_path, store=["tiles", "rows", "cog"])
    cog, picture = tmp_path / "cog.tif", tmp_path / "picture.png"
    facts = resample_dataset(
        **step, cog=cog, quicklook=picture, context=StepContext(threads=2, scratch=tmp_path)
    )
    expected = block_mean(values, 2)
    assert facts["cells_valid"] == np.isfinite(expected).sum()
    assert facts["loaded"] == {"tiles": 3, "rows": 3}
    assert picture.read_bytes()[:4] == b"\x89PNG"
    with rasterio.open(cog) as dataset:
        np.testing.assert_array_equal(dataset.read(1), expected)
        assert dataset.tags()["MUSTER_PLAN"].startswith("block: same CRS, aligned")
    for place in ("tiles", "rows"):
        np.testing.assert_array_equal(read_whole(step["layer"], store, place), expected)
    row, col, x, y, value = read_rows(store, "field")[0]
    assert (row, col, x, y) == (0, 0, 10.0, 5_000_000 - 10)
    assert value == expected[0, 0]


@pytest.mark.parametrize("where", [pytest.param("tiles", marks=pytest.mark.thorough), "rows"])
def test_a_load_that_was_killed_goes_on_and_equals_a_clean_one(
    where: str, store: Database, tmp_path: Path
) -> None:
    write_source(tmp_path / "source.tif")
    # Rows take their time; tiles are written faster than one can look.
    step = inputs(tmp_path, store=[where], resolution=10 if where == "rows" else 5)
    process = start({**step, "window_px": 256}, store, tmp_path)
    deadline = time.monotonic() + 120
    while count_windows(store) < 3:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = count_windows(store)
    again = start(step, store, tmp_path)
    out, err = again.communicate(timeout=200)
    assert again.returncode == 0, err
    assert json.loads(out)["loaded"][where] > 0
    assert count_windows(store) > before or before == 0
    found = read_whole(step["layer"], store, where)
    clean = {**step, "layer": {**step["layer"], "key": "clean", "table": "clean"}}
    if where == "tiles":
        clean["layer"]["table"] = None
    resample_dataset(**clean, context=StepContext(threads=1, scratch=tmp_path))
    assert read_whole(clean["layer"], store, where).tobytes() == found.tobytes()
    if where == "rows":
        assert read_rows(store, "field") == read_rows(store, "clean")


def test_two_at_once_load_it_once(store: Database, tmp_path: Path) -> None:
    values = write_source(tmp_path / "source.tif")
    step = inputs(tmp_path, store=["rows"])
    both = [start(step, store, tmp_path) for _ in range(2)]
    loaded = []
    for process in both:
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, err
        loaded.append(json.loads(out)["loaded"]["rows"])
    assert sorted(loaded) == [0, 3]
    np.testing.assert_array_equal(read_whole(step["layer"], store, "rows"), block_mean(values, 2))


def test_what_is_loaded_is_not_loaded_again_unless_it_changed(
    store: Database, tmp_path: Path
) -> None:
    write_source(tmp_path / "source.tif")
    step = inputs(tmp_path, store=["tiles"])
    context = StepContext(scratch=tmp_path)
    assert resample_dataset(**step, context=context)["loaded"] == {"tiles": 3}
    assert resample_dataset(**step, context=context)["loaded"] == {"tiles": 0}
    again = {**step, "overwrite": True}
    assert resample_dataset(**again, context=context)["loaded"] == {"tiles": 3}
    values = write_source(tmp_path / "source.tif", seed=1)
    changed = inputs(tmp_path, store=["tiles"])
    assert changed["layer"]["fingerprint"] != step["layer"]["fingerprint"]
    assert resample_dataset(**changed, context=context)["loaded"] == {"tiles": 3}
    np.testing.assert_array_equal(
        read_whole(changed["layer"], store, "tiles"), block_mean(values, 2)
    )


def test_a_dataset_on_the_grid_is_registered_and_read_from_its_source(
    store: Database, tmp_path: Path
) -> None:
    values = write_source(tmp_path / "source.tif")
    made = plan(tmp_path, resolution=10)
    (element,) = made.elements
    assert element.outputs == {}
    assert "registered, not read" in element.reason
    facts = resample_dataset(**element.inputs)
    assert facts == {"kind": "passthrough", "registered": True, "windows": 0}
    np.testing.assert_array_equal(read_whole(element.inputs["layer"], store, None), values)
    write_source(tmp_path / "source.tif", left=3.0)
    with pytest.raises(InvalidInput, match="has changed"):
        resample_dataset(**element.inputs)


def test_a_cog_that_is_up_to_date_is_reused(tmp_path: Path) -> None:
    write_source(tmp_path / "source.tif")
    (first,) = plan(tmp_path).elements
    (tmp_path / "out").mkdir()
    resample_dataset(
        **first.inputs,
        cog=tmp_path / "out" / "field.tif",
        context=StepContext(scratch=tmp_path),
    )
    (second,) = plan(tmp_path).elements
    assert second.decision is Decision.REUSED
    assert "up to date" in second.reason
    (other,) = plan(tmp_path, min_valid_fraction=0.5).elements
    assert other.decision is Decision.RUN


def test_a_source_that_changed_its_grid_since_the_plan_is_refused(tmp_path: Path) -> None:
    write_source(tmp_path / "source.tif")
    step = inputs(tmp_path)
    write_source(tmp_path / "source.tif", left=3.0)
    with pytest.raises(InvalidInput, match="has changed since the run was planned"):
        resample_dataset(**step, cog=tmp_path / "cog.tif")
    assert not (tmp_path / "cog.tif").exists()


def test_a_cog_of_something_else_is_not_taken_for_the_planned_one(tmp_path: Path) -> None:
    write_source(tmp_path / "source.tif")
    first = inputs(tmp_path, store="cog")
    (tmp_path / "out").mkdir()
    cog = tmp_path / "out" / "field.tif"
    resample_dataset(**first, cog=cog, context=StepContext(scratch=tmp_path))
    other = Layer.model_validate(inputs(tmp_path, store="cog", method="max")["layer"])
    with pytest.raises(MissingInput, match="made from something else"), open_layer(other, None):
        pass


def test_a_source_that_changes_under_the_work_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_source(tmp_path / "source.tif")
    step = inputs(tmp_path)
    looked = resample.look_at_source

    def look_and_change(*args: Any) -> Any:
        found = looked(*args)
        write_source(tmp_path / "source.tif", seed=1)
        return found

    monkeypatch.setattr(resample, "look_at_source", look_and_change)
    with pytest.raises(InvalidInput, match="has changed since the run was planned"):
        resample_dataset(**step, cog=tmp_path / "cog.tif", context=StepContext(scratch=tmp_path))
    assert not (tmp_path / "cog.tif").exists()


def test_a_job_that_is_not_told_of_the_store_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MUSTER_STORE_URL", raising=False)
    write_source(tmp_path / "source.tif")
    with pytest.raises(ConfigError, match="MUSTER_STORE_URL"):
        resample_dataset(**inputs(tmp_path, store=["tiles"]))


def test_a_placement_too_small_is_told(tmp_path: Path) -> None:
    write_source(tmp_path / "source.tif")
    step = inputs(tmp_path)
    with pytest.raises(ConfigError, match="too little memory"):
        resample_dataset(**step, cog=tmp_path / "c.tif", context=StepContext(memory_mib=300))


def test_one_bad_dataset_leaves_the_others_alone(tmp_path: Path) -> None:
    write_source(tmp_path / "source.tif")
    (tmp_path / "broken.tif").write_bytes(b"II*\0" + b"\0" * 100)
    asked = params(tmp_path)
    good = asked["datasets"][0]
    asked["datasets"] = [
        good,
        {**good, "name": "absent", "path": str(tmp_path / "absent.tif")},
        {**good, "name": "broken", "path": str(tmp_path / "broken.tif")},
        {**good, "name": "on", "store": "register"},
        {**good, "name": "none", "path": str(tmp_path / "none_*.tif")},
    ]
    asked["merge"] = {"output": str(tmp_path / "m.parquet"), "datasets": ["field", "absent"]}
    path = tmp_path / "plan.json"
    inspect_datasets(params=asked, plan=path)
    made = Plan.model_validate_json(path.read_bytes())
    assert {e.name: e.decision.value for e in made.elements} == {
        "field": "run",
        "absent": "missing_input",
        "broken": "invalid_input",
        "on": "invalid_input",
        "none": "missing_input",
        "merge": "missing_input",
    }
    assert set(made.products) == {"field"}


def test_the_plan_says_what_no_file_covers(tmp_path: Path) -> None:
    write_source(tmp_path / "tile_1.tif")
    write_source(tmp_path / "tile_2.tif", left=10.0 * COLS * 2)
    (element,) = plan(tmp_path, path=str(tmp_path / "tile_*.tif")).elements
    assert "none of the 2 files covers 33 % of their extent" in element.reason
    (element,) = plan(tmp_path, path=str(tmp_path / "tile_1.tif")).elements
    assert "covers" not in element.reason


def decide(asked: dict[str, Any], folder: Path) -> dict[str, str]:
    """Name the decision on each dataset, or why it is refused."""
    inspect_datasets(params=asked, plan=folder / "plan.json")
    made = Plan.model_validate_json((folder / "plan.json").read_bytes())
    refused = Decision.INVALID_INPUT
    return {e.name: e.reason if e.decision is refused else e.decision.value for e in made.elements}


@pytest.mark.parametrize("output", [".", "link"])
def test_a_result_never_takes_the_place_of_a_source(tmp_path: Path, output: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("field.tif", "source.tif"):
        write_source(tmp_path / name)
    asked = {**params(tmp_path), "output": str(tmp_path / output)}
    field = {**asked["datasets"][0], "store": ["cog"]}
    same = {**field, "path": str(tmp_path / "field.tif")}
    other = {**same, "name": "other"}
    decided = decide({**asked, "datasets": [same]}, tmp_path)
    assert "would take the place of a source" in decided["field"]
    decided = decide({**asked, "datasets": [field, other]}, tmp_path)
    assert "which is read for dataset other" in decided["field"]
    assert decided["other"] == "run"
    like = {**asked, "target": {"like": str(tmp_path / "field.tif")}, "datasets": [field]}
    assert "read for the target grid" in decide(like, tmp_path)["field"]
    assert decide({**asked, "datasets": [other]}, tmp_path) == {"other": "run"}
    elsewhere = {**asked, "output": str(tmp_path / "out"), "datasets": [same, other]}
    assert decide(elsewhere, tmp_path) == {"field": "run", "other": "run"}


def change_values(folder: Path) -> None:
    write_source(folder / "inner.tif", seed=1)


def change_scale(folder: Path) -> None:
    text = '<PAMDataset><PAMRasterBand band="1"><Scale>10</Scale></PAMRasterBand></PAMDataset>'
    (folder / "inner.tif.aux.xml").write_text(text)


def add_statistics(folder: Path) -> None:
    metadata = '<Metadata><MDI key="STATISTICS_MEAN">1</MDI></Metadata>'
    text = f'<PAMDataset><PAMRasterBand band="1">{metadata}</PAMRasterBand></PAMDataset>'
    (folder / "inner.tif.aux.xml").write_text(text)


@pytest.mark.parametrize(
    ("name", "change", "decision"),
    [
        ("outer.vrt", change_values, "run"),
        ("inner.tif", change_scale, "run"),
        ("inner.tif", add_statistics, "reused"),
    ],
)
def test_what_a_source_draws_on_is_part_of_it(
    tmp_path: Path, name: str, change: Callable[[Path], None], decision: str
) -> None:
    write_source(tmp_path / "inner.tif")
    rasterio.shutil.copy(tmp_path / "inner.tif", tmp_path / "outer.vrt", driver="VRT")
    path = str(tmp_path / name)
    cog = tmp_path / "out" / "field.tif"
    cog.parent.mkdir()
    step = inputs(tmp_path, path=path)
    resample_dataset(**step, cog=cog, context=StepContext(scratch=tmp_path))
    assert plan(tmp_path, path=path).elements[0].decision is Decision.REUSED
    change(tmp_path)
    assert plan(tmp_path, path=path).elements[0].decision.value == decision
    if decision == "run":
        with pytest.raises(InvalidInput, match="has changed since"):
            resample_dataset(**step, cog=cog, context=StepContext(scratch=tmp_path))


def test_the_store_is_not_touched_where_nothing_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("connected")

    monkeypatch.setattr(psycopg2, "connect", refuse)
    write_source(tmp_path / "source.tif")
    facts = resample_dataset(
        **inputs(tmp_path), cog=tmp_path / "cog.tif", context=StepContext(scratch=tmp_path)
    )
    assert facts["bytes"] > 0


def plan_merge(folder: Path, **more: Any) -> PlannedElement:
    asked = params(folder, store=["tiles"])
    name = more.pop("name", "field")
    asked["datasets"][0]["name"] = name
    merge = {"table": more.pop("table", "merged"), "output": more.pop("output", None)}
    inspect_datasets(params={**asked, "merge": merge, **more}, plan=folder / "plan.json")
    element = Plan.model_validate_json((folder / "plan.json").read_bytes()).elements[-1]
    assert element.decision is Decision.RUN, element.reason
    return element


def test_a_merge_is_named_after_its_table(tmp_path: Path) -> None:
    write_source(tmp_path / "source.tif")
    march = {"interval_start": "2024-03-01T00:00:00Z", "interval_end": "2024-04-01T00:00:00Z"}
    told = [
        plan_merge(tmp_path, **more).inputs["key"]
        for more in (
            {}, {"table": "other"}, march, {"table": None, "output": str(tmp_path / "m.parquet")}
        )
    ]  # fmt: skip
    assert told == ["merge:merged", "merge:other", "merge:merged_2024_03", "merge"]


def test_a_merge_says_what_its_columns_are_called_and_whether_it_is_made_again(
    tmp_path: Path,
) -> None:
    write_source(tmp_path / "source.tif")
    first, renamed = (plan_merge(tmp_path, name=name).inputs for name in ("field", "renamed"))
    assert first["layers"][0]["fingerprint"] == renamed["layers"][0]["fingerprint"]
    assert first["fingerprint"] != renamed["fingerprint"]
    assert first["overwrite"] is False
    assert plan_merge(tmp_path, overwrite=True).inputs["overwrite"] is True


def test_only_what_reads_from_the_store_or_loads_into_it_is_told_where_it_is(
    tmp_path: Path,
) -> None:
    write_source(tmp_path / "source.tif")
    file = {"output": str(tmp_path / "m.parquet")}
    needs = {}
    for stores in (["cog"], ["tiles"], ["rows", "cog"]):
        for merge in (file, {"table": "m"}):
            asked = {**params(tmp_path, store=stores), "merge": merge}
            inspect_datasets(params=asked, plan=tmp_path / "plan.json")
            made = Plan.model_validate_json((tmp_path / "plan.json").read_bytes())
            needs[*stores, *merge] = [element.needs_store for element in made.elements]
    assert needs == {
        ("cog", "output"): [False, False],
        ("cog", "table"): [False, True],
        ("tiles", "output"): [True, True],
        ("tiles", "table"): [True, True],
        ("rows", "cog", "output"): [True, False],
        ("rows", "cog", "table"): [True, True],
    }
