"""faiss's flat index: a few candidates in float32, proven or done again by another engine."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from muster.traits.aoa.nearest.blocks import BlockNeighbours
from muster.traits.aoa.nearest.distance import (
    GREATEST_NORM,
    TINY,
    distances,
    rounding_bound,
    scale_to_one,
    squared_norms,
    sum_squares,
)
from muster.traits.aoa.nearest.engine import Neighbours

with warnings.catch_warnings():
    # SWIG's types have no __module__, of which Python 3.12 warns.
    warnings.simplefilter("ignore", DeprecationWarning)
    import faiss

if TYPE_CHECKING:
    from muster.traits.aoa.nearest.distance import FloatArray, IntArray, Nearness

CANDIDATES = 4


class FlatNeighbours(Neighbours):
    """IndexFlatL2 of faiss, and blocks for what its candidates leave open.

    faiss has no exact count within a radius, so that counting is left to blocks altogether.
    """

    engine: ClassVar[str] = "faiss"
    query_block: ClassVar[int] = 1024

    def __init__(self, points: FloatArray, *, threads: int = 1) -> None:
        super().__init__(points, threads=threads)
        self._scale = scale_to_one(self.points)
        scaled = self.points * self._scale
        self._greatest = float(np.sqrt(np.max(squared_norms(scaled))))
        self._index = faiss.IndexFlatL2(scaled.shape[1])
        self._index.add(scaled.astype(np.float32))
        self._blocks = BlockNeighbours(self.points)

    def _search(self, queries: FloatArray, near: Nearness | None) -> tuple[FloatArray, IntArray]:
        if near is not None:
            return self._blocks._search(queries, near)
        count = min(CANDIDATES, len(self.points))
        scaled = queries * self._scale
        norms = np.sqrt(squared_norms(scaled))
        far = ~(norms <= GREATEST_NORM)
        scaled[far] = 0.0
        # One thread of OpenMP for this thread: blocks are what is shared out.
        faiss.omp_set_num_threads(1)
        found, index = self._index.search(scaled.astype(np.float32), count)
        candidates = self.points[np.maximum(index, 0)]
        squares = sum_squares(queries[:, None], candidates).min(axis=1)
        if count < len(self.points):
            # A point that is nearer than all candidates would be among them, but for rounding.
            distance = self._scale * distances(queries[:, None], candidates).min(axis=1)
            largest = norms + np.minimum(self._greatest, norms + distance)
            bound = distance**2 + rounding_bound(queries.shape[1]) * largest**2 + TINY
            open_ = far | ~(found[:, -1] > bound)
        else:
            open_ = far
        if open_.any():
            squares[open_] = self._blocks._search(queries[open_], None)[0]
        return squares, np.zeros(len(queries), dtype=np.int64)
