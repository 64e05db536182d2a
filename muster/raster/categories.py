"""Classes by colours: the same class has the same colour in every picture beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from muster.raster.panels import Category

if TYPE_CHECKING:
    _FloatArray = np.ndarray[Any, np.dtype[np.float64]]

# Told apart side by side, and from the grey of no value.
_COLOURS = (
    "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#ee7733", "#332288",
    "#44bb99", "#994455", "#997700", "#99ddff", "#882255", "#bbcc33", "#ffaabb",
)  # fmt: skip
_OTHER = Category("other:", "#4d4d4d")


def colour_classes(*pictures: _FloatArray) -> tuple[tuple[Category, ...], list[_FloatArray]]:
    """Give classes their colours.

    Parameters
    ----------
    *pictures : ndarray, (row, col), float64
        Classes by their numbers, NaN for nodata.

    Returns
    -------
    categories : tuple of Category
        In the order of their numbers.  Where there are more classes than colours that can be told
        apart, the rarest share one.
    numbered : list of ndarray, (row, col), float64
        For each picture, which of the categories a pixel is of; NaN for nodata.
    """
    every = np.concatenate([values[np.isfinite(values)] for values in pictures])
    classes, counts = np.unique(every, return_counts=True)
    kept = classes
    if classes.size > len(_COLOURS):
        kept = np.sort(classes[np.argsort(-counts, kind="stable")[: len(_COLOURS)]])
    categories = [
        Category(f"{number:g}:", colour)
        for number, colour in zip(kept.tolist(), _COLOURS, strict=False)
    ]
    if kept.size < classes.size:
        categories.append(_OTHER)
    numbered = [_number(values, kept) for values in pictures]
    return tuple(categories), numbered


def _number(values: _FloatArray, classes: _FloatArray) -> _FloatArray:
    if not classes.size:
        return np.full(values.shape, np.nan)
    place = np.searchsorted(classes, values).clip(max=classes.size - 1)
    number = np.where(classes[place] == values, place, classes.size)
    return np.where(np.isfinite(values), number.astype(np.float64), np.nan)
