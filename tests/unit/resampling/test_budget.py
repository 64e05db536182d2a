"""What strips are made of where source and target are of very different sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.transform import Affine

from muster.raster.grid import Grid
from muster.resampling.compute.plan_stream import Demand, Prepared, prepare
from muster.resampling.compute.reader import StripReader
from muster.resampling.compute.source import look_at_source
from muster.resampling.config.datasets import Dataset
from muster.resampling.plan.estimate import estimate_seconds

if TYPE_CHECKING:
    from pathlib import Path


def write(path: Path, values: np.ndarray[Any, Any], transform: Affine, **more: Any) -> None:
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=values.shape[0],
        width=values.shape[1],
        count=1,
        dtype=values.dtype,
        crs="EPSG:4326",
        transform=transform,
        **more,
    ) as dataset:
        dataset.write(values, 1)


def ready(path: Path, grid: Grid, method: str, demand: Demand) -> Prepared:
    dataset = Dataset.model_validate({"name": "a", "path": str(path), "method": method})
    return prepare(look_at_source([str(path)]), grid, dataset, demand)


def whole(prepared: Prepared) -> np.ndarray[Any, Any]:
    grid = prepared.stream.work.grid
    result = np.full((grid.height, grid.width), np.nan)
    for window, values in prepared.stream.windows():
        rows, cols = (slice(*part) for part in window.ranges)
        result[rows, cols] = values
    return result


@pytest.mark.parametrize("method", ["average", "max", "median", "nearest", "bilinear", "sum"])
def test_a_small_region_in_a_global_target_takes_little_memory(method: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((300, 300))
    write(tmp_path / "a.tif", values, Affine(1e-4, 0, 10.1, 0, -1e-4, 45.15))
    globe = Grid(CRS.from_epsg(4326), Affine(0.5, 0, -180, 0, -0.5, 90), 360, 720)
    prepared = ready(tmp_path / "a.tif", globe, method, Demand(memory_mib=256))
    assert prepared.stream.work.memory_mib < 128
    found = whole(prepared)
    row, col = int((90 - 45.15) / 0.5), int((10.1 + 180) / 0.5)
    # The centre of the only cell that it lies in is outside it.
    expected = {
        "average": values.mean(),
        "max": values.max(),
        "median": np.median(values),
        "sum": values.sum(),
    }.get(method, np.nan)
    np.testing.assert_allclose(found[row, col], expected, rtol=1e-6)
    found[row, col] = np.nan
    assert np.isnan(found).all()


def test_many_pixels_a_cell_are_worked_on_in_narrow_strips(tmp_path: Path) -> None:
    wide = Affine(1e-3, 0, 0, 0, -1e-3, 20)
    with rasterio.open(
        tmp_path / "wide.tif",
        "w",
        driver="GTiff",
        height=20_000,
        width=40_000,
        count=1,
        dtype="float32",
        crs="EPSG:4326",
        transform=wide,
        tiled=True,
        blockxsize=512,
        blockysize=512,
        sparse_ok=True,
    ):
        pass
    coarse = Grid(CRS.from_epsg(4326), Affine(2, 0, 0, 0, -2, 20), 10, 20)
    prepared = ready(tmp_path / "wide.tif", coarse, "average", Demand(memory_mib=128))
    work = prepared.stream.work
    assert work.memory_mib <= 128
    assert len(work.strips) > 1
    assert work.strips[-1][1] == 20


def test_an_estimate_reads_no_more_than_its_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.zeros((4000, 1000), np.uint8)
    write(tmp_path / "a.tif", values, Affine(1e-3, 0, 0, 0, -1e-3, 4), compress="deflate")
    grid = Grid(CRS.from_epsg(4326), Affine(4e-3, 0, 0, 0, -4e-3, 4), 1000, 250)
    prepared = ready(tmp_path / "a.tif", grid, "average", Demand())
    rows: list[int] = []
    read = StripReader._read

    def count(self: StripReader, begin: int, end: int) -> None:
        rows.append(end - begin)
        read(self, begin, end)

    monkeypatch.setattr(StripReader, "_read", count)
    seconds = estimate_seconds(prepared)
    assert seconds is not None
    assert 0 < max(rows) <= 256
