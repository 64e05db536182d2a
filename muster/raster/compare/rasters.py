"""Two rasters on one grid, compared: how B differs from A, in numbers.

Ours against another tool's, one method against another, a new version against the old.  The rasters
are read window by window, twice (the second time for the quantiles), in memory that does not grow
with them.
"""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rasterio.enums import ColorInterp

from muster.errors import InvalidInput, MissingInput
from muster.raster.band_values import read_window
from muster.raster.compare.compared import ValueFacts, conclude_values, share_of
from muster.raster.compare.difference import ValueDifference
from muster.raster.compare.passes import BandPair, check_pair, compare_windows, plan_pair
from muster.raster.gdal import gdal_environment, open_raster
from muster.raster.grid import Grid
from muster.raster.windows import plan_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from muster.raster.band_values import WindowValues
    from muster.raster.grid import Window

_CLASS_TAGS = ("meaning", "categories")
"""Either of them says that a band holds classes."""


@dataclass(frozen=True)
class RasterFacts:
    """What a raster says of the band that is compared.

    Attributes
    ----------
    uri : str
        As the user gave it.
    band : int
        From 1.
    description, unit : str
        Empty where the file says none.
    dtype : str
        Of the stored values.
    nodata : str
        As the file declares it; empty where it does not.
    scale, offset : float
        value = stored × scale + offset.
    """

    uri: str
    band: int
    description: str
    unit: str
    dtype: str
    nodata: str
    scale: float
    offset: float


@dataclass(frozen=True)
class RasterComparison(ValueFacts):
    """How raster B differs from raster A.

    Attributes
    ----------
    agreement : float or None
        Share of identical pixels, of those valid in both, where both hold whole numbers.
    a, b : RasterFacts
        The two.
    grid : str
        That both lie on.
    notes : tuple of str
        What a reader must know to read the numbers.
    """

    agreement: float | None
    a: RasterFacts
    b: RasterFacts
    grid: str
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return all that is known, as JSON says it."""
        return asdict(self)


@dataclass(frozen=True)
class OpenBand:
    """One band of a raster that is open for reading.

    Attributes
    ----------
    uri : str
        As the user gave it.
    number : int
        The band, from 1.
    dataset : rasterio.DatasetReader
        Open.
    grid : Grid
        Of the raster.
    """

    uri: str
    number: int
    dataset: Any
    grid: Grid

    @property
    def facts(self) -> RasterFacts:
        """What the file says."""
        index, dataset = self.number - 1, self.dataset
        nodata = dataset.nodatavals[index]
        return RasterFacts(
            uri=self.uri,
            band=self.number,
            description=dataset.descriptions[index] or "",
            unit=dataset.units[index] or "",
            dtype=dataset.dtypes[index],
            nodata="" if nodata is None else f"{nodata:g}",
            scale=float(dataset.scales[index]),
            offset=float(dataset.offsets[index]),
        )

    @property
    def whole_numbers(self) -> bool:
        """Whether its values are whole numbers by their type."""
        facts = self.facts
        return np.dtype(facts.dtype).kind in "iu" and (facts.scale, facts.offset) == (1.0, 0.0)

    @property
    def classes(self) -> bool:
        """Whether its values are numbers of classes, as far as the file says."""
        tags = self.dataset.tags(self.number)
        palette = self.dataset.colorinterp[self.number - 1] == ColorInterp.palette
        return self.whole_numbers and (palette or any(tag in tags for tag in _CLASS_TAGS))

    def read(self, window: Window) -> WindowValues:
        """Read a window: scale and offset applied, nodata told apart."""
        return read_window(self.dataset, self.uri, self.number, window)[0]


def compare_rasters(
    a: str,
    b: str,
    *,
    band_a: int = 1,
    band_b: int = 1,
    threads: int = 1,
    memory_mib: int | None = None,
) -> RasterComparison:
    """Compare two rasters.

    Parameters
    ----------
    a, b : str
        URIs of rasters on the same grid; differences are B − A.
    band_a, band_b : int
        Which of their bands, from 1.
    threads : int
        How many threads GDAL may use.
    memory_mib : int, optional
        The memory that the whole process may take, in MiB; the numbers do not depend on it.

    Returns
    -------
    RasterComparison
        Over all pixels.

    Raises
    ------
    InvalidInput
        When one is no raster, damaged, or has no such band, or the two have different grids.
    MissingInput
        When one is not there.
    Transient
        When the network failed.
    """
    memory = plan_memory(memory_mib)
    with (
        gdal_environment(threads, memory.cache_mib),
        open_bands(a, b, band_a=band_a, band_b=band_b) as pair,
    ):
        of_a, of_b = pair
        difference = ValueDifference()
        compare_windows(
            plan_pair(of_a.grid, [(band.dataset, band.number) for band in pair], memory),
            [BandPair(difference, lambda window: (of_a.read(window), of_b.read(window)))],
        )
        facts = of_a.facts, of_b.facts
        values = conclude_values(difference, of_a.grid, facts[0].unit or facts[1].unit)
        whole = of_a.whole_numbers and of_b.whole_numbers
        return RasterComparison(
            **vars(values),
            agreement=share_of(values.identical_pixels, values.valid_in_both) if whole else None,
            a=facts[0],
            b=facts[1],
            grid=of_a.grid.describe(),
            notes=tuple(_find_notes(*pair, values)),
        )


@contextlib.contextmanager
def open_bands(
    a: str, b: str, *, band_a: int = 1, band_b: int = 1, **options: Any
) -> Iterator[tuple[OpenBand, OpenBand]]:
    """Open two bands that can be compared.

    Parameters
    ----------
    a, b : str
        URIs.
    band_a, band_b : int
        From 1.
    **options
        Options of GDAL's driver.

    Raises
    ------
    InvalidInput, MissingInput, Transient
        As :func:`compare_rasters`.
    """
    with _open_band(a, band_a, options) as of_a, _open_band(b, band_b, options) as of_b:
        check_pair(
            (a, of_a.grid),
            (b, of_b.grid),
            "rasters",
            "resample one to the other's grid first (target: like: FILE)",
        )
        yield of_a, of_b


@contextlib.contextmanager
def _open_band(uri: str, number: int, options: dict[str, Any]) -> Iterator[OpenBand]:
    with contextlib.ExitStack() as files:
        try:
            dataset = files.enter_context(open_raster(uri, **options))
        except MissingInput as error:
            raise MissingInput(
                "there is no raster to compare",
                where=uri,
                expected="a file or an s3:// object; names of datasets in the store are not "
                "looked up",
                do="check the path, or give the dataset's COG",
            ) from error
        if not 1 <= number <= dataset.count:
            raise InvalidInput(
                "raster has no such band",
                where=uri,
                got=f"band {number}",
                expected=f"1 to {dataset.count}",
            )
        dtype = dataset.dtypes[number - 1]
        if np.dtype(dtype).kind not in "iuf":
            raise InvalidInput(
                "raster does not hold real numbers",
                where=f"{uri}, band {number}",
                got=dtype,
                expected="integers or floating-point numbers",
            )
        yield OpenBand(uri, number, dataset, Grid.from_dataset(dataset, uri))


def _find_notes(a: OpenBand, b: OpenBand, values: ValueFacts) -> Iterator[str]:
    units = a.facts.unit, b.facts.unit
    if all(units) and units[0] != units[1]:
        yield f"different units: {units[0]} in A, {units[1]} in B"
    if not values.valid_in_both:
        yield "no pixel has a value in both"
    if a.classes or b.classes:
        yield "these are classes: of the numbers, only counts and agreement make sense"
