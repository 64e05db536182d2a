"""Layers over arrays: what merging reads when no file, tile or table is there."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rasterio.crs import CRS
from rasterio.transform import Affine

from muster.errors import MissingInput
from muster.raster.grid import Grid, Window
from muster.resampling.config.datasets import Dataset
from muster.resampling.layer import GridSpec, Layer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np

# Cells twice as wide as high, neither a power of two: x and y cannot be exchanged unseen.
TRANSFORM = Affine(0.02, 0, 5.0, 0, -0.01, 55.0)


def make_grid(height: int, width: int) -> Grid:
    return Grid(CRS.from_epsg(4326), TRANSFORM, height, width)


def make_layer(name: str, grid: Grid, dtype: str, **more: Any) -> Layer:
    """Say what a layer is; nodata NaN for floating point unless told."""
    dataset = {"name": name, "path": f"/data/{name}.tif", "method": "average", "unit": f"u_{name}"}
    dataset |= more.pop("dataset", {})
    return Layer(
        **{
            "key": name,
            "dataset": Dataset(**dataset),
            "sources": (f"/data/{name}.tif",),
            "grid": GridSpec.of(grid),
            "dtype": dtype,
            "kind": "warp",
            "reason": "another CRS",
            "fingerprint": f"f-{name}",
            "cog": f"/out/{name}.tif",
            **more,
        }
    )


@dataclass
class ArrayReader:
    """A layer that is an array, (row, col), and remembers what was asked of it."""

    grid: Grid
    values: np.ndarray[Any, Any]
    asked: list[Window]

    def read(self, window: Window) -> np.ndarray[Any, Any]:
        self.asked.append(window)
        (top, bottom), (left, right) = window.ranges
        cut = self.values[top:bottom, left:right]
        assert cut.shape == (window.height, window.width)
        return cut


@dataclass
class Arrays:
    """In the place of ``open_layer``: arrays by the keys of their layers."""

    values: Mapping[str, np.ndarray[Any, Any]]
    grid: Grid | None = None

    def __post_init__(self) -> None:
        self.asked: list[Window] = []

    @contextlib.contextmanager
    def __call__(self, layer: Layer, db: object) -> Iterator[ArrayReader]:
        if layer.key not in self.values:
            raise MissingInput("file does not exist", where=layer.cog)
        yield ArrayReader(self.grid or layer.grid.to_grid(), self.values[layer.key], self.asked)


NAN = math.nan
