"""Two products of a trait, compared: how B differs from A, in numbers.

A new model, another trait set, a new version: what changed, by how much, and where, is asked each
time.  The products are read window by window, twice (the second time for the quantiles), in memory
that does not grow with them.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from muster.errors import InvalidInput
from muster.raster.compare.compared import conclude_values, share_of
from muster.raster.compare.difference import ClassDifference, ValueDifference
from muster.raster.compare.passes import BandPair, check_pair, compare_windows, plan_pair
from muster.raster.gdal import gdal_environment
from muster.raster.windows import plan_memory
from muster.traits.band_names import BAND_ORDER, BandName
from muster.traits.compare.comparison import (
    Alike,
    BandComparison,
    ClassComparison,
    Comparison,
    ProductFacts,
    ValueComparison,
)
from muster.traits.product.open_product import OpenProduct, open_product

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from muster.raster.band_values import WindowValues
    from muster.raster.grid import Window


def compare_products(
    a: str,
    b: str,
    *,
    window_px: int | None = None,
    threads: int = 1,
    memory_mib: int | None = None,
) -> Comparison:
    """Compare two products.

    Parameters
    ----------
    a, b : str
        URIs of products on the same grid; differences are B − A.
    window_px : int, optional
        Longest side of a window, in pixels; the numbers do not depend on it.
    threads : int
        How many threads GDAL may use.
    memory_mib : int, optional
        The memory that the whole process may take, in MiB.

    Returns
    -------
    Comparison
        Of the bands that both have.

    Raises
    ------
    InvalidInput
        When one is not a product or damaged, or the two have different grids or units, or no band
        in common.
    MissingInput
        When one is not there.
    Transient
        When the network failed.
    """
    memory = plan_memory(memory_mib)
    with gdal_environment(threads, memory.cache_mib), open_pair(a, b) as pair:
        names = common_bands(*pair)
        bands = [(product.dataset, 1) for product in pair]
        windows = plan_pair(pair[0].grid, bands, memory, window_px)
        works = [_BandWork(name, *pair) for name in names]
        compare_windows(windows, [BandPair(w.difference, w.read, w.read_values) for w in works])
        return Comparison(
            a=_describe(pair[0]),
            b=_describe(pair[1]),
            grid=pair[0].grid.describe(),
            model=_alike(*(product.tags.get("MUSTER_MODEL_SHA256", "") for product in pair)),
            bands={work.name: work.result() for work in works},
            notes=(*_find_notes(*pair), *_find_gaps(works)),
        )


@contextlib.contextmanager
def open_pair(a: str, b: str) -> Iterator[tuple[OpenProduct, OpenProduct]]:
    """Open two products that can be compared.

    Raises
    ------
    InvalidInput, MissingInput, Transient
        As :func:`compare_products`.
    """
    with open_product(a) as of_a, open_product(b) as of_b:
        check_pair(
            (a, of_a.grid),
            (b, of_b.grid),
            "products",
            "bring one to the grid of the other, for example with gdalwarp",
        )
        for name in common_bands(of_a, of_b):
            units = of_a.unit(name), of_b.unit(name)
            if name != "aoa" and all(units) and units[0] != units[1]:
                raise InvalidInput(
                    f"products have different units ({name})",
                    where=b,
                    got=units[1],
                    expected=f"{units[0]}, as {a}",
                    do="compare products of one unit",
                )
        yield of_a, of_b


def common_bands(a: OpenProduct, b: OpenProduct) -> list[BandName]:
    """List the bands that both products have, in order.

    Raises
    ------
    InvalidInput
        When there are none.
    """
    common = [name for name in BAND_ORDER if name in a.bands.bands and name in b.bands.bands]
    if not common:
        raise InvalidInput(
            "products have no band in common",
            where=b.uri,
            got=", ".join(b.bands.bands),
            expected=f"some of {', '.join(a.bands.bands)}, as {a.uri}",
            do="build the products with the same tasks",
        )
    return common


@dataclass
class _BandWork:
    """One band of both products, on the way through the windows."""

    name: BandName
    a: OpenProduct
    b: OpenProduct
    difference: ValueDifference | ClassDifference = field(init=False)
    stored_alike: bool = field(init=False)

    def __post_init__(self) -> None:
        self.difference = ClassDifference() if self.name == "aoa" else ValueDifference()
        self.stored_alike = self.a.storage(self.name) == self.b.storage(self.name)

    def read(self, window: Window) -> tuple[WindowValues, WindowValues]:
        """Read both, and look whether they are stored alike."""
        (a, stored_a), (b, stored_b) = (p.read(self.name, window) for p in (self.a, self.b))
        if self.stored_alike:
            same = stored_a.tobytes() == stored_b.tobytes()
            self.stored_alike = same and np.array_equal(a.valid, b.valid)
        return a, b

    def read_values(self, window: Window) -> tuple[WindowValues, WindowValues]:
        """Read both."""
        return self.a.read(self.name, window)[0], self.b.read(self.name, window)[0]

    def result(self) -> BandComparison:
        difference = self.difference
        coverage = difference.coverage
        shared: dict[str, Any] = {
            "valid_in_both": coverage.valid_in_both,
            "only_a": coverage.only_a,
            "only_b": coverage.only_b,
            "identical_pixels": difference.identical_pixels,
            "identical_bytes": self.stored_alike,
            "made_from": _alike(self.a.fingerprint(self.name), self.b.fingerprint(self.name)),
        }
        if isinstance(difference, ClassDifference):
            (out_out, out_in), (in_out, in_in) = difference.pairs
            both = coverage.valid_in_both
            return ClassComparison(
                **shared,
                inside_inside=in_in,
                inside_outside=in_out,
                outside_inside=out_in,
                outside_outside=out_out,
                agreement=share_of(difference.identical_pixels, both),
                inside_share_a=share_of(difference.inside_a, both + coverage.only_a),
                inside_share_b=share_of(difference.inside_b, both + coverage.only_b),
            )
        unit = self.a.unit(self.name) or self.b.unit(self.name)
        facts = conclude_values(difference, self.a.grid, unit)
        return ValueComparison(**{**shared, **vars(facts)})


def _describe(product: OpenProduct) -> ProductFacts:
    return ProductFacts(
        uri=product.uri,
        kind=product.bands.kind,
        trait=product.trait,
        unit=product.unit("prediction") if "prediction" in product.bands.bands else "",
        bands=tuple(product.bands.bands),
        version=product.tags.get("MUSTER_VERSION", ""),
        model_sha256=product.tags.get("MUSTER_MODEL_SHA256", ""),
        bundle_sha256=product.tags.get("MUSTER_BUNDLE_SHA256", ""),
    )


def _find_notes(a: OpenProduct, b: OpenProduct) -> Iterator[str]:
    if a.trait and b.trait and a.trait != b.trait:
        yield f"different traits: A is {a.trait}, B is {b.trait}"
    statistics = [p.bands.statistic or "a model's prediction" for p in (a, b)]
    if a.bands.statistic not in ("", "mean") or b.bands.statistic not in ("", "mean"):
        yield f"what is predicted: {statistics[0]} in A, {statistics[1]} in B"
    for letter, product, other in (("A", a, b), ("B", b, a)):
        absent = [name for name in other.bands.bands if name not in product.bands.bands]
        if absent:
            yield f"not in {letter}, so not compared: {', '.join(absent)}"
        if product.bands.outside_value == 1 and "aoa" in product.bands.bands:
            yield f"{letter} is of the older kind: its mask (1 = outside) was flipped to 1 = inside"
        if "prediction" in product.bands.bands and not product.unit("prediction"):
            yield f"{letter} does not say its unit"
    if a.bands.kind != b.bands.kind and "cov" in common_bands(a, b):
        yield "an older product's coefficient of variation may be defined otherwise (shifted mean)"


def _find_gaps(works: Sequence[_BandWork]) -> Iterator[str]:
    empty = [work.name for work in works if not work.difference.coverage.valid_in_both]
    if empty:
        yield f"no pixel has a value in both: {', '.join(empty)}"


def _alike(a: str, b: str) -> Alike:
    if not a or not b:
        return "unknown"
    return "equal" if a == b else "different"
