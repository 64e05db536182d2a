"""The innermost loop of the search: |t|² - 2 x·t in float32, reduced while in registers.

A matrix product by BLAS writes points × queries numbers to memory, only for the least of each
group of points to be read from them; with 30 predictors that takes longer than the arithmetic.
Here the product of a group of points and a panel of queries lives in vector registers, and only
the group's least value is stored.  NumPy cannot say that and numba's own vectoriser does not find
it, so that the loop is given to LLVM with its vectors written out; LLVM fits them to the machine.

Nothing here needs to be exact: :func:`muster.traits.aoa.nearest.distance.rounding_bound` covers any
order of the sums and fused multiplication.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import binding, ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from muster.raster.kernels import kernel

if TYPE_CHECKING:
    from muster.traits.aoa.nearest.distance import FloatArray

Float32Array = np.ndarray[Any, np.dtype[np.float32]]
Int32Array = np.ndarray[Any, np.dtype[np.int32]]

GROUP = 16
"""Points of which only the least product is kept."""


def _lanes() -> int:
    features = binding.get_host_cpu_features()
    if features.get("avx512f"):
        return 16
    return 8 if features.get("avx") else 4


LANES = _lanes()
_VECTORS = 3
ROWS = 4
"""Points that are multiplied together: 4 points × 3 vectors of queries are 12 sums in 16 registers,
enough to hide how long a fused multiply-add takes."""

PANEL = _VECTORS * LANES
"""Queries that are multiplied together."""

_CHUNK = 32
"""Groups that all panels pass before the next are loaded; with 30 predictors 64 KiB."""

_FLOAT = ir.FloatType()
_INT = ir.IntType(32)
_INDEX = ir.IntType(64)
_ZERO = ir.Constant(_INT, 0)
_FLOATS = ir.VectorType(_FLOAT, LANES)
_INTS = ir.VectorType(_INT, LANES)


def pack_points(points: FloatArray) -> tuple[Float32Array, Float32Array]:
    """Lay points out for the loop.

    Parameters
    ----------
    points : ndarray, (point, dimension), float64
        Small enough that squares are finite in float32.

    Returns
    -------
    terms : ndarray, (point / 4, dimension, 4), float32
        -2 t; the number of points is filled up to a multiple of :data:`GROUP`.
    squares : ndarray, (point,), float32
        |t|²; infinite for points that fill up.
    """
    count, dimensions = points.shape
    padded = -(-count // GROUP) * GROUP
    terms = np.zeros((padded, dimensions), dtype=np.float32)
    np.multiply(points, -2.0, out=terms[:count], casting="same_kind")
    squares = np.full(padded, np.inf, dtype=np.float32)
    squares[:count] = np.einsum("ij,ij->i", points, points)
    by_rows = terms.reshape(-1, ROWS, dimensions).transpose(0, 2, 1)
    return np.ascontiguousarray(by_rows), squares


def pack_queries(queries: FloatArray) -> Float32Array:
    """Lay queries out for the loop.

    Parameters
    ----------
    queries : ndarray, (query, dimension), float64
        Small enough that products are finite in float32.

    Returns
    -------
    ndarray, (panel, dimension, :data:`PANEL`), float32
        Filled up with zeros.
    """
    count, dimensions = queries.shape
    panels = -(-count // PANEL)
    packed = np.zeros((panels * PANEL, dimensions), dtype=np.float32)
    packed[:count] = queries
    by_panel = packed.reshape(panels, PANEL, dimensions).transpose(0, 2, 1)
    return np.ascontiguousarray(by_panel)


class _Emitter:
    """Writes vector instructions; keeps the loops below readable."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def at(self, pointer: Any, index: Any) -> Any:
        if isinstance(index, int):
            index = ir.Constant(_INDEX, index)
        return self.builder.gep(pointer, [index])

    def splat(self, value: Any) -> Any:
        vector = ir.VectorType(value.type, LANES)
        undefined = ir.Constant(vector, ir.Undefined)
        first = self.builder.insert_element(undefined, value, ir.Constant(_INT, 0))
        return self.builder.shuffle_vector(first, undefined, ir.Constant(_INTS, [0] * LANES))

    def load(self, pointer: Any, vector: Any = _FLOATS) -> Any:
        return self.builder.load(self.builder.bitcast(pointer, vector.as_pointer()), align=4)

    def store(self, value: Any, pointer: Any) -> None:
        self.builder.store(value, self.builder.bitcast(pointer, value.type.as_pointer()), align=4)

    def variables(self, value: Any, count: int = _VECTORS) -> list[Any]:
        variables = [self._allocate(value.type) for _ in range(count)]
        for variable in variables:
            self.builder.store(value, variable)
        return variables

    def _allocate(self, kind: Any) -> Any:
        return cgutils.alloca_once(self.builder, kind)  # type: ignore[no-untyped-call]

    def update_minimum(self, variable: Any, value: Any) -> None:
        old = self.builder.load(variable)
        less = self.builder.fcmp_ordered("<", value, old)
        self.builder.store(self.builder.select(less, value, old), variable)


