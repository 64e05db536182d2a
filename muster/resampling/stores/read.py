"""Reading a layer by windows, wherever it lies: from its source, a COG, tiles or rows alike.

What a reader gives does not depend on the place: the layer's type, and its nodata in every cell
without a value.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from muster.errors import ConfigError, InvalidInput, MissingInput
from muster.raster.gdal import GDAL_ERRORS, explain_read_error, gdal_environment, open_raster
from muster.raster.grid import Grid, Window, check_same_grid
from muster.raster.nodata import find_valid, stored_nodata
from muster.raster.windows import READING_CACHE_MIB as CACHE_MIB
from muster.resampling.layer import FINGERPRINT_TAG
from muster.resampling.stores.read_postgres import RowReader, TileReader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from muster.resampling.config.methods import Sink
    from muster.resampling.layer import Layer, LayerReader
    from muster.store.database import Database

_ORDER: tuple[Sink, ...] = ("register", "cog", "tiles", "rows")
"""What is read where a layer lies in several places: files before Postgres, tiles before rows."""


def layer_stores(layer: Layer) -> tuple[Sink, ...]:
    """List where a layer says that it lies, in the order in which they are preferred."""
    lies = {
        "register": layer.registered,
        "cog": layer.cog is not None,
        "tiles": layer.tiles,
        "rows": layer.table is not None,
    }
    return tuple(store for store in _ORDER if lies[store])


@contextmanager
def open_layer(
    layer: Layer, db: Database | None, store: Sink | None = None
) -> Iterator[LayerReader]:
    """Open a layer for reading by windows.

    Parameters
    ----------
    db : Database or None
        The store; needed for tiles and rows only.
    store : {"register", "tiles", "rows", "cog"}, optional
        Which place to read from; by default the source, COG, tiles or rows, whichever the layer
        says first that it lies in.

    Yields
    ------
    LayerReader
        For one thread.  Its ``read`` raises InvalidInput for windows outside the grid.

    Raises
    ------
    MissingInput
        When the layer does not lie there.
    InvalidInput
        When what lies there is another grid or type.
    ConfigError
        When tiles or rows are asked for without a store.
    """
    lies = layer_stores(layer)
    chosen = store or (lies[0] if lies else None)
    if chosen is None or chosen not in lies:
        raise MissingInput(
            "the dataset does not lie there",
            where=f"dataset {layer.key}",
            got=store,
            expected=", ".join(lies) or "none: it has not been brought anywhere",
            do="leave the store out to read from the first of these" if lies else None,
        )
    reader: LayerReader
    if chosen == "register":
        # Who reads a COG or Postgres need not wait for all that reads sources.
        from muster.resampling.stores.registered import open_registered

        with open_registered(layer) as reader:
            yield CheckedReader(layer, reader)
    elif chosen == "cog":
        with _open_cog(layer) as reader:
            yield CheckedReader(layer, reader)
    elif db is None:
        raise ConfigError("reading from Postgres needs a store", where=f"dataset {layer.key}")
    else:
        kind = TileReader if chosen == "tiles" else RowReader
        yield CheckedReader(layer, kind(db, layer))


def read_layer_window(
    layer: Layer, db: Database | None, window: Window, store: Sink | None = None
) -> np.ndarray[Any, Any]:
    """Read one window, as :func:`open_layer` does: (row, col)."""
    with open_layer(layer, db, store) as reader:
        return reader.read(window)


class CheckedReader:
    """A reader that refuses windows outside the grid, as GDAL and SQL would not, or not alike.

    Parameters
    ----------
    layer : Layer
        What is read.
    reader : LayerReader
        Reads it.
    """

    def __init__(self, layer: Layer, reader: LayerReader) -> None:
        self._key = layer.key
        self._reader = reader

    @property
    def grid(self) -> Grid:
        """The grid."""
        return self._reader.grid

    def read(self, window: Window) -> np.ndarray[Any, Any]:
        """Read a window: (row, col), the layer's dtype and nodata.

        Raises
        ------
        InvalidInput
            When a part of the window lies outside the grid.
        """
        grid = self.grid
        (row, row_stop), (col, col_stop) = window.ranges
        if not (0 <= row < row_stop <= grid.height and 0 <= col < col_stop <= grid.width):
            raise InvalidInput(
                "the window is not inside the grid",
                where=f"dataset {self._key}",
                got=f"rows {row} to {row_stop}, columns {col} to {col_stop}",
                expected=f"rows in 0 to {grid.height}, columns in 0 to {grid.width}",
            )
        return self._reader.read(window)


class CogReader:
    """Reads an open COG as the layer that it holds.

    Parameters
    ----------
    layer : Layer
        Whose COG it is.
    dataset : rasterio.DatasetReader
        The COG, open.
    """

    def __init__(self, layer: Layer, dataset: Any) -> None:
        self.grid = layer.grid.to_grid()
        self._layer = layer
        self._dataset = dataset
        self._stored_nodata = stored_nodata(dataset.nodata, layer.dtype)
        # Integers without a nodata that their type holds have a value everywhere.
        own_nodata = stored_nodata(layer.nodata, layer.dtype)
        self._fills = own_nodata is not None or np.dtype(layer.dtype).kind == "f"

    def read(self, window: Window) -> np.ndarray[Any, Any]:
        """Read a window: (row, col), the layer's dtype and nodata."""
        try:
            values: np.ndarray[Any, Any] = self._dataset.read(1, window=window.ranges)
        except GDAL_ERRORS as error:
            raise explain_read_error(
                error, self._layer.cog or "", "the COG of a dataset cannot be read"
            ) from error
        if self._fills:
            values[~find_valid(values, self._stored_nodata)] = self._layer.nodata_value
        return values


@contextmanager
def _open_cog(layer: Layer) -> Iterator[CogReader]:
    uri = layer.cog or ""
    with gdal_environment(1, CACHE_MIB), open_raster(uri) as dataset:
        found, expected = Grid.from_dataset(dataset, uri), layer.grid.to_grid()
        problems = check_same_grid(found, expected)
        if problems or dataset.dtypes[0] != layer.dtype:
            raise InvalidInput(
                f"the COG is not that of the dataset: it differs in "
                f"{', '.join(problems) or 'data type'}",
                where=uri,
                got=f"{dataset.dtypes[0]}, {found.describe()}",
                expected=f"{layer.dtype}, {expected.describe()}",
                do=f"run resampling of dataset {layer.key} again",
            )
        if dataset.tags().get(FINGERPRINT_TAG) != layer.fingerprint:
            raise MissingInput(
                "the COG is not that of the dataset: it was made from something else",
                where=uri,
                got=f"fingerprint {str(dataset.tags().get(FINGERPRINT_TAG))[:12]}",
                expected=layer.fingerprint[:12],
                do=f"run resampling of dataset {layer.key} again",
            )
        yield CogReader(layer, dataset)
