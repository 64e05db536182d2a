"""Packing of values into int16: a quarter of the bytes of float64, at a known loss.

A packed value is ``stored × scale + offset``, with −32768 for nodata.  Scale and offset come from
the smallest and greatest value of the whole raster, so they are known only after a first pass.
Bands with outliers (a ratio) take a fixed scale instead, and what does not fit is saturated and
counted: one outlier would cost all others their digits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

INT16_NODATA = -32768
_MOST = 32767

_FloatArray = np.ndarray[Any, np.dtype[np.float64]]
_Int16Array = np.ndarray[Any, np.dtype[np.int16]]


@dataclass(frozen=True)
class Packing:
    """How values are stored: value = stored × scale + offset.

    Attributes
    ----------
    scale : float
        Greater than zero.
    offset : float
        In the values' unit.
    """

    scale: float = 1.0
    offset: float = 0.0

    def pack(self, values: _FloatArray) -> tuple[_Int16Array, int]:
        """Pack values.

        Parameters
        ----------
        values : ndarray, any shape, float64
            Not finite means nodata.

        Returns
        -------
        stored : ndarray, same shape, int16
            In [−32767, 32767], −32768 for nodata; within half a scale of the value unless
            saturated.
        saturated : int
            How many values lay outside and took the nearest end.
        """
        # NaN and infinities go through the arithmetic and are replaced in the end.
        with np.errstate(invalid="ignore", over="ignore"):
            steps = np.rint((values - self.offset) / self.scale)
        finite = np.isfinite(values)
        saturated = int(np.count_nonzero(finite & (np.abs(steps) > _MOST)))
        np.clip(steps, -_MOST, _MOST, out=steps)
        return np.where(finite, steps, INT16_NODATA).astype(np.int16), saturated

    def unpack(self, stored: _Int16Array) -> _FloatArray:
        """Unpack stored values; NaN for nodata."""
        values = stored.astype(np.float64) * self.scale + self.offset
        return np.where(stored == INT16_NODATA, np.nan, values)


COV_PACKING = Packing(scale=0.001)
"""For coefficients of variation: three decimals, up to ±32.767."""

CLASS_PACKING = Packing()
"""For classes: stored as they are."""


def plan_packing(least: float, greatest: float) -> Packing:
    """Choose scale and offset so that a range of values fills int16.

    Parameters
    ----------
    least, greatest : float
        Of all values of the raster; not finite where it has none.

    Returns
    -------
    Packing
        ``scale = (greatest − least) / 65534``, ``offset = (greatest + least) / 2``; for a constant
        band a scale of 1 with the constant as the offset, for an empty one 1 and 0.
    """
    if not (np.isfinite(least) and np.isfinite(greatest)):
        return Packing()
    steps = 2 * _MOST
    scale, offset = (greatest - least) / steps, (greatest + least) / 2
    if not (np.isfinite(scale) and np.isfinite(offset)):
        # The range of doubles overflows when it is taken before it is divided.
        scale, offset = greatest / steps - least / steps, greatest / 2 + least / 2
    if scale < np.finfo(np.float64).tiny:
        return Packing(1.0, offset)
    return Packing(float(scale), float(offset))
