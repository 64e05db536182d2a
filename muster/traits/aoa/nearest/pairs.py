"""All pairs of training plots in one pass: their mean distance, and each plot's nearest.

Direct differences in float64, so that duplicates are exactly 0 apart and no digit depends on BLAS.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from muster.raster.kernels import kernel
from muster.traits.aoa.nearest.brute import TILE, add_squares, pack_tiles
from muster.traits.aoa.nearest.distance import block_slices
from muster.traits.aoa.nearest.threads import map_blocks

if TYPE_CHECKING:
    from muster.traits.aoa.nearest.distance import FloatArray, IntArray

PAIR_ROWS = 64
"""Points whose distances are summed together; the sum's order is fixed by it."""


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
        Memory is bounded by the points and threads, never points × points.
    """
    points = np.ascontiguousarray(points, dtype=np.float64)
    count = len(points)
    tiles = pack_tiles(points)
    labels = np.ascontiguousarray(folds, dtype=np.int64)
    # A least of several does not depend on who found which, a sum does.
    by_thread: dict[int, FloatArray] = {}

    def sum_rows(rows: slice) -> float:
        squares = by_thread.setdefault(threading.get_ident(), np.full(count, np.inf))
        return float(_pass_rows(points, tiles, labels, rows.start, rows.stop, squares))

    total = math.fsum(map_blocks(sum_rows, block_slices(count, PAIR_ROWS), threads))
    nearest = np.sqrt(np.minimum.reduce(list(by_thread.values())))
    return PairSummary(
        total / (count * (count - 1) / 2), np.where(np.isfinite(nearest), nearest, np.nan)
    )


@kernel
def _pass_rows(
    points: FloatArray,
    tiles: FloatArray,
    labels: IntArray,
    start: int,
    stop: int,
    squares: FloatArray,
) -> float:
    """Pass over the pairs of some points and all later ones; return the sum of their distances."""
    count = len(points)
    total, sums, least = np.empty(TILE), np.zeros(TILE), np.empty(TILE)
    for tile in range(start // TILE, len(tiles)):
        first = tile * TILE
        for i in range(start, min(stop, first + TILE)):
            add_squares(points, i, tiles, tile, total)
            least[:] = np.inf
            for j in range(max(0, i + 1 - first), min(TILE, count - first)):
                sums[j] += np.sqrt(total[j])
                other = np.inf if labels[first + j] == labels[i] else total[j]
                least[j] = other if other < least[j] else least[j]
                old = squares[first + j]
                squares[first + j] = other if other < old else old
            for j in range(TILE):
                squares[i] = min(squares[i], least[j])
    result = 0.0
    for j in range(TILE):
        result += sums[j]
    return result
