"""Another CRS against GDAL's own warp done whole, round a pole and across the antimeridian."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.warp
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT

from muster.errors import ConfigError, InvalidInput
from muster.raster.grid import Grid
from muster.resampling.compute.fit import plan_dataset
from muster.resampling.compute.plan_stream import Demand
from muster.resampling.compute.source import look_at_source
from muster.resampling.compute.warp import WarpStream
from muster.resampling.compute.warp_plan import plan_warp
from muster.resampling.config.datasets import Dataset
from muster.resampling.config.methods import AREA_METHODS, METHODS
from tests.resampled import edges, resample
from tests.unit.resampling.conftest import NAN, Array, bring, ready, whole, write

WARPS = tuple(method for method in METHODS if method != "sum")

PREDICTORS = Path(__file__).parents[4] / "shared" / "reference" / "splot_chile" / "predictors.tif"
needs_predictors = pytest.mark.skipif(not PREDICTORS.is_file(), reason=f"no {PREDICTORS}")


def grid_of(crs: str, cell: float, left: float, top: float, rows: int, cols: int) -> Grid:
    return Grid(CRS.from_user_input(crs), Affine(cell, 0, left, 0, -cell, top), rows, cols)


def warped_by_gdal(path: str, target: Grid, method: str) -> Array:
    """Warp in one call, as exactly, and with the same kernels.

    Pixels without values are put round the source: at its edges GDAL weighs the last pixel by the
    share of one that is not there.
    """
    with rasterio.open(path) as dataset:
        values, place = dataset.read(1), dataset.transform
        crs = dataset.crs
    if not (crs.is_geographic and values.shape[1] * place.a == 360):
        values, place = (
            np.pad(values, 20, constant_values=NAN),
            place @ Affine.translation(-20, -20),
        )
    wide = write(f"{path}.wide.tif", values, crs=crs, transform=place)
    ratio = plan_warp(look_at_source([path]).grid, target).ratio
    name = {"median": "med"}.get(method, method)
    with (
        rasterio.open(wide) as dataset,
        WarpedVRT(
            dataset,
            crs=target.crs,
            transform=target.transform,
            height=target.height,
            width=target.width,
            src_nodata=NAN,
            nodata=NAN,
            resampling=Resampling[name],
            tolerance=1e-9,
            warp_mem_limit=4096,
            XSCALE=repr(1 / max(1.0, ratio[1])),
            YSCALE=repr(1 / max(1.0, ratio[0])),
            SAMPLE_GRID="YES",
            SOURCE_EXTRA="8",
        ) as warped,
    ):
        values: Array = warped.read(1)
        return values


def smooth(lon: Array, lat: Array) -> Array:
    """Give values that change slowly everywhere on the sphere, at its poles and seams too."""
    lon, lat = np.deg2rad(lon), np.deg2rad(lat)
    x, y, z = np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)
    values: Array = 100 + 30 * x + 20 * y + 10 * z + 8 * x * y
    return values


def globe(step: float, west: float = -180.0) -> tuple[Array, Affine]:
    lat, lon = np.mgrid[90 - step / 2 : -90 : -step, west + step / 2 : west + 360 : step]
    return smooth(lon, lat), Affine(step, 0, west, 0, -step, 90)


def smooth_at(target: Grid) -> Array:
    """Give the values at the cells' centres."""
    row, col = np.mgrid[0 : target.height, 0 : target.width] + 0.5
    t = target.transform
    lon, lat = rasterio.warp.transform(
        target.crs, "EPSG:4326", (t.c + col * t.a).ravel(), (t.f + row * t.e).ravel()
    )
    return smooth(np.array(lon), np.array(lat)).reshape(row.shape)


