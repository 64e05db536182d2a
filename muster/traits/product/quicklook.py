"""A picture of a product: its bands side by side, with legends, for a first look.

Drawn from the product's overviews, so that a raster of any size costs the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from muster.raster.band_values import LONGEST_SIDE_PX, Extent, extent_of, read_decimated
from muster.raster.gdal import open_raster
from muster.raster.panels import Category, Picture, draw_panels, save_figure
from muster.raster.write.integrity import check_output_folder
from muster.traits.product.open_product import UNREADABLE

if TYPE_CHECKING:
    from pathlib import Path

APPLICABILITY = (Category("outside", "#d9822b"), Category("inside", "#2a7f78"))
"""Classes 0 and 1 of the area of applicability."""


def draw_quicklook(product: Path, quicklook: Path, title: str) -> None:
    """Draw a product's bands side by side into a PNG.

    Parameters
    ----------
    product : Path
        A product as :mod:`muster.traits.product.build` writes it.
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
                    read_decimated(
                        dataset, str(product), number, classes, longest_side_px, UNREADABLE
                    ),
                    classes,
                    APPLICABILITY,
                )
            )
        return pictures, extent_of(dataset)
