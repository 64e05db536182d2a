"""Two rasters side by side and what lies between them, for the eye: A, B, B − A.

Both are decimated alike from full resolution: overviews that two tools made in two ways would show
differences that no pixel has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from muster.raster.band_values import extent_of, read_decimated
from muster.raster.categories import colour_classes
from muster.raster.compare.difference_picture import STYLE, difference_row, shorten_uri
from muster.raster.compare.rasters import open_bands
from muster.raster.gdal import gdal_environment
from muster.raster.panels import Category, Picture, draw_panels, save_figure, say_axes
from muster.raster.windows import READING_CACHE_MIB as CACHE_MIB
from muster.raster.write.integrity import check_output_folder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from muster.raster.compare.rasters import OpenBand

_FloatArray = np.ndarray[Any, np.dtype[np.float64]]

SAME = (Category("same class", "#c9dcd5"), Category("another class", "#c2303f"))
"""By whether A and B differ."""


def draw_raster_comparison(
    a: str, b: str, picture: Path, *, band_a: int = 1, band_b: int = 1, threads: int = 1
) -> None:
    """Draw A, B and B − A into a PNG; of classes, where they are the same.

    Parameters
    ----------
    a, b : str
        URIs of rasters that :func:`muster.raster.compare.rasters.compare_rasters` compares.
    picture : Path
        The PNG; the same rasters under the same URIs give the same bytes.
    band_a, band_b : int
        Which of their bands, from 1.
    threads : int
        How many threads GDAL may use.

    Raises
    ------
    InvalidInput, MissingInput, Transient
        As :func:`muster.raster.compare.rasters.compare_rasters`, and when the PNG cannot be
        written.
    """
    check_output_folder(picture)
    with (
        gdal_environment(threads, CACHE_MIB),
        open_bands(a, b, band_a=band_a, band_b=band_b) as pair,
        # Opened so, a band has lost its description.
        open_bands(a, b, band_a=band_a, band_b=band_b, OVERVIEW_LEVEL="NONE") as full,
    ):
        classes = any(band.classes for band in pair) and all(band.whole_numbers for band in pair)
        of_a, of_b = (read_decimated(x.dataset, x.uri, x.number, classes) for x in full)
        names = tuple(band.facts.description or f"band {band.number}" for band in pair)
        if classes:
            row = _class_row(of_a, of_b, names)
        else:
            unit = pair[0].facts.unit or pair[1].facts.unit
            row = difference_row(of_a, of_b, names, unit)
        notes = [f"{name}: {_say(band)}" for name, band in zip("AB", pair, strict=True)]
        notes.append(say_axes(pair[0].grid.crs))
        title = "A, B, and where they differ" if classes else "A, B, and what lies between them"
        figure = draw_panels([row], extent_of(pair[0].dataset), title, notes, STYLE)
    save_figure(figure, picture)


def _class_row(a: _FloatArray, b: _FloatArray, names: Sequence[str]) -> list[Picture]:
    categories, (number_a, number_b) = colour_classes(a, b)
    differs = np.where(np.isfinite(a) & np.isfinite(b), (a != b) * 1.0, np.nan)
    return [
        Picture(f"A: {names[0]}", "1", number_a, classes=True, categories=categories),
        Picture(f"B: {names[1]}", "1", number_b, classes=True, categories=categories),
        Picture("A and B", "1", differs, classes=True, categories=SAME),
    ]


def _say(band: OpenBand) -> str:
    text = shorten_uri(band.uri)
    return text if band.dataset.count == 1 else f"{text}, band {band.number}"
