"""Small products of a trait, of both kinds, whose values are known."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.transform import Affine

from muster.raster.grid import Grid

if TYPE_CHECKING:
    from pathlib import Path

GRID = Grid(CRS.from_epsg(6933), Affine(1000, 0, -7_000_000, 0, -500, 3_000_000), 70, 190)
OURS = {
    "prediction": "X50 prediction",
    "cov": "coefficient of variation",
    "aoa": "area of applicability",
}
OLDER = {
    "prediction": "X50 (mean)",
    "cov": "Coefficient of Variation",
    "aoa": "Area of Applicability mask",
}
PACKING = {"prediction": (0.013, 4.7), "cov": (0.001, 0.0), "aoa": (1.0, 0.0)}
UNITS = {"prediction": "mm²/mg", "cov": "1", "aoa": "1"}
NODATA = -32768

FloatArray = np.ndarray[Any, np.dtype[np.float64]]


@dataclasses.dataclass(frozen=True)
class Made:
    """A product on disk: its URI, and its values as (row, col), NaN for nodata."""

    uri: str
    values: dict[str, FloatArray]


def make_product(path: Path, seed: int = 0, **options: Any) -> Made:
    """Write a small product with holes; each seed gives other values and other holes.

    Options: ``names`` (band → description, in the file's order), ``packing`` and ``units`` (band
    →), ``grid``, ``tags``, ``holes`` (row, col) of nodata, ``block`` of tiles.
    """
    names = options.get("names", OURS)
    grid = options.get("grid", GRID)
    older = names.get("aoa") == OLDER["aoa"]
    rng = np.random.default_rng(seed)
    row, col = np.mgrid[0 : grid.height, 0 : grid.width]
    stored = {
        "prediction": 900 * np.sin(row / 9) + 7 * col + rng.normal(0, 40, row.shape),
        "cov": 200 + 100 * np.cos(col / 11) + rng.normal(0, 20, row.shape),
        "aoa": (row + 2 * col + rng.normal(0, 20, row.shape) > 160) * 1.0,
    }
    holes = options.get("holes", (slice(10, 20), slice(30 + 9 * seed, 90)))
    values, layers = {}, []
    for name, text in names.items():
        assert text
        ints = np.rint(stored[name]).astype(np.int16)
        scale, offset = options.get("packing", PACKING)[name]
        values[name] = ints * scale + offset
        if name == "aoa" and older:
            ints = (1 - ints).astype(np.int16)
        ints[holes] = NODATA
        values[name][holes] = np.nan
        layers.append(ints)
    block = options.get("block", 32)
    profile: dict[str, Any] = {"tiled": True, "blockxsize": block, "blockysize": block}
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        dtype="int16",
        nodata=NODATA,
        crs=grid.crs,
        transform=grid.transform,
        height=grid.height,
        width=grid.width,
        count=len(layers),
        **(profile if block else {}),
    ) as dataset:
        dataset.write(np.stack(layers))
        dataset.descriptions = list(names.values())
        dataset.scales = [options.get("packing", PACKING)[name][0] for name in names]
        dataset.offsets = [options.get("packing", PACKING)[name][1] for name in names]
        dataset.units = [options.get("units", UNITS)[name] for name in names]
        dataset.update_tags(**options.get("tags", {}))
    return Made(str(path), values)
