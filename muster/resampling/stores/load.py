"""Loading a dataset into Postgres, window by window, so that a crash costs one window.

Each window's pixels and its line in the ledger are one transaction.  What is loaded lies beside
what is there until it is whole; then it takes its place at once.  How tiles and rows are written
is in :mod:`muster.resampling.stores.load_tiles` and :mod:`muster.resampling.stores.load_rows`.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from muster.errors import ConfigError, SoftwareError
from muster.raster.grid import Window
from muster.raster.nodata import find_valid, stored_nodata
from muster.resampling.layer import TILE_PX
from muster.resampling.stores.load_rows import RowSink
from muster.resampling.stores.load_tiles import TileSink
from muster.store.loads import (
    LoadRecord,
    enter_window,
    is_loaded,
    load_lock,
    read_ledger,
    record_holding,
    switch_load,
    take_load,
    unhurried,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from psycopg2.extensions import cursor as Cursor

    from muster.raster.nodata import BoolArray
    from muster.resampling.config.methods import Store
    from muster.resampling.layer import Layer
    from muster.store.database import Database

log = logging.getLogger(__name__)

LOCK_WAIT_S = 600.0


class Sink(Protocol):
    """How a store takes pixels; all of it happens in the caller's transactions."""

    place: str

    def check(self, cursor: Cursor) -> None:
        """Refuse, before anything is computed, what would be refused in the end."""

    def begin(self, cursor: Cursor, load: LoadRecord) -> None:
        """Make what the pixels go to."""

    def copy(
        self, cursor: Cursor, load: LoadRecord, window: Window, values: Any, valid: BoolArray
    ) -> None:
        """Bring the pixels of a window: (row, col), and which of them have a value."""

    def index(self, cursor: Cursor, load: LoadRecord) -> None:
        """Make what a reader needs; may be called again."""


