"""Fewer dimensions for a first look: principal components, and the length of what they leave out.

Where importance decays from predictor to predictor, a few principal components hold nearly all of
the variance.  Two vectors whose leading components are y and whose rest is of length r are at least
as far apart as the vectors (y, r) are: |r - r'| is at most the distance of the rests.  So a search
among the shorter vectors excludes points by the same bound, and costs less.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from muster.traits.aoa.nearest.distance import FloatArray

KEPT_VARIANCE = 0.99
MOST_KEPT = 0.7
"""The share of the variance that is kept, and the share of the dimensions up to which that pays."""

_ORTHOGONAL = 1e-10
"""How far a rotation may be from one: a hundredth of what the rounding bound leaves free."""


@dataclass(frozen=True)
class Rotation:
    """Principal axes of a cloud of points.

    Attributes
    ----------
    axes : ndarray, (dimension, dimension), float64
        Columns, by falling variance.
    kept : int
        How many of them are kept as they are.
    """

    axes: FloatArray
    kept: int

    def shorten(self, values: FloatArray) -> FloatArray:
        """Turn vectors, and put the length of the rest in place of what is not kept.

        Parameters
        ----------
        values : ndarray, (row, dimension), float64
            Finite.

        Returns
        -------
        ndarray, (row, kept + 1), float64
            Of the same norms and no greater distances, to 1e-10 of the norms.
        """
        turned: Any = values @ self.axes
        rest = turned[:, self.kept :]
        length = np.sqrt(np.einsum("ij,ij->i", rest, rest))
        return np.column_stack([turned[:, : self.kept], length])


def find_axes(points: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Find the principal axes of points.

    Parameters
    ----------
    points : ndarray, (point, dimension), float64
        One at least.

    Returns
    -------
    variances : ndarray, (dimension,), float64
        Falling, not negative.
    axes : ndarray, (dimension, dimension), float64
        Orthonormal columns; which of them, where variances are alike, is up to LAPACK.
    """
    centred = points - points.mean(axis=0)
    variances, axes = np.linalg.eigh(centred.T @ centred / len(points))
    return np.maximum(variances[::-1], 0.0), np.ascontiguousarray(axes[:, ::-1])


def plan_rotation(points: FloatArray) -> Rotation | None:
    """Decide whether a first look in fewer dimensions pays.

    Parameters
    ----------
    points : ndarray, (point, dimension), float64
        Scaled to about one.

    Returns
    -------
    Rotation or None
        None where too many components are needed, as where all predictors count alike.
    """
    dimensions = points.shape[1]
    variances, axes = find_axes(points)
    total = float(variances.sum())
    if not total > 0 or np.abs(axes.T @ axes - np.eye(dimensions)).sum() > _ORTHOGONAL:
        return None
    kept = 1 + int(np.searchsorted(np.cumsum(variances), KEPT_VARIANCE * total))
    return Rotation(axes, kept) if kept + 1 <= MOST_KEPT * dimensions else None
