"""Exact nearest neighbours among training plots, fast enough for a million pixels.

Distances in float32 rank well but err where plots lie close together (a duplicate comes out at
0.01 instead of 0); distances in float64 by matrix product err there as well, and direct
differences are slow.  So the fast way only ever *proposes*: every distance that leaves this module
is the square root of summed squared differences in float64, and a rounding bound guarantees that
the true nearest plot was among the proposals.  What comes out is therefore the same to the byte
whatever the windows, threads or BLAS.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import ThreadpoolController

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FloatArray = np.ndarray[Any, np.dtype[np.float64]]
IntArray = np.ndarray[Any, np.dtype[np.int64]]
BoolArray = np.ndarray[Any, np.dtype[np.bool_]]

QUERY_BLOCK = 320
TILE = 96
TILES = 4
GROUP = 16
"""Queries × a tile of points is a matrix product that stays in a core's cache; several tiles are
one call, so that threads seldom meet in the interpreter.  A group of a tile's points is what one
proposal names.  Chosen by measurement (benchmarks/aoa.py)."""

PROPOSALS = 2048
"""Proposals that are refined together."""

PAIR_ROWS = 128
PAIR_COLUMNS = 512
"""Pairs of plots that are looked at together, in float64."""

KD_TREE_DIMENSIONS = 5.0
"""Up to so many effective dimensions a k-d tree beats matrix products (benchmarks/aoa.py)."""

_UNIT_ROUNDOFF = 2.0**-24
_FAR = np.float32(3e38)


def effective_dimensions(points: FloatArray) -> float:
    """Measure how many dimensions a cloud of points really fills.

    Parameters
    ----------
    points : ndarray, (point, dimension), float64
        Weighted, standardised training plots.

    Returns
    -------
    float
        Participation ratio of the covariance's eigenvalues, (Σλ)² / Σλ², from 1 to the number of
        dimensions.
    """
    covariance = np.atleast_2d(np.cov(points, rowvar=False))
    return float(np.trace(covariance) ** 2 / np.sum(covariance**2))


def distances(queries: FloatArray, points: FloatArray) -> FloatArray:
    """Distances in float64 by direct differences, summed in the order of the dimensions.

    Parameters
    ----------
    queries, points : ndarray, (..., dimension), float64
        Broadcast against each other.

    Returns
    -------
    ndarray, (...), float64
        Exactly 0 for duplicates; the same bits whatever the arrays' shapes.
    """
    total = np.zeros(np.broadcast_shapes(queries.shape[:-1], points.shape[:-1]))
    for j in range(points.shape[-1]):
        difference = queries[..., j] - points[..., j]
        total += difference * difference
    return np.asarray(np.sqrt(total))


def block_slices(count: int, size: int) -> Iterator[slice]:
    """Yield slices of at most ``size`` that cover ``range(count)``."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


@cache
def _find_blas() -> ThreadpoolController:
    # Finding the libraries of the process takes a millisecond, each time.
    return ThreadpoolController()


@contextmanager
def each_block(threads: int) -> Iterator[Callable[..., list[Any]]]:
    """Give a map over blocks on so many threads, each with a single-threaded BLAS.

    Blocks are fixed and BLAS never splits one, so that the number of threads changes no bit.
    """
    with _find_blas().limit(limits=1, user_api="blas"):
        if threads == 1:
            yield lambda function, blocks: [function(block) for block in blocks]
        else:
            with ThreadPoolExecutor(threads) as pool:
                yield lambda function, blocks: list(pool.map(function, blocks))


@dataclass(frozen=True)
class PairSummary:
    """What one pass over all pairs of training plots yields.

    Attributes
    ----------
    mean_distance : float
        Mean over all pairs of two different plots.
    nearest : ndarray, (point,), float64
        Distance to the nearest plot of another fold; NaN where there is none.
    """

    mean_distance: float
    nearest: FloatArray