def _emit_products(
    emitter: _Emitter, queries: Any, terms: Any, squares: Any, dims: Any
) -> list[list[Any]]:
    """Write the products of four points with a panel; return them by point and vector."""
    builder = emitter.builder
    sums = []
    for row in range(ROWS):
        start = emitter.splat(builder.load(emitter.at(squares, row)))
        sums.append(emitter.variables(start))
    with cgutils.for_range(builder, dims) as loop:
        panel = emitter.at(queries, builder.mul(loop.index, ir.Constant(_INDEX, PANEL)))
        four = emitter.at(terms, builder.mul(loop.index, ir.Constant(_INDEX, ROWS)))
        x = [emitter.load(emitter.at(panel, v * LANES)) for v in range(_VECTORS)]
        for row in range(ROWS):
            term = emitter.splat(builder.load(emitter.at(four, row)))
            for v in range(_VECTORS):
                # "contract" lets a multiply-add be fused, and nothing else.
                product = builder.fmul(term, x[v], flags=("contract",))
                total = builder.fadd(builder.load(sums[row][v]), product, flags=("contract",))
                builder.store(total, sums[row][v])
    return [[builder.load(variable) for variable in row] for row in sums]


def _emit_least(
    emitter: _Emitter, minima: list[Any], least: Any, smallest: Any, best: Any, group: Any
) -> None:
    """Store a group's least products, and its number where none was smaller before."""
    builder = emitter.builder
    number = emitter.splat(builder.trunc(group, _INT))
    for v in range(_VECTORS):
        value = builder.load(minima[v])
        emitter.store(value, emitter.at(least, v * LANES))
        smallest_at, best_at = emitter.at(smallest, v * LANES), emitter.at(best, v * LANES)
        old, old_best = emitter.load(smallest_at), emitter.load(best_at, _INTS)
        less = builder.fcmp_ordered("<", value, old)
        emitter.store(builder.select(less, value, old), smallest_at)
        emitter.store(builder.select(less, number, old_best), best_at)


