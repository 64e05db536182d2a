"""How a target in another CRS is divided: into pieces that follow from the two grids alone.

Pieces that followed from a memory budget would show in the result, as GDAL looks at each with its
own eyes.  So the budget decides how many are worked on at once, and nothing else.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pyproj import Transformer

from muster.errors import ConfigError
from muster.raster.windows import MIB, plan_budget
from muster.resampling.compute.windows import WorkPlan
from muster.resampling.layer import TILE_PX

if TYPE_CHECKING:
    from muster.raster.grid import Grid
    from muster.resampling.compute.axes import FloatArray
    from muster.resampling.compute.source import Source

SAMPLES = 33
"""Points along each side of the grid, or of a piece, at which it is looked where they lie."""

_PIECE_PX = 1024
"""Source pixels along a side that a piece of the target is meant to look at."""

LARGEST_VIEW_PX = 1 << 24
"""Source pixels that a single cell may look at."""

MOST_VIEW_PX = 1 << 22
"""Source pixels of a piece from which on it is divided, down to a single cell."""

BYTES_PER_PIXEL = 32
"""Of a piece's source pixels: as stored, as float64, GDAL's copy, their validity."""


@dataclass(frozen=True)
class Warp:
    """How a target in another CRS is divided.

    Attributes
    ----------
    piece : int
        Side of a piece, in target cells: a power of two, at most TILE_PX.
    ratio : tuple of float
        How many source rows and columns a target cell spans, in the middle of those that have any.
    """

    piece: int
    ratio: tuple[float, float]


def plan_warp(source: Grid, target: Grid) -> Warp:
    """Choose the pieces of a target, from the two grids alone."""
    rows = np.linspace(0, target.height, SAMPLES)
    cols = np.linspace(0, target.width, SAMPLES)
    steps = [_step(source, target, rows, cols, step) for step in ((1.0, 0.0), (0.0, 1.0))]
    down, across = (np.maximum(steps[0][axis], steps[1][axis]) for axis in (0, 1))
    good = np.isfinite(down) & np.isfinite(across)
    if not good.any():
        return Warp(TILE_PX, (1.0, 1.0))
    ratio = (float(np.median(down[good])), float(np.median(across[good])))
    widest = float(np.quantile(np.maximum(down, across)[good], 0.9))
    side = 2 ** math.floor(math.log2(max(1.0, _PIECE_PX / max(widest, 1e-9))))
    return Warp(int(min(TILE_PX, side)), ratio)


def _step(
    source: Grid, target: Grid, rows: FloatArray, cols: FloatArray, step: tuple[float, float]
) -> tuple[FloatArray, FloatArray]:
    """Measure how many source rows and columns a step of one cell leads over."""
    row, col = (a.ravel() for a in np.meshgrid(rows, cols, indexing="ij"))
    r0, c0 = source_position(source, target, row, col)
    r1, c1 = source_position(source, target, row + step[0], col + step[1])
    with np.errstate(invalid="ignore"):
        turn = turn_of(source)
        across = c1 - c0
        if turn is not None:
            across -= np.rint(across / turn) * turn
        return np.abs(r1 - r0), np.abs(across)


def source_position(
    source: Grid, target: Grid, rows: FloatArray, cols: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Transform target (row, col) to source (row, col), downwards; not finite where none.

    Of positions from the upper left corner, in cells and pixels.
    """
    t, s = target.transform, source.transform
    # rasterio's own raises where a single place has no answer.
    transformer = _transformer(target.crs.to_wkt(), source.crs.to_wkt())
    x, y = transformer.transform(t.c + cols * t.a, t.f + rows * t.e)
    top = s.f if s.e < 0 else s.f + s.e * source.height
    return (top - y) / abs(s.e), (x - s.c) / s.a


@functools.lru_cache(maxsize=16)
def _transformer(from_wkt: str, to_wkt: str) -> Transformer:
    return Transformer.from_crs(from_wkt, to_wkt, always_xy=True)


