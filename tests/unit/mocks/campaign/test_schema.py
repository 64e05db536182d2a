"""The published JSON Schema is that of the models, and holds files as the models do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from muster.mocks.campaign.config import read_campaign
from muster.mocks.campaign.explain import explain
from muster.mocks.campaign.schema import SCHEMA_FILE, main, render_schema
from muster.mocks.campaign.yaml_document import parse_document
from muster.site import read_site
from tests.unit.mocks.campaign.campaign_files import GOOD, PLAN, change
from tests.unit.mocks.campaign.test_bad_files import BAD

EXAMPLES = Path(__file__).parents[4] / "config" / "examples"
BEYOND_A_SCHEMA = {
    "snapshots", "redshift twice", "NaN", "infinite", "no realization", "too many realizations",
    "include what is excluded", "unknown suite",
    "unknown galaxy model", "unknown option of the box", "option of the box out of range",
    "unknown parameter", "merge key",
    "histories of a model without", "override that selects nothing",
    "override of another redshift", "override that changes nothing", "object store",
    "variable in a path", "level without gzip", "redshifts not told apart",
    "scheme without redshift", "scheme with another field", "scheme that reads attributes",
    "scheme that leaves its folder", "name without a letter", "key twice", "tag", "anchor", "tab",
    "bracket without its partner", "two documents", "key that is no text",
    "line break in a path", "redshift above the suite's",
    "text for a number in the box", "text for a number deep in the box",
    "true for a number in the box", "text for a parameter",
}  # fmt: skip
"""Bad files whose error is none of form: what lies between keys, or in the YAML."""


def published() -> Any:
    return jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text()))


def test_the_published_schema_is_that_of_the_models() -> None:
    assert SCHEMA_FILE.read_text() == render_schema(), "run: python -m muster.mocks.campaign.schema"


def test_it_is_a_schema_and_describes_every_key() -> None:
    schema = json.loads(SCHEMA_FILE.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    for name, block in schema["$defs"].items():
        assert block["description"], name
        for key, value in block["properties"].items():
            assert value["description"].endswith("."), f"{name}.{key}"


def test_publishing_writes_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "campaign.schema.json"
    monkeypatch.setattr("muster.mocks.campaign.schema.SCHEMA_FILE", path)
    assert main() == 0
    assert path.read_text() == SCHEMA_FILE.read_text()


@pytest.mark.parametrize("text", [GOOD, PLAN], ids=["good", "plan"])
def test_good_files_fit_the_schema(text: str) -> None:
    assert list(published().iter_errors(parse_document(text).data)) == []


@pytest.mark.parametrize("case", sorted(BAD.keys() - BEYOND_A_SCHEMA))
def test_a_schema_refuses_the_bad_files_that_it_can(case: str) -> None:
    data = parse_document(change(GOOD, BAD[case][0])).data
    assert not published().is_valid(data), case


@pytest.mark.parametrize(("name", "site"), [("test", "laptop"), ("production", "perlmutter")])
def test_an_example_is_a_campaign_that_its_site_can_run(name: str, site: str) -> None:
    path = EXAMPLES / f"{name}_campaign.yaml"
    text = path.read_text()
    assert text.startswith("# yaml-language-server: $schema=../schemas/campaign.schema.json\n")
    assert (path.parent / "../schemas/campaign.schema.json").resolve() == SCHEMA_FILE
    assert list(published().iter_errors(parse_document(text).data)) == []
    assert explain(read_campaign(path), read_site(site))
