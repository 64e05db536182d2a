"""Two products side by side and what lies between them, for the eye: A, B, B − A.

Drawn from overviews, so that products of any size cost the same; the numbers
(:mod:`muster.traits.compare`) come from every pixel, a picture from averages of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from muster.raster.gdal import gdal_environment
from muster.raster.whole import check_output_folder
from muster.raster.windows import plan_memory
from muster.traits.compare import common_bands, open_pair
from muster.traits.panels import (
    APPLICABILITY,
    Category,
    Picture,
    Style,
    draw_panels,
    robust_limits,
    save_figure,
)
from muster.traits.quicklook import extent_of, read_decimated
from muster.traits.stage import AOA_DESCRIPTION, COV_DESCRIPTION

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from muster.traits.band_names import BandName
    from muster.traits.open_product import OpenProduct

DIVERGING = "RdBu_r"
"""Blue where B is less than A, red where it is greater, white where they are equal."""

CHANGES = (
    Category("outside both", "#ecd3b4"),
    Category("inside only A", "#3b6fb6"),
    Category("inside only B", "#c2303f"),
    Category("inside both", "#b5d6d1"),
)
"""By 2 × (inside B) + (inside A).  The colours of the difference: blue where B has less."""

# Nodata must differ from the white of no difference.
_STYLE = Style(map_width=3.8, map_height=3.6, no_value="#bdbdbd")
_LONGEST_URI = 110

_FloatArray = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def draw_comparison(a: str, b: str, picture: Path) -> None:
    """Draw A, B and B − A into a PNG, a row for each band that both products have.

    Parameters
    ----------
    a, b : str
        URIs of products that :func:`muster.traits.compare.compare_products` compares.
    picture : Path
        The PNG; the same products under the same URIs give the same bytes.

    Raises
    ------
    InvalidInput, MissingInput, Transient
        As :func:`muster.traits.compare.compare_products`, and when the PNG cannot be written.
    """
    check_output_folder(picture)
    with gdal_environment(1, plan_memory(None).cache_mib), open_pair(a, b) as pair:
        names = common_bands(*pair)
        rows = [_class_row(pair) if name == "aoa" else _value_row(name, pair) for name in names]
        traits = " and ".join(dict.fromkeys(p.trait for p in pair if p.trait))
        title = f"{traits or 'Two products'}: A, B, and what lies between them"
        notes = [f"A: {_shorten(a)}", f"B: {_shorten(b)}"]
        figure = draw_panels(rows, extent_of(pair[0].dataset), title, notes, _STYLE)
    save_figure(figure, picture)


def difference_limit(
    difference: np.ndarray[Any, np.dtype[np.float64]], greatest: float = 0.0
) -> float:
    """Choose the difference that the outermost colours stand for, to either side of zero.

    Parameters
    ----------
    difference : ndarray, any shape
        NaN for nodata.
    greatest : float
        Size of the values that were subtracted: what is a billionth of it is rounding.

    Returns
    -------
    float
        The 98th percentile of its absolute value; its greatest where that is zero; 1 where there
        is no difference at all.
    """
    size = np.abs(difference[np.isfinite(difference)])
    if not size.size:
        return 1.0
    limit = float(np.percentile(size, 98)) or float(size.max()) or 1.0
    return max(limit, 1e-9 * greatest)


def _value_row(name: BandName, pair: tuple[OpenProduct, OpenProduct]) -> list[Picture]:
    a, b = (
        read_decimated(product.dataset, product.uri, product.bands.bands[name], classes=False)
        for product in pair
    )
    unit = pair[0].unit(name) or pair[1].unit(name)
    what = "prediction" if name == "prediction" else COV_DESCRIPTION
    limits = robust_limits(np.concatenate([a.ravel(), b.ravel()]))
    difference = b - a
    limit = difference_limit(difference, max(abs(side) for side in limits))
    return [
        Picture(f"A: {what}", unit, a, classes=False, limits=limits),
        Picture(f"B: {what}", unit, b, classes=False, limits=limits),
        Picture(
            "B − A (red: B is greater)",
            unit,
            difference,
            classes=False,
            limits=(-limit, limit),
            colours=DIVERGING,
        ),
    ]


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
    values = read_decimated(product.dataset, product.uri, number, classes=True)
    # Older products average this band's overviews: more than half of the pixels decide.
    inside = (np.abs(values - product.bands.outside_value) > 0.5).astype(np.float64)
    return np.where(np.isfinite(values), inside, np.nan)


def _shorten(uri: str) -> str:
    return uri if len(uri) <= _LONGEST_URI else f"…{uri[1 - _LONGEST_URI :]}"
