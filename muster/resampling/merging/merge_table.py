"""Merged datasets as a table in Postgres: whole or not seen at all, and taken up after a crash.

A merge is loaded as a dataset's rows are (:mod:`muster.store.loads`): alone, into a table beside,
with a ledger of windows; but it is no dataset, and is not recorded as one.  What is known of it is
in its table's comment.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from psycopg2 import sql

from muster.errors import ConfigError, SoftwareError
from muster.resampling.config.merge_cells import CELL_COLUMNS, Counts
from muster.resampling.stores.binary_copy import copy_in, empty_rows, row_dtype
from muster.resampling.stores.load import LOCK_WAIT_S, open_loader
from muster.resampling.stores.load_rows import VALUE_TYPES, RowTable
from muster.store.loads import switch_load
from muster.store.row_tables import SCHEMA, render_comment, table_identifier

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from psycopg2.extensions import cursor as Cursor

    from muster.raster.grid import Window
    from muster.resampling.config.merge_cells import Cells
    from muster.resampling.layer import Layer
    from muster.resampling.stores.load import Loader
    from muster.store.database import Database
    from muster.store.loads import LoadRecord

_LONGEST_NAME = 63
_MOST_COLUMNS = 1600
_PIECE_BYTES = 8 << 20
"""Of rows that are sent at once."""

_COUNTS = "counts: "


class MergeLoad:
    """A load of merged datasets into one table.

    Attributes
    ----------
    done : Counts or None
        Of the table, where one of the same fingerprint is there already.
    """

    def __init__(self, loader: Loader, table: _MergedTable) -> None:
        self.done = table.done
        self._loader = loader
        self._table = table
        self._loaded = set(loader.ledger)

    def write(self, window: Window, cells: Cells) -> None:
        """Load the cells of a window, unless they have been loaded.

        Raises
        ------
        Superseded
            When another process has taken the load over.
        StoreUnavailable
            When Postgres does not answer, or has no space left.
        """
        if self._loader.record is not None and window not in self._loaded:
            self._loader.write(window, len(cells.row), cells)
            self._loaded.add(window)

    def finish(self, counts: Counts) -> None:
        """Let the table take effect in the place of what was there.

        Raises
        ------
        SoftwareError
            When windows are missing.
        InvalidInput
            When something depends on the table that is to be replaced.
        Transient
            When somebody uses for very long what is to be replaced.
        """
        if self._loader.record is not None:
            self._loader.finish(partial(self._table.switch, counts=counts))
            self.done = counts


@contextmanager
def open_merge_load(
    db: Database,
    merged: Layer,
    columns: Sequence[Layer],
    windows: Sequence[Window],
    *,
    lock_wait_s: float = LOCK_WAIT_S,
    again: bool = False,
) -> Iterator[MergeLoad]:
    """Load merged datasets, alone.

    Parameters
    ----------
    merged : Layer
        Stands for the merge: its key, grid, table and fingerprint.
    columns : sequence of Layer
        In their order.
    windows : sequence of Window
        In which it is going to be written.  What somebody has left who wrote in others is dropped.
    lock_wait_s : float
        How long to wait for another process that loads the same.
    again : bool
        Whether to load a table that is there already, as
        :func:`muster.resampling.stores.load.open_load` does.

    Raises
    ------
    ConfigError
        When the columns cannot be those of a table.
    InvalidInput
        When there is a table of that name that no load of this merge has made.
    Transient
        When another process still loads it after ``lock_wait_s``.
    """
    table = _MergedTable(merged, columns)
    with open_loader(
        db,
        merged.to_row(),
        "rows",
        table,
        table.find_done,
        windows=windows,
        lock_wait_s=lock_wait_s,
        again=again,
    ) as loader:
        yield MergeLoad(loader, table)


class _MergedTable(RowTable):
    """How the rows of a merge are written: as those of a dataset, with more columns."""

    def __init__(self, merged: Layer, columns: Sequence[Layer]) -> None:
        super().__init__(merged)
        self.done: Counts | None = None
        self._columns = tuple(columns)
        _check_names([layer.dataset.name for layer in columns], self.place)
        kinds = [VALUE_TYPES[layer.dtype][1] for layer in columns]
        fields = [(f"v{number}", kind) for number, kind in enumerate(kinds)]
        places = list(zip(CELL_COLUMNS, ("i4", "i4", "f8", "f8"), strict=True))
        self._dtype = row_dtype([*places, *fields])
        members = dict(self._dtype.fields or {})
        starts = [members[name][1] for name, _ in fields]
        self._bytes = [
            slice(start, start + np.dtype(kind).itemsize)
            for start, kind in zip(starts, kinds, strict=True)
        ]

    def begin(self, cursor: Cursor, load: LoadRecord) -> None:
        """Make the staging table, without an index, as every row would have to go through it."""
        table = table_identifier(load.staging or "")
        values = [
            sql.SQL("{} {}").format(
                sql.Identifier(layer.dataset.name), sql.SQL(VALUE_TYPES[layer.dtype][0])
            )
            for layer in self._columns
        ]
        cursor.execute(
            sql.SQL(
                "CREATE TABLE {} (row_idx integer NOT NULL, col_idx integer NOT NULL,"
                " x double precision NOT NULL, y double precision NOT NULL, {})"
            ).format(table, sql.SQL(", ").join(values))
        )
        for layer in self._columns:
            unit = f" in {layer.dataset.unit}" if layer.dataset.unit else ""
            said = f"{layer.dataset.description or layer.dataset.name}{unit}, {layer.key}"
            cursor.execute(
                sql.SQL("COMMENT ON COLUMN {}.{} IS {}").format(
                    table, sql.Identifier(layer.dataset.name), sql.Literal(said)
                )
            )
        self._comment(cursor, load, f"fingerprint: {self._layer.fingerprint}")

    def copy(self, cursor: Cursor, load: LoadRecord, window: Window, *values: Any) -> None:
        """Bring the cells of a window."""
        copy_in(cursor, table_identifier(load.staging or ""), self.encode(*values))

    def encode(self, cells: Cells) -> Iterator[bytes]:
        """Encode cells as binary COPY has them, by pieces."""
        step = max(1, _PIECE_BYTES // self._dtype.itemsize)
        for first in range(0, len(cells.row), step):
            yield self._encode_piece(cells, slice(first, first + step))

    def find_done(self, cursor: Cursor) -> bool:
        """Find what is counted of the table, where it is there and of this fingerprint."""
        cursor.execute(
            "SELECT obj_description(to_regclass(%s), 'pg_class')",
            (table_identifier(self.place).as_string(cursor),),
        )
        (comment,) = cursor.fetchone() or (None,)
        lines = (comment or "").splitlines()
        counted = [line.removeprefix(_COUNTS) for line in lines if line.startswith(_COUNTS)]
        if counted and f"fingerprint: {self._layer.fingerprint}" in lines:
            self.done = Counts(**json.loads(counted[0]))
        return self.done is not None

    def switch(self, cursor: Cursor, load: LoadRecord, counts: Counts) -> None:
        """Put a table that is whole into the place of what was there; one transaction."""

        def record() -> tuple[()]:
            self._check_rows(cursor, load, counts)
            fingerprint = f"fingerprint: {self._layer.fingerprint}"
            self._comment(cursor, load, f"{fingerprint}\n{_COUNTS}{json.dumps(asdict(counts))}")
            return ()

        switch_load(cursor, load, self._layer.to_row(), self.place, record)

    def _check_rows(self, cursor: Cursor, load: LoadRecord, counts: Counts) -> None:
        cursor.execute(
            "SELECT coalesce(sum(pixels), 0) FROM load_window WHERE load = %s", (load.id,)
        )
        (rows,) = cursor.fetchone() or (0,)
        if rows != counts.rows:
            raise SoftwareError(
                "the datasets are not those that the load was begun with",
                where=f"{SCHEMA}.{self.place}",
                got=f"{rows} rows in its ledger",
                expected=counts.rows,
            )

    def _comment(self, cursor: Cursor, load: LoadRecord, details: str) -> None:
        cursor.execute(
            sql.SQL("COMMENT ON TABLE {} IS {}").format(
                table_identifier(load.staging or ""),
                sql.Literal(render_comment(load.id, self._layer.key, details)),
            )
        )

    def _encode_piece(self, cells: Cells, part: slice) -> bytes:
        rows = empty_rows(self._dtype, len(cells.row[part]))
        for name in CELL_COLUMNS:
            rows[name] = getattr(cells, name.removesuffix("_idx"))[part]
        # A null has the length -1, and no bytes: those that the structure has for it are left out.
        keep = None
        for number, (values, valid) in enumerate(zip(cells.values, cells.valid, strict=True)):
            name = f"v{number}"
            rows[name] = values[part]
            null = ~valid[part]
            if not null.any():
                continue
            rows[f"{name}_bytes"][null] = -1
            if keep is None:
                keep = np.ones((len(rows), self._dtype.itemsize), np.bool_)
            keep[null, self._bytes[number]] = False
        if keep is None:
            return rows.tobytes()
        flat: np.ndarray[Any, Any] = rows.view(np.uint8).reshape(keep.shape)
        return flat[keep].tobytes()


def _check_names(names: Sequence[str], table: str) -> None:
    long = [name for name in names if len(name.encode()) > _LONGEST_NAME]
    if long:
        raise ConfigError(
            "the name of a column is too long for Postgres",
            where=f"{SCHEMA}.{table}",
            got=", ".join(long),
            expected=f"at most {_LONGEST_NAME} bytes",
            do="give the dataset a shorter name",
        )
    if len(names) + len(CELL_COLUMNS) > _MOST_COLUMNS:
        raise ConfigError(
            "more columns than Postgres allows",
            where=f"{SCHEMA}.{table}",
            got=len(names),
            expected=f"at most {_MOST_COLUMNS - len(CELL_COLUMNS)} datasets",
            do="merge them into several tables, or into a Parquet file",
        )
