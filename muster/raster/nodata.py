"""Which pixels hold a value: decided here, so that every reader decides alike.

NaN equals nothing, itself included, and a nodata value is written in a file as a double whatever
the band's type: both make ``values != nodata`` wrong.
"""

from __future__ import annotations

from typing import Any

import numpy as np

BoolArray = np.ndarray[Any, np.dtype[np.bool_]]


def stored_nodata(nodata: float | None, dtype: str) -> float | int | None:
    """Say which value of a band's type stands for nodata.

    Parameters
    ----------
    nodata : float or None
        As the file declares it.
    dtype : str
        Type of the band.

    Returns
    -------
    float, int or None
        The value as it compares equal in the band's type; None where nothing in the type does:
        no nodata declared, NaN (always looked for, whatever is declared), or a value that the
        type cannot hold.
    """
    if nodata is None or np.isnan(nodata):
        return None
    kind = np.dtype(dtype)
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        if not float(nodata).is_integer() or not limits.min <= nodata <= limits.max:
            return None
        return int(nodata)
    # A float32 band that holds float32(-3.4e38) declares it as a double that differs from it.
    with np.errstate(over="ignore"):
        return float(kind.type(nodata))


def find_valid(values: np.ndarray[Any, Any], nodata: float | int | None) -> BoolArray:
    """Say which stored values are values.

    Parameters
    ----------
    values : ndarray, any shape
        As stored, before scale and offset.
    nodata : float, int or None
        From :func:`stored_nodata`.

    Returns
    -------
    ndarray of bool, same shape
        False for nodata, NaN and infinities.
    """
    valid: BoolArray
    if values.dtype.kind == "f":
        valid = np.isfinite(values)
        if nodata is not None:
            valid &= values != nodata
        return valid
    if nodata is None:
        return np.ones(values.shape, dtype=np.bool_)
    valid = values != nodata
    return valid
