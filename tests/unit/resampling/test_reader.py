"""Source rows are read once, whole blocks at a time, whatever the order of windows."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from muster.errors import ConfigError
from muster.resampling.compute import reader
from muster.resampling.compute.plan_stream import Demand
from muster.resampling.compute.reader import Piece, StripReader, find_pieces
from muster.resampling.compute.source import look_at_source
from tests.unit.resampling.conftest import PLANE, bring, ready, target_px, whole, write

if TYPE_CHECKING:
    from collections.abc import Sequence


@pytest.mark.parametrize(
    ("start", "stop", "width", "period", "wanted"),
    [
        (2, 7, 10, None, [Piece(0, 2, 5)]),
        (-3, 12, 10, None, [Piece(3, 0, 10)]),
        (10, 12, 10, None, []),
        (-5, 0, 10, None, []),
        (-3, 4, 10, 10, [Piece(0, 7, 3), Piece(3, 0, 4)]),
        (8, 23, 10, 10, [Piece(0, 8, 2), Piece(2, 0, 10), Piece(12, 0, 3)]),
        (-2, 14, 6, 10, [Piece(2, 0, 6), Piece(12, 0, 4)]),
        (6, 10, 6, 10, []),
        (15, 22, 6, 10, [Piece(0, 5, 1), Piece(5, 0, 2)]),
        # Wider than a turn: a column that the file has is its own.
        (0, 10, 11, 10, [Piece(0, 0, 10)]),
        (0, 11, 11, 10, [Piece(0, 0, 11)]),
        (-3, 14, 11, 10, [Piece(0, 7, 3), Piece(3, 0, 11), Piece(14, 1, 3)]),
        (10, 24, 11, 10, [Piece(0, 10, 1), Piece(1, 1, 9), Piece(10, 0, 4)]),
        (-12, -8, 15, 10, [Piece(0, 8, 2), Piece(2, 0, 2)]),
        (12, 32, 15, 10, [Piece(0, 12, 3), Piece(3, 5, 5), Piece(8, 0, 10), Piece(18, 0, 2)]),
    ],
)
def test_where_columns_lie_in_the_file(
    start: int, stop: int, width: int, period: int | None, wanted: Sequence[Piece]
) -> None:
    assert find_pieces(start, stop, width, period) == wanted


@pytest.mark.parametrize("width", [360, 361, 540])
@pytest.mark.parametrize("start", [0, -7, 5, 200, 360, -400])
def test_a_source_wider_than_a_turn_gives_its_own_columns(
    width: int, start: int, path: str
) -> None:
    # No column is like the one a turn away.
    values = np.random.default_rng(8).integers(0, 1000, (6, width)).astype("float64")
    place = Affine(1, 0, -180, 0, -1, 50)
    write(path, values, crs="EPSG:4326", transform=place)
    at = np.arange(start, start + 400)
    columns = values[:, np.where((at >= 0) & (at < width), at, at % 360)]
    for window_px in (None, 256):
        demand = Demand(window_px=window_px)
        target = target_px(place, (0, 1, 6), (start, 1, 400), "EPSG:4326")
        np.testing.assert_array_equal(bring(path, target, "nearest", demand=demand), columns)
        target = target_px(place, (0, 2, 3), (start, 2, 200), "EPSG:4326")
        blocks = columns.reshape(3, 2, 200, 2)
        found = bring(path, target, "average", demand=demand)
        np.testing.assert_allclose(found, blocks.mean((1, 3)), rtol=1e-12)
        np.testing.assert_array_equal(bring(path, target, "max", demand=demand), blocks.max((1, 3)))
    target = target_px(place, (0, 1, 6), (start + 0.5, 1, 399), "EPSG:4326")
    found = bring(path, target, "average")
    np.testing.assert_allclose(found, (columns[:, 1:] + columns[:, :-1]) / 2, rtol=1e-12)


class Counted:
    """A handle that counts the blocks that reads touch."""

    def __init__(self, dataset: Any, counts: Counter[tuple[int, int]]) -> None:
        self._dataset = dataset
        self._counts = counts

    def read(self, band: int, window: Any, **more: Any) -> Any:
        (top, bottom), (left, right) = window
        height, width = self._dataset.block_shapes[band - 1]
        for row in range(top // height, -(-bottom // height)):
            for col in range(left // width, -(-right // width)):
                self._counts[row, col] += 1
        return self._dataset.read(band, window=window, **more)


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[int, int]]:
    """Count how often blocks are read through any handle."""
    found: Counter[tuple[int, int]] = Counter()
    opened = reader.open_source

    def open_counted(source: Any) -> Any:
        class Opened:
            def __enter__(self) -> Counted:
                self.inner = opened(source)
                return Counted(self.inner.__enter__(), found)

            def __exit__(self, *error: object) -> None:
                self.inner.__exit__(*error)

        return Opened()

    monkeypatch.setattr(reader, "open_source", open_counted)
    return found


@pytest.mark.parametrize("upwards", [False, True])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("block", [(16, 48), (64, 64), (160, 16)])
@pytest.mark.parametrize("first", [0, 37])
def test_each_block_is_decoded_once(
    upwards: bool, threads: int, block: tuple[int, int], first: int, path: str, counts: Any
) -> None:
    values = np.arange(700 * 300, dtype="float32").reshape(700, 300)
    turned = PLANE @ Affine.translation(0, 700) @ Affine.scale(1, -1) if upwards else PLANE
    write(path, values, tiled=True, blockysize=block[0], blockxsize=block[1], transform=turned)
    target = target_px(PLANE, (first, 3.3, int((700 - first) / 3.3)), (0, 2.5, 120))
    prepared = ready(path, target, "average", Demand(threads=threads))
    # Room for a cell and two blocks, so that there are many reads.
    whole(prepared, capacity_rows=5 + 2 * block[0])
    assert len(counts) > 10
    assert set(counts.values()) == {1}


@pytest.mark.parametrize("upwards", [False, True])
def test_any_rows_in_any_order(upwards: bool, path: str) -> None:
    values = np.arange(90 * 30, dtype="int32").reshape(90, 30)
    turned = PLANE @ Affine.translation(0, 90) @ Affine.scale(1, -1) if upwards else PLANE
    write(path, values[::-1] if upwards else values, blockysize=7, transform=turned)
    source = look_at_source([path])
    with ThreadPoolExecutor(2) as pool, rasterio.open(path) as a, rasterio.open(path) as b:
        strip = StripReader(source, (-2, 33), 40, period=None, handles=[a, b], pool=pool)
        assert np.flatnonzero(strip.there).tolist() == list(range(2, 32))
        for start, stop in ((0, 5), (3, 30), (30, 41), (60, 61), (10, 50), (85, 95), (-4, 2)):
            strip.need(start, stop)
            assert strip.first <= max(start, 0)
            assert strip.stop >= min(stop, 90)
            np.testing.assert_array_equal(strip.rows[:, 2:32], values[strip.first : strip.stop])


def test_blocks_that_do_not_fit_are_refused_with_what_would_do(path: str) -> None:
    # One strip of 3,000 × 9,000 pixels of 8 bytes.
    write(path, np.zeros((3000, 9000)), blockysize=3000, compress="deflate")
    target = target_px(PLANE, (0, 1000, 3), (0, 9000, 1))
    with pytest.raises(ConfigError, match="too small for one strip") as caught:
        ready(path, target, "average", Demand(64))
    least = int(str(caught.value).split("at least ")[1].split("MiB")[0])
    assert 206 < least < 300
    assert ready(path, target, "average", Demand(least)).stream.work.memory_mib <= least
