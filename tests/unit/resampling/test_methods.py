"""Every method against a brute force of the table in docs/resampling.md, one pixel at a time."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import Resampling, reproject

from muster.raster.grid import Grid
from muster.resampling.config.methods import METHODS
from tests.resampled import edges, resample
from tests.unit.resampling.conftest import NAN, PLANE, bring, ready, target_px, whole, write

if TYPE_CHECKING:
    from pathlib import Path

RATIOS = (2.0, 3.0, 2.5, 10 / 3, 0.5, 1 / 3, 1.0)
OFFSETS = (0.0, 0.5, 0.37)
GAPS = ("none", "nan", "-9999", "all")

HEIGHT, WIDTH = 11, 14


def make_values(method: str, gaps: str) -> tuple[Any, float | None]:
    """Make values of which some are the same, and what the file says is nodata."""
    rng = np.random.default_rng(3)
    values = rng.normal(10, 5, (HEIGHT, WIDTH))
    if method in ("mode", "median"):
        values = rng.integers(0, 4, (HEIGHT, WIDTH)).astype(float)
    hole = rng.random((HEIGHT, WIDTH)) < 0.25
    hole[4:8, 3:6] = True
    if gaps == "none":
        return values, None
    if gaps == "all":
        return np.full_like(values, -9999), -9999
    values[hole] = NAN if gaps == "nan" else -9999
    return values, None if gaps == "nan" else -9999


@pytest.mark.parametrize("ratio", RATIOS, ids=lambda r: f"{r:.3g}")
@pytest.mark.parametrize("method", METHODS)
def test_is_the_table_word_by_word(method: str, ratio: float, tmp_path: Path) -> None:
    across = RATIOS[(RATIOS.index(ratio) + 1) % len(RATIOS)] if ratio != 1 else 1.0
    for gaps in GAPS:
        values, nodata = make_values(method, gaps)
        path = write(tmp_path / f"{gaps}.tif", values, nodata=nodata)
        clean = np.where(values == -9999, NAN, values)
        for number, offset in enumerate(OFFSETS):
            # Cells begin before the source and end behind it, and do not divide it.
            row = (offset - 1, ratio, int(HEIGHT / ratio / (1 if ratio > 1 else 2)) + 1)
            col = (
                OFFSETS[number - 1] - 2,
                across,
                int(WIDTH / across / (1 if across > 1 else 4)) + 1,
            )
            found = bring(path, target_px(PLANE, row, col), method, dtype="float64")
            wanted = resample(clean, edges(*row), edges(*col), method)
            np.testing.assert_allclose(
                found, wanted, rtol=1e-12, atol=1e-12, err_msg=f"{gaps}, {row}, {col}"
            )
            assert np.isnan(found).all() == (gaps == "all")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("fraction", [0.25, 0.75, 1.0])
def test_a_share_of_values_that_is_exactly_enough(
    method: str, fraction: float, tmp_path: Path
) -> None:
    values = np.arange(64.0).reshape(8, 8)
    values[[0, 0, 0, 3, 3, 4, 5, 6], [0, 2, 3, 2, 3, 5, 4, 7]] = NAN
    path = write(tmp_path / "a.tif", values)
    for row, col in product([(0, 2.0, 4), (-1, 4.0, 3), (0, 0.5, 16), (-1, 0.5, 9)], repeat=2):
        found = bring(
            path,
            target_px(PLANE, row, col),
            method,
            dtype="float64",
            min_valid_fraction=fraction,
        )
        wanted = resample(values, edges(*row), edges(*col), method, least_fraction=fraction)
        np.testing.assert_allclose(found, wanted, rtol=1e-12, err_msg=f"{row} {col}")


def test_three_of_four_pixels_are_enough_for_three_quarters(path: str) -> None:
    write(path, np.array([[1.0, 2, NAN, 4], [3, NAN, NAN, 8]]))
    target = target_px(PLANE, (0, 2, 1), (0, 2, 2))
    said = {"dtype": "float64", "min_valid_fraction": 0.75}
    np.testing.assert_array_equal(bring(path, target, "average", **said), [[2.0, NAN]])
    np.testing.assert_array_equal(bring(path, target, "sum", **said), [[6.0, NAN]])
    said["min_valid_fraction"] = 0.7501
    assert np.isnan(bring(path, target, "average", **said)).all()
    assert bring(path, target, "nearest", **said)[0, 1] == 8  # one pixel: it is all there or not


@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("bilinear", "cubic")])
def test_weights_of_ten_thirds_of_a_pixel_add_up_to_all_of_it(method: str, path: str) -> None:
    write(path, np.ones((10, 10)))
    target = target_px(PLANE, (0, 10 / 3, 3), (0, 10 / 3, 3))
    assert np.isfinite(bring(path, target, method, min_valid_fraction=1)).all()


@pytest.mark.parametrize(
    ("row", "col"),
    [
        ((0, 2, 6), (0, 2, 8)),
        ((-1, 3, 5), (-2.5, 2.5, 8)),
        ((-0.37, 10 / 3, 4), (0, 0.5, 30)),
        ((0, 1 / 7, 80), (-3, 20, 1)),
        ((-1e-5, 1 / 3, 34), (-1e-5, 1 / 3, 43)),  # a corner of a pixel in the corner of a cell
    ],
)
def test_totals_are_kept(row: Any, col: Any, path: str) -> None:
    rng = np.random.default_rng(5)
    values = rng.lognormal(0, 4, (11, 14))
    values[rng.random(values.shape) < 0.2] = NAN
    write(path, values)
    found = bring(path, target_px(PLANE, row, col), "sum")
    np.testing.assert_allclose(np.nansum(found), np.nansum(values), rtol=1e-12)


def test_a_sum_of_what_half_lies_outside_is_not_scaled_up(path: str) -> None:
    write(path, np.full((2, 2), 3.0))
    found = bring(path, target_px(PLANE, (-1, 2, 1), (0, 2, 1)), "sum")
    assert found.tolist() == [[6.0]]


@pytest.mark.parametrize("shift", [0.0, 1e-9, -1e-9, 4e-7, -4e-7])
def test_rounding_brings_no_sliver_of_another_pixel_into_a_cell(shift: float, path: str) -> None:
    # Column 1 is nodata, and column 3 greater than all.
    write(path, np.tile([1.0, NAN, 2, 900], (4, 3)))
    target = target_px(PLANE, (shift, 1.5, 2), (shift, 1, 12))
    greatest = bring(path, target, "max", tolerance_px=0)
    np.testing.assert_array_equal(greatest[:, :4], [[1, NAN, 2, 900]] * 2)
    full = bring(path, target, "average", tolerance_px=0, min_valid_fraction=1)
    np.testing.assert_array_equal(full[:, :4], [[1, NAN, 2, 900]] * 2)


@pytest.mark.parametrize("shift", [0.0, 3e-7, -3e-7])
def test_of_four_pixels_the_nearest_is_the_one_to_the_right_below(shift: float, path: str) -> None:
    values = np.arange(36.0).reshape(6, 6)
    write(path, values)
    target = target_px(PLANE, (shift, 2, 3), (shift, 2, 3))
    for tolerance in (0, 1e-3):
        found = bring(path, target, "nearest", tolerance_px=tolerance)
        np.testing.assert_array_equal(found, values[1::2, 1::2])


def test_the_least_of_equally_frequent_classes(path: str) -> None:
    values = np.array([[7, 3, 9, 1], [3, 7, 1, 9], [5, 5, 2, 8], [4, 4, 2, 8]], np.uint8)
    write(path, values, nodata=0)
    target = target_px(PLANE, (0, 2, 2), (0, 2, 2))
    assert bring(path, target, "mode").tolist() == [[3, 1], [4, 2]]
    # Thirds of pixels: 1/3 + 1/3 against 2/3, which differ by a rounding.
    target = target_px(PLANE, (0, 4 / 3, 3), (0, 4 / 3, 3))
    np.testing.assert_array_equal(
        bring(path, target, "mode"),
        resample(values.astype(float), edges(0, 4 / 3, 3), edges(0, 4 / 3, 3), "mode"),
    )


def test_a_median_between_two_values_is_their_mean(path: str) -> None:
    write(path, np.array([[1, 4, 2, 2], [7, 10, 2, 9]], np.int16), nodata=-1)
    target = target_px(PLANE, (0, 2, 1), (0, 2, 2))
    assert bring(path, target, "median").tolist() == [[5.5, 2.0]]
    # Weights 1, 1/2: half of the weight lies in the heavier.
    target = target_px(PLANE, (0, 1, 1), (0, 1.5, 2))
    assert bring(path, target, "median").tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize("ratio", [2.0, 2.5, 4.0])
def test_gdal_averages_alike(ratio: float, path: str) -> None:
    rng = np.random.default_rng(9)
    values = rng.normal(100, 30, (40, 60))
    values[rng.random(values.shape) < 0.2] = NAN
    write(path, values, nodata=NAN)
    target = target_px(PLANE, (0, ratio, int(40 / ratio)), (0, ratio, int(60 / ratio)))
    wanted = np.full((target.height, target.width), NAN)
    with rasterio.open(path) as dataset:
        reproject(
            rasterio.band(dataset, 1),
            wanted,
            dst_transform=target.transform,
            dst_crs=target.crs,
            src_nodata=NAN,
            dst_nodata=NAN,
            init_dest_nodata=True,
            resampling=Resampling.average,
        )
    found = bring(path, target, "average", dtype="float64")
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.parametrize("method", ["bilinear", "cubic"])
def test_kernels_widen_when_down_sampling_as_gdal_does(method: str, path: str) -> None:
    rng = np.random.default_rng(9)
    values = rng.normal(100, 30, (64, 64))
    write(path, values)
    with rasterio.open(path) as dataset:
        wanted = dataset.read(1, out_shape=(16, 32), resampling=Resampling[method])
    found = bring(path, target_px(PLANE, (0, 4, 16), (0, 2, 32)), method, dtype="float64")
    inside = (slice(2, -2), slice(2, -2))
    np.testing.assert_allclose(found[inside], wanted[inside], rtol=1e-6)
    # An impulse is seen further off than one cell's pixels.
    write(path, np.where(np.arange(64)[:, None] == 31, 1.0, 0.0) * np.ones(64))
    rows = bring(path, target_px(PLANE, (0, 4, 16), (0, 4, 16)), method, dtype="float64")[:, 5]
    assert np.count_nonzero(rows) == (2 if method == "bilinear" else 4)


@pytest.mark.parametrize("method", ["bilinear", "cubic"])
def test_kernels_keep_a_plane_when_up_sampling(method: str, path: str) -> None:
    row, col = np.mgrid[0:9, 0:12]
    write(path, 3.0 * row - 2.0 * col)
    found = bring(path, target_px(PLANE, (3, 1 / 3, 9), (3, 0.25, 24)), method, dtype="float64")
    r, c = np.mgrid[0:9, 0:24]
    wanted = 3 * (3 + (r + 0.5) / 3 - 0.5) - 2 * (3 + (c + 0.5) / 4 - 0.5)
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_a_target_of_two_resolutions_and_a_source_of_decimal_degrees(path: str) -> None:
    # 0.1 and 0.3 are no binary fractions: edges are off by roundings, and must not show.
    rng = np.random.default_rng(1)
    values = rng.normal(0, 1, (180, 360))
    transform = Affine(0.1, 0, -18.1, 0, -0.1, 62.3)
    write(path, values, crs="EPSG:4326", transform=transform)
    row, col = (0, 3, 60), (0, 6, 60)
    target = target_px(transform, row, col, "EPSG:4326")
    blocks = values.reshape(60, 3, 60, 6)
    for tolerance in (0, 1e-3):
        for method, wanted in (("min", blocks.min((1, 3))), ("max", blocks.max((1, 3)))):
            found = bring(path, target, method, dtype="float64", tolerance_px=tolerance)
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "uint32"])
def test_whole_numbers_are_rounded_half_to_even_and_kept_within_their_type(
    dtype: str, path: str
) -> None:
    limits = np.iinfo(dtype)
    values = np.array([[0.5, 1.5, 2.5, 2.6, 1e12, -1e12, 7.2, NAN, limits.min, limits.max]])
    write(path, values)
    target = target_px(PLANE, (0, 1, 1), (0, 1, 10))
    prepared = ready(path, target, "average", dtype=dtype)
    assert prepared.finish.dtype == dtype
    # Nodata is an end of the type: what would read as it is the number beside it.
    nodata = limits.min if limits.min < 0 else limits.max
    least, greatest = max(limits.min, -limits.max), limits.max - (nodata == limits.max)
    wanted = [0, 2, 2, 3, greatest, least, 7, nodata, least, greatest]
    assert whole(prepared)[0].tolist() == wanted
    # Where nodata is said it keeps its number.
    prepared = ready(path, target, "nearest", dtype=dtype, nodata=3)
    assert whole(prepared)[0].tolist()[:4] == [0, 2, 2, 2]
    assert whole(prepared)[0, 7] == 3


@pytest.mark.parametrize("crs", ["EPSG:6933", "EPSG:4326"])
@pytest.mark.parametrize("method", ["nearest", "mode"])
def test_no_class_becomes_another_beside_nodata(method: str, crs: str, path: str) -> None:
    values = np.full((8, 8), 255, np.uint8)
    values[2:4, :4], values[6:, 6:] = 254, 9
    write(path, values)
    said = {"dtype": "uint8", "categories": [1, 254, 255]}
    if crs == "EPSG:4326":
        target = Grid(CRS.from_string(crs), Affine(0.005, 0, -72.549, 0, -0.002, 24.212), 17, 16)
        found = bring(path, target, method, **said)
        assert set(found[np.isfinite(found)]) == {254, 255}
        return
    wanted = np.where(values == 9, NAN, values.astype(float))
    found = bring(path, target_px(PLANE, (0, 1, 8), (0, 1, 8)), method, **said)
    np.testing.assert_array_equal(found, wanted)
    found = bring(path, target_px(PLANE, (0, 2, 4), (0, 2, 4)), method, **said)
    np.testing.assert_array_equal(found, wanted[::2, ::2])
