"""What product is there already: ours, one of the older kind, or nothing that can be built upon.

A product remembers what each of its bands was made from, so that a band that is still right is
kept, and one that came from another model never stands beside one of this.  Products of the older
kind remember nothing; their bands are told from each other by the file that they came from.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from muster import storage
from muster.errors import InvalidInput, MissingInput
from muster.raster.gdal import gdal_environment, open_raster
from muster.raster.grid import Grid
from muster.raster.write.integrity import check_whole
from muster.traits.band_names import BandName, ProductBands, recognise_bands
from muster.traits.product.stac_collection import read_item

if TYPE_CHECKING:
    from collections.abc import Mapping

FINGERPRINTS_TAG = "MUSTER_FINGERPRINTS"
MADE_FROM_TAG = "MUSTER_MADE_FROM"
TAGS_SHA256_TAG = "MUSTER_TAGS_SHA256"
"""sha256 of all other tags: its item has it as well, and so is told from that of another making."""

LABEL_TAGS = {
    "unit": "MUSTER_UNIT",
    "description": "MUSTER_DESCRIPTION",
    "try_id": "MUSTER_TRY_ID",
}
"""What a product says of its trait → the tag in which it says so."""

OLDER = "older/"
"""How the fingerprint of a band begins that was taken over from a product of the older kind."""

OLDER_STATISTIC = "mean"
"""What the prediction of an older product must be to be taken for one of ours."""


@dataclass(frozen=True)
class ProductThere:
    """What was found where a product is to be.

    Attributes
    ----------
    uri : str
        Where.
    kind : {"absent", "muster", "older", "broken", "foreign"}
        ``broken`` may be replaced; ``foreign``, somebody's raster that is no product of this
        trait, may not.
    problem : str
        Why nothing of a file that is there can be used; empty where it can.
    held : dict of str to str
        Band → fingerprint.
    made_from : dict of str to dict
        Band → parts of its fingerprint, where they are known.
    tags : dict of str to str
        All that it says of itself.
    complete : bool
        Whether picture and item are there, of this very product.
    engines : dict of str to str
        Band → what computed it, where its item is there and says so.
    grid : Grid or None
        Its grid, where it is a product.
    """

    uri: str
    kind: Literal["absent", "muster", "older", "broken", "foreign"]
    problem: str = ""
    held: dict[BandName, str] = field(default_factory=dict)
    made_from: dict[str, dict[str, str]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    complete: bool = False
    engines: dict[str, str] = field(default_factory=dict)
    grid: Grid | None = None

    @property
    def label(self) -> dict[str, str]:
        """What it calls its trait: unit, description and try_id."""
        return {key: self.tags.get(tag, "") for key, tag in LABEL_TAGS.items()}


def look_at_product(product: str, quicklook: str, item: str, trait: str) -> ProductThere:
    """Find out what product there is, from its header.

    Parameters
    ----------
    product, quicklook, item : str
        URIs of the three files.
    trait : str
        Whose product it must be.

    Raises
    ------
    Transient
        When storage did not answer.
    """
    if not storage.exists(product):
        return ProductThere(product, "absent")
    try:
        with gdal_environment(threads=1, cache_mib=32), open_raster(product) as dataset:
            descriptions = dataset.descriptions
            bands = recognise_bands(descriptions, trait)
            tags = dataset.tags()
            # Of a file that was cut in its head the place goes with the names.
            grid = Grid.from_dataset(dataset, product)
    except (InvalidInput, MissingInput) as error:
        return ProductThere(product, "broken", f"the product there cannot be read: {error}")
    if bands is None or (bands.kind == "older" and bands.statistic not in ("", OLDER_STATISTIC)):
        named = ", ".join(str(text) for text in descriptions)
        return ProductThere(product, "foreign", f"it holds the bands {named}")
    properties = _read_item_of(item, product, tags)
    complete = storage.exists(quicklook) and properties is not None
    path = storage.local_path(product)
    if bands.kind == "muster" and not complete and path is not None:
        problems = check_whole(path)
        if problems:
            return ProductThere(product, "broken", f"the product there is cut: {problems[0]}")
    held = held_bands(product, bands, tags)
    return ProductThere(
        uri=product,
        kind=bands.kind,
        held=held,
        made_from=_read_json(tags.get(MADE_FROM_TAG)),
        tags=dict(tags),
        complete=complete,
        engines=_texts((properties or {}).get("muster:engines")),
        grid=grid,
    )


def held_bands(product: str, bands: ProductBands, tags: Mapping[str, str]) -> dict[BandName, str]:
    """Say by which fingerprints a product holds its bands.

    Parameters
    ----------
    product : str
        URI of the product.
    bands : ProductBands
        What its bands are.
    tags : mapping of str to str
        Its tags.

    Returns
    -------
    dict of str to str
        Band → fingerprint; a band of ours without one is left out.
    """
    if bands.kind == "older":
        stat = storage.stat(product)
        seen = json.dumps([product, stat.bytes, stat.version])
        mark = OLDER + hashlib.sha256(seen.encode()).hexdigest()[:32]
        return dict.fromkeys(bands.bands, mark)
    recorded = _read_json(tags.get(FINGERPRINTS_TAG))
    return {band: str(recorded[band]) for band in bands.bands if recorded.get(band)}


def _read_item_of(item: str, product: str, tags: Mapping[str, str]) -> dict[str, Any] | None:
    """Read the properties of the item, if it was made with the product that is there.

    It is published last.
    """
    try:
        found = read_item(item)
        properties: dict[str, Any] = found["properties"]
        ours = (
            properties["muster:tags_sha256"] == tags.get(TAGS_SHA256_TAG)
            and found["assets"]["data"]["file:size"] == storage.stat(product).bytes
        )
    except (MissingInput, InvalidInput, KeyError, TypeError):
        return None
    return properties if ours else None


def _texts(said: Any) -> dict[str, str]:
    return {k: v for k, v in said.items() if isinstance(v, str)} if isinstance(said, dict) else {}


def _read_json(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
