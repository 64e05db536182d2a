"""Comparison of two rasters: each number against plain NumPy, and what may not be compared."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
from matplotlib.image import imread
from rasterio.enums import ColorInterp
from rasterio.transform import Affine

from muster.cli.resampling_compare import compare, render_comparison
from muster.errors import InvalidInput, MissingInput
from muster.raster.compare.picture import draw_raster_comparison
from muster.raster.compare.rasters import compare_rasters
from tests.peak_memory import peak_memory_mib

if TYPE_CHECKING:
    from collections.abc import Callable

NODATA = -9999.0
# Degrees, pixels twice as wide as high: x and y cannot be taken for each other unseen.
TRANSFORM = Affine(0.02, 0, 5.0, 0, -0.01, 55.0)
GREY = np.array([0xBD, 0xBD, 0xBD]) / 255

Array = np.ndarray[Any, Any]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Write (row, col) or (band, row, col) and return the path."""

    def make(name: str, values: Array, **profile: Any) -> str:
        values = values if values.ndim == 3 else values[None]
        settings = {
            key: profile.pop(key) for key in ("scales", "offsets", "units") if key in profile
        }
        profile = {"crs": "EPSG:4326", "transform": TRANSFORM, **profile}
        count, height, width = values.shape
        path = tmp_path / name
        with rasterio.open(
            path, "w", "GTiff", count=count, height=height, width=width, dtype=values.dtype,
            **profile,
        ) as data:  # fmt: skip
            data.write(values)
            for key, value in settings.items():
                setattr(data, key, value)
        return str(path)

    return make


@pytest.fixture
def fields() -> tuple[Array, Array]:
    """A and B, (row, col), float32; NaN in the west of A, the declared nodata in a row of B."""
    rng = np.random.default_rng(11)
    row, col = np.mgrid[0:310, 0:470]
    a = (np.sin(row / 40) * 20 + col / 10 + rng.normal(0, 1, row.shape)).astype(np.float32)
    b = (a + rng.normal(0.5, 2, row.shape)).astype(np.float32)
    b[100:150, 200:300] = a[100:150, 200:300]
    b[200, 77] = a[200, 77] - 64
    a[:, :30] = np.nan
    b[300:] = NODATA
    return a, b


def expect(a: Array, b: Array) -> dict[str, Any]:
    """Compute what must come out, from whole arrays with NaN for nodata."""
    both = np.isfinite(a) & np.isfinite(b)
    of_a, of_b = a[both].astype(np.float64), b[both].astype(np.float64)
    difference = of_b - of_a
    return {
        "valid_in_both": int(both.sum()),
        "only_a": int((np.isfinite(a) & ~both).sum()),
        "only_b": int((np.isfinite(b) & ~both).sum()),
        "identical_pixels": int((difference == 0).sum()),
        "mean_difference": pytest.approx(difference.mean(), rel=1e-12),
        "rmsd": pytest.approx(math.sqrt((difference**2).mean()), rel=1e-12),
        "mae": pytest.approx(np.abs(difference).mean(), rel=1e-12),
        "correlation": pytest.approx(np.corrcoef(of_a, of_b)[0, 1], rel=1e-12),
        "quantiles": pytest.approx(
            dict(
                zip(
                    ("0.05", "0.5", "0.95"),
                    np.quantile(difference, [0.05, 0.5, 0.95]),
                    strict=True,
                )
            ),
            rel=1e-7,
        ),
    }


def check(found: Any, a: Array, b: Array) -> None:
    for name, value in expect(a, b).items():
        assert getattr(found, name) == value, name


# Windows of a tile, of stripes, and of all that there is: memory of 1 MiB makes more than one.
@pytest.mark.parametrize("memory_mib", [1, None])
@pytest.mark.parametrize("tiled", [False, True])
def test_the_numbers_are_those_of_whole_arrays(
    write: Callable[..., str], fields: tuple[Array, Array], memory_mib: int | None, tiled: bool
) -> None:
    a, b = fields
    shape = {"tiled": True, "blockxsize": 128, "blockysize": 64} if tiled else {}
    uri_a = write("a.tif", a, nodata=math.nan)
    uri_b = write("b.tif", b, nodata=NODATA, units=["K"], **shape)
    found = compare_rasters(uri_a, uri_b, memory_mib=memory_mib)
    check(found, a, np.where(b == NODATA, np.nan, b))
    assert found.agreement is None
    assert found.unit == "K"
    assert found.greatest is not None
    assert (found.greatest.row, found.greatest.col) == (200, 77)
    assert found.greatest.difference == pytest.approx(-64, abs=1e-4)
    assert (found.greatest.lon, found.greatest.lat) == pytest.approx((6.55, 52.995))
    json.dumps(found.to_json(), allow_nan=False)


