"""The catalogue of a folder of products: a static STAC collection of the items that lie in it.

Written when a run ends, by Airflow's worker, where no compute library is at hand: plain JSON, read
and written through storage.  Everything in it comes from the items, so that the same folder gives
the same bytes whoever writes it, and it holds no address: the folder may be moved or served as it
is.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from muster import storage
from muster.errors import InvalidInput, MissingInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

log = logging.getLogger(__name__)

STAC_VERSION = "1.1.0"
PROJECTION_SCHEMA = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
COLLECTION_NAME = "collection.json"
PRODUCT_TYPE = "image/tiff; application=geotiff; profile=cloud-optimized"
QUICKLOOK_TYPE = "image/png"

_MOST_BYTES = 8 << 20
"""An item has some 10 KiB; what is larger than this is somebody's GeoJSON."""

_ROUNDS = 5
_SUMMARIES = ("proj:code", "muster:trait", "muster:trait_set", "muster:unit", "muster:version")


def make_id(*parts: str) -> str:
    """Make a STAC id of names: safe in a path and a URL, and another one for other names."""
    text = "-".join(parts)
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", text)
    if safe == text and text.strip("."):
        return text
    return f"{safe}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def encode_href(name: str) -> str:
    """Write a file name as a relative reference; whatever it holds means itself."""
    return f"./{quote(name, safe='')}"


def decode_href(href: object) -> str | None:
    """Return the file name that :func:`encode_href` was given, None for a reference elsewhere."""
    if not isinstance(href, str) or not href.startswith("./"):
        return None
    name = unquote(href.removeprefix("./"))
    return name if name and "/" not in name else None


