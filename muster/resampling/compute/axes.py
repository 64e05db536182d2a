"""Which source pixels a row or column of the target is made from, and with which weights.

On one CRS without rotation rows and columns are independent, so a method is told by two axes; the
weight of a pixel is the product of its row's and its column's.  Source pixels are counted from the
source's upper left; on a globe columns go on beyond its edges and come round again, so an index
here may lie outside the raster: who reads knows what is there.

Pure: nothing here opens a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

SNAP_PX = 1e-6
"""Edges and centres this near to a whole source pixel are taken to lie on it: rounding errors of
geotransforms are smaller, and no sliver of a pixel may bring nodata into a cell."""

_LEAST_WEIGHT = 1e-12

FloatArray = np.ndarray[Any, np.dtype[np.float64]]
IntArray = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Axis:
    """The source pixels of every target cell along one axis.

    Attributes
    ----------
    first : ndarray, (cell,), int64
        The first source pixel of each cell; never falls from one cell to the next.
    begin : ndarray, (cell + 1,), int64
        The weights of cell i are ``weights[begin[i]:begin[i + 1]]``, of the pixels from
        ``first[i]`` on.
    weights : ndarray, float64
        In source pixels, or as the method has them; those outside the source too.
    centre : ndarray, (cell,), int64
        The source pixel that the cell's centre lies in; on an edge, the one to the right or below.
    """

    first: IntArray
    begin: IntArray
    weights: FloatArray
    centre: IntArray

    @property
    def counts(self) -> IntArray:
        """How many source pixels each cell takes."""
        return np.diff(self.begin)

    @property
    def stop(self) -> IntArray:
        """The source pixel behind the last of each cell."""
        stop: IntArray = self.first + self.counts
        return stop

    def part(self, start: int, stop: int) -> Axis:
        """Take the cells from ``start`` to before ``stop``."""
        begin = self.begin[start : stop + 1]
        return Axis(
            self.first[start:stop],
            begin - begin[0],
            self.weights[begin[0] : begin[-1]],
            self.centre[start:stop],
        )


def snap(values: FloatArray) -> FloatArray:
    """Move what lies within ``SNAP_PX`` of a whole number onto it."""
    whole = np.rint(values)
    return np.where(np.abs(values - whole) <= SNAP_PX, whole, values)


def map_nearest(edges: FloatArray) -> Axis:
    """Take for each cell the pixel that its centre lies in."""
    centre = _centre_pixels(edges)
    count = len(centre)
    return Axis(centre, np.arange(count + 1, dtype=np.int64), np.ones(count), centre)


def map_overlap(
    edges: FloatArray, extent_of: Callable[[FloatArray], FloatArray] | None = None
) -> Axis:
    """Weigh each pixel by how much of it a cell overlaps.

    Parameters
    ----------
    edges : ndarray, (cell + 1,)
        The cells' edges in source pixels, rising.
    extent_of : callable, optional
        A rising function of the position in source pixels, differences of which are what a pixel's
        extent is: for latitudes on a sphere their sine.  The position itself by default.
    """
    edges = snap(edges)
    first = np.floor(edges[:-1]).astype(np.int64)
    counts = np.maximum(np.ceil(edges[1:]).astype(np.int64) - first, 1)
    begin = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    cell = np.repeat(np.arange(len(first)), counts)
    pixel = np.arange(begin[-1]) - begin[cell] + first[cell]
    low = np.maximum(pixel, edges[cell]).astype(np.float64)
    high = np.minimum(pixel + 1, edges[cell + 1]).astype(np.float64)
    weights = high - low if extent_of is None else extent_of(high) - extent_of(low)
    return Axis(first, begin, weights, _centre_pixels(edges))


def map_share(
    edges: FloatArray, extent_of: Callable[[FloatArray], FloatArray] | None = None
) -> Axis:
    """Weigh each pixel by the share of itself that a cell overlaps, so that totals are kept."""
    axis = map_overlap(edges, extent_of)
    if extent_of is None:
        return axis
    pixel = _pixels(axis).astype(np.float64)
    whole = extent_of(pixel + 1) - extent_of(pixel)
    planar = map_overlap(edges).weights
    weights = np.divide(axis.weights, whole, out=planar.copy(), where=whole > 0)
    return Axis(axis.first, axis.begin, weights, axis.centre)


def map_kernel(edges: FloatArray, kernel: Callable[[FloatArray], FloatArray], radius: int) -> Axis:
    """Weigh pixels by a kernel around each cell's centre, widened where the cell is the larger.

    Parameters
    ----------
    edges : ndarray, (cell + 1,)
        The cells' edges in source pixels, rising and evenly spaced.
    kernel : callable
        Weight by distance, in pixels; 0 from ``radius`` on.
    radius : int
        In pixels.
    """
    scale = max(1.0, float(edges[-1] - edges[0]) / (len(edges) - 1))
    # Halves of pixels are what centres snap to: kernels are symmetrical about them.
    centres = snap(edges[:-1] + edges[1:]) / 2
    reach = radius * scale
    first = np.floor(centres - reach).astype(np.int64)
    counts = np.ceil(centres + reach).astype(np.int64) - first
    begin = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    cell = np.repeat(np.arange(len(first)), counts)
    pixel = np.arange(begin[-1]) - begin[cell] + first[cell]
    weights = kernel(np.abs(pixel + 0.5 - centres[cell]) / scale)
    # Pixels without weight stay, so that the first of a cell lies never before that of the cell
    # before: cubic convolution is 0 in the middle of every pixel but one.
    weights = np.where(np.abs(weights) > _LEAST_WEIGHT, weights, 0.0)
    return Axis(first, begin, weights, _centre_pixels(edges))


def triangle(distance: FloatArray) -> FloatArray:
    """Bilinear interpolation: 1 − |d| within a pixel."""
    return np.maximum(0.0, 1.0 - distance)


def cubic_convolution(distance: FloatArray) -> FloatArray:
    """Cubic convolution with a = −0.5 (Keys 1981, doi:10.1109/TASSP.1981.1163711)."""
    d = distance
    near = (1.5 * d - 2.5) * d * d + 1.0
    far = ((-0.5 * d + 2.5) * d - 4.0) * d + 2.0
    return np.where(d <= 1.0, near, np.where(d < 2.0, far, 0.0))


def sine_of_latitude(top: float, height: float) -> Callable[[FloatArray], FloatArray]:
    """Say how much of the sphere lies between rows: −sin of the latitude, rising downwards.

    Parameters
    ----------
    top : float
        Latitude of the upper edge of row 0, in degrees.
    height : float
        Of a row, in degrees, positive.
    """

    def extent_of(row: FloatArray) -> FloatArray:
        latitude = np.clip(top - row * height, -90.0, 90.0)
        extent: FloatArray = -np.sin(np.deg2rad(latitude))
        return extent

    return extent_of


def _centre_pixels(edges: FloatArray) -> IntArray:
    return np.floor(snap((edges[:-1] + edges[1:]) / 2)).astype(np.int64)


def _pixels(axis: Axis) -> IntArray:
    counts = axis.counts
    pixels: IntArray = np.arange(axis.begin[-1]) + np.repeat(axis.first - axis.begin[:-1], counts)
    return pixels
