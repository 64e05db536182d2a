"""Months of two fields on one fine grid, and what they must be on a coarser one, cell by cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import rasterio
import yaml
from rasterio import Affine

if TYPE_CHECKING:
    from pathlib import Path

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