@pytest.mark.parametrize("method", WARPS)
@pytest.mark.parametrize("cell", [400.0, 3000.0])
def test_is_gdals_own_warp(method: str, cell: float, path: str) -> None:
    rng = np.random.default_rng(8)
    values = rng.normal(0, 9, (200, 300)).round(1)
    values[rng.random(values.shape) < 0.1] = NAN
    values[60:90, 100:160] = NAN
    write(path, values, crs="EPSG:4326", transform=Affine(0.01, 0, 8, 0, -0.01, 48))
    size = int(280_000 / cell)
    target = grid_of("EPSG:3035", cell, 4_130_000, 2_780_000, min(size, 600), min(size, 280))
    found = bring(path, target, method, dtype="float64")
    wanted = warped_by_gdal(path, target, method)
    assert 0.5 < np.isfinite(wanted).mean() < 1
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", WARPS)
def test_longitude_and_latitude_from_a_projection(method: str, path: str) -> None:
    rng = np.random.default_rng(8)
    values = rng.normal(0, 9, (150, 200)).round(1)
    # UTM knows nothing of the other side of the globe, which lies in the target too.
    transform = Affine(5000, 0, 100_000, 0, -5000, 5_600_000)
    write(path, values, crs="EPSG:32632", transform=transform)
    target = grid_of("EPSG:4326", 0.125, -2, 52, 80, 170)
    found = bring(path, target, method, dtype="float64")
    np.testing.assert_allclose(found, warped_by_gdal(path, target, method), rtol=1e-9, atol=1e-9)
    assert np.isfinite(found).any()


@pytest.mark.parametrize(
    "crs", ["EPSG:32632", "EPSG:3035", pytest.param("EPSG:3413", marks=pytest.mark.slow)]
)
def test_a_globe_of_cells_has_values_only_where_the_source_is(crs: str, path: str) -> None:
    west, south = rasterio.warp.transform("EPSG:4326", crs, [8.0], [45.0])
    transform = Affine(10_000, 0, west[0], 0, -10_000, south[0] + 400_000)
    write(path, np.full((40, 50), 3.0), crs=crs, transform=transform)
    target = grid_of("EPSG:4326", 0.5, -180, 90, 360, 720)
    found = bring(path, target, "average")
    there = np.argwhere(np.isfinite(found))
    assert 50 < len(there) < 400
    lat, lon = 90 - there[:, 0] * 0.5, -180 + there[:, 1] * 0.5
    assert np.ptp(lat) < 12
    assert np.ptp(lon) < 16
    assert abs(lat - 47).max() < 12
    assert (found[np.isfinite(found)] == 3).all()


@pytest.mark.parametrize("method", WARPS)
@pytest.mark.parametrize(
    ("crs", "left", "west"), [("EPSG:32601", 200_000, 0.0), ("EPSG:32660", 500_000, -180.0)]
)
def test_across_the_antimeridian(
    method: str, crs: str, left: float, west: float, path: str
) -> None:
    values, transform = globe(0.5, west)
    write(path, values, crs="EPSG:4326", transform=transform)
    target = grid_of(crs, 20_000, left - 600_000, 3_000_000, 100, 70)
    found = bring(path, target, method, dtype="float64", min_valid_fraction=1)
    assert np.isfinite(found).all()
    least = 0.02 if method in ("bilinear", "cubic") else 0.5
    assert abs(found - smooth_at(target)).max() < least
    # GDAL's own, of a source that has its edges elsewhere and longitudes of a meridian here.
    away = CRS.from_string("+proj=longlat +datum=WGS84 +pm=180")
    values, transform = globe(0.5, 0.0)
    write(path, values, crs=away, transform=Affine.translation(-180, 0) @ transform)
    wanted = warped_by_gdal(path, target, method)
    np.testing.assert_allclose(found, wanted, rtol=1e-7)


@pytest.mark.parametrize("method", WARPS)
@pytest.mark.parametrize(("crs", "west"), [("EPSG:3413", 0.0), ("EPSG:3031", -180.0)])
def test_round_a_pole(method: str, crs: str, west: float, path: str) -> None:
    values, transform = globe(1.0, west)
    write(path, values, crs="EPSG:4326", transform=transform)
    # The pole lies within a cell, not on a corner.
    target = grid_of(crs, 50_000, -3_010_000, 2_030_000, 90, 120)
    found = bring(path, target, method, dtype="float64")
    off = abs(found - smooth_at(target))
    row, col = np.mgrid[0:90, 0:120] + 0.5
    far = np.hypot(-3_010_000 + col * 50_000, 2_030_000 - row * 50_000) > 75_000
    kernel = method in ("bilinear", "cubic")
    assert np.isfinite(found[far]).all()
    assert off[far].max() < (0.08 if kernel else 0.6)
    # The rectangle of the cell that the pole lies in is nowhere.
    assert np.nanmax(off) < 1
    assert np.isfinite(found).all() or method in AREA_METHODS


def test_a_target_round_the_globe_and_beyond_from_another_datum(path: str) -> None:
    values, transform = globe(1.0)
    write(path, values, crs="EPSG:4326", transform=transform)
    target = grid_of("EPSG:4258", 1.0, 150, 60, 100, 60)  # 150° to 210°
    found = bring(path, target, "bilinear", dtype="float64")
    np.testing.assert_allclose(found, smooth_at(target), atol=0.05)


