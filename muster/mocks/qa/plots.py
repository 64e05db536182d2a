"""Plots of an ensemble: bands of each statistic, correlation matrices, mean histograms.

A figure has a panel a redshift.  Each is written aside and renamed, and the same ensemble gives the
same bytes.
"""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from muster import storage
from muster.counts import count_of
from muster.mocks.qa.bins import COARSE_HALO_MASS, COARSE_SFR, COARSE_STELLAR_MASS
from muster.mocks.qa.ensemble import STATISTICS, average_histogram
from muster.mocks.qa.summary import Figure
from muster.raster.panels import save_figure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from muster.mocks.qa.bins import Bins
    from muster.mocks.qa.collect import CampaignStatistics
    from muster.mocks.qa.ensemble import EnsembleStatistic

MOST_PANELS = 20
"""Panels of a figure; more redshifts go on in another."""

_COLUMNS = 4
_PANEL_WIDTH, _PANEL_HEIGHT = 3.3, 2.6
_GAP_X, _GAP_Y = 0.85, 0.75
_EDGE, _KEY = 0.25, 0.75
_HEAD, _TITLE_LINE = 0.65, 0.19
"""All in inches; gaps hold the labels of the axes, the head a title of one line."""

_TITLE_CHARACTERS_PER_IN = 10.5
_FEW_DECADES = 1.5
"""Of an axis: so few get more ticks than one a decade."""

_FACTOR_OF_LOG_TICKS = 3.0
"""An axis that spans less has equally spaced ticks: logarithmic ones would be one or none."""

_LINE, _BAND = "#1f6f68", "#2a7f78"
_DIVERGING = "RdBu_r"

_HISTOGRAMS: tuple[tuple[str, str, Bins, Bins], ...] = (
    ("halo_stellar", "Stellar mass by halo mass", COARSE_HALO_MASS, COARSE_STELLAR_MASS),
    ("stellar_sfr", "Star-formation rate by stellar mass", COARSE_STELLAR_MASS, COARSE_SFR),
)


@dataclass(frozen=True)
class _Drawing:
    """A figure to be drawn: a panel for each of ``items``, and their colours' key."""

    name: str
    title: str
    items: Sequence[Any]
    draw: Callable[[Any, Any], None]
    colours: ScalarMappable | None = None


def draw_ensemble(
    campaign: CampaignStatistics, statistics: Sequence[EnsembleStatistic], folder: str
) -> list[Figure]:
    """Draw an ensemble into PNG files.

    Parameters
    ----------
    campaign : CampaignStatistics
        For the histograms.
    statistics : sequence of EnsembleStatistic
        Of :func:`muster.mocks.qa.ensemble.summarise_campaign`.
    folder : str
        URI of the folder; figures that lie there under the same names are replaced.

    Returns
    -------
    list of Figure
        In the order in which they are to be looked at.

    Raises
    ------
    InvalidInput, Transient
        When the folder cannot be written to.
    """
    figures = []
    for drawing in _plan_figures(campaign, statistics):
        pages = math.ceil(len(drawing.items) / MOST_PANELS)
        for page in range(pages):
            items = drawing.items[page * MOST_PANELS : (page + 1) * MOST_PANELS]
            suffix = f"_{page + 1}" if page else ""
            name = f"{drawing.name}{suffix}.png"
            _save(_draw_panels(drawing, items), storage.join(folder, name))
            figures.append(Figure(name=name, title=drawing.title))
    return figures


def _plan_figures(
    campaign: CampaignStatistics, statistics: Sequence[EnsembleStatistic]
) -> Iterator[_Drawing]:
    for statistic in STATISTICS:
        mine = [s for s in statistics if s.statistic is statistic and s.boxes]
        yield _Drawing(statistic.name, f"{statistic.title}: mean, 68 % and 95 %", mine, _draw_bands)
        varied = [s for s in mine if len(s.covariance.bins)]
        title = f"{statistic.title}: correlation matrix"
        colours = ScalarMappable(Normalize(-1, 1), _DIVERGING)
        draw = partial(_draw_correlation, colours=colours)
        yield _Drawing(f"{statistic.name}_correlation", title, varied, draw, colours)
    for name, title, rows, columns in _HISTOGRAMS:
        means = [(z, mean) for z, mean in average_histogram(campaign, name).items() if mean.any()]
        if means:
            positive = np.concatenate([mean[mean > 0] for _, mean in means])
            # One galaxy in a thousand boxes is not worth half of the colours.
            high = max(float(positive.max()), 1e-2)
            colours = ScalarMappable(LogNorm(max(float(positive.min()), high / 1e6), high))
            draw = partial(_draw_histogram, rows=rows, columns=columns, colours=colours)
            yield _Drawing(name, f"{title}: mean number of galaxies", means, draw, colours)


