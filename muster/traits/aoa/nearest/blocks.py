"""Blocks of products in float32, and float64 for what they cannot exclude: the general engine."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

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
from muster.traits.aoa.nearest.products import (
    GROUP,
    PANEL,
    ROWS,
    pack_points,
    pack_queries,
    reduce_and_count_products,
    reduce_products,
)
from muster.traits.aoa.nearest.refine import count_doubtful, refine_nearest
from muster.traits.aoa.nearest.rotation import plan_rotation

if TYPE_CHECKING:
    from muster.traits.aoa.nearest.distance import FloatArray, IntArray, Nearness
    from muster.traits.aoa.nearest.rotation import Rotation

_PANELS = 192 // PANEL
_SPAN = 2**15
"""Points that are looked at together: what is kept of their products takes 1.5 MiB, twice that
where near points are counted, however many points there are."""

_WORTH = 12
"""Groups that a first look may leave to a query, on average; more would cost what it saves."""

_PATIENCE = 15
"""Blocks that go without a first look after one in which it was no help."""


class _Layout:
    """Points, laid out for products, in all of their dimensions or in fewer."""

    def __init__(self, scaled: FloatArray, scale: float, rotation: Rotation | None) -> None:
        self._rotation = rotation
        self._scale = scale
        vectors = scaled if rotation is None else rotation.shorten(scaled)
        self.terms, self.squares = pack_points(vectors)
        greatest = float(np.sqrt(np.max(squared_norms(vectors))))
        # For refine: greatest norm, scale, and the rounding bound.
        self.bound = (greatest, scale, rounding_bound(vectors.shape[1]))

    def transform(self, queries: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Give the queries in the points' scale and dimensions, and their norms."""
        scaled = queries * self._scale
        if self._rotation is not None:
            scaled = self._rotation.shorten(scaled)
        return scaled, np.sqrt(squared_norms(scaled))


class BlockNeighbours(Neighbours):
    """Blocks of products in float32; memory is that of the points and up to as much again.

    No distance depends on BLAS, and the GIL is held for a few hundredths of the time.
    """

    engine: ClassVar[str] = "blocks"
    query_block: ClassVar[int] = _PANELS * PANEL

    def __init__(self, points: FloatArray, *, threads: int = 1) -> None:
        super().__init__(points, threads=threads)
        self._scale = scale_to_one(self.points)
        scaled = self.points * self._scale
        self._whole = _Layout(scaled, self._scale, None)
        rotation = plan_rotation(scaled)
        self._short = None if rotation is None else _Layout(scaled, self._scale, rotation)
        self._local = threading.local()

    def _search(self, queries: FloatArray, near: Nearness | None) -> tuple[FloatArray, IntArray]:
        far = ~(np.sqrt(squared_norms(queries * self._scale)) <= GREATEST_NORM)
        if not far.any():
            return self._search_near(queries, near)
        squares, counts = np.empty(len(queries)), np.zeros(len(queries), dtype=np.int64)
        squares[far], counts[far] = search_rows(queries[far], self.points, near)
        if not far.all():
            squares[~far], counts[~far] = self._search_near(queries[~far], near)
        return squares, counts

    def _search_near(
        self, queries: FloatArray, near: Nearness | None
    ) -> tuple[FloatArray, IntArray]:
        squares = np.full(len(queries), np.inf)
        if near is not None:
            return squares, self._count(queries, near, squares)
        none = np.zeros(len(queries), dtype=np.int64)
        if self._short is not None:
            # Which way is taken depends on what the thread saw before; what is found does not.
            skip = getattr(self._local, "skip", 0)
            if skip:
                self._local.skip = skip - 1
            elif self._find(queries, self._short, _WORTH * len(queries), squares):
                return squares, none
            else:
                self._local.skip = _PATIENCE
        self._find(queries, self._whole, 2**62, squares)
        return squares, none

    def _find(self, queries: FloatArray, layout: _Layout, most: int, squares: FloatArray) -> bool:
        """Lower ``squares`` to the least; False where ``most`` groups were not enough."""
        vectors, norms = layout.transform(queries)
        packed = pack_queries(vectors)
        for span in block_slices(len(layout.squares), _SPAN):
            reduced = self._reduced(span, len(packed) * PANEL)
            reduce_products(packed, *_cut(layout, span), *reduced)
            if not refine_nearest(
                queries, self.points, span.start, reduced, norms, layout.bound, most, squares
            ):
                return False
        return True

    def _count(self, queries: FloatArray, near: Nearness, squares: FloatArray) -> IntArray:
        """Lower ``squares`` to the least, and count what is near."""
        layout = self._whole
        vectors, norms = layout.transform(queries)
        packed = pack_queries(vectors)
        width = len(packed) * PANEL
        counts = np.zeros(width, dtype=np.int32)
        limits = limit_products(norms, near, layout.bound, width)
        for span in block_slices(len(layout.squares), _SPAN):
            reduced = self._reduced(span, width)
            doubtful = self._rows("doubtful", np.int32, span, width)
            reduce_and_count_products(
                packed, *_cut(layout, span), *reduced, limits, (counts, doubtful)
            )
            count_doubtful(
                queries, self.points, span.start, doubtful, near.unit, near.threshold, counts
            )
            refine_nearest(
                queries, self.points, span.start, reduced, norms, layout.bound, 2**62, squares
            )
        return counts[: len(queries)].astype(np.int64)

    def _reduced(self, span: slice, width: int) -> tuple[Any, Any, Any]:
        smallest = np.full(width, np.inf, dtype=np.float32)
        return (
            self._rows("least", np.float32, span, width),
            smallest,
            np.zeros(width, dtype=np.int32),
        )

    def _rows(self, name: str, dtype: Any, span: slice, width: int) -> Any:
        # Memory fresh from the system costs a seventh of the search, so that a thread keeps its.
        cells = (span.stop - span.start) // GROUP * width
        kept = getattr(self._local, name, None)
        if kept is None or len(kept) < cells:
            kept = np.empty(cells, dtype=dtype)
            setattr(self._local, name, kept)
        return kept[:cells].reshape(-1, width)


def _cut(layout: _Layout, span: slice) -> tuple[Any, Any]:
    return layout.terms[span.start // ROWS : span.stop // ROWS], layout.squares[span]


def limit_products(
    norms: FloatArray, near: Nearness, bound: tuple[float, float, float], width: int
) -> tuple[Any, Any]:
    """Bound the products of points that are surely near, and of those that surely are not.

    Parameters
    ----------
    norms : ndarray, (query,), float64
        |x|, scaled.
    near : Nearness
        Which points are near.
    bound : tuple of float
        Greatest |t|, scale, and the rounding bound.
    width : int
        How many limits are wanted; those over the number of queries are zero.

    Returns
    -------
    low, high : ndarray, (width,), float32
        A point with a product under ``low`` is near, one with a product over ``high`` is not.
    """
    greatest, scale, c = bound
    squared_radius = (near.radius * scale) ** 2
    margin = c * (norms + greatest) ** 2 + TINY
    low, high = np.zeros(width, dtype=np.float32), np.zeros(width, dtype=np.float32)
    with np.errstate(over="ignore"):
        # Rounded outwards, as the comparison is one of float32.
        low[: len(norms)] = squared_radius - norms**2 - margin
        high[: len(norms)] = squared_radius - norms**2 + margin
        return (
            np.nextafter(low, np.float32(-np.inf)),
            np.nextafter(high, np.float32(np.inf)),
        )
