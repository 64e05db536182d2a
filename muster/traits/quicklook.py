"""A picture of a product: its bands side by side, with legends, for a first look.

Drawn from the product's overviews, so that a raster of any size costs the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from rasterio.enums import Resampling

from muster.raster.gdal import GDAL_ERRORS, explain_read_error, open_raster
from muster.raster.whole import check_output_folder
from muster.traits.panels import Extent, Picture, draw_panels, save_figure

if TYPE_CHECKING:
    from pathlib import Path

LONGEST_SIDE_PX = 640
"""How many pixels of a band are drawn along its longer side, at most."""


def draw_quicklook(product: Path, quicklook: Path, title: str) -> None:
    """Draw a product's bands side by side into a PNG.

    Parameters
    ----------
    product : Path
        A product as :mod:`muster.traits.product` writes it.
    quicklook : Path
        The PNG; the same product gives the same bytes.
    title : str
        Stands above all.

    Raises
    ------
    InvalidInput
        When the product cannot be read or the folder cannot be written to.
    Transient
        When there is no space.
    """
    check_output_folder(quicklook)
    pictures, extent = read_pictures(product)
    save_figure(draw_panels([pictures], extent, title), quicklook)


def read_pictures(
    product: Path, longest_side_px: int = LONGEST_SIDE_PX
) -> tuple[list[Picture], Extent]:
    """Read a product's bands, decimated.

    Parameters
    ----------
    product : Path
        A product.
    longest_side_px : int
        Pixels along the longer side, at most.

    Returns
    -------
    pictures : list of Picture
        One a band.
    extent : tuple of float
        (left, right, bottom, top) in the CRS's units.
    """
    with open_raster(str(product)) as dataset:
        pictures = []
        for number in range(1, dataset.count + 1):
            classes = "meaning" in dataset.tags(number)
            pictures.append(
                Picture(
                    dataset.descriptions[number - 1] or f"band {number}",
                    dataset.units[number - 1] or "",
                    read_decimated(dataset, str(product), number, classes, longest_side_px),
                    classes,
                )
            )
        return pictures, extent_of(dataset)


def read_decimated(
    dataset: Any, uri: str, number: int, classes: bool, longest_side_px: int = LONGEST_SIDE_PX
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Read a band of a product, decimated.

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
    factor = max(1.0, max(dataset.height, dataset.width) / longest_side_px)
    shape = (max(1, round(dataset.height / factor)), max(1, round(dataset.width / factor)))
    # GDAL starts from an overview; for classes that was made by mode, and is only picked from
    # here, since GDAL's mode of signed integers spoils nodata.
    resampling = Resampling.nearest if classes else Resampling.average
    try:
        stored = dataset.read(number, out_shape=shape, resampling=resampling, masked=True)
    except GDAL_ERRORS as error:
        raise explain_read_error(error, uri, "product cannot be read") from error
    scaled = stored.astype(np.float64) * dataset.scales[number - 1] + dataset.offsets[number - 1]
    values: np.ndarray[Any, np.dtype[np.float64]] = scaled.filled(np.nan)
    return values


def extent_of(dataset: Any) -> Extent:
    """Return (left, right, bottom, top) of an open raster, in the CRS's units."""
    bounds = dataset.bounds
    return bounds.left, bounds.right, bounds.bottom, bounds.top
