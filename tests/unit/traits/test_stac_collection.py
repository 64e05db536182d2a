"""The collection of a folder: what lies there and nothing else, valid, and written by anybody."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import jsonschema
import pystac
import pytest
from pystac.validation.local_validator import get_local_schema_cache
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

from muster import storage
from muster.errors import InvalidInput, MissingInput
from muster.traits.band_names import item_name
from muster.traits.product import stac_collection
from muster.traits.product.stac_collection import (
    decode_href,
    encode_href,
    join_boxes,
    make_collection,
    read_item,
    render_stac,
    write_collection,
)
from tests.s3_server import empty_bucket

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def check_collection(document: dict[str, Any]) -> None:
    """Validate against the core schemas that come with pystac."""
    schemas = get_local_schema_cache()
    registry: Any = Registry().with_resources(
        (uri, Resource(contents=schema, specification=DRAFT7)) for uri, schema in schemas.items()
    )
    uri = "https://schemas.stacspec.org/v1.1.0/collection-spec/json-schema/collection.json"
    jsonschema.Draft7Validator(schemas[uri], registry=registry).validate(document)


def make_item(trait: str = "X50", **changes: Any) -> dict[str, Any]:
    """Make an item like those of make_item, as far as a collection looks at it."""
    properties = {
        "title": f"{trait}: Leaf",
        "datetime": "2024-05-06T00:00:00Z",
        "muster:trait": trait,
        "muster:trait_set": "splot",
        "muster:unit": "MPa",
        "proj:code": "EPSG:6933",
        **changes.pop("properties", {}),
    }
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [],
        "id": trait,
        "collection": "muster-traits-splot",
        "geometry": {
            "type": "Polygon",
            "coordinates": [[[1, 2], [3, 2], [3, 4], [1, 4], [1, 2]]],
        },
        "bbox": [1.0, 2.0, 3.0, 4.0],
        "links": [{"rel": "collection", "href": "./collection.json"}],
        "assets": {"data": {"href": encode_href(f"{trait}.tif")}},
        "properties": properties,
        **changes,
    }


def put(folder: str, trait: str = "X50", *, product: bool = True, **changes: Any) -> dict[str, Any]:
    """Put an item, and perhaps a product, into a folder."""
    item = make_item(trait, **changes)
    if product:
        storage.write_bytes(storage.join(folder, f"{trait}.tif"), b"II*")
    storage.write_text(storage.join(folder, item_name(trait)), render_stac(item))
    return item


def items_in(folder: str) -> list[str]:
    """List the file names that a folder's collection links to."""
    collection = read_item(storage.join(folder, "collection.json"))
    return [
        unquote(link["href"]).removeprefix("./")
        for link in collection["links"]
        if link["rel"] == "item"
    ]


@pytest.fixture
def bucket(s3_server: str) -> Iterator[None]:
    with empty_bucket(s3_server, "maps"):
        yield


