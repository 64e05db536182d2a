"""A tile: what goes in comes out to the last bit, and what was damaged is not given out."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from muster.errors import InvalidInput
from muster.raster.grid import Window
from muster.resampling.stores.tiles import check_tile, checksum, decode_tile, encode_tile, tiles_of

DTYPES = ("uint8", "int16", "uint16", "int32", "uint32", "float32", "float64")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(256, 256), (1, 1), (3, 256), (256, 7), (5, 11)])
def test_a_tile_comes_back_to_the_last_bit(dtype: str, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(7)
    raw = rng.bytes(shape[0] * shape[1] * np.dtype(dtype).itemsize)
    values = np.frombuffer(raw, dtype).reshape(shape)
    found = decode_tile(encode_tile(values, float("nan")), shape, dtype, float("nan"))
    assert (found.dtype, found.shape) == (values.dtype, shape)
    assert found.tobytes() == raw


def test_a_tile_of_a_part_of_an_array_is_that_part() -> None:
    whole = np.arange(600 * 700, dtype="float32").reshape(600, 700)
    part = whole[256:512, 512:700]
    np.testing.assert_array_equal(
        decode_tile(encode_tile(part, float("nan")), part.shape, "float32", float("nan")), part
    )


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("float32", float("nan")), ("float64", -9999.0), ("uint8", 255.0)]
)
def test_a_tile_without_any_value_has_no_bytes(dtype: str, nodata: float) -> None:
    values = np.full((256, 256), nodata, dtype)
    assert encode_tile(values, nodata) == b""
    np.testing.assert_array_equal(decode_tile(b"", (256, 256), dtype, nodata), values)
    values[-1, -1] = 3
    assert encode_tile(values, nodata)


def test_integers_without_nodata_are_never_empty() -> None:
    assert encode_tile(np.zeros((4, 4), "int16"), float("nan"))


def test_bytes_in_their_order_of_significance_become_smaller() -> None:
    row, col = np.mgrid[:256, :256]
    smooth = (np.sin(row / 40) * np.cos(col / 60) * 1000).astype("float32")
    plain = pa.Codec("zstd", compression_level=1).compress(smooth.tobytes(), asbytes=True)
    assert len(encode_tile(smooth, float("nan"))) < 0.9 * len(plain)


def test_a_wrong_checksum_says_which_tile_and_what_to_do() -> None:
    data = encode_tile(np.ones((4, 4), "float32"), float("nan"))
    check_tile("elevation", (3, 5), data, checksum(data))
    with pytest.raises(InvalidInput) as caught:
        check_tile("elevation", (3, 5), data[:-1] + b"\xff", checksum(data))
    for part in ("dataset elevation", "tile row 3", "tile column 5", f"{checksum(data):08x}",
                 "again with overwrite"):  # fmt: skip
        assert part in str(caught.value)


@pytest.mark.parametrize("data", [b"nonsense", encode_tile(np.ones((2, 2), "float32"), 0.0)])
def test_bytes_that_are_no_such_tile_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput, match="tile"):
        decode_tile(data, (4, 4), "float32", 0.0)


def test_a_window_is_cut_at_the_tiles() -> None:
    found = tiles_of(Window(250, 256, 10, 300), 256)
    assert found == [
        (0, 1, slice(0, 6), slice(0, 256)),
        (0, 2, slice(0, 6), slice(256, 300)),
        (1, 1, slice(6, 10), slice(0, 256)),
        (1, 2, slice(6, 10), slice(256, 300)),
    ]
