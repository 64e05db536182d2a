"""The one distance that every engine must return, and what is known about rounding.

Engines may propose plots as they like; what they return is the square root of squared differences
that were summed in float64, in the order of the dimensions.  That order is the contract by which
engines, windows and numbers of threads give the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

FloatArray = np.ndarray[Any, np.dtype[np.float64]]
IntArray = np.ndarray[Any, np.dtype[np.int64]]
BoolArray = np.ndarray[Any, np.dtype[np.bool_]]

UNIT_ROUNDOFF = 2.0**-24
"""Of float32."""

TINY = 2.0**-100
"""More than float32 can lose to underflow, where the points were scaled to about 1."""


GREATEST_NORM = 2.0**56
"""Beyond, where the points were scaled to about 1, squares of float32 come near infinity."""


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
    return np.asarray(np.sqrt(sum_squares(queries, points)))


def sum_squares(queries: FloatArray, points: FloatArray) -> FloatArray:
    """Sum squared differences in the order of the dimensions.

    Parameters
    ----------
    queries, points : ndarray, (..., dimension), float64
        Broadcast against each other.

    Returns
    -------
    ndarray, (...), float64
        The squares of :func:`distances`, before the root.
    """
    total = np.zeros(np.broadcast_shapes(queries.shape[:-1], points.shape[:-1]))
    for j in range(points.shape[-1]):
        difference = queries[..., j] - points[..., j]
        total += difference * difference
    return total


def rounding_bound(dimensions: int) -> float:
    """Bound the error of |t|² - 2 x·t, or of |x - t|², in float32.

    By Higham (2002, Accuracy and Stability of Numerical Algorithms, section 3.1) an inner product
    of *n* terms errs by at most n u / (1 - n u) times that of the absolute values, in any order and
    with or without fused multiplication.  Rounding x, t and |t|² to float32 adds three units, the
    sum with |x|² and |t|² four; the rest is for what is done in float64.

    Parameters
    ----------
    dimensions : int
        Length of x and t, less than a million.

    Returns
    -------
    float
        c, with an error of at most c (|x| + |t|)², but for underflow.
    """
    return (dimensions + 12) * UNIT_ROUNDOFF * (1 + 2.0**-3)


@dataclass(frozen=True)
class Nearness:
    """Which distances count as near: those with distance / unit < threshold, in float64.

    Attributes
    ----------
    unit : float
        Mean distance of the training plots, above zero.
    threshold : float
        Of the dissimilarity index.
    """

    unit: float
    threshold: float

    @property
    def radius(self) -> float:
        """The distance at which it is decided, but for rounding."""
        return self.unit * self.threshold

    def holds(self, distance: FloatArray) -> BoolArray:
        """Decide.

        Parameters
        ----------
        distance : ndarray, float64
            As :func:`distances` gives it.
        """
        near: BoolArray = np.asarray(distance / self.unit < self.threshold)
        return near


def block_slices(count: int, size: int) -> Iterator[slice]:
    """Yield slices of at most ``size`` that cover ``range(count)``."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def scale_to_one(points: FloatArray) -> float:
    """Give the power of two that brings the greatest coordinate to between a half and one.

    Multiplying by it changes no digit.

    Parameters
    ----------
    points : ndarray, (point, dimension), float64
        Finite.
    """
    largest = float(np.max(np.abs(points), initial=0.0))
    return float(np.ldexp(1.0, -int(np.frexp(largest)[1]))) if largest > 0 else 1.0


def squared_norms(values: FloatArray) -> FloatArray:
    """Sum the squares of each row.

    Parameters
    ----------
    values : ndarray, (row, dimension), float64
        What overflows becomes infinite.
    """
    with np.errstate(over="ignore"):
        return np.asarray(np.einsum("ij,ij->i", values, values))
