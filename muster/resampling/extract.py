"""A part of a layer, band by band, into a file and a summary, in bounded memory."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from muster import storage
from muster.errors import ConfigError, InvalidInput
from muster.raster.grid import Band, Grid, Window
from muster.raster.nodata import BoolArray, find_valid, stored_nodata
from muster.resampling.layer import TILE_PX
from muster.resampling.stores.read import open_layer

if TYPE_CHECKING:
    import io
    from collections.abc import Iterator
    from pathlib import Path

    from muster.resampling.config.methods import Sink
    from muster.resampling.layer import Layer
    from muster.store.database import Database

SUFFIXES = (".tif", ".csv", ".npy")

_MOST_CELLS = 1 << 23
"""Of a part that is read at once: rows of it take some 200 MiB on their way."""

_EDGE_PX = 1e-6
"""How far a box may reach into a cell, in cells, without touching it: corners are rounded."""


@dataclass(frozen=True)
class Summary:
    """What values there are.

    Attributes
    ----------
    valid : int
        Number of cells that have one.
    least, mean, greatest : float or None
        Of these, in the dataset's unit; None where there are none.
    """

    valid: int
    least: float | None
    mean: float | None
    greatest: float | None


class Writer(Protocol):
    """Takes the parts of a window, from above to below and from left to right."""

    def write(self, window: Window, values: np.ndarray[Any, Any], valid: BoolArray) -> None:
        """Write a part: a window of the whole grid, and its cells (row, col)."""


def window_of_box(grid: Grid, box: tuple[float, float, float, float]) -> Window:
    """Find the cells that a box touches.

    Parameters
    ----------
    box : tuple of float
        x min, y min, x max, y max, in the grid's CRS.

    Returns
    -------
    Window
        Inside the grid.

    Raises
    ------
    InvalidInput
        When the box is none, or lies beside the grid.
    """
    x_min, y_min, x_max, y_max = box
    if not (x_min < x_max and y_min < y_max and all(map(math.isfinite, box))):
        raise InvalidInput("not a box", got=box, expected="x min, y min, x max, y max")
    to_px = ~grid.transform
    corners = [to_px @ (x, y) for x in (x_min, x_max) for y in (y_min, y_max)]
    (col, col_stop), (row, row_stop) = (
        _clip(min(c[axis] for c in corners), max(c[axis] for c in corners), whole)
        for axis, whole in ((0, grid.width), (1, grid.height))
    )
    if row >= row_stop or col >= col_stop:
        raise InvalidInput(
            "the box lies beside the grid", got=box, expected=f"within {grid.describe()}"
        )
    return Window(row, col, row_stop - row, col_stop - col)


def extract_layer(
    layer: Layer,
    db: Database | None,
    window: Window,
    *,
    store: Sink | None = None,
    output: str | None = None,
) -> Summary:
    """Read a window of a layer, write it, and sum it up.

    Parameters
    ----------
    window : Window
        Inside the layer's grid.
    store : {"register", "tiles", "rows", "cog"}, optional
        As :func:`muster.resampling.stores.read.open_layer` takes it.
    output : str, optional
        URI of a .tif, .csv or .npy file; it appears whole or not at all.

    Raises
    ------
    ConfigError
        When the output's name ends otherwise.
    MissingInput, InvalidInput, Transient
        As the reader raises them; when the output cannot be written.
    """
    suffix = "" if output is None else PurePosixPath(output).suffix.lower()
    if output is not None and suffix not in SUFFIXES:
        raise ConfigError(
            "the output is no file that can be written", got=output, expected=", ".join(SUFFIXES)
        )
    nodata = stored_nodata(layer.nodata, layer.dtype)
    total = _Total()
    with open_layer(layer, db, store) as reader, contextlib.ExitStack() as stack:
        parts = _parts(window)
        # The first part is read before a file is begun: most that can go wrong does so by then.
        values = reader.read(parts[0])
        writer = None
        if output is not None:
            writer = stack.enter_context(_open_writer(output, suffix, layer, window))
        for number, part in enumerate(parts):
            if number:
                values = reader.read(part)
            valid = find_valid(values, nodata)
            total.add(values[valid])
            if writer is not None:
                writer.write(part, values, valid)
    return total.summary()


def _parts(window: Window) -> list[Window]:
    """Cut a window at the tiles' rows, and where it is very wide at their columns."""
    width = max(1, _MOST_CELLS // TILE_PX // TILE_PX) * TILE_PX
    return [
        Window(row, col, row_stop - row, col_stop - col)
        for row, row_stop in _cut(window.row, window.height, TILE_PX)
        for col, col_stop in _cut(window.col, window.width, width)
    ]


def _cut(start: int, length: int, step: int) -> list[tuple[int, int]]:
    edges = [start, *range((start // step + 1) * step, start + length, step), start + length]
    return list(itertools.pairwise(edges))


def _clip(low: float, high: float, whole: int) -> tuple[int, int]:
    return max(0, math.floor(low + _EDGE_PX)), min(whole, math.ceil(high - _EDGE_PX))


class _Total:
    def __init__(self) -> None:
        self._count = 0
        self._sums: list[float] = []
        self._least, self._greatest = math.inf, -math.inf

    def add(self, values: np.ndarray[Any, Any]) -> None:
        if values.size:
            self._count += values.size
            self._sums.append(float(values.sum(dtype=np.float64)))
            self._least = min(self._least, float(values.min()))
            self._greatest = max(self._greatest, float(values.max()))

    def summary(self) -> Summary:
        if not self._count:
            return Summary(0, None, None, None)
        mean = math.fsum(self._sums) / self._count
        return Summary(self._count, self._least, mean, self._greatest)


@contextmanager
def _open_writer(output: str, suffix: str, layer: Layer, window: Window) -> Iterator[Writer]:
    open_format = {".tif": _open_tif, ".csv": _open_csv, ".npy": _open_npy}[suffix]
    staged = storage.stage(output)
    try:
        with open_format(staged.path, layer, window) as writer:
            yield writer
        staged.publish()
    finally:
        staged.discard()


class _TifWriter:
    def __init__(self, cog: Any, window: Window) -> None:
        self._cog = cog
        self._window = window

    def write(self, window: Window, values: np.ndarray[Any, Any], _valid: BoolArray) -> None:
        row, col = window.row - self._window.row, window.col - self._window.col
        self._cog.write(Window(row, col, window.height, window.width), values[np.newaxis])


@contextmanager
def _open_tif(path: Path, layer: Layer, window: Window) -> Iterator[Writer]:
    from rasterio.transform import Affine

    from muster.raster.write.cog import CogFormat, write_cog

    if np.isnan(layer.nodata_value) and np.dtype(layer.dtype).kind != "f":
        raise ConfigError(
            "integers without nodata are not written as a GeoTIFF",
            where=f"dataset {layer.key}",
            do="write .npy or .csv, or give the dataset a nodata",
        )
    grid = layer.grid.to_grid()
    transform = grid.transform @ Affine.translation(window.col, window.row)
    part = Grid(grid.crs, transform, window.height, window.width)
    classes = layer.dataset.method in ("nearest", "mode")
    band = Band(layer.dataset.name, layer.dataset.unit, overview="mode" if classes else "average")
    tags = {"muster_dataset": layer.key, "muster_fingerprint": layer.fingerprint}
    cog_format = CogFormat(layer.dtype, layer.nodata_value)
    with write_cog(path, part, [band], cog_format, tags=tags) as cog:
        yield _TifWriter(cog, window)


class _CsvWriter:
    def __init__(self, file: io.TextIOBase, layer: Layer) -> None:
        self._file = file
        self._transform = layer.grid.transform
        file.write("row_idx,col_idx,x,y,value\n")

    def write(self, window: Window, values: np.ndarray[Any, Any], valid: BoolArray) -> None:
        a, b, c, d, e, f = self._transform
        row, col = np.nonzero(valid)
        found = values[row, col]
        row += window.row
        col += window.col
        x = a * (col + 0.5) + b * (row + 0.5) + c
        y = d * (col + 0.5) + e * (row + 0.5) + f
        # The shortest text that gives the same number again, in the type that it has.
        texts = found.astype(str) if found.dtype.kind == "f" else found
        self._file.writelines(
            f"{r},{k},{p!r},{q!r},{v}\n"
            for r, k, p, q, v in zip(
                row.tolist(), col.tolist(), x.tolist(), y.tolist(), texts.tolist(), strict=True
            )
        )


@contextmanager
def _open_csv(path: Path, layer: Layer, _window: Window) -> Iterator[Writer]:
    with storage.os_errors_at(path), path.open("w", encoding="utf-8", newline="") as file:
        yield _CsvWriter(file, layer)


class _NpyWriter:
    def __init__(self, array: np.ndarray[Any, Any], window: Window) -> None:
        self._array = array
        self._window = window

    def write(self, window: Window, values: np.ndarray[Any, Any], _valid: BoolArray) -> None:
        row, col = window.row - self._window.row, window.col - self._window.col
        self._array[row : row + window.height, col : col + window.width] = values


@contextmanager
def _open_npy(path: Path, layer: Layer, window: Window) -> Iterator[Writer]:
    with storage.os_errors_at(path):
        array = np.lib.format.open_memmap(
            path, mode="w+", dtype=np.dtype(layer.dtype), shape=(window.height, window.width)
        )
        with path.open("r+b") as file:
            # A disk that fills up later would end the process, not raise an error.
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        yield _NpyWriter(array, window)
        array.flush()
