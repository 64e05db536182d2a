"""What a dataset needs to come to the target grid: nothing, a reduction of whole blocks, or more.

One pure function of the two grids and the dataset's settings, so that a plan can be shown before a
pixel is read, and is the same wherever it is made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from muster.errors import ConfigError, InvalidInput
from muster.raster.grid import same_crs
from muster.raster.nodata import stored_nodata
from muster.resampling.config.methods import KERNEL_METHODS

if TYPE_CHECKING:
    from muster.raster.grid import Grid
    from muster.resampling.compute.axes import FloatArray
    from muster.resampling.compute.source import Source
    from muster.resampling.config.datasets import Dataset
    from muster.resampling.config.methods import Method, PlanKind

FULL_TURN_DEG = 360.0

_WIDER = {
    "int8": "int16",
    "uint8": "int16",
    "int16": "int32",
    "uint16": "int32",
}
"""Where nothing in a type stands for no value: the next one that has room for it."""


@dataclass(frozen=True)
class Fit:
    """How a source lies to the target.

    Attributes
    ----------
    kind : {"passthrough", "block", "warp"}
        What is to be done.
    reason : str
        Why, in a sentence.
    row_edges, col_edges : ndarray, (cell + 1,), float64, or None
        Edges of the target's rows and columns in source pixels, counted from the source's upper
        left corner, downwards and to the right; None where the CRS differs.
    period : int or None
        Source pixels once round the globe, where columns come round again.
    """

    kind: PlanKind
    reason: str
    row_edges: FloatArray | None = None
    col_edges: FloatArray | None = None
    period: int | None = None

    @property
    def same_crs(self) -> bool:
        """Whether rows and columns of the two grids are parallel."""
        return self.row_edges is not None


def plan_dataset(source: Source, target: Grid, dataset: Dataset, tolerance_px: float = 1e-3) -> Fit:
    """Decide how a dataset comes to the target grid.

    Parameters
    ----------
    source : Source
        The raster.
    target : Grid
        Upright, rows running down.
    dataset : Dataset
        Method, weights, store.
    tolerance_px : float
        How far pixels may lie off the target's lattice and count as aligned, in source pixels.

    Raises
    ------
    ConfigError
        When the method makes no sense between these grids.
    InvalidInput
        When the target lies outside the source.
    """
    if not same_crs(source.grid.crs, target.crs):
        return _plan_other_crs(source, target, dataset)
    if dataset.weights == "spherical" and not target.crs.is_geographic:
        raise ConfigError(
            "weights: spherical are for longitude and latitude",
            where=f"dataset {dataset.name}",
            got=target.describe(),
            do="leave weights out: in a projection cells are weighted by their planar area",
        )
    rows = _Edges.of_rows(source.grid, target)
    cols = _Edges.of_cols(source.grid, target)
    period = _period(source.grid)
    if period is None and target.crs.is_geographic:
        cols = cols.turned_to(source.grid)
    cols, rows = cols.settled(tolerance_px), rows.settled(tolerance_px)
    fit = _compare(rows, cols, dataset.method, period)
    if not overlaps(fit, source.grid):
        raise explain_outside(source, target)
    return fit


def _compare(rows: _Edges, cols: _Edges, method: Method, period: int | None) -> Fit:
    edges = (rows.values(), cols.values(), period)
    ratio = f"{rows.ratio:.6g} × {cols.ratio:.6g}"
    if not (rows.whole and cols.whole):
        why = (
            "is no whole number" if not (rows.near_whole and cols.near_whole) else "is not aligned"
        )
        return Fit("warp", f"same CRS; a cell of {ratio} source pixels {why}", *edges)
    if rows.ratio == cols.ratio == 1:
        return Fit("passthrough", "same CRS, pixel size and alignment: nothing to compute", *edges)
    if method in KERNEL_METHODS:
        return Fit(
            "warp", f"same CRS, aligned; {method} looks beyond the {ratio} pixels of a cell", *edges
        )
    return Fit("block", f"same CRS, aligned: a cell is exactly {ratio} source pixels", *edges)


def _plan_other_crs(source: Source, target: Grid, dataset: Dataset) -> Fit:
    if dataset.method == "sum":
        raise ConfigError(
            "sum makes no sense across reference systems",
            where=f"dataset {dataset.name}",
            got=f"{source.grid.crs.to_string()[:60]} to {target.crs.to_string()[:60]}",
            expected="a target in the source's CRS, so that totals can be kept",
            do="sum on a grid in the source's CRS, or resample a density with average",
        )
    if dataset.weights == "spherical":
        raise ConfigError(
            "weights: spherical are for grids of one CRS in longitude and latitude",
            where=f"dataset {dataset.name}",
            do="leave weights out",
        )
    names = f"{source.grid.crs.to_string()[:60]} to {target.crs.to_string()[:60]}"
    return Fit("warp", f"another CRS: {names}", period=_period(source.grid))


@dataclass(frozen=True)
class _Edges:
    """Evenly spaced edges in source pixels: the first, the spacing, and how many cells."""

    first: float
    ratio: float
    count: int
    whole: bool = False
    near_whole: bool = False

    @classmethod
    def of_rows(cls, source: Grid, target: Grid) -> _Edges:
        s, t = source.transform, target.transform
        height = abs(s.e)
        top = s.f if s.e < 0 else s.f + s.e * source.height
        return cls((top - t.f) / height, -t.e / height, target.height)

    @classmethod
    def of_cols(cls, source: Grid, target: Grid) -> _Edges:
        s, t = source.transform, target.transform
        return cls((t.c - s.c) / s.a, t.a / s.a, target.width)

    def turned_to(self, source: Grid) -> _Edges:
        """Go whole turns round the globe, to where the target overlaps the source most."""
        turn = FULL_TURN_DEG / source.transform.a
        middle = self.first + self.ratio * self.count / 2
        turns = round((source.width / 2 - middle) / turn)
        return _Edges(self.first + turns * turn, self.ratio, self.count)

    def settled(self, tolerance_px: float) -> _Edges:
        """Take what lies within the tolerance of whole pixels everywhere to lie on them."""
        ratio = round(self.ratio)
        last = self.first + self.ratio * self.count
        near = ratio >= 1 and abs(last - self.first - ratio * self.count) <= 2 * tolerance_px
        first = round(self.first)
        off = max(abs(self.first - first), abs(last - first - ratio * self.count))
        if near and off <= tolerance_px:
            return _Edges(float(first), float(ratio), self.count, whole=True, near_whole=True)
        return _Edges(self.first, self.ratio, self.count, near_whole=near)

    def values(self) -> FloatArray:
        edges: FloatArray = self.first + self.ratio * np.arange(self.count + 1, dtype=np.float64)
        return edges


def _period(source: Grid) -> int | None:
    """Count the pixels once round the globe; None where that is no whole number, or no globe."""
    if not source.crs.is_geographic:
        return None
    turn = FULL_TURN_DEG / source.transform.a
    whole = round(turn)
    return whole if whole >= 1 and abs(turn - whole) <= 1e-3 else None


def overlaps(fit: Fit, source: Grid) -> bool:
    """Say whether any pixel of the source lies in the target."""
    if fit.row_edges is None or fit.col_edges is None:
        return True
    if fit.row_edges[-1] <= 0 or fit.row_edges[0] >= source.height:
        return False
    left, right = float(fit.col_edges[0]), float(fit.col_edges[-1])
    if fit.period is not None:
        turns = math.floor(left / fit.period)
        left, right = left - turns * fit.period, right - turns * fit.period
        return left < source.width or right > fit.period
    return right > 0 and left < source.width


def explain_outside(source: Source, target: Grid) -> InvalidInput:
    """Say that a target lies where the source has nothing."""
    return InvalidInput(
        "the target lies outside the source",
        where=source.name,
        got=f"source: {source.grid.describe()}; target: {target.describe()}",
        do="check the target's extent and CRS, and the dataset's path",
    )


def result_type(source: Source, dataset: Dataset) -> tuple[str, float | None]:
    """Choose the type of a result, and what stands for no value in it.

    Returns
    -------
    dtype : str
        Of the result.
    nodata : float or None
        None stands for NaN.

    Raises
    ------
    ConfigError
        When every number of the stated type may be a value, and none is left for nodata.
    """
    scaled = (source.scale, source.offset) != (1.0, 0.0)
    keeps = dataset.method in ("nearest", "min", "max", "mode") and not scaled
    declared = dataset.nodata if dataset.nodata is not None else source.nodata
    dtype: str = dataset.dtype
    if dtype == "auto":
        if dataset.method == "sum" or source.dtype in ("float64", "int64", "uint64"):
            return "float64", None
        if not keeps or source.dtype == "float32":
            return "float32" if _fits_float32(source, dataset) else "float64", None
        dtype = source.dtype
        if stored_nodata(declared, dtype) is None or dtype == "int8":
            dtype = _WIDER.get(dtype, "float64")
    if dtype.startswith("float"):
        return dtype, None
    stated = stored_nodata(declared, dtype)
    if stated is not None and not scaled:
        return dtype, float(stated)
    limits = np.iinfo(np.dtype(dtype))
    if keeps and dataset.dtype != "auto":
        return dtype, float(_free_nodata(source, dataset, limits))
    return dtype, float(limits.min if limits.min < 0 else limits.max)


def _free_nodata(source: Source, dataset: Dataset, limits: Any) -> int:
    """Find a number that no value of the source becomes, so that none is mistaken for nodata.

    Parameters
    ----------
    source, dataset
        A method that gives pixels as they are.
    limits : numpy.iinfo
        Of the result's type: what lies beyond is stored as its nearest end.

    Raises
    ------
    ConfigError
        When there is none.
    """
    least, greatest = -math.inf, math.inf
    if np.dtype(source.dtype).kind in "iu":
        of_source = np.iinfo(np.dtype(source.dtype))
        least, greatest = int(of_source.min), int(of_source.max)
    if dataset.range is not None:
        least, greatest = max(least, dataset.range[0]), min(greatest, dataset.range[1])
    low, high = int(limits.min), int(limits.max)
    free: int | None
    ends = (low, high) if low < 0 else (high, low)
    if dataset.categories is not None:
        classes = {min(max(c, low), high) for c in dataset.categories if least <= c <= greatest}
        # Of one number more than there are classes, one is none.
        some = range(low, min(high, low + len(classes)) + 1)
        numbers = (*ends, *some)
        free = next((number for number in numbers if number not in classes), None)
    else:
        # Values lie in one run, rounded and clipped: where any number is free, an end is.
        first, last = (round(min(max(end, low), high)) for end in (least, greatest))
        free = next((end for end in ends if not first <= end <= last), None)
    if free is None:
        raise ConfigError(
            "the type has no number left to stand for nodata",
            where=f"dataset {dataset.name}, {source.name}",
            got=f"dtype: {dataset.dtype}; {source.dtype} values may take every number of it",
            expected="a number that no value takes",
            do="say the range of its values, or nodata, or take a larger dtype (floats have NaN)",
        )
    return free


def _fits_float32(source: Source, dataset: Dataset) -> bool:
    """Say whether float32 loses nothing that the source knows: not for 32-bit whole numbers."""
    return source.dtype not in ("int32", "uint32") or dataset.method not in (
        "min",
        "max",
        "mode",
        "nearest",
        "median",
    )


def blank_of(source: Source, dataset: Dataset) -> Any:
    """Say which stored value is taken for no value; None where only NaN is.

    With categories there always is one, for what is none of them to be set to; but where every
    value of the type is a category.
    """
    declared = dataset.nodata if dataset.nodata is not None else source.nodata
    stated = stored_nodata(declared, source.dtype)
    if stated is not None or dataset.categories is None:
        return stated
    if source.dtype.startswith("float"):
        return np.nan
    limits = np.iinfo(np.dtype(source.dtype))
    classes = set(dataset.categories)
    most = min(int(limits.max), int(limits.min) + len(classes))
    return next((v for v in range(int(limits.min), most + 1) if v not in classes), None)


def make_room(source: Source, dataset: Dataset) -> Source:
    """Have a mosaic read as float64 where no value of its type can stand for its gaps.

    Its values may be any of the type, so that only NaN, or a nodata that the type cannot hold,
    tells a gap from them.
    """
    if not source.gaps or source.dtype.startswith("float") or blank_of(source, dataset) is not None:
        return source
    return replace(source, dtype="float64")
