"""A picture of a product: its bands side by side, with legends, for a first look.

Drawn from the product's overviews, so that a raster of any size costs the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from rasterio.enums import Resampling

from muster.raster.gdal import GDAL_ERRORS, explain_read_error, open_raster
from muster.raster.whole import check_output_folder, explain_write_error

if TYPE_CHECKING:
    from pathlib import Path

LONGEST_SIDE_PX = 640
"""How many pixels of a band are drawn along its longer side, at most."""

_PANEL_INCHES = 4.2
_DPI = 110
_NO_VALUE = "#e4e4e4"
_OUTSIDE, _INSIDE = "#d9822b", "#2a7f78"


@dataclass(frozen=True)
class Picture:
    """One band, decimated.

    Attributes
    ----------
    title : str
        The band's description.
    unit : str
        Of the values; "1" for ratios and classes.
    values : ndarray, (row, col), float64
        NaN for nodata.
    classes : bool
        Whether the values are 0 and 1, for outside and inside.
    """

    title: str
    unit: str
    values: np.ndarray[Any, np.dtype[np.float64]]
    classes: bool


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
    figure = _draw(pictures, extent, title)
    try:
        # Nothing of the machine or the moment in the file.
        figure.savefig(quicklook, format="png", dpi=_DPI, metadata={"Software": None})
    except OSError as error:
        quicklook.unlink(missing_ok=True)
        raise explain_write_error(quicklook, str(error.strerror)) from error


def read_pictures(
    product: Path, longest_side_px: int = LONGEST_SIDE_PX
) -> tuple[list[Picture], tuple[float, float, float, float]]:
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
        factor = max(1.0, max(dataset.height, dataset.width) / longest_side_px)
        shape = (max(1, round(dataset.height / factor)), max(1, round(dataset.width / factor)))
        bounds = dataset.bounds
        pictures = []
        for number in range(1, dataset.count + 1):
            classes = "meaning" in dataset.tags(number)
            # From the nearest overview down, by the same means that made the overview.
            resampling = Resampling.mode if classes else Resampling.average
            try:
                stored = dataset.read(number, out_shape=shape, resampling=resampling, masked=True)
            except GDAL_ERRORS as error:
                raise explain_read_error(error, str(product), "product cannot be read") from error
            scaled = (
                stored.astype(np.float64) * dataset.scales[number - 1] + dataset.offsets[number - 1]
            )
            pictures.append(
                Picture(
                    dataset.descriptions[number - 1] or f"band {number}",
                    dataset.units[number - 1] or "",
                    scaled.filled(np.nan),
                    classes,
                )
            )
    return pictures, (bounds.left, bounds.right, bounds.bottom, bounds.top)


def _draw(pictures: list[Picture], extent: tuple[float, float, float, float], title: str) -> Figure:
    rows, cols = pictures[0].values.shape
    # Between a strip and a tower, so that legends keep their room.
    height = _PANEL_INCHES * min(max(rows / cols, 0.45), 2.0)
    figure = Figure(figsize=(_PANEL_INCHES * len(pictures), height + 1.4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12)
    for number, picture in enumerate(pictures, start=1):
        axes = figure.add_subplot(1, len(pictures), number)
        axes.set_title(picture.title, fontsize=10)
        axes.set_facecolor(_NO_VALUE)
        axes.tick_params(labelsize=7)
        axes.ticklabel_format(useOffset=False, style="plain")
        axes.locator_params(nbins=4)
        if picture.classes:
            _draw_classes(figure, axes, picture, extent)
        else:
            _draw_values(figure, axes, picture, extent)
    return figure


def _draw_values(figure: Figure, axes: Any, picture: Picture, extent: tuple[float, ...]) -> None:
    finite = picture.values[np.isfinite(picture.values)]
    # A few outliers must not take the colours from all others; the bar says that they are there.
    low, high = np.percentile(finite, [2, 98]) if finite.size else (0.0, 1.0)
    extend = "neither"
    if finite.size and low < high:
        below, above = finite.min() < low, finite.max() > high
        extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[
            int(below), int(above)
        ]
    image = axes.imshow(
        picture.values,
        extent=extent,
        cmap="viridis",
        vmin=low,
        vmax=high if high > low else low + 1,
        interpolation="nearest",
    )
    bar = figure.colorbar(
        image, ax=axes, orientation="horizontal", extend=extend, fraction=0.05, pad=0.03
    )
    bar.ax.tick_params(labelsize=7)
    bar.set_label("ratio" if picture.unit == "1" else picture.unit or "no unit", fontsize=8)


def _draw_classes(figure: Figure, axes: Any, picture: Picture, extent: tuple[float, ...]) -> None:
    axes.imshow(
        picture.values,
        extent=extent,
        cmap=ListedColormap([_OUTSIDE, _INSIDE]),
        vmin=0,
        vmax=1,
        interpolation="nearest",
    )
    finite = picture.values[np.isfinite(picture.values)]
    share = 100 * float((finite > 0.5).mean()) if finite.size else 0.0
    axes.legend(
        handles=[
            Patch(facecolor=_INSIDE, label=f"inside ({share:.0f} %)"),
            Patch(facecolor=_OUTSIDE, label=f"outside ({100 - share:.0f} %)"),
            Patch(facecolor=_NO_VALUE, edgecolor="#999999", label="no value"),
        ],
        loc="upper center",
        bbox_to_anchor=(0.5, -0.08),
        ncols=3,
        fontsize=7,
        frameon=False,
    )
