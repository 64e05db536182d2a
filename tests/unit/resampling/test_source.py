"""What a source is, however it is stored: types, nodata, masks, scales, classes, mosaics."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.transform import Affine

from muster.errors import InvalidInput, MissingInput, MusterError, Transient
from muster.raster.grid import Grid
from muster.resampling.compute.plan_stream import Demand
from muster.resampling.compute.source import find_files, look_at_source
from muster.resampling.config.datasets import TargetGrid
from muster.resampling.config.methods import METHODS
from muster.resampling.plan.target import make_target
from muster.resampling.stores.registered import open_registered
from tests.resampled import edges, resample
from tests.unit.resampling.conftest import NAN, PLANE, bring, ready, target_px, whole, write
from tests.unit.resampling.layers import make_layer

if TYPE_CHECKING:
    from collections.abc import Sequence

ROW, COL = (-1, 2.5, 9), (1, 2, 12)
TARGET = target_px(PLANE, ROW, COL)

ELSEWHERE = Grid(CRS.from_epsg(4326), Affine(0.013, 0, -72.55, 0, -0.0053, 24.2), 18, 22)
"""About where the source lies, in another CRS."""


def wanted_of(values: Any, method: str) -> Any:
    return resample(values, edges(*ROW), edges(*COL), method)


def make_values(dtype: str = "float32") -> Any:
    row, col = np.mgrid[0:20, 0:26]
    return ((row * 7 + col * 3) % 101).astype(dtype)


LAYOUTS: dict[str, dict[str, Any]] = {
    "single strip": {"blockysize": 20},
    "rows": {"blockysize": 1},
    "strips": {"blockysize": 3},
    "tiles": {"tiled": True, "blockxsize": 16, "blockysize": 16},
    "deflate": {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"},
    "lzw": {"compress": "lzw", "predictor": 2, "blockysize": 7},
    "pixel interleaved": {"interleave": "pixel", "blockysize": 5},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("upwards", [False, True])
def test_how_it_is_stored_does_not_matter(layout: str, upwards: bool, path: str) -> None:
    values = make_values("int16")
    stored = np.stack([values[::-1] if upwards else values, 0 * values])
    turned = PLANE @ Affine.translation(0, 20) @ Affine.scale(1, -1) if upwards else PLANE
    write(path, stored, transform=turned, **LAYOUTS[layout])
    for method in ("average", "cubic", "mode"):
        found = bring(path, TARGET, method, dtype="float64")
        np.testing.assert_allclose(found, wanted_of(values, method), rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_a_raster_upside_down_in_another_crs_is_the_same(method: str, tmp_path: Path) -> None:
    if method == "sum":
        return
    values = make_values("float64")
    write(tmp_path / "down.tif", values)
    turned = PLANE @ Affine.translation(0, 20) @ Affine.scale(1, -1)
    write(tmp_path / "up.tif", values[::-1], transform=turned)
    target = ELSEWHERE
    down, up = (bring(str(tmp_path / f"{n}.tif"), target, method) for n in ("down", "up"))
    np.testing.assert_array_equal(up, down)


@pytest.mark.parametrize(
    ("dtype", "method"),
    [
        *[("uint8", method) for method in METHODS],
        *[("float32", method) for method in ("average", "min", "mode")],
        *[("int16", method) for method in ("max", "average", "mode")],
        ("int8", "min"),
        ("uint16", "max"),
        ("int32", "average"),
        ("uint32", "nearest"),
        ("int64", "sum"),
        ("uint64", "nearest"),
        ("float64", "cubic"),
    ],
)
def test_every_type_of_numbers(dtype: str, method: str, path: str) -> None:
    values = make_values(dtype)
    values[3:9, 2:7] = 100
    write(path, values, nodata=100)
    clean = np.where(values == 100, NAN, values.astype(float))
    prepared = ready(path, TARGET, method)
    found = bring(path, TARGET, method)
    np.testing.assert_allclose(found, wanted_of(clean, method), rtol=1e-6)
    if method in ("nearest", "min", "max", "mode") and dtype not in ("int8", "uint64"):
        assert prepared.finish.dtype == dtype


@pytest.mark.parametrize("method", ["nearest", "min", "max", "mode"])
def test_all_256_values_of_a_byte_are_values(method: str, path: str) -> None:
    values = np.arange(256, dtype="uint8").reshape(16, 16)
    write(path, values)
    target = target_px(PLANE, (0, 1, 16), (-1, 1, 18))
    found = bring(path, target, method)
    np.testing.assert_array_equal(found[:, 1:-1], values)
    assert np.isnan(found[:, [0, -1]]).all()
    half = bring(path, target_px(PLANE, (0, 0.5, 32), (0, 0.5, 32)), method)
    np.testing.assert_array_equal(half, values.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [("uint8", None), ("uint8", 0), ("int16", None), ("int32", -1), ("float32", None)],
)
@pytest.mark.parametrize("method", ["nearest", "mode"])
@pytest.mark.parametrize("crs", ["EPSG:6933", "EPSG:4326"])
def test_what_is_no_category_is_no_value(
    dtype: str, nodata: float | None, method: str, crs: str, path: str
) -> None:
    values = make_values(dtype) % 11
    write(path, values, nodata=nodata)
    classes = [1, 2, 5, 77]
    clean = np.where(np.isin(values, classes), values.astype(float), NAN)
    if crs == "EPSG:6933":
        found = bring(path, TARGET, method, categories=classes)
        np.testing.assert_array_equal(found, wanted_of(clean, method))
    else:
        write(f"{path}.clean.tif", clean)
        target = ELSEWHERE
        found = bring(path, target, method, categories=classes)
        np.testing.assert_array_equal(found, bring(f"{path}.clean.tif", target, method))
        assert np.isnan(found).any()
    assert set(found[np.isfinite(found)]) == {1, 2, 5}


def test_all_256_classes_of_a_byte_may_be_named(path: str) -> None:
    values = np.arange(256, dtype="uint8").reshape(16, 16)
    write(path, values)
    target = target_px(PLANE, (0, 1, 16), (0, 1, 16))
    found = bring(path, target, "mode", categories=list(range(256)))
    np.testing.assert_array_equal(found, values)
    found = bring(path, target, "mode", categories=list(range(1, 256)))
    assert np.flatnonzero(np.isnan(found)).tolist() == [0]


SCALED = {"scales": (0.5,), "offsets": (-20.0,)}


@pytest.mark.parametrize("method", METHODS)
def test_scale_and_offset_are_applied_to_each_value(method: str, path: str) -> None:
    values = make_values("int16")
    values[2, 3] = -1
    write(path, values, nodata=-1, **SCALED)
    clean = np.where(values == -1, NAN, values * 0.5 - 20)
    found = bring(path, TARGET, method)
    np.testing.assert_allclose(found, wanted_of(clean, method), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("crs", ["EPSG:6933", "EPSG:4326"])
def test_a_range_is_of_physical_values_and_holds_its_ends(crs: str, path: str) -> None:
    values = make_values("int16")
    write(path, values, **SCALED)
    physical = values * 0.5 - 20
    clean = np.where((physical >= -10) & (physical <= 15.5), physical, NAN)
    assert (clean == -10).any()
    assert (clean == 15.5).any()
    if crs == "EPSG:6933":
        for method in ("average", "max", "nearest", "median", "cubic"):
            found = bring(path, TARGET, method, range=[-10, 15.5], dtype="float64")
            np.testing.assert_allclose(found, wanted_of(clean, method), rtol=1e-12, atol=1e-12)
        return
    write(f"{path}.clean.tif", clean)
    target = ELSEWHERE
    for method in ("average", "max"):
        found = bring(path, target, method, range=[-10, 15.5], dtype="float64")
        again = bring(f"{path}.clean.tif", target, method, dtype="float64")
        np.testing.assert_array_equal(found, again)
        assert np.nanmax(found) <= 15.5


def test_infinities_are_no_values_and_nodata_replaces_what_the_file_says(path: str) -> None:
    values = make_values("float32")
    values[2:4, 3:6] = np.inf
    values[7, 8] = -np.inf
    write(path, values, nodata=50)
    for nodata, blank in ((None, 50), (30, 30)):
        clean = np.where(np.isfinite(values) & (values != blank), values, NAN)
        found = bring(path, TARGET, "sum", nodata=nodata)
        np.testing.assert_allclose(found, wanted_of(clean, "sum"), rtol=1e-12)


@pytest.mark.parametrize("nodata", [-3.4e38, -3.4028234663852886e38, -3.402823e38, 1e-40])
@pytest.mark.parametrize("said", ["file", "dataset"])
def test_a_nodata_that_float32_cannot_hold_exactly(nodata: float, said: str, path: str) -> None:
    values = make_values("float32")
    hole = values < 20
    values[hole] = np.float32(nodata)
    write(path, values, nodata=nodata if said == "file" else None)
    clean = np.where(hole, NAN, values)
    for method in ("average", "min", "nearest"):
        found = bring(path, TARGET, method, nodata=nodata if said == "dataset" else None)
        np.testing.assert_allclose(found, wanted_of(clean, method), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64"])
@pytest.mark.parametrize("nodata", [None, 9])
@pytest.mark.parametrize("upwards", [False, True])
def test_a_mask_of_the_file_leaves_pixels_out(
    dtype: str, nodata: float | None, upwards: bool, path: str
) -> None:
    values = make_values(dtype)
    mask = np.where(np.random.default_rng(3).random(values.shape) < 0.3, 0, 255).astype("uint8")
    turned = PLANE @ Affine.translation(0, 20) @ Affine.scale(1, -1) if upwards else PLANE
    step = -1 if upwards else 1
    write(path, values[::step], mask=mask[::step], nodata=nodata, transform=turned)
    assert look_at_source([path]).masked
    clean = np.where((mask == 255) & (values != nodata), values, NAN)
    for method in ("average", "max", "mode"):
        found = bring(path, TARGET, method)
        np.testing.assert_allclose(found, wanted_of(clean, method), rtol=1e-6)


def test_alpha_leaves_pixels_out_and_is_a_band_of_its_own(path: str) -> None:
    values = make_values("uint8")
    alpha = np.where(values > 60, 0, 255).astype("uint8")
    write(path, np.stack([values, alpha]), alpha="yes")
    found = bring(path, TARGET, "max")
    np.testing.assert_array_equal(found, wanted_of(np.where(alpha == 0, NAN, values), "max"))
    source = look_at_source([path], 2)
    found = bring(source, TARGET, "max")
    np.testing.assert_array_equal(found, wanted_of(alpha, "max"))


def test_any_band(path: str) -> None:
    write(path, np.stack([make_values(), make_values() + 5]))
    found = bring(look_at_source([path], 2), TARGET, "min")
    np.testing.assert_array_equal(found, wanted_of(make_values() + 5, "min"))
    with pytest.raises(InvalidInput, match=r"no such band.*band 3.*1 to 2"):
        look_at_source([path], 3)


@pytest.mark.parametrize("crs", ["EPSG:6933", "EPSG:4326"])
@pytest.mark.parametrize("mosaic", [False, True])
def test_overviews_that_say_something_else_are_never_read(
    crs: str, mosaic: bool, tmp_path: Path
) -> None:
    values = np.random.default_rng(1).normal(0, 1, (256, 256)).astype("float32")
    paths = [str(tmp_path / "a.tif")]
    write(paths[0], values, tiled=True, blockxsize=64, blockysize=64)
    if mosaic:
        paths.append(str(tmp_path / "b.tif"))
        beside = PLANE @ Affine.translation(256, 0)
        write(paths[1], values, transform=beside, tiled=True, blockxsize=64, blockysize=64)
    target = target_px(PLANE, (0, 4, 64), (0, 4, 64))
    if crs != "EPSG:6933":
        target = ELSEWHERE
    wanted = {m: bring(paths, target, m) for m in METHODS if m != "sum"}
    for path in paths:
        with rasterio.open(path, "r+") as dataset:
            dataset.build_overviews([2, 4, 8], Resampling.average)
        # What lies in the overviews is replaced by nonsense.
        for level in range(3):
            with rasterio.open(path, "r+", OVERVIEW_LEVEL=level) as dataset:
                dataset.write(np.full((1, dataset.height, dataset.width), 1e6, "float32"))
        with rasterio.open(path) as dataset:
            assert dataset.read(1, out_shape=(64, 64)).min() == 1e6
    assert look_at_source(paths).overviews == (2, 4, 8)
    for method, one in wanted.items():
        np.testing.assert_array_equal(bring(paths, target, method), one)


class TestMosaic:
    """Files side by side on one grid."""

    @staticmethod
    def cut(
        folder: Path, values: Any, boxes: Sequence[tuple[int, int, int, int]], **profile: Any
    ) -> list[str]:
        """Write parts (row, stop row, column, stop column) as files of their own."""
        paths = []
        for number, (top, bottom, left, right) in enumerate(boxes):
            place = profile.get("transform", PLANE) @ Affine.translation(left, top)
            path = folder / f"part_{number}.tif"
            said = {**profile, "transform": place}
            paths.append(write(path, values[top:bottom, left:right], **said))
        return paths

    BOXES = ((0, 8, 0, 10), (0, 8, 10, 26), (8, 20, 0, 17), (8, 20, 17, 26))

    @pytest.mark.parametrize("method", METHODS)
    def test_is_the_one_raster_that_it_shows(self, method: str, tmp_path: Path) -> None:
        values = make_values("int16")
        self.cut(tmp_path, values, self.BOXES, nodata=50)
        source = look_at_source(find_files(str(tmp_path / "part_*.tif")))
        assert (source.grid.height, source.grid.width) == (20, 26)
        assert len(source.uris) == 4
        clean = np.where(values == 50, NAN, values)
        found = bring(source, TARGET, method)
        np.testing.assert_allclose(found, wanted_of(clean, method), rtol=1e-6)

    def test_rows_that_run_up(self, tmp_path: Path) -> None:
        values = make_values("int16")
        upwards = PLANE @ Affine.translation(0, 20) @ Affine.scale(1, -1)
        paths = self.cut(tmp_path, values[::-1], self.BOXES, nodata=50, transform=upwards)
        clean = np.where(values == 50, NAN, values)
        np.testing.assert_array_equal(bring(paths, TARGET, "max"), wanted_of(clean, "max"))

    @pytest.mark.parametrize(
        ("dtype", "nodata"), [("int16", 50), ("float32", None), ("float32", -3.4e38)]
    )
    def test_gaps_are_no_values(self, dtype: str, nodata: float | None, tmp_path: Path) -> None:
        values = make_values(dtype)
        boxes = ((0, 8, 0, 10), (8, 20, 17, 26))
        paths = self.cut(tmp_path, values, boxes, nodata=nodata)
        clean = np.full(values.shape, NAN)
        for top, bottom, left, right in boxes:
            clean[top:bottom, left:right] = values[top:bottom, left:right]
        clean[clean == nodata] = NAN
        for method in ("average", "cubic", "min"):
            found = bring(paths, TARGET, method)
            np.testing.assert_allclose(found, wanted_of(clean, method), rtol=1e-6)

    def test_gaps_are_no_values_whatever_stands_for_nodata(self, tmp_path: Path) -> None:
        values = make_values("int16")
        boxes = ((0, 8, 0, 10), (8, 20, 17, 26))
        paths = self.cut(tmp_path, values, boxes, nodata=50)
        clean = np.full(values.shape, NAN)
        for top, bottom, left, right in boxes:
            clean[top:bottom, left:right] = values[top:bottom, left:right]
        clean[clean == 30] = NAN
        found = bring(paths, TARGET, "max", nodata=30)
        np.testing.assert_array_equal(found, wanted_of(clean, "max"))

    def test_of_files_that_overlap_the_last_by_name_is_seen(self, tmp_path: Path) -> None:
        first = write(tmp_path / "a.tif", np.full((4, 6), 1.0))
        place = PLANE @ Affine.translation(4, 2)
        last = write(tmp_path / "b.tif", np.full((4, 6), 2.0), transform=place)
        found = bring([first, last], target_px(PLANE, (0, 1, 6), (0, 1, 10)), "nearest")
        wanted = np.full((6, 10), NAN)
        wanted[:4, :6] = 1
        wanted[2:, 4:] = 2
        np.testing.assert_array_equal(found, wanted)

    @pytest.mark.parametrize("seed", range(4))
    def test_the_share_of_gaps_is_told(self, seed: int, tmp_path: Path) -> None:
        values = make_values("float32")
        height, width = values.shape
        rng = np.random.default_rng(seed)
        boxes = []
        there = np.zeros(values.shape, dtype=bool)
        for _ in range(6):
            top, left = int(rng.integers(height - 1)), int(rng.integers(width - 1))
            bottom, right = int(rng.integers(top, height)) + 1, int(rng.integers(left, width)) + 1
            boxes.append((top, bottom, left, right))
            there[top:bottom, left:right] = True
        source = look_at_source(self.cut(tmp_path, values, boxes))
        grid = source.grid
        assert source.gaps == pytest.approx(1 - there.sum() / (grid.height * grid.width), abs=1e-12)
        assert look_at_source(self.cut(tmp_path, values, self.BOXES)).gaps == 0

    @pytest.mark.parametrize(
        ("what", "profile"),
        [
            ("CRS", {"crs": "EPSG:8857"}),
            ("data type", {"dtype": "float64"}),
            ("nodata", {"nodata": 1}),
            ("scale", {"scales": (2.0,)}),
            ("pixel size", {"transform": Affine(1001, 0, -6_980_000, 0, -500, 3_000_000)}),
            ("pixel size", {"transform": Affine(1000, 0, -6_980_000, 0, 500, 3_000_000)}),
            ("alignment", {"transform": PLANE @ Affine.translation(20.02, 0)}),
            ("alignment", {"transform": PLANE @ Affine.translation(20, 0.5)}),
        ],
    )
    def test_files_that_do_not_fit_together_are_refused(
        self, what: str, profile: dict[str, Any], tmp_path: Path
    ) -> None:
        values = make_values()
        place = {"transform": PLANE @ Affine.translation(26, 0)}
        a = write(tmp_path / "a.tif", values)
        dtype = profile.get("dtype", values.dtype)
        b = write(tmp_path / "b.tif", values.astype(dtype), **{**place, **profile})
        with pytest.raises(InvalidInput, match="do not fit together") as caught:
            look_at_source([a, b])
        assert f"another {what}" in str(caught.value)
        assert b in str(caught.value)

    def test_one_crs_by_two_names_fits_together(self, tmp_path: Path) -> None:
        values = make_values("float32")[:2, :3]
        lines = [" ".join(str(float(value)) for value in row) for row in values]
        head = "ncols 3\nnrows 2\nxllcorner 10\nyllcorner 40\ncellsize 1\n"
        a = tmp_path / "a.asc"
        a.write_text(head + "\n".join(lines) + "\n")
        a.with_suffix(".prj").write_text(
            'GEOGCS["GCS_WGS_1984",DATUM["D_WGS_1984",SPHEROID["WGS_1984",6378137,298.257223563]],'
            'PRIMEM["Greenwich",0],UNIT["Degree",0.017453292519943295]]'
        )
        place = Affine(1, 0, 13, 0, -1, 42)
        b = write(tmp_path / "b.tif", values, crs="EPSG:4326", transform=place)
        with rasterio.open(a) as first, rasterio.open(b) as second:
            assert first.crs != second.crs  # as rasterio has it
        source = look_at_source([str(a), b])
        target = target_px(source.grid.transform, (0, 1, 2), (0, 1, 6), "EPSG:4326")
        found = bring(source, target, "sum", dtype="float32")
        np.testing.assert_array_equal(found, np.hstack([values, values]))

    def test_masks_are_refused(self, tmp_path: Path) -> None:
        values = make_values()
        mask = np.full(values.shape, 255, "uint8")
        a = write(tmp_path / "a.tif", values, mask=mask)
        b = write(tmp_path / "b.tif", values, transform=PLANE @ Affine.translation(26, 0))
        for paths in ([a, b], [b, a]):
            with pytest.raises(InvalidInput, match="do not fit together"):
                look_at_source(paths)

    @pytest.mark.parametrize(
        ("dtype", "declared", "said"),
        [
            ("uint8", None, {}),
            ("uint8", 255, {"nodata": -1}),
            ("uint8", 255, {"nodata": 300}),
            ("int16", None, {"nodata": 0.5}),
            ("uint8", None, {"nodata": 0}),
            ("int64", None, {"nodata": 0}),
            ("uint8", None, {"categories": [0, 3, 255], "methods": ("mode", "nearest")}),
            ("uint8", 255, {"categories": range(256), "nodata": -1, "methods": ("mode",)}),
        ],
    )
    @pytest.mark.parametrize("crs", ["EPSG:6933", "EPSG:4326"])
    def test_gaps_are_no_values_whatever_the_type_has_room_for(
        self, dtype: str, declared: float | None, said: dict[str, Any], crs: str, tmp_path: Path
    ) -> None:
        values = (make_values("int64") % 3 * 126 + 3).astype(dtype)
        values[2:4, 1:3] = values[10, 20] = 0
        boxes = ((0, 8, 0, 10), (8, 20, 17, 26))
        paths = self.cut(tmp_path, values, boxes, nodata=declared)
        said = dict(said)
        methods = said.pop("methods", ("average", "max", "nearest"))
        clean = np.full(values.shape, NAN)
        for top, bottom, left, right in boxes:
            clean[top:bottom, left:right] = values[top:bottom, left:right]
        clean[clean == said.get("nodata", declared)] = NAN
        classes = said.get("categories")
        if classes is not None:
            said["categories"] = list(classes)
            clean[~np.isin(clean, said["categories"])] = NAN
        # The same as one raster, where NaN says what is no value.
        alike = write(tmp_path / "clean.tif", clean)
        target = TARGET if crs == "EPSG:6933" else ELSEWHERE
        for method in methods:
            wanted = bring(alike, target, method, dtype="float64")
            found = bring(paths, target, method, dtype="float64", **said)
            assert np.isnan(wanted).any()
            assert np.isfinite(wanted).any()
            np.testing.assert_array_equal(found, wanted)

    def test_the_type_of_a_result_is_that_of_the_files_whatever_stands_for_gaps(
        self, tmp_path: Path
    ) -> None:
        values = make_values("uint8")
        paths = self.cut(tmp_path, values, ((0, 8, 0, 10), (8, 20, 17, 26)), nodata=255)
        for nodata, dtype in ((None, "uint8"), (0, "uint8"), (-1, "int16"), (300, "int16")):
            assert ready(paths, TARGET, "max", nodata=nodata).finish.dtype == dtype
            assert ready(paths, TARGET, "average", nodata=nodata).finish.dtype == "float32"

    def test_gaps_of_a_registered_dataset_are_no_values(self, tmp_path: Path) -> None:
        values = np.full((20, 26), 255, "uint8")
        paths = self.cut(tmp_path, values, ((0, 8, 0, 10), (8, 20, 17, 26)), nodata=255)
        target = target_px(PLANE, (0, 1, 20), (0, 1, 26))
        prepared = ready(paths, target, "max", nodata=-1)
        layer = make_layer(
            "a",
            target,
            "int16",
            nodata=-1,
            dataset={"method": "max", "nodata": -1},
            sources=tuple(paths),
            kind="passthrough",
            cog=None,
            registered=True,
        )
        with open_registered(layer) as reader:
            found = reader.read(target.whole)
        wanted = np.full(values.shape, -1)
        wanted[0:8, 0:10] = wanted[8:20, 17:26] = 255
        np.testing.assert_array_equal(found, wanted)
        np.testing.assert_array_equal(whole(prepared), wanted)


class TestFiles:
    """What a path means."""

    def test_a_glob_finds_files_in_order(self, tmp_path: Path) -> None:
        for name in ("b_2.tif", "b_1.tif", "c.tif"):
            (tmp_path / name).touch()
        found = find_files(f"{tmp_path}/b_*.tif")
        assert found == (f"{tmp_path}/b_1.tif", f"{tmp_path}/b_2.tif")
        assert find_files(f"{tmp_path}/c.tif") == (f"{tmp_path}/c.tif",)

    def test_nothing_found(self, tmp_path: Path) -> None:
        with pytest.raises(MissingInput, match="no file matches"):
            find_files(f"{tmp_path}/b_*.tif")
        with pytest.raises(InvalidInput, match="only the last part"):
            find_files(f"{tmp_path}/*/b.tif")
        with pytest.raises(MissingInput):
            look_at_source([f"{tmp_path}/none.tif"])

    def test_a_file_may_be_called_like_a_glob(self, tmp_path: Path) -> None:
        name = str(tmp_path / "a[1].tif")
        write(name, make_values())
        assert find_files(name) == (name,)


def refused(path: str | Path) -> MusterError:
    with pytest.raises(MusterError) as caught:
        whole(ready(str(path), TARGET, "average"))
    assert str(path) in str(caught.value)
    return caught.value


def test_no_crs_is_refused(path: str) -> None:
    assert "no coordinate reference system" in str(refused(write(path, make_values(), crs=None)))


@pytest.mark.parametrize(
    ("transform", "says"),
    [
        (Affine(1000, 5, 0, 0, -500, 0), "rotated or sheared"),
        (Affine(1000, 0, 0, 3, -500, 0), "rotated or sheared"),
        (Affine(0, 1000, 0, -500, 0, 0), "rotated or sheared"),
        (Affine(-1000, 0, 0, 0, -500, 0), "do not run from left to right"),
    ],
)
def test_a_transform_that_is_not_upright_is_refused(
    transform: Affine, says: str, path: str
) -> None:
    error = refused(write(path, make_values(), transform=transform))
    assert isinstance(error, InvalidInput)
    assert says in str(error)


@pytest.mark.parametrize("keep", [0, 100, 3000, 5000])
@pytest.mark.parametrize("crs", ["EPSG:6933", "EPSG:4326"])
def test_a_truncated_file_is_invalid(keep: int, crs: str, path: str) -> None:
    rng = np.random.default_rng(1)
    write(path, rng.normal(0, 1, (60, 50)), compress="deflate", blockysize=6)
    data = Path(path).read_bytes()
    assert len(data) > 10_000
    Path(path).write_bytes(data[:keep])
    target = TARGET if crs == "EPSG:6933" else ELSEWHERE
    for threads in (1, 3):
        with pytest.raises(InvalidInput) as caught:
            whole(ready(path, target, "average", Demand(threads=threads)))
        assert path in str(caught.value)


def test_a_raster_of_0_by_0_pixels_is_invalid(tmp_path: Path) -> None:
    vrt = tmp_path / "nothing.vrt"
    vrt.write_text('<VRTDataset rasterXSize="0" rasterYSize="0"></VRTDataset>')
    assert isinstance(refused(vrt), InvalidInput)


def test_complex_values_and_text_are_no_raster(tmp_path: Path) -> None:
    path = write(tmp_path / "c.tif", np.zeros((20, 26), "complex64"))
    assert "complex64" in str(refused(path))
    (tmp_path / "a.csv").write_text("lon,lat\n1,2\n")
    assert isinstance(refused(tmp_path / "a.csv"), InvalidInput)


class TestOnS3:
    """Sources on an S3 server that only the environment names."""

    def test_reads_what_lies_there(self, bucket: Any, path: str) -> None:
        values = make_values("int16")
        write(path, values, tiled=True, blockxsize=16, blockysize=16)
        bucket.upload_file(path, "maps/a file.tif")
        source = look_at_source(find_files("s3://predictors/maps/a file.tif"))
        found = bring(source, TARGET, "average", dtype="float64")
        np.testing.assert_allclose(found, wanted_of(values, "average"), rtol=1e-12)

    def test_files_side_by_side(self, bucket: Any, tmp_path: Path) -> None:
        values = make_values("int16")
        for path in TestMosaic.cut(tmp_path, values, TestMosaic.BOXES, nodata=-1):
            bucket.upload_file(path, f"maps/{Path(path).name}")
        found = find_files("s3://predictors/maps/part_*.tif")
        assert len(found) == 4
        for threads in (1, 3):
            result = bring(
                found, TARGET, "average", dtype="float64", demand=Demand(threads=threads)
            )
            np.testing.assert_allclose(result, wanted_of(values, "average"), rtol=1e-12)
        like = "s3://predictors/maps/part_0.tif"
        assert make_target(TargetGrid(like=like), like).width == 10

    def test_what_is_not_there_or_cut_off(
        self, bucket: Any, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(MissingInput):
            look_at_source(["s3://predictors/none.tif"])
        write(path, make_values("float64"))
        data = Path(path).read_bytes()
        bucket.put_object(Key="cut.tif", Body=data[: len(data) // 2])
        assert isinstance(refused("s3://predictors/cut.tif"), InvalidInput)
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        with pytest.raises(Transient):
            look_at_source(["s3://predictors/cut.tif"])
