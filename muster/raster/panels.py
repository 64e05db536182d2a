"""Maps side by side in one picture: how they are placed, coloured and explained.

Everything is placed by the inch: maps have one scale, legends the room that they need, and nothing
of the machine or the moment is in the file, so that the same maps give the same bytes.
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

from muster.raster.write.integrity import explain_write_error

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rasterio.crs import CRS

    from muster.raster.band_values import Extent

_LEAST_PANEL = 3.2
_TICKS = 0.75
_FOOT = 0.95
_LEGEND_LINE = 0.15
_BETWEEN_ROWS = 0.4
_DPI = 110


@dataclass(frozen=True)
class Category:
    """One of the classes of a picture: its name in the legend, and its colour."""

    label: str
    colour: str


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
        Whether the values are 0, 1, … for the classes in ``categories``.
    categories : tuple of Category
        What the classes are.
    limits : tuple of float, optional
        The values that the first and the last colour stand for; by default all values but the
        outermost hundredths at either end.
    colours : str
        Matplotlib's name for the colours.
    extent : tuple of float, optional
        Where it lies, for a picture of another grid than the rest.
    outline : ndarray, (point, 2), optional
        x and y of a line that is drawn over it; NaN interrupts the line.
    """

    title: str
    unit: str
    values: np.ndarray[Any, np.dtype[np.float64]]
    classes: bool
    categories: tuple[Category, ...] = ()
    limits: tuple[float, float] | None = None
    colours: str = "viridis"
    extent: Extent | None = None
    outline: np.ndarray[Any, np.dtype[np.float64]] | None = None


@dataclass(frozen=True)
class Style:
    """How large maps are, and how pixels without a value look.

    Attributes
    ----------
    map_width, map_height : float
        The largest map, in inches.
    no_value : str
        A colour.
    """

    map_width: float = 4.6
    map_height: float = 5.2
    no_value: str = "#e4e4e4"


