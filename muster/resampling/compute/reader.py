"""Source rows as they are needed, each block decoded once: a strip that moves down the raster.

The strip is one array for all of a dataset's rows.  Rows that the next target rows still need move
to its top, and whole blocks follow below them, decoded by several threads side by side, each with
a file handle of its own.  Columns are counted round the globe where the source goes round it, and
rows downwards even where the file has them upwards.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from muster.raster.gdal import GDAL_ERRORS, explain_read_error
from muster.resampling.compute.kernels import blank_others
from muster.resampling.compute.source import fill_gaps, open_source

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from muster.resampling.compute.source import Source

_LEAST_ROWS = 64
"""Rows that are worth a call of GDAL's, where blocks are lower."""

BoolArray = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Piece:
    """Columns that lie side by side in the file and in the strip.

    Attributes
    ----------
    at : int
        The strip's column, from its left.
    col, width : int
        The file's columns.
    """

    at: int
    col: int
    width: int


def find_pieces(start: int, stop: int, width: int, period: int | None) -> list[Piece]:
    """Find where the columns from ``start`` to before ``stop`` lie in a file.

    A column that the file has is always its own; those outside come round where it has them.

    Parameters
    ----------
    start, stop : int
        May lie outside the file.
    width : int
        Of the file, in columns.
    period : int or None
        Columns once round the globe.
    """
    if period is None:
        left, right = max(start, 0), min(stop, width)
        return [Piece(left - start, left, right - left)] if right > left else []
    pieces = []
    at = start
    while at < stop:
        turn, col = divmod(at, period)
        end = (turn + 1) * period
        if 0 <= at < width:  # the file's own, where it is wider than a turn, too
            col, end = at, width
        end = min(stop, end)
        if col < width:
            pieces.append(Piece(at - start, col, min(end - at, width - col)))
        at = end
    return pieces


def clip_cols(start: int, stop: int, width: int, period: int | None) -> tuple[int, int]:
    """Leave out the columns at both ends that a file has not; at least one column stays."""
    pieces = find_pieces(start, stop, width, period)
    if not pieces:
        return start, start + 1
    return start + pieces[0].at, start + pieces[-1].at + pieces[-1].width


