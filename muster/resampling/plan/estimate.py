"""How long a dataset will take, from a sample of itself."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from muster.errors import MusterError
from muster.raster.grid import Window
from muster.resampling.compute.warp import WarpStream

if TYPE_CHECKING:
    from muster.resampling.compute.plan_stream import Prepared

_LEAST_ROWS = 64
"""Source rows of a sample, at least: low blocks are read by so many."""

_LONG_S = 0.5
"""A first try this long compiled kernels, or met a cold file: the second is like the rest."""


def estimate_seconds(prepared: Prepared) -> float | None:
    """Estimate how long one thread decodes and computes; what writing takes is not in it.

    A row of the source's blocks is read, or one piece of a warp computed, in the middle.

    Returns
    -------
    float or None
        In seconds; None where the sample could not be read: the run itself will say why.
    """
    work = prepared.stream.work
    rows, strip = _sample_size(prepared)
    middle = work.grid.height // 2 // rows * rows
    sample = Window(middle, strip[0], min(rows, work.grid.height - middle), strip[1] - strip[0])
    # No more than the sample needs is read ahead.
    needed = int(rows * _ratio(prepared)) + 2 * prepared.source.block[0]
    capacity_rows = max(work.least_rows, min(needed, work.capacity_rows))
    small = replace(work, strips=(strip,), band_rows=rows, capacity_rows=capacity_rows)
    stream = prepared.stream.with_work(small)

    def compute() -> float:
        began = time.monotonic()
        for _ in stream.windows({sample}):
            pass
        return time.monotonic() - began

    try:
        took_s = compute()
        if took_s > _LONG_S:
            took_s = min(took_s, compute())
    except MusterError:
        return None
    return took_s * work.grid.whole.pixels / sample.pixels


def _sample_size(prepared: Prepared) -> tuple[int, tuple[int, int]]:
    """Choose how many target rows, and which columns."""
    stream, work = prepared.stream, prepared.stream.work
    if isinstance(stream, WarpStream):
        side = stream.warp.piece
        left = work.grid.width // 2 // side * side
        return min(side, work.grid.height), (left, min(left + side, work.grid.width))
    rows = math.ceil(max(_LEAST_ROWS, prepared.source.block[0]) / _ratio(prepared))
    return max(1, min(rows, work.grid.height, work.band_rows)), work.strips[0]


def _ratio(prepared: Prepared) -> float:
    """Say how many source rows a target row takes."""
    edges = prepared.fit.row_edges
    return 1.0 if edges is None else float(edges[1] - edges[0])
