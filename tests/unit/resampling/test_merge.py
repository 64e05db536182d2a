"""Merging to Parquet: the cells of whole arrays, whatever the bands, in bounded memory."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.errors import ConfigError, InvalidInput, MissingInput
from muster.model.step import StepContext, call_step
from muster.raster.grid import Grid
from muster.raster.windows import MemoryPlan
from muster.resampling.layer import GridSpec
from muster.resampling.merging import merge, merge_parquet
from muster.resampling.merging.merge import merge_layers, plan_bands
from tests.peak_memory import peak_memory_mib
from tests.unit.resampling.layers import TRANSFORM, Arrays, make_grid, make_layer

if TYPE_CHECKING:
    from pathlib import Path

    from muster.resampling.layer import Layer

GRID = make_grid(300, 170)
LAYERS = [
    make_layer("warm", GRID, "float32", dataset={"description": "mean temperature"}),
    make_layer("cover", GRID, "uint8", nodata=255, dataset={"method": "mode"}),
    make_layer("people", GRID, "float64", nodata=-1.0, dataset={"method": "sum"}),
    make_layer("code", GRID, "uint32", nodata=4294967295.0, dataset={"method": "nearest"}),
]


def make_arrays(grid: Grid = GRID) -> dict[str, np.ndarray[Any, Any]]:
    """Make values in which every cell is another, with holes that overlap in part."""
    row, col = np.mgrid[0 : grid.height, 0 : grid.width]
    rng = np.random.default_rng(5)
    warm = (row * 1000 + col).astype(np.float32)
    warm[rng.random(warm.shape) < 0.2] = np.nan
    cover = (row % 250).astype(np.uint8)
    cover[rng.random(warm.shape) < 0.1] = 255
    people = row + col / 1000
    people[rng.random(warm.shape) < 0.1] = -1
    code = (row * grid.width + col + 3_000_000_000).astype(np.uint32)
    code[rng.random(warm.shape) < 0.1] = 4294967295
    for values, nodata in ((warm, np.nan), (cover, 255), (people, -1), (code, 4294967295)):
        values[20:40, 30:90] = nodata
    return {"warm": warm, "cover": cover, "people": people, "code": code}


ARRAYS = make_arrays()
VALID = {
    "warm": np.isfinite(ARRAYS["warm"]),
    "cover": ARRAYS["cover"] != 255,
    "people": ARRAYS["people"] != -1,
    "code": ARRAYS["code"] != 4294967295,
}
ALL = np.logical_and.reduce(list(VALID.values()))
SOME = np.logical_or.reduce(list(VALID.values()))


@pytest.fixture(autouse=True)
def arrays(monkeypatch: pytest.MonkeyPatch) -> Arrays:
    opened = Arrays(ARRAYS)
    monkeypatch.setattr(merge, "open_layer", opened)
    return opened


def dump(layers: list[Layer]) -> list[dict[str, Any]]:
    """Say layers as a plan does: through JSON."""
    found: list[dict[str, Any]] = json.loads(
        json.dumps([layer.model_dump(mode="json") for layer in layers])
    )
    return found


def run(path: Path, incomplete: str = "drop", **more: Any) -> dict[str, Any]:
    return merge_layers(layers=dump(LAYERS), incomplete=incomplete, parquet=path, **more)


@pytest.mark.parametrize(("incomplete", "kept"), [("drop", ALL), ("keep", SOME)])
def test_the_rows_are_the_cells_of_the_grid_in_its_order(
    tmp_path: Path, incomplete: str, kept: np.ndarray[Any, Any]
) -> None:
    facts = run(tmp_path / "m.parquet", incomplete)
    found = pq.read_table(tmp_path / "m.parquet")
    row, col = np.nonzero(kept)
    assert found.column_names == ["row_idx", "col_idx", "x", "y", "warm", "cover", "people", "code"]
    assert [str(kind) for kind in found.schema.types] == [
        "int32", "int32", "double", "double", "float", "uint8", "double", "uint32",
    ]  # fmt: skip
    np.testing.assert_array_equal(found["row_idx"], row)
    np.testing.assert_array_equal(found["col_idx"], col)
    np.testing.assert_allclose(found["x"], 5 + 0.02 * (col + 0.5), rtol=1e-15)
    np.testing.assert_allclose(found["y"], 55 - 0.01 * (row + 0.5), rtol=1e-15)
    for name, values in ARRAYS.items():
        column = found[name].combine_chunks()
        there = VALID[name][row, col]
        np.testing.assert_array_equal(column.is_valid(), there)
        np.testing.assert_array_equal(column.drop_null(), values[row, col][there])
    assert facts == {
        "rows": int(kept.sum()),
        "cells": 300 * 170,
        "complete": int(ALL.sum()),
        "incomplete": int((SOME & ~ALL).sum()),
        "bytes": (tmp_path / "m.parquet").stat().st_size,
    }


def test_the_file_says_what_it_is_made_from(tmp_path: Path) -> None:
    run(tmp_path / "m.parquet", "keep", key="merge@2024-03", fingerprint="abc")
    schema = pq.read_schema(tmp_path / "m.parquet")
    document = json.loads(schema.metadata[b"muster"])
    assert (document["key"], document["fingerprint"]) == ("merge@2024-03", "abc")
    assert document["incomplete"] == "keep"
    assert GridSpec.model_validate(document["grid"]).to_grid() == GRID
    assert [said["name"] for said in document["datasets"]] == list(ARRAYS)
    assert document["datasets"][0] == {
        "name": "warm",
        "key": "warm",
        "unit": "u_warm",
        "description": "mean temperature",
        "method": "average",
        "sources": ["/data/warm.tif"],
        "band": 1,
        "kind": "warp",
        "reason": "another CRS",
        "fingerprint": "f-warm",
    }
    assert schema.field("warm").metadata[b"unit"] == b"u_warm"
    assert schema.field("x").metadata[b"unit"] == b"degree"


def test_the_same_bytes_come_of_any_bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Rows by the thousand, so that groups end in the middle of bands.
    monkeypatch.setattr(merge_parquet, "MOST_GROUP_ROWS", 1 << 10)
    run(tmp_path / "0.parquet", "keep")
    wanted = (tmp_path / "0.parquet").read_bytes()
    groups = pq.ParquetFile(tmp_path / "0.parquet").metadata
    sizes = {groups.row_group(i).num_rows for i in range(groups.num_row_groups - 1)}
    assert sizes == {1024}
    for number, (height, width) in enumerate([(1, 170), (7, 170), (256, 170), (1, 33)], start=1):

        def plan(grid: Grid, *_: Any, height: int = height, width: int = width) -> Any:
            for row in range(0, grid.height, height):
                for col in range(0, grid.width, width):
                    yield merge.Window(
                        row, col, min(height, grid.height - row), min(width, grid.width - col)
                    )

        monkeypatch.setattr(merge, "plan_bands", plan)
        run(tmp_path / f"{number}.parquet", "keep")
        assert (tmp_path / f"{number}.parquet").read_bytes() == wanted, (height, width)


@given(
    height=st.integers(1, 600),
    width=st.integers(1, 3_000_000),
    layers=st.integers(1, 60),
    window_mib=st.integers(1, 256),
)
def test_bands_cover_the_grid_row_by_row_within_the_memory(
    height: int, width: int, layers: int, window_mib: int
) -> None:
    many = [make_layer(f"d{n}", make_grid(1, 1), "float64") for n in range(1)] * layers
    grid = make_grid(height, width)
    position = 0
    for count, window in enumerate(plan_bands(grid, many, MemoryPlan(window_mib, 0))):
        assert window.row * width + window.col == position
        assert window.height == 1 or window.width == width
        assert window.pixels * (8 * layers) < window_mib << 20
        assert window.height <= 256
        position += window.pixels
        if count > 500:
            return
    assert position == height * width


def test_no_cell_is_kept_where_nothing_has_a_value(tmp_path: Path, arrays: Arrays) -> None:
    empty = {name: np.full_like(values, values[25, 35]) for name, values in ARRAYS.items()}
    arrays.values = empty
    facts = run(tmp_path / "m.parquet", "keep")
    assert (facts["rows"], facts["complete"], facts["incomplete"]) == (0, 0, 0)
    found = pq.read_table(tmp_path / "m.parquet")
    assert found.num_rows == 0
    assert found.num_columns == 8


def test_each_cell_is_read_once(tmp_path: Path, arrays: Arrays) -> None:
    run(tmp_path / "m.parquet")
    assert sum(window.pixels for window in arrays.asked) == 4 * 300 * 170
    assert max(window.height for window in arrays.asked) <= 512


def test_more_rows_are_read_at_once_than_are_worked_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Rows so wide that little memory holds few of them: blocks of many rows would be decoded for
    # each of the windows.
    grid = make_grid(300, 3000)
    values = make_arrays(grid)
    opened = Arrays(values)
    monkeypatch.setattr(merge, "open_layer", opened)
    layers = [layer.model_copy(update={"grid": GridSpec.of(grid)}) for layer in LAYERS]
    path = tmp_path / "m.parquet"
    facts = merge_layers(
        layers=dump(layers), parquet=path, context=StepContext(memory_mib=80), incomplete="keep"
    )
    windows = list(plan_bands(grid, layers, MemoryPlan(16, 0)))
    assert {window.height for window in windows[:-1]} == {16}
    assert [w.height for w in opened.asked] == [128] * 8 + [44] * 4
    some = np.isfinite(values["warm"]) | (values["cover"] != 255) | (values["people"] != -1)
    some |= values["code"] != 4294967295
    assert facts["rows"] == some.sum()
    found = pq.read_table(path)
    row, col = np.nonzero(some)
    np.testing.assert_array_equal(found["row_idx"], row)
    np.testing.assert_array_equal(found["code"].fill_null(4294967295), values["code"][row, col])


def test_a_turned_grid_has_turned_centres(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turned = Grid(GRID.crs, TRANSFORM @ TRANSFORM.rotation(30), 5, 7)
    layer = make_layer("warm", turned, "float32")
    monkeypatch.setattr(merge, "open_layer", Arrays({"warm": np.ones((5, 7), np.float32)}))
    merge_layers(layers=dump([layer]), parquet=tmp_path / "m.parquet")
    found = pq.read_table(tmp_path / "m.parquet").to_pylist()
    x, y = turned.transform @ (3.5, 4.5)
    cell = next(line for line in found if (line["row_idx"], line["col_idx"]) == (4, 3))
    assert (cell["x"], cell["y"]) == pytest.approx((x, y), rel=1e-14)


def test_the_runner_can_call_it(tmp_path: Path) -> None:
    told: list[float] = []
    context = StepContext(memory_mib=512, progress=lambda share, _: told.append(share))
    facts = call_step(
        merge_layers,
        {"layers": dump(LAYERS[:1]), "incomplete": "keep"},
        {"parquet": tmp_path / "m.parquet"},
        context,
    )
    assert facts["rows"] == int(VALID["warm"].sum())
    assert told == sorted(told)
    assert told[-1] == 1.0


class TestRefused:
    """What is wrong is said before anything is written."""

    @pytest.fixture(autouse=True)
    def nothing_is_left(self, tmp_path: Path) -> Any:
        yield
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("name", ["row_idx", "col_idx", "x", "Y"])
    def test_a_dataset_called_as_a_coordinate(self, tmp_path: Path, name: str) -> None:
        layers = dump([LAYERS[0], make_layer(name, GRID, "float32")])
        with pytest.raises(ConfigError, match=rf"got: {name};.*row_idx"):
            merge_layers(layers=layers, parquet=tmp_path / "m.parquet")

    def test_a_dataset_twice(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"one name.*warm"):
            merge_layers(layers=dump([LAYERS[0]] * 2), parquet=tmp_path / "m.parquet")

    def test_nothing_to_merge_or_to_write_to(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="at least one dataset"):
            merge_layers(layers=[], parquet=tmp_path / "m.parquet")
        with pytest.raises(ConfigError, match="a file or a table"):
            merge_layers(layers=dump(LAYERS))
        with pytest.raises(ConfigError, match="drop or keep"):
            run(tmp_path / "m.parquet", "maybe")

    @pytest.mark.parametrize(
        ("grid", "what"),
        [
            (make_grid(300, 171), "size"),
            (Grid(GRID.crs, TRANSFORM @ TRANSFORM.translation(0.5, 0), 300, 170), "alignment"),
        ],
    )
    def test_another_grid(self, tmp_path: Path, grid: Grid, what: str) -> None:
        layers = dump([LAYERS[0], make_layer("cover", grid, "uint8", nodata=255)])
        with pytest.raises(InvalidInput, match=rf"\(.*{what}.*where: cover;.*as warm"):
            merge_layers(layers=layers, parquet=tmp_path / "m.parquet")

    def test_a_file_of_another_grid_than_its_layer_says(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(merge, "open_layer", Arrays(ARRAYS, make_grid(301, 170)))
        with pytest.raises(InvalidInput, match=r"size.*where: warm"):
            run(tmp_path / "m.parquet")

    def test_a_dataset_that_is_not_there(self, tmp_path: Path) -> None:
        layers = dump([LAYERS[0], make_layer("soil", GRID, "float32", key="soil@2024-03")])
        layers[1]["dataset"]["name"] = "soil"
        with pytest.raises(MissingInput, match=r"where: soil@2024-03.*resample it first"):
            merge_layers(layers=layers, parquet=tmp_path / "m.parquet")

    def test_a_file_that_breaks_halfway(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def read_window(self: Any, window: Any) -> Any:
            if window.row:
                raise InvalidInput("broken")
            return read(self, window)

        read = merge.Merging.read_window
        monkeypatch.setattr(merge.Merging, "read_window", read_window)
        with pytest.raises(InvalidInput, match="broken"):
            run(tmp_path / "m.parquet")

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInput, match="absent"):
            run(tmp_path / "absent" / "m.parquet")


@pytest.mark.thorough
def test_memory_is_bounded(tmp_path: Path) -> None:
    code = f"""
