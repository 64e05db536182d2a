"""The STAC item of a product, so that a map is found by place, time and trait without opening it.

Almost all of it is in the product's own header; the caller adds what the file does not know.
Nothing depends on the moment or the machine: the same product and facts give the same bytes.
"""

from __future__ import annotations

import json
import logging
import math
import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pystac
from pyproj import CRS
from pystac.extensions.file import FileExtension
from pystac.extensions.projection import ProjectionExtension

from muster import storage
from muster.errors import ConfigError, InvalidInput
from muster.raster.footprint import Footprint, find_footprint
from muster.raster.gdal import gdal_environment, open_raster
from muster.raster.grid import Grid
from muster.storage.files import os_errors_at
from muster.traits.band_raster import AOA_DESCRIPTION, COV_DESCRIPTION
from muster.traits.params import InferParams
from muster.traits.product.stac_collection import (
    COLLECTION_NAME,
    PRODUCT_TYPE,
    QUICKLOOK_TYPE,
    encode_href,
    make_id,
    render_stac,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

log = logging.getLogger(__name__)

RASTER_SCHEMA = "https://stac-extensions.github.io/raster/v2.0.0/schema.json"
"""The version for STAC 1.1's ``bands``; pystac's own class writes the version before it."""

TRAIT_SET_TAG = "TRAIT_SET"
INTERVAL_TAG = "INTERVAL"

_BAND_NAMES = {COV_DESCRIPTION: "cov", AOA_DESCRIPTION: "aoa"}
_SHA2_256 = "1220"
_PNG_HEADER = struct.Struct(">8s4x4sII")
_LEAST_S = timedelta(seconds=1)


@dataclass(frozen=True)
class ProductFacts:
    """What an item says of a product that its file does not.

    Attributes
    ----------
    created : datetime
        When the product was made, aware.  Never the present moment of a second making: the same
        product is to give the same item.
    trait_set : str or None
        None for what the product's tag TRAIT_SET says, else "default".
    interval : tuple of datetime or None
        The time that the run stands for, aware, end excluded; None for what the product's tag
        INTERVAL says.
    try_id : str or int or None
        The trait's number in the TRY database.
    inside_fraction : float or None
        Of the pixels with an area of applicability.
    engines : mapping of str to str
        Step → what computed it.
    statistics : mapping of str to mapping
        Band ("prediction", "cov", "aoa") → "minimum", "maximum", "mean", "stddev", "count",
        "valid_percent", as far as they are known; of the stored numbers, as STAC counts them.
    product_name, quicklook_name : str or None
        How the files will be called beside the item, whatever they are called now;
        ``<trait>.tif`` and ``<trait>.png`` by default.
    """

    created: datetime
    trait_set: str | None = None
    interval: tuple[datetime, datetime] | None = None
    try_id: str | int | None = None
    inside_fraction: float | None = None
    engines: Mapping[str, str] = field(default_factory=dict)
    statistics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    product_name: str | None = None
    quicklook_name: str | None = None


@dataclass(frozen=True)
class _Header:
    """What a product's header says."""

    where: str
    trait: str
    tags: dict[str, str]
    grid: Grid
    bands: list[dict[str, Any]]


def make_item(product: Path, quicklook: Path | None, about: ProductFacts) -> dict[str, Any]:
    """Make the STAC item of a product.

    Parameters
    ----------
    product : Path
        A COG as :mod:`muster.traits.product.build` writes it; only its header is looked at, and all
        of it hashed.
    quicklook : Path or None
        Its picture, a PNG.
    about : ProductFacts
        What the file does not say.

    Returns
    -------
    dict
        A STAC 1.1 item with the extensions projection, raster and file.  Links and assets are
        relative; it has no link to itself.  Where the CRS does not lead to WGS 84 (a site's own
        metres, another planet) it has no geometry, as STAC allows, and is in no collection.

    Raises
    ------
    ConfigError
        When a time of ``about`` has no zone, or the interval ends before it starts.
    InvalidInput
        When the product is none, or the quicklook is no PNG.
    MissingInput
        When a file is not there.
    """
    header = _read_header(product, about.statistics)
    footprint = _find_footprint(header.grid)
    interval = _find_interval(about, header)
    trait_set = about.trait_set or header.tags.get(TRAIT_SET_TAG) or "default"
    label = _label(interval)
    created = _check_time(about.created)
    item = pystac.Item(
        id=make_id(header.trait, *label),
        geometry=footprint.geometry if footprint else None,
        bbox=list(footprint.bbox) if footprint else None,
        datetime=None if interval else created,
        start_datetime=interval[0] if interval else None,
        # Muster's intervals leave their end out, STAC's do not.
        end_datetime=max(interval[0], interval[1] - _LEAST_S) if interval else None,
        properties=_properties(header, about, trait_set, label),
        stac_extensions=[RASTER_SCHEMA],
        collection=make_id("muster", "traits", trait_set, *label),
    )
    item.common_metadata.created = created
    _describe_grid(item, header.grid)
    item.add_asset("data", _product_asset(header))
    _describe_file(item.assets["data"], product, about.product_name or f"{header.trait}.tif")
    if quicklook is not None:
        item.add_asset("thumbnail", _quicklook_asset(quicklook, header))
        name = about.quicklook_name or f"{header.trait}.png"
        _describe_file(item.assets["thumbnail"], quicklook, name)
    document = item.to_dict(include_self_link=False, transform_hrefs=False)
    document["stac_extensions"].sort()
    document["links"] = [
        {"rel": rel, "href": encode_href(COLLECTION_NAME), "type": "application/json"}
        for rel in ("collection", "parent", "root")
    ]
    return document


def write_item(item: Mapping[str, Any], path: Path) -> None:
    """Write an item as canonical JSON.

    Raises
    ------
    InvalidInput
        When it holds what JSON has no number for, or the folder cannot be written to.
    Transient
        When there is no space.
    """
    try:
        content = render_stac(item).encode()
    except ValueError as error:
        raise InvalidInput("item cannot be written as JSON", where=path, got=error) from error
    storage.write_bytes(str(path), content)


def _read_header(product: Path, statistics: Mapping[str, Mapping[str, float]]) -> _Header:
    where = str(product)
    with gdal_environment(threads=1, cache_mib=32), open_raster(where) as dataset:
        tags = dict(dataset.tags())
        trait = tags.get("MUSTER_TRAIT")
        if not trait:
            raise InvalidInput(
                "not a product of Muster",
                where=where,
                got="no tag MUSTER_TRAIT",
                do="make it with the step traits.build",
            )
        bands = []
        for index, description in enumerate(dataset.descriptions):
            band = _describe_band(dataset, index, description or f"band {index + 1}", trait)
            if statistics.get(band["name"]):
                band["statistics"] = _finite(statistics[band["name"]])
            bands.append(band)
        return _Header(where, trait, tags, Grid.from_dataset(dataset, where), bands)


def _describe_band(dataset: Any, index: int, description: str, trait: str) -> dict[str, Any]:
    name = "prediction" if description == f"{trait} prediction" else _BAND_NAMES.get(description)
    meaning = dataset.tags(index + 1).get("meaning")
    band: dict[str, Any] = {
        "name": name or make_id(description),
        "description": f"{description}: {meaning}" if meaning else description,
        "data_type": dataset.dtypes[index],
        "raster:scale": float(dataset.scales[index]),
        "raster:offset": float(dataset.offsets[index]),
    }
    if dataset.units[index]:
        band["unit"] = dataset.units[index]
    nodata = dataset.nodatavals[index]
    if nodata is not None:
        band["nodata"] = "nan" if math.isnan(nodata) else nodata
        if float(nodata).is_integer():
            band["nodata"] = int(nodata)
    return band


def _find_footprint(grid: Grid) -> Footprint | None:
    try:
        return find_footprint(grid)
    except InvalidInput as error:
        log.warning("the item says not where the product lies: %s", error)
        return None


def _find_interval(about: ProductFacts, header: _Header) -> tuple[datetime, datetime] | None:
    interval = about.interval
    if interval is None and INTERVAL_TAG in header.tags:
        try:
            start, end = map(datetime.fromisoformat, header.tags[INTERVAL_TAG].split("/"))
        except ValueError as error:
            raise InvalidInput(
                f"tag {INTERVAL_TAG} is no interval",
                where=header.where,
                got=header.tags[INTERVAL_TAG],
                expected="two ISO 8601 times and '/' between them",
            ) from error
        interval = start, end
    if interval is None:
        return None
    start, end = map(_check_time, interval)
    if end <= start:
        raise ConfigError("interval ends before it starts", got=f"{start} to {end}")
    return start, end


def _check_time(time: datetime) -> datetime:
    if time.tzinfo is None:
        raise ConfigError("time has no zone", got=time.isoformat(), expected="an aware datetime")
    return time.astimezone(UTC)


def _label(interval: tuple[datetime, datetime] | None) -> tuple[str, ...]:
    """Name the interval as its folder is named; nothing without one."""
    if interval is None:
        return ()
    params = InferParams.model_construct(interval_start=interval[0], interval_end=interval[1])
    return (params.interval_label,) if params.interval_label else ()


def _properties(
    header: _Header, about: ProductFacts, trait_set: str, label: tuple[str, ...]
) -> dict[str, Any]:
    tags, trait = header.tags, header.trait
    meaning = tags.get("MUSTER_DESCRIPTION", "").strip()
    unit = tags.get("MUSTER_UNIT", "").strip()
    what = f"{trait} ({meaning})" if meaning else trait
    said = [each["description"] for each in header.bands]
    properties: dict[str, Any] = {
        "title": ", ".join([f"{trait}: {meaning}" if meaning else trait, *label]),
        "description": f"Map of {what}{f' in {unit}' if unit else ''}, of the trait set "
        f"{trait_set}. Bands: {'; '.join(said)}.",
        "muster:trait": trait,
        "muster:trait_set": trait_set,
        "muster:cv": _finite(_read_json_tag(header, "MUSTER_CV")),
        "muster:fingerprints": _read_json_tag(header, "MUSTER_FINGERPRINTS"),
    }
    for key, tag in (
        ("muster:unit", "MUSTER_UNIT"),
        ("muster:description", "MUSTER_DESCRIPTION"),
        ("muster:model_sha256", "MUSTER_MODEL_SHA256"),
        ("muster:version", "MUSTER_VERSION"),
        ("muster:tags_sha256", "MUSTER_TAGS_SHA256"),
    ):
        if tags.get(tag):
            properties[key] = tags[tag]
    if label:
        properties["muster:interval"] = label[0]
    if about.try_id is not None:
        properties["muster:try_id"] = about.try_id
    if about.inside_fraction is not None and math.isfinite(about.inside_fraction):
        properties["muster:inside_fraction"] = about.inside_fraction
    if about.engines:
        properties["muster:engines"] = dict(about.engines)
    return properties


def _read_json_tag(header: _Header, tag: str) -> dict[str, Any]:
    text = header.tags.get(tag, "{}")
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"tag {tag} is no JSON", where=header.where, got=text) from error
    if not isinstance(found, dict):
        raise InvalidInput(f"tag {tag} is no JSON object", where=header.where, got=text)
    return found


