"""What all engines have in common: blocks of queries on threads, and the form of the answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from muster.traits.aoa.nearest.distance import block_slices
from muster.traits.aoa.nearest.threads import map_blocks, single_threaded_blas

if TYPE_CHECKING:
    from muster.traits.aoa.nearest.distance import FloatArray, IntArray, Nearness


class Neighbours(ABC):
    """Training plots, ready to be asked for the nearest of them and for how many are near.

    May be asked by several threads at once.

    Parameters
    ----------
    points : ndarray, (point, dimension), float64
        Weighted, standardised training plots, finite; one at least.  Differences between 1e-150
        and 1e150, where squares neither vanish nor overflow, give the same bits by all engines.
    threads : int
        Threads to use for one question; no answer depends on it.
    """

    engine: ClassVar[str]
    """The name that it is opened by."""

    query_block: ClassVar[int] = 1024
    """Queries that one thread answers together."""

    def __init__(self, points: FloatArray, *, threads: int = 1) -> None:
        self.points = np.ascontiguousarray(points, dtype=np.float64)
        self.threads = threads

    def nearest(self, queries: FloatArray) -> FloatArray:
        """Distance of each query to its nearest point.

        Parameters
        ----------
        queries : ndarray, (query, dimension), float64
            In the points' space, finite.

        Returns
        -------
        ndarray, (query,), float64
            As :func:`muster.traits.aoa.nearest.distance.distances` gives it, exactly 0 for a
            duplicate.
        """
        return self._answer(queries, None)[0]

    def nearest_and_count(self, queries: FloatArray, near: Nearness) -> tuple[FloatArray, IntArray]:
        """Distance of each query to its nearest point, and how many points are near.

        Parameters
        ----------
        queries : ndarray, (query, dimension), float64
            In the points' space, finite.
        near : Nearness
            Decides on the distances in float64.

        Returns
        -------
        nearest : ndarray, (query,), float64
            As :meth:`nearest`.
        count : ndarray, (query,), int64
            Number of points for which ``near`` holds.
        """
        return self._answer(queries, near)

    def _answer(self, queries: FloatArray, near: Nearness | None) -> tuple[FloatArray, IntArray]:
        if len(queries) == 0:
            return np.empty(0), np.empty(0, dtype=np.int64)

        def search(block: slice) -> tuple[FloatArray, IntArray]:
            return self._search(np.ascontiguousarray(queries[block], dtype=np.float64), near)

        with single_threaded_blas():
            parts = map_blocks(search, block_slices(len(queries), self.query_block), self.threads)
        squares = np.concatenate([part[0] for part in parts])
        return np.sqrt(squares), np.concatenate([part[1] for part in parts])

    @abstractmethod
    def _search(self, queries: FloatArray, near: Nearness | None) -> tuple[FloatArray, IntArray]:
        """Answer one block: least sums of squared differences, and counts (any without ``near``).

        Must be re-entrant.
        """
