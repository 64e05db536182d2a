"""A k-d tree along the principal axes: the engine for points that fill few dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from scipy.spatial import cKDTree

from muster.traits.aoa.nearest.brute import search_rows
from muster.traits.aoa.nearest.distance import distances, squared_norms, sum_squares
from muster.traits.aoa.nearest.engine import Neighbours
from muster.traits.aoa.nearest.rotation import find_axes

if TYPE_CHECKING:
    from muster.traits.aoa.nearest.distance import FloatArray, IntArray, Nearness

_DIRECT = 1e-6
"""Where rounding exceeds so much of the radius, a ball would hold too many points to pay."""


class TreeNeighbours(Neighbours):
    """A k-d tree of SciPy's over the distinct points; its distances only propose.

    A point counts as excluded where the tree's distance is greater by more than rounding in the
    turned space can explain; what is left is looked at in the points' own space.
    """

    engine: ClassVar[str] = "tree"
    query_block: ClassVar[int] = 2048

    def __init__(self, points: FloatArray, *, threads: int = 1) -> None:
        super().__init__(points, threads=threads)
        # Duplicates would make every one of their queries a tie.
        self._distinct, self._multiplicity = np.unique(self.points, axis=0, return_counts=True)
        dimensions = self.points.shape[1]
        self._axes = find_axes(self._distinct)[1]
        skew = float(np.linalg.norm(self._axes.T @ self._axes - np.eye(dimensions)))
        # Turning errs by at most this share of |x| + |t|, the tree's own sum by less.
        self._error = 4 * skew + 8 * (dimensions + 4) ** 1.5 * 2.0**-53
        self._greatest = float(np.sqrt(np.max(squared_norms(self._distinct))))
        self._tree = cKDTree(self._distinct @ self._axes)

    def _search(self, queries: FloatArray, near: Nearness | None) -> tuple[FloatArray, IntArray]:
        turned = queries @ self._axes
        error = self._error * (np.sqrt(squared_norms(queries)) + self._greatest)
        squares = self._find(queries, turned, error)
        if near is None:
            return squares, np.zeros(len(queries), dtype=np.int64)
        return squares, self._count(queries, turned, error, near)

    def _find(self, queries: FloatArray, turned: FloatArray, error: FloatArray) -> FloatArray:
        found, index = self._tree.query(turned, k=[1, 2])
        # The tree finds nothing at all where squares overflow.
        index[index == len(self._distinct)] = 0
        exact = distances(queries, self._distinct[index[:, 0]])
        squares = sum_squares(queries, self._distinct[index[:, 0]])
        # All but the first are at least as far as the second, but for rounding.
        open_ = ~(found[:, 1] - 2 * error > exact)
        direct = open_ & ~(error < _DIRECT * exact)
        if direct.any():
            squares[direct] = search_rows(queries[direct], self._distinct, None)[0]
        ball = np.flatnonzero(open_ & ~direct)
        if len(ball):
            balls = self._tree.query_ball_point(turned[ball], exact[ball] + 2 * error[ball])
            for query, members in zip(ball, balls, strict=True):
                squares[query] = sum_squares(queries[query], self._distinct[members]).min()
        return squares

    def _count(
        self, queries: FloatArray, turned: FloatArray, error: FloatArray, near: Nearness
    ) -> IntArray:
        radius = near.radius
        margin = 2 * error + 2.0**-50 * radius
        counts = np.zeros(len(queries), dtype=np.int64)
        direct = ~(margin < _DIRECT * radius)
        if direct.any():
            counts[direct] = search_rows(queries[direct], self.points, near)[1]
        rest = np.flatnonzero(~direct)
        if len(rest) == 0:
            return counts
        plain = bool((self._multiplicity == 1).all())
        if plain:
            outer, inner = (
                self._tree.query_ball_point(
                    turned[rest], radius + sign * margin[rest], return_length=True
                )
                for sign in (1, -1)
            )
            counts[rest] = inner
            rest = rest[outer != inner]
        for query in rest:
            members = self._tree.query_ball_point(turned[query], radius + margin[query])
            holds = near.holds(distances(queries[query], self._distinct[members]))
            counts[query] = int(self._multiplicity[members] @ holds)
        return counts
