"""Layers for the tests: a grid off the origin, not square, with an edge that cuts tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from muster.raster.grid import Window
from muster.resampling.layer import TILE_PX, GridSpec, Layer

if TYPE_CHECKING:
    from collections.abc import Iterator

GRID = GridSpec(
    crs="EPSG:6933", transform=(1000.0, 0.0, -70_000.0, 0.0, -500.0, 30_000.0),
    height=600, width=700,
)  # fmt: skip
NODATA = {"float32": None, "float64": -9999.0, "uint8": 255.0}


def make_layer(dtype: str = "float32", **changes: Any) -> Layer:
    data = {
        "key": "elevation",
        "dataset": {"name": "elevation", "path": "/data/elevation.tif", "method": "average"},
        "sources": ["/data/elevation.tif"],
        "grid": GRID,
        "dtype": dtype,
        "nodata": NODATA.get(dtype, -32768.0 if dtype == "int16" else 0.0),
        "kind": "block",
        "reason": "pixels of 100 m make whole cells of 1 km",
        "fingerprint": "f" * 64,
        "table": "elevation",
        "tiles": True,
    }
    return Layer.model_validate(data | changes)


def make_values(layer: Layer, seed: int = 1, valid: float = 0.7) -> np.ndarray[Any, Any]:
    """Make values (row, col) of the layer's whole range, a whole tile of them nodata."""
    rng = np.random.default_rng(seed)
    shape = (layer.grid.height, layer.grid.width)
    kind = np.dtype(layer.dtype)
    if kind.kind == "f":
        values = rng.normal(size=shape).astype(kind)
    else:
        limits = np.iinfo(kind)
        values = rng.integers(limits.min, limits.max, shape, kind, endpoint=True)
    values[rng.random(shape) >= valid] = layer.nodata_value
    values[:TILE_PX, TILE_PX : 2 * TILE_PX] = layer.nodata_value
    return values


def bands(layer: Layer, width: int | None = None) -> Iterator[Window]:
    """Yield windows of one row of tiles, and of so many columns."""
    width = width or layer.grid.width
    for row in range(0, layer.grid.height, TILE_PX):
        for col in range(0, layer.grid.width, width):
            yield Window(
                row, col, min(TILE_PX, layer.grid.height - row), min(width, layer.grid.width - col)
            )


def cut(values: np.ndarray[Any, Any], window: Window) -> np.ndarray[Any, Any]:
    (row, row_stop), (col, col_stop) = window.ranges
    return values[row:row_stop, col:col_stop]