import numpy as np
from pathlib import Path
from muster.model.step import StepContext
from muster.resampling.merging import merge
from tests.unit.resampling.layers import make_grid, make_layer
import contextlib

class Reader:
    grid = make_grid(8000, 4000)
    def read(self, window):
        row, col = np.ogrid[window.row:window.row + window.height, 0:window.width]
        return (row + col * 0.001).astype(np.float32)

merge.open_layer = lambda layer, db: contextlib.nullcontext(Reader())
layers = [make_layer(n, Reader.grid, "float32").model_dump(mode="json") for n in ("a", "b", "c")]
path = Path({str(tmp_path / "m.parquet")!r})
facts = merge.merge_layers(layers=layers, parquet=path, context=StepContext(memory_mib=512))
assert facts["rows"] == 32_000_000, facts
path.unlink()
"""
    # The rasters are 366 MiB, and the rows that come of them 1.1 GiB.
    peak = peak_memory_mib(code)
    assert peak < 420, peak


def test_row_groups_follow_from_the_columns_alone() -> None:
    many = [make_layer(f"d{n}", GRID, "float64") for n in range(300)]
    rows = merge_parquet.group_rows(many)
    assert rows == 1 << 14
    assert merge_parquet.group_rows(LAYERS[:1]) == 1 << 20
    assert isinstance(merge_parquet.make_schema(LAYERS, GRID, {}), pa.Schema)
