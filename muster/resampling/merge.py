"""Many datasets on one grid become one table: a row a cell, a column a dataset.

The grid is worked through by bands of rows, so that no raster is ever whole in memory; what comes
out does not depend on how high the bands were.
"""

from __future__ import annotations

import contextlib
import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from muster.errors import ConfigError, InvalidInput, MissingInput
from muster.jobs.step import StepContext
from muster.raster.gdal import gdal_environment
from muster.raster.grid import Grid, Window, check_same_grid
from muster.raster.nodata import find_valid, stored_nodata
from muster.raster.windows import MIB, plan_memory
from muster.resampling.layer import TILE_PX, Layer
from muster.resampling.merge_parquet import write_parquet

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from muster.raster.nodata import BoolArray
    from muster.resampling.layer import LayerReader
    from muster.store.database import Database

CELL_COLUMNS = ("row_idx", "col_idx", "x", "y")
"""Columns that say which cell a row is of; no dataset may be called so."""

_CELL_BYTES = 64
"""Of a cell, beside its values: its place and coordinates, and what is sorted out of them."""


@dataclass(frozen=True)
class Cells:
    """Cells that are kept, in the order of the grid: row by row, each from the left.

    Attributes
    ----------
    row, col : ndarray, (cell,), int32
        From 0.
    x, y : ndarray, (cell,), float64
        Centres, in the CRS's units.
    values : tuple of ndarray, (cell,)
        For each dataset, in its type; anything where it has no value.
    valid : tuple of ndarray, (cell,), bool
        For each dataset, whether it has a value.
    """

    row: np.ndarray[Any, np.dtype[np.int32]]
    col: np.ndarray[Any, np.dtype[np.int32]]
    x: np.ndarray[Any, np.dtype[np.float64]]
    y: np.ndarray[Any, np.dtype[np.float64]]
    values: tuple[np.ndarray[Any, Any], ...]
    valid: tuple[BoolArray, ...]


@dataclass
class Counts:
    """What has been seen.

    Attributes
    ----------
    rows : int
        Rows of the table.
    complete, incomplete : int
        Cells in which all datasets, or some but not all, have a value.
    """

    rows: int = 0
    complete: int = 0
    incomplete: int = 0


def merge_layers(
    *,
    layers: list[dict[str, Any]],
    incomplete: str = "drop",
    parquet: Path | None = None,
    table: str | None = None,
    key: str = "merge",
    fingerprint: str = "",
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
    context : StepContext
        Threads and memory.

    Returns
    -------
    dict
        ``rows``; ``cells`` of the grid; ``complete`` and ``incomplete`` cells; ``bytes`` of the
        file.

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
    facts: dict[str, Any] = {"cells": grid.height * grid.width}
    windows = list(plan_bands(grid, merged, memory.window_mib))
    with gdal_environment(context.threads, memory.cache_mib), contextlib.ExitStack() as stack:
        readers = [stack.enter_context(_reader(layer, db)) for layer in merged]
        merging = Merging(merged, readers, grid, keep=incomplete == "keep")
        if parquet is not None:
            said = {"key": key, "fingerprint": fingerprint, "incomplete": incomplete}
            cells = _report(merging.read(windows), windows, context)
            facts["bytes"] = write_parquet(parquet, merged, grid, cells, said)
    return {"rows": merging.counts.rows, **facts, **_counted(merging.counts)}


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


def plan_bands(grid: Grid, layers: Sequence[Layer], window_mib: int) -> Iterator[Window]:
    """Decide on the windows that a merge works through: whole rows, or pieces of one.

    Parameters
    ----------
    grid : Grid
        Of all layers.
    layers : sequence of Layer
        Of which a cell has a value each.
    window_mib : int
        What the arrays of one window may take.

    Returns
    -------
    iterator of Window
        In such an order that their cells, one after the other, are those of the grid row by row.
    """
    # A value as read, and once more picked from it, with a flag each.
    cell_bytes = _CELL_BYTES + sum(2 * np.dtype(layer.dtype).itemsize + 3 for layer in layers)
    most = max(1, window_mib * MIB // cell_bytes)
    height = min(TILE_PX, max(1, most // grid.width))
    width = grid.width if height > 1 else min(grid.width, most)
    for row in range(0, grid.height, height):
        for col in range(0, grid.width, width):
            yield Window(row, col, min(height, grid.height - row), min(width, grid.width - col))


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
    keep : bool
        Whether cells are kept in which a layer has no value.

    Raises
    ------
    InvalidInput
        When a reader's grid is not what its layer says.
    """

    def __init__(
        self, layers: Sequence[Layer], readers: Sequence[LayerReader], grid: Grid, *, keep: bool
    ) -> None:
        for layer, reader in zip(layers, readers, strict=True):
            _check_grid(grid, reader.grid, layer.key, "the target grid")
        self.counts = Counts()
        self._readers = tuple(readers)
        self._nodata = [stored_nodata(layer.nodata, layer.dtype) for layer in layers]
        self._dtypes = [layer.dtype for layer in layers]
        self._grid = grid
        self._keep = keep

    def read(self, windows: Sequence[Window]) -> Iterator[Cells]:
        """Read the cells that are kept, of one window after the other."""
        for window in windows:
            yield self.read_window(window)

    def read_window(self, window: Window) -> Cells:
        """Read the cells of a window that are kept, and count what there is."""
        stored = [
            np.asarray(reader.read(window)).astype(dtype, copy=False)
            for reader, dtype in zip(self._readers, self._dtypes, strict=True)
        ]
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

    def _centres(self, row: Any, col: Any) -> tuple[Any, Any]:
        t = self._grid.transform
        of_row, of_col = row + 0.5, col + 0.5
        x = t.a * of_col + t.c
        y = t.e * of_row + t.f
        if t.b or t.d:
            x += t.b * of_row
            y += t.d * of_col
        return x, y


def open_layer(layer: Layer, db: Database | None) -> AbstractContextManager[LayerReader]:
    """Open a layer, wherever its pixels lie."""
    read = importlib.import_module("muster.resampling.read")
    opened: AbstractContextManager[LayerReader] = read.open_layer(layer, db)
    return opened


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


def _report(
    cells: Iterator[Cells], windows: Sequence[Window], context: StepContext
) -> Iterator[Cells]:
    for number, part in enumerate(cells, start=1):
        yield part
        context.progress(number / len(windows), f"band {number} of {len(windows)}")


def _counted(counts: Counts) -> dict[str, int]:
    return {"complete": counts.complete, "incomplete": counts.incomplete}
