"""Where the bands of a product come from: band rasters, or the product that is there already.

A band that the former product holds is taken over number by number, so that it stays the same to
the bit.  What is stored in another way is read as :mod:`muster.traits.product.open_product` reads
it, which turns the masks of the older kind round: they say 1 for outside.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from muster import storage
from muster.errors import InvalidInput, MissingInput
from muster.raster.gdal import GDAL_ERRORS, explain_read_error, open_raster
from muster.raster.grid import Band, Grid, Window, check_same_grid
from muster.raster.write.packing import CLASS_PACKING, COV_PACKING, INT16_NODATA, Packing
from muster.traits.band_names import BAND_ORDER, BandName
from muster.traits.band_raster import (
    AOA_DESCRIPTION,
    COV_DESCRIPTION,
    FINGERPRINT_TAG,
    RANGES_TAG,
    parse_ranges,
)
from muster.traits.product.existing import OLDER, held_bands
from muster.traits.product.open_product import OpenProduct, open_product

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

AOA_MEANING = "1 = inside the area of applicability, 0 = outside"
OLDER_MEANINGS: dict[BandName, str] = {
    "prediction": "taken over from a product of the older kind",
    "cov": "taken over from a product of the older kind: standard deviation of the folds over "
    "their mean, shifted by the least prediction of all",
    "aoa": f"{AOA_MEANING}; turned round from a product of the older kind",
}
"""What the band tag ``meaning`` says of a band that was not made here."""

FloatArray = np.ndarray[Any, np.dtype[np.float64]]
Int16Array = np.ndarray[Any, np.dtype[np.int16]]


@dataclass(frozen=True)
class ProductBand:
    """One band of the product and where its values come from.

    Attributes
    ----------
    name : {"prediction", "cov", "aoa"}
        Which of the bands.
    uri : str
        The raster that holds it.
    dataset : rasterio.DatasetReader
        Open.
    number : int
        The band in that raster, from 1.
    band : Band
        What the product says of it; scale and offset are those of ``packing``.
    packing : Packing
        How the product stores it.
    fingerprint : str
        Of everything that it was made from.
    copied : bool
        Whether the stored numbers are taken as they are.
    former : OpenProduct or None
        The product that it is taken over from; None for a band raster.
    range : tuple of float, or None
        Least and greatest value, where the step has recorded them.
    """

    name: BandName
    uri: str
    dataset: Any
    number: int
    band: Band
    packing: Packing
    fingerprint: str
    copied: bool = False
    former: OpenProduct | None = None
    range: tuple[float, float] | None = None

    def read(self, window: Window) -> FloatArray:
        """Read a window's values, (row, col), float64, NaN for nodata."""
        if self.former is None:
            values: FloatArray = self._read_stored(window)
            return values
        layer, _ = self.former.read(self.name, window)
        return np.where(layer.valid, layer.values, np.nan)

    def read_packed(self, window: Window) -> tuple[Int16Array, int]:
        """Read a window as the product stores it, and count what does not fit its range."""
        if self.copied:
            return self._read_stored(window), 0
        return self.packing.pack(self.read(window))

    def packed_as(self, packing: Packing) -> ProductBand:
        """Return the band with another packing."""
        band = replace(self.band, scale=packing.scale, offset=packing.offset)
        return replace(self, band=band, packing=packing)

    def _read_stored(self, window: Window) -> Any:
        try:
            return self.dataset.read(self.number, window=window.ranges)
        except GDAL_ERRORS as error:
            raise explain_read_error(error, self.uri, "band cannot be read") from error


@dataclass(frozen=True)
class Former:
    """The product that is there already, and which of its bands may be taken over.

    Attributes
    ----------
    product : str
        Its URI.
    held : mapping of str to str
        Band → the fingerprint by which the product must still hold it.
    needed : sequence of str
        Bands that were there when the run was planned, and without which nothing is built.
    """

    product: str
    held: Mapping[BandName, str]
    needed: Sequence[BandName] = ()


