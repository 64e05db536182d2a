"""The target grid as configured, made into a grid, or refused with the reason."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.transform import Affine

from muster.errors import ConfigError
from muster.raster.gdal import gdal_environment, open_raster
from muster.raster.grid import Grid

if TYPE_CHECKING:
    from muster.resampling.config.datasets import TargetGrid

_WHOLE = 1e-6
"""How far, in cells, an extent may be from a whole number of them."""

_CACHE_MIB = 32
_MOST_CELLS = 1 << 40
_LONGEST_SIDE = (1 << 31) - 1


def make_target(target: TargetGrid, like: str | None = None) -> Grid:
    """Make the grid that datasets are brought to.

    Parameters
    ----------
    target : TargetGrid
        As configured.
    like : str, optional
        URI of the raster that ``target.like`` names, placeholders filled.

    Raises
    ------
    ConfigError
        When there is no such CRS, or the extent holds no whole number of cells.
    MissingInput, InvalidInput
        When ``like`` is absent, or no upright raster.
    """
    if like is not None:
        return _take_grid(like)
    if target.crs is None or target.resolution is None or target.extent is None:
        raise ConfigError("the target is not complete", expected="crs, resolution and extent")
    try:
        with gdal_environment(threads=1, cache_mib=_CACHE_MIB):  # which else prints to stderr
            crs = CRS.from_user_input(target.crs)
    except CRSError as error:
        raise ConfigError(
            "no such coordinate reference system",
            where="target.crs",
            got=repr(target.crs),
            expected="for example EPSG:4326",
        ) from error
    width, height = target.resolution
    x_min, y_min, x_max, y_max = target.extent
    if target.align is not None:
        x0, y0 = target.align
        x_min = x0 + math.floor(_settle((x_min - x0) / width)) * width
        x_max = x0 + math.ceil(_settle((x_max - x0) / width)) * width
        y_min = y0 + math.floor(_settle((y_min - y0) / height)) * height
        y_max = y0 + math.ceil(_settle((y_max - y0) / height)) * height
    cols = _count("width", x_max - x_min, width)
    rows = _count("height", y_max - y_min, height)
    if rows * cols > _MOST_CELLS or max(rows, cols) > _LONGEST_SIDE:
        raise ConfigError(
            "the target has too many cells",
            where="target",
            got=f"{rows} × {cols}",
            do="check resolution and extent: both are in the CRS's units",
        )
    return Grid(crs, Affine(width, 0.0, x_min, 0.0, -height, y_max), rows, cols)


def _take_grid(uri: str) -> Grid:
    with gdal_environment(threads=1, cache_mib=_CACHE_MIB), open_raster(uri) as dataset:
        grid = Grid.from_dataset(dataset, uri)
    t = grid.transform
    if t.b or t.d or t.a <= 0 or t.e >= 0:
        raise ConfigError(
            "the target must be upright, its rows running down",
            where=f"target.like: {uri}",
            got=f"geotransform {t.to_gdal()}",
        )
    return grid


def _settle(position: float) -> float:
    whole = round(position)
    return whole if abs(position - whole) <= _WHOLE else position


def _count(name: str, length: float, size: float) -> int:
    count = length / size
    if round(count) < 1 or abs(count - round(count)) > _WHOLE * max(1.0, count):
        raise ConfigError(
            f"the {name} of the extent is no whole number of cells",
            where="target",
            got=f"{length:.10g} of cells of {size:.10g}: {count:.6f}",
            expected="extent and resolution that fit, or align to widen the extent to whole cells",
            do="for example align: [0, 0]",
        )
    return round(count)