def test_bands_scale_and_offset_are_applied(write: Callable[..., str]) -> None:
    stored = np.arange(2 * 6 * 8, dtype=np.int16).reshape(2, 6, 8)
    stored[1, 0, 0] = -1
    a = write("a.tif", stored, nodata=-1, scales=[1, 0.5], offsets=[0, 10.0])
    b = write("b.tif", stored.astype(np.float64), nodata=-1)
    found = compare_rasters(a, b, band_a=2, band_b=2)
    of_a = np.where(stored[1] == -1, np.nan, stored[1] * 0.5 + 10)
    check(found, of_a, np.where(stored[1] == -1, np.nan, stored[1]))
    assert found.agreement is None
    check(compare_rasters(a, b), stored[0] * 1.0, stored[0] * 1.0)


def test_whole_numbers_agree_by_share(write: Callable[..., str]) -> None:
    a = np.tile(np.arange(10, dtype=np.uint8), (4, 1))
    b = a.copy()
    b[0, :3] += 1
    b[3] = 255
    found = compare_rasters(write("a.tif", a), write("b.tif", b, nodata=255))
    assert (found.valid_in_both, found.identical_pixels) == (30, 27)
    assert found.agreement == pytest.approx(0.9)
    assert found.notes == ()


def test_rasters_without_a_common_pixel_give_no_numbers(write: Callable[..., str]) -> None:
    full, empty = np.ones((3, 4), np.float32), np.full((3, 4), np.nan, np.float32)
    found = compare_rasters(write("a.tif", full), write("b.tif", empty))
    assert (found.valid_in_both, found.only_a, found.rmsd, found.greatest) == (0, 12, None, None)
    assert found.notes == ("no pixel has a value in both",)
    json.dumps(found.to_json(), allow_nan=False)
    assert any(line.split()[:1] == ["RMSD"] for line in render_comparison(found))


def test_different_units_are_said(write: Callable[..., str]) -> None:
    ones = np.ones((3, 4), np.float32)
    found = compare_rasters(write("a.tif", ones, units=["K"]), write("b.tif", ones, units=["°C"]))
    assert found.notes == ("different units: K in A, °C in B",)


@pytest.mark.parametrize(
    ("profile", "shape", "what"),
    [
        ({"crs": "EPSG:3857"}, (6, 8), "CRS"),
        ({}, (6, 9), "size"),
        ({"transform": TRANSFORM @ Affine.translation(0.4, 0)}, (6, 8), "alignment"),
    ],
)
def test_other_grids_are_refused_with_what_differs(
    write: Callable[..., str], profile: dict[str, Any], shape: tuple[int, int], what: str
) -> None:
    a = write("a.tif", np.ones((6, 8), np.float32))
    b = write("b.tif", np.ones(shape, np.float32), **profile)
    with pytest.raises(InvalidInput, match=rf"different grids \(.*{what}.*resample") as caught:
        compare_rasters(a, b)
    assert b in str(caught.value)


def test_what_cannot_be_compared_is_refused(write: Callable[..., str]) -> None:
    a = write("a.tif", np.ones((6, 8), np.float32))
    with pytest.raises(MissingInput, match=r"soil.*names of datasets in the store are not"):
        compare_rasters(a, "soil")
    with pytest.raises(InvalidInput, match=r"band 2.*expected: 1 to 1"):
        compare_rasters(a, a, band_b=2)
    waves = write("c.tif", np.ones((6, 8), np.complex64))
    with pytest.raises(InvalidInput, match="real numbers"):
        compare_rasters(waves, waves)


@pytest.mark.thorough
def test_memory_does_not_grow_with_the_rasters(write: Callable[..., str]) -> None:
    values = np.zeros((7000, 7000), np.float32)
    values[5, 5] = 1
    settings = {"tiled": True, "compress": "zstd"}
    a, b = write("a.tif", values, **settings), write("b.tif", values, **settings)
    del values
    arguments = f"{a!r}, {b!r}"
    small = f"""
from pathlib import Path
from muster.raster.compare.rasters import compare_rasters
from muster.raster.compare.picture import draw_raster_comparison
compare_rasters({arguments}, memory_mib=256)
draw_raster_comparison({arguments}, Path({str(Path(a).with_suffix(".png"))!r}))
"""
    # The two rasters alone are 374 MiB, their differences as doubles as much again.
    peak = peak_memory_mib(small)
    assert peak < 420, peak


