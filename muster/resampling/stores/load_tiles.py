"""Tiles: 256 × 256 cells compressed to one value of a table, the smallest and quickest store."""

from __future__ import annotations

import os
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from psycopg2 import sql

from muster.resampling.layer import TILE_PX
from muster.resampling.stores.binary_copy import copy_in
from muster.resampling.stores.tiles import checksum, encode_tile, tiles_of
from muster.store.datasets import TILE_PLACE

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from psycopg2.extensions import cursor as Cursor

    from muster.raster.grid import Window
    from muster.raster.nodata import BoolArray
    from muster.resampling.layer import Layer
    from muster.store.loads import LoadRecord

_TILE = sql.SQL("tile (load, tile_row, tile_col, height, width, checksum, data)")
_FRONT = struct.Struct(">h iq ii ii ii ii iq i")
"""A row of binary COPY up to its last field's bytes: number of fields, then length and value."""

_MOST_THREADS = 4
"""More are no quicker: Postgres takes the tiles of a load one by one."""


class Tiles:
    """How the tiles of a layer are written.

    Parameters
    ----------
    layer : Layer
        Any.
    """

    place = TILE_PLACE

    def __init__(self, layer: Layer) -> None:
        self._nodata = layer.nodata_value

    def check(self, cursor: Cursor) -> None:
        """Refuse nothing: tiles of all datasets lie in one table."""

    def begin(self, cursor: Cursor, load: LoadRecord) -> None:
        """Make nothing: a load's tiles are seen by nobody before it is done."""

    def index(self, cursor: Cursor, load: LoadRecord) -> None:
        """Make nothing: the table's key is all that is looked up."""

    def copy(
        self, cursor: Cursor, load: LoadRecord, window: Window, values: Any, valid: BoolArray
    ) -> None:
        """Bring the tiles of a window: values (row, col); compressed by threads, sent by one."""
        copy_in(cursor, _TILE, self._rows(load.id, window, values))

    def _rows(self, load: int, window: Window, values: np.ndarray[Any, Any]) -> Iterator[bytes]:
        def encode(tile: tuple[int, int, slice, slice]) -> bytes:
            tile_row, tile_col, rows, cols = tile
            part = values[rows, cols]
            data = encode_tile(part, self._nodata)
            height, width = part.shape
            front = _FRONT.pack(
                7, 8, load, 4, tile_row, 4, tile_col, 4, height, 4, width, 8, checksum(data),
                len(data),
            )  # fmt: skip
            return front + data

        tiles = tiles_of(window, TILE_PX)
        threads = min(_MOST_THREADS, len(os.sched_getaffinity(0)), len(tiles))
        if threads == 1:
            yield from map(encode, tiles)
            return
        with ThreadPoolExecutor(threads, "muster-tiles") as pool:
            yield from pool.map(encode, tiles)
