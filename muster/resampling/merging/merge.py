"""Many datasets on one grid become one table: a row a cell, a column a dataset.

The grid is worked through by bands of rows, so that no raster is ever whole in memory; what comes
out does not depend on how high the bands were.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import deque
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from muster.errors import ConfigError, InvalidInput, MissingInput
from muster.model.step import StepContext
from muster.raster.gdal import gdal_environment
from muster.raster.grid import Grid, Window, check_same_grid
from muster.raster.nodata import find_valid, stored_nodata
from muster.raster.windows import plan_memory
from muster.resampling.config.merge_cells import CELL_COLUMNS, Cells, Counts
from muster.resampling.layer import TILE_PX, Layer
from muster.resampling.merging.merge_parquet import write_parquet
from muster.resampling.stores.read import open_layer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from muster.raster.windows import MemoryPlan
    from muster.resampling.layer import LayerReader
    from muster.resampling.merging.merge_table import MergeLoad
    from muster.store.database import Database

_BLOCK_PX = 512
"""Side of our COGs' blocks: reading fewer rows at once decodes a block more than once."""

_CELL_BYTES = 64
"""Of a cell, beside its values: its place and coordinates, and what is sorted out of them."""


def merge_layers(
    *,
    layers: list[dict[str, Any]],
    incomplete: str = "drop",
    parquet: Path | None = None,
    table: str | None = None,
    key: str = "merge",
    fingerprint: str = "",
    overwrite: bool = False,
    context: StepContext = StepContext(),  # noqa: B008 - frozen
) -> dict[str, Any]:
    """Merge datasets on one grid into a Parquet file, a table in Postgres, or both.

    Parameters
    ----------
    layers : list of dict
        The datasets, in the order of their columns: :class:`muster.resampling.layer.Layer` as JSON
        has it.
    incomplete : {"drop", "keep"}
        What becomes of cells where a dataset has no value.  Cells without any are never kept.
    parquet : Path, optional
        The file: row_idx, col_idx (int32, from 0), x, y (float64, centres), and a column a dataset
        of its own type, null where it has no value.  The same datasets give the same bytes.
    table : str, optional
        Table in the schema ``resampled``, of the same columns, keyed by row_idx and col_idx.
    key : str
        How the merge is called, in the file and in the store.
    fingerprint : str
        Of all that the merge is made from; a table of the same fingerprint is left as it is.
    overwrite : bool
        Whether to load a table of the same fingerprint, too.
    context : StepContext
        Threads and memory.

    Returns
    -------
    dict
        ``rows``; ``cells`` of the grid; ``complete`` and ``incomplete`` cells; ``bytes`` of the
        file; name of the ``table``.

    Raises
    ------
    ConfigError
        When a dataset is called as one of the other columns, or there is nothing to write to.
    InvalidInput
        When the datasets lie on different grids.
    MissingInput
        When a dataset is not there.
    Transient
        When there is no space, or the network failed.
    """
    merged = [Layer.model_validate(layer) for layer in layers]
    if parquet is None and table is None:
        raise ConfigError("a merge needs a file or a table", where=key)
    if incomplete not in ("drop", "keep"):
        raise ConfigError("unknown incomplete", where=key, got=incomplete, expected="drop or keep")
    check_columns(merged, key)
    grid = check_grids(merged)
    memory = plan_memory(context.memory_mib)
    db = _open_database(merged, table)
    said = {
        "key": key,
        "fingerprint": fingerprint or _fingerprint(merged, incomplete),
        "incomplete": incomplete,
    }
    windows = list(plan_bands(grid, merged, memory))
    facts: dict[str, Any] = {"cells": grid.height * grid.width}
    with gdal_environment(context.threads, memory.cache_mib), contextlib.ExitStack() as stack:
        load = None
        if table is not None and db is not None:
            stands = merged[0].model_copy(
                update={"key": key, "fingerprint": said["fingerprint"], "table": table}
            )
            load = stack.enter_context(_open_load(db, stands, merged, windows, again=overwrite))
            facts["table"] = table
            if load.done is not None and parquet is None:
                return {**facts, **asdict(load.done)}
        readers = [stack.enter_context(_reader(layer, db)) for layer in merged]
        rows = read_height(grid, merged, memory)
        merging = Merging(merged, readers, grid, rows=rows, keep=incomplete == "keep")
        cells = _read_all(merging, windows, load, context)
        if parquet is not None:
            facts["bytes"] = write_parquet(parquet, merged, grid, cells, said)
        else:
            deque(cells, maxlen=0)
        if load is not None:
            load.finish(merging.counts)
    return {**facts, **asdict(merging.counts)}