def _draw_panels(drawing: _Drawing, items: Sequence[Any]) -> Canvas:
    columns = min(_COLUMNS, len(items))
    rows = math.ceil(len(items) / columns)
    key = _KEY if drawing.colours is not None else 0.0
    width = _PANEL_WIDTH * columns + _EDGE + key
    title = _break_title(drawing.title, int(width * _TITLE_CHARACTERS_PER_IN))
    head = _HEAD + _TITLE_LINE * (len(title) - 1)
    height = _PANEL_HEIGHT * rows + 2 * _EDGE + head - _HEAD
    figure = Canvas(figsize=(width, height))
    FigureCanvasAgg(figure)
    # Placed by the inch: to let Matplotlib find the places would take most of the time.
    figure.subplots_adjust(
        left=0.65 / width,
        right=1 - (_EDGE + key) / width,
        bottom=0.5 / height,
        top=1 - head / height,
        wspace=_GAP_X / (_PANEL_WIDTH - _GAP_X),
        hspace=_GAP_Y / (_PANEL_HEIGHT - _GAP_Y),
    )
    figure.suptitle(
        "\n".join(title), y=1 - (head - 0.45) / 2 / height - 0.1 / height,
        fontsize=11, va="center", parse_math=False,
    )  # fmt: skip
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(items) :]:
        axes.set_visible(False)
    for number, (axes, item) in enumerate(zip(grid.flat, items, strict=False)):
        axes.tick_params(labelsize=7)
        drawing.draw(axes, item)
        # All panels have the same axes, and text takes most of the time.
        if number % columns:
            axes.set_ylabel("")
        if number + columns < len(items):
            axes.set_xlabel("")
    if drawing.colours is not None:
        high = _PANEL_HEIGHT - _GAP_Y
        place = (1 - (key + 0.05) / width, 1 - (head + high) / height, 0.12 / width, high / height)
        bar = figure.colorbar(drawing.colours, cax=figure.add_axes(place))
        bar.ax.minorticks_off()
        bar.ax.tick_params(labelsize=7)
    return figure


def _break_title(title: str, characters: int) -> list[str]:
    """Break a title that is longer than a line, after its colon first."""
    parts = [title] if len(title) <= characters else title.replace(": ", ":\n").split("\n")
    return [line for part in parts for line in textwrap.wrap(part, characters)]


def _draw_bands(axes: Any, found: EnsembleStatistic) -> None:
    statistic = found.statistic
    shown = found.mean > 0
    x, mean = found.x[shown], found.mean[shown]
    low_95, low_68, high_68, high_95 = found.quantiles[:, shown]
    least = mean.min() / 10 if len(mean) else 1.0  # a band to 0 has no end on this axis
    for low, high, alpha, label in ((low_95, high_95, 0.2, "95 %"), (low_68, high_68, 0.4, "68 %")):
        axes.fill_between(
            x, np.maximum(low, least), np.maximum(high, least),
            color=_BAND, alpha=alpha, linewidth=0, label=label,
        )  # fmt: skip
    axes.plot(x, mean, color=_LINE, linewidth=1.2, label="mean")
    _use_log(axes, "y")
    axes.xaxis.set_major_locator(MaxNLocator(4))
    if statistic.log_x:
        _use_log(axes, "x")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    if len(mean):
        low, high = max(least, 0.8 * float(low_95.min())), 1.25 * float(high_95.max())
        axes.set_ylim(low, high)
        _tick_log(axes.yaxis, low, high)
    _name_axes(axes, found.redshift, statistic.x_label, statistic.y_label, found.boxes)
    if axes.get_subplotspec().num1 == 0:
        # Where the bands are not: below the middle of a statistic with its peak there.
        peak = np.argmax(mean) / len(mean) if len(mean) else 0.0
        where = "lower center" if 0.25 < peak < 0.75 else "lower left"
        axes.legend(fontsize=6, frameon=False, loc=where)


def _use_log(axes: Any, which: str) -> None:
    axes.set(**{f"{which}scale": "log"})
    # Minor ticks would take half of the time.
    axes.tick_params(axis=which, which="minor", bottom=False, left=False)
    getattr(axes, f"{which}axis").set_minor_locator(NullLocator())


def _tick_log(axis: Any, low: float, high: float) -> None:
    """Give a logarithmic axis some ticks, however few decades it spans."""
    decades = math.log10(high / low)
    if decades > _FEW_DECADES:
        axis.set_major_locator(LogLocator(numticks=5))
        return
    narrow = high < _FACTOR_OF_LOG_TICKS * low
    axis.set_major_locator(MaxNLocator(4) if narrow else LogLocator(subs=(1.0, 2.0, 3.0, 5.0)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _draw_correlation(axes: Any, found: EnsembleStatistic, *, colours: ScalarMappable) -> None:
    axes.imshow(
        found.covariance.correlation,
        cmap=colours.cmap, norm=colours.norm, origin="lower", interpolation="nearest",
        aspect="auto",
    )  # fmt: skip
    x = found.x[found.covariance.bins]
    ticks = np.unique(np.linspace(0, len(x) - 1, 4).astype(int))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ticks, [f"{x[tick]:.3g}" for tick in ticks])
    label = found.statistic.x_label
    _name_axes(axes, found.redshift, label, label, found.boxes)


def _draw_histogram(
    axes: Any,
    item: tuple[float, NDArray[Any]],
    *,
    rows: Bins,
    columns: Bins,
    colours: ScalarMappable,
) -> None:
    redshift, mean = item
    axes.imshow(
        np.where(mean > 0, mean, np.nan).T,
        extent=(*rows.edges[[0, -1]], *columns.edges[[0, -1]]),
        cmap=colours.cmap, norm=colours.norm, origin="lower", interpolation="nearest",
        aspect="auto",
    )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    _name_axes(axes, redshift, rows.unit, columns.unit)


def _name_axes(axes: Any, redshift: float, x: str, y: str, boxes: int | None = None) -> None:
    title = (
        f"z = {redshift:g}"
        if boxes is None
        else f"z = {redshift:g}, {count_of(boxes, 'box', 'boxes')}"
    )
    axes.set_title(title, fontsize=8, y=1.0, parse_math=False)
    axes.set_xlabel(x, fontsize=7, parse_math=False)
    axes.set_ylabel(y, fontsize=7, parse_math=False)


def _save(figure: Canvas, uri: str) -> None:
    staged = storage.stage(uri)
    try:
        save_figure(figure, staged.path)
        staged.publish()
    except BaseException:
        staged.discard()
        raise