@pytest.fixture(params=["path", "file", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder of each kind, with a name that careless quoting breaks."""
    name = "maps 100% & #1?"
    if request.param == "s3":
        request.getfixturevalue("bucket")
        return f"s3://maps/{request.node.name}/{name}"
    path = tmp_path / name
    return path.as_uri() if request.param == "file" else str(path)


def test_lists_what_lies_in_the_folder(folder: str) -> None:
    put(folder, "X55", bbox=[-10.0, -5.0, 2.0, 3.0], properties={"muster:unit": "mm"})
    put(folder, "X50", properties={"datetime": "2024-05-06T00:00:00.5Z"})
    put(folder, "größe #1? 100%", properties={"proj:code": None})
    uri = write_collection(folder)
    assert uri == storage.join(folder, "collection.json")
    text = storage.read_text(uri)
    collection = json.loads(text)
    check_collection(collection)
    assert text == render_stac(collection)
    assert items_in(folder) == ["X50.json", "X55.json", "größe #1? 100%.json"]
    assert all(storage.exists(storage.join(folder, name)) for name in items_in(folder))
    assert collection["id"] == "muster-traits-splot"
    assert collection["license"] == "other"
    assert "splot" in collection["title"]
    assert collection["extent"] == {
        "spatial": {"bbox": [[-10, -5, 3, 4]]},
        "temporal": {"interval": [["2024-05-06T00:00:00Z", "2024-05-06T00:00:00.500000Z"]]},
    }
    assert collection["summaries"]["proj:code"] == ["EPSG:6933"]
    assert collection["summaries"]["muster:unit"] == ["MPa", "mm"]
    assert collection["summaries"]["muster:trait"] == ["X50", "X55", "größe #1? 100%"]
    assert "self" not in {link["rel"] for link in collection["links"]}
    assert all(link["href"].startswith("./") for link in collection["links"])
    assert folder not in text


def test_leaves_out_an_item_whose_product_has_vanished(folder: str) -> None:
    put(folder, "X50")
    put(folder, "X55")
    write_collection(folder)
    assert items_in(folder) == ["X50.json", "X55.json"]
    storage.delete(storage.join(folder, "X50.tif"))
    write_collection(folder)
    assert items_in(folder) == ["X55.json"]
    storage.delete(storage.join(folder, "X55.tif"))
    assert write_collection(folder) is None
    assert not storage.exists(storage.join(folder, "collection.json"))


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[1]",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"type": "FeatureCollection", "features": []}',
        render_stac(make_item(properties={"muster:trait": 1})).encode(),
        render_stac(make_item(collection="")).encode(),
        render_stac(make_item(bbox=[1, 2, 3])).encode(),
        render_stac(make_item(bbox=[1, 2, 3, "4"])).encode(),
        json.dumps(make_item(bbox=[1, 2, 3, float("nan")])).encode(),
        render_stac(make_item(properties={"datetime": None})).encode(),
        render_stac(make_item(properties={"datetime": "2024-05-06T00:00:00"})).encode(),
        render_stac(make_item(properties={"title": None})).encode(),
        json.dumps(make_item(properties={"title": "\ud800"})).encode(),
        render_stac(make_item(assets={"data": {"href": "https://a.example/X50.tif"}})).encode(),
        render_stac(make_item(assets={"data": {"href": "./..%2FX50.tif"}})).encode(),
        render_stac(make_item(assets=[])).encode(),
    ],
)
def test_leaves_out_what_is_not_ours(tmp_path: Path, content: bytes) -> None:
    put(str(tmp_path), "X55")
    put(str(tmp_path), "X50")
    (tmp_path / "other.json").write_bytes(content)
    (tmp_path / "folder.json").mkdir()
    (tmp_path / ".hidden.json").write_text(render_stac(make_item()))
    (tmp_path / "X50.geojson").write_text(render_stac(make_item()))
    write_collection(str(tmp_path))
    assert items_in(str(tmp_path)) == ["X50.json", "X55.json"]


def test_an_absurdly_large_file_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(str(tmp_path), "X55")
    put(str(tmp_path), "X50", properties={"padding": " " * 5000})
    monkeypatch.setattr(stac_collection, "_MOST_BYTES", 4000)
    write_collection(str(tmp_path))
    assert items_in(str(tmp_path)) == ["X55.json"]


def test_somebody_elses_collection_is_left_alone(folder: str) -> None:
    uri = storage.join(folder, "collection.json")
    put(folder)
    for content in ('{"type": "Collection", "id": "mine", "summaries": {}}', "{", "[]"):
        storage.write_text(uri, content)
        assert write_collection(folder) is None
        assert storage.read_text(uri) == content


def test_a_trait_called_collection_has_an_item_and_spares_the_collection(folder: str) -> None:
    names = ["collection", "Collection", "collection.item", "X50"]
    assert len({item_name(name).casefold() for name in names}) == len(names) - 1
    for trait in ("collection", "collection.item", "X50"):
        put(folder, trait)
    write_collection(folder)
    assert items_in(folder) == ["X50.json", "collection.item.item.json", "collection.item.json"]
    assert read_item(storage.join(folder, "collection.json"))["type"] == "Collection"


def test_is_not_written_again_without_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(str(tmp_path))
    write_collection(str(tmp_path))
    before = (tmp_path / "collection.json").stat()
    monkeypatch.setattr(storage, "write_bytes", lambda *_: pytest.fail("written again"))
    write_collection(str(tmp_path))
    assert (tmp_path / "collection.json").stat() == before


def test_two_runs_that_end_at_once_leave_the_full_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(tmp_path)
    put(folder, "X50")
    write = storage.write_bytes
    raced = []

    def write_late(uri: str, data: bytes) -> None:
        if not raced:
            # Between this run's look and its write, another one ends and writes what it sees.
            raced.append(uri)
            put(folder, "X55")
            write_collection(folder)
            assert items_in(folder) == ["X50.json", "X55.json"]
        write(uri, data)

    monkeypatch.setattr(storage, "write_bytes", write_late)
    write_collection(folder)
    assert raced
    assert items_in(folder) == ["X50.json", "X55.json"]


def test_an_item_that_vanishes_meanwhile_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(str(tmp_path), "X50")
    put(str(tmp_path), "X55")
    names = storage.list(str(tmp_path))
    (tmp_path / "X55.json").unlink()
    monkeypatch.setattr(storage, "list", lambda _: names)
    write_collection(str(tmp_path))
    assert items_in(str(tmp_path)) == ["X50.json"]


def test_an_empty_folder_has_no_collection(tmp_path: Path) -> None:
    assert write_collection(str(tmp_path)) is None
    assert write_collection(str(tmp_path / "absent")) is None
    assert list(tmp_path.iterdir()) == []


def test_what_it_says_can_be_given(tmp_path: Path) -> None:
    put(str(tmp_path))
    write_collection(str(tmp_path), title="Globe", description="All of it.", license_id="CC-BY-4.0")
    collection = read_item(str(tmp_path / "collection.json"))
    check_collection(collection)
    assert collection["title"] == "Globe"
    assert collection["description"] == "All of it."
    assert collection["license"] == "CC-BY-4.0"
    with pytest.raises(InvalidInput, match="no item"):
        make_collection({})


def test_a_collection_depends_on_its_items_alone() -> None:
    one, other = make_item("X50"), make_item("X55")
    collection = make_collection({"X50.json": one, "X55.json": other})
    assert render_stac(collection) == render_stac(
        make_collection({"X55.json": other, "X50.json": one})
    )
    gbif = make_item("A", collection="muster-traits-gbif")
    mixed = {"X50.json": one, "X55.json": other, "A.json": gbif}
    assert make_collection(mixed)["id"] == "muster-traits-splot"


def test_intervals_and_moments_make_one_extent_in_time() -> None:
    year = {
        "datetime": None,
        "start_datetime": "2023-12-31T23:00:00-02:00",
        "end_datetime": "2024-12-31T23:59:59Z",
    }
    items = {"a": make_item(properties=year), "b": make_item()}
    interval = make_collection(items)["extent"]["temporal"]["interval"]
    assert interval == [["2024-01-01T01:00:00Z", "2024-12-31T23:59:59Z"]]


@pytest.mark.parametrize(
    ("boxes", "joined"),
    [
        ([[1, 2, 3, 4]], [1, 2, 3, 4]),
        ([[1, 2, 3, 4], [-5, 3, 2, 9]], [-5, 2, 3, 9]),
        ([[160, -10, -155, 10]], [160, -10, -155, 10]),
        ([[160, 0, -155, 1], [-150, 0, -140, 1]], [160, 0, -140, 1]),
        ([[160, 0, -155, 1], [150, 0, 170, 1]], [150, 0, -155, 1]),
        ([[170, 0, -140, 1], [-170, 0, -160, 1]], [170, 0, -140, 1]),
        ([[170, 0, 180, 1], [-180, 0, -170, 1]], [170, 0, -170, 1]),
        ([[-180, 0, 180, 1], [5, -3, 6, 1]], [-180, -3, 180, 1]),
        ([[-180, 0, 0, 1], [0, 0, 180, 1]], [-180, 0, 180, 1]),
        ([[-170, 0, 100, 1], [90, 0, -160, 1]], [-180, 0, 180, 1]),
        ([[0, 0, 10, 1], [120, 0, 130, 1], [-120, 0, -100, 1]], [-120, 0, 130, 1]),
        ([[100, 0, 180, 1]], [100, 0, 180, 1]),
        ([[-72.549174678, 0, -71.409116219, 1]], [-72.549174678, 0, -71.409116219, 1]),
    ],
)
def test_boxes_join_over_the_antimeridian(boxes: list[list[float]], joined: list[float]) -> None:
    assert join_boxes(boxes) == joined
    assert join_boxes(boxes[::-1]) == joined


def test_pystac_walks_from_the_collection_to_the_products(tmp_path: Path) -> None:
    put(str(tmp_path), "X50")
    put(str(tmp_path), "X55")
    uri = write_collection(str(tmp_path))
    assert uri is not None
    collection = pystac.Collection.from_file(uri)
    items = list(collection.get_items())
    assert [item.id for item in items] == ["X50", "X55"]
    assert items[1].get_collection() is collection
    assert items[1].assets["data"].get_absolute_href() == str(tmp_path / "X55.tif")


@pytest.mark.parametrize(
    "href", ["/X.tif", "X.tif", "./", "./a%2Fb", "../X.tif", "https://a.example/b", None, 3]
)
def test_references_elsewhere_are_no_names(href: object) -> None:
    assert decode_href(href) is None


def test_an_item_is_read_and_what_is_none_is_refused(folder: str) -> None:
    item = put(folder)
    uri = storage.join(folder, "X50.json")
    assert read_item(uri) == item
    with pytest.raises(MissingInput):
        read_item(storage.join(folder, "absent.json"))
    for content in (b"{", b"", b"\xff", b"[" * 100_000, b"[1]", b'"text"'):
        storage.write_bytes(uri, content)
        with pytest.raises(InvalidInput, match=r"not JSON|not a STAC item"):
            read_item(uri)
    storage.write_bytes(uri, b'{"any": "object"}')
    assert read_item(uri) == {"any": "object"}


def test_needs_no_compute_library() -> None:
    code = (
        "import sys, muster.traits.product.stac_collection as module\n"
        "heavy = {'numpy', 'rasterio', 'pyproj', 'pystac', 'scipy', 'matplotlib', 'lightgbm'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