def check_columns(layers: Sequence[Layer], where: object) -> None:
    """Refuse datasets that cannot be the columns of one table.

    Raises
    ------
    ConfigError
        When there are none, two of one name, or one is called as another column.
    """
    names = [layer.dataset.name for layer in layers]
    if not names:
        raise ConfigError("a merge needs at least one dataset", where=where)
    # Postgres tells upper from lower case where names are quoted, and people do not.
    clash = sorted({name for name in names if name.lower() in CELL_COLUMNS})
    if clash:
        raise ConfigError(
            "a dataset is called as a column of every merged table",
            where=where,
            got=", ".join(clash),
            expected=f"none of {', '.join(CELL_COLUMNS)}",
            do="call the dataset otherwise, or leave it out of merge.datasets",
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            "two columns would have one name",
            where=where,
            got=", ".join(twice),
            do="merge each dataset once",
        )


def check_grids(layers: Sequence[Layer]) -> Grid:
    """Return the grid that all layers lie on.

    Raises
    ------
    InvalidInput
        When one lies on another.
    """
    first, *others = layers
    grid = first.grid.to_grid()
    for layer in others:
        _check_grid(grid, layer.grid.to_grid(), layer.key, first.key)
    return grid


def plan_bands(grid: Grid, layers: Sequence[Layer], memory: MemoryPlan) -> Iterator[Window]:
    """Decide on the windows that a merge works through: whole rows, or pieces of one.

    Parameters
    ----------
    grid : Grid
        Of all layers.
    layers : sequence of Layer
        Of which a cell has a value each.
    memory : MemoryPlan
        What the arrays of one window may take.

    Returns
    -------
    iterator of Window
        In such an order that their cells, one after the other, are those of the grid row by row.
    """
    # A value picked from what is read, with a flag for either; the other half is for reading.
    cell_bytes = _CELL_BYTES + sum(np.dtype(layer.dtype).itemsize + 3 for layer in layers)
    most = memory.pixels(2 * cell_bytes)
    height = _even_height(most // grid.width, TILE_PX)
    width = grid.width if height > 1 else min(grid.width, most)
    for row in range(0, grid.height, height):
        for col in range(0, grid.width, width):
            yield Window(row, col, min(height, grid.height - row), min(width, grid.width - col))


def read_height(grid: Grid, layers: Sequence[Layer], memory: MemoryPlan) -> int:
    """Decide how many whole rows are read at once, of which the windows are then cut.

    What lies in blocks of many rows would else be decoded for every window anew.
    """
    row_bytes = grid.width * sum(np.dtype(layer.dtype).itemsize for layer in layers)
    return _even_height(memory.pixels(2 * row_bytes), _BLOCK_PX)


def _even_height(most: int, cap: int) -> int:
    """Return a power of two, so that windows and what is read begin where blocks do."""
    return 1 << (max(1, min(most, cap)).bit_length() - 1)


class Merging:
    """The cells of many layers, window by window.

    Parameters
    ----------
    layers : sequence of Layer
        In the order of their columns.
    readers : sequence of LayerReader
        One each, open.
    grid : Grid
        Of all.
    rows : int
        How many are read at once.
    keep : bool
        Whether cells are kept in which a layer has no value.

    Raises
    ------
    InvalidInput
        When a reader's grid is not what its layer says.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        readers: Sequence[LayerReader],
        grid: Grid,
        *,
        rows: int = 1,
        keep: bool,
    ) -> None:
        for layer, reader in zip(layers, readers, strict=True):
            _check_grid(grid, reader.grid, layer.key, "the target grid")
        self.counts = Counts()
        self._readers = tuple(readers)
        self._nodata = [stored_nodata(layer.nodata, layer.dtype) for layer in layers]
        self._dtypes = [layer.dtype for layer in layers]
        self._grid = grid
        self._keep = keep
        self._rows = rows
        self._band: Window | None = None
        self._stored: list[np.ndarray[Any, Any]] = []

    def read_window(self, window: Window) -> Cells:
        """Read the cells of a window that are kept, and count what there is."""
        stored = self._read(window)
        valid = [find_valid(s, nodata) for s, nodata in zip(stored, self._nodata, strict=True)]
        complete = np.logical_and.reduce(valid)
        some = np.logical_or.reduce(valid)
        count = int(np.count_nonzero(complete))
        self.counts.complete += count
        self.counts.incomplete += int(np.count_nonzero(some)) - count
        kept = np.flatnonzero(some if self._keep else complete)
        self.counts.rows += kept.size
        row = (kept // window.width + window.row).astype(np.int32)
        col = (kept % window.width + window.col).astype(np.int32)
        x, y = self._centres(row, col)
        return Cells(
            row,
            col,
            x,
            y,
            tuple(values.reshape(-1)[kept] for values in stored),
            tuple(there.reshape(-1)[kept] for there in valid),
        )

    def _read(self, window: Window) -> list[np.ndarray[Any, Any]]:
        """Return (row, col) of each layer, cut from whole rows where those are read."""
        first = window.row // self._rows * self._rows
        if self._rows <= window.height or window.row + window.height > first + self._rows:
            return self._read_all(window)
        if self._band is None or self._band.row != first:
            self._stored.clear()  # before the next is read: both would not fit
            height = min(self._rows, self._grid.height - first)
            self._band = Window(first, 0, height, self._grid.width)
            self._stored = self._read_all(self._band)
        rows = slice(window.row - first, window.row - first + window.height)
        cols = slice(window.col, window.col + window.width)
        return [values[rows, cols] for values in self._stored]

    def _read_all(self, window: Window) -> list[np.ndarray[Any, Any]]:
        return [
            np.asarray(reader.read(window)).astype(dtype, copy=False)
            for reader, dtype in zip(self._readers, self._dtypes, strict=True)
        ]

    def _centres(self, row: Any, col: Any) -> tuple[Any, Any]:
        t = self._grid.transform
        of_row, of_col = row + 0.5, col + 0.5
        x = t.a * of_col + t.c
        y = t.e * of_row + t.f
        if t.b or t.d:
            x += t.b * of_row
            y += t.d * of_col
        return x, y


@contextlib.contextmanager
def _reader(layer: Layer, db: Database | None) -> Iterator[LayerReader]:
    with contextlib.ExitStack() as stack:
        try:
            reader = stack.enter_context(open_layer(layer, db))
        except MissingInput as error:
            raise MissingInput(
                "a dataset of the merge is not there",
                where=layer.key,
                got=error,
                do="resample it first, or leave it out of merge.datasets",
            ) from error
        yield reader


def _check_grid(grid: Grid, other: Grid, key: str, as_what: str) -> None:
    problems = check_same_grid(grid, other)
    if problems:
        raise InvalidInput(
            f"datasets to merge lie on different grids ({', '.join(problems)})",
            where=key,
            got=other.describe(),
            expected=f"{grid.describe()}, as {as_what}",
            do="resample all datasets to one grid",
        )


def _open_database(layers: Sequence[Layer], table: str | None) -> Database | None:
    if table is None and all(layer.cog or layer.registered for layer in layers):
        return None
    from muster.store.database import Database

    return Database.from_environment()


@contextlib.contextmanager
def _open_load(
    db: Database, merge: Layer, layers: Sequence[Layer], windows: Sequence[Window], *, again: bool
) -> Iterator[MergeLoad]:
    # Who writes a file only need not have Postgres's driver.
    from muster.resampling.merging.merge_table import open_merge_load

    with open_merge_load(db, merge, layers, windows, again=again) as load:
        yield load


def _read_all(
    merging: Merging, windows: Sequence[Window], load: MergeLoad | None, context: StepContext
) -> Iterator[Cells]:
    for number, window in enumerate(windows, start=1):
        cells = merging.read_window(window)
        if load is not None:
            load.write(window, cells)
        yield cells
        context.progress(number / len(windows), f"band {number} of {len(windows)}")


def _fingerprint(layers: Sequence[Layer], incomplete: str) -> str:
    parts = [incomplete, *(f"{layer.dataset.name}={layer.fingerprint}" for layer in layers)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
