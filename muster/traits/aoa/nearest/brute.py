"""Direct differences in float64: the slow way, that others are checked by and fall back on."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from muster.raster.kernels import kernel
from muster.traits.aoa.nearest.distance import block_slices
from muster.traits.aoa.nearest.engine import Neighbours

if TYPE_CHECKING:
    from muster.traits.aoa.nearest.distance import FloatArray, IntArray, Nearness

TILE = 64
"""Points whose sums stay in a core's nearest cache."""

_ROWS = 2**14
"""Points that are laid out together, where it is not done once for all."""


@kernel
def squared_distance(queries: FloatArray, i: int, points: FloatArray, j: int) -> float:
    """Sum the squared differences of query i and point j in the order of the dimensions.

    Parameters
    ----------
    queries, points : ndarray, (..., dimension), float64
        C-contiguous.
    i, j : int
        Rows of them.

    Returns
    -------
    float
        The square of what :func:`muster.traits.aoa.nearest.distance.distances` gives.
    """
    total = 0.0
    for k in range(points.shape[1]):
        difference = queries[i, k] - points[j, k]
        total += difference * difference
    return total


@kernel
def add_squares(
    queries: FloatArray, i: int, tiles: FloatArray, tile: int, total: FloatArray
) -> None:
    """Sum the squared differences of query i and a tile of points, in the dimensions' order.

    Parameters
    ----------
    queries : ndarray, (query, dimension), float64
        C-contiguous.
    i : int
        Row of it.
    tiles : ndarray, (tile, dimension, point), float64
        By :func:`pack_tiles`.
    tile : int
        Number of the tile.
    total : ndarray, (point,), float64
        Is filled.
    """
    total[:] = 0.0
    dimensions = tiles.shape[1]
    fours = dimensions // 4 * 4
    # Four at a time, and one after the other: a sum is fetched and put back once for four.
    for k in range(0, fours, 4):
        x0, x1 = queries[i, k], queries[i, k + 1]
        x2, x3 = queries[i, k + 2], queries[i, k + 3]
        for j in range(TILE):
            d0, d1 = x0 - tiles[tile, k, j], x1 - tiles[tile, k + 1, j]
            d2, d3 = x2 - tiles[tile, k + 2, j], x3 - tiles[tile, k + 3, j]
            total[j] = (((total[j] + d0 * d0) + d1 * d1) + d2 * d2) + d3 * d3
    for k in range(fours, dimensions):
        x = queries[i, k]
        for j in range(TILE):
            difference = x - tiles[tile, k, j]
            total[j] += difference * difference


@kernel
def search_tiles(
    queries: FloatArray,
    tiles: FloatArray,
    unit: float,
    threshold: float,
    squares: FloatArray,
    counts: IntArray,
) -> None:
    """Look at every pair.

    Parameters
    ----------
    queries : ndarray, (query, dimension), float64
        C-contiguous.
    tiles : ndarray, (tile, dimension, point), float64
        By :func:`pack_tiles`.
    unit, threshold : float
        Points at distance / unit < threshold are counted; a threshold of NaN counts none.
    squares : ndarray, (query,), float64
        Least sums of squared differences so far; is lowered.
    counts : ndarray, (query,), int64
        Is added to.
    """
    total = np.empty(TILE)
    counting = not np.isnan(threshold)
    for tile in range(len(tiles)):
        for i in range(len(queries)):
            add_squares(queries, i, tiles, tile, total)
            for j in range(TILE):
                squares[i] = min(squares[i], total[j])
            if counting:
                for j in range(TILE):
                    counts[i] += np.sqrt(total[j]) / unit < threshold


def pack_tiles(points: FloatArray) -> FloatArray:
    """Lay points out so that a tile's coordinates lie side by side.

    Parameters
    ----------
    points : ndarray, (point, dimension), float64
        Any number of them.

    Returns
    -------
    ndarray, (tile, dimension, :data:`TILE`), float64
        Filled up with points at infinity.
    """
    count, dimensions = points.shape
    tiles = np.full((-(-count // TILE), dimensions, TILE), np.inf)
    for number, part in enumerate(block_slices(count, TILE)):
        tiles[number, :, : part.stop - part.start] = points[part].T
    return tiles


def search_rows(
    queries: FloatArray, points: FloatArray, near: Nearness | None
) -> tuple[FloatArray, IntArray]:
    """Answer a few queries directly, without a second copy of all points.

    Parameters
    ----------
    queries : ndarray, (query, dimension), float64
        Any.
    points : ndarray, (point, dimension), float64
        One at least.
    near : Nearness or None
        Whether, and what, to count.

    Returns
    -------
    squares : ndarray, (query,), float64
        Least sums of squared differences.
    counts : ndarray, (query,), int64
        Near points; zero where none were to be counted.
    """
    squares = np.full(len(queries), np.inf)
    counts = np.zeros(len(queries), dtype=np.int64)
    unit, threshold = (near.unit, near.threshold) if near is not None else (1.0, np.nan)
    queries = np.ascontiguousarray(queries)
    for part in block_slices(len(points), _ROWS):
        search_tiles(queries, pack_tiles(points[part]), unit, threshold, squares, counts)
    return squares, counts


class BruteNeighbours(Neighbours):
    """Every pair in float64; memory is that of the points, once more."""

    engine: ClassVar[str] = "brute"
    query_block: ClassVar[int] = 64

    def __init__(self, points: FloatArray, *, threads: int = 1) -> None:
        super().__init__(points, threads=threads)
        self._tiles = pack_tiles(self.points)

    def _search(self, queries: FloatArray, near: Nearness | None) -> tuple[FloatArray, IntArray]:
        squares = np.full(len(queries), np.inf)
        counts = np.zeros(len(queries), dtype=np.int64)
        unit, threshold = (near.unit, near.threshold) if near is not None else (1.0, np.nan)
        search_tiles(queries, self._tiles, unit, threshold, squares, counts)
        return squares, counts
