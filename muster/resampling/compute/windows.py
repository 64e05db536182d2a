"""How a target is worked through within a memory budget: strips of columns, bands of rows.

A strip of target columns is worked through from top to bottom, its source rows read once.  The
widest strip that the budget allows is one: then no block is decoded twice.  What is written comes
in bands, as high as a tile, so that a load that broke off goes on where it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from muster.errors import ConfigError
from muster.raster.grid import Window
from muster.raster.windows import MIB, least_budget_mib, plan_budget
from muster.resampling.compute.reader import clip_cols
from muster.resampling.compute.separable import source_cols
from muster.resampling.layer import TILE_PX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from muster.raster.grid import Grid
    from muster.resampling.compute.separable import Separable
    from muster.resampling.compute.source import Source

MOST_STRIP_MIB = 96
"""What the strip of source rows may take at most: more is no faster."""


@dataclass(frozen=True)
class WorkPlan:
    """The windows of a target, in the order in which they are worked on.

    Attributes
    ----------
    grid : Grid
        The target.
    band_rows : int
        Rows of a window, but for the last.
    strips : tuple of (int, int)
        First target column of each strip, and the one behind its last.
    capacity_rows : int
        Source rows that the strip holds.
    cache_mib : int
        Of GDAL's block cache.
    memory_mib : int
        What all of it takes at the most.
    threads : int
        How many parts are worked on side by side, where each takes memory of its own.
    least_rows : int
        Source rows that the strip must be able to hold.
    """

    grid: Grid
    band_rows: int
    strips: tuple[tuple[int, int], ...]
    capacity_rows: int
    cache_mib: int
    memory_mib: int
    threads: int = 1
    least_rows: int = 0

    def __len__(self) -> int:
        return len(self.strips) * -(-self.grid.height // self.band_rows)

    def __iter__(self) -> Iterator[Window]:
        for strip in self.strips:
            yield from self.bands(strip)

    def bands(self, strip: tuple[int, int]) -> Iterator[Window]:
        """Yield the windows of one strip, top to bottom."""
        for row in range(0, self.grid.height, self.band_rows):
            rows = min(self.band_rows, self.grid.height - row)
            yield Window(row, strip[0], rows, strip[1] - strip[0])


def plan_work(
    source: Source,
    target: Grid,
    method: Separable,
    memory_mib: int,
    *,
    window_px: int | None = None,
    loads: bool = False,
    out_bytes: int = 4,
    threads: int = 1,
    period: int | None = None,
) -> WorkPlan:
    """Choose strips and bands.

    Parameters
    ----------
    memory_mib : int
        Budget of the source rows, the results and GDAL's cache together.
    window_px : int, optional
        Longest side of a window, in target cells.
    loads : bool
        Whether windows are loaded into Postgres, and so must be whole tiles.
    out_bytes : int
        Bytes of a result's value.
    threads : int
        How many threads compute.
    period : int or None
        Source columns once round the globe.

    Raises
    ------
    ConfigError
        When not even the narrowest strip fits into the budget.
    """
    budget = plan_budget(memory_mib)
    room = budget.window_mib * MIB
    # Whole tiles where they are loaded; else a strip may be as narrow as it must.
    step = TILE_PX if loads else min(window_px or TILE_PX, TILE_PX)
    band_rows = min(step, target.height)
    least_step = TILE_PX if loads else 1
    widest = target.width
    if window_px is not None:
        widest = min(widest, -(-window_px // step) * step)
    value_bytes = source.itemsize if not source.masked else 8
    # Rows that have to be there at once: those of a cell, and the block that they end in.
    most_rows, most_cols = int(method.rows.counts.max()), int(method.cols.counts.max())
    least_rows = min(most_rows + source.block[0], source.grid.height)
    # Median and mode gather a cell's pixels: values, weights, their order.
    gathers = method.method in ("median", "mode")
    cell_bytes = 24 * min(most_rows, source.grid.height) * most_cols if gathers else 0
    count = max(1, -(-target.width // widest))
    while True:
        narrow = -(-target.width // count) < step
        width = min(widest, _ceil(target.width, count, least_step if narrow else step))
        strips = _divide(target.width, width)
        columns = max(_source_width(method, strip, source, period) for strip in strips)
        row_bytes = max(1, columns) * value_bytes
        # A band in its own type, its float64 values and weights for as many rows as are computed.
        band_bytes = band_rows * width * (2 * out_bytes + 8 * 5)
        needed = least_rows * row_bytes + band_bytes + threads * cell_bytes
        if needed <= room or width <= least_step:
            break
        count = max(count + 1, len(strips) + 1, count * 9 // 8)
    if needed > room:
        raise ConfigError(
            "memory is too small for one strip of the raster",
            where=source.name,
            got=f"{memory_mib}MiB; {least_rows} source rows × {columns} columns must be there",
            expected=f"at least {least_budget_mib(needed)}MiB",
            do="raise memory"
            if source.block[0] <= most_rows
            else "raise memory, or store the source in lower blocks (tiled, 512 × 512)",
        )
    most = max(
        least_rows * row_bytes,
        min(room - band_bytes - threads * cell_bytes, MOST_STRIP_MIB * MIB),
    )
    capacity_rows = int(min(source.grid.height, most // row_bytes))
    total = capacity_rows * row_bytes + band_bytes + threads * cell_bytes
    memory = -(-total // MIB) + budget.cache_mib
    return WorkPlan(
        target, band_rows, strips, capacity_rows, budget.cache_mib, memory, least_rows=least_rows
    )


def _ceil(length: int, count: int, step: int) -> int:
    """Divide a length by a count, up to a multiple of a step."""
    return -(-length // (count * step)) * step


def _divide(width: int, strip: int) -> tuple[tuple[int, int], ...]:
    return tuple((start, min(start + strip, width)) for start in range(0, width, strip))


def _source_width(
    method: Separable, strip: tuple[int, int], source: Source, period: int | None
) -> int:
    first, last = clip_cols(*source_cols([method.cols], *strip), source.grid.width, period)
    return last - first
