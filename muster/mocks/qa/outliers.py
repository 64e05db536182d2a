"""Boxes that are unlike the others of their redshift.

A box's distance is the sum over bins of its squared robust deviation ((x − median)/(1.4826 MAD))²,
bins being those whose median holds enough objects to be near Gaussian.  The cube root of such a sum
is near normal however many bins there are and however they correlate (Wilson & Hilferty 1931), so
that it is compared with its own median and MAD over the boxes.  Neither moves by some outliers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from muster.mocks.qa.bins import FloatArray

LEAST_BOXES = 15
"""Fewer boxes say nothing of what is usual."""

LEAST_MEDIAN = 20
"""Objects that a bin of counts holds in the median box at least, to be looked at."""

_MAD_TO_SIGMA = 1.4826
_LEAST_SPREAD = 1e-6


@dataclass(frozen=True)
class Deviations:
    """How far each box is from the others.

    Attributes
    ----------
    score : array, shape (boxes,)
        In robust standard deviations; an outlier is above :func:`threshold`.  NaN for a box with
        a value that is not finite, and where there are fewer than :data:`LEAST_BOXES` boxes.
    bin : array of int, shape (boxes,)
        The bin that deviates most.
    """

    score: FloatArray
    bin: NDArray[np.int64]


def threshold(boxes: int) -> float:
    """Return the robust standard deviations above which a box is an outlier: 6 + 30/N.

    The MAD of few boxes is uncertain: with the second term less than one ensemble in a hundred of
    15 boxes, and none in thousands of larger ones, has an outlier by chance.
    """
    return 6.0 + 30.0 / boxes


def score_boxes(values: NDArray[Any], *, counts: bool) -> Deviations:
    """Score how unlike the others each box is.

    Parameters
    ----------
    values : array, shape (boxes, bins)
        One statistic of the boxes of one redshift.
    counts : bool
        Whether these are numbers of objects, of which bins with few are not looked at.
    """
    finite = np.isfinite(values).all(axis=1)
    score = np.full(len(values), np.nan)
    largest = np.zeros(len(values), np.int64)
    if finite.sum() < LEAST_BOXES:
        return Deviations(score, largest)
    vectors = values[finite].astype(np.float64)
    median = np.median(vectors, axis=0)
    used = np.flatnonzero(median >= LEAST_MEDIAN) if counts else np.arange(vectors.shape[1])
    if not len(used):
        return Deviations(score, largest)
    deviation = _standardise(vectors[:, used])
    distance = np.cbrt((deviation**2).sum(axis=1))
    score[finite] = _standardise(distance[:, None])[:, 0]
    largest[finite] = used[np.abs(deviation).argmax(axis=1)]
    return Deviations(score, largest)


def _standardise(values: FloatArray) -> FloatArray:
    """Return (x − median)/(1.4826 MAD) along the boxes."""
    median = np.median(values, axis=0)
    spread = _MAD_TO_SIGMA * np.median(np.abs(values - median), axis=0)
    # What differs by less than a millionth is the same.
    size = np.where(median != 0, np.abs(median), np.abs(values).max(axis=0))
    least = np.where(size > 0, _LEAST_SPREAD * size, 1.0)
    standard: FloatArray = (values - median) / np.maximum(spread, least)
    return standard
