"""What lies between two rasters, for the eye: A, B, and B − A in colours that say its sign."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from muster.raster.panels import Picture, Style, robust_limits

if TYPE_CHECKING:
    from collections.abc import Sequence

    _FloatArray = np.ndarray[Any, np.dtype[np.float64]]

DIVERGING = "RdBu_r"
"""Blue where B is less than A, red where it is greater, white where they are equal."""

# Nodata must differ from the white of no difference.
STYLE = Style(map_width=3.8, map_height=3.6, no_value="#bdbdbd")
_LONGEST_URI = 110


def difference_row(
    a: _FloatArray, b: _FloatArray, names: Sequence[str], unit: str
) -> list[Picture]:
    """Make the pictures A, B and B − A.

    Parameters
    ----------
    a, b : ndarray, (row, col), float64
        NaN for nodata.
    names : sequence of str
        What A and B hold.
    unit : str
        Of both.
    """
    limits = robust_limits(np.concatenate([a.ravel(), b.ravel()]))
    difference = b - a
    limit = difference_limit(difference, max(abs(side) for side in limits))
    return [
        Picture(f"A: {names[0]}", unit, a, classes=False, limits=limits),
        Picture(f"B: {names[1]}", unit, b, classes=False, limits=limits),
        Picture(
            "B − A (red: B is greater)",
            unit,
            difference,
            classes=False,
            limits=(-limit, limit),
            colours=DIVERGING,
        ),
    ]


def difference_limit(difference: _FloatArray, greatest: float = 0.0) -> float:
    """Choose the difference that the outermost colours stand for, to either side of zero.

    Parameters
    ----------
    difference : ndarray, any shape
        NaN for nodata.
    greatest : float
        Size of the values that were subtracted: what is a billionth of it is rounding.

    Returns
    -------
    float
        The 98th percentile of its absolute value; its greatest where that is zero; 1 where there
        is no difference at all.
    """
    size = np.abs(difference[np.isfinite(difference)])
    if not size.size:
        return 1.0
    limit = float(np.percentile(size, 98)) or float(size.max()) or 1.0
    return max(limit, 1e-9 * greatest)


def shorten_uri(uri: str) -> str:
    """Keep the end of a URI that is too long for a picture."""
    return uri if len(uri) <= _LONGEST_URI else f"…{uri[1 - _LONGEST_URI :]}"