def summarise_pairs(points: FloatArray, folds: IntArray, *, threads: int = 1) -> PairSummary:
    """Find the mean distance of all pairs, and each point's nearest outside its own fold.

    Parameters
    ----------
    points : ndarray, (point, dimension), float64
        At least two.
    folds : ndarray, (point,), int
        Points of one fold are no neighbours of each other.
    threads : int
        Threads to use; the result does not depend on it.

    Returns
    -------
    PairSummary
        Memory is bounded by the blocks, never points × points.
    """
    count = len(points)
    squares = np.sum(points * points, axis=1)
    ones = np.ones(count)
    # One product of these gives |a|² - 2ab + |b|².
    left = np.ascontiguousarray(np.column_stack([points, squares, ones]))
    right = np.ascontiguousarray(np.column_stack([-2.0 * points, ones, squares]).T)
    labels = folds.astype(np.int32)

    def of_block(rows: slice) -> tuple[float, FloatArray]:
        sums: list[float] = []
        nearest = np.full(rows.stop - rows.start, np.inf)
        nearest_index = np.zeros(rows.stop - rows.start, dtype=np.int64)
        for columns in block_slices(count, PAIR_COLUMNS):
            block = left[rows] @ right[:, columns]
            # The product loses digits where two points are close, and gives no exact zero.  Close
            # points have about the same norm, so that one of the two tells what is close.
            close = np.flatnonzero(block < 2.1e-4 * squares[rows, None])
            np.sqrt(np.maximum(block, 0.0, out=block), out=block)
            for part in block_slices(len(close), PROPOSALS):
                a, b = np.divmod(close[part], block.shape[1])
                block[a, b] = distances(points[rows][a], points[columns][b])
            sums.append(float(block.sum()))
            np.putmask(block, labels[rows, None] == labels[None, columns], np.inf)
            best = block.argmin(axis=1)
            least = np.take_along_axis(block, best[:, None], axis=1)[:, 0]
            nearer = least < nearest
            nearest[nearer] = least[nearer]
            nearest_index[nearer] = best[nearer] + columns.start
        # The product is good to 1e-10; the point that it names gets its exact distance.
        exact = distances(points[rows], points[nearest_index])
        return float(np.sum(sums)), np.where(np.isfinite(nearest), exact, np.nan)

    with each_block(threads) as run:
        parts = run(of_block, block_slices(count, PAIR_ROWS))
    total = float(np.sum([part[0] for part in parts]))
    return PairSummary(total / (count * (count - 1)), np.concatenate([part[1] for part in parts]))


