"""Drafts: uncompressed rasters that windows are written to before a COG is copied from them.

A window may be smaller than a block and come in any order, so what it is written to must allow
rewriting in place.  GDAL closes a file that it could not finish without saying so, and a block
that is missing reads as nodata: so a draft remembers which blocks were given values, and looks
for each of them once the file is closed.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from rasterio.enums import Resampling

from muster.raster.gdal import GDAL_ERRORS, gdal_message
from muster.raster.nodata import find_valid, stored_nodata
from muster.raster.write.integrity import explain_write_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from muster.raster.grid import Grid, Window
    from muster.raster.nodata import BoolArray

_BLOCK_HEIGHT, _BLOCK_WIDTH = 64, 256
"""Low blocks: windows of a few whole rows, as striped sources ask for, then do not drag a tall row
of blocks through GDAL's cache each time."""


class Draft:
    """A draft that is open for writing.

    Parameters
    ----------
    path : Path
        The file.
    dataset : rasterio.io.DatasetWriter
        Open.
    """

    def __init__(self, path: Path, dataset: Any) -> None:
        self.path = path
        self._dataset = dataset
        self._dtype = dataset.dtypes[0]
        self._nodata = stored_nodata(dataset.nodata, self._dtype)
        shape = (
            dataset.count,
            -(-dataset.height // _BLOCK_HEIGHT),
            -(-dataset.width // _BLOCK_WIDTH),
        )
        self._filled = np.zeros(shape, dtype=np.bool_)

    def write(self, window: Window, values: np.ndarray[Any, Any]) -> None:
        """Write a window.

        Parameters
        ----------
        window : Window
            Inside the grid.
        values : ndarray, (band, row, col)
            In a type that the draft's holds without loss.

        Raises
        ------
        Transient
            When there is no space.
        """
        values = values.astype(self._dtype, copy=False)
        try:
            self._dataset.write(values, window=window.ranges)
        except GDAL_ERRORS as error:
            raise explain_write_error(self.path, gdal_message(error)) from error
        found = find_valid(values, self._nodata)
        rows = _cuts(window.row, window.height, _BLOCK_HEIGHT)
        cols = _cuts(window.col, window.width, _BLOCK_WIDTH)
        found = np.logical_or.reduceat(found, rows, axis=1)
        found = np.logical_or.reduceat(found, cols, axis=2)
        row, col = window.row // _BLOCK_HEIGHT, window.col // _BLOCK_WIDTH
        self._filled[:, row : row + len(rows), col : col + len(cols)] |= found

    def filled_blocks(self, block_px: int) -> BoolArray:
        """Say which square blocks hold a value in any band.

        Parameters
        ----------
        block_px : int
            Side of the blocks, in pixels: a multiple of the draft's own.

        Returns
        -------
        ndarray, (block row, block col), bool
        """
        filled: BoolArray = self._filled.max(axis=0)
        for axis, own in enumerate((_BLOCK_HEIGHT, _BLOCK_WIDTH)):
            starts = range(0, filled.shape[axis], max(1, block_px // own))
            filled = np.asarray(np.logical_or.reduceat(filled, list(starts), axis=axis))
        return filled

    def finish(self, factors: Sequence[int], resampling: str) -> None:
        """Build overviews and look whether everything is there; the draft must be closed.

        Parameters
        ----------
        factors : sequence of int
            Decimation of each overview; may be empty.
        resampling : str
            "average" or "mode".

        Raises
        ------
        Transient
            When a block is missing.
        """
        try:
            size = self.path.stat().st_size
            with rasterio.open(self.path) as dataset:
                problem = self._check_blocks(dataset, size, None, (_BLOCK_HEIGHT, _BLOCK_WIDTH))
            if factors and not problem:
                with rasterio.open(self.path, "r+") as dataset:
                    dataset.build_overviews(list(factors), Resampling[resampling])
                problem = self._check_overviews(factors)
        except GDAL_ERRORS as error:
            raise explain_write_error(self.path, gdal_message(error)) from error
        if problem:
            raise explain_write_error(self.path, problem)

    def _check_overviews(self, factors: Sequence[int]) -> str:
        size = self.path.stat().st_size
        with rasterio.open(self.path) as dataset:
            if dataset.overviews(1) != list(factors):
                return f"the draft has overviews {dataset.overviews(1)}, not {list(factors)}"
            for level, factor in enumerate(factors):
                with rasterio.open(self.path, overview_level=level) as overview:
                    height, width = overview.block_shapes[0]
                covered = (height * factor, width * factor)
                problem = self._check_blocks(dataset, size, level, covered)
                if problem:
                    return problem
        return ""

    def _check_blocks(
        self, dataset: Any, size: int, level: int | None, covered: tuple[int, int]
    ) -> str:
        # An overview pixel has a value where any pixel below it has one, so that every block
        # above a filled one is there.
        band, row, col = np.nonzero(self._filled)
        blocks = {
            (int(b) + 1, int(r) * _BLOCK_HEIGHT // covered[0], int(c) * _BLOCK_WIDTH // covered[1])
            for b, r, c in zip(band, row, col, strict=True)
        }
        for number, block_row, block_col in sorted(blocks):
            offset, length = (
                dataset.get_tag_item(
                    f"BLOCK_{what}_{block_col}_{block_row}", "TIFF", bidx=number, ovr=level
                )
                for what in ("OFFSET", "SIZE")
            )
            if offset is None or int(offset) + int(length) > size:
                return f"the draft lost block {block_row}, {block_col} of band {number}"
        return ""


@contextlib.contextmanager
def open_draft(path: Path, grid: Grid, count: int, dtype: str, nodata: float) -> Iterator[Draft]:
    """Make a draft, and close it in the end.

    Parameters
    ----------
    path : Path
        The file to make.
    grid : Grid
        Of the raster.
    count : int
        Number of bands.
    dtype : str
        Type of all bands.
    nodata : float
        What is never written reads as this.

    Yields
    ------
    Draft
        To write to; to be finished after the context has ended.

    Raises
    ------
    Transient
        When there is no space.
    """
    try:
        dataset = rasterio.open(
            path,
            "w",
            driver="GTiff",
            dtype=dtype,
            nodata=nodata,
            count=count,
            height=grid.height,
            width=grid.width,
            crs=grid.crs,
            transform=grid.transform,
            tiled=True,
            blockysize=_BLOCK_HEIGHT,
            blockxsize=_BLOCK_WIDTH,
            interleave="band",
            sparse_ok=True,
            bigtiff="YES",
        )
    except GDAL_ERRORS as error:
        raise explain_write_error(path, gdal_message(error)) from error
    try:
        yield Draft(path, dataset)
    except BaseException:
        # What already failed is what counts, not that the rest cannot be closed either.
        with contextlib.suppress(*GDAL_ERRORS):
            dataset.close()
        raise
    try:
        dataset.close()
    except GDAL_ERRORS as error:
        raise explain_write_error(path, gdal_message(error)) from error


def _cuts(start: int, length: int, block: int) -> list[int]:
    """List where blocks begin in a stretch that starts anywhere, relative to its start."""
    first = block - start % block
    return [0, *range(first, length, block)]
