"""The item of a product: valid STAC, and every number of it that of the file."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import struct
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin
from urllib.request import urlopen

import jsonschema
import numpy as np
import pystac
import pytest
import rasterio
from pystac.validation.local_validator import get_local_schema_cache
from rasterio.crs import CRS
from rasterio.transform import Affine
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

from muster.errors import ConfigError, InvalidInput, MissingInput
from muster.raster.grid import Band, Grid
from muster.raster.write.cog import CogFormat, write_cog
from muster.traits.product.build import FINGERPRINTS_TAG, build_final_product_trait
from muster.traits.product.stac import (
    INTERVAL_TAG,
    TRAIT_SET_TAG,
    ProductFacts,
    make_item,
    write_item,
)
from muster.traits.product.stac_collection import decode_href, read_items, render_stac

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CREATED = datetime(2025, 6, 7, 8, 9, 10, tzinfo=UTC)
GRID = Grid(CRS.from_epsg(6933), Affine(1000, 0, -7_000_000, 0, -500, 3_000_000), 70, 110)
STAGE = CogFormat("float64", float("nan"), block_px=256, overviews=False, sparse=True)
HOSTILE = "größe 50%25 #1?x=&\"'é漢;:@[a]+\\.tif"

URI_REFERENCE = re.compile(r"\./([A-Za-z0-9._~-]|%[0-9A-F]{2})+")
"""What RFC 3986 lets one name be without any character of a meaning."""

EXTENSIONS: dict[str, Any] = {
    "required": ["stac_extensions", "properties", "assets"],
    "properties": {
        "stac_extensions": {
            "allOf": [
                {"contains": {"const": f"https://stac-extensions.github.io/{name}/schema.json"}}
                for name in ("projection/v2.0.0", "raster/v2.0.0", "file/v2.1.0")
            ]
        },
        "properties": {
            "required": ["proj:code", "proj:shape", "proj:transform", "proj:bbox"],
            "properties": {
                "proj:code": {"type": ["string", "null"], "pattern": r"^[A-Z][A-Za-z0-9_]*:\w+$"},
                "proj:wkt2": {"type": "string", "pattern": r"^[A-Z]+CRS\["},
                "proj:shape": {
                    "type": "array",
                    "items": {"type": "integer", "minimum": 1},
                    "minItems": 2,
                    "maxItems": 2,
                },
                "proj:transform": {
                    "type": "array",
                    "items": {"type": "number"},
                    "oneOf": [{"minItems": n, "maxItems": n} for n in (6, 9)],
                },
                "proj:bbox": {
                    "type": "array",
                    "items": {"type": "number"},
                    "minItems": 4,
                    "maxItems": 4,
                },
            },
            "if": {"properties": {"proj:code": {"type": "null"}}},
            "then": {"required": ["proj:wkt2"]},
        },
        "assets": {
            "required": ["data"],
            "properties": {
                "data": {
                    "required": ["bands"],
                    "properties": {
                        "type": {
                            "const": "image/tiff; application=geotiff; profile=cloud-optimized"
                        },
                        "roles": {"contains": {"const": "data"}},
                        "bands": {
                            "minItems": 1,
                            "items": {
                                "required": [
                                    "name",
                                    "description",
                                    "nodata",
                                    "data_type",
                                    "raster:scale",
                                    "raster:offset",
                                ],
                                "properties": {
                                    "raster:scale": {"type": "number"},
                                    "raster:offset": {"type": "number"},
                                },
                            },
                        },
                    },
                },
            },
            "patternProperties": {
                "": {
                    "required": ["href", "file:size", "file:checksum", "roles", "type"],
                    "properties": {
                        "file:size": {"type": "integer", "minimum": 0},
                        # Multihash: 0x12 is SHA-2 of 256 bits, 0x20 its length.
                        "file:checksum": {"type": "string", "pattern": "^1220[0-9a-f]{64}$"},
                    },
                }
            },
        },
    },
}
"""What the three extensions demand of the fields that an item of ours has."""


def check_stac(document: dict[str, Any]) -> None:
    """Validate against the core schemas that come with pystac, with nothing from the network."""
    schemas = get_local_schema_cache()
    registry: Any = Registry().with_resources(
        (uri, Resource(contents=schema, specification=DRAFT7)) for uri, schema in schemas.items()
    )
    kind = {"Feature": "item", "Collection": "collection"}[document["type"]]
    schema = schemas[f"https://schemas.stacspec.org/v1.1.0/{kind}-spec/json-schema/{kind}.json"]
    jsonschema.Draft7Validator(schema, registry=registry).validate(document)


def check_item(item: dict[str, Any]) -> None:
    check_stac(item)
    jsonschema.Draft7Validator(EXTENSIONS).validate(item)


@pytest.fixture
def product(make_bundle: Callable[..., str], tmp_path: Path) -> Path:
    """A product as the step build makes it, X50.png beside it; (row, col) differ."""
    row, col = np.mgrid[0 : GRID.height, 0 : GRID.width]
    layers = {
        "prediction": {"X50 prediction": np.sin(row / 9) * 40 + col / 11},
        "cov": {"coefficient of variation": np.abs(np.cos(col / 7)) * 0.4},
        "aoa": {"area of applicability": (row + col > 90).astype(float)},
    }
    bands = {}
    for name, values in layers.items():
        path = tmp_path / f"stage {name}.tif"
        tags = {"MUSTER_FINGERPRINT": f"fingerprint of {name}"}
        with write_cog(path, GRID, [Band(each) for each in values], STAGE, tags=tags) as cog:
            cog.write(GRID.whole, np.stack(list(values.values())))
        bands[name] = str(path)
    folder = tmp_path / "maps"
    folder.mkdir()
    build_final_product_trait(
        bundle=make_bundle(),
        bands=bands,
        product=folder / "X50.tif",
        quicklook=folder / "X50.png",
        tags={"TRAIT_SET": "splot"},
    )
    return folder / "X50.tif"


def write_product(path: Path, grid: Grid, **tags: str) -> Path:
    """Write a small product on any grid, of any trait."""
    trait = tags.setdefault("MUSTER_TRAIT", "X50")
    bands = [Band(f"{trait} prediction", unit="MPa", scale=0.5, offset=-3.0)]
    with write_cog(path, grid, bands, CogFormat("int16", -32768), tags=tags) as cog:
        cog.write(grid.whole, np.ones((1, grid.height, grid.width), dtype=np.int16))
    return path


def item_of(product: Path, **facts: Any) -> dict[str, Any]:
    quicklook = product.with_suffix(".png")
    about = ProductFacts(**{"created": CREATED, **facts})
    return make_item(product, quicklook if quicklook.exists() else None, about)


def test_is_valid(product: Path) -> None:
    item = item_of(product, try_id="try 7", inside_fraction=0.25, engines={"aoa": "numba"})
    check_item(item)
    assert pystac.Item.from_dict(copy.deepcopy(item)).id == item["id"] == "X50"
    assert item["stac_version"] == "1.1.0"


def test_the_validation_refuses(product: Path) -> None:
    for path, value in (
        (["properties", "proj:shape"], [70.5, 110]),
        (["properties", "proj:transform"], [1.0]),
        (["properties", "proj:code"], None),
        (["assets", "data", "file:checksum"], "1220" + "F" * 64),
        (["assets", "thumbnail", "file:checksum"], "1114" + "0" * 40),
        (["assets", "data", "file:size"], "12"),
        (["assets", "data", "bands"], []),
        (["properties", "datetime"], None),
        (["collection"], ""),
        (["bbox"], [1, 2, 3]),
    ):
        item = item_of(product)
        place = item
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        with pytest.raises(jsonschema.ValidationError):
            check_item(item)


def test_says_where_the_pixels_lie(product: Path) -> None:
    properties = item_of(product)["properties"]
    assert properties["proj:code"] == "EPSG:6933"
    assert properties["proj:shape"] == [70, 110]
    assert properties["proj:transform"] == [1000, 0, -7_000_000, 0, -500, 3_000_000]
    assert properties["proj:bbox"] == [-7_000_000, 2_965_000, -6_890_000, 3_000_000]
    with rasterio.open(product) as dataset:
        a, b, c, d, e, f = properties["proj:transform"]
        x, y = dataset.xy(12, 34)
        assert (a * 34.5 + b * 12.5 + c, d * 34.5 + e * 12.5 + f) == (x, y)
        assert properties["proj:bbox"] == list(dataset.bounds)
        assert properties["proj:shape"] == list(dataset.shape)


def test_says_where_on_earth(product: Path) -> None:
    item = item_of(product)
    west, south, east, north = item["bbox"]
    # In EPSG:6933 x grows evenly with the longitude, and y with the sine of the authalic latitude,
    # to 7,342,230 m at the pole; the latitude is some 0.1288° sin 2β greater than that.
    assert west == pytest.approx(-7_000_000 / 17_367_530.445161 * 180, abs=1e-6)
    assert east == pytest.approx(-6_890_000 / 17_367_530.445161 * 180, abs=1e-6)
    for latitude, y in ((south, 2_965_000), (north, 3_000_000)):
        beta = np.arcsin(y / 7_342_230.136)
        assert latitude == pytest.approx(np.degrees(beta) + 0.1288 * np.sin(2 * beta), abs=2e-3)
    assert item["geometry"]["type"] == "Polygon"


def test_describes_files_and_bands(product: Path) -> None:
    item = item_of(product, statistics={"prediction": {"minimum": -32767, "maximum": 32767}})
    assert set(item["assets"]) == {"data", "thumbnail"}
    for name, file in (("data", product), ("thumbnail", product.with_suffix(".png"))):
        asset = item["assets"][name]
        content = file.read_bytes()
        assert asset["href"] == f"./{file.name}"
        assert asset["file:size"] == len(content)
        assert asset["file:checksum"] == "1220" + hashlib.sha256(content).hexdigest()
    bands = item["assets"]["data"]["bands"]
    with rasterio.open(product) as dataset:
        assert [band["raster:scale"] for band in bands] == list(dataset.scales)
        assert [band["raster:offset"] for band in bands] == list(dataset.offsets)
        stored = dataset.read(1)
        values = stored * bands[0]["raster:scale"] + bands[0]["raster:offset"]
        assert values[3, 77] == pytest.approx(np.sin(3 / 9) * 40 + 77 / 11, abs=0.01)
    assert [band["name"] for band in bands] == ["prediction", "cov", "aoa"]
    assert [band["unit"] for band in bands] == ["mm²/mg", "1", "1"]
    assert [band["nodata"] for band in bands] == [-32768] * 3
    assert {band["data_type"] for band in bands} == {"int16"}
    assert bands[1]["description"] == "coefficient of variation"
    assert bands[2]["description"] == (
        "area of applicability: 1 = inside the area of applicability, 0 = outside"
    )
    assert bands[0]["statistics"] == {"minimum": -32767, "maximum": 32767}
    assert "statistics" not in bands[1]
    thumbnail = item["assets"]["thumbnail"]
    assert thumbnail["type"] == "image/png"
    assert thumbnail["roles"] == ["thumbnail", "overview"]
    assert thumbnail["proj:code"] is None
    start = product.with_suffix(".png").read_bytes()
    assert tuple(thumbnail["proj:shape"]) == struct.unpack(">II", start[16:24])[::-1]


def test_without_a_quicklook(product: Path) -> None:
    product.with_suffix(".png").unlink()
    item = item_of(product)
    check_item(item)
    assert set(item["assets"]) == {"data"}


def test_says_what_made_it(product: Path) -> None:
    facts = {"try_id": 7, "inside_fraction": 0.25, "engines": {"aoa": "numba"}}
    properties = item_of(product, **facts)["properties"]
    with rasterio.open(product) as dataset:
        tags = dataset.tags()
    assert properties["title"] == "X50: Specific leaf area"
    assert "Specific leaf area" in properties["description"]
    ours = {key.partition(":")[2]: v for key, v in properties.items() if key.startswith("muster:")}
    assert ours == {
        "trait": "X50",
        "unit": "mm²/mg",
        "description": "Specific leaf area",
        "trait_set": "splot",
        "try_id": 7,
        "inside_fraction": 0.25,
        "engines": {"aoa": "numba"},
        "cv": {"r2": 0.5, "rmse": 1.25},
        "fingerprints": json.loads(tags[FINGERPRINTS_TAG]),
        "model_sha256": tags["MUSTER_MODEL_SHA256"],
        "version": tags["MUSTER_VERSION"],
        "tags_sha256": tags["MUSTER_TAGS_SHA256"],
    }
    assert ours["fingerprints"]["aoa"] == "fingerprint of aoa"
    plain = item_of(product)["properties"]
    assert not {"muster:try_id", "muster:inside_fraction", "muster:engines"} & set(plain)
    assert item_of(product, trait_set="gbif")["properties"]["muster:trait_set"] == "gbif"


def test_stands_for_the_time_it_was_made_without_an_interval(product: Path) -> None:
    properties = item_of(product, created=CREATED.astimezone(timezone(timedelta(hours=9))))[
        "properties"
    ]
    assert properties["datetime"] == properties["created"] == "2025-06-07T08:09:10Z"
    assert "start_datetime" not in properties


@pytest.mark.parametrize(
    ("start", "end", "label", "last"),
    [
        ("2024-01-01", "2025-01-01", "2024", "2024-12-31T23:59:59Z"),
        ("2024-03-01", "2024-04-01", "2024-03", "2024-03-31T23:59:59Z"),
        ("2024-03-05", "2024-03-06", "2024-03-05", "2024-03-05T23:59:59Z"),
    ],
)
@pytest.mark.parametrize("said", ["by the caller", "by the product"])
def test_stands_for_its_interval(
    tmp_path: Path, start: str, end: str, label: str, last: str, said: str
) -> None:
    first, until = (datetime.fromisoformat(f"{day}T00:00:00+00:00") for day in (start, end))
    interval = f"{first.isoformat()}/{until.isoformat()}"
    product = write_product(
        tmp_path / "X50.tif",
        GRID,
        **{TRAIT_SET_TAG: "splot"} | ({INTERVAL_TAG: interval} if "product" in said else {}),
    )
    item = item_of(product, **({} if "product" in said else {"interval": (first, until)}))
    check_item(item)
    properties = item["properties"]
    assert item["id"] == f"X50-{label}"
    assert item["collection"] == f"muster-traits-splot-{label}"
    assert properties["datetime"] is None
    assert properties["start_datetime"] == f"{start}T00:00:00Z"
    # STAC's end belongs to the interval, Muster's does not.
    assert properties["end_datetime"] == last
    assert properties["created"] == "2025-06-07T08:09:10Z"
    assert properties["muster:interval"] == label


def test_the_same_product_gives_the_same_bytes(product: Path, tmp_path: Path) -> None:
    facts = {"inside_fraction": 0.1, "engines": {"b": "1", "a": "2"}}
    text = render_stac(item_of(product, **facts))
    # As the runner stages it: elsewhere, and under another name.
    staged = tmp_path / "elsewhere" / ".X50.tif.host-123.part"
    staged.parent.mkdir()
    staged.write_bytes(product.read_bytes())
    staged.with_suffix(".png").write_bytes(product.with_suffix(".png").read_bytes())
    again = render_stac(item_of(staged, **{**facts, "engines": {"a": "2", "b": "1"}}))
    assert text == again
    assert text.endswith("}\n")
    assert json.dumps(json.loads(text), sort_keys=True) == json.dumps(json.loads(text))
    assert str(tmp_path) not in text
    assert text != render_stac(item_of(product, **facts, try_id=1))


def test_links_lead_to_the_collection_beside_it_and_not_to_itself(product: Path) -> None:
    links = item_of(product)["links"]
    assert {link["rel"]: link["href"] for link in links} == dict.fromkeys(
        ("collection", "parent", "root"), "./collection.json"
    )


def test_is_written_whole(product: Path) -> None:
    item = item_of(product)
    path = product.with_suffix(".json")
    write_item(item, path)
    assert path.read_text(encoding="utf-8") == render_stac(item)
    assert json.loads(path.read_bytes()) == item
    read = pystac.Item.from_file(str(path))
    assert read.assets["data"].get_absolute_href() == str(product)
    with pytest.raises(InvalidInput, match="cannot be written as JSON"):
        write_item({**item, "bbox": [float("nan")]}, path)
    assert json.loads(path.read_bytes()) == item


def test_any_name_is_a_valid_reference_to_the_file(product: Path) -> None:
    base = product.with_name("X50.json").as_uri()
    for name in (HOSTILE, "a b.tif", "100%.tif", "%41.tif", "q?.tif", "#.tif"):
        file = product.with_name(name)
        file.write_bytes(product.read_bytes())
        picture = product.with_name(f"{name}.png")
        picture.write_bytes(product.with_suffix(".png").read_bytes())
        about = ProductFacts(CREATED, product_name=name, quicklook_name=picture.name)
        item = make_item(file, picture, about)
        check_item(item)
        for asset, meant in (("data", file), ("thumbnail", picture)):
            href = item["assets"][asset]["href"]
            assert URI_REFERENCE.fullmatch(href), href
            assert decode_href(href) == meant.name
            with urlopen(urljoin(base, href)) as found:
                assert found.read() == meant.read_bytes()


def test_any_trait_gives_a_safe_id_of_its_own(tmp_path: Path) -> None:
    ids = set()
    traits = ["X50", "x50", "X 50", "X_50", "X#50", "größe", "groesse", "..", "100%", "漢"]
    for trait in traits:
        item = item_of(write_product(tmp_path / "p.tif", GRID, MUSTER_TRAIT=trait))
        check_item(item)
        assert re.fullmatch(r"[A-Za-z0-9._-]+", item["id"])
        assert item["id"].strip(".")
        assert item["properties"]["muster:trait"] == trait
        assert decode_href(item["assets"]["data"]["href"]) == f"{trait}.tif"
        ids.add(item["id"])
    assert len(ids) == len(traits)


@pytest.mark.parametrize(
    ("code", "transform", "shape", "bbox", "kind"),
    [
        ("EPSG:4326", Affine(0.5, 0, 160, 0, -0.25, 10), (20, 90), (160, 5, -155, 10), "Multi"),
        ("EPSG:4326", Affine(3, 0, -180, 0, -2, 90), (90, 120), (-180, -90, 180, 90), ""),
        (
            "EPSG:6933",
            Affine(180911.77547043, 0, -17367530.445161, 0, -140664.2467430, 7314540.830638),
            (104, 192),
            (-180, -85.04457, 180, 85.04457),
            "",
        ),
        (
            "EPSG:3413",
            Affine(1e5, 0, -3.85e6, 0, -1e5, 5.85e6),
            (112, 76),
            (-180, 30.98, 180, 90),
            "",
        ),
        (
            "EPSG:3413",
            Affine(1e5, 0, -2.5e6, 0, -1e5, 2.5e6),
            (10, 15),
            (156.80, 58.17, -165.96, 73.47),
            "Multi",
        ),
    ],
    ids=["antimeridian", "world in degrees", "world in metres", "pole", "polar antimeridian"],
)
def test_grids_that_four_corners_would_get_wrong(
    tmp_path: Path, code: str, transform: Affine, shape: Any, bbox: Any, kind: str
) -> None:
    grid = Grid(CRS.from_string(code), transform, *shape)
    item = item_of(write_product(tmp_path / "X50.tif", grid))
    check_item(item)
    assert item["bbox"] == pytest.approx(bbox, abs=0.01)
    assert item["geometry"]["type"] == f"{kind}Polygon"
    assert item["properties"]["proj:code"] == code
    assert item["properties"]["proj:shape"] == list(shape)


def test_a_crs_without_a_code_is_written_out(tmp_path: Path) -> None:
    crs = CRS.from_string("+proj=laea +lat_0=10 +lon_0=20 +datum=WGS84")
    item = item_of(write_product(tmp_path / "X50.tif", Grid(crs, GRID.transform, 7, 11)))
    check_item(item)
    assert item["properties"]["proj:code"] is None
    assert CRS.from_wkt(item["properties"]["proj:wkt2"]) == crs


def test_a_crs_that_is_only_like_one_with_a_code_is_written_out(tmp_path: Path) -> None:
    wkt = CRS.from_epsg(3413).to_wkt(version="WKT2_2019").removesuffix(',ID["EPSG",3413]]') + "]"
    wkt = wkt.replace('standard parallel",70', 'standard parallel",60')
    path = write_product(tmp_path / "X50.tif", Grid(CRS.from_wkt(wkt), GRID.transform, 7, 11))
    properties = item_of(path)["properties"]
    assert properties["proj:code"] is None
    assert 'standard parallel",60' in properties["proj:wkt2"]


def test_metrics_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    cv = '{"r2": NaN, "rmse": 1.5, "mae": Infinity, "n": 30}'
    item = item_of(write_product(tmp_path / "X50.tif", GRID, MUSTER_CV=cv), inside_fraction=np.nan)
    check_item(item)
    assert item["properties"]["muster:cv"] == {"rmse": 1.5, "n": 30}
    assert "muster:inside_fraction" not in item["properties"]
    render_stac(item)


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"MUSTER_TRAIT": ""}, "not a product of Muster"),
        ({"MUSTER_CV": "{"}, "MUSTER_CV is no JSON"),
        ({"MUSTER_FINGERPRINTS": "[1]"}, "MUSTER_FINGERPRINTS is no JSON object"),
        ({"INTERVAL": "2024"}, "INTERVAL is no interval"),
    ],
)
def test_what_is_no_product_is_refused(tmp_path: Path, tags: dict[str, str], said: str) -> None:
    path = write_product(tmp_path / "X50.tif", GRID, **tags)
    with pytest.raises(InvalidInput, match=said) as caught:
        item_of(path)
    assert str(path) in str(caught.value)


def test_item_of_what_lies_nowhere_on_earth_has_no_geometry_and_is_in_no_collection(
    tmp_path: Path,
) -> None:
    local = CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]')
    path = write_product(tmp_path / "X50.tif", Grid(local, GRID.transform, 7, 11))
    item = item_of(path)
    assert item["geometry"] is None
    assert "bbox" not in item
    assert item["properties"]["proj:shape"] == [7, 11]
    write_item(item, tmp_path / "X50.json")
    assert read_items(str(tmp_path)) == {}


def test_what_cannot_be_told_is_refused(product: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no zone"):
        item_of(product, created=datetime(2024, 1, 1))
    with pytest.raises(ConfigError, match="ends before it starts"):
        item_of(product, interval=(CREATED, CREATED))
    with pytest.raises(MissingInput):
        item_of(product.with_name("absent.tif"))
    with pytest.raises(MissingInput):
        make_item(product, product.with_name("absent.png"), ProductFacts(CREATED))
    with pytest.raises(InvalidInput, match="no PNG"):
        make_item(product, product, ProductFacts(CREATED))
