"""A picture of a product: its bands side by side, with legends, for a first look.

Drawn from the product's overviews, so that a raster of any size costs the same.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from rasterio.enums import Resampling

from muster.raster.gdal import GDAL_ERRORS, explain_read_error, open_raster
from muster.raster.whole import check_output_folder, explain_write_error

if TYPE_CHECKING:
    from pathlib import Path

LONGEST_SIDE_PX = 640
"""How many pixels of a band are drawn along its longer side, at most."""

_MAP_WIDTH, _MAP_HEIGHT = 4.6, 5.2
"""The largest map, in inches."""

_LEAST_PANEL = 3.2
_TICKS = 0.75
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
            # GDAL starts from an overview; for classes that was made by mode, and is only picked
            # from here, since GDAL's mode of signed integers spoils nodata.
            resampling = Resampling.nearest if classes else Resampling.average
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
    """Place everything by the inch: maps have one scale, legends the room that they need."""
    rows, cols = pictures[0].values.shape
    scale = min(_MAP_WIDTH / cols, _MAP_HEIGHT / rows)
    map_width, map_height = max(cols * scale, 0.6), max(rows * scale, 0.6)
    panel = max(map_width + _TICKS, _LEAST_PANEL)
    width = panel * len(pictures) + 0.2
    lines = textwrap.wrap(title, max(20, int(width * 9)))[:3]
    head, foot = 0.45 + 0.22 * len(lines), 0.95
    height = head + map_height + foot
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    figure.text(0.5, 1 - 0.12 / height, "\n".join(lines), ha="center", va="top", fontsize=12)

    def add_axes(left: float, bottom: float, wide: float, high: float) -> Any:
        return figure.add_axes((left / width, bottom / height, wide / width, high / height))

    for number, picture in enumerate(pictures):
        left = panel * number + _TICKS + (panel - _TICKS - map_width) / 2
        axes = add_axes(left, foot, map_width, map_height)
        axes.set_title(picture.title, fontsize=10)
        axes.set_facecolor(_NO_VALUE)
        axes.tick_params(labelsize=7)
        axes.ticklabel_format(useOffset=False, style="plain")
        axes.xaxis.set_major_locator(MaxNLocator(max(1, int(map_width / 0.7))))
        axes.yaxis.set_major_locator(MaxNLocator(max(1, int(map_height / 0.7))))
        key_left = panel * number + _TICKS
        key = add_axes(key_left, 0.42, panel - _TICKS - 0.15, 0.13)
        if picture.classes:
            _draw_classes(axes, key, picture, extent)
        else:
            _draw_values(axes, key, picture, extent)
    return figure


def _draw_values(axes: Any, key: Any, picture: Picture, extent: tuple[float, ...]) -> None:
    finite = picture.values[np.isfinite(picture.values)]
    # A few outliers must not take the colours from all others; the bar says that they are there.
    low, high = np.percentile(finite, [2, 98]) if finite.size else (0.0, 1.0)
    if not high > low:
        low, high = low - 0.5, low + 0.5
    below = bool(finite.size and finite.min() < low)
    above = bool(finite.size and finite.max() > high)
    extend = {
        (False, False): "neither",
        (True, False): "min",
        (False, True): "max",
        (True, True): "both",
    }[below, above]
    image = axes.imshow(
        picture.values,
        extent=extent,
        aspect="auto",
        cmap="viridis",
        vmin=low,
        vmax=high,
        interpolation="nearest",
    )
    bar = axes.figure.colorbar(image, cax=key, orientation="horizontal", extend=extend)
    bar.ax.tick_params(labelsize=7)
    bar.set_label("ratio" if picture.unit == "1" else picture.unit or "no unit", fontsize=8)


def _draw_classes(axes: Any, key: Any, picture: Picture, extent: tuple[float, ...]) -> None:
    axes.imshow(
        picture.values,
        extent=extent,
        aspect="auto",
        cmap=ListedColormap([_OUTSIDE, _INSIDE]),
        vmin=0,
        vmax=1,
        interpolation="nearest",
    )
    finite = picture.values[np.isfinite(picture.values)]
    share = 100 * float((finite > 0.5).mean()) if finite.size else 0.0
    handles = [Patch(facecolor=_NO_VALUE, edgecolor="#999999", label="no value")]
    if finite.size:
        handles = [
            Patch(facecolor=_INSIDE, label=f"inside {share:.0f} %"),
            Patch(facecolor=_OUTSIDE, label=f"outside {100 - share:.0f} %"),
            *handles,
        ]
    key.set_axis_off()
    key.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, 1.6),
        ncols=len(handles),
        fontsize=7,
        frameon=False,
        handlelength=1.2,
        columnspacing=1.0,
    )
