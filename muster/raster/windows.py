"""Which windows a raster is worked through in: bounded memory, and no block decoded twice.

A window that cuts through a source's blocks makes GDAL decode them again for its neighbour, and
one that takes in too many of them does not fit into memory.  So windows are whole source blocks
side by side while they fit, and parts of a single block where one alone is too much.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from muster.errors import ConfigError
from muster.raster.grid import Grid, Window

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20

DEFAULT_WINDOW_MIB = 256
"""What the arrays of all windows may take where the memory has no limit; more is no faster."""

LEAST_WINDOW_MIB = 32
"""What each of many windows may take at least, where there is the memory for it."""

DEFAULT_CACHE_MIB = 192
"""What GDAL's block cache may take where the memory has no limit."""

READING_CACHE_MIB = 32
"""What GDAL's block cache may take where a raster is read once, from one end to the other."""

_LEAST_MIB = 16
_CACHE_SHARE = 8
_LEAST_CACHE_MIB = 16
_MOST_CACHE_MIB = 64


@dataclass(frozen=True)
class MemoryPlan:
    """How the memory of a process is shared out.

    Attributes
    ----------
    window_mib : int
        For the arrays of one window.
    cache_mib : int
        For GDAL's block cache.
    """

    window_mib: int
    cache_mib: int

    def pixels(self, pixel_bytes: int, most: int | None = None) -> int:
        """Return how many pixels of so many bytes a window may have; one at least."""
        fit = max(1, self.window_mib * MIB // pixel_bytes)
        return fit if most is None else min(fit, most)


def plan_budget(memory_mib: int) -> MemoryPlan:
    """Share out a budget for pixels alone, beside what the interpreter and its libraries take."""
    cache_mib = max(_LEAST_CACHE_MIB, min(_MOST_CACHE_MIB, memory_mib // _CACHE_SHARE))
    return MemoryPlan(memory_mib - cache_mib, cache_mib)


def least_budget_mib(needed_bytes: int) -> int:
    """Return the least budget whose windows may take so many bytes."""
    least = -(-needed_bytes // MIB) + _LEAST_CACHE_MIB
    while plan_budget(least).window_mib * MIB < needed_bytes:
        least += 1
    return least


def plan_memory(memory_mib: int | None, windows: int = 1) -> MemoryPlan:
    """Share out a process's memory between the windows' arrays and GDAL's block cache.

    Parameters
    ----------
    memory_mib : int or None
        What the whole process may take, in MiB; None where there is no limit.
    windows : int
        How many windows are held at once.

    Returns
    -------
    MemoryPlan
        A fifth of the memory for all windows and another for the cache at most: the rest is the
        interpreter, its libraries and models.
    """
    most = max(DEFAULT_WINDOW_MIB, LEAST_WINDOW_MIB * windows)
    share = most if memory_mib is None else max(_LEAST_MIB, memory_mib // 5)
    return MemoryPlan(max(1, min(most, share) // windows), min(DEFAULT_CACHE_MIB, share))


@dataclass(frozen=True)
class WindowPlan:
    """All windows of a raster have this size, but for those at its right and lower edge.

    Attributes
    ----------
    grid : Grid
        What is covered.
    height, width : int
        Size of a window, in pixels.
    block_height, block_width : int
        Windows smaller than this lie inside one such block and follow each other within it.
    """

    grid: Grid
    height: int
    width: int
    block_height: int
    block_width: int

    def __iter__(self) -> Iterator[Window]:
        # A cell is what is finished before the next is begun: a block, or a window if larger.
        cell_height = max(self.height, self.block_height)
        cell_width = max(self.width, self.block_width)
        for cell in _tile(self.grid.whole, cell_height, cell_width):
            yield from _tile(cell, self.height, self.width)

    def __len__(self) -> int:
        # Counted without making them: a plan may have a million windows.
        return _count(self.grid.height, self.block_height, self.height) * _count(
            self.grid.width, self.block_width, self.width
        )


def plan_windows(
    grid: Grid, block: tuple[int, int], max_pixels: int, window_px: int | None = None
) -> WindowPlan:
    """Decide on the windows that a raster is worked through in.

    Parameters
    ----------
    grid : Grid
        The raster.
    block : tuple of int
        (height, width) of the source's blocks, in pixels.
    max_pixels : int
        The most pixels of a window that fit into memory.
    window_px : int, optional
        The longest side of a window, in pixels; whatever fits into memory by default.

    Returns
    -------
    WindowPlan
        Windows that cover each pixel exactly once, in a fixed order.

    Raises
    ------
    ConfigError
        When ``window_px`` is less than 1.
    """
    if window_px is not None and window_px < 1:
        raise ConfigError("window is smaller than a pixel", got=window_px, expected="window_px ≥ 1")
    block_height = min(block[0], grid.height)
    block_width = min(block[1], grid.width)
    most_rows = most_cols = max(grid.height, grid.width)
    if window_px is not None:
        most_rows = most_cols = window_px
    max_pixels = max(max_pixels, 1)

    width = _fit(block_width, grid.width, min(most_cols, max(1, max_pixels // block_height)))
    if width < block_width:
        # One block is too much: take fewer rows of it before fewer columns, since rows are what
        # lies together in a file.
        width = _fit(block_width, block_width, min(most_cols, max_pixels))
    height = _fit(block_height, grid.height, min(most_rows, max(1, max_pixels // width)))
    if width < grid.width:
        height = min(height, block_height)
    return WindowPlan(grid, height, width, block_height, block_width)


def _fit(block: int, whole: int, most: int) -> int:
    """Return the greatest length within ``most``: all, a number of blocks, or part of one."""
    if most >= whole:
        return whole
    return most // block * block if most >= block else most


def _tile(window: Window, height: int, width: int) -> Iterator[Window]:
    for row in range(0, window.height, height):
        for col in range(0, window.width, width):
            yield Window(
                window.row + row,
                window.col + col,
                min(height, window.height - row),
                min(width, window.width - col),
            )


def _count(whole: int, block: int, size: int) -> int:
    cell = max(size, block)
    full, rest = divmod(whole, cell)
    return full * -(-cell // size) + -(-rest // size)
