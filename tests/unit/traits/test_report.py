"""What lies beside a product, as the report reads it: there, absent, broken, or too much."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest

from muster import storage
from muster.model.outcome import Outcome
from muster.traits import report
from muster.traits.report import TraitResult, link_product, read_output, read_results
from tests.s3_server import empty_bucket
from tests.stories import make_run, make_story, whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# 3 × 2 pixels, grey.
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAMAAAACCAAAAAC4HznGAAAAEElEQVR4nGNoaGj4/5/hPwAOgQR/2hKzUgAAAABJRU5E"
    "rkJggg=="
)
ITEM = {
    "muster:trait": "a",
    "muster:unit": "mm²",
    "muster:try_id": 3117,
    "muster:description": "Area of a leaf",
    "muster:cv": {"r2": 0.5, "rmse": 2.0, "n": 150, "mae": None, "other": 1},
    "muster:inside_fraction": 0.75,
    "muster:engines": {"prediction": "numba", "aoa": "faiss"},
}


def results(folder: Path, *traits: str, **steps: Any) -> list[TraitResult]:
    products = {trait: str(folder / f"{trait}.tif") for trait in traits}
    story = make_story(
        {trait: whole(**steps) for trait in traits}, make_run(facts={"products": products})
    )
    return read_results(story, str(folder))


def write_item(folder: Path, properties: Any) -> None:
    (folder / "a.json").write_text(json.dumps({"properties": properties}), encoding="utf-8")


def test_a_trait_says_what_its_item_and_its_picture_say(tmp_path: Path) -> None:
    write_item(tmp_path, ITEM)
    (tmp_path / "a.png").write_bytes(PNG)
    (found,) = results(tmp_path, "a")
    assert (found.unit, found.try_id, found.description) == ("mm²", "3117", "Area of a leaf")
    assert found.cv == {"r2": 0.5, "rmse": 2.0, "n": 150}
    assert found.inside_fraction == 0.75
    assert found.engines == ("prediction numba", "aoa faiss")
    assert found.picture is not None
    assert (found.picture.width, found.picture.height) == (3, 2)
    assert found.picture.data_uri == f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    assert found.link == "../a.tif"


@pytest.mark.parametrize(
    "item",
    [
        None, "no JSON", "[1]", "[" * 100_000, '{"properties": 3}', "\xff",
        '{"properties": {"muster:cv": "x",'
        '"muster:unit": ["mm"], "muster:inside_fraction": NaN, "muster:try_id": true}}',
    ],
)  # fmt: skip
def test_without_an_item_that_can_be_read_nothing_is_known(
    tmp_path: Path, item: str | None
) -> None:
    if item is not None:
        (tmp_path / "a.json").write_bytes(item.encode("latin-1"))
    (found,) = results(tmp_path, "a")
    assert (found.unit, found.try_id, found.description) == (None, None, None)
    assert (found.cv, found.inside_fraction, found.engines) == ({}, None, ())
    assert found.product == str(tmp_path / "a.tif")


def test_a_picture_that_is_none_is_left_out_and_said(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"<svg onload='alert(1)'>" * 10)
    (tmp_path / "b.png").mkdir()
    found = results(tmp_path, "a", "b", "c")
    assert [r.picture for r in found] == [None] * 3
    for result, said in zip(found, ("not a PNG", "not a file", "no picture at"), strict=True):
        assert said in (result.note or "")


def test_pictures_stop_where_a_mail_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MOST_PICTURE_BYTES", 2 * len(PNG))
    for trait in "abc":
        (tmp_path / f"{trait}.png").write_bytes(PNG)
    found = results(tmp_path, "a", "b", "c")
    assert [r.picture is not None for r in found] == [True, True, False]
    assert "too many bytes" in (found[2].note or "")


def test_an_older_product_is_not_told_as_this_runs(tmp_path: Path) -> None:
    write_item(tmp_path, ITEM)
    (tmp_path / "a.png").write_bytes(PNG)
    (found,) = results(tmp_path, "a", build=(Outcome.TRANSIENT,))
    assert found.state == "failed"
    assert (found.product, found.picture, found.unit) == (None, None, None)
    (reused,) = results(tmp_path, "a", state="reused")
    assert reused.picture is not None


@pytest.fixture
def bucket(s3_server: str) -> Iterator[str]:
    with empty_bucket(s3_server, "reports"):
        yield "s3://reports/with blank"


def test_what_lies_on_s3_is_read_there(bucket: str) -> None:
    storage.write_bytes(f"{bucket}/a.png", PNG)
    storage.write_text(f"{bucket}/a.json", json.dumps({"properties": ITEM}))
    products = {trait: f"{bucket}/{trait}.tif" for trait in "ab"}
    story = make_story({"a": whole(), "b": whole()}, make_run(facts={"products": products}))
    a, b = read_results(story, bucket)
    assert (a.unit, a.link) == ("mm²", "../a.tif")
    assert a.picture is not None
    assert (b.unit, b.picture, b.note) == (None, None, f"there is no picture at {bucket}/b.png")


@pytest.mark.parametrize(
    ("product", "output", "link"),
    [
        ("/maps/a b#?.tif", "/maps", "../a%20b%23%3F.tif"),
        ("/maps/2001/a.tif", "/maps/", "../2001/a.tif"),
        ("s3://bucket/maps/a%.tif", "s3://bucket/maps", "../a%25.tif"),
        ("file:///my%20maps/a%20b.tif", "file:///my%20maps", "../a%20b.tif"),
        ("/maps/javascript:alert(1).tif", "/maps", "../javascript%3Aalert%281%29.tif"),
        ("/elsewhere/a.tif", "/maps", None),
        ("/maps2/a.tif", "/maps", None),
        ("javascript:alert(1)", None, None),
    ],
)
def test_a_link_leads_from_the_report_to_the_product(
    product: str, output: str | None, link: str | None
) -> None:
    assert link_product(product, output) == link


def test_the_output_is_that_of_the_interval() -> None:
    params = {
        "traits": ["a"], "predictors": ["/p.tif"], "models": "/m", "output": "/maps/{trait_set}",
        "trait_set": "splot", "interval_start": "2001-01-01T00:00:00Z",
        "interval_end": "2002-01-01T00:00:00Z",
    }  # fmt: skip
    assert read_output(make_run(params=params)) == "/maps/splot/2001"
    assert read_output(make_run(params={**params, "output": "/maps/{month}", "x": 1})) is None
