"""Loading a dataset into Postgres, window by window, so that a crash costs one window.

Each window's pixels and its line in the ledger are one transaction.  What is loaded lies beside
what is there until it is whole; then it takes its place at once.  How tiles and rows are written
is in :mod:`muster.resampling.stores.load_tiles` and :mod:`muster.resampling.stores.load_rows`.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from muster.errors import ConfigError, SoftwareError
from muster.raster.grid import Window
from muster.raster.nodata import find_valid, stored_nodata
from muster.resampling.layer import TILE_PX
from muster.resampling.stores.load_rows import RowTable
from muster.resampling.stores.load_tiles import Tiles
from muster.store.datasets import drop_load
from muster.store.loads import (
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
    from collections.abc import Callable, Collection, Iterable, Iterator

    from psycopg2.extensions import cursor as Cursor

    from muster.resampling.config.methods import Sink
    from muster.resampling.layer import Layer
    from muster.store.database import Database
    from muster.store.datasets import DatasetRow
    from muster.store.loads import LoadRecord

log = logging.getLogger(__name__)

LOCK_WAIT_S = 600.0


class Destination(Protocol):
    """What windows are brought to; all of it happens in the caller's transactions."""

    place: str

    def check(self, cursor: Cursor) -> None:
        """Refuse, before anything is computed, what would be refused in the end."""

    def begin(self, cursor: Cursor, load: LoadRecord) -> None:
        """Make what the windows go to."""

    def copy(self, cursor: Cursor, load: LoadRecord, window: Window, *values: Any) -> None:
        """Bring what a window holds."""

    def index(self, cursor: Cursor, load: LoadRecord) -> None:
        """Make what a reader needs; may be called again."""


@dataclass
class Loader:
    """A load under way: each window with its line in the ledger, then all of it at once.

    Attributes
    ----------
    db : Database
        The store.
    destination : Destination
        Where to.
    record : LoadRecord or None
        Under our claim; None where nothing is to be loaded, or no more.
    ledger : list of Window
        What was loaded before.
    """

    db: Database
    destination: Any
    record: LoadRecord | None
    ledger: list[Window]

    def write(self, window: Window, count: int, *values: Any) -> None:
        """Load a window of so many pixels, unless its line is in the ledger."""
        if self.record is None:
            raise SoftwareError("the load has ended", where=self.destination.place)
        with unhurried(self.db) as cursor:
            if enter_window(cursor, self.record, window, count):
                self.destination.copy(cursor, self.record, window, *values)

    def finish(self, switch: Callable[[Cursor, LoadRecord], None]) -> None:
        """Make what a reader needs, then let the load take effect; two transactions."""
        if self.record is None:
            return
        with unhurried(self.db) as cursor:
            self.destination.index(cursor, self.record)
        with unhurried(self.db) as cursor:
            switch(cursor, self.record)
        self.record = None


@contextmanager
def open_loader(
    db: Database,
    dataset: DatasetRow,
    sink: str,
    destination: Destination,
    is_done: Callable[[Cursor], bool],
    *,
    windows: Collection[Window] | None = None,
    lock_wait_s: float,
    again: bool,
) -> Iterator[Loader]:
    """Take up a load that was left, or begin one; alone.

    Parameters
    ----------
    is_done : callable
        ``is_done(cursor)``: whether the same has been loaded already.
    windows : collection of Window, optional
        In which it is going to be written: a load that was left in others is dropped.  Any others
        are taken up by default.

    Raises
    ------
    InvalidInput
        When there is a table in the way that no load of this dataset has made.
    Transient
        When another process still loads it after ``lock_wait_s``.
    """
    with load_lock(db, dataset.key, sink, lock_wait_s) as waited:
        loader = Loader(db, destination, None, [])
        with unhurried(db) as cursor:
            destination.check(cursor)
            if (again and not waited) or not is_done(cursor):
                record, fresh = take_load(cursor, dataset, sink)
                loader.ledger = read_ledger(cursor, record)
                if windows is not None and not set(loader.ledger) <= set(windows):
                    drop_load(cursor, record.id, dataset.key, record.staging)
                    record, fresh = take_load(cursor, dataset, sink)
                    loader.ledger = []
                if fresh:
                    destination.begin(cursor, record)
                loader.record = record
        if loader.ledger:
            done = len(loader.ledger)
            log.info("%s of dataset %s: going on after %d windows", sink, dataset.key, done)
        yield loader


class DatasetLoad:
    """A load of one dataset into one store.

    Several threads may write at once, each another window.
    """

    def __init__(self, loader: Loader, layer: Layer, run_id: str | None) -> None:
        self._loader = loader
        self._layer = layer
        self._run_id = run_id
        self._nodata = stored_nodata(layer.nodata, layer.dtype)
        shape = (-(-layer.grid.height // TILE_PX), -(-layer.grid.width // TILE_PX))
        self._loaded = np.zeros(shape, dtype=np.bool_)
        for window in loader.ledger:
            self._loaded[_tile_slices(window)] = True
        self._guard = Lock()

    @property
    def done(self) -> bool:
        """Whether nothing is to be loaded, or all has been."""
        return self._loader.record is None

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
        self._loader.write(window, int(valid.sum()), values, valid)
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
        dataset = self._layer.to_row()

        def switch(cursor: Cursor, load: LoadRecord) -> None:
            place = self._loader.destination.place
            record = partial(record_holding, cursor, load, dataset, place, self._run_id)
            switch_load(cursor, load, dataset, place, record)

        self._loader.finish(switch)

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
    store: Sink,
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
    destination, dataset = _choose_destination(layer, store), layer.to_row()
    with open_loader(
        db,
        dataset,
        store,
        destination,
        lambda cursor: is_loaded(cursor, dataset, store, destination.place),
        lock_wait_s=lock_wait_s,
        again=again,
    ) as loader:
        yield DatasetLoad(loader, layer, run_id)


def _choose_destination(layer: Layer, store: Sink) -> Destination:
    if store == "tiles":
        return Tiles(layer)
    if store == "rows":
        return RowTable(layer)
    raise ConfigError("nothing is loaded into this store", got=store, expected="tiles or rows")


def _tile_slices(window: Window) -> tuple[slice, slice]:
    return (
        slice(window.row // TILE_PX, -(-(window.row + window.height) // TILE_PX)),
        slice(window.col // TILE_PX, -(-(window.col + window.width) // TILE_PX)),
    )
