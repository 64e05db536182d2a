"""Two products side by side and what lies between them, for the eye: A, B, B − A.

Drawn from overviews, so that products of any size cost the same; the numbers
(:mod:`muster.traits.compare.compare`) come from every pixel, a picture from averages of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from muster.raster.band_values import extent_of, read_decimated
from muster.raster.compare.difference_picture import STYLE, difference_row, shorten_uri
from muster.raster.gdal import gdal_environment
from muster.raster.panels import Category, Picture, draw_panels, save_figure
from muster.raster.windows import plan_memory
from muster.raster.write.integrity import check_output_folder
from muster.traits.band_raster import AOA_DESCRIPTION, COV_DESCRIPTION
from muster.traits.compare.compare import common_bands, open_pair
from muster.traits.product.open_product import UNREADABLE
from muster.traits.product.quicklook import APPLICABILITY

if TYPE_CHECKING:
    from pathlib import Path

    from muster.traits.band_names import BandName
    from muster.traits.product.open_product import OpenProduct

CHANGES = (
    Category("outside both", "#ecd3b4"),
    Category("inside only A", "#3b6fb6"),
    Category("inside only B", "#c2303f"),
    Category("inside both", "#b5d6d1"),
)
"""By 2 × (inside B) + (inside A).  The colours of the difference: blue where B has less."""

_FloatArray = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def draw_comparison(a: str, b: str, picture: Path) -> None:
    """Draw A, B and B − A into a PNG, a row for each band that both products have.

    Parameters
    ----------
    a, b : str
        URIs of products that :func:`muster.traits.compare.compare.compare_products` compares.
    picture : Path
        The PNG; the same products under the same URIs give the same bytes.

    Raises
    ------
    InvalidInput, MissingInput, Transient
        As :func:`muster.traits.compare.compare.compare_products`, and when the PNG cannot be
        written.
    """
    check_output_folder(picture)
    with gdal_environment(1, plan_memory(None).cache_mib), open_pair(a, b) as pair:
        names = common_bands(*pair)
        rows = [_class_row(pair) if name == "aoa" else _value_row(name, pair) for name in names]
        traits = " and ".join(dict.fromkeys(p.trait for p in pair if p.trait))
        title = f"{traits or 'Two products'}: A, B, and what lies between them"
        notes = [f"A: {shorten_uri(a)}", f"B: {shorten_uri(b)}"]
        figure = draw_panels(rows, extent_of(pair[0].dataset), title, notes, STYLE)
    save_figure(figure, picture)


def _value_row(name: BandName, pair: tuple[OpenProduct, OpenProduct]) -> list[Picture]:
    a, b = (
        read_decimated(
            product.dataset, product.uri, product.bands.bands[name], classes=False, what=UNREADABLE
        )
        for product in pair
    )
    unit = pair[0].unit(name) or pair[1].unit(name)
    what = "prediction" if name == "prediction" else COV_DESCRIPTION
    return difference_row(a, b, (what, what), unit)


def _class_row(pair: tuple[OpenProduct, OpenProduct]) -> list[Picture]:
    a, b = (_read_inside(product) for product in pair)
    return [
        Picture(f"A: {AOA_DESCRIPTION}", "1", a, classes=True, categories=APPLICABILITY),
        Picture(f"B: {AOA_DESCRIPTION}", "1", b, classes=True, categories=APPLICABILITY),
        Picture("A and B", "1", 2 * b + a, classes=True, categories=CHANGES),
    ]


def _read_inside(product: OpenProduct) -> _FloatArray:
    """Read the area of applicability, 1 for inside; NaN for nodata."""
    number = product.bands.bands["aoa"]
    values = read_decimated(product.dataset, product.uri, number, classes=True, what=UNREADABLE)
    # Older products average this band's overviews: more than half of the pixels decide.
    inside = (np.abs(values - product.bands.outside_value) > 0.5).astype(np.float64)
    return np.where(np.isfinite(values), inside, np.nan)
