"""Reading a layer from tiles or rows of Postgres, each window in one look at the database.

A load may take effect between two windows: each look asks for the pixels of the layer's own
fingerprint, so that a reader sees those or an error that says so, and never those of two loads.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
from psycopg2 import sql
from psycopg2.errors import UndefinedTable

from muster.errors import InvalidInput, MissingInput
from muster.raster.nodata import stored_nodata
from muster.resampling.layer import TILE_PX
from muster.resampling.stores.binary_copy import copy_out, row_dtype
from muster.resampling.stores.load_rows import VALUE_TYPES
from muster.resampling.stores.tiles import check_tile, decode_tile, tiles_of
from muster.store.row_tables import SCHEMA, table_identifier

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg2.extensions import cursor as Cursor

    from muster.errors import MusterError
    from muster.raster.grid import Window
    from muster.resampling.config.methods import Sink
    from muster.resampling.layer import Layer
    from muster.store.database import Database

# The holding is read with the tiles, by one statement: they are of one load, and of this layer.
_TILES = sql.SQL(
    "SELECT t.tile_row, t.tile_col, t.height, t.width, t.checksum, t.data"
    " FROM holding h JOIN tile t ON t.load = h.load"
    " WHERE h.dataset = {dataset} AND h.store = 'tiles' AND h.fingerprint = {fingerprint}"
    " AND t.tile_row BETWEEN {row} AND {row_last} AND t.tile_col BETWEEN {col} AND {col_last}"
)
_FRONT = struct.Struct(">h ii ii ii ii iq i")

_ROWS = sql.SQL(
    "SELECT row_idx, col_idx, value FROM {table} WHERE row_idx BETWEEN {row} AND {row_last}"
    " AND col_idx BETWEEN {col} AND {col_last}"
)


class TileReader:
    """Reads a layer from its tiles.

    Parameters
    ----------
    db : Database
        The store.
    layer : Layer
        What is read.
    """

    def __init__(self, db: Database, layer: Layer) -> None:
        self.grid = layer.grid.to_grid()
        self._db = db
        self._layer = layer

    def read(self, window: Window) -> np.ndarray[Any, Any]:
        """Read a window: (row, col), the layer's dtype and nodata.

        Raises
        ------
        MissingInput
            When the layer has not been loaded, or has been replaced.
        InvalidInput
            When a tile is not as it was stored, or is lost.
        """
        layer = self._layer
        parts = {(row, col): (rows, cols) for row, col, rows, cols in tiles_of(window, TILE_PX)}
        (first, last) = min(parts), max(parts)
        query = _TILES.format(
            dataset=sql.Literal(layer.key),
            fingerprint=sql.Literal(layer.fingerprint),
            row=sql.Literal(first[0]),
            row_last=sql.Literal(last[0]),
            col=sql.Literal(first[1]),
            col_last=sql.Literal(last[1]),
        )
        with self._db.transaction() as cursor:
            found = copy_out(cursor, query)
        values = np.empty((window.height, window.width), layer.dtype)
        for tile_row, tile_col, tile in self._decode(found):
            rows, cols = parts.pop((tile_row, tile_col))
            top = window.row + rows.start - tile_row * TILE_PX
            left = window.col + cols.start - tile_col * TILE_PX
            values[rows, cols] = tile[
                top : top + rows.stop - rows.start, left : left + cols.stop - cols.start
            ]
        if parts:
            raise self._explain_absent(min(parts), len(parts))
        return values

    def _decode(self, found: memoryview) -> Iterator[tuple[int, int, np.ndarray[Any, Any]]]:
        layer = self._layer
        at = 0
        while at < len(found):
            _, _, tile_row, _, tile_col, _, height, _, width, _, told, size = _FRONT.unpack_from(
                found, at
            )
            at += _FRONT.size
            data = found[at : at + size]
            at += size
            check_tile(layer.key, (tile_row, tile_col), data, told)
            tile = decode_tile(data, (height, width), layer.dtype, layer.nodata_value)
            yield tile_row, tile_col, tile

    def _explain_absent(self, place: tuple[int, int], count: int) -> MusterError:
        with self._db.transaction() as cursor:
            held = _read_held(cursor, self._layer, "tiles")
        if held is None or held[0] != self._layer.fingerprint:
            return _not_loaded(self._layer, "tiles", held)
        return InvalidInput(
            "tiles are lost from the store",
            where=f"dataset {self._layer.key}, tile row {place[0]}, tile column {place[1]}",
            got=f"{count} fewer than the window has",
            do="run resampling of this dataset again with overwrite",
        )


class RowReader:
    """Reads a layer from its rows.

    Parameters
    ----------
    db : Database
        The store.
    layer : Layer
        What is read.
    """

    def __init__(self, db: Database, layer: Layer) -> None:
        self.grid = layer.grid.to_grid()
        self._db = db
        self._layer = layer
        self._dtype = row_dtype(
            [("row_idx", "i4"), ("col_idx", "i4"), ("value", VALUE_TYPES[layer.dtype][1])]
        )
        integer = np.dtype(layer.dtype).kind in "iu"
        self._always = integer and stored_nodata(layer.nodata, layer.dtype) is None

    def read(self, window: Window) -> np.ndarray[Any, Any]:
        """Read a window: (row, col), the layer's dtype and nodata.

        Raises
        ------
        MissingInput
            When the layer has not been loaded, or has been replaced.
        InvalidInput
            When rows are lost from a layer that has a value everywhere.
        """
        layer = self._layer
        query = _ROWS.format(
            table=table_identifier(layer.table or ""),
            row=sql.Literal(window.row),
            row_last=sql.Literal(window.row + window.height - 1),
            col=sql.Literal(window.col),
            col_last=sql.Literal(window.col + window.width - 1),
        )
        with self._db.transaction() as cursor:
            self._hold(cursor)
            found = np.frombuffer(copy_out(cursor, query), self._dtype)
        if self._always and len(found) != window.pixels:
            raise InvalidInput(
                "rows are lost from the table",
                where=f"{SCHEMA}.{layer.table} of dataset {layer.key}",
                got=f"{len(found)} rows of a window",
                expected=window.pixels,
                do="run resampling of this dataset again with overwrite",
            )
        values = np.full(
            (window.height, window.width), 0 if self._always else layer.nodata_value, layer.dtype
        )
        values[found["row_idx"] - window.row, found["col_idx"] - window.col] = found["value"]
        return values

    def _hold(self, cursor: Cursor) -> None:
        """Lock the table as any reader does, and then make sure that it is the layer's.

        The other way round, a load could take effect in between.
        """
        try:
            cursor.execute(
                sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(
                    table_identifier(self._layer.table or "")
                )
            )
        except UndefinedTable:
            raise _not_loaded(self._layer, "rows", None) from None
        held = _read_held(cursor, self._layer, "rows")
        if held != (self._layer.fingerprint, self._layer.table):
            raise _not_loaded(self._layer, "rows", held)


def _read_held(cursor: Cursor, layer: Layer, store: Sink) -> tuple[str, str] | None:
    cursor.execute(
        "SELECT fingerprint, place FROM holding WHERE dataset = %s AND store = %s",
        (layer.key, store),
    )
    row = cursor.fetchone()
    return None if row is None else (row[0], row[1])


def _not_loaded(layer: Layer, store: Sink, held: tuple[str, str] | None) -> MissingInput:
    return MissingInput(
        f"the dataset is not in {store}" if held is None else "the dataset has been loaded anew",
        where=f"{store} of dataset {layer.key}",
        got=f"fingerprint {held[0][:12]} in {held[1]}" if held else None,
        expected=f"fingerprint {layer.fingerprint[:12]}",
        do="run resampling of it again" if held is None else "read its layer from the store again",
    )
