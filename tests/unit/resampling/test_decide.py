"""The plan, its reason, the type of a result, and the target grid: all from heads alone."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from rasterio.crs import CRS
from rasterio.transform import Affine

from muster.errors import ConfigError, InvalidInput, MissingInput
from muster.raster.grid import Grid
from muster.resampling.compute.fit import Fit, blank_of, plan_dataset, result_type
from muster.resampling.compute.source import Source
from muster.resampling.config.datasets import Dataset
from muster.resampling.config.methods import KERNEL_METHODS, METHODS
from muster.resampling.config.params import ResamplingParams, TargetGrid
from muster.resampling.plan.target import make_target
from tests.unit.resampling.conftest import NAN, PLANE, target_px, write


def source_of(
    dtype: str = "float32",
    *,
    crs: str = "EPSG:6933",
    transform: Affine = PLANE,
    size: tuple[int, int] = (120, 200),
    nodata: float | None = None,
    scale: float = 1.0,
    offset: float = 0.0,
) -> Source:
    """Say what a raster is that need not be there."""
    return Source(
        uris=("/a.tif",),
        band=1,
        grid=Grid(CRS.from_user_input(crs), transform, *size),
        dtype=dtype,
        nodata=nodata,
        scale=scale,
        offset=offset,
        block=(16, 16),
        overviews=(),
        masked=False,
    )


def dataset_of(method: str, **said: Any) -> Dataset:
    return Dataset(name="a", path="/a.tif", method=method, **said)


def plan(row: Any, col: Any, method: str = "average", tolerance_px: float = 1e-3) -> Fit:
    return plan_dataset(source_of(), target_px(PLANE, row, col), dataset_of(method), tolerance_px)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("row", "col", "kind"),
    [
        ((0, 1, 120), (0, 1, 200), "passthrough"),
        ((-7, 1, 140), (3, 1, 20), "passthrough"),
        ((0, 2, 60), (0, 2, 100), "block"),
        ((0, 1, 60), (0, 3, 60), "block"),
        ((-4, 4, 20), (1, 2, 30), "block"),
        ((0.5, 1, 100), (0, 1, 200), "warp"),
        ((0, 2, 50), (0.5, 2, 90), "warp"),
        ((0, 2.5, 40), (0, 2.5, 80), "warp"),
        ((0, 2, 60), (0, 2.5, 80), "warp"),
        ((0, 0.5, 60), (0, 0.5, 80), "warp"),
    ],
)
def test_the_grids_decide(method: str, row: Any, col: Any, kind: str) -> None:
    wanted = "warp" if kind == "block" and method in KERNEL_METHODS else kind
    fit = plan(row, col, method)
    assert fit.kind == wanted
    assert fit.same_crs


def test_the_reason_says_the_ratio_and_what_does_not_fit() -> None:
    assert plan((0, 2, 60), (0, 3, 60)).reason.endswith("a cell is exactly 2 × 3 source pixels")
    assert "2.5 × 2.5 source pixels is no whole number" in plan((0, 2.5, 4), (0, 2.5, 8)).reason
    assert "2 × 2 source pixels is not aligned" in plan((0.5, 2, 50), (0, 2, 90)).reason
    assert "cubic looks beyond the 2 × 2 pixels" in plan((0, 2, 50), (0, 2, 90), "cubic").reason
    assert "nothing to compute" in plan((0, 1, 50), (0, 1, 90)).reason


@pytest.mark.parametrize(
    ("shift", "stretch", "tolerance", "aligned"),
    [
        (0.9e-3, 0.0, 1e-3, True),
        (1.1e-3, 0.0, 1e-3, False),
        (-0.9e-3, 0.0, 1e-3, True),
        (0.0, 0.9e-5, 1e-3, True),  # at the 100th cell 0.9e-3
        (0.0, 1.1e-5, 1e-3, False),
        (0.9e-3, -1.8e-5, 1e-3, True),  # from +0.9e-3 to −0.9e-3
        (0.5e-3, 0.9e-5, 1e-3, False),  # adds up beyond the tolerance at the far side
        (0.05, 0.0, 0.1, True),
        (1e-5, 0.0, 0.0, False),
        (0.0, 0.0, 0.0, True),
    ],
)
@pytest.mark.parametrize("axis", ["row", "col"])
def test_the_tolerance_holds_anywhere_in_the_grid(
    axis: str, shift: float, stretch: float, tolerance: float, aligned: bool
) -> None:
    off, on = (4 + shift, 1 + stretch, 100), (4, 1, 100)
    fit = plan(off if axis == "row" else on, off if axis == "col" else on, tolerance_px=tolerance)
    assert fit.kind == ("passthrough" if aligned else "warp")
    if aligned:
        assert fit.row_edges is not None
        assert fit.row_edges.tolist() == [4.0 + k for k in range(101)]


def test_rows_that_run_up_are_counted_from_above() -> None:
    upwards = Affine(1000, 0, 0, 0, 500, 0)  # from y = 0 to 60,000
    source = source_of(transform=upwards)
    target = Grid(source.grid.crs, Affine(2000, 0, 4000, 0, -1000, 59_000), 10, 10)
    fit = plan_dataset(source, target, dataset_of("average"))
    assert fit.row_edges is not None
    assert fit.col_edges is not None
    assert (fit.row_edges[0], fit.row_edges[1]) == (2, 4)
    assert (fit.col_edges[0], fit.col_edges[1]) == (4, 6)


GLOBE = {"crs": "EPSG:4326", "transform": Affine(0.5, 0, 0, 0, -0.5, 90), "size": (360, 720)}


def on_globe(x: float, y: float, cell: float, rows: int, cols: int) -> Grid:
    return Grid(CRS.from_epsg(4326), Affine(cell, 0, x, 0, -cell, y), rows, cols)


def test_whole_pixels_round_the_globe_come_round() -> None:
    fit = plan_dataset(source_of(**GLOBE), on_globe(-180, 90, 1, 180, 360), dataset_of("sum"))
    assert (fit.kind, fit.period) == ("block", 720)
    assert plan((0, 1, 9), (0, 1, 9)).period is None


@pytest.mark.parametrize("x", [-350.0, 10.0, 370.0, 730.0])
def test_a_source_is_moved_by_whole_turns_to_the_target(x: float) -> None:
    # 0.7° does not divide 360°.
    source = source_of(crs="EPSG:4326", transform=Affine(0.7, 0, 0, 0, -0.7, 90), size=(50, 100))
    fit = plan_dataset(source, on_globe(x, 80, 1.4, 10, 20), dataset_of("average"))
    assert fit.period is None
    assert fit.col_edges is not None
    assert fit.col_edges[0] == pytest.approx(10 / 0.7)


@pytest.mark.parametrize(
    "target",
    [
        on_globe(20, -10, 1, 5, 5),
        on_globe(20, 40, 1, 5, 5),
        on_globe(-20, 20, 1, 5, 10),
        on_globe(40, 20, 1, 5, 5),
        on_globe(340, 20, 1, 5, 10),
    ],
)
@pytest.mark.parametrize("width", [0.5, 0.7])
def test_a_target_outside_the_source_is_refused(target: Grid, width: float) -> None:
    transform = Affine(width, 0, 10, 0, -0.5, 30)
    source = source_of(crs="EPSG:4326", transform=transform, size=(60, 30))
    with pytest.raises(InvalidInput, match="outside the source") as caught:
        plan_dataset(source, target, dataset_of("average"))
    assert "5 rows" in str(caught.value)
    assert "60 rows" in str(caught.value)


@pytest.mark.parametrize(("x", "cols"), [(-351.0, 2), (-350.0, 20), (9.0, 2), (365.0, 20)])
def test_a_target_that_meets_the_source_by_a_pixel_is_taken(x: float, cols: int) -> None:
    transform = Affine(0.5, 0, 10, 0, -0.5, 30)
    source = source_of(crs="EPSG:4326", transform=transform, size=(60, 30))
    plan_dataset(source, on_globe(x, 20, 1, 5, cols), dataset_of("average"))


def test_sums_and_spheres_are_refused_where_they_make_no_sense() -> None:
    target = on_globe(-72, 24, 0.01, 10, 10)
    with pytest.raises(ConfigError, match="sum makes no sense across reference systems"):
        plan_dataset(source_of(), target, dataset_of("sum"))
    with pytest.raises(ConfigError, match="one CRS in longitude and latitude"):
        plan_dataset(source_of(), target, dataset_of("average", weights="spherical"))
    with pytest.raises(ConfigError, match="for longitude and latitude"):
        plan_dataset(
            source_of(),
            target_px(PLANE, (0, 2, 9), (0, 2, 9)),
            dataset_of("average", weights="spherical"),
        )
    fit = plan_dataset(source_of(), target, dataset_of("average"))
    assert (fit.kind, fit.same_crs) == ("warp", False)
    assert fit.reason == "another CRS: EPSG:6933 to EPSG:4326"


@pytest.mark.parametrize(
    "crs",
    [
        "OGC:CRS84",
        "+proj=longlat +datum=WGS84 +no_defs",
        'GEOGCS["GCS_WGS_1984",DATUM["D_WGS_1984",SPHEROID["WGS_1984",6378137.0,298.257223563]],'
        'PRIMEM["Greenwich",0.0],UNIT["Degree",0.0174532925199433]]',
    ],
)
def test_one_crs_by_another_name_is_the_same(crs: str) -> None:
    source = source_of(crs=crs, transform=GLOBE["transform"], size=GLOBE["size"])
    fit = plan_dataset(source, on_globe(-180, 90, 1, 180, 360), dataset_of("sum"))
    assert (fit.kind, fit.period) == ("block", 720)


KEEP = ("nearest", "min", "max", "mode")


@pytest.mark.parametrize("method", METHODS)
def test_types_of_results(method: str) -> None:
    def found(dtype: str, nodata: float | None = None, **more: Any) -> Any:
        said = more.pop("said", {})
        return result_type(source_of(dtype, nodata=nodata, **more), dataset_of(method, **said))

    keeps, sums = method in KEEP, method == "sum"
    values = ("float64" if sums else "float32", None)
    assert found("int16", -1) == (("int16", -1.0) if keeps else values)
    assert found("uint8", 255) == (("uint8", 255.0) if keeps else values)
    # Nothing stands for nodata: the next type that has room.
    assert found("uint8") == (("int16", -32768.0) if keeps else values)
    assert found("uint8", -9999) == (("int16", -9999.0) if keeps else values)
    assert found("uint8", 70_000) == (("int16", -32768.0) if keeps else values)
    assert found("uint16") == (("int32", float(-(2**31))) if keeps else values)
    assert found("int16") == (("int32", float(-(2**31))) if keeps else values)
    assert found("int8", -1) == (("int16", -1.0) if keeps else values)
    assert found("float32", -9999) == values
    assert found("float64") == found("int64", -1) == found("uint64") == ("float64", None)
    # Another nodata than the file's.
    assert found("int16", -1, said={"nodata": 7}) == (("int16", 7.0) if keeps else values)
    # Scaled values are no whole numbers.
    assert found("int16", -1, scale=0.1) == values
    assert found("int16", -1, offset=0.5) == values
    # What is asked for.
    assert found("int16", -1, said={"dtype": "float64"}) == ("float64", None)
    assert found("float32", -1, said={"dtype": "uint8", "range": (0, 9)}) == ("uint8", 255.0)
    assert found("float32", 3, said={"dtype": "int16"}) == ("int16", 3.0)
    assert found("int16", -1, scale=0.1, said={"dtype": "int16"}) == ("int16", -32768.0)


@pytest.mark.parametrize("method", KEEP)
@pytest.mark.parametrize(
    ("source", "nodata", "dtype", "said", "wanted"),
    [
        # The file's own, or what is said in its place.
        ("uint8", 7, "uint8", {}, 7),
        ("uint8", 7, "uint8", {"nodata": 9}, 9),
        ("uint8", -1, "int16", {}, -1),
        # An end that the source's type does not reach.
        ("uint8", None, "uint16", {}, 65_535),
        ("uint8", None, "int16", {}, -32_768),
        ("uint16", None, "int16", {}, -32_768),
        ("int8", None, "uint8", {}, 255),
        ("int8", -1, "uint8", {}, 255),
        ("uint8", -1, "uint8", {}, None),
        ("uint8", 300, "uint8", {}, None),
        ("int16", -9999, "uint8", {}, None),
        ("uint16", None, "uint16", {}, None),
        ("int32", None, "int32", {}, None),
        ("float32", NAN, "int16", {}, None),
        ("float64", -1e30, "int32", {}, None),
        # An end outside the range, as the type rounds and clips it.
        ("uint8", None, "uint8", {"range": (0, 254)}, 255),
        ("uint8", None, "uint8", {"range": (1, 255)}, 0),
        ("uint8", None, "uint8", {"range": (0, 255)}, None),
        ("float32", None, "uint8", {"range": (0, 254.4)}, 255),
        ("float32", None, "uint8", {"range": (0, 254.6)}, None),
        ("float32", None, "uint8", {"range": (0.6, 1e9)}, 0),
        ("float32", None, "int16", {"range": (-1e9, 100)}, 32_767),
        ("int16", -9999, "int16", {"range": (0, 100)}, -9999),
    ],
)
def test_pixels_that_are_kept_are_never_nodata(
    method: str, source: str, nodata: float | None, dtype: str, said: Any, wanted: int | None
) -> None:
    dataset = dataset_of(method, dtype=dtype, **said)
    if wanted is not None:
        assert result_type(source_of(source, nodata=nodata), dataset) == (dtype, float(wanted))
        return
    with pytest.raises(ConfigError, match="no number left to stand for nodata") as caught:
        result_type(source_of(source, nodata=nodata), dataset)
    assert f"dtype: {dtype}; {source} values" in str(caught.value)
    assert "say the range of its values, or nodata, or take a larger dtype" in str(caught.value)


@pytest.mark.parametrize("method", ["nearest", "mode"])
@pytest.mark.parametrize(
    ("classes", "dtype", "wanted"),
    [
        ([1, 254], "uint8", 255),
        ([1, 254, 255], "uint8", 0),
        ([0, 1, 3, 255], "uint8", 2),
        ([0, 1, 300], "uint8", 2),  # 300 is stored as 255
        ([c for c in range(256) if c != 77], "uint8", 77),
        (list(range(256)), "uint8", None),
        (list(range(256)), "int16", -32_768),
        ([-32_768, 32_767], "int16", -32_767),
    ],
)
@pytest.mark.parametrize("source", ["int32", "float32"])
def test_no_class_is_nodata(
    source: str, classes: list[int], dtype: str, wanted: int | None, method: str
) -> None:
    dataset = dataset_of(method, dtype=dtype, categories=classes)
    if wanted is None:
        with pytest.raises(ConfigError, match="no number left"):
            result_type(source_of(source), dataset)
    else:
        assert result_type(source_of(source), dataset) == (dtype, float(wanted))


def test_what_is_computed_steps_aside_from_nodata() -> None:
    for method in ("average", "bilinear", "cubic", "median", "sum"):
        assert result_type(source_of("uint8"), dataset_of(method, dtype="uint8")) == ("uint8", 255)
    scaled = source_of("uint8", scale=0.5)
    assert result_type(scaled, dataset_of("nearest", dtype="uint8")) == ("uint8", 255)


def test_what_stands_for_no_value() -> None:
    assert blank_of(source_of("int16", nodata=-1), dataset_of("mode")) == -1
    assert blank_of(source_of("int16", nodata=-1), dataset_of("mode", nodata=7)) == 7
    assert blank_of(source_of("uint8", nodata=-1), dataset_of("mode")) is None
    # Declared as a double that float32 cannot hold.
    blank = blank_of(source_of("float32", nodata=-3.4e38), dataset_of("average"))
    assert blank == float(np.float32(-3.4e38)) != -3.4e38


def make(**said: Any) -> Grid:
    return make_target(TargetGrid(**{"crs": "EPSG:4326", **said}))


def test_a_target_from_its_extent() -> None:
    grid = make(resolution=[0.5, 0.25], extent=[-10, 40, 20, 50])
    assert (grid.height, grid.width) == (40, 60)
    assert grid.transform == Affine(0.5, 0, -10, 0, -0.25, 50)
    # A sixth of a degree is no decimal number.
    grid = make(resolution=0.16666666666666666, extent=[-180, -90, 180, 90])
    assert (grid.height, grid.width) == (1080, 2160)


@pytest.mark.parametrize(
    ("extent", "name"), [([0, 0, 10.1, 10], "width"), ([0, 0, 10, 10.1], "height")]
)
def test_an_extent_that_holds_no_whole_number_of_cells_is_refused(extent: Any, name: str) -> None:
    with pytest.raises(ConfigError, match=f"the {name} of the extent is no whole number") as caught:
        make(resolution=0.5, extent=extent)
    assert "align" in str(caught.value)
    grid = make(resolution=0.5, extent=extent, align=[0, 0])
    assert (grid.width, grid.height) == ((21, 20) if name == "width" else (20, 21))


def test_align_widens_the_extent_outwards() -> None:
    grid = make(resolution=0.5, extent=[-10.3, 40.1, 20.4, 50.2], align=[0.25, 0.1])
    t = grid.transform
    assert (t.c, t.f) == pytest.approx((-10.75, 50.6))
    assert (t.c + 0.5 * grid.width, t.f - 0.5 * grid.height) == pytest.approx((20.75, 40.1))
    # An extent that fits but for rounding is not widened.
    grid = make(resolution=0.1, extent=[0.3, 0.3, 0.7, 0.9], align=[0, 0])
    assert (grid.height, grid.width) == (6, 4)


def test_a_target_like_a_raster(path: str) -> None:
    write(path, np.zeros((7, 9)))
    grid = make_target(TargetGrid(like=path), path)
    assert (grid.height, grid.width, grid.transform) == (7, 9, PLANE)
    assert grid.crs == CRS.from_epsg(6933)


@pytest.mark.parametrize(
    "transform", [Affine(1000, 0, 0, 0, 500, 0), Affine(1000, 9, 0, 0, -500, 0)]
)
def test_a_target_like_a_raster_that_is_not_upright_is_refused(
    transform: Affine, path: str
) -> None:
    write(path, np.zeros((7, 9)), transform=transform)
    with pytest.raises(ConfigError, match="must be upright"):
        make_target(TargetGrid(like=path), path)


def test_a_target_that_makes_no_sense_is_refused(tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match="no such coordinate reference system"):
        make(crs="EPSG:999999", resolution=1, extent=[0, 0, 1, 1])
    with pytest.raises(ConfigError, match="too many cells"):
        make(resolution=1e-6, extent=[-180, -90, 180, 90])
    with pytest.raises(ConfigError, match="width of the extent"):
        make(resolution=[50, 1], extent=[0, 0, 10, 10])
    with pytest.raises(MissingInput):
        make_target(TargetGrid(like="/none.tif"), str(tmp_path / "none.tif"))
    for said in (
        {"resolution": 0, "extent": [0, 0, 1, 1]},
        {"resolution": -1, "extent": [0, 0, 1, 1]},
        {"resolution": 1, "extent": [0, 0, 0, 1]},
        {"resolution": 1, "extent": [0, 1, 1, 0]},
        {"resolution": float("nan"), "extent": [0, 0, 1, 1]},
        {"extent": [0, 0, 1, 1]},
        {"like": "/a.tif", "resolution": 1},
    ):
        with pytest.raises(ValidationError):
            TargetGrid(**{"crs": "EPSG:4326", **said})


@pytest.mark.parametrize(
    "said",
    [
        {"method": "lanczos"},
        {"method": "Average"},
        {"method": ""},
        {"method": "average", "categories": [1, 2]},
        {"method": "min", "weights": "spherical", "categories": [1]},
        {"method": "nearest", "weights": "spherical"},
        {"method": "average", "min_valid_fraction": 1.01},
        {"method": "average", "range": [3, 2]},
        {"method": "average", "band": 0},
        {"method": "average", "dtype": "int64"},
        {"method": "average", "store": ["rows"], "table": 'a"; DROP TABLE dataset; --'},
        {"method": "average", "store": ["rows"], "table": "a'b"},
        {"method": "average", "store": ["rows"], "table": "public.a"},
        {"method": "average", "store": ["rows"], "table": "A"},
        {"method": "average", "window_overlap": 3},
    ],
)
def test_a_dataset_that_makes_no_sense_is_refused(said: dict[str, Any]) -> None:
    with pytest.raises((ValidationError, ConfigError)):
        Dataset(**{"name": "a", "path": "/a.tif", **said})


def test_an_unknown_method_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValidationError, match="'lanczos' of 'a' is none of nearest, bilinear"):
        Dataset(name="a", path="/a.tif", method="lanczos")


def test_the_table_of_a_name_with_quotes_has_none() -> None:
    dataset = {"name": """a"; DROP 'b'""", "path": "/a.tif", "method": "mode", "store": ["rows"]}
    params = ResamplingParams.model_validate(
        {
            "target": {"crs": "EPSG:4326", "resolution": 1, "extent": [0, 0, 1, 1]},
            "datasets": [dataset],
            "output": "/maps",
        }
    )
    assert re.fullmatch("[a-z_]+", params.table_name(params.datasets[0]))
