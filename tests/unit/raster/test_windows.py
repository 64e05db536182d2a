"""Windows: each pixel once, within memory, along the source's blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.transform import Affine

from muster.errors import ConfigError
from muster.raster.grid import Grid
from muster.raster.windows import DEFAULT_WINDOW_MIB, plan_memory, plan_windows
from tests.hypothesis_profiles import examples

if TYPE_CHECKING:
    from collections.abc import Callable

SIDES = st.integers(1, 90)


@examples(300)
@given(
    size=st.tuples(SIDES, SIDES),
    block=st.tuples(SIDES, SIDES),
    max_pixels=st.integers(1, 9000),
    window_px=st.one_of(st.none(), SIDES),
)
def test_windows_cover_each_pixel_exactly_once(
    size: tuple[int, int], block: tuple[int, int], max_pixels: int, window_px: int | None
) -> None:
    grid = Grid(CRS.from_epsg(6933), Affine(1000, 0, 0, 0, -500, 0), *size)
    plan = plan_windows(grid, block, max_pixels, window_px)
    seen = np.zeros(size, dtype=int)
    windows = list(plan)
    for window in windows:
        (row, row_stop), (col, col_stop) = window.ranges
        assert 0 <= row < row_stop <= size[0]
        assert 0 <= col < col_stop <= size[1]
        assert window.pixels <= max_pixels
        if window_px is not None:
            assert max(window.height, window.width) <= window_px
        seen[row:row_stop, col:col_stop] += 1
    assert (seen == 1).all()
    assert len(plan) == len(windows)


@examples(200)
@given(size=st.tuples(SIDES, SIDES), block=st.tuples(SIDES, SIDES), max_pixels=st.integers(1, 9000))
def test_a_block_is_finished_before_the_next_is_begun(
    size: tuple[int, int], block: tuple[int, int], max_pixels: int
) -> None:
    grid = Grid(CRS.from_epsg(6933), Affine(1000, 0, 0, 0, -500, 0), *size)
    finished: set[tuple[int, int]] = set()
    current: set[tuple[int, int]] = set()
    for window in plan_windows(grid, block, max_pixels):
        (row, row_stop), (col, col_stop) = window.ranges
        touched = {
            (r, c)
            for r in range(row // block[0], -(-row_stop // block[0]))
            for c in range(col // block[1], -(-col_stop // block[1]))
        }
        if touched != current:
            finished |= current - touched
            current = touched
        assert not touched & finished


@pytest.mark.parametrize(
    ("block", "max_pixels", "expected"),
    [
        ((512, 512), 512 * 512 * 3, (512, 1536)),
        ((512, 512), 100_000, (195, 512)),
        ((1, 2000), 10_000, (5, 2000)),
        ((1, 2000), 1500, (1, 1500)),
        ((512, 512), 10**9, (3000, 2000)),
    ],
    ids=["blocks side by side", "part of a block", "strips", "part of a strip", "all at once"],
)
def test_windows_follow_blocks(
    make_grid: Callable[[int, int], Grid],
    block: tuple[int, int],
    max_pixels: int,
    expected: tuple[int, int],
) -> None:
    plan = plan_windows(make_grid(3000, 2000), block, max_pixels)
    assert (plan.height, plan.width) == expected


def test_a_huge_plan_is_counted_without_being_made(make_grid: Callable[[int, int], Grid]) -> None:
    assert len(plan_windows(make_grid(10**6, 10**6), (1, 1), 1)) == 10**12


def test_window_of_no_pixel_is_refused(make_grid: Callable[[int, int], Grid]) -> None:
    with pytest.raises(ConfigError, match="window_px ≥ 1"):
        plan_windows(make_grid(10, 10), (1, 10), 100, 0)


def test_memory_is_shared_out_and_never_exceeded() -> None:
    assert plan_memory(None).window_mib == DEFAULT_WINDOW_MIB
    assert plan_memory(10**6) == plan_memory(None)
    tight = plan_memory(500)
    assert tight.window_mib == tight.cache_mib == 100