class TestPicture:
    """The PNG of A, B and B − A."""

    @pytest.fixture
    def pair(self, write: Callable[..., str]) -> tuple[str, str]:
        """B is less in the west, greater in the east; the south of A is nodata."""
        row, col = np.mgrid[0:300, 0:900]
        a = (1000 + 4 * row).astype(np.float32)
        b = a - 300 * (col < 300) + 300 * (col >= 600)
        a[240:] = np.nan
        return write("a.tif", a), write("b.tif", b.astype(np.float32))

    def test_is_blue_where_b_is_less_and_red_where_it_is_greater(
        self, pair: tuple[str, str], tmp_path: Path
    ) -> None:
        draw_raster_comparison(*pair, tmp_path / "d.png")
        picture = imread(tmp_path / "d.png")[:, :, :3]
        third = picture[:, picture.shape[1] * 2 // 3 :]
        blue = np.argwhere((third[:, :, 2] > 0.3) & (third[:, :, 0] < 0.1))
        red = np.argwhere((third[:, :, 0] > 0.3) & (third[:, :, 2] < 0.15))
        grey = np.argwhere(np.abs(third - GREY).max(axis=2) < 0.01)
        assert min(len(blue), len(red), len(grey)) > 2000
        assert np.median(blue[:, 1]) < np.median(red[:, 1]) - 100
        assert np.median(grey[:, 0]) > np.median(blue[:, 0]) + 20

    def test_overviews_that_lie_are_not_believed(
        self, pair: tuple[str, str], tmp_path: Path
    ) -> None:
        draw_raster_comparison(*pair, tmp_path / "before.png")
        with rasterio.open(pair[1], "r+") as dataset:
            dataset.build_overviews([2, 4], rasterio.enums.Resampling.nearest)
        with rasterio.open(pair[1], "r+", OVERVIEW_LEVEL=0) as overview:
            overview.write(np.zeros((150, 450), np.float32), 1)
        draw_raster_comparison(*pair, tmp_path / "after.png")
        before, after = (tmp_path / f"{name}.png" for name in ("before", "after"))
        assert before.read_bytes() == after.read_bytes()

    def test_classes_have_colours_of_their_own(
        self, write: Callable[..., str], tmp_path: Path
    ) -> None:
        row, col = np.mgrid[0:60, 0:90]
        a = (10 * (1 + col // 30)).astype(np.uint8)
        b = np.where(row < 30, a, 10).astype(np.uint8)
        uris = write("a.tif", a), write("b.tif", b)
        for uri in uris:
            with rasterio.open(uri, "r+") as dataset:
                dataset.colorinterp = [ColorInterp.palette]
                dataset.write_colormap(1, {10: (1, 2, 3, 255)})
        assert "classes" in compare_rasters(*uris).notes[0]
        draw_raster_comparison(*uris, tmp_path / "d.png")
        third = imread(tmp_path / "d.png")[:, :, :3]
        third = third[:, third.shape[1] * 2 // 3 :]
        differs = np.abs(third - np.array([0xC2, 0x30, 0x3F]) / 255).max(axis=2) < 0.01
        same = np.abs(third - np.array([0xC9, 0xDC, 0xD5]) / 255).max(axis=2) < 0.01
        # A third of the rows' lower half is the same class; patches of the legend aside.
        assert same.sum() / differs.sum() == pytest.approx(2, rel=0.1)

    @pytest.mark.parametrize("shape", [(1, 1), (2, 900), (900, 2)])
    @pytest.mark.parametrize("fill", [np.nan, 1])
    def test_odd_rasters_are_drawn(
        self, write: Callable[..., str], tmp_path: Path, shape: tuple[int, int], fill: float
    ) -> None:
        a = write("a.tif", np.full(shape, fill, np.float32))
        draw_raster_comparison(a, a, tmp_path / "d.png")
        assert imread(tmp_path / "d.png").std() > 0


class TestCommand:
    """``muster resampling compare``, as it is called."""

    def test_tells_people_and_leaves_a_picture(
        self,
        write: Callable[..., str],
        fields: tuple[Array, Array],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(tmp_path)
        a, b = write("a.tif", fields[0]), write("b.tif", fields[1], nodata=NODATA)
        compare.main([a, b], standalone_mode=False)
        lines = capsys.readouterr().out.splitlines()
        assert lines[-1] == "picture  b-minus-a.png"
        assert imread(tmp_path / "b-minus-a.png").ndim == 3
        rows = {line[:16].strip(): line[16:].strip() for line in lines}
        assert rows["valid in both"] == f"{300 * 440:,}"
        assert rows["only in A"] == f"{10 * 440:,}"
        assert "agreement" not in rows
        assert any(line.startswith("greatest at row 200, column 77") for line in lines)

    def test_json_is_one_document_and_leaves_no_file(
        self,
        write: Callable[..., str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(tmp_path)
        values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
        a = write("a.tif", values)
        compare.main([a, a, "--band-b", "2", "--json"], standalone_mode=False)
        document = json.loads(capsys.readouterr().out)
        assert document["picture"] is None
        assert (document["mean_difference"], document["agreement"]) == (12.0, 0.0)
        assert (document["a"]["band"], document["b"]["band"]) == (1, 2)
        assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]