@pytest.mark.parametrize("method", ["nearest", "average", "cubic"])
def test_pieces_that_are_divided_are_the_same(
    method: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(8)
    place = {"crs": "EPSG:4326", "transform": Affine(0.01, 0, 8, 0, -0.01, 48)}
    write(path, rng.normal(0, 9, (400, 500)), **place)
    target = grid_of("EPSG:3035", 2500, 4_130_000, 2_780_000, 110, 120)
    wanted = bring(path, target, method, dtype="float64")
    monkeypatch.setattr("muster.resampling.compute.warp.MOST_VIEW_PX", 9000)
    found = bring(path, target, method, dtype="float64")
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)


def test_a_share_of_a_cell_must_hold_values(path: str) -> None:
    values = np.ones((200, 300))
    values[:, 150:] = NAN
    write(path, values, crs="EPSG:4326", transform=Affine(0.01, 0, 8, 0, -0.01, 48))
    target = grid_of("EPSG:3035", 10_000, 4_130_000, 2_780_000, 28, 28)
    counts = [
        np.isfinite(bring(path, target, "average", min_valid_fraction=f)).sum()
        for f in (0, 0.3, 0.6, 1)
    ]
    assert counts == sorted(counts, reverse=True)
    assert len(set(counts)) == 4


def test_memory_that_is_too_small_is_refused_with_what_would_do(path: str) -> None:
    write(path, np.ones((200, 300)), crs="EPSG:4326", transform=Affine(0.02, 0, 8, 0, -0.02, 48))
    target = grid_of("EPSG:3035", 10_000, 4_130_000, 2_780_000, 20, 20)
    with pytest.raises(ConfigError, match="too small for one piece") as caught:
        ready(path, target, "average", Demand(20))
    least = int(str(caught.value).split("at least ")[1].split("MiB")[0])
    assert isinstance(ready(path, target, "average", Demand(least)).stream, WarpStream)


class TestGlobe:
    """One CRS, longitude and latitude, round the globe."""

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize(("west", "x"), [(0.0, -180.0), (-180.0, 0.0), (-180.0, 170.0)])
    def test_columns_come_round(self, method: str, west: float, x: float, path: str) -> None:
        rng = np.random.default_rng(3)
        values = rng.integers(0, 5, (18, 36)).astype(float)
        values[rng.random(values.shape) < 0.1] = NAN
        write(path, values, crs="EPSG:4326", transform=Affine(10, 0, west, 0, -10, 90))
        for cell, cols in ((20.0, 18), (25.0, 15), (4.0, 95), (10.0, 36)):
            row, col = (0, cell / 10, 7), ((x - west) / 10, cell / 10, cols)
            target = grid_of("EPSG:4326", cell, x, 90, row[2], cols)
            found = bring(path, target, method, dtype="float64")
            wanted = resample(values, edges(*row), edges(*col), method, period=36)
            np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12, err_msg=f"{cell}")

    def test_a_total_is_kept_round_the_globe(self, path: str) -> None:
        values, transform = globe(1.0, 0.0)
        write(path, values, crs="EPSG:4326", transform=transform)
        for weights in ("planar", "spherical"):
            target = grid_of("EPSG:4326", 0.75, -180.25, 90, 240, 480)
            found = bring(path, target, "sum", weights=weights)
            np.testing.assert_allclose(found.sum(), values.sum(), rtol=1e-12)

    def test_a_part_of_the_globe_has_no_other_side(self, path: str) -> None:
        # From 100° to 260° in the source's columns; the target asks from −180° to 180°.
        write(path, np.ones((4, 16)), crs="EPSG:4326", transform=Affine(10, 0, 100, 0, -10, 20))
        found = bring(path, grid_of("EPSG:4326", 10, -180, 20, 4, 36), "nearest")
        assert np.flatnonzero(np.isfinite(found[0])).tolist() == [*range(8), *range(28, 36)]

    @pytest.mark.parametrize("turns", [-1, 0, 1, 2])
    def test_a_source_that_does_not_divide_the_globe_is_turned(self, turns: int, path: str) -> None:
        values = np.arange(40.0).reshape(4, 10)
        write(path, values, crs="EPSG:4326", transform=Affine(0.7, 0, 30, 0, -0.7, 20))
        target = grid_of("EPSG:4326", 0.7, 30 + 360 * turns, 20, 4, 10)
        np.testing.assert_array_equal(bring(path, target, "nearest"), values)


