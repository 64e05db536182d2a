"""Resampling on one CRS: a method as two axes of weights, and target rows computed by them.

A target cell depends on the source pixels that its axes name and on nothing else, so any division
of the target into windows, strips or threads gives the same bytes.
"""

# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from muster.raster.grid import Window
from muster.resampling.compute import kernels
from muster.resampling.compute.axes import (
    Axis,
    cubic_convolution,
    map_kernel,
    map_nearest,
    map_overlap,
    map_share,
    sine_of_latitude,
    triangle,
)
from muster.resampling.compute.fit import blank_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import ThreadPoolExecutor

    from muster.resampling.compute.axes import FloatArray
    from muster.resampling.compute.encode import Finish
    from muster.resampling.compute.fit import Fit
    from muster.resampling.compute.reader import StripReader
    from muster.resampling.compute.source import Source
    from muster.resampling.config.datasets import Dataset

_Strip = tuple[Any, Any, Any]

_ROUNDING = 1e-9
"""How much less than the share asked for is enough.  Where any share is, the least is: a corner of
a pixel in the corner of a cell is part of a total."""

_NOWHERE = np.empty((0, 0))

_LEAST_COLS = 64
"""Target columns that are worth a thread."""


@dataclass(frozen=True)
class Separable:
    """A method between two grids of one CRS.

    Attributes
    ----------
    method : str
        Of :data:`muster.resampling.config.methods.METHODS`.
    rows, cols : Axis
        What target rows and columns are made from.
    row_totals, col_totals : ndarray, (cell,), float64
        Weights of each row and column if all their pixels held values.
    inner : tuple of Axis or None
        For cubic: the axes of bilinear, for cells whose wider kernel meets a gap.
    limits : tuple of float
        Nodata (NaN for none), least and greatest value.
    scaling : tuple of float
        value = stored × scaling[0] + scaling[1].
    min_valid_fraction : float
        Share of a cell's weights that must be of values.
    """

    method: str
    rows: Axis
    cols: Axis
    row_totals: FloatArray
    col_totals: FloatArray
    inner: tuple[Axis, Axis] | None
    limits: tuple[float, float, float]
    scaling: tuple[float, float]
    min_valid_fraction: float

    @classmethod
    def of(cls, fit: Fit, source: Source, dataset: Dataset) -> Separable:
        """Make the axes of a dataset's method."""
        if fit.row_edges is None or fit.col_edges is None:
            raise ValueError("grids of different CRSs have no common axes")
        # A single pixel's mean, sum, extreme and middle are the pixel.
        method = "nearest" if fit.kind == "passthrough" else dataset.method
        inner = None
        if method == "nearest":
            rows, cols = map_nearest(fit.row_edges), map_nearest(fit.col_edges)
        elif method in ("bilinear", "cubic"):
            rows, cols = (map_kernel(e, triangle, 1) for e in (fit.row_edges, fit.col_edges))
            if method == "cubic":
                inner = rows, cols
                rows, cols = (
                    map_kernel(e, cubic_convolution, 2) for e in (fit.row_edges, fit.col_edges)
                )
        else:
            weigh = map_share if method == "sum" else map_overlap
            extent_of = _extent_of_rows(source) if dataset.weights == "spherical" else None
            rows, cols = weigh(fit.row_edges, extent_of), weigh(fit.col_edges)
        blank = blank_of(source, dataset)
        least, greatest = dataset.range or (-np.finfo(float).max, np.finfo(float).max)
        return cls(
            method=method,
            rows=rows,
            cols=cols,
            row_totals=_totals(rows),
            col_totals=_totals(cols),
            inner=inner,
            limits=(np.nan if blank is None else float(blank), float(least), float(greatest)),
            scaling=(source.scale, source.offset),
            min_valid_fraction=dataset.min_valid_fraction,
        )

    def part(self, window: Window) -> Separable:
        """Take the part that belongs to a window of the target."""
        down = slice(window.row, window.row + window.height)
        across = slice(window.col, window.col + window.width)
        inner = None
        if self.inner is not None:
            inner = (
                self.inner[0].part(down.start, down.stop),
                self.inner[1].part(across.start, across.stop),
            )
        return Separable(
            self.method,
            self.rows.part(down.start, down.stop),
            self.cols.part(across.start, across.stop),
            self.row_totals[down],
            self.col_totals[across],
            inner,
            self.limits,
            self.scaling,
            self.min_valid_fraction,
        )

    def compute(self, strip: StripReader, result: np.ndarray[Any, Any]) -> None:
        """Compute all cells from a strip that holds their source rows and columns.

        Parameters
        ----------
        result : ndarray, (target row, target col), floating-point
            Where the values go; NaN where there is none.
        """
        at = _take(strip)
        if self.method == "nearest":
            self._pick(at, self.rows.first, self.cols.first, result, clear=True)
        elif self.method in ("min", "max"):
            sign = 1.0 if self.method == "min" else -1.0
            kernels.extreme_rows(*at, *self._axes(), self._judge(sign), result)
        elif self.method in ("median", "mode"):
            kernels.gather_rows(*at, *self._axes(), self._judge(self.method == "mode"), result)
        else:
            judge = self._judge(self.method != "sum")
            kernels.weighted_rows(*at, *self._axes(), judge, result, _NOWHERE)
        if self.inner is not None:
            self._mend_gaps(at, self.inner, result)
        if self.method in ("bilinear", "cubic"):
            self._pick(at, self.rows.centre, self.cols.centre, result, clear=False)

    def _axes(self, axes: tuple[Axis, Axis] | None = None) -> tuple[Any, Any, Any, Any]:
        rows, cols = axes or (self.rows, self.cols)
        return (
            (rows.first, rows.begin, rows.weights),
            (cols.first, cols.begin, cols.weights),
            self.scaling,
            self.limits,
        )

    def _judge(self, how: Any, axes: tuple[Axis, Axis] | None = None) -> tuple[Any, ...]:
        totals = (self.row_totals, self.col_totals)
        if axes is not None:
            totals = (_totals(axes[0]), _totals(axes[1]))
        return (how, *totals, max(self.min_valid_fraction - _ROUNDING, 0.0))

    def _pick(self, at: _Strip, rows: Any, cols: Any, result: Any, *, clear: bool) -> None:
        kernels.pick(*at, rows, cols, self.scaling, self.limits, clear, result)

    def _mend_gaps(
        self, at: _Strip, inner: tuple[Axis, Axis], result: np.ndarray[Any, Any]
    ) -> None:
        """Take the bilinear value where any pixel of the wider kernel has none."""
        rows, cols = (
            Axis(a.first, a.begin, (a.weights != 0).astype(np.float64), a.centre)
            for a in (self.rows, self.cols)
        )
        near, count = np.empty_like(result), np.empty(result.shape)
        judge = self._judge(False, (rows, cols))
        kernels.weighted_rows(*at, *self._axes((rows, cols)), judge, near, count)
        gaps = count < np.multiply.outer(_totals(rows), _totals(cols))
        if not gaps.any():
            return
        kernels.weighted_rows(*at, *self._axes(inner), self._judge(True, inner), near, _NOWHERE)
        result[gaps] = near[gaps]