@intrinsic
def _reduce_group(  # type: ignore[no-untyped-def]  # numba gives the types
    typingctx,
    queries,
    query_at,
    terms,
    term_at,
    squares,
    square_at,
    least,
    least_at,
    smallest,
    smallest_at,
    best,
    best_at,
    dims,
    group,
):
    """Store the least product of a group with each query of a panel."""
    signature = types.void(
        *(queries, query_at, terms, term_at, squares, square_at, least, least_at),
        *(smallest, smallest_at, best, best_at, dims, group),
    )

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        emitter = _Emitter(builder)
        x, t, s, out, smallest_p, best_p = (
            _pointer(context, emitter, sig, args, i) for i in range(0, 12, 2)
        )
        dims_v, group_v = args[12:]
        infinity = emitter.splat(ir.Constant(_FLOAT, float("inf")))
        minima = emitter.variables(infinity)
        for part in range(GROUP // ROWS):
            start = builder.mul(dims_v, ir.Constant(_INDEX, part * ROWS))
            products = _emit_products(
                emitter, x, emitter.at(t, start), emitter.at(s, part * ROWS), dims_v
            )
            for row in products:
                for v in range(_VECTORS):
                    emitter.update_minimum(minima[v], row[v])
        _emit_least(emitter, minima, out, smallest_p, best_p, group_v)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def _reduce_and_count_group(  # type: ignore[no-untyped-def]  # numba gives the types
    typingctx,
    queries,
    query_at,
    terms,
    term_at,
    squares,
    square_at,
    least,
    least_at,
    smallest,
    smallest_at,
    best,
    best_at,
    low,
    low_at,
    high,
    high_at,
    counts,
    count_at,
    doubtful,
    doubtful_at,
    dims,
    group,
):
    """As :func:`_reduce_group`; count products under ``low`` in groups with none up to ``high``."""
    signature = types.void(
        *(queries, query_at, terms, term_at, squares, square_at, least, least_at),
        *(smallest, smallest_at, best, best_at, low, low_at, high, high_at),
        *(counts, count_at, doubtful, doubtful_at, dims, group),
    )

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        emitter = _Emitter(builder)
        x, t, s, out, smallest_p, best_p, lows, highs, total, doubt = (
            _pointer(context, emitter, sig, args, i) for i in range(0, 20, 2)
        )
        dims_v, group_v = args[20:]
        minima = emitter.variables(emitter.splat(ir.Constant(_FLOAT, float("inf"))))
        zeros = emitter.splat(_ZERO)
        inside, outside = emitter.variables(zeros), emitter.variables(zeros)
        for part in range(GROUP // ROWS):
            start = builder.mul(dims_v, ir.Constant(_INDEX, part * ROWS))
            products = _emit_products(
                emitter, x, emitter.at(t, start), emitter.at(s, part * ROWS), dims_v
            )
            for v in range(_VECTORS):
                low_v = emitter.load(emitter.at(lows, v * LANES))
                high_v = emitter.load(emitter.at(highs, v * LANES))
                for row in products:
                    emitter.update_minimum(minima[v], row[v])
                    # A comparison that holds is -1 in each lane.
                    for count, holds in (
                        (inside[v], builder.fcmp_ordered("<", row[v], low_v)),
                        (outside[v], builder.fcmp_ordered(">", row[v], high_v)),
                    ):
                        mask = builder.sext(holds, _INTS)
                        builder.store(builder.sub(builder.load(count), mask), count)
        _emit_least(emitter, minima, out, smallest_p, best_p, group_v)
        members = emitter.splat(ir.Constant(_INT, GROUP))
        for v in range(_VECTORS):
            surely = builder.load(inside[v])
            rest = builder.sub(builder.sub(members, surely), builder.load(outside[v]))
            emitter.store(rest, emitter.at(doubt, v * LANES))
            # A group with a doubtful member is left to be counted whole.
            clear = builder.icmp_signed("==", rest, zeros)
            counted = emitter.at(total, v * LANES)
            add = builder.select(clear, surely, zeros)
            emitter.store(builder.add(emitter.load(counted, _INTS), add), counted)
        return context.get_dummy_value()

    return signature, codegen


def _pointer(context: Any, emitter: _Emitter, sig: Any, args: Any, i: int) -> Any:
    """Point to an array's element whose number is the argument after it."""
    array = context.make_array(sig.args[i])(context, emitter.builder, args[i])
    return emitter.at(array.data, args[i + 1])


@intrinsic
def any_at_most(typingctx, values, value_at, limits, limit_at):  # type: ignore[no-untyped-def]
    """Whether any of a panel's values is at most its limit; both float32, from an element on."""
    signature = types.boolean(values, value_at, limits, limit_at)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        emitter = _Emitter(builder)
        value, limit = (_pointer(context, emitter, sig, args, i) for i in (0, 2))
        found = ir.Constant(ir.VectorType(ir.IntType(1), LANES), [0] * LANES)
        for v in range(_VECTORS):
            left, right = (emitter.load(emitter.at(p, v * LANES)) for p in (value, limit))
            found = builder.or_(found, builder.fcmp_ordered("<=", left, right))
        mask = ir.IntType(LANES)
        return builder.icmp_unsigned("!=", builder.bitcast(found, mask), ir.Constant(mask, 0))

    return signature, codegen


@kernel
def reduce_products(
    queries: Float32Array,
    terms: Float32Array,
    squares: Float32Array,
    least: Float32Array,
    smallest: Float32Array,
    best: Int32Array,
) -> None:
    """Find the least product of each group of points with each query.

    Parameters
    ----------
    queries : ndarray, (panel, dimension, lane), float32
        By :func:`pack_queries`.
    terms, squares : ndarray, float32
        By :func:`pack_points`; whole groups of them.
    least : ndarray, (group, panel × lane), float32
        Is filled.
    smallest : ndarray, (panel × lane,), float32
        Least of all groups; is lowered.
    best : ndarray, (panel × lane,), int32
        The group that it was found in; is set where it is lowered.
    """
    panels, dims = queries.shape[0], queries.shape[1]
    groups, width = len(squares) // GROUP, least.shape[1]
    for start in range(0, groups, _CHUNK):
        for panel in range(panels):
            lane = panel * PANEL
            for group in range(start, min(start + _CHUNK, groups)):
                point = group * GROUP
                _reduce_group(  # type: ignore[call-arg]  # numba gives the first
                    *(queries, lane * dims, terms, point * dims, squares, point),
                    *(least, group * width + lane, smallest, lane, best, lane, dims, group),
                )


@kernel
def reduce_and_count_products(
    queries: Float32Array,
    terms: Float32Array,
    squares: Float32Array,
    least: Float32Array,
    smallest: Float32Array,
    best: Int32Array,
    limits: tuple[Float32Array, Float32Array],
    counted: tuple[Int32Array, Int32Array],
) -> None:
    """Find the least products, and count those under a limit, where it is beyond doubt.

    Parameters
    ----------
    queries, terms, squares, least, smallest, best : ndarray
        As in :func:`reduce_products`.
    limits : tuple of ndarray, (panel × lane,), float32
        A product under the first counts, one over the second does not.
    counted : tuple of ndarray, int32
        Counts, (panel × lane,), that are added to by groups without a doubtful member; and
        (group, panel × lane), filled with how many members of a group are doubtful.
    """
    low, high = limits
    counts, doubtful = counted
    panels, dims = queries.shape[0], queries.shape[1]
    groups, width = len(squares) // GROUP, least.shape[1]
    for start in range(0, groups, _CHUNK):
        for panel in range(panels):
            lane = panel * PANEL
            for group in range(start, min(start + _CHUNK, groups)):
                point, cell = group * GROUP, group * width + lane
                _reduce_and_count_group(  # type: ignore[call-arg]  # numba gives the first
                    *(queries, lane * dims, terms, point * dims, squares, point),
                    *(least, cell, smallest, lane, best, lane, low, lane, high, lane),
                    *(counts, lane, doubtful, cell, dims, group),
                )