@needs_predictors
class TestPredictors:
    """The predictors of sPlotOpen in Chile, 5′ of latitude and longitude."""

    @pytest.mark.parametrize("cell", [1 / 6, 0.25, 0.3, 1 / 12])
    @pytest.mark.parametrize("method", METHODS)
    def test_one_crs(self, method: str, cell: float) -> None:
        source = look_at_source([str(PREDICTORS)], 11)
        with rasterio.open(PREDICTORS) as dataset:
            stored = dataset.read(11)
            values = np.where(stored == dataset.nodata, NAN, stored.astype(float))
        rows = 24
        # Where land meets the sea.
        west, north = -75.0, -42.5 - 1 / 12
        row, col = (25 * 12.0, cell * 12, rows), (8.0, cell * 12, 18)
        target = grid_of("EPSG:4326", cell, west, north, rows, 18)
        found = bring(source, target, method, dtype="float64")
        wanted = resample(values, edges(*row), edges(*col), method)
        assert np.isfinite(found).any()
        np.testing.assert_allclose(found, wanted, rtol=1e-9)
        kind = plan_dataset(source, target, Dataset(name="a", path="/a.tif", method=method)).kind
        block = "warp" if method in ("bilinear", "cubic") else "block"
        kinds = {1 / 6: block, 0.25: block, 1 / 12: "passthrough"}
        assert kind == kinds.get(cell, "warp")

    def test_totals(self) -> None:
        source = look_at_source([str(PREDICTORS)], 11)
        with rasterio.open(PREDICTORS) as dataset:
            total = dataset.read(11, masked=True).astype(float).sum()
        for cell in (1 / 6, 0.25, 0.3):
            rows, cols = int(40 / cell) + 1, int(12 / cell) + 1
            found = bring(source, grid_of("EPSG:4326", cell, -77, -17, rows, cols), "sum")
            np.testing.assert_allclose(np.nansum(found), total, rtol=1e-12)

    @pytest.mark.parametrize("method", WARPS)
    def test_another_crs(self, method: str, path: str) -> None:
        with rasterio.open(PREDICTORS) as dataset:
            stored = dataset.read(11)
            values = np.where(stored == dataset.nodata, NAN, stored.astype(float))
        place = {"crs": "EPSG:4326", "transform": look_at_source([str(PREDICTORS)]).grid.transform}
        write(path, values, **place)
        target = grid_of("EPSG:32719", 20_000, 0, 8_000_000, 220, 50)
        found = bring(look_at_source([str(PREDICTORS)], 11), target, method, dtype="float64")
        wanted = warped_by_gdal(path, target, method)
        assert np.isfinite(found).sum() > 1000
        np.testing.assert_allclose(found, wanted, rtol=1e-9)


def test_a_target_outside_the_source_in_another_crs_is_refused(path: str) -> None:
    write(path, np.ones((20, 30)), crs="EPSG:4326", transform=Affine(0.1, 0, 8, 0, -0.1, 48))
    with pytest.raises(InvalidInput, match="the target lies outside the source"):
        ready(path, grid_of("EPSG:32719", 20_000, 0, 8_000_000, 22, 50), "average")


@pytest.mark.slow
def test_a_source_far_smaller_than_a_cell_is_found(path: str) -> None:
    write(path, np.ones((20, 30)), crs="EPSG:4326", transform=Affine(1e-4, 0, 8, 0, -1e-4, 48))
    found = bring(path, grid_of("EPSG:3035", 100_000, 2_500_000, 5_500_000, 45, 40), "max")
    assert np.nanmax(found) == 1
    assert np.isfinite(found).sum() <= 4


def test_a_cell_that_spans_too_much_is_refused(path: str) -> None:
    with rasterio.open(
        path, "w", driver="GTiff", height=6000, width=6000, count=1, dtype="uint8",
        crs="EPSG:4326", transform=Affine(1e-3, 0, 8, 0, -1e-3, 50), sparse_ok=True,
    ):  # fmt: skip
        pass
    prepared = ready(path, grid_of("EPSG:3035", 2_000_000, 3_000_000, 4_000_000, 1, 1), "max")
    with pytest.raises(ConfigError, match="more source pixels than can be warped"):
        whole(prepared)
