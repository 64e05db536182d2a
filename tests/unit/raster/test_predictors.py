"""Predictors: found by name in any files, unpacked, complete or without value."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from muster.errors import InvalidInput, MissingInput, MusterError, Transient
from muster.raster.grid import Window
from muster.raster.predictors import open_predictors
from muster.raster.write.layout import render_vrt

if TYPE_CHECKING:
    from collections.abc import Callable

    Ramp = Callable[[int, int, int], np.ndarray[Any, Any]]
    WriteRaster = Callable[..., str]

NAMES = ("rain", "sand", "height")
WINDOW = Window(row=2, col=5, height=3, width=4)


def expected(values: np.ndarray[Any, Any], order: list[int]) -> np.ndarray[Any, Any]:
    """Cut WINDOW out of (band, row, col) and turn it into (pixel, predictor)."""
    cut = values[order, WINDOW.row : WINDOW.row + 3, WINDOW.col : WINDOW.col + 4]
    return cut.reshape(len(order), -1).T.astype(np.float64)


@pytest.mark.parametrize("interleave", ["band", "pixel"])
def test_bands_are_matched_by_description_in_any_order(
    write_raster: WriteRaster, ramp: Ramp, interleave: str
) -> None:
    values = ramp(4, 8, 13)
    descriptions = ("sand", "height", "unused", "rain")
    path = write_raster("a.tif", values, descriptions=descriptions, interleave=interleave)
    with open_predictors([path], NAMES) as stack:
        matrix, valid = stack.read(WINDOW)
        assert (stack.grid.height, stack.grid.width) == (8, 13)
    np.testing.assert_array_equal(matrix, expected(values, [3, 0, 1]))
    assert valid.all()
    assert matrix.dtype == np.float64


def test_single_band_files_are_named_by_their_stem(write_raster: WriteRaster, ramp: Ramp) -> None:
    values = ramp(3, 8, 13)
    uris = [
        Path(write_raster("height.tif", values[2:])).as_uri(),
        write_raster("rain.tif", values[:1]),
        write_raster("whatever.tif", values[1:2], descriptions=("sand",)),
    ]
    with open_predictors(uris, NAMES) as stack:
        matrix, _ = stack.read(WINDOW)
    np.testing.assert_array_equal(matrix, expected(values, [0, 1, 2]))


def test_a_vrt_is_a_stack(
    write_raster: WriteRaster, ramp: Ramp, make_grid: Any, tmp_path: Path
) -> None:
    values = ramp(3, 130, 70)
    path = Path(write_raster("a.tif", values, tiled=True, blockxsize=32, blockysize=16))
    from muster.raster.grid import Band

    vrt = tmp_path / "all.vrt"
    vrt.write_text(
        render_vrt(
            make_grid(130, 70),
            [Band(name) for name in ("height", "rain", "sand")],
            [(path, 3), (path, 1), (path, 2)],
            dtype="float32",
            nodata=float("nan"),
            tags={},
        )
    )
    with open_predictors([str(vrt)], NAMES) as stack:
        matrix, _ = stack.read(WINDOW)
        # What is decoded are the blocks behind the VRT.
        assert stack.block == (16, 32)
    np.testing.assert_array_equal(matrix, expected(values, [0, 1, 2]))


def test_a_vrt_over_files_of_different_types(
    write_raster: WriteRaster, ramp: Ramp, tmp_path: Path
) -> None:
    """An ordinary gdalbuildvrt -separate: GDAL itself does not read such bands together."""
    values = ramp(3, 8, 13)
    types = {
        "height": ("int16", "Int16"),
        "rain": ("float32", "Float32"),
        "sand": ("uint8", "Byte"),
    }
    bands = []
    for number, (name, (dtype, gdal_type)) in enumerate(types.items(), start=1):
        path = write_raster(f"{name}.tif", (values[number - 1 : number] % 100).astype(dtype))
        bands.append(
            f'<VRTRasterBand dataType="{gdal_type}" band="{number}"><Description>{name}'
            f"</Description><SimpleSource><SourceFilename>{path}</SourceFilename>"
            f"<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
        )
    with rasterio.open(tmp_path / "rain.tif") as like:
        transform = ", ".join(str(part) for part in like.transform.to_gdal())
    vrt = tmp_path / "all.vrt"
    vrt.write_text(
        '<VRTDataset rasterXSize="13" rasterYSize="8"><SRS>EPSG:6933</SRS>'
        f"<GeoTransform>{transform}</GeoTransform>{''.join(bands)}</VRTDataset>"
    )
    with open_predictors([str(vrt)], ("height", "rain", "sand")) as stack:
        matrix, valid = stack.read(WINDOW)
    assert valid.all()
    want = np.stack(
        [
            (v % 100).astype(t).astype(float)
            for v, (t, _) in zip(values, types.values(), strict=True)
        ]
    )
    np.testing.assert_array_equal(matrix, expected(want, [0, 1, 2]))


def test_packed_predictors_are_unpacked(write_raster: WriteRaster) -> None:
    stored = np.arange(3 * 8 * 13, dtype=np.int16).reshape(3, 8, 13)
    stored[1, 3, 6] = -999
    path = write_raster(
        "a.tif",
        stored,
        descriptions=NAMES,
        nodata=-999,
        scales=(0.5, 0.1, 1.0),
        offsets=(0.0, -20.0, 7.0),
    )
    with open_predictors([path], NAMES) as stack:
        matrix, valid = stack.read(WINDOW)
    want = expected(stored, [0, 1, 2]) * [0.5, 0.1, 1.0] + [0.0, -20.0, 7.0]
    hole = (3 - WINDOW.row) * WINDOW.width + (6 - WINDOW.col)
    assert np.flatnonzero(~valid).tolist() == [hole]
    np.testing.assert_array_equal(matrix[valid], want[valid])
    assert np.isnan(matrix[hole]).all()


def test_nodata_nan_and_infinity_in_any_predictor_make_a_pixel_invalid(
    write_raster: WriteRaster, ramp: Ramp
) -> None:
    values = ramp(3, 8, 13)
    values[0, 2, 5], values[1, 2, 6], values[2, 3, 5] = np.nan, -9999, np.inf
    path = write_raster("a.tif", values, descriptions=NAMES, nodata=-9999)
    with open_predictors([path], NAMES) as stack:
        matrix, valid = stack.read(WINDOW)
        picked, again = stack.read_valid(WINDOW)
    assert np.flatnonzero(~valid).tolist() == [0, 1, 4]
    np.testing.assert_array_equal(valid, again)
    np.testing.assert_array_equal(picked, matrix[valid])
    assert picked.flags.c_contiguous


def test_a_mask_of_the_file_counts(write_raster: WriteRaster, ramp: Ramp) -> None:
    values = ramp(3, 8, 13)
    path = write_raster("a.tif", values, descriptions=NAMES)
    mask = np.full((8, 13), 255, np.uint8)
    mask[2, 7] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(mask)
    with open_predictors([path], NAMES) as stack:
        _, valid = stack.read(WINDOW)
    assert np.flatnonzero(~valid).tolist() == [2]


def test_a_window_without_values_stops_at_the_first_empty_band(
    write_raster: WriteRaster, ramp: Ramp
) -> None:
    values = ramp(1, 8, 13)
    empty = write_raster("rain.tif", np.full_like(values, np.nan))
    broken = write_raster("sand.tif", values, tiled=True, blockxsize=16, blockysize=16)
    Path(broken).write_bytes(Path(broken).read_bytes()[:-200])
    with open_predictors([empty, broken], ["rain", "sand"]) as stack:
        picked, valid = stack.read_valid(WINDOW)
        assert picked.shape == (0, 2)
        assert not valid.any()


def test_windows_keep_to_the_memory(write_raster: WriteRaster, ramp: Ramp) -> None:
    path = write_raster("a.tif", ramp(3, 900, 600), descriptions=NAMES, blockysize=1)
    with open_predictors([path], NAMES, memory_mib=80) as stack:
        # A fifth of 80 MiB, at 16 bytes for each of 3 predictors, and what is stored, and masks.
        windows = list(stack.windows())
        assert stack.memory.window_mib == 16
        assert max(window.pixels for window in windows) <= 16 * 2**20 / (3 * 16 + 3 * 4 + 4)
        tight = list(stack.windows(work_values=2000))
        assert max(window.pixels for window in tight) <= 16 * 2**20 / (2000 * 8)
        assert all(window.width == 600 for window in tight)


def refused(uris: list[str], names: tuple[str, ...] = NAMES) -> MusterError:
    """Open predictors that must be refused, read them, and return the error."""
    with pytest.raises(MusterError) as caught, open_predictors(uris, names) as stack:
        stack.read(stack.grid.whole)
    assert "\n" not in str(caught.value)
    return caught.value


def test_absent_bands_are_named_with_those_present(write_raster: WriteRaster, ramp: Ramp) -> None:
    path = write_raster("a.tif", ramp(3, 8, 13), descriptions=("rain", "clay", None))
    error = refused([path])
    assert isinstance(error, InvalidInput)
    assert "absent sand, height; present clay, rain, 1 without a description" in str(error)
    assert path in str(error)


def test_a_band_that_is_there_twice_is_refused(write_raster: WriteRaster, ramp: Ramp) -> None:
    a = write_raster("a.tif", ramp(3, 8, 13), descriptions=NAMES)
    b = write_raster("sand.tif", ramp(1, 8, 13))
    error = refused([a, b])
    assert isinstance(error, InvalidInput)
    assert "2 bands named sand" in str(error)
    assert b in str(error)


@pytest.mark.parametrize(
    ("profile", "what"),
    [
        ({"crs": "EPSG:4326"}, "CRS"),
        ({"transform": Affine(1000, 0, 0, 0, -500, 0)}, "alignment"),
    ],
)
def test_different_grids_are_refused(
    write_raster: WriteRaster, ramp: Ramp, profile: dict[str, Any], what: str
) -> None:
    a = write_raster("a.tif", ramp(2, 8, 13), descriptions=NAMES[:2])
    b = write_raster("height.tif", ramp(1, 8, 13), **profile)
    error = refused([a, b])
    assert isinstance(error, InvalidInput)
    assert f"different grids ({what}" in str(error)
    assert b in str(error)


def test_no_crs_is_refused(write_raster: WriteRaster, ramp: Ramp) -> None:
    error = refused([write_raster("a.tif", ramp(3, 8, 13), descriptions=NAMES, crs=None)])
    assert isinstance(error, InvalidInput)
    assert "no coordinate reference system" in str(error)


def test_complex_numbers_are_refused(write_raster: WriteRaster) -> None:
    error = refused([write_raster("rain.tif", np.zeros((1, 4, 4), np.complex64))], ("rain",))
    assert isinstance(error, InvalidInput)
    assert "complex64" in str(error)


@pytest.mark.parametrize("keep", [0, 100, 2000])
def test_a_truncated_file_is_invalid(write_raster: WriteRaster, ramp: Ramp, keep: int) -> None:
    path = Path(write_raster("a.tif", ramp(3, 64, 64), descriptions=NAMES))
    path.write_bytes(path.read_bytes()[:keep])
    error = refused([str(path)])
    assert isinstance(error, InvalidInput)
    assert str(path) in str(error)


def test_text_is_no_raster(tmp_path: Path) -> None:
    path = tmp_path / "plots.csv"
    path.write_text("lon,lat\n1,2\n")
    assert isinstance(refused([str(path)]), InvalidInput)
    assert isinstance(refused([str(tmp_path)]), InvalidInput)


def test_an_absent_file_is_missing(tmp_path: Path) -> None:
    error = refused([str(tmp_path / "none.tif")])
    assert isinstance(error, MissingInput)
    assert "none.tif" in str(error)


def test_nothing_given_is_refused() -> None:
    assert isinstance(refused([]), InvalidInput)


class TestOnS3:
    """Predictors on an S3 server that only the environment names."""

    def test_reads_what_lies_there(
        self, bucket: Any, write_raster: WriteRaster, ramp: Ramp
    ) -> None:
        values = ramp(3, 200, 170)
        stack_path = write_raster("a.tif", values[:2], descriptions=("sand", "rain"), tiled=True)
        single_path = write_raster("height.tif", values[2:], tiled=True)
        bucket.upload_file(stack_path, "maps/2020/a stack.tif")
        bucket.upload_file(single_path, "maps/height.tif")
        uris = ["s3://predictors/maps/2020/a stack.tif", "s3://predictors/maps/height.tif"]
        with open_predictors(uris, NAMES) as stack:
            matrix, valid = stack.read(WINDOW)
        np.testing.assert_array_equal(matrix, expected(values, [1, 0, 2]))
        assert valid.all()

    def test_an_absent_object_is_missing(self, bucket: Any) -> None:
        error = refused(["s3://predictors/none.tif"])
        assert isinstance(error, MissingInput)
        assert "s3://predictors/none.tif" in str(error)

    def test_a_truncated_object_is_invalid(
        self, bucket: Any, write_raster: WriteRaster, ramp: Ramp
    ) -> None:
        data = Path(write_raster("a.tif", ramp(3, 300, 170), descriptions=NAMES)).read_bytes()
        bucket.put_object(Key="cut.tif", Body=data[: len(data) // 2])
        error = refused(["s3://predictors/cut.tif"])
        assert isinstance(error, InvalidInput)

    def test_a_server_that_does_not_answer_is_transient(
        self, bucket: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        assert isinstance(refused(["s3://predictors/a.tif"]), Transient)
