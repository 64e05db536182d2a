"""A picture of a dataset: the source, the result beside it, and where in the source that lies.

For a first look: whether the right band was taken, the right pixels are nodata, nothing is upside
down, and the result is where it should be.  Both are read decimated, so that rasters of any size
cost little.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from rasterio import warp
from rasterio.enums import Resampling

from muster.raster.band_values import (
    LONGEST_SIDE_PX,
    Extent,
    decimated_shape,
    extent_of,
    read_decimated,
    read_in_shape,
)
from muster.raster.categories import colour_classes
from muster.raster.gdal import GDAL_ERRORS, explain_read_error, gdal_environment, open_raster
from muster.raster.grid import Grid, same_crs
from muster.raster.nodata import find_valid, stored_nodata
from muster.raster.panels import Picture, draw_panels, robust_limits, save_figure, say_axes
from muster.raster.windows import READING_CACHE_MIB as CACHE_MIB
from muster.raster.write.integrity import check_output_folder

if TYPE_CHECKING:
    from rasterio.crs import CRS

    from muster.resampling.layer import Layer

_FloatArray = np.ndarray[Any, np.dtype[np.float64]]

Result = Callable[[int], tuple[np.ndarray[Any, Any], Grid]] | Path
"""The result's COG; or a function that reads it decimated to a longest side: (row, col) as stored
in the layer's type, and the grid of that."""

_AVERAGED_PX = 64_000_000
"""A source without overviews is averaged up to so many pixels, and picked from beyond."""

_SIDE_POINTS = 40


@dataclass(frozen=True)
class _Map:
    """What is drawn: (row, col) with NaN for nodata, where it lies, and in which CRS."""

    values: _FloatArray
    extent: Extent
    crs: CRS


def draw_quicklook(layer: Layer, result: Result, path: Path) -> None:
    """Draw a dataset's source and result beside each other into a PNG.

    Parameters
    ----------
    layer : Layer
        The dataset on the target grid.
    result : Path or callable
        Its COG; or ``result(longest_side_px)``, which gives values, (row, col), of the layer's
        type and with its nodata, and their grid.
    path : Path
        The PNG; the same pixels give the same bytes.

    Raises
    ------
    InvalidInput
        When a file is damaged or the folder cannot be written to.
    MissingInput
        When a source or the COG is not there.
    Transient
        When there is no space, or the network failed.
    """
    check_output_folder(path)
    with gdal_environment(1, CACHE_MIB):
        source = _read_source(layer)
        brought = _read_result(layer, result)
    box = _outline(layer.grid.to_grid(), source)
    dataset = layer.dataset
    shown = f"{dataset.name}: {dataset.description}" if dataset.description else dataset.name
    pictures = _picture(layer, source, brought, box)
    notes = [
        f"{dataset.method}, {layer.kind}: {layer.reason}",
        f"source: {_name_source(layer)}; {say_axes(source.crs)}",
        f"result: {layer.grid.height} rows × {layer.grid.width} columns; {say_axes(brought.crs)}",
    ]
    label = layer.key.partition("@")[2]
    title = f"{shown} ({label})" if label else shown
    save_figure(draw_panels([pictures], brought.extent, title, notes), path)


def _picture(layer: Layer, source: _Map, brought: _Map, box: _FloatArray) -> list[Picture]:
    dataset = layer.dataset
    whole_numbers = np.dtype(layer.dtype).kind in "iu"
    classes = dataset.categories is not None or (dataset.method == "mode" and whole_numbers)
    left = Picture("source", dataset.unit, source.values, classes, outline=box)
    right = Picture(f"result: {dataset.method}", dataset.unit, brought.values, classes)
    if classes:
        categories, (of_source, of_result) = colour_classes(source.values, brought.values)
        left = replace(left, values=of_source, categories=categories)
        right = replace(right, values=of_result, categories=categories)
    elif dataset.method != "sum":
        # Of the source, what the result is made from: the rest of the world may be all else.  Sums
        # over many pixels have a scale of their own.
        compared = [_cut(source, box).ravel(), brought.values.ravel()]
        limits = robust_limits(np.concatenate(compared))
        left, right = replace(left, limits=limits), replace(right, limits=limits)
    return [
        replace(left, extent=source.extent),
        replace(right, extent=brought.extent),
    ]


def _read_source(layer: Layer) -> _Map:
    with contextlib.ExitStack() as files:
        first = files.enter_context(open_raster(layer.sources[0]))
        grid = Grid.from_dataset(first, layer.sources[0])
        extents = {layer.sources[0]: extent_of(first)}
        height_px = (extents[layer.sources[0]][3] - extents[layer.sources[0]][2]) / first.height
        width_px = (extents[layer.sources[0]][1] - extents[layer.sources[0]][0]) / first.width
    for uri in layer.sources[1:]:
        with open_raster(uri) as dataset:
            extents[uri] = extent_of(dataset)
    sides = np.array(list(extents.values()))
    whole: Extent = (
        float(sides[:, :2].min()),
        float(sides[:, :2].max()),
        float(sides[:, 2:].min()),
        float(sides[:, 2:].max()),
    )
    left, right, bottom, top = whole
    rows, cols = decimated_shape(
        max(1, round((top - bottom) / abs(height_px))),
        max(1, round((right - left) / abs(width_px))),
        LONGEST_SIDE_PX,
    )
    values = np.full((rows, cols), np.nan)
    for uri, (x_min, x_max, y_min, y_max) in extents.items():
        into_rows = _span(top - y_max, top - y_min, top - bottom, rows)
        into_cols = _span(x_min - left, x_max - left, right - left, cols)
        shape = into_rows.stop - into_rows.start, into_cols.stop - into_cols.start
        values[into_rows, into_cols] = _read_file(layer, uri, shape)
    return _Map(values, whole, grid.crs)


