"""Predictor values at the plots: what a stack of rasters holds where each plot lies.

Plots come in degrees, rasters in whatever suits them; the plots are brought to the rasters, never
the other way round.  Windows are read where plots lie, so that a global stack is not read whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError, ProjError

from muster.errors import InvalidInput
from muster.raster.gdal import gdal_environment, open_raster
from muster.raster.grid import Grid, Window
from muster.raster.predictors import PredictorStack, name_bands, open_predictors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rasterio.transform import Affine

    from muster.model.step import StepContext
    from muster.traits.aoa.neighbours import BoolArray, FloatArray, IntArray

_CELL_PX = 256


@dataclass(frozen=True)
class Sample:
    """Predictors at the plots.

    Attributes
    ----------
    values : ndarray, (plot, predictor), float64
        NaN where a plot lies outside or on nodata.
    outside : int
        Number of plots beyond the rasters' edge, or without coordinates.
    nodata : int
        Number of plots inside on a pixel that lacks a predictor.
    """

    values: FloatArray
    outside: int
    nodata: int


def list_predictors(uris: Sequence[str]) -> tuple[str, ...]:
    """Name all bands of a stack, in the order of files and bands.

    Raises
    ------
    InvalidInput
        When a band has no name, or two have the same.
    """
    names: list[str] = []
    with gdal_environment(threads=1, cache_mib=32):
        for uri in uris:
            with open_raster(uri) as dataset:
                found = name_bands(uri, dataset)
            if "" in found:
                raise InvalidInput(
                    "band of the predictors has no name",
                    where=f"{uri}, band {found.index('') + 1}",
                    expected="a description of each band",
                    do="set the descriptions, or say which predictors are wanted",
                )
            names += found
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidInput(
            "predictors have a name twice", where=", ".join(uris), got=", ".join(twice)
        )
    return tuple(names)


def sample_predictors(
    uris: Sequence[str],
    names: Sequence[str],
    coordinates: tuple[FloatArray, FloatArray],
    crs: str,
    context: StepContext,
) -> Sample:
    """Read the predictors' values at plots.

    Parameters
    ----------
    uris : sequence of str
        The stack.
    names : sequence of str
        Bands wanted, in the order of the columns that come back.
    coordinates : tuple of ndarray, (plot,), float64
        x and y of the plots; NaN where unknown.
    crs : str
        CRS of the coordinates, x before y.
    context : StepContext
        Threads and memory.

    Returns
    -------
    Sample
        The value of the pixel that a plot lies in, scale and offset applied.

    Raises
    ------
    InvalidInput
        When no plot falls on the stack; says both extents.
    """
    with open_predictors(
        uris, names, threads=context.threads, memory_mib=context.memory_mib
    ) as stack:
        x, y = transform_coordinates(coordinates, crs, stack.grid.crs.to_wkt())
        rows, cols = locate_pixels(stack.grid, x, y)
        inside = rows >= 0
        if not inside.any():
            raise InvalidInput(
                "no plot lies on the predictors",
                where=", ".join(uris),
                got=f"plots in {_describe_extent(*coordinates)} of {crs}",
                expected=f"plots on {describe_extent(stack.grid)}",
                do="check the plots' CRS and the order of x and y, or take predictors that cover "
                "them",
            )
        values = np.full((len(rows), len(names)), np.nan)
        for window, members in _windows_with_plots(stack, rows, cols):
            cells, _ = stack.read(window)
            flat = (rows[members] - window.row) * window.width + (cols[members] - window.col)
            values[members] = cells[flat]
    missing = np.isnan(values).any(axis=1)
    return Sample(
        values=values,
        outside=int(np.count_nonzero(~inside)),
        nodata=int(np.count_nonzero(missing & inside)),
    )


def transform_coordinates(
    coordinates: tuple[FloatArray, FloatArray], source: str, target: str
) -> tuple[FloatArray, FloatArray]:
    """Bring coordinates from one CRS to another, x before y on both sides.

    Returns
    -------
    x, y : ndarray, (plot,), float64
        NaN where a coordinate is missing or cannot be expressed in the target.

    Raises
    ------
    InvalidInput
        When a CRS is none, or there is no way from one to the other.
    """
    try:
        transformer = Transformer.from_crs(CRS(source), CRS(target), always_xy=True)
        x, y = transformer.transform(*coordinates)
    except (CRSError, ProjError) as error:
        raise InvalidInput(
            "coordinates cannot be brought to the predictors' CRS",
            got=f"{source} → {target[:60]}: {error}",
            expected="an authority code such as EPSG:4326, or WKT",
        ) from error
    known = np.isfinite(x) & np.isfinite(y)
    return np.where(known, x, np.nan), np.where(known, y, np.nan)


def locate_pixels(grid: Grid, x: FloatArray, y: FloatArray) -> tuple[IntArray, IntArray]:
    """Find the pixel that each point lies in.

    Parameters
    ----------
    grid : Grid
        The raster.
    x, y : ndarray, (point,), float64
        In the grid's CRS.

    Returns
    -------
    row, col : ndarray, (point,), int64
        Both -1 where the point lies outside, or a coordinate is NaN.
    """
    with np.errstate(invalid="ignore"):
        cols, rows = _apply(~grid.transform, x, y)
        inside: BoolArray = (rows >= 0) & (rows < grid.height) & (cols >= 0) & (cols < grid.width)
    row = np.full(len(x), -1, dtype=np.int64)
    col = np.full(len(x), -1, dtype=np.int64)
    row[inside] = np.floor(rows[inside])
    col[inside] = np.floor(cols[inside])
    return row, col


def describe_extent(grid: Grid) -> str:
    """Say where a raster lies, for messages."""
    cols, rows = np.array([0, grid.width]), np.array([0, grid.height])
    x, y = _apply(grid.transform, cols[[0, 1, 0, 1]], rows[[0, 0, 1, 1]])
    name = grid.crs.to_string()
    return f"{_describe_extent(x, y)} of {name if len(name) < 40 else name[:37] + '…'}"


def _apply(transform: Affine, x: Any, y: Any) -> tuple[Any, Any]:
    t = transform
    return t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f


def _describe_extent(x: FloatArray, y: FloatArray) -> str:
    known = np.isfinite(x) & np.isfinite(y)
    if not known.any():
        return "no place at all"
    x, y = x[known], y[known]
    return f"x {x.min():g} to {x.max():g}, y {y.min():g} to {y.max():g}"


def _windows_with_plots(
    stack: PredictorStack, rows: IntArray, cols: IntArray
) -> Iterator[tuple[Window, IntArray]]:
    """Yield the least window around the plots of each cell, and those plots' indexes."""
    inside = np.flatnonzero(rows >= 0)
    cells = (rows[inside] // _CELL_PX) * (stack.grid.width // _CELL_PX + 1) + (
        cols[inside] // _CELL_PX
    )
    order = np.argsort(cells, kind="stable")
    starts = np.flatnonzero(np.diff(cells[order], prepend=-1))
    for members in np.split(inside[order], starts[1:]):
        row, col = int(rows[members].min()), int(cols[members].min())
        yield (
            Window(
                row,
                col,
                int(rows[members].max()) - row + 1,
                int(cols[members].max()) - col + 1,
            ),
            members,
        )
