"""Bands as they are meant: scale and offset applied, and what is no value told apart.

By windows for the numbers, decimated for the eye.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rasterio.enums import Resampling

from muster.raster.gdal import GDAL_ERRORS, explain_read_error
from muster.raster.nodata import find_valid, stored_nodata

if TYPE_CHECKING:
    from muster.raster.grid import Window

LONGEST_SIDE_PX = 640
"""How many pixels of a band are drawn along its longer side, at most."""

Extent = tuple[float, float, float, float]
"""(left, right, bottom, top) in the CRS's units."""

FloatArray = np.ndarray[Any, np.dtype[np.float64]]
BoolArray = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class WindowValues:
    """One band of one raster in one window.

    Attributes
    ----------
    values : ndarray, (row, col), float64
        Scale and offset applied; anything where there is no value.
    valid : ndarray, (row, col), bool
        Where there are values.
    """

    values: FloatArray
    valid: BoolArray


def read_window(
    dataset: Any, uri: str, number: int, window: Window, what: str = "raster cannot be read"
) -> tuple[WindowValues, np.ndarray[Any, Any]]:
    """Read a window of a band.

    Parameters
    ----------
    dataset : rasterio.DatasetReader
        Open.
    uri : str
        How it is called in messages.
    number : int
        The band, from 1.
    window : Window
        Inside the grid.
    what : str
        What went wrong where it cannot be read.

    Returns
    -------
    values : WindowValues
        In the band's unit.
    stored : ndarray, (row, col)
        As stored.

    Raises
    ------
    InvalidInput
        When the file is damaged.
    Transient
        When the network failed.
    """
    index = number - 1
    flags = {flag.name for flag in dataset.mask_flag_enums[index]}
    try:
        stored = dataset.read(number, window=window.ranges)
        valid = find_valid(stored, stored_nodata(dataset.nodatavals[index], dataset.dtypes[index]))
        if not flags & {"all_valid", "nodata"}:
            valid &= dataset.read_masks(number, window=window.ranges) > 0
    except GDAL_ERRORS as error:
        raise explain_read_error(error, uri, what) from error
    values = stored.astype(np.float64)
    scale, offset = float(dataset.scales[index]), float(dataset.offsets[index])
    if (scale, offset) != (1.0, 0.0):
        values *= scale
        values += offset
    return WindowValues(values, valid), stored


def read_decimated(
    dataset: Any,
    uri: str,
    number: int,
    classes: bool,
    longest_side_px: int = LONGEST_SIDE_PX,
    what: str = "raster cannot be read",
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Read a band, decimated.

    Parameters
    ----------
    dataset : rasterio.DatasetReader
        Open.
    uri : str
        How it is called in messages.
    number : int
        The band, from 1.
    classes : bool
        Whether its values are classes, which must not be averaged.
    longest_side_px : int
        Pixels along the longer side, at most.
    what : str
        What went wrong where it cannot be read.

    Returns
    -------
    ndarray, (row, col), float64
        Scale and offset applied, NaN for nodata.

    Raises
    ------
    InvalidInput
        When the file is damaged.
    Transient
        When the network failed.
    """
    shape = decimated_shape(dataset.height, dataset.width, longest_side_px)
    return read_in_shape(dataset, uri, number, classes, shape, what)


def read_in_shape(
    dataset: Any,
    uri: str,
    number: int,
    classes: bool,
    shape: tuple[int, int],
    what: str = "raster cannot be read",
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Read a whole band as so many rows and columns; the rest as :func:`read_decimated`."""
    # GDAL starts from an overview where there is one; for classes that was made by mode, and is
    # only picked from here, since GDAL's mode of signed integers spoils nodata.
    resampling = Resampling.nearest if classes else Resampling.average
    try:
        stored = dataset.read(number, out_shape=shape, resampling=resampling, masked=True)
    except GDAL_ERRORS as error:
        raise explain_read_error(error, uri, what) from error
    scaled = stored.astype(np.float64) * dataset.scales[number - 1] + dataset.offsets[number - 1]
    values: np.ndarray[Any, np.dtype[np.float64]] = scaled.filled(np.nan)
    return values


def decimated_shape(height: int, width: int, longest_side_px: int) -> tuple[int, int]:
    """Return (height, width) of a raster decimated so that its longer side is no longer."""
    factor = max(1.0, max(height, width) / longest_side_px)
    return max(1, round(height / factor)), max(1, round(width / factor))


def extent_of(dataset: Any) -> Extent:
    """Return (left, right, bottom, top) of an open raster, in the CRS's units."""
    bounds = dataset.bounds
    return bounds.left, bounds.right, bounds.bottom, bounds.top
