"""A tile: up to 256 × 256 cells as bytes, small and quick to make.

The bytes of the values are put in order of their significance, all first bytes before all second
ones, as neighbours differ little in the upper ones; zstd then finds what repeats.  The result is
one zstd frame of little-endian values, row by row.  A tile without any value has no bytes at all:
it is there, so that what is lost is told from what is empty.
"""

from __future__ import annotations

import zlib
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from muster.errors import InvalidInput

if TYPE_CHECKING:
    from muster.raster.grid import Window

_LEVEL = 1


def encode_tile(values: np.ndarray[Any, Any], nodata: float) -> bytes:
    """Compress a tile.

    Parameters
    ----------
    values : ndarray, (row, col)
        Of any integer or floating-point type.
    nodata : float
        What stands for no value; NaN for NaN, or for none where the values are integers.

    Returns
    -------
    bytes
        Empty where all cells are nodata.
    """
    if _is_empty(values, nodata):
        return b""
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    shuffled = np.ascontiguousarray(little.view(np.uint8).reshape(-1, little.itemsize).T)
    compressed: bytes = _codec().compress(shuffled, asbytes=True)
    return compressed


def decode_tile(
    data: bytes | memoryview, shape: tuple[int, int], dtype: str, nodata: float
) -> np.ndarray[Any, Any]:
    """Undo :func:`encode_tile`.

    Parameters
    ----------
    data : bytes
        The tile.
    shape : tuple of int
        (rows, columns).
    dtype : str
        Of the values.
    nodata : float
        Fills a tile without bytes.

    Returns
    -------
    ndarray of dtype, (row, col)
        Equal to the last bit to what was encoded; may be read-only.

    Raises
    ------
    InvalidInput
        When these are not the bytes of such a tile.
    """
    kind = np.dtype(dtype)
    if not len(data):
        return np.full(shape, nodata, kind)
    size = shape[0] * shape[1] * kind.itemsize
    try:
        raw = _codec().decompress(data, size, asbytes=True)
    except OSError as error:
        raise InvalidInput("the bytes of a tile cannot be decompressed", got=error) from error
    shuffled = np.frombuffer(raw, np.uint8).reshape(kind.itemsize, -1)
    little = np.ascontiguousarray(shuffled.T).view(kind.newbyteorder("<"))
    return little.reshape(shape).astype(kind, copy=False)


def checksum(data: bytes | memoryview) -> int:
    """Return the CRC-32 of a tile's bytes, as they are stored."""
    return zlib.crc32(data)


def check_tile(dataset: str, place: tuple[int, int], data: bytes | memoryview, told: int) -> None:
    """Make sure that a tile's bytes are those that were stored.

    Parameters
    ----------
    dataset : str
        Key of the dataset.
    place : tuple of int
        (tile row, tile column).
    told : int
        The checksum that was stored with them.

    Raises
    ------
    InvalidInput
        When they are not.
    """
    found = checksum(data)
    if found != told:
        raise InvalidInput(
            "a tile is not as it was stored",
            where=f"dataset {dataset}, tile row {place[0]}, tile column {place[1]}",
            got=f"checksum {found:08x} of {len(data)} bytes",
            expected=f"{told:08x}",
            do="run resampling of this dataset again with overwrite, and check the database's disk",
        )


def tiles_of(window: Window, tile_px: int) -> list[tuple[int, int, slice, slice]]:
    """List the tiles that a window touches.

    Returns
    -------
    list of (int, int, slice, slice)
        Tile row, tile column, and which rows and columns of the window's array lie in it.
    """
    return [
        (tile_row, tile_col, rows, cols)
        for tile_row, rows in _cut(window.row, window.height, tile_px)
        for tile_col, cols in _cut(window.col, window.width, tile_px)
    ]


def _cut(start: int, length: int, tile_px: int) -> list[tuple[int, slice]]:
    stop = start + length
    return [
        (n, slice(max(n * tile_px, start) - start, min((n + 1) * tile_px, stop) - start))
        for n in range(start // tile_px, -(-stop // tile_px))
    ]


def _is_empty(values: np.ndarray[Any, Any], nodata: float) -> bool:
    # Most tiles show it by their first cell.
    first = values[0, 0]
    if np.isnan(nodata):
        return bool(np.isnan(first) and np.isnan(values).all())
    return bool(first == nodata and (values == nodata).all())


@cache
def _codec() -> Any:
    import pyarrow as pa

    return pa.Codec("zstd", compression_level=_LEVEL)
