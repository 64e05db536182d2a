"""COGs: valid, the same whatever the windows, and with overviews that suit each band."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
from rio_cogeo.cogeo import cog_validate

from muster.errors import InvalidInput
from muster.raster.grid import Band, Grid, Window
from muster.raster.windows import plan_windows
from muster.raster.write.cog import CogFormat, write_cog

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HEIGHT, WIDTH = 300, 410
PACKED = CogFormat("int16", -32768, block_px=128)
BANDS = (
    Band("X50 prediction", "mm²/mg", 0.1 + 0.2, -1 / 3),
    Band("coefficient of variation", "1", 0.001),
    Band("area of applicability", "1", overview="mode", tags={"meaning": "1 = inside"}),
)


@pytest.fixture
def values() -> np.ndarray[Any, Any]:
    """(band, row, col): two fields of values and one of classes, with a hole."""
    rng = np.random.default_rng(5)
    row, col = np.mgrid[0:HEIGHT, 0:WIDTH]
    field = 20 * row + col + rng.integers(0, 50, row.shape)
    other = 3000 - field
    classes = (rng.random(row.shape) < 0.2 + 0.6 * (col > 200)).astype(int)
    made = np.stack([field, other, classes]).astype(np.int16)
    made[:, 40:170, 60:230] = -32768
    return made


def write(
    path: Path,
    grid: Grid,
    values: np.ndarray[Any, Any],
    *,
    window_px: int = 100,
    threads: int = 1,
    cog_format: CogFormat = PACKED,
    bands: tuple[Band, ...] = BANDS,
) -> str:
    """Write values in windows and return the file's digest."""
    with write_cog(path, grid, bands, cog_format, tags={"A": "ä"}, threads=threads) as cog:
        for window in plan_windows(grid, (64, 64), 10**9, window_px):
            (r0, r1), (c0, c1) = window.ranges
            cog.write(window, values[:, r0:r1, c0:c1])
        cog.tags["COUNTED"] = "3"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_is_valid_and_says_what_it_holds(
    make_grid: Callable[[int, int], Grid], values: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    grid = make_grid(HEIGHT, WIDTH)
    path = tmp_path / "a.tif"
    write(path, grid, values)
    assert cog_validate(path, strict=True) == (True, [], [])
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(dataset.read(), values)
        assert Grid.from_dataset(dataset) == grid
        assert dataset.descriptions == tuple(band.description for band in BANDS)
        assert dataset.units == ("mm²/mg", "1", "1")
        assert dataset.scales == (0.1 + 0.2, 0.001, 1.0)
        assert dataset.offsets == (-1 / 3, 0.0, 0.0)
        assert dataset.nodata == -32768
        assert dataset.dtypes == ("int16",) * 3
        assert dataset.tags()["A"] == "ä"
        assert dataset.tags()["COUNTED"] == "3"
        assert dataset.tags(3)["meaning"] == "1 = inside"
        assert dataset.compression.name == "zstd"
        structure = dataset.tags(ns="IMAGE_STRUCTURE")
        assert structure["PREDICTOR"] == "2"
        assert structure["LAYOUT"] == "COG"
        assert dataset.overviews(1) == dataset.overviews(3) == [2, 4]
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


def test_overviews_average_values_and_never_classes(
    make_grid: Callable[[int, int], Grid], values: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    path = tmp_path / "a.tif"
    write(path, make_grid(HEIGHT, WIDTH), values)
    with rasterio.open(path, overview_level=0) as dataset:
        overview = dataset.read()
    quads = values.reshape(3, HEIGHT // 2, 2, WIDTH // 2, 2).transpose(0, 1, 3, 2, 4)
    quads = quads.reshape(3, HEIGHT // 2, WIDTH // 2, 4).astype(float)
    hole = (quads == -32768).all(axis=-1)
    # Nodata stays nodata in each band, and is not taken into any average.
    assert hole.any()
    np.testing.assert_array_equal(overview == -32768, hole)
    whole = ~(quads == -32768).any(axis=-1)
    assert np.abs(overview[:2] - quads[:2].mean(axis=-1))[whole[:2]].max() <= 0.5
    majority = quads[2].sum(axis=-1)
    clear = whole[2] & (majority != 2)
    np.testing.assert_array_equal(overview[2][clear], (majority > 2)[clear])
    assert set(np.unique(overview[2])) == {-32768, 0, 1}


def test_the_file_depends_on_the_pixels_alone(
    make_grid: Callable[[int, int], Grid], values: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    grid = make_grid(HEIGHT, WIDTH)
    digests = {
        write(tmp_path / f"{window_px}-{threads}.tif", grid, values, **how)
        for window_px, threads in ((100, 1), (64, 1), (7, 1), (1000, 1), (100, 3))
        for how in [{"window_px": window_px, "threads": threads}]
    }
    assert len(digests) == 1
    values[0, 299, 409] += 1
    assert write(tmp_path / "changed.tif", grid, values) not in digests


def test_what_is_not_written_is_nodata_and_takes_no_room_when_sparse(
    make_grid: Callable[[int, int], Grid], tmp_path: Path
) -> None:
    grid = make_grid(2000, 1500)
    cog_format = CogFormat("float64", math.nan, block_px=256, overviews=False, sparse=True)
    path = tmp_path / "a.tif"
    with write_cog(path, grid, [Band("a"), Band("b")], cog_format) as cog:
        written = np.full((2, 3, 4), np.nan)
        written[1] = np.arange(12).reshape(3, 4) / 7
        cog.write(Window(row=1900, col=10, height=3, width=4), written)
    with rasterio.open(path) as dataset:
        values = dataset.read()
        assert dataset.overviews(1) == []
    np.testing.assert_array_equal(values[1, 1900:1903, 10:14], written[1])
    assert np.isfinite(values).sum() == 12
    assert path.stat().st_size < 20_000


def test_a_failure_inside_leaves_nothing(
    make_grid: Callable[[int, int], Grid], tmp_path: Path
) -> None:
    def fail() -> None:
        with write_cog(tmp_path / "a.tif", make_grid(30, 40), BANDS, PACKED):
            raise RuntimeError("the computation failed")

    with pytest.raises(RuntimeError, match="computation"):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", ["/proc", "/sys/kernel", "absent"])
def test_a_folder_that_cannot_be_written_is_found_before_any_work(
    make_grid: Callable[[int, int], Grid], tmp_path: Path, folder: str
) -> None:
    path = tmp_path / folder / "a.tif"
    with (
        pytest.raises(InvalidInput, match="output cannot be written") as caught,
        write_cog(path, make_grid(30, 40), BANDS, PACKED),
    ):
        pytest.fail("the work began")
    assert str(path) in str(caught.value)
