"""From products in float32 to distances in float64: which groups of points must be looked at.

An exact distance b to any point bounds the distance to the nearest.  A point as near as b has
|t|² - 2 x·t of at most b² - |x|², and in float32 of at most c (|x| + |t|)² more, where |t| is at
most |x| + b, and at most the greatest of all points.  A group whose least product is above that
holds no nearer point, whichever point b came from.  All others are looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from muster.raster.kernels import kernel
from muster.traits.aoa.nearest.brute import squared_distance
from muster.traits.aoa.nearest.distance import TINY
from muster.traits.aoa.nearest.products import GROUP, PANEL, any_at_most

if TYPE_CHECKING:
    from muster.traits.aoa.nearest.distance import FloatArray
    from muster.traits.aoa.nearest.products import Float32Array, Int32Array


@kernel
def highest_product(square: float, norm: float, greatest: float, scale: float, c: float) -> float:
    """Bound the product, as float32 gives it, of a point that lies as near as another.

    Parameters
    ----------
    square : float
        Squared distance to that other point; infinite where none is known.
    norm, greatest : float
        |x|, and the greatest |t|, both scaled.
    scale : float
        By which points were multiplied for the products.
    c : float
        By :func:`muster.traits.aoa.nearest.distance.rounding_bound`.

    Returns
    -------
    float
        Above every product of a point that is at most as far.
    """
    distance = scale * np.sqrt(square)
    largest = norm + min(greatest, norm + distance)
    return float(distance * distance - norm * norm + c * largest * largest + TINY)


@kernel
def refine_nearest(
    queries: FloatArray,
    points: FloatArray,
    first: int,
    reduced: tuple[Float32Array, Float32Array, Int32Array],
    norms: FloatArray,
    bound: tuple[float, float, float],
    most: int,
    squares: FloatArray,
) -> bool:
    """Look in float64 at the groups of points that may hold a nearer one.

    Parameters
    ----------
    queries : ndarray, (query, dimension), float64
        C-contiguous.
    points : ndarray, (point, dimension), float64
        All of them, C-contiguous.
    first : int
        Number of the point that the first group starts with.
    reduced : tuple of ndarray
        ``least``, ``smallest`` and ``best`` of
        :func:`muster.traits.aoa.nearest.products.reduce_products`; ``best`` is spoilt.
    norms : ndarray, (query,), float64
        |x|, scaled.
    bound : tuple of float
        ``greatest``, ``scale`` and ``c`` of :func:`highest_product`.
    most : int
        Pairs of a query and a group, after which the search is given up.
    squares : ndarray, (query,), float64
        Least sums of squared differences so far; is updated.

    Returns
    -------
    bool
        False where it was given up: ``squares`` then are those of some points.
    """
    greatest, scale, c = bound
    least, smallest, best = reduced
    count = len(queries)
    groups, width = least.shape
    limit = np.full(width, -np.inf, dtype=np.float32)
    looked = 0
    for q in range(count):
        highest = highest_product(squares[q], norms[q], greatest, scale, c)
        if smallest[q] <= highest:
            # The most promising group first: what it gives excludes nearly all others.
            squares[q] = _least_square(queries, q, points, first + best[q] * GROUP, squares[q])
            highest = highest_product(squares[q], norms[q], greatest, scale, c)
            looked += 1
        else:
            best[q] = -1
        # Rounded outwards, as the comparison is one of float32.
        limit[q] = np.nextafter(np.float32(highest), np.float32(np.inf))
    for group in range(groups):
        for lane in range(0, width, PANEL):
            if not any_at_most(least, group * width + lane, limit, lane):  # type: ignore[call-arg]
                continue
            for q in range(lane, min(lane + PANEL, count)):
                if least[group, q] > limit[q] or best[q] == group:
                    continue
                squares[q] = _least_square(queries, q, points, first + group * GROUP, squares[q])
                highest = highest_product(squares[q], norms[q], greatest, scale, c)
                limit[q] = np.nextafter(np.float32(highest), np.float32(np.inf))
                looked += 1
                if looked > most:
                    return False
    return True


@kernel
def _least_square(
    queries: FloatArray, q: int, points: FloatArray, start: int, least: float
) -> float:
    """Look at the group that starts with a point; return the least square, with that so far."""
    for j in range(start, min(start + GROUP, len(points))):
        least = min(least, squared_distance(queries, q, points, j))
    return least


@kernel
def count_doubtful(
    queries: FloatArray,
    points: FloatArray,
    first: int,
    doubtful: Int32Array,
    unit: float,
    threshold: float,
    counts: Int32Array,
) -> None:
    """Count near points in groups that have a doubtful member.

    Parameters
    ----------
    queries, points, first : ndarray, ndarray, int
        As in :func:`refine_nearest`.
    doubtful : ndarray, (group, panel × lane), int32
        Zero where nothing is in doubt.
    unit, threshold : float
        A point at distance / unit < threshold is near.
    counts : ndarray, (panel × lane,), int32
        Is added to.
    """
    groups, width = doubtful.shape
    for group in range(groups):
        row = doubtful[group]
        for lane in range(0, width, PANEL):
            some = np.int32(0)
            for q in range(lane, lane + PANEL):
                some |= row[q]
            if some == 0:
                continue
            for q in range(lane, min(lane + PANEL, len(queries))):
                if row[q] == 0:
                    continue
                start = first + group * GROUP
                for j in range(start, min(start + GROUP, len(points))):
                    distance = np.sqrt(squared_distance(queries, q, points, j))
                    if distance / unit < threshold:
                        counts[q] += 1