def draw_panels(
    rows: Sequence[Sequence[Picture]],
    extent: Extent,
    title: str,
    notes: Sequence[str] = (),
    style: Style = Style(),
) -> Figure:
    """Place pictures in rows.

    Parameters
    ----------
    rows : sequence of sequence of Picture
        From above, each from the left; all of one grid and size, but for those that have an extent
        of their own.
    extent : tuple of float
        Of all other pictures.
    title : str
        Stands above all, in up to three lines.
    notes : sequence of str
        Stand below the title, smaller, a line each.
    style : Style
        Sizes and colours.

    Returns
    -------
    matplotlib.figure.Figure
        For :func:`save_figure`.
    """
    sizes = [_map_size(picture, style) for row in rows for picture in row]
    map_width, map_height = max(wide for wide, _ in sizes), max(high for _, high in sizes)
    foot = _FOOT + _LEGEND_LINE * max(0, *(_legend_lines(p) - 3 for row in rows for p in row))
    panel = max(map_width + _TICKS, _LEAST_PANEL)
    width = panel * max(len(row) for row in rows) + 0.2
    lines = textwrap.wrap(title, max(20, int(width * 9)))[:3]
    head = 0.45 + 0.22 * len(lines)
    more_rows = (len(rows) - 1) * (map_height + foot + _BETWEEN_ROWS)
    height = head + map_height + foot + more_rows + 0.18 * len(notes)
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    above = 1 - 0.12 / height
    figure.text(0.5, above, "\n".join(lines), ha="center", va="top", fontsize=12, parse_math=False)
    if notes:
        below = above - (0.22 * len(lines) + 0.02) / height
        # As far left as the first map's ticks, so that long paths stay in the picture.
        figure.text(0.15 / width, below, "\n".join(notes), va="top", fontsize=8, parse_math=False)

    def add_axes(left: float, bottom: float, wide: float, high: float) -> Any:
        return figure.add_axes((left / width, bottom / height, wide / width, high / height))

    for number, row in enumerate(rows, start=1):
        base = (len(rows) - number) * (map_height + foot + _BETWEEN_ROWS)
        for column, picture in enumerate(row):
            wide, high = _map_size(picture, style)
            left = panel * column + _TICKS + (panel - _TICKS - wide) / 2
            axes = add_axes(left, base + foot, wide, high)
            axes.set_title(picture.title, fontsize=10, parse_math=False)
            axes.set_facecolor(style.no_value)
            axes.tick_params(labelsize=7)
            axes.ticklabel_format(useOffset=False, style="plain")
            axes.xaxis.set_major_locator(MaxNLocator(max(1, int(wide / 0.7))))
            axes.yaxis.set_major_locator(MaxNLocator(max(1, int(high / 0.7))))
            key = add_axes(panel * column + _TICKS, base + foot - 0.53, panel - _TICKS - 0.15, 0.13)
            if picture.classes:
                _draw_classes(axes, key, picture, picture.extent or extent, style)
            else:
                _draw_values(axes, key, picture, picture.extent or extent)
            if picture.outline is not None:
                _draw_outline(axes, picture.outline)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG.

    Raises
    ------
    InvalidInput
        When the folder cannot be written to.
    Transient
        When there is no space.
    """
    try:
        # Nothing of the machine or the moment in the file.
        figure.savefig(path, format="png", dpi=_DPI, metadata={"Software": None})
    except OSError as error:
        explained = explain_write_error(path, str(error.strerror), "plot")
        path.unlink(missing_ok=True)
        raise explained from error


def say_axes(crs: CRS) -> str:
    """Say what the numbers beside a map are."""
    name = crs.to_string()
    name = name if len(name) < 40 else f"{name[:37]}…"
    if crs.is_geographic:
        return f"axes: longitude and latitude in degrees, {name}"
    unit = crs.linear_units
    return f"axes: x and y in {unit}, {name}" if unit != "unknown" else f"axes: x and y, {name}"


def robust_limits(values: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[float, float]:
    """Choose what the first and the last colour stand for: a few outliers must not take them all.

    Parameters
    ----------
    values : ndarray, any shape
        NaN for nodata.

    Returns
    -------
    low, high : float
        The 2nd and the 98th percentile, or half a unit around a constant; low < high.
    """
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, [2, 98]) if finite.size else (0.0, 1.0)
    if not high > low:
        low, high = low - 0.5, low + 0.5
    return low, high


def _map_size(picture: Picture, style: Style) -> tuple[float, float]:
    """Return (width, height) of a map, in inches."""
    high, wide = (float(side) for side in picture.values.shape)
    if picture.extent is not None:
        left, right, bottom, top = picture.extent
        wide, high = abs(right - left), abs(top - bottom)
    scale = min(style.map_width / wide, style.map_height / high)
    return max(wide * scale, 0.6), max(high * scale, 0.6)


def _legend_columns(picture: Picture) -> int:
    entries = len(picture.categories) + 1
    if entries <= 3:
        return entries
    return 2 if entries <= 6 else 3


def _legend_lines(picture: Picture) -> int:
    if not picture.classes:
        return 1
    return -(-(len(picture.categories) + 1) // _legend_columns(picture))


def _draw_outline(axes: Any, outline: np.ndarray[Any, np.dtype[np.float64]]) -> None:
    axes.set_autoscale_on(False)
    # To be seen on dark and on light.
    axes.plot(outline[:, 0], outline[:, 1], color="white", linewidth=2.6)
    axes.plot(outline[:, 0], outline[:, 1], color="black", linewidth=1.0)


def _draw_values(axes: Any, key: Any, picture: Picture, extent: Extent) -> None:
    finite = picture.values[np.isfinite(picture.values)]
    low, high = picture.limits or robust_limits(finite)
    # The bar says that there are outliers.
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
        cmap=picture.colours,
        vmin=low,
        vmax=high,
        interpolation="nearest",
    )
    bar = axes.figure.colorbar(image, cax=key, orientation="horizontal", extend=extend)
    bar.ax.tick_params(labelsize=7)
    unit = "ratio" if picture.unit == "1" else picture.unit or "no unit"
    bar.set_label(unit, fontsize=8, parse_math=False)


def _draw_classes(axes: Any, key: Any, picture: Picture, extent: Extent, style: Style) -> None:
    categories = picture.categories
    colours = [category.colour for category in categories] or [style.no_value]
    axes.imshow(
        picture.values,
        extent=extent,
        aspect="auto",
        cmap=ListedColormap(colours),
        vmin=0,
        vmax=len(colours) - 1,
        interpolation="nearest",
    )
    finite = picture.values[np.isfinite(picture.values)]
    handles = [Patch(facecolor=style.no_value, edgecolor="#999999", label="no value")]
    if finite.size:
        for number, category in enumerate(categories):
            share = 100 * float((np.abs(finite - number) < 0.5).mean())
            patch = Patch(facecolor=category.colour, label=f"{category.label} {share:.0f} %")
            handles.insert(0, patch)
    key.set_axis_off()
    key.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, 1.6),
        ncols=_legend_columns(picture) if finite.size else 1,
        fontsize=7,
        frameon=False,
        handlelength=1.2,
        columnspacing=1.0,
    )
