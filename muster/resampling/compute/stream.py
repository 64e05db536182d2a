"""Windows of the target, one after the other, computed from source rows that are read once.

The two ways that a result comes about, on one CRS and by warping, look alike from here: an
iterator of windows with their values.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from muster.raster.gdal import gdal_environment
from muster.raster.grid import Window
from muster.resampling.compute.fit import blank_of
from muster.resampling.compute.reader import StripReader, clip_cols, open_handles
from muster.resampling.compute.separable import compute_rows, source_cols

if TYPE_CHECKING:
    from collections.abc import Container, Iterator
    from concurrent.futures import ThreadPoolExecutor

    from muster.resampling.compute.encode import Finish
    from muster.resampling.compute.fit import Fit
    from muster.resampling.compute.separable import Separable
    from muster.resampling.compute.source import Source
    from muster.resampling.compute.windows import WorkPlan
    from muster.resampling.config.datasets import Dataset

Values = np.ndarray[Any, Any]


class SeparableStream:
    """The windows of a target on the source's CRS.

    Parameters
    ----------
    source, dataset, fit, method, work
        As planned.
    finish : Finish
        Type and nodata of the result.
    threads : int
        How many threads decode and compute.
    """

    def __init__(
        self,
        source: Source,
        dataset: Dataset,
        fit: Fit,
        method: Separable,
        work: WorkPlan,
        *,
        finish: Finish,
        threads: int = 1,
    ) -> None:
        self.work = work
        self._source = source
        self._dataset = dataset
        self._fit = fit
        self._method = method
        self._finish = finish
        self._threads = threads

    def with_work(self, work: WorkPlan) -> SeparableStream:
        """Return the same stream with other windows."""
        other = copy.copy(self)
        other.work = work
        return other

    def windows(self, wanted: Container[Window] | None = None) -> Iterator[tuple[Window, Values]]:
        """Yield windows with their values.

        Parameters
        ----------
        wanted : container of Window, optional
            Which of the plan's; all by default.

        Yields
        ------
        window : Window
            Of the target.
        values : ndarray, (row, col)
            In the result's type; the receiver's own.

        Raises
        ------
        InvalidInput, MissingInput, Transient
            When the source cannot be read.
        """
        with (
            # Its own threads would come on top of ours, each of which decodes blocks of its own.
            gdal_environment(1, self.work.cache_mib),
            open_handles(self._source, self._threads, self._blank()) as (handles, pool),
        ):
            for strip in self.work.strips:
                bands = [w for w in self.work.bands(strip) if wanted is None or w in wanted]
                if not bands:
                    continue
                reader = self._reader(strip, handles, pool)
                for window in bands:
                    yield window, self._compute(window, reader, pool)

    def _reader(
        self, strip: tuple[int, int], handles: list[Any], pool: ThreadPoolExecutor
    ) -> StripReader:
        axes = [self._method.cols]
        if self._method.inner is not None:
            axes.append(self._method.inner[1])
        return StripReader(
            self._source,
            clip_cols(*source_cols(axes, *strip), self._source.grid.width, self._fit.period),
            self.work.capacity_rows,
            period=self._fit.period,
            handles=handles,
            pool=pool,
            blank=self._blank(),
            categories=self._dataset.categories,
        )

    def _blank(self) -> Any:
        return blank_of(self._source, self._dataset)

    def _compute(self, window: Window, reader: StripReader, pool: ThreadPoolExecutor) -> Values:
        method = self._method
        result = np.empty((window.height, window.width), dtype=self._finish.dtype)
        first, stop = method.rows.first, method.rows.stop
        row = window.row
        end = window.row + window.height
        while row < end:
            reader.need(int(first[row]), int(stop[row]))
            # Whatever else can be computed from the rows that are there now.
            limit = reader.stop if reader.stop < reader.height else np.iinfo(np.int64).max
            last = row + 1
            while last < end and stop[last] <= limit:
                last += 1
            part = Window(row, window.col, last - row, window.width)
            values = compute_rows(method, reader, self._finish, part, pool, self._threads)
            result[row - window.row : last - window.row] = values
            row = last
        return result