@contextlib.contextmanager
def open_bands(
    trait: str, unit: str, stages: Mapping[str, str], former: Former | None
) -> Iterator[tuple[Grid, tuple[ProductBand, ...]]]:
    """Open the bands that a product is made of.

    Parameters
    ----------
    trait, unit : str
        Of the product.
    stages : mapping of str to str
        "prediction", "cov", "aoa" → URI of the band raster; preferred where it is there.
    former : Former or None
        Where bands are taken from that have no band raster.

    Yields
    ------
    grid : Grid
        Of all bands.
    bands : tuple of ProductBand
        In the product's order, the prediction first.

    Raises
    ------
    MissingInput
        When the prediction, or a band that is needed, is not there.
    InvalidInput
        When a raster is broken, or lies on another grid.
    """
    with contextlib.ExitStack() as files:
        found: dict[BandName, ProductBand] = {}
        for name in BAND_ORDER:
            uri = stages.get(name)
            if uri is not None and storage.exists(uri):
                dataset = files.enter_context(open_raster(uri))
                found[name] = _raster_band(name, uri, dataset, _describe(name, trait, unit))
        if former is not None and set(former.held) - set(found) and storage.exists(former.product):
            product = files.enter_context(open_product(former.product))
            for band in _former_bands(former, product, trait, unit):
                found.setdefault(band.name, band)
        if "prediction" not in found:
            raise MissingInput(
                "prediction is not there",
                where=stages.get("prediction", "no location given"),
                expected=f"a band raster of {trait}, or a product that holds it",
                do="see why traits.predict of this run failed, or run it",
            )
        gone = [name for name in former.needed if name not in found] if former else []
        if former is not None and gone:
            raise MissingInput(
                "bands have gone since the run was planned",
                where=former.product,
                got=", ".join(gone),
                do="start the run again, or clear the task inspect: it looks at what is there",
            )
        bands = tuple(found[name] for name in BAND_ORDER if name in found)
        yield _common_grid(bands), bands


def _describe(name: BandName, trait: str, unit: str) -> tuple[Band, Packing]:
    if name == "prediction":
        return Band(f"{trait} prediction", unit=unit), Packing()
    if name == "cov":
        return Band(COV_DESCRIPTION, unit="1", scale=COV_PACKING.scale), COV_PACKING
    tags = {"meaning": AOA_MEANING}
    return Band(AOA_DESCRIPTION, unit="1", overview="mode", tags=tags), CLASS_PACKING


def _raster_band(
    name: BandName, uri: str, dataset: Any, described: tuple[Band, Packing]
) -> ProductBand:
    band, packing = described
    descriptions = list(dataset.descriptions)
    if band.description not in descriptions:
        raise InvalidInput(
            "band raster lacks a band",
            where=uri,
            got=", ".join(str(text) for text in descriptions),
            expected=band.description,
            do="run the step again",
        )
    number = descriptions.index(band.description) + 1
    tags = dataset.tags()
    return ProductBand(
        name,
        uri,
        dataset,
        number,
        band,
        packing,
        tags.get(FINGERPRINT_TAG, ""),
        range=parse_ranges(tags.get(RANGES_TAG, "")).get(number),
    )


def _former_bands(
    former: Former, product: OpenProduct, trait: str, unit: str
) -> Iterator[ProductBand]:
    """Yield the bands that the former product still holds as the plan saw them."""
    if product.trait != trait:
        return
    held = held_bands(former.product, product.bands, product.tags)
    for name, number in product.bands.bands.items():
        if former.held.get(name) is None or held.get(name) != former.held[name]:
            continue
        band, packing = _describe(name, trait, unit)
        if held[name].startswith(OLDER):
            band = replace(band, tags={"meaning": OLDER_MEANINGS[name]})
        made = ProductBand(
            name,
            former.product,
            product.dataset,
            number,
            band,
            packing,
            held[name],
            former=product,
        )
        turned = name == "aoa" and product.bands.outside_value == 1
        if not turned and _is_packed_alike(product.dataset, number):
            index = number - 1
            own = Packing(
                float(product.dataset.scales[index]), float(product.dataset.offsets[index])
            )
            made = replace(made.packed_as(own), copied=True)
        yield made


def _is_packed_alike(dataset: Any, number: int) -> bool:
    return bool(
        dataset.dtypes[number - 1] == "int16" and dataset.nodatavals[number - 1] == INT16_NODATA
    )


def _common_grid(bands: tuple[ProductBand, ...]) -> Grid:
    grid = Grid.from_dataset(bands[0].dataset, bands[0].uri)
    for band in bands[1:]:
        other = Grid.from_dataset(band.dataset, band.uri)
        problems = check_same_grid(grid, other)
        if problems:
            raise InvalidInput(
                f"bands of a product lie on different grids ({', '.join(problems)})",
                where=band.uri,
                got=other.describe(),
                expected=f"{grid.describe()}, as {bands[0].uri}",
                do="run the steps again with the same predictors",
            )
    return grid
