"""Rows: a table of a dataset's own with a line a cell that has a value, for whoever speaks SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from psycopg2 import sql

from muster.errors import ConfigError
from muster.resampling.stores.binary_copy import copy_in, empty_rows, row_dtype
from muster.store.row_tables import SCHEMA, check_may_replace, render_comment, table_identifier

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg2.extensions import cursor as Cursor

    from muster.raster.grid import Window
    from muster.raster.nodata import BoolArray
    from muster.resampling.layer import Layer
    from muster.store.loads import LoadRecord

VALUE_TYPES = {
    "uint8": ("smallint", "i2"),
    "int16": ("smallint", "i2"),
    "uint16": ("integer", "i4"),
    "int32": ("integer", "i4"),
    "uint32": ("bigint", "i8"),
    "float32": ("real", "f4"),
    "float64": ("double precision", "f8"),
}
"""Type of a layer → the least type of Postgres that holds it, and NumPy's name of that."""

_MOST_PIXELS = 1 << 17
"""Of a piece that is sent at once: its rows take some 6 MiB."""


class RowTable:
    """How the rows of a layer are written.

    Parameters
    ----------
    layer : Layer
        With the name of its table.

    Raises
    ------
    ConfigError
        When it has none.
    """

    def __init__(self, layer: Layer) -> None:
        if layer.table is None:
            raise ConfigError("a dataset of rows has no table", where=f"dataset {layer.key}")
        self.place = layer.table
        self._layer = layer
        self._transform = layer.grid.transform
        self._sql_type, kind = VALUE_TYPES[layer.dtype]
        self._dtype = row_dtype(
            [("row_idx", "i4"), ("col_idx", "i4"), ("x", "f8"), ("y", "f8"), ("value", kind)]
        )

    def check(self, cursor: Cursor) -> None:
        """Refuse a table of that name that no load of the dataset has made."""
        check_may_replace(cursor, self.place, self._layer.key)

    def begin(self, cursor: Cursor, load: LoadRecord) -> None:
        """Make the staging table, without an index, as every row would have to go through it."""
        layer, grid = self._layer, self._layer.grid
        table = table_identifier(load.staging or "")
        cursor.execute(
            sql.SQL(
                "CREATE TABLE {} (row_idx integer NOT NULL, col_idx integer NOT NULL,"
                " x double precision NOT NULL, y double precision NOT NULL, value {} NOT NULL)"
            ).format(table, sql.SQL(self._sql_type))
        )
        a, b, c, d, e, f = grid.transform
        details = (
            f"{layer.dataset.description or layer.dataset.name}"
            f"{f' in {layer.dataset.unit}' if layer.dataset.unit else ''}; x, y: centre of the cell"
            f"\ngrid: {grid.height} rows x {grid.width} columns, transform"
            f" ({a}, {b}, {c}, {d}, {e}, {f}), {grid.crs}\nfingerprint: {layer.fingerprint}"
        )
        cursor.execute(
            sql.SQL("COMMENT ON TABLE {} IS {}").format(
                table, sql.Literal(render_comment(load.id, layer.key, details))
            )
        )

    def copy(
        self, cursor: Cursor, load: LoadRecord, window: Window, values: Any, valid: BoolArray
    ) -> None:
        """Bring the cells of a window that have a value: values, valid (row, col)."""
        copy_in(cursor, table_identifier(load.staging or ""), self._pieces(window, values, valid))

    def index(self, cursor: Cursor, load: LoadRecord) -> None:
        """Make the key of the staging table, unless it is there, and let Postgres look at it."""
        table = table_identifier(load.staging or "")
        # A name that no other table's key has: it stays when the table is renamed.
        key = f"key:{load.id}"
        cursor.execute(
            "SELECT 1 FROM pg_indexes WHERE schemaname = %s AND tablename = %s",
            (SCHEMA, load.staging),
        )
        if cursor.fetchone() is not None:
            return
        cursor.execute(
            sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} PRIMARY KEY (row_idx, col_idx)").format(
                table, sql.Identifier(key)
            )
        )
        cursor.execute(sql.SQL("ANALYZE {}").format(table))

    def _pieces(
        self, window: Window, values: np.ndarray[Any, Any], valid: BoolArray
    ) -> Iterator[bytes]:
        a, b, c, d, e, f = self._transform
        step = max(1, _MOST_PIXELS // window.width)
        buffer = empty_rows(self._dtype, min(step, window.height) * window.width)
        for first in range(0, window.height, step):
            part = slice(first, first + step)
            row, col = np.nonzero(valid[part])
            rows = buffer[: len(row)]
            rows["value"] = values[part][row, col]
            row += window.row + first
            col += window.col
            rows["row_idx"] = row
            rows["col_idx"] = col
            rows["x"] = a * (col + 0.5) + b * (row + 0.5) + c
            rows["y"] = d * (col + 0.5) + e * (row + 0.5) + f
            yield rows.tobytes()
