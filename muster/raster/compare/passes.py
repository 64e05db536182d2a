"""Comparing pairs of bands window by window: in two passes, the second for the quantiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from muster.errors import InvalidInput
from muster.raster.compare.difference import ClassDifference, ValueDifference
from muster.raster.grid import check_same_grid
from muster.raster.windows import plan_windows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from muster.raster.band_values import WindowValues
    from muster.raster.grid import Grid, Window
    from muster.raster.windows import MemoryPlan, WindowPlan

_PIXEL_BYTES = 128
"""Two bands as stored and as doubles, their difference, and what is sorted out of them."""


@dataclass
class BandPair:
    """One band of both rasters, on the way through the windows.

    Attributes
    ----------
    difference : ValueDifference or ClassDifference
        What is found out.
    read : callable
        ``read(window)``: the window of A and of B.
    read_again : callable, optional
        The same for the second pass, where the first looks at more than values.
    """

    difference: ValueDifference | ClassDifference
    read: Callable[[Window], tuple[WindowValues, WindowValues]]
    read_again: Callable[[Window], tuple[WindowValues, WindowValues]] | None = None


def check_pair(a: tuple[str, Grid], b: tuple[str, Grid], what: str, do: str) -> None:
    """Refuse two rasters, by URI and grid, that lie on different grids.

    Raises
    ------
    InvalidInput
        When they do.
    """
    problems = check_same_grid(a[1], b[1])
    if problems:
        raise InvalidInput(
            f"{what} lie on different grids ({', '.join(problems)})",
            where=b[0],
            got=b[1].describe(),
            expected=f"{a[1].describe()}, as {a[0]}",
            do=do,
        )


def plan_pair(
    grid: Grid,
    bands: Sequence[tuple[Any, int]],
    memory: MemoryPlan,
    window_px: int | None = None,
) -> WindowPlan:
    """Plan windows that cut through the blocks of no band.

    Parameters
    ----------
    bands : sequence of (rasterio.DatasetReader, int)
        Dataset and number of each band.
    """
    shapes = [dataset.block_shapes[number - 1] for dataset, number in bands]
    block = (max(int(s[0]) for s in shapes), max(int(s[1]) for s in shapes))
    return plan_windows(grid, block, memory.pixels(_PIXEL_BYTES, 1 << 20), window_px)


def compare_windows(windows: WindowPlan, pairs: Sequence[BandPair]) -> None:
    """Take all windows of all pairs into their differences."""
    for window in windows:
        for pair in pairs:
            pair.difference.add(window, *pair.read(window))
    values = [(p, p.difference) for p in pairs if isinstance(p.difference, ValueDifference)]
    for _, difference in values:
        difference.locate()
    for window in windows if values else ():
        for pair, difference in values:
            difference.refine(*(pair.read_again or pair.read)(window))
