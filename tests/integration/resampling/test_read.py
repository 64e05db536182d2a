"""Reading: the same values from tiles, rows and COG, whatever the window, and as files."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from rasterio.transform import Affine

from muster.cli.resampling_read import read as read_command
from muster.errors import ConfigError, InvalidInput, MissingInput
from muster.raster.grid import Window
from muster.resampling.extract import extract_layer, window_of_box
from muster.resampling.layer import FINGERPRINT_TAG, GridSpec
from muster.resampling.stores.load import open_load
from muster.resampling.stores.read import open_layer, read_layer_window
from muster.resampling.stores.recorded import record_layer
from muster.store.datasets import read_dataset
from tests.integration.resampling.layers import GRID, bands, cut, make_layer, make_values

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from muster.resampling.layer import Layer
    from muster.store.database import Database

WHOLE = Window(0, 0, 600, 700)


def write_geotiff(path: Path, layer: Layer, values: np.ndarray[Any, Any], **changes: Any) -> None:
    profile = {
        "driver": "GTiff", "dtype": values.dtype.name, "count": 1, "nodata": layer.nodata_value,
        "height": values.shape[0], "width": values.shape[1], "crs": layer.grid.crs,
        "transform": Affine(*layer.grid.transform), "tiled": True,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile | changes) as dataset:
        dataset.write(values, 1)
        dataset.update_tags(**{FINGERPRINT_TAG: layer.fingerprint})


@contextmanager
def in_all_places(db: Database, folder: Path, dtype: str) -> Iterator[tuple[Layer, Any]]:
    cog = folder / "elevation.tif"
    layer = make_layer(dtype, cog=str(cog))
    values = make_values(layer)
    write_geotiff(cog, layer, values)
    for store in ("tiles", "rows"):
        with open_load(db, layer, store) as load:
            for window in bands(layer):
                load.write(window, cut(values, window))
            load.finish()
    record_layer(db, layer)
    yield layer, values


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "uint8", "uint32"])
def test_all_places_give_the_same(db: Database, tmp_path: Path, dtype: str) -> None:
    rng = np.random.default_rng(3)
    with in_all_places(db, tmp_path, dtype) as (layer, values):
        for store in ("tiles", "rows", "cog"):
            with open_layer(layer, db, store) as reader:
                assert reader.grid == layer.grid.to_grid()
                for _ in range(12):
                    row, col = int(rng.integers(600)), int(rng.integers(700))
                    window = Window(
                        row, col, int(rng.integers(1, 601 - row)), int(rng.integers(1, 701 - col))
                    )
                    found = reader.read(window)
                    assert found.dtype == dtype
                    np.testing.assert_array_equal(found, cut(values, window), f"{store} {window}")


@pytest.mark.parametrize("store", ["tiles", "rows", "cog"])
@pytest.mark.parametrize(
    "window",
    [Window(-1, 0, 5, 5), Window(0, -1, 5, 5), Window(598, 0, 3, 1), Window(0, 699, 1, 2),
     Window(0, 0, 0, 5), Window(600, 700, 1, 1)],
)  # fmt: skip
def test_a_window_that_is_not_inside_is_refused(
    db: Database, tmp_path: Path, store: Any, window: Window
) -> None:
    with (
        in_all_places(db, tmp_path, "uint8") as (layer, _),
        pytest.raises(InvalidInput, match="the window is not inside the grid"),
    ):
        read_layer_window(layer, db, window, store)


def test_files_are_preferred_to_postgres(db: Database, tmp_path: Path) -> None:
    with in_all_places(db, tmp_path, "int16") as (layer, values):
        write_geotiff(tmp_path / "elevation.tif", layer, values * 0 + 7)
        assert read_layer_window(layer, db, Window(300, 300, 1, 1))[0, 0] == 7
        (tmp_path / "elevation.tif").unlink()
        with pytest.raises(MissingInput, match=r"elevation\.tif"):
            read_layer_window(layer, db, WHOLE)
        without = layer.model_copy(update={"cog": None})
        np.testing.assert_array_equal(read_layer_window(without, db, WHOLE), values)
        with pytest.raises(MissingInput, match="expected: tiles, rows"):
            read_layer_window(without, db, WHOLE, "cog")
        with pytest.raises(ConfigError, match="needs a store"):
            read_layer_window(without, None, WHOLE)


def test_a_registered_layer_is_read_from_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = make_layer("float32", registered=True, cog="/not/there.tif")

    class Source:
        grid = layer.grid.to_grid()

        def read(self, window: Window) -> np.ndarray[Any, Any]:
            return np.full((window.height, window.width), window.row, "float32")

    @contextmanager
    def open_registered(asked: Layer) -> Iterator[Source]:
        assert asked is layer
        yield Source()

    module = SimpleNamespace(open_registered=open_registered)
    monkeypatch.setitem(sys.modules, "muster.resampling.stores.registered", module)
    assert (read_layer_window(layer, None, Window(7, 0, 2, 3)) == np.full((2, 3), 7)).all()
    with pytest.raises(InvalidInput, match="not inside the grid"):
        read_layer_window(layer, None, Window(599, 0, 2, 3), "register")


def test_a_cog_of_another_grid_or_type_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "elevation.tif"
    layer = make_layer("float32", cog=str(path))
    values = make_values(layer)
    moved = Affine(*GRID.transform) @ Affine.translation(1, 0)
    for changes, difference in (
        ({"transform": moved}, "alignment"),
        ({"crs": "EPSG:3857"}, "CRS"),
        ({"dtype": "float64"}, "data type"),
    ):
        write_geotiff(path, layer, values, **changes)
        with pytest.raises(InvalidInput, match=f"differs in {difference}"):
            read_layer_window(layer, None, WHOLE)


def test_nodata_of_a_cog_becomes_the_layers(tmp_path: Path) -> None:
    path = tmp_path / "elevation.tif"
    layer = make_layer("float32", cog=str(path))
    values = make_values(layer)
    write_geotiff(path, layer, np.nan_to_num(values, nan=-1e30), nodata=-1e30)
    np.testing.assert_array_equal(read_layer_window(layer, None, WHOLE), values)


def test_integers_without_nodata_have_a_value_everywhere(db: Database) -> None:
    layer = make_layer("uint8").model_copy(update={"nodata": None})
    values = np.arange(600 * 700, dtype="uint8").reshape(600, 700)
    for store in ("tiles", "rows"):
        with open_load(db, layer, store) as load:
            for window in bands(layer):
                load.write(window, cut(values, window))
            load.finish()
        np.testing.assert_array_equal(read_layer_window(layer, db, WHOLE, store), values)
    with db.transaction() as cursor:
        cursor.execute("DELETE FROM resampled.elevation WHERE row_idx = 5 AND col_idx = 6")
    with pytest.raises(InvalidInput, match="rows are lost"):
        read_layer_window(layer, db, Window(0, 0, 10, 10), "rows")


def test_a_damaged_tile_is_found_and_a_lost_one_too(db: Database, tmp_path: Path) -> None:
    with in_all_places(db, tmp_path, "float32") as (layer, values):
        with db.transaction() as cursor:
            cursor.execute(
                "UPDATE tile SET data = set_byte(data, 100, get_byte(data, 100) # 1)"
                " WHERE (tile_row, tile_col) = (1, 2)"
            )
        with pytest.raises(
            InvalidInput, match="dataset elevation, tile row 1, tile column 2; got: checksum"
        ):
            read_layer_window(layer, db, WHOLE, "tiles")
        beside = Window(0, 0, 600, 512)
        np.testing.assert_array_equal(
            read_layer_window(layer, db, beside, "tiles"), cut(values, beside)
        )
        with db.transaction() as cursor:
            cursor.execute("DELETE FROM tile WHERE (tile_row, tile_col) = (1, 2)")
        with pytest.raises(InvalidInput, match="tiles are lost from the store"):
            read_layer_window(layer, db, WHOLE, "tiles")


@pytest.mark.parametrize("store", ["tiles", "rows"])
def test_what_has_not_been_loaded_is_missing(db: Database, store: Any) -> None:
    with pytest.raises(MissingInput, match=f"the dataset is not in {store}"):
        read_layer_window(make_layer(), db, WHOLE, store)


@pytest.mark.parametrize(
    ("box", "window"),
    [
        ((-70_000, -270_000, 630_000, 30_000), WHOLE),
        ((-70_000, 29_500, -69_000, 30_000), Window(0, 0, 1, 1)),
        ((-69_001, 29_000, -66_999, 29_499), Window(1, 0, 1, 4)),
        ((600_000, -1e9, 1e9, -269_500), Window(599, 670, 1, 30)),
    ],
)
def test_a_box_is_the_cells_that_it_touches(box: Any, window: Window) -> None:
    assert window_of_box(GRID.to_grid(), box) == window


@pytest.mark.parametrize("box", [(0, 0, 0, 1), (0, 5, 1, 1), (700_000, 0, 700_001, 1)])
def test_a_box_that_is_none_is_refused(box: Any) -> None:
    with pytest.raises(InvalidInput, match="box"):
        window_of_box(GRID.to_grid(), box)


@pytest.fixture
def invoke(db: Database, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MUSTER_STORE_URL", db.url)

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(read_command, arguments)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.output

    return run


PART = Window(200, 150, 300, 400)


@pytest.mark.parametrize("store", ["tiles", "rows", "cog"])
def test_the_command_sums_up(db: Database, tmp_path: Path, invoke: Any, store: str) -> None:
    with in_all_places(db, tmp_path, "float64") as (_, values):
        said = json.loads(
            invoke("elevation", "--window", "200", "150", "300", "400", "--store", store, "--json")
        )
        part = cut(values, PART)
        part = part[part != -9999]
        assert said["valid"] == part.size
        assert (said["min"], said["max"]) == (part.min(), part.max())
        assert said["mean"] == pytest.approx(part.mean(), rel=1e-12)
        assert (said["read_from"], said["window"]) == (store, [200, 150, 300, 400])
        text = invoke("elevation", "--bbox", "80000", "-220000", "480000", "-70000")
        assert f"{part.size:,} valid of 120,000" in text
        assert "read from cog" in text


@pytest.mark.parametrize(("dtype", "store"), [("float32", "tiles"), ("int16", "rows")])
def test_the_command_writes_files(
    db: Database, tmp_path: Path, invoke: Any, dtype: str, store: str
) -> None:
    with in_all_places(db, tmp_path, dtype) as (layer, values):
        part = cut(values, PART)
        for suffix in ("tif", "csv", "npy"):
            invoke(
                "elevation", "--window", "200", "150", "300", "400", "--store", store,
                "--output", str(tmp_path / f"out.{suffix}"),
            )  # fmt: skip
        np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), part)
        with rasterio.open(tmp_path / "out.tif") as dataset:
            np.testing.assert_array_equal(dataset.read(1), part)
            assert dataset.dtypes == (dtype,)
            assert dataset.xy(0, 0) == (80_500, -70_250)
            assert dataset.nodata == pytest.approx(layer.nodata_value, nan_ok=True)
        header, *lines = (tmp_path / "out.csv").read_text().splitlines()
        assert header == "row_idx,col_idx,x,y,value"
        again = np.full(values.shape, layer.nodata_value, dtype)
        for line in lines:
            row, col, x, y, value = line.split(",")
            again[int(row), int(col)] = np.dtype(dtype).type(value)
            assert (float(x), float(y)) == (
                -70_000 + 1000 * (int(col) + 0.5),
                30_000 - 500 * (int(row) + 0.5),
            )
        np.testing.assert_array_equal(cut(again, PART), part)


def test_what_fails_leaves_no_file_and_no_old_one_harmed(
    db: Database, tmp_path: Path, invoke: Any
) -> None:
    with in_all_places(db, tmp_path, "float32"):
        (tmp_path / "out.npy").write_text("old")
        with db.transaction() as cursor:
            cursor.execute("UPDATE tile SET checksum = 1 WHERE (tile_row, tile_col) = (2, 2)")
        before = sorted(tmp_path.iterdir())
        for suffix in ("npy", "csv", "tif"):
            output = str(tmp_path / f"out.{suffix}")
            with pytest.raises(InvalidInput, match="tile row 2"):
                invoke("elevation", "--store", "tiles", "--output", output)
        assert sorted(tmp_path.iterdir()) == before
        assert (tmp_path / "out.npy").read_text() == "old"


def test_the_command_explains_what_is_wrong(db: Database, tmp_path: Path, invoke: Any) -> None:
    with in_all_places(db, tmp_path, "float32") as (layer, _):
        with pytest.raises(MissingInput, match="no such dataset; got: elevatoin; expected: elev"):
            invoke("elevatoin")
        with pytest.raises(ConfigError, match=r"expected: \.tif, \.csv, \.npy"):
            invoke("elevation", "--output", "out.jpg")
        both = invoke("elevation", "--window", "0", "0", "1", "1", "--bbox", "0", "0", "1", "1")
        assert "give one of them" in both
        without = layer.model_copy(update={"dtype": "int16", "nodata": None})
        ones = np.ones((600, 700), "int16")
        write_geotiff(tmp_path / "elevation.tif", without, ones, nodata=None)
        with pytest.raises(ConfigError, match="integers without nodata"):
            extract_layer(without, db, WHOLE, output=str(tmp_path / "out.tif"))


def test_the_command_lists_what_there_is(db: Database, tmp_path: Path, invoke: Any) -> None:
    assert invoke() == "no datasets yet\n"
    assert json.loads(invoke("--json")) == {"datasets": []}
    with in_all_places(db, tmp_path, "float32") as (layer, _):
        registered = layer.model_copy(
            update={"key": "relief@2024-03", "registered": True, "cog": None}
        )
        record_layer(db, registered, "run-1")
        first, second = invoke().splitlines()
        grid = layer.grid.to_grid().describe()
        assert first.endswith(f"Z  elevation       cog, rows, tiles   {grid}")
        assert second.endswith(f"Z  relief@2024-03  register           {grid}")
        (_, told) = json.loads(invoke("--json"))["datasets"]
        recorded_at = str(read_dataset(db, "relief@2024-03").recorded_at)
        assert told == {
            "key": "relief@2024-03", "grid": grid, "stores": ["register"], "run": "run-1",
            "recorded_at": recorded_at,
        }  # fmt: skip
        # Tiles and rows of before are not this dataset's.
        record_layer(db, layer.model_copy(update={"fingerprint": "e" * 64, "cog": None}))
        assert "  nowhere  " in invoke().splitlines()[0]
    assert "say which dataset" in invoke("--store", "cog")


def test_a_very_wide_layer_is_read_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muster.resampling.extract._MOST_CELLS", 256 * 256)
    path = tmp_path / "wide.tif"
    grid = GridSpec(**GRID.model_dump() | {"height": 300, "width": 1000})
    layer = make_layer("float32", grid=grid, cog=str(path))
    values = make_values(layer)
    write_geotiff(path, layer, values)
    output = str(tmp_path / "out.npy")
    found = extract_layer(layer, None, Window(10, 20, 280, 970), output=output)
    part = values[10:290, 20:990]
    np.testing.assert_array_equal(np.load(output), part)
    assert found.valid == np.isfinite(part).sum()