class StripReader:
    """Rows of a range of columns, top to bottom.

    Parameters
    ----------
    source : Source
        What is read.
    cols : tuple of int
        First column and the one behind the last, counted as
        :class:`muster.resampling.compute.axes.Axis` counts them.
    capacity_rows : int
        How many rows the strip holds.
    period : int or None
        Columns once round the globe.
    handles : list
        Open datasets, one a thread.
    pool : ThreadPoolExecutor or None
        With as many threads; None where there is one handle.
    blank : object
        What stands for no value where a mask or the categories say so; None where nothing has to.
    categories : sequence of int or None
        Classes that are kept.
    """

    def __init__(
        self,
        source: Source,
        cols: tuple[int, int],
        capacity_rows: int,
        *,
        period: int | None,
        handles: Sequence[Any],
        pool: ThreadPoolExecutor | None,
        blank: Any = None,
        categories: Sequence[int] | None = None,
    ) -> None:
        self.first_col = cols[0]
        self.height = source.grid.height
        self.first = self.stop = 0
        self._source = source
        self._handles = handles
        self._pool = pool
        self._blank = blank
        self._classes = None if categories is None else np.array(sorted(categories), np.float64)
        width = cols[1] - cols[0]
        self._pieces = find_pieces(*cols, source.grid.width, period)
        self.there: BoolArray = np.zeros(width, dtype=np.bool_)
        for piece in self._pieces:
            self.there[piece.at : piece.at + piece.width] = True
        # A mask may blank any pixel, and only floating-point types have NaN for it.
        dtype = source.dtype if blank is not None or not source.masked else "float64"
        self._rows = np.zeros((min(capacity_rows, self.height), width), dtype=dtype)

    @property
    def rows(self) -> np.ndarray[Any, Any]:
        """The strip: source rows ``first`` to before ``stop``, (row, col), as stored."""
        return self._rows[: self.stop - self.first]

    def need(self, start: int, stop: int) -> None:
        """Have the rows from ``start`` to before ``stop``, and as many more as there is room for.

        Rows before ``start`` are forgotten.
        """
        start, stop = max(start, 0), min(stop, self.height)
        if start >= stop or (self.first <= start and stop <= self.stop):
            return
        if self.first <= start < self.stop:
            keep = self.stop - start
            self._move_up(start - self.first, keep)
            self.first = start
        else:
            self.first = self.stop = start
        begin = self.stop
        room = self.first + len(self._rows)
        end = min(self.height, room)
        if end < self.height:  # not in the middle of a block, where that leaves what is needed
            whole = self._whole_blocks(end)
            end = whole if whole >= stop else end
        self._read(begin, end)
        self.stop = end

    def _move_up(self, by: int, count: int) -> None:
        """Move rows to the top, a few at a time, as a copy of all would double the memory."""
        step = min(by, _LEAST_ROWS)
        for row in range(0, count if step else 0, max(1, step)):
            end = min(row + step, count)
            self._rows[row:end] = self._rows[row + by : end + by]

    def _whole_blocks(self, row: int) -> int:
        """Return the last row at or above this one that a block of the file begins at."""
        block = self._source.block[0]
        if self._source.grid.transform.e > 0:
            return self.height - -(-(self.height - row) // block) * block
        return row // block * block

    def _read(self, begin: int, end: int) -> None:
        jobs = list(self._jobs(begin, end))
        threads = min(len(self._handles), len(jobs))
        if threads <= 1 or self._pool is None:
            for job in jobs:
                self._read_part(self._handles[0], *job)
            return
        parts = [
            self._pool.submit(self._read_parts, self._handles[i], jobs[i::threads])
            for i in range(threads)
        ]
        for part in parts:
            part.result()

    def _read_parts(self, handle: Any, jobs: Sequence[tuple[Piece, int, int]]) -> None:
        for job in jobs:
            self._read_part(handle, *job)

    def _jobs(self, begin: int, end: int) -> Iterator[tuple[Piece, int, int]]:
        """Divide rows among threads so that no block is decoded by two."""
        block_rows, block_cols = self._source.block
        step_rows = block_rows * -(-_LEAST_ROWS // block_rows)
        # Blocks begin here in rows that may run up in the file, and not where reading begins.
        phase = self.height % block_rows if self._source.grid.transform.e > 0 else 0
        top = begin
        while top < end:
            whole = phase + (top - phase) // block_rows * block_rows
            bottom = min(whole + step_rows, end)
            for piece in self._pieces:
                if block_cols >= piece.width or len(self._handles) == 1:
                    yield piece, top, bottom
                    continue
                count = len(self._handles)
                step = -(-piece.width // count // block_cols) * block_cols
                col = piece.col
                while col < piece.col + piece.width:
                    edge = min((col // block_cols) * block_cols + step, piece.col + piece.width)
                    yield Piece(piece.at + col - piece.col, col, edge - col), top, bottom
                    col = edge
            top = bottom

    def _read_part(self, handle: Any, piece: Piece, top: int, bottom: int) -> None:
        source = self._source
        into = self._rows[top - self.first : bottom - self.first]
        into = into[:, piece.at : piece.at + piece.width]
        upwards = source.grid.transform.e > 0
        rows = (self.height - bottom, self.height - top) if upwards else (top, bottom)
        window = (rows, (piece.col, piece.col + piece.width))
        try:
            if upwards or source.masked or into.dtype != source.dtype:
                values = handle.read(source.band, window=window)
                into[:] = values[::-1] if upwards else values
            else:
                handle.read(source.band, window=window, out=into)
            if source.masked:
                there = handle.read_masks(source.band, window=window) != 0
                blank = np.nan if self._blank is None else self._blank
                into[~(there[::-1] if upwards else there)] = blank
        except GDAL_ERRORS as error:
            raise explain_read_error(error, source.name, "raster cannot be read") from error
        if self._classes is not None and self._blank is not None:
            blank_others(into, self._classes, self._blank)


@contextlib.contextmanager
def open_handles(
    source: Source, threads: int, blank: Any = None
) -> Iterator[tuple[list[Any], ThreadPoolExecutor]]:
    """Open a source as often as there are threads, and the threads themselves.

    ``blank`` is what stands for no value, between the files of a mosaic too.
    """
    source = fill_gaps(source, blank)
    with contextlib.ExitStack() as stack:
        handles = [stack.enter_context(open_source(source)) for _ in range(max(1, threads))]
        yield handles, stack.enter_context(ThreadPoolExecutor(len(handles)))