def _span(start: float, stop: float, length: float, cells: int) -> slice:
    """Say which of so many cells lie between two points of a length; one at least."""
    first = min(cells - 1, round(start / length * cells))
    return slice(first, max(first + 1, min(cells, round(stop / length * cells))))


def _read_file(layer: Layer, uri: str, shape: tuple[int, int]) -> _FloatArray:
    """Read a file of the source as so many rows and columns; NaN for what is no value."""
    dataset = layer.dataset
    own_rules = (dataset.nodata, dataset.range, dataset.categories) != (None, None, None)
    if own_rules or dataset.method in ("mode", "nearest"):
        with open_raster(uri, OVERVIEW_LEVEL="NONE") as source:
            return _pick(layer, source, uri, shape)
    with open_raster(uri) as source:
        large = source.height * source.width > _AVERAGED_PX
        picked = large and not source.overviews(dataset.band)
        return read_in_shape(source, uri, dataset.band, picked, shape)


def _pick(layer: Layer, source: Any, uri: str, shape: tuple[int, int]) -> _FloatArray:
    """Pick pixels: only of one alone can be said whether it is a value by the dataset's rules."""
    said, index = layer.dataset, layer.dataset.band - 1
    try:
        stored = source.read(said.band, out_shape=shape, resampling=Resampling.nearest)
    except GDAL_ERRORS as error:
        raise explain_read_error(error, uri, "source cannot be read") from error
    nodata = source.nodatavals[index] if said.nodata is None else said.nodata
    valid = find_valid(stored, stored_nodata(nodata, source.dtypes[index]))
    values: _FloatArray = stored.astype(np.float64) * source.scales[index] + source.offsets[index]
    with np.errstate(invalid="ignore"):
        if said.range is not None:
            valid &= (values >= said.range[0]) & (values <= said.range[1])
        if said.categories is not None:
            valid &= np.isin(values, said.categories)
    return np.where(valid, values, np.nan)


def _read_result(layer: Layer, result: Result) -> _Map:
    if isinstance(result, Path):
        classes = layer.dataset.method in ("mode", "nearest")
        with open_raster(str(result)) as dataset:
            values = read_decimated(dataset, str(result), 1, classes)
            return _Map(values, extent_of(dataset), Grid.from_dataset(dataset).crs)
    stored, grid = result(LONGEST_SIDE_PX)
    valid = find_valid(stored, stored_nodata(layer.nodata, layer.dtype))
    values = np.where(valid, stored.astype(np.float64), np.nan)
    left, top = grid.transform @ (0, 0)
    right, bottom = grid.transform @ (grid.width, grid.height)
    return _Map(values, (left, right, bottom, top), grid.crs)


def _outline(grid: Grid, source: _Map) -> _FloatArray:
    """Return the edge of the target grid in the source's CRS, (point, 2)."""
    share = np.arange(_SIDE_POINTS) / _SIDE_POINTS
    zero, one = np.zeros(_SIDE_POINTS), np.ones(_SIDE_POINTS)
    col = np.concatenate([share, one, 1 - share, zero, [0.0]]) * grid.width
    row = np.concatenate([zero, share, one, 1 - share, [0.0]]) * grid.height
    t = grid.transform
    x, y = t.a * col + t.b * row + t.c, t.d * col + t.e * row + t.f
    moved = not same_crs(grid.crs, source.crs)
    if moved:
        try:
            x, y = (np.array(side) for side in warp.transform(grid.crs, source.crs, x, y))
        except GDAL_ERRORS:
            # No edge is drawn where a corner has no place in the source's CRS.
            return np.full((1, 2), np.nan)
    x, y = (np.where(np.isfinite(side), side, np.nan) for side in (x, y))
    # Across the antimeridian the line would run through the whole map.
    left, right, _, _ = source.extent
    with np.errstate(invalid="ignore"):
        jumps = np.flatnonzero(np.abs(np.diff(x)) > abs(right - left) / 2) + 1
    points: _FloatArray = np.stack([x, y], axis=1)
    return np.insert(points, jumps, np.nan, axis=0) if moved else points


def _cut(source: _Map, box: _FloatArray) -> _FloatArray:
    """Cut out what lies in a box; everything where that is nothing."""
    left, right, bottom, top = source.extent
    rows, cols = source.values.shape
    points = box[np.isfinite(box).all(axis=1)]
    if not len(points):
        return source.values
    (x_min, y_min), (x_max, y_max) = points.min(axis=0), points.max(axis=0)
    col = left + (np.arange(cols) + 0.5) / cols * (right - left)
    row = top - (np.arange(rows) + 0.5) / rows * (top - bottom)
    cut = source.values[(row >= y_min) & (row <= y_max)][:, (col >= x_min) & (col <= x_max)]
    return cut if np.isfinite(cut).any() else source.values


def _name_source(layer: Layer) -> str:
    name = PurePosixPath(layer.sources[0]).name
    more = len(layer.sources) - 1
    return f"{name}{f' and {more} more' if more else ''}, band {layer.dataset.band}"
