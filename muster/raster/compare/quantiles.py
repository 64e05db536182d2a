"""Quantiles of more values than fit into memory, in two passes over them.

A double's bits, read as a number, are in the order of the doubles.  The first pass counts values
by sign and leading 19 bits, which tells in which bucket each wanted order statistic lies; the
second pass counts the next 20 bits of the values in those buckets only.  So an order statistic is
known to 28 binary digits (a relative 4e-9, towards zero; exactly where no more digits are needed),
outliers spoil nothing, as they do in a histogram of equal steps, and counts do not depend on the
order or the portions in which values come.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

RELATIVE_ERROR = 2.0**-28

_FIRST_BITS, _SECOND_BITS = 19, 20
_FIRST_SHIFT = 63 - _FIRST_BITS
_SECOND_SHIFT = _FIRST_SHIFT - _SECOND_BITS
_FIRST, _SECOND = 1 << _FIRST_BITS, 1 << _SECOND_BITS

_FloatArray = np.ndarray[Any, np.dtype[np.float64]]
_IntArray = np.ndarray[Any, np.dtype[np.int64]]


class QuantileSearch:
    """Find quantiles of type 7 (NumPy's default): ``count`` all, ``locate``, ``refine`` all.

    Some 8 MiB, and 8 MiB for each bucket that is looked into: two for a quantile, at most.

    Parameters
    ----------
    probabilities : sequence of float
        In [0, 1].
    """

    def __init__(self, probabilities: Sequence[float]) -> None:
        self._probabilities = tuple(probabilities)
        self._total = 0
        self._counts: _IntArray = np.zeros(2 * _FIRST, dtype=np.int64)
        self._slot_of_bucket = np.full(2 * _FIRST, -1, dtype=np.int16)
        self._buckets: list[int] = []
        self._places: dict[int, tuple[int, int]] = {}
        self._fine: _IntArray = np.zeros((0, _SECOND), dtype=np.int64)

    def count(self, values: _FloatArray) -> None:
        """Take values into the first pass.

        Parameters
        ----------
        values : ndarray, (value,), float64
            Finite.
        """
        np.add.at(self._counts, _bucket(_bits(values)), 1)
        self._total += values.size

    def locate(self) -> None:
        """End the first pass: find out which buckets hold what is wanted."""
        if not self._total:
            return
        ends = np.cumsum(self._counts)
        for rank in sorted({rank for p in self._probabilities for rank in self._ranks(p)}):
            bucket = int(np.searchsorted(ends, rank, side="right"))
            before = int(ends[bucket] - self._counts[bucket])
            if bucket not in self._buckets:
                self._slot_of_bucket[bucket] = len(self._buckets)
                self._buckets.append(bucket)
            self._places[rank] = (self._buckets.index(bucket), rank - before)
        self._fine = np.zeros((len(self._buckets), _SECOND), dtype=np.int64)

    def refine(self, values: _FloatArray) -> None:
        """Take values into the second pass.

        Parameters
        ----------
        values : ndarray, (value,), float64
            The same as in the first pass, in any order and portions.
        """
        bits = _bits(values)
        slots = self._slot_of_bucket[_bucket(bits)]
        wanted = slots >= 0
        bits = bits[wanted]
        fine = (bits >> _SECOND_SHIFT) & (_SECOND - 1)
        # Of two negative numbers, the one with the greater bits is the smaller.
        fine = np.where(bits < 0, _SECOND - 1 - fine, fine)
        np.add.at(self._fine, (slots[wanted].astype(np.int64), fine), 1)

    def quantiles(self) -> list[float | None]:
        """Return the quantiles, in the order of the probabilities; None where there are no values.

        An order statistic is within ``RELATIVE_ERROR`` of its true value; between two of them the
        result is interpolated linearly.
        """
        found: list[float | None] = []
        for probability in self._probabilities:
            if not self._total:
                found.append(None)
                continue
            low_rank, high_rank = self._ranks(probability)
            low, high = self._value(low_rank), self._value(high_rank)
            share = probability * (self._total - 1) - low_rank
            found.append(low + share * (high - low))
        return found

    def _ranks(self, probability: float) -> tuple[int, int]:
        low = math.floor(probability * (self._total - 1))
        return low, min(low + 1, self._total - 1)

    def _value(self, rank: int) -> float:
        slot, place = self._places[rank]
        fine = int(np.searchsorted(np.cumsum(self._fine[slot]), place, side="right"))
        bucket = self._buckets[slot]
        negative = bucket < _FIRST
        if negative:
            bucket, fine = _FIRST - 1 - bucket, _SECOND - 1 - fine
        else:
            bucket -= _FIRST
        bits = (bucket << _FIRST_SHIFT) | (fine << _SECOND_SHIFT)
        value = float(np.array(bits, dtype=np.int64).view(np.float64))
        return -value if negative else value


def _bits(values: _FloatArray) -> _IntArray:
    # Minus zero becomes zero.
    return (values + 0.0).view(np.int64)


def _bucket(bits: _IntArray) -> _IntArray:
    first = (bits >> _FIRST_SHIFT) & (_FIRST - 1)
    bucket: _IntArray = np.where(bits < 0, _FIRST - 1 - first, _FIRST + first)
    return bucket