class Neighbours:
    """Training plots, ready to be asked for the nearest of them and for how many are near.

    Parameters
    ----------
    points : ndarray, (point, dimension), float64
        Weighted, standardised training plots.
    threads : int
        Threads to use; no result depends on it.
    engine : {"tree", "blocks"} or None
        A k-d tree or blocks of matrix products; None takes the tree up to
        :data:`KD_TREE_DIMENSIONS` effective dimensions.
    """

    def __init__(self, points: FloatArray, *, threads: int = 1, engine: str | None = None) -> None:
        if engine is None:
            few = effective_dimensions(points) <= KD_TREE_DIMENSIONS
            engine = "tree" if few else "blocks"
        self.points = np.ascontiguousarray(points, dtype=np.float64)
        self.threads = threads
        self.engine = engine
        count, dimensions = self.points.shape
        self._roundoff = (dimensions + 10) * _UNIT_ROUNDOFF
        tiles = -(-count // TILE)
        squares = np.sum(self.points * self.points, axis=1)
        self._largest_norm = float(np.sqrt(squares.max()))
        # What is kept of a block of queries grows with the points: 16 MiB of it at most.
        self._query_block = max(16, min(QUERY_BLOCK, 2**22 * GROUP // (tiles * TILE)))
        # One product then gives |t|² - 2 x·t, which ranks like the distance.
        terms = np.zeros((tiles * TILE, dimensions + 1), dtype=np.float32)
        terms[:count, :-1] = -2.0 * self.points
        terms[:count, -1] = squares
        terms[count:, -1] = _FAR
        self._terms = terms.reshape(tiles, TILE, dimensions + 1)
        grouped = np.full((tiles * TILE, dimensions), np.inf)
        grouped[:count] = self.points
        # (dimension, group, member): the members of a group lie TILE / GROUP points apart, and are
        # gathered as one run of memory.
        self._grouped = np.ascontiguousarray(
            grouped.reshape(tiles, GROUP, TILE // GROUP, dimensions).transpose(3, 0, 2, 1)
        ).reshape(dimensions, -1, GROUP)
        self._tree: Any = None
        if engine == "tree":
            from scipy.spatial import cKDTree

            self._tree = cKDTree(self.points)

    def nearest(self, queries: FloatArray) -> FloatArray:
        """Distance of each query to its nearest point.

        Parameters
        ----------
        queries : ndarray, (query, dimension), float64
            In the points' space, finite.

        Returns
        -------
        ndarray, (query,), float64
            As :func:`distances` gives it, exactly 0 for a duplicate.
        """
        if len(queries) == 0:
            return np.empty(0)
        if self._tree is not None:
            _, index = self._tree.query(queries, workers=self.threads)
            return distances(queries, self.points[index])
        with each_block(self.threads) as run:
            parts = run(
                lambda block: self._nearest_in_block(queries[block]),
                block_slices(len(queries), self._query_block),
            )
        return np.concatenate(parts)

    def count_within(
        self,
        queries: FloatArray,
        near: Callable[[FloatArray], BoolArray],
        radius: float,
    ) -> IntArray:
        """Count the points that are near each query.

        Parameters
        ----------
        queries : ndarray, (query, dimension), float64
            In the points' space, finite.
        near : callable
            Distances → bool; decides on pairs whose distance is about ``radius``.
        radius : float
            Distance under which points are near, but for rounding.

        Returns
        -------
        ndarray, (query,), int64
            Number of points.
        """
        if len(queries) == 0:
            return np.empty(0, dtype=np.int64)
        with each_block(self.threads) as run:
            parts = run(
                lambda block: self._count_in_block(queries[block], near, radius),
                block_slices(len(queries), self._query_block),
            )
        return np.concatenate(parts)

    def _products(self, queries: FloatArray) -> Iterator[tuple[int, Any]]:
        """Yield first point's index and |t|² - 2 x·t, (point, query) float32, block by block."""
        right = np.ones((queries.shape[1] + 1, len(queries)), dtype=np.float32)
        right[:-1] = queries.T
        out = np.empty((TILES, TILE, len(queries)), dtype=np.float32)
        for tiles in block_slices(len(self._terms), TILES):
            product = np.matmul(self._terms[tiles], right, out=out[: tiles.stop - tiles.start])
            yield tiles.start * TILE, product.reshape(-1, len(queries))

    def _nearest_in_block(self, queries: FloatArray) -> FloatArray:
        width = TILE // GROUP * len(queries)
        by_tile = np.empty((len(self._terms), width), dtype=np.float32)
        least = by_tile.reshape(-1, len(queries))
        with np.errstate(over="ignore", invalid="ignore"):
            for start, product in self._products(queries):
                members = product.reshape(-1, GROUP, width)
                first = start // TILE
                np.minimum.reduce(members, axis=1, out=by_tile[first : first + len(members)])
            squares = np.sum(queries * queries, axis=1)
            smallest = least.min(axis=0).astype(np.float64)
            # A product errs by at most c (|x| + |t|)², and the plot that it names lies at most d
            # away, |t| <= |x| + d; so d² <= (smallest + |x|² + 8 c |x|²) / (1 - 2 c), and whatever
            # is truly nearest has a product of at most smallest + 2 c (2 |x| + d)².
            c = self._roundoff
            reach = np.maximum(smallest + squares, 0.0) + 8 * c * squares
            reach = np.sqrt(reach / (1 - 2 * c))
            limit = smallest + 2 * c * (2 * np.sqrt(squares) + reach) ** 2
            proposed = least <= limit
        # Where float32 overflowed nothing can be excluded.
        proposed[:, ~np.isfinite(limit) | (limit >= _FAR)] = True
        # One axis at a time: NumPy looks through two far more slowly.
        group, query = np.divmod(np.flatnonzero(proposed), len(queries))
        best = np.full(len(queries), np.inf)
        for part in block_slices(len(query), PROPOSALS):
            exact = self._group_distances(queries[query[part]], group[part])
            np.minimum.at(best, query[part], exact)
        return best

    def _group_distances(self, queries: FloatArray, group: IntArray) -> FloatArray:
        total = np.zeros((len(queries), GROUP))
        for j in range(queries.shape[1]):
            difference = self._grouped[j].take(group, axis=0)
            np.subtract(queries[:, j, None], difference, out=difference)
            np.multiply(difference, difference, out=difference)
            total += difference
        return np.asarray(np.sqrt(total.min(axis=1)))

    def _count_in_block(
        self, queries: FloatArray, near: Callable[[FloatArray], BoolArray], radius: float
    ) -> IntArray:
        counts = np.zeros(len(queries), dtype=np.int64)
        with np.errstate(over="ignore", invalid="ignore"):
            squares = np.sum(queries * queries, axis=1)
            margin = self._roundoff * (np.sqrt(squares) + self._largest_norm) ** 2
            # Rounded outwards once more, as the comparison is one of float32.
            low = np.nextafter(
                (radius**2 - squares - margin).astype(np.float32), np.float32(-np.inf)
            )
            high = np.nextafter(
                (radius**2 - squares + margin).astype(np.float32), np.float32(np.inf)
            )
            for start, product in self._products(queries):
                inside = product < low
                counts += np.count_nonzero(inside, axis=0)
                point, query = np.nonzero((product <= high) & ~inside)
                point += start
                for part in block_slices(len(point), PROPOSALS):
                    exact = distances(queries[query[part]], self.points[point[part]])
                    np.add.at(counts, query[part], near(exact))
        return counts
