"""A dataset that lies on the target grid already: read from its source, whenever it is needed."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from muster.errors import InvalidInput
from muster.raster.gdal import gdal_environment
from muster.resampling.compute.encode import Finish
from muster.resampling.compute.fit import blank_of, make_room, plan_dataset
from muster.resampling.compute.reader import StripReader, clip_cols, open_handles
from muster.resampling.compute.separable import Separable, compute_rows, source_cols
from muster.resampling.compute.source import look_at_source

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from muster.raster.grid import Grid, Window
    from muster.resampling.compute.fit import Fit
    from muster.resampling.compute.source import Source
    from muster.resampling.layer import Layer

_CACHE_MIB = 32


class RegisteredReader:
    """Reads windows of the target from a source on the same lattice.

    Attributes
    ----------
    grid : Grid
        The target's.
    """

    def __init__(self, layer: Layer, grid: Grid, source: Source, fit: Fit, handle: Any) -> None:
        self.grid = grid
        self._layer = layer
        self._source = source
        self._fit = fit
        self._handle = handle
        self._method = Separable.of(fit, source, layer.dataset)
        self._finish = Finish(layer.dtype, layer.nodata_value)

    def read(self, window: Window) -> np.ndarray[Any, Any]:
        """Read a window: (row, col), in the layer's type and nodata."""
        method = self._method
        last = window.row + window.height
        first_row, stop_row = int(method.rows.first[window.row]), int(method.rows.stop[last - 1])
        strip = StripReader(
            self._source,
            clip_cols(
                *source_cols([method.cols], window.col, window.col + window.width),
                self._source.grid.width,
                self._fit.period,
            ),
            stop_row - first_row,
            period=self._fit.period,
            handles=[self._handle],
            pool=None,
            blank=blank_of(self._source, self._layer.dataset),
            categories=self._layer.dataset.categories,
        )
        strip.need(first_row, stop_row)
        return compute_rows(method, strip, self._finish, window)


@contextlib.contextmanager
def open_registered(layer: Layer) -> Iterator[RegisteredReader]:
    """Open a registered dataset for reading by windows.

    Raises
    ------
    MissingInput
        When its source is gone.
    InvalidInput
        When its source lies on another grid than when it was registered.
    """
    grid = layer.grid.to_grid()
    source = look_at_source(layer.sources, layer.dataset.band)
    fit = plan_dataset(source, grid, layer.dataset, layer.tolerance_px)
    if fit.kind != "passthrough":
        raise InvalidInput(
            "the source of a registered dataset has changed",
            where=f"{layer.key}: {source.name}",
            got=f"{fit.kind}: {fit.reason}",
            expected="a raster on the target grid, as it was when it was registered",
            do="run the resampling again",
        )
    source = make_room(source, layer.dataset)
    with (
        gdal_environment(1, _CACHE_MIB),
        open_handles(source, 1, blank_of(source, layer.dataset)) as (handles, _),
    ):
        yield RegisteredReader(layer, grid, source, fit, handles[0])
