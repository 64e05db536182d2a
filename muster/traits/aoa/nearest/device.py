"""Blocks of products on an accelerator, written once against an array module.

``xp`` is CuPy where the points lie on a GPU and NumPy where the tests prove the same lines.  What
is decided in float64 (roots, comparisons, counts) is decided by NumPy on the host, from sums that
the device made one difference, one product and one addition at a time: so the bits are those of
all other engines.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from muster.errors import ConfigError
from muster.traits.aoa.nearest.blocks import limit_products
from muster.traits.aoa.nearest.brute import search_rows
from muster.traits.aoa.nearest.distance import (
    GREATEST_NORM,
    TINY,
    block_slices,
    rounding_bound,
    scale_to_one,
    squared_norms,
)
from muster.traits.aoa.nearest.engine import Neighbours
from muster.traits.aoa.nearest.products import GROUP

if TYPE_CHECKING:
    from muster.traits.aoa.nearest.distance import FloatArray, IntArray, Nearness

_SPAN = 2**13
"""Points that are multiplied together: with 4,096 queries 128 MiB of products."""

_PROPOSALS = 2**15
"""Groups that are refined together."""

_FAR = 2.0**120
"""Above every product of a query up to that norm; what fills up lies there."""


def find_cupy() -> tuple[Any, str]:
    """Import CuPy and look for a device.

    Returns
    -------
    module : module or None
        None where it cannot be used.
    reason : str
        Why not.
    """
    try:
        import cupy
    except ImportError as error:
        return None, f"CuPy cannot be imported ({error})"
    try:
        devices = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return None, f"CUDA finds no device ({error})"
    return (cupy, "") if devices else (None, "CUDA finds no device")


class ArrayNeighbours(Neighbours):
    """Products in float32 by an array module; device memory is three times the points and 300 MiB.

    Parameters
    ----------
    points : ndarray, (point, dimension), float64
        Weighted, standardised training plots, finite; one at least.
    threads : int
        Not used: one block at a time goes to the device.
    xp : module, optional
        NumPy's interface; CuPy where it is None.

    Raises
    ------
    ConfigError
        When there is no CuPy or no device, or its products are not those of float32.
    """

    engine: ClassVar[str] = "cupy"
    query_block: ClassVar[int] = 4096

    def __init__(self, points: FloatArray, *, threads: int = 1, xp: Any = None) -> None:
        if xp is None:
            xp, reason = find_cupy()
            if xp is None:
                raise ConfigError(
                    "the engine cupy cannot be used",
                    got=reason,
                    expected="CuPy and a CUDA device",
                    do="ask for a GPU and install muster[gpu] (make gpu), or take the engine auto",
                )
        super().__init__(points, threads=1)
        self._xp = xp
        self._lock = threading.Lock()
        count, dimensions = self.points.shape
        self._scale = scale_to_one(self.points)
        scaled = self.points * self._scale
        squares = squared_norms(scaled)
        self._bound = (float(np.sqrt(squares.max())), self._scale, rounding_bound(dimensions + 1))
        padded = -(-count // GROUP) * GROUP
        # One product with these gives |t|² - 2 x·t; what fills up is further than anything.
        terms = np.zeros((padded, dimensions + 1), dtype=np.float32)
        terms[:count, :-1] = -2.0 * scaled
        terms[:count, -1] = squares
        terms[count:, -1] = _FAR
        self._terms = xp.asarray(terms)
        filled = np.full((padded, dimensions), np.inf)
        filled[:count] = self.points
        self._groups = xp.asarray(filled.reshape(-1, GROUP, dimensions))
        self._check_products(dimensions + 1)

    def _check_products(self, dimensions: int) -> None:
        # TF32 keeps ten bits: 1 + 2^-12 would come back as 1.
        value = np.float32(1 + 2.0**-12)
        one = self._xp.zeros((dimensions, self.query_block), dtype=np.float32)
        one[0] = value
        row = self._xp.zeros((min(_SPAN, len(self._terms)), dimensions), dtype=np.float32)
        row[:, 0] = 1
        product = row @ one
        if not bool((product == value).all()):
            raise ConfigError(
                "the device's matrix products round to less than float32",
                got="TF32, it seems",
                expected="float32",
                do="unset CUPY_TF32",
            )

    def _search(self, queries: FloatArray, near: Nearness | None) -> tuple[FloatArray, IntArray]:
        scaled = queries * self._scale
        norms = np.sqrt(squared_norms(scaled))
        far = ~(norms <= GREATEST_NORM)
        scaled[far], norms[far] = 0.0, 0.0
        with self._lock:
            squares, counts = self._search_near(queries, scaled, norms, near)
        if far.any():
            squares[far], counts[far] = search_rows(queries[far], self.points, near)
        return squares, counts

    def _search_near(
        self, queries: FloatArray, scaled: FloatArray, norms: FloatArray, near: Nearness | None
    ) -> tuple[FloatArray, IntArray]:
        xp = self._xp
        right = np.ones((scaled.shape[1] + 1, len(scaled)), dtype=np.float32)
        right[:-1] = scaled.T
        on_device = xp.asarray(right)
        finite = np.where(np.isfinite(queries), queries, 0.0)
        exact_queries = xp.asarray(finite)
        counts = np.zeros(len(queries), dtype=np.int64)
        limits = None
        if near is not None:
            low, high = limit_products(norms, near, self._bound, len(norms))
            limits = xp.asarray(np.minimum(low, np.float32(_FAR))), xp.asarray(high)
        least = xp.empty((len(self._groups), len(queries)), dtype=np.float32)
        for part in block_slices(len(self._terms), _SPAN):
            product = (self._terms[part] @ on_device).reshape(-1, GROUP, len(queries))
            first = part.start // GROUP
            least[first : first + len(product)] = product.min(axis=1)
            if near is not None and limits is not None:
                low, high = limits
                inside = product < low
                doubtful = ((product <= high) & ~inside).any(axis=1)
                sure = xp.where(doubtful, 0, inside.sum(axis=1)).sum(axis=0)
                counts += self._to_host(sure)
                for total, query in self._refine(exact_queries, doubtful, first):
                    holds = near.holds(np.sqrt(total))
                    np.add.at(counts, query, np.count_nonzero(holds, axis=1))
        squares = np.full(len(queries), np.inf)
        best = least.argmin(axis=0)
        for block in block_slices(len(queries), _PROPOSALS):
            total = self._sum(exact_queries[block], best[block])
            squares[block] = total.min(axis=1)
        highest = xp.asarray(self._highest(squares, norms))
        for total, query in self._refine(exact_queries, least <= highest, 0):
            np.minimum.at(squares, query, total.min(axis=1))
        return squares, counts

    def _highest(self, squares: FloatArray, norms: FloatArray) -> Any:
        """As :func:`muster.traits.aoa.nearest.refine.highest_product`, for all queries."""
        greatest, scale, c = self._bound
        with np.errstate(over="ignore", invalid="ignore"):
            distance = scale * np.sqrt(squares)
            largest = norms + np.minimum(greatest, norms + distance)
            highest = distance**2 - norms**2 + c * largest**2 + TINY
            return np.nextafter(highest.astype(np.float32), np.float32(np.inf))

    def _refine(self, queries: Any, proposed: Any, first: int) -> Any:
        """Yield sums of squares, (proposal, member), and queries, of proposed groups."""
        group, query = self._xp.nonzero(proposed)
        for part in block_slices(len(group), _PROPOSALS):
            total = self._sum(queries[query[part]], group[part] + first)
            yield total, self._to_host(query[part])

    def _sum(self, queries: Any, group: Any) -> FloatArray:
        total = self._xp.zeros((len(queries), GROUP))
        for j in range(queries.shape[1]):
            difference = queries[:, j, None] - self._groups[group, :, j]
            # Two statements: a fused multiply-add would round once instead of twice.
            difference *= difference
            total += difference
        on_host: FloatArray = self._to_host(total)
        return on_host

    def _to_host(self, values: Any) -> Any:
        return values.get() if hasattr(values, "get") else np.asarray(values)