def render_stac(document: Mapping[str, Any]) -> str:
    """Render an item or collection as canonical JSON: keys sorted, one newline at the end."""
    return (
        json.dumps(document, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    )


def read_item(uri: str) -> dict[str, Any]:
    """Read an item, or any other JSON object.

    Parameters
    ----------
    uri : str
        A path, ``file://`` or ``s3://``.

    Raises
    ------
    MissingInput
        When there is none.
    InvalidInput
        When it is no JSON object.
    Transient
        When storage did not answer.
    """
    content = storage.read_bytes(uri)
    try:
        item = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("not JSON", where=uri, got=error, expected="a STAC item") from error
    if not isinstance(item, dict):
        raise InvalidInput(
            "not a STAC item", where=uri, got=type(item).__name__, expected="a JSON object"
        )
    return item


def read_items(folder_uri: str) -> dict[str, dict[str, Any]]:
    """Read the items of Muster's directly in a folder whose products are there as well.

    Parameters
    ----------
    folder_uri : str
        Folder of products, local or on S3.

    Returns
    -------
    dict of str to dict
        File name → item, sorted; what is not Muster's is left out.
    """
    names = storage.list(folder_uri)
    there = set(names)
    items = {}
    for name in names:
        if name.startswith(".") or not name.endswith(".json") or name == COLLECTION_NAME:
            continue
        uri = storage.join(folder_uri, name)
        try:
            if storage.stat(uri).bytes > _MOST_BYTES:
                continue
            item = read_item(uri)
        except (MissingInput, InvalidInput) as error:
            log.debug("left out of the collection: %s", error)
            continue
        problem = _check_item(item)
        if problem:
            log.debug("%s is left out of the collection: %s", uri, problem)
        elif decode_href(item["assets"]["data"]["href"]) in there:
            items[name] = item
        else:
            log.info("%s is left out of the collection: its product is not there", uri)
    return items


def write_collection(
    folder_uri: str,
    *,
    title: str | None = None,
    description: str | None = None,
    license_id: str = "other",
) -> str | None:
    """Write ``collection.json`` of a folder of products.

    May be called by several runs at once: each looks again after it has written, so that the last
    one leaves the full list.

    Parameters
    ----------
    folder_uri : str
        Folder of products, local or on S3.
    title, description, license_id : str, optional
        As for :func:`make_collection`.

    Returns
    -------
    str or None
        Where the collection lies; None where there is no product (a collection of ours is then
        removed) or where a ``collection.json`` lies that is not Muster's (it is left alone).

    Raises
    ------
    InvalidInput
        When the folder cannot be read or written.
    Transient
        When storage did not answer, or there is no space.
    """
    uri = storage.join(folder_uri, COLLECTION_NAME)
    found = _read_own_collection(uri)
    if found is None:
        log.warning("%s is not Muster's and is left alone", uri)
        return None
    written = found
    for _ in range(_ROUNDS):
        items = read_items(folder_uri)
        if not items:
            if written:
                storage.delete(uri)
            return None
        collection = make_collection(
            items, title=title, description=description, license_id=license_id
        )
        data = render_stac(collection).encode()
        if data == written:
            break
        storage.write_bytes(uri, data)
        written = data
    return uri


def make_collection(
    items: Mapping[str, Mapping[str, Any]],
    *,
    title: str | None = None,
    description: str | None = None,
    license_id: str = "other",
) -> dict[str, Any]:
    """Make the collection of some items.

    Parameters
    ----------
    items : mapping of str to mapping
        File name → item, as :func:`muster.traits.product.stac.make_item` makes them; at least one.
    title, description : str, optional
        By default they name the trait sets.
    license_id : str
        An SPDX identifier or expression; "other", as STAC has it, where none is given.

    Returns
    -------
    dict
        A STAC collection with relative links and none to itself.
    """
    if not items:
        raise InvalidInput("no item to make a collection of")
    ordered = [items[name] for name in sorted(items)]
    ids = [item["collection"] for item in ordered]
    found = {
        key: {v for item in ordered if isinstance(v := item["properties"].get(key), str)}
        for key in _SUMMARIES
    }
    summaries = {key: sorted(values) for key, values in found.items() if values}
    sets = ", ".join(summaries.get("muster:trait_set", ["default"]))
    if title is None:
        title = f"Trait maps: {sets}"
    if description is None:
        description = (
            f"Maps of {len(ordered)} traits of the set {sets}. Each item is one cloud-optimised "
            "GeoTIFF: the prediction and, where they were made, the coefficient of variation "
            "among the models of the folds and the area of applicability."
        )
    return {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "stac_extensions": [PROJECTION_SCHEMA] if "proj:code" in summaries else [],
        # Of a folder that two trait sets share, the one with more products gives the name.
        "id": min(set(ids), key=lambda name: (-ids.count(name), name)),
        "title": title,
        "description": description,
        "license": license_id,
        "extent": {
            "spatial": {"bbox": [join_boxes([item["bbox"] for item in ordered])]},
            "temporal": {"interval": [_join_times([item["properties"] for item in ordered])]},
        },
        "summaries": summaries,
        "item_assets": {
            "data": {"title": "Product", "type": PRODUCT_TYPE, "roles": ["data"]},
            "thumbnail": {
                "title": "Quicklook",
                "type": QUICKLOOK_TYPE,
                "roles": ["thumbnail", "overview"],
            },
        },
        "links": [
            _link("root", COLLECTION_NAME, "application/json", title),
            *(
                _link("item", name, "application/geo+json", items[name]["properties"]["title"])
                for name in sorted(items)
            ),
        ],
    }


def join_boxes(boxes: Sequence[Sequence[float]]) -> list[float]:
    """Find the smallest box around boxes (west, south, east, north).

    West is greater than east, here as there, where the antimeridian lies between them.
    """
    south = min(box[1] for box in boxes)
    north = max(box[3] for box in boxes)
    # West and east of there, in the order of west; the widest gap between them stays out.
    arcs = sorted((box[0], box[0] + _width(box)) for box in boxes)
    reach = max(east for _, east in arcs) - 360
    gap, west, east = 0.0, -180.0, 180.0
    for arc in arcs:
        if arc[0] - reach > gap:
            gap, west, east = arc[0] - reach, arc[0], reach
        reach = max(reach, arc[1])
    if east > 180 or east <= -180:
        east += 360 if east < 0 else -360
    return [west, south, round(east, 9), north]


def _width(box: Sequence[float]) -> float:
    width = (box[2] - box[0]) % 360
    return 360.0 if width == 0 and box[2] != box[0] else width


def _join_times(properties: Iterable[Mapping[str, Any]]) -> list[str]:
    times = [_read_times(each) for each in properties]
    return [format_time(min(start for start, _ in times)), format_time(max(e for _, e in times))]


def format_time(time: datetime) -> str:
    """Write an aware time as STAC has it, in UTC."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _read_times(properties: Mapping[str, Any]) -> tuple[datetime, datetime]:
    moment = properties.get("datetime")
    start = moment if moment is not None else properties["start_datetime"]
    end = moment if moment is not None else properties["end_datetime"]
    return _parse_time(start), _parse_time(end)


def _parse_time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return time.astimezone(UTC)


def _check_item(item: Mapping[str, Any]) -> str | None:
    """Say what keeps a JSON object from being an item of Muster's; None when nothing does."""
    try:
        properties, bbox = item["properties"], item["bbox"]
        if item["type"] != "Feature" or not isinstance(properties["muster:trait"], str):
            return "not of a trait"
        if not all(isinstance(item[key], str) and item[key] for key in ("id", "collection")):
            return "no id or no collection"
        if not isinstance(properties["title"], str):
            return "no title"
        if len(bbox) != 4 or not all(math.isfinite(number) for number in bbox):
            return "no bbox"
        if decode_href(item["assets"]["data"]["href"]) is None:
            return "no product beside it"
        _read_times(properties)
        render_stac(item).encode()
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def _read_own_collection(uri: str) -> bytes | None:
    """Return the collection that is there: empty when there is none, None when it is not ours."""
    try:
        content = storage.read_bytes(uri)
    except MissingInput:
        return b""
    try:
        found = json.loads(content)
        ours = found["type"] == "Collection" and "muster:trait" in found["summaries"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    return content if ours else None


def _link(rel: str, name: str, media_type: str, title: str) -> dict[str, str]:
    return {"rel": rel, "href": encode_href(name), "type": media_type, "title": title}