class DatasetLoad:
    """A load of one dataset into one store.

    Attributes
    ----------
    done : bool
        Nothing is to be done: the same fingerprint has been loaded already.

    Notes
    -----
    Several threads may write at once, each another window.
    """

    def __init__(
        self, db: Database, layer: Layer, sink: Sink, load: LoadRecord | None, run_id: str | None
    ) -> None:
        self.done = load is None
        self._db = db
        self._layer = layer
        self._sink = sink
        self._load = load
        self._run_id = run_id
        self._nodata = stored_nodata(layer.nodata, layer.dtype)
        shape = (-(-layer.grid.height // TILE_PX), -(-layer.grid.width // TILE_PX))
        self._loaded = np.zeros(shape, dtype=np.bool_)
        self._guard = Lock()

    def resume(self, ledger: Iterable[Window]) -> None:
        """Take windows for loaded that are in the ledger."""
        for window in ledger:
            self._loaded[_tile_slices(window)] = True

    def missing_windows(self, windows: Iterable[Window]) -> list[Window]:
        """Say what of some windows has not been loaded.

        Parameters
        ----------
        windows : iterable of Window
            As :meth:`write` takes them.

        Returns
        -------
        list of Window
            Those of which nothing has been loaded, as they are; what is left of those that a load
            with other windows has brought a part of; in their order.
        """
        if self.done:
            return []
        return [part for window in windows for part in self._missing(window)]

    def write(self, window: Window, values: np.ndarray[Any, Any]) -> None:
        """Load a window, unless it has been loaded.

        Parameters
        ----------
        window : Window
            Begins and ends at multiples of TILE_PX, or at the grid's edge.
        values : ndarray, (row, col)
            Of the layer's type, nodata filled in.

        Raises
        ------
        SoftwareError
            When window or values do not fit the layer.
        Superseded
            When another process has taken the load over.
        StoreUnavailable
            When Postgres does not answer, or has no space left.
        """
        load = self._open()
        self._check(window, values)
        tiles = _tile_slices(window)
        with self._guard:
            there = self._loaded[tiles]
            if there.all():
                return
            if there.any():
                raise self._misfit("a part of the window has been loaded", window)
        valid = find_valid(values, self._nodata)
        if values.dtype.kind == "f":
            # Whatever no store holds as a value reads alike from all.
            values = np.where(valid, values, values.dtype.type(self._layer.nodata_value))
        with unhurried(self._db) as cursor:
            if enter_window(cursor, load, window, int(valid.sum())):
                self._sink.copy(cursor, load, window, values, valid)
        with self._guard:
            self._loaded[tiles] = True

    def finish(self) -> None:
        """Let the load take effect in the place of what was there, and record where it lies.

        Raises
        ------
        SoftwareError
            When windows are missing.
        InvalidInput
            When there is a table in the way that no load of this dataset has made.
        Transient
            When somebody uses for very long what is to be replaced.
        """
        if self.done:
            return
        load = self._open()
        with unhurried(self._db) as cursor:
            self._sink.index(cursor, load)
        with unhurried(self._db) as cursor:
            dataset, place = self._layer.to_row(), self._sink.place
            record = partial(record_holding, cursor, load, dataset, place, self._run_id)
            switch_load(cursor, load, dataset, place, record)
        self.done = True

    def _open(self) -> LoadRecord:
        if self._load is None or self.done:
            raise SoftwareError("the dataset has been loaded", where=self._layer.key)
        return self._load

    def _missing(self, window: Window) -> Iterator[Window]:
        there = self._loaded[_tile_slices(window)]
        if not there.any():
            yield window
            return
        for tile_row, line in enumerate(there):
            row = window.row + tile_row * TILE_PX
            height = min(TILE_PX, window.row + window.height - row)
            edges = np.flatnonzero(np.diff(np.concatenate(([True], line, [True]))))
            for first, stop in edges.reshape(-1, 2).tolist():
                col = window.col + first * TILE_PX
                end = min(window.col + stop * TILE_PX, window.col + window.width)
                yield Window(row, col, height, end - col)

    def _check(self, window: Window, values: np.ndarray[Any, Any]) -> None:
        grid = self._layer.grid
        for start, length, whole in (
            (window.row, window.height, grid.height),
            (window.col, window.width, grid.width),
        ):
            stop = start + length
            aligned = start % TILE_PX == 0 and (stop % TILE_PX == 0 or stop == whole)
            if not (0 <= start < stop <= whole and aligned):
                raise self._misfit("the window is not made of whole tiles", window)
        if values.shape != (window.height, window.width) or values.dtype != self._layer.dtype:
            raise self._misfit(f"the values are {values.dtype} {values.shape}", window)

    def _misfit(self, what: str, window: Window) -> SoftwareError:
        return SoftwareError(
            what,
            where=f"dataset {self._layer.key}",
            got=window,
            expected=f"{self._layer.dtype}, windows of multiples of {TILE_PX} cells on a grid of "
            f"{self._layer.grid.height} rows × {self._layer.grid.width} columns",
        )


@contextmanager
def open_load(
    db: Database,
    layer: Layer,
    store: Store,
    *,
    run_id: str | None = None,
    lock_wait_s: float = LOCK_WAIT_S,
    again: bool = False,
) -> Iterator[DatasetLoad]:
    """Load a dataset into tiles or rows, alone.

    What a process that ended before :meth:`DatasetLoad.finish` has loaded is taken up where the
    fingerprint is the same, and dropped where it is another.

    Parameters
    ----------
    layer : Layer
        With ``table`` for rows.
    store : {"tiles", "rows"}
        Where to.
    run_id : str, optional
        The run that loads; recorded with the dataset.
    lock_wait_s : float
        How long to wait for another process that loads the same.
    again : bool
        Whether to load what has been loaded, too; but not where another process has just done it,
        nor the windows of a load that was not ended.

    Yields
    ------
    DatasetLoad
        Look at ``done`` first.

    Raises
    ------
    ConfigError
        When the store is none that is loaded, or rows have no table.
    InvalidInput
        When there is a table of that name that no load of this dataset has made.
    Transient
        When another process still loads it after ``lock_wait_s``.
    """
    sink = _choose_sink(layer, store)
    with load_lock(db, layer.key, store, lock_wait_s) as waited:
        ledger: list[Window] = []
        record: LoadRecord | None = None
        with unhurried(db) as cursor:
            sink.check(cursor)
            if (again and not waited) or not is_loaded(cursor, layer.to_row(), store, sink.place):
                record, fresh = take_load(cursor, layer.to_row(), store)
                if fresh:
                    sink.begin(cursor, record)
                ledger = read_ledger(cursor, record)
        load = DatasetLoad(db, layer, sink, record, run_id)
        load.resume(ledger)
        if ledger:
            log.info("%s of dataset %s: going on after %d windows", store, layer.key, len(ledger))
        yield load


def _choose_sink(layer: Layer, store: Store) -> Sink:
    if store == "tiles":
        return TileSink(layer)
    if store == "rows":
        return RowSink(layer)
    raise ConfigError("nothing is loaded into this store", got=store, expected="tiles or rows")


def _tile_slices(window: Window) -> tuple[slice, slice]:
    return (
        slice(window.row // TILE_PX, -(-(window.row + window.height) // TILE_PX)),
        slice(window.col // TILE_PX, -(-(window.col + window.width) // TILE_PX)),
    )