def lies_outside(source: Grid, target: Grid) -> bool:
    """Say whether a target in another CRS has nothing of the source.

    Places of the one are looked for in the other, both ways: either may be far smaller.
    """
    row, col = _lattice(target)
    r, c = source_position(source, target, row, col)
    turn = turn_of(source)
    with np.errstate(invalid="ignore"):
        c = c if turn is None else np.mod(c, turn)
        if np.any((r >= 0) & (r <= source.height) & (c >= 0) & (c <= source.width)):
            return False
    row, col = _lattice(source)
    s, t = source.transform, target.transform
    transformer = _transformer(source.crs.to_wkt(), target.crs.to_wkt())
    x, y = transformer.transform(s.c + col * s.a, s.f + row * s.e)
    with np.errstate(invalid="ignore"):
        c, r = (x - t.c) / t.a, (y - t.f) / t.e
        return not np.any((r >= 0) & (r <= target.height) & (c >= 0) & (c <= target.width))


def _lattice(grid: Grid) -> tuple[FloatArray, FloatArray]:
    """Return (row, col) of places all over a grid, its edges among them."""
    rows = np.linspace(0, grid.height, SAMPLES)
    cols = np.linspace(0, grid.width, SAMPLES)
    row, col = np.meshgrid(rows, cols, indexing="ij")
    return row.ravel(), col.ravel()


def _holds_pole(source: Grid, target: Grid) -> bool:
    """Say whether all longitudes of the source meet somewhere in the target."""
    if not source.crs.is_geographic:
        return False
    transformer = _transformer(source.crs.to_wkt(), target.crs.to_wkt())
    x, y = transformer.transform(np.zeros(2), np.array([-90.0, 90.0]))
    col, row = (x - target.transform.c) / target.transform.a, (y - target.transform.f)
    row = row / target.transform.e
    inside = (col >= 0) & (col <= target.width) & (row >= 0) & (row <= target.height)
    return bool(np.any(inside))


def turn_of(source: Grid) -> float | None:
    """Count the source's pixels once round the globe; None where it is in a projection."""
    return 360.0 / source.transform.a if source.crs.is_geographic else None


def plan_warp_work(
    source: Source,
    target: Grid,
    warp: Warp,
    memory_mib: int,
    *,
    threads: int = 1,
    window_px: int | None = None,
    out_bytes: int = 4,
) -> WorkPlan:
    """Choose the windows of a target in another CRS: whole pieces, a band high.

    Raises
    ------
    ConfigError
        When a single piece does not fit into the budget.
    """
    budget = plan_budget(memory_mib)
    room, cache_mib = budget.window_mib * MIB, budget.cache_mib
    pixels = math.prod(int(warp.piece * r * 1.2) + 6 * math.ceil(r) + 6 for r in warp.ratio)
    # Round a pole views are as large as they may be, whatever they are elsewhere.
    pixels = MOST_VIEW_PX if _holds_pole(source.grid, target) else min(MOST_VIEW_PX, pixels)
    piece_bytes = int(pixels * BYTES_PER_PIXEL + warp.piece**2 * 40)
    at_once = max(1, min(threads, room // 2 // piece_bytes))
    left = room - at_once * piece_bytes
    band_rows = min(TILE_PX, target.height)
    width = left // (band_rows * 3 * out_bytes) // TILE_PX * TILE_PX
    if width < 1:
        raise ConfigError(
            "memory is too small for one piece of the target",
            where=source.name,
            got=f"{memory_mib}MiB",
            expected=f"at least {-(-(piece_bytes * 2) // MIB) + cache_mib + 1}MiB",
            do="raise memory",
        )
    width = min(width, target.width)
    if window_px is not None:
        width = min(width, -(-window_px // TILE_PX) * TILE_PX)
    strips = tuple((c, min(c + width, target.width)) for c in range(0, target.width, width))
    total = at_once * piece_bytes + band_rows * width * 3 * out_bytes
    return WorkPlan(target, band_rows, strips, 0, cache_mib, -(-total // MIB) + cache_mib, at_once)
