"""How two rasters differ, in numbers, from windows in any order and of any size.

Only what can be added up is kept: counts, compensated sums, and the moments of pairs of values in
the form that does not lose its digits (Chan, Golub & LeVeque 1983).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from muster.raster.compare.quantiles import QuantileSearch

if TYPE_CHECKING:
    from muster.raster.band_values import BoolArray, FloatArray, WindowValues
    from muster.raster.grid import Window

PROBABILITIES = (0.05, 0.5, 0.95)


@dataclass(frozen=True)
class Greatest:
    """The greatest absolute difference and its pixel; of equals, the first row by row.

    Attributes
    ----------
    difference : float
        B − A, in the values' unit.
    row, col : int
        From 0.
    """

    difference: float
    row: int
    col: int


class Coverage:
    """Count where two rasters have values."""

    def __init__(self) -> None:
        self.valid_in_both = self.only_a = self.only_b = 0

    def add(self, a: WindowValues, b: WindowValues) -> BoolArray:
        """Take a window in, and return where both have values."""
        both: BoolArray = a.valid & b.valid
        count = int(np.count_nonzero(both))
        self.valid_in_both += count
        self.only_a += int(np.count_nonzero(a.valid)) - count
        self.only_b += int(np.count_nonzero(b.valid)) - count
        return both


class ValueDifference:
    """Differences B − A of values: ``add`` each window, ``locate``, ``refine`` each window."""

    def __init__(self) -> None:
        self.coverage = Coverage()
        self.identical_pixels = 0
        self.greatest: Greatest | None = None
        self._sum, self._squares, self._absolute = _Sum(), _Sum(), _Sum()
        self._moments = _Moments()
        self._search = QuantileSearch(PROBABILITIES)

    def add(self, window: Window, a: WindowValues, b: WindowValues) -> None:
        """Take a window in."""
        both = self.coverage.add(a, b)
        if not both.any():
            return
        of_a, of_b = a.values[both], b.values[both]
        difference = of_b - of_a
        self.identical_pixels += int(np.count_nonzero(difference == 0))
        self._sum.add(float(difference.sum()))
        self._squares.add(float(np.square(difference).sum()))
        absolute = np.abs(difference)
        self._absolute.add(float(absolute.sum()))
        self._moments.add(of_a, of_b)
        self._search.count(difference)
        place = int(absolute.argmax())
        where = int(np.flatnonzero(both)[place])
        row, col = window.row + where // window.width, window.col + where % window.width
        self._compare_greatest(Greatest(float(difference[place]), row, col))

    def locate(self) -> None:
        """End the first pass."""
        self._search.locate()

    def refine(self, a: WindowValues, b: WindowValues) -> None:
        """Take a window into the second pass."""
        both = a.valid & b.valid
        self._search.refine(b.values[both] - a.values[both])

    @property
    def mean(self) -> float | None:
        """Mean of B − A."""
        return self._average(self._sum)

    @property
    def root_mean_square(self) -> float | None:
        """Root of the mean square of B − A."""
        square = self._average(self._squares)
        return None if square is None else math.sqrt(square)

    @property
    def mean_absolute(self) -> float | None:
        """Mean of the absolute value of B − A."""
        return self._average(self._absolute)

    @property
    def correlation(self) -> float | None:
        """Pearson's r of A and B; None where either does not vary."""
        return self._moments.correlation

    def quantiles(self) -> list[float | None]:
        """Quantiles of B − A at ``PROBABILITIES``, after the second pass."""
        return self._search.quantiles()

    def _average(self, total: _Sum) -> float | None:
        count = self.coverage.valid_in_both
        return total.value / count if count else None

    def _compare_greatest(self, other: Greatest) -> None:
        mine = self.greatest
        if mine is None or _rank(other) < _rank(mine):
            self.greatest = other


class ClassDifference:
    """Where two rasters of 0 and 1, outside and inside, agree."""

    def __init__(self) -> None:
        self.coverage = Coverage()
        self.pairs = [[0, 0], [0, 0]]
        """Pixels, [class in A][class in B]."""
        self.inside_a = self.inside_b = 0
        """Pixels inside, of all that the raster has a value for."""

    def add(self, window: Window, a: WindowValues, b: WindowValues) -> None:
        """Take a window in."""
        both = self.coverage.add(a, b)
        in_a, in_b = a.values > 0.5, b.values > 0.5
        counts = np.bincount((2 * in_a + in_b)[both], minlength=4)
        for pair, count in enumerate(counts.tolist()):
            self.pairs[pair // 2][pair % 2] += count
        self.inside_a += int(np.count_nonzero(in_a & a.valid))
        self.inside_b += int(np.count_nonzero(in_b & b.valid))

    @property
    def identical_pixels(self) -> int:
        """Pixels of the same class."""
        return self.pairs[0][0] + self.pairs[1][1]


def _rank(greatest: Greatest) -> tuple[float, int, int]:
    return -abs(greatest.difference), greatest.row, greatest.col


class _Sum:
    """A sum that keeps what rounding takes from it (Neumaier)."""

    def __init__(self) -> None:
        self._total = self._lost = 0.0

    @property
    def value(self) -> float:
        return self._total + self._lost

    def add(self, term: float) -> None:
        total = self._total + term
        greater, lesser = sorted((self._total, term), key=abs, reverse=True)
        self._lost += (greater - total) + lesser
        self._total = total


class _Moments:
    """Counts, means, and sums of squares and products about the means, of pairs of values."""

    def __init__(self) -> None:
        self._count = 0
        self._mean_a = self._mean_b = 0.0
        self._square_a, self._square_b, self._product = _Sum(), _Sum(), _Sum()
        self._least = [math.inf, math.inf]
        self._greatest = [-math.inf, -math.inf]

    def add(self, a: FloatArray, b: FloatArray) -> None:
        for index, values in enumerate((a, b)):
            self._least[index] = min(self._least[index], float(values.min()))
            self._greatest[index] = max(self._greatest[index], float(values.max()))
        mean_a, mean_b = float(a.mean()), float(b.mean())
        from_a, from_b = a - mean_a, b - mean_b
        count = self._count + a.size
        shift_a, shift_b = mean_a - self._mean_a, mean_b - self._mean_b
        weight = self._count * a.size / count
        self._square_a.add(float(np.square(from_a).sum()) + shift_a * shift_a * weight)
        self._square_b.add(float(np.square(from_b).sum()) + shift_b * shift_b * weight)
        self._product.add(float((from_a * from_b).sum()) + shift_a * shift_b * weight)
        self._mean_a += shift_a * a.size / count
        self._mean_b += shift_b * a.size / count
        self._count = count

    @property
    def correlation(self) -> float | None:
        # The mean of equal values may differ from them by a rounding: look at the values.
        varies = all(low < high for low, high in zip(self._least, self._greatest, strict=True))
        spread = math.sqrt(self._square_a.value) * math.sqrt(self._square_b.value)
        if not varies or not spread > 0:
            return None
        return max(-1.0, min(1.0, self._product.value / spread))
