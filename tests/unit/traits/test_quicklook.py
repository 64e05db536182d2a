"""Quicklook: a picture of each band, read from overviews, the same bytes each time."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from matplotlib.image import imread
from rasterio.crs import CRS
from rasterio.transform import Affine

from muster.errors import InvalidInput
from muster.raster.grid import Band, Grid
from muster.raster.write.cog import CogFormat, write_cog
from muster.traits.product.quicklook import draw_quicklook, read_pictures

if TYPE_CHECKING:
    from pathlib import Path

VALUES = Band("X50 prediction", "mm²/mg", 0.5, 10.0)
CLASSES = Band("area of applicability", "1", overview="mode", tags={"meaning": "1 = inside"})


def write_product(path: Path, stored: np.ndarray[Any, Any], bands: list[Band]) -> None:
    """Write a product of (band, row, col)."""
    grid = Grid(CRS.from_epsg(6933), Affine(1000, 0, 0, 0, -500, 0), *stored.shape[1:])
    with write_cog(path, grid, bands, CogFormat("int16", -32768)) as cog:
        cog.write(grid.whole, stored)


@pytest.fixture
def product(tmp_path: Path) -> Path:
    """Low in the west and high in the east, outside in the north; a hole in the south-east."""
    row, col = np.mgrid[0:600, 0:1300]
    stored = np.stack([col, (row >= 200) * 1]).astype(np.int16)
    stored[:, 450:, 1000:] = -32768
    path = tmp_path / "X50.tif"
    write_product(path, stored, [VALUES, CLASSES])
    return path


def test_bands_are_read_decimated_and_unpacked(product: Path) -> None:
    pictures, extent = read_pictures(product, longest_side_px=130)
    values, classes = pictures
    assert extent == (0, 1_300_000, -300_000, 0)
    assert values.values.shape == classes.values.shape == (60, 130)
    assert (values.title, values.unit) == ("X50 prediction", "mm²/mg")
    np.testing.assert_allclose(values.values[0, [0, 64, 129]], [12.25, 332.25, 657.25], atol=1)
    assert np.isnan(values.values[50:, 105:]).all()
    assert np.isfinite(values.values[:44]).all()
    assert classes.classes
    assert not values.classes
    assert set(np.unique(classes.values[np.isfinite(classes.values)])) == {0.0, 1.0}
    assert (classes.values[:19] == 0).all()
    assert (classes.values[21:44] == 1).all()
    assert np.isnan(classes.values[50:, 105:]).all()


def test_a_small_product_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "small.tif"
    stored = np.arange(12, dtype=np.int16).reshape(1, 3, 4)
    write_product(path, stored, [VALUES])
    (picture,), _ = read_pictures(path)
    np.testing.assert_array_equal(picture.values, stored[0] * 0.5 + 10)


def test_the_picture_shows_each_band_with_its_colours(product: Path, tmp_path: Path) -> None:
    path = tmp_path / "X50.png"
    draw_quicklook(product, path, "X50: Specific leaf area")
    picture = imread(path)
    height, width = picture.shape[:2]
    assert width > 2 * 300
    middle = picture[int(height * 0.45)]
    # Viridis from violet to yellow in the left half; the two classes in the right half, top to
    # bottom; nothing of one in the other.
    left, right = middle[: width // 2, :3], picture[:, int(width * 0.75), :3]
    violet, yellow = np.array([0.27, 0.0, 0.33]), np.array([0.99, 0.91, 0.14])
    first_violet = np.flatnonzero(np.abs(left - violet).max(axis=1) < 0.05)[0]
    first_yellow = np.flatnonzero(np.abs(left - yellow).max(axis=1) < 0.05)[0]
    assert first_violet < first_yellow
    outside, inside = np.array([0xD9, 0x82, 0x2B]) / 255, np.array([0x2A, 0x7F, 0x78]) / 255
    last_outside = np.flatnonzero(np.abs(right - outside).max(axis=1) < 0.02)
    first_inside = np.flatnonzero(np.abs(right - inside).max(axis=1) < 0.02)
    assert last_outside.size > 20
    assert first_inside.size > 20
    assert last_outside.min() < first_inside.min()


def test_the_same_product_gives_the_same_bytes(product: Path, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        draw_quicklook(product, tmp_path / name, "X50")
    data = (tmp_path / "a.png").read_bytes()
    assert data == (tmp_path / "b.png").read_bytes()
    kinds = set()
    position = 8
    while position < len(data):
        (length,) = struct.unpack(">I", data[position : position + 4])
        kinds.add(data[position + 4 : position + 8])
        position += length + 12
    # No text chunk and no time: nothing of the machine or the moment.
    assert kinds <= {b"IHDR", b"pHYs", b"IDAT", b"IEND"}


@pytest.mark.parametrize("fill", [-32768, 7])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 900), (900, 2)])
def test_odd_products_are_drawn(tmp_path: Path, fill: int, height: int, width: int) -> None:
    product = tmp_path / "a.tif"
    stored = np.full((2, height, width), fill, np.int16)
    stored[1] = np.where(stored[1] == 7, 1, stored[1])
    write_product(product, stored, [VALUES, CLASSES])
    draw_quicklook(product, tmp_path / "a.png", "")
    assert imread(tmp_path / "a.png").std() > 0


def test_what_is_no_product_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(b"II*\0nothing")
    with pytest.raises(InvalidInput, match=r"a\.tif"):
        draw_quicklook(path, tmp_path / "a.png", "")
    assert not (tmp_path / "a.png").exists()
