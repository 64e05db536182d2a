"""What holds for any two grids: no window shows, totals are kept, and the table says the values."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.transform import Affine

from muster.raster.grid import Grid
from muster.resampling.compute.plan_stream import Demand
from muster.resampling.compute.stream import SeparableStream
from muster.resampling.compute.warp import WarpStream
from muster.resampling.config.methods import AREA_METHODS, METHODS
from tests.hypothesis_profiles import examples
from tests.resampled import edges, resample
from tests.unit.resampling.conftest import NAN, PLANE, bring, ready, target_px, whole, write

if TYPE_CHECKING:
    from collections.abc import Iterator

    from muster.resampling.compute.plan_stream import Prepared


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with TemporaryDirectory() as name:
        yield Path(name)


def divided(prepared: Prepared, rows: int, cols: int, capacity: int) -> Any:
    """Compute with windows, strips and source rows of these sizes."""
    width = prepared.stream.work.grid.width
    strips = tuple((start, min(start + cols, width)) for start in range(0, width, cols))
    return whole(prepared, band_rows=rows, strips=strips, capacity_rows=capacity)


def covering(*marked: Any) -> list[Any]:
    """Make parameters of which only those marked True are part of make test."""
    return [
        pytest.param(*values, marks=[] if is_kept else pytest.mark.thorough)
        for *values, is_kept in marked
    ]


@pytest.mark.parametrize(
    ("ratio", "offset"),
    covering(
        (1 / 3, 0.0, False),
        (1 / 3, -3.3, True),
        (1, 0.0, False),
        (1, -3.3, False),
        (2.5, 0.0, True),
        (2.5, -3.3, False),
    ),
)
@pytest.mark.parametrize("method", METHODS)
def test_no_window_shows(method: str, ratio: float, offset: float, folder: Path) -> None:
    rng = np.random.default_rng(4)
    values = rng.normal(0, 9, (90, 130)).round(1).astype("float32")
    values[rng.random(values.shape) < 0.1] = NAN
    path = write(folder / f"{method}.tif", values, tiled=True, blockxsize=32, blockysize=16)
    row = (offset, ratio, min(60, int(100 / ratio)))
    col = (offset, ratio * 1.25, min(140, int(130 / ratio)))
    prepared = ready(path, target_px(PLANE, row, col), method, min_valid_fraction=0.3)
    assert len(prepared.stream.work) == 1
    wanted = whole(prepared)
    assert isinstance(prepared.stream, SeparableStream)
    tallest = int(prepared.stream._method.rows.counts.max())
    threaded = ready(
        path, target_px(PLANE, row, col), method, Demand(threads=3), min_valid_fraction=0.3
    )
    for found in (
        divided(prepared, 1, 1000, tallest),
        divided(prepared, 7, 13, tallest + 1),
        divided(prepared, 1000, 1 + 64 // 3, 1000),
        divided(threaded, 1000, 1000, tallest + 16),
    ):
        assert found.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("method", METHODS)
def test_a_tile_of_the_kernels_does_not_show(method: str, folder: Path) -> None:
    # More source columns than a kernel works on at a time, and a cell wider than that.
    rng = np.random.default_rng(4)
    values = rng.normal(0, 9, (6, 6000)).round(1)
    path = write(folder / f"wide {method}.tif", values)
    for ratio in (1 / 3, 2.5, 2100.0):
        count = min(900, int(6000 / ratio))
        prepared = ready(path, target_px(PLANE, (0, 2, 3), (0.0, ratio, count)), method)
        wanted = whole(prepared)
        found = divided(prepared, 2, max(1, count // 7), 1000)
        assert found.tobytes() == wanted.tobytes()
        if ratio > 1 and method in AREA_METHODS:
            brute = resample(values, edges(0, 2, 3), edges(0.0, ratio, count)[-3:], method)
            np.testing.assert_allclose(wanted[:, -2:], brute, rtol=1e-6)


@pytest.mark.parametrize(
    "method", covering(*((m, m in ("nearest", "bilinear", "average", "mode")) for m in METHODS))
)
def test_budgets_windows_and_threads_that_params_allow_give_the_same_bytes(
    method: str, folder: Path
) -> None:
    rng = np.random.default_rng(4)
    values = rng.integers(0, 50, (700, 900)).astype("int16")
    path = write(
        folder / f"budget {method}.tif", values, nodata=0, tiled=True, compress="deflate",
        blockxsize=128, blockysize=128,
    )  # fmt: skip
    target = target_px(PLANE, (-2.2, 1.7, 400), (5.5, 1.3, 690))
    wanted = whole(ready(path, target, method, Demand(512)))
    counts = set()
    for demand in (
        Demand(64, threads=2),
        Demand(64, window_px=300),
        Demand(96, threads=4, window_px=100),
        Demand(64, window_px=17),
        Demand(4096, loads=True, window_px=10),
    ):
        prepared = ready(path, target, method, demand)
        counts.add(len(prepared.stream.work))
        assert whole(prepared).tobytes() == wanted.tobytes(), demand
    assert len(counts) > 3


LON_LAT = CRS.from_epsg(4326)


@pytest.mark.parametrize("method", [m for m in METHODS if m != "sum"])
def test_no_window_shows_in_another_crs(method: str, folder: Path) -> None:
    rng = np.random.default_rng(4)
    values = rng.normal(0, 9, (300, 500)).round(1).astype("float32")
    values[rng.random(values.shape) < 0.1] = NAN
    path = folder / f"warp {method}.tif"
    write(path, values, tiled=True, blockxsize=64, blockysize=64)
    target = Grid(LON_LAT, Affine(0.007, 0, -72.4, 0, -0.0055, 24.2), 290, 600)
    prepared = ready(str(path), target, method, min_valid_fraction=0.4)
    wanted = whole(prepared)
    assert 0.2 < np.isfinite(wanted).mean() < 1
    for demand in (
        Demand(256, threads=3, window_px=256),
        Demand(2048, window_px=1),
        Demand(256, threads=2),
    ):
        other = ready(str(path), target, method, demand, min_valid_fraction=0.4)
        assert whole(other).tobytes() == wanted.tobytes()
    strips = ((0, 256), (256, 512), (512, 600))
    assert whole(prepared, strips=strips, cache_mib=1).tobytes() == wanted.tobytes()


def test_pieces_of_a_warp_follow_from_the_grids_alone(folder: Path) -> None:
    write(folder / "a.tif", np.zeros((300, 500), "float32"))
    target = Grid(LON_LAT, Affine(0.07, 0, -72.4, 0, -0.055, 24.2), 290, 600)
    pieces = set()
    for demand in (Demand(256), Demand(1024, 3), Demand(300, window_px=20)):
        stream = ready(str(folder / "a.tif"), target, "average", demand).stream
        assert isinstance(stream, WarpStream)
        pieces.add((stream.warp.piece, stream.warp.ratio))
        for strip in stream.work.strips:
            assert strip[0] % 256 == 0
        assert stream.work.band_rows == 256
    assert len(pieces) == 1


SHIFTS = st.one_of(
    st.integers(-24, 24).map(lambda n: n / 8),
    st.floats(-3, 3).map(lambda x: round(x, 3)),
)
LENGTHS = st.one_of(
    st.sampled_from([1 / 3, 0.25, 0.5, 1.0, 1.5, 2.0, 7 / 3, 3.0, 4.0]),
    st.floats(0.2, 5).map(lambda x: round(x, 3)),
)


@examples(150)
@given(data=st.data(), method=st.sampled_from(METHODS))
def test_any_grid_any_gaps_any_fraction(data: st.DataObject, method: str, folder: Path) -> None:
    height, width = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    values = rng.integers(-3, 4, (height, width)).astype(float)
    values[rng.random(values.shape) < data.draw(st.sampled_from([0, 0.2, 0.6]))] = NAN
    row = (data.draw(SHIFTS), data.draw(LENGTHS), data.draw(st.integers(1, 5)))
    col = (data.draw(SHIFTS), data.draw(LENGTHS), data.draw(st.integers(1, 5)))
    if row[0] + row[1] * row[2] <= 0 or col[0] + col[1] * col[2] <= 0:
        return
    if row[0] >= height or col[0] >= width:
        return
    said: dict[str, Any] = {
        "min_valid_fraction": data.draw(st.sampled_from([0, 0.25, 0.5, 0.9, 1]))
    }
    latitudes = None
    crs, transform = "EPSG:6933", PLANE
    if method in AREA_METHODS and data.draw(st.booleans()):
        said["weights"] = "spherical"
        latitudes = (data.draw(st.sampled_from([90.0, 40.0, 20.0])), 5.0)
        # No whole number of pixels round the globe: columns do not come round.
        crs, transform = "EPSG:4326", Affine(0.7, 0, 5, 0, -5.0, latitudes[0])
    upwards = data.draw(st.booleans())
    t = transform
    turned = Affine(t.a, 0, t.c, 0, -t.e, t.f + t.e * height) if upwards else t
    path = folder / "any.tif"
    write(path, values[::-1] if upwards else values, crs=crs, transform=turned)
    target = target_px(transform, row, col, crs)
    found = bring(str(path), target, method, dtype="float64", tolerance_px=0, **said)
    wanted = resample(
        values,
        edges(*row),
        edges(*col),
        method,
        least_fraction=said["min_valid_fraction"],
        latitudes=latitudes,
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9, err_msg=f"{row} {col}")


@examples(60)
@given(data=st.data())
def test_any_cover_keeps_the_total(data: st.DataObject, folder: Path) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    values = rng.lognormal(0, 3, (7, 9))
    ratios = data.draw(LENGTHS), data.draw(LENGTHS)
    first = data.draw(st.floats(-2, 0)), data.draw(st.floats(-2, 0))
    row = (first[0], ratios[0], int((7 - first[0]) / ratios[0]) + 1)
    col = (first[1], ratios[1], int((9 - first[1]) / ratios[1]) + 1)
    spherical = data.draw(st.booleans())
    transform = Affine(2.0, 0, -17, 0, -4.5, 88)
    write(folder / "total.tif", values, crs="EPSG:4326", transform=transform)
    found = bring(
        str(folder / "total.tif"),
        target_px(transform, row, col, "EPSG:4326"),
        "sum",
        weights="spherical" if spherical else "planar",
        tolerance_px=0,
    )
    np.testing.assert_allclose(np.nansum(found), values.sum(), rtol=1e-12)


def test_a_constant_stays_what_it_is_on_the_sphere(folder: Path) -> None:
    transform = Affine(1.0, 0, -180, 0, -1.0, 90)
    write(folder / "one.tif", np.full((180, 360), 7.25), crs="EPSG:4326", transform=transform)
    target = target_px(transform, (0, 3.7, 48), (1.3, 2.9, 100), "EPSG:4326")
    for method in AREA_METHODS:
        if method == "sum":
            continue
        found = bring(
            str(folder / "one.tif"), target, method, weights="spherical", min_valid_fraction=1
        )
        np.testing.assert_allclose(found, 7.25, rtol=1e-14)


def test_means_on_the_sphere_are_those_of_exact_areas(folder: Path) -> None:
    transform = Affine(1.0, 0, -180, 0, -1.0, 90)
    rng = np.random.default_rng(2)
    values = rng.normal(10, 3, (180, 360))
    write(folder / "z.tif", values, crs="EPSG:4326", transform=transform)
    target = target_px(transform, (0, 60, 3), (0, 120, 3), "EPSG:4326")
    found = bring(str(folder / "z.tif"), target, "average", weights="spherical", dtype="float64")
    sines = np.sin(np.deg2rad(90.0 - np.arange(181)))
    areas = (sines[:-1] - sines[1:])[:, None] * np.ones(360)  # of a radian's width
    for i in range(3):
        for j in range(3):
            part = (slice(60 * i, 60 * i + 60), slice(120 * j, 120 * j + 120))
            mean = (values[part] * areas[part]).sum() / areas[part].sum()
            assert found[i, j] == pytest.approx(mean, rel=1e-12)
    total = bring(str(folder / "z.tif"), target, "sum", weights="spherical")
    np.testing.assert_allclose(total.sum(), values.sum(), rtol=1e-12)


def test_a_stream_computes_any_of_its_windows_alone(folder: Path) -> None:
    rng = np.random.default_rng(4)
    write(folder / "w.tif", rng.normal(0, 9, (90, 130)), blockysize=16)
    prepared = ready(str(folder / "w.tif"), target_px(PLANE, (-9, 1.7, 60), (0, 2, 60)), "cubic")
    work = replace(prepared.stream.work, band_rows=8, capacity_rows=30)
    stream = prepared.stream.with_work(work)
    every = dict(stream.windows())
    for wanted in (list(every)[5:6], list(every)[::3], list(every)[-1:]):
        for window, values in stream.windows(wanted):
            assert window in wanted
            assert values.tobytes() == every[window].tobytes()