def _take(strip: StripReader) -> _Strip:
    """Return a strip as kernels take it: rows, origin, and what there is of it."""
    origin = (strip.first, strip.first_col)
    return strip.rows, origin, ((strip.first, strip.stop), strip.there)


def compute_rows(
    method: Separable,
    strip: StripReader,
    finish: Finish,
    window: Window,
    pool: ThreadPoolExecutor | None = None,
    threads: int = 1,
) -> np.ndarray[Any, Any]:
    """Compute a window of the target whose source rows are all in the strip.

    Parameters
    ----------
    window : Window
        Of the target; its source columns are those of the strip.
    pool, threads
        Parts of the window's columns are computed side by side.

    Returns
    -------
    ndarray, (row, col)
        In the result's type, nodata filled in.
    """
    result = np.empty((window.height, window.width), dtype=finish.dtype)
    count = max(1, min(threads, window.width // _LEAST_COLS))
    edges = [window.width * i // count for i in range(count + 1)]

    def compute(start: int, stop: int) -> None:
        part = method.part(Window(window.row, window.col + start, window.height, stop - start))
        into = result[:, start:stop]
        if into.dtype.kind == "f":
            part.compute(strip, into)
            return
        values = np.empty(into.shape)
        part.compute(strip, values)
        finish.put(values, into)

    if pool is None or count == 1:
        for start, stop in pairwise(edges):
            compute(start, stop)
    else:
        parts = [pool.submit(compute, a, b) for a, b in pairwise(edges)]
        for one in parts:
            one.result()
    return result


def _extent_of_rows(source: Source) -> Callable[[FloatArray], FloatArray]:
    t = source.grid.transform
    top = t.f if t.e < 0 else t.f + t.e * source.grid.height
    return sine_of_latitude(top, abs(t.e))


def _totals(axis: Axis) -> FloatArray:
    totals: FloatArray = np.add.reduceat(axis.weights, axis.begin[:-1])
    return totals


def source_cols(axes: Sequence[Axis], start: int, stop: int) -> tuple[int, int]:
    """Say which source columns (or rows) some target cells look at."""
    first = min(int(axis.first[start:stop].min()) for axis in axes)
    last = max(int(axis.stop[start:stop].max()) for axis in axes)
    return first, last