def _finite(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what JSON has no number for: a metric that could not be computed."""
    return {
        key: number
        for key, number in numbers.items()
        if not isinstance(number, float) or math.isfinite(number)
    }


def _describe_grid(item: pystac.Item, grid: Grid) -> None:
    code, wkt2 = _name_crs(grid)
    t = grid.transform
    corners = [t @ (col, row) for col in (0, grid.width) for row in (0, grid.height)]
    xs, ys = [float(x) for x, _ in corners], [float(y) for _, y in corners]
    ProjectionExtension.ext(item, add_if_missing=True).apply(
        code=code,
        wkt2=wkt2,
        bbox=[min(xs), min(ys), max(xs), max(ys)],
        shape=[grid.height, grid.width],
        # Zeros lose their sign: -0.0 is another text.
        transform=[float(number) + 0.0 for number in t[:6]],
    )


def _name_crs(grid: Grid) -> tuple[str | None, str | None]:
    """Give a CRS's authority code, or its WKT2 where none means the same."""
    wkt: str = grid.crs.to_wkt(version="WKT2_2019")
    authority = CRS.from_wkt(wkt).to_authority()
    return (":".join(authority), None) if authority else (None, wkt)


def _product_asset(header: _Header) -> pystac.Asset:
    names = ", ".join(band["name"] for band in header.bands)
    return pystac.Asset(
        href="",
        title=f"{header.trait}: {names}",
        media_type=PRODUCT_TYPE,
        roles=["data"],
        extra_fields={"bands": header.bands},
    )


def _quicklook_asset(quicklook: Path, header: _Header) -> pystac.Asset:
    with os_errors_at(quicklook), quicklook.open("rb") as file:
        start = file.read(_PNG_HEADER.size)
    if len(start) < _PNG_HEADER.size or not start.startswith(b"\x89PNG\r\n\x1a\n"):
        raise InvalidInput("quicklook is no PNG", where=quicklook, got=f"{start[:8]!r}")
    _, _, width, height = _PNG_HEADER.unpack(start)
    return pystac.Asset(
        href="",
        title=f"{header.trait}: quicklook",
        media_type=QUICKLOOK_TYPE,
        roles=["thumbnail", "overview"],
        # The item's grid is not that of the picture, which has margins and a legend.
        extra_fields={"proj:code": None, "proj:shape": [height, width]},
    )


def _describe_file(asset: pystac.Asset, path: Path, name: str) -> None:
    asset.href = encode_href(name)
    FileExtension.ext(asset, add_if_missing=True).apply(
        size=storage.stat(str(path)).bytes,
        checksum=_SHA2_256 + storage.sha256(str(path)),
    )
