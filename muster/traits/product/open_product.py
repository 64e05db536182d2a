"""Products as they are read back: bands found by their meaning, values as they are meant.

Both kinds of products (:mod:`muster.traits.band_names`) come out alike: scale and offset applied,
and 1 for inside the area of applicability.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from muster.errors import InvalidInput
from muster.raster.band_values import WindowValues, read_window
from muster.raster.gdal import open_raster
from muster.raster.grid import Grid, Window
from muster.traits.band_names import BandName, ProductBands, recognise_bands
from muster.traits.product.existing import FINGERPRINTS_TAG

if TYPE_CHECKING:
    from collections.abc import Iterator

UNREADABLE = "product cannot be read"

CLASS_TOLERANCE = 1e-6
"""How far from 0 and 1 classes may come out of scale and offset."""

_BoolArray = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Storage:
    """How a band is stored: only of bands stored alike can the bytes be compared.

    Attributes
    ----------
    dtype : str
        Type of the stored values.
    nodata : str
        As the file declares it.
    scale, offset : float
        value = stored × scale + offset.
    outside_value : int
        Of the area of applicability.
    """

    dtype: str
    nodata: str
    scale: float
    offset: float
    outside_value: int


@dataclass(frozen=True)
class OpenProduct:
    """A product that is open for reading.

    Attributes
    ----------
    uri : str
        As the user gave it.
    dataset : rasterio.DatasetReader
        Open.
    grid : Grid
        Of all bands.
    bands : ProductBands
        Which band is which.
    tags : dict of str to str
        Of the whole raster.
    """

    uri: str
    dataset: Any
    grid: Grid
    bands: ProductBands
    tags: dict[str, str]

    @property
    def trait(self) -> str:
        """The trait, by its band or else by its tag; empty where unknown."""
        return self.bands.trait or self.tags.get("MUSTER_TRAIT", "")

    def unit(self, name: BandName) -> str:
        """Return a band's unit; empty where unknown."""
        unit = self.dataset.units[self.bands.bands[name] - 1] or ""
        return unit or (self.tags.get("MUSTER_UNIT", "") if name == "prediction" else "")

    def fingerprint(self, name: BandName) -> str:
        """Return the fingerprint of what a band was made from; empty where unknown."""
        try:
            found = json.loads(self.tags.get(FINGERPRINTS_TAG, "{}"))
        except ValueError:
            return ""
        text = found.get(name) if isinstance(found, dict) else None
        return text if isinstance(text, str) else ""

    def storage(self, name: BandName) -> Storage:
        """Say how a band is stored."""
        index = self.bands.bands[name] - 1
        return Storage(
            self.dataset.dtypes[index],
            str(self.dataset.nodatavals[index]),
            float(self.dataset.scales[index]),
            float(self.dataset.offsets[index]),
            self.bands.outside_value,
        )

    def read(self, name: BandName, window: Window) -> tuple[WindowValues, np.ndarray[Any, Any]]:
        """Read a window of a band.

        Parameters
        ----------
        name : {"prediction", "cov", "aoa"}
            One that there is.
        window : Window
            Inside the grid.

        Returns
        -------
        values : WindowValues
            Values in the band's unit; 1 for inside the area of applicability, whatever the file
            has for it.
        stored : ndarray, (row, col)
            As stored.

        Raises
        ------
        InvalidInput
            When the file is damaged, or an area of applicability holds other values than 0 and 1.
        Transient
            When the network failed.
        """
        number = self.bands.bands[name]
        found, stored = read_window(self.dataset, self.uri, number, window, UNREADABLE)
        if name == "aoa":
            self._check_classes(found.values, found.valid, window)
            inside = np.abs(found.values - self.bands.outside_value) > 0.5
            found = WindowValues(inside.astype(np.float64), found.valid)
        return found, stored

    def _check_classes(
        self, values: np.ndarray[Any, np.dtype[np.float64]], valid: _BoolArray, window: Window
    ) -> None:
        near = np.minimum(np.abs(values), np.abs(values - 1)) <= CLASS_TOLERANCE
        strange = valid & ~near
        if strange.any():
            row, col = (int(index[0]) for index in np.nonzero(strange))
            raise InvalidInput(
                "area of applicability holds other values than 0 and 1",
                where=f"{self.uri}, row {window.row + row}, column {window.col + col}",
                got=f"{values[row, col]:g}",
                expected="0 or 1, or nodata",
                do="build the product again",
            )


@contextlib.contextmanager
def open_product(uri: str) -> Iterator[OpenProduct]:
    """Open a product.

    Parameters
    ----------
    uri : str
        A path, ``file://`` or ``s3://``.

    Yields
    ------
    OpenProduct
        Open until the context ends.

    Raises
    ------
    MissingInput
        When there is nothing at the URI.
    InvalidInput
        When it is no raster, has no grid, or its bands are not those of a product.
    Transient
        When the network failed.
    """
    with open_raster(uri) as dataset:
        bands = recognise_bands(dataset.descriptions)
        complex_bands = [dtype for dtype in dataset.dtypes if np.dtype(dtype).kind not in "iuf"]
        if bands is None or complex_bands:
            names = ", ".join(text or "(none)" for text in dataset.descriptions)
            raise InvalidInput(
                "raster is not a product",
                where=uri,
                got=f"bands {names}" + "".join(f" of {dtype}" for dtype in complex_bands[:1]),
                expected="'<trait> prediction', 'coefficient of variation', 'area of "
                "applicability', or some of them, with real numbers",
                do="give a file that 'muster traits infer' has made",
            )
        yield OpenProduct(uri, dataset, Grid.from_dataset(dataset, uri), bands, dataset.tags())
