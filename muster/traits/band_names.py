"""What the bands of a product mean, told from their descriptions alone.

Products of two kinds are in use: Muster's own, and an older one whose bands have other names and
whose area of applicability is the other way round.  Both must be told apart the same way wherever
a product is read, and nothing may be guessed: a band taken for another one is wrong science that
looks right.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BandName = Literal["prediction", "cov", "aoa"]
ProductKind = Literal["muster", "older"]

BAND_ORDER: tuple[BandName, ...] = ("prediction", "cov", "aoa")
"""The order in which bands are listed."""

_PREDICTION: dict[ProductKind, re.Pattern[str]] = {
    "muster": re.compile(r"(?P<trait>\S|\S.*\S) (?P<statistic>prediction)"),
    "older": re.compile(r"(?P<trait>\S|\S.*\S) \((?P<statistic>mean|median|std|q05|q95)\)"),
}
_OTHERS: dict[ProductKind, dict[str, BandName]] = {
    "muster": {"coefficient of variation": "cov", "area of applicability": "aoa"},
    "older": {"Coefficient of Variation": "cov", "Area of Applicability mask": "aoa"},
}
_OUTSIDE: dict[ProductKind, int] = {"muster": 0, "older": 1}


@dataclass(frozen=True)
class ProductBands:
    """Which band of a product is which.

    Attributes
    ----------
    kind : {"muster", "older"}
        Whose names the bands have.
    trait : str or None
        As the prediction's band names it; what was asked for where there is no such band.
    bands : mapping of str to int
        "prediction", "cov", "aoa", those that there are and in this order → number of the band,
        from 1.
    outside_value : {0, 1}
        What stands for outside in the area of applicability: 0 in Muster's own products, 1 in
        older ones.
    statistic : str
        What an older product predicts of the trait ("mean", "std" …); empty for Muster's own, and
        where there is no prediction.
    """

    kind: ProductKind
    trait: str | None
    bands: Mapping[BandName, int]
    outside_value: int
    statistic: str = ""


def recognise_bands(
    descriptions: Sequence[str | None], trait: str | None = None
) -> ProductBands | None:
    """Tell from the descriptions of a raster's bands whether it is a product, and of which kind.

    Parameters
    ----------
    descriptions : sequence of str or None
        Of all bands, in the file's order, which may be any.
    trait : str, optional
        The trait that the prediction must be of; any by default.

    Returns
    -------
    ProductBands or None
        None unless every band is known, all by the names of one kind, and none is there twice.
    """
    for kind in ("muster", "older"):
        found = _recognise_kind(kind, descriptions, trait)
        if found is not None:
            return found
    return None


def _recognise_kind(
    kind: ProductKind, descriptions: Sequence[str | None], trait: str | None
) -> ProductBands | None:
    numbers: dict[BandName, int] = {}
    statistic = ""
    for number, description in enumerate(descriptions, start=1):
        name = _OTHERS[kind].get(description or "")
        if name is None:
            match = _PREDICTION[kind].fullmatch(description or "")
            if match is None or trait not in (None, match["trait"]):
                return None
            name, trait = "prediction", match["trait"]
            statistic = match["statistic"] if kind == "older" else ""
        if name in numbers:
            return None
        numbers[name] = number
    if not numbers:
        return None
    bands = {name: numbers[name] for name in BAND_ORDER if name in numbers}
    return ProductBands(kind, trait, bands, _OUTSIDE[kind], statistic)


def item_name(trait: str) -> str:
    """Name the file of a trait's item: ``<trait>.json``, but never that of the collection."""
    if re.fullmatch(r"collection(\.item)*", trait, re.IGNORECASE):
        trait += ".item"
    return f"{trait}.json"
