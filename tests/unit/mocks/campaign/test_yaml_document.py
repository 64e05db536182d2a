"""YAML as plain data with lines, and back."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from muster.mocks.campaign.render_yaml import render_document
from muster.mocks.campaign.yaml_document import parse_document

SCALARS = {
    "1e10": 1e10, "1.5": 1.5, ".5": 0.5, "5.": 5.0, "-3": -3, "+3": 3, "0": 0,
    "true": True, "False": False, "null": None, "~": None, "": None, "yes": "yes", "no": "no",
    "on": "on", "Off": "Off", "12:30:00": "12:30:00", "1:30": "1:30", "0x10": "0x10",
    "1_000": "1_000", "2026-11-30": "2026-11-30", "'3'": "3", '"true"': "true", "=": "=",
    "1.0.0": "1.0.0", "v1": "v1", "3 4": "3 4", "nan": "nan", "e5": "e5", "-": None,
}  # fmt: skip


@pytest.mark.parametrize("written", sorted(SCALARS.keys() - {"-"}))
def test_a_scalar_means_what_the_core_schema_says(written: str) -> None:
    document = parse_document(f"key: {written}\n")
    assert document.problems == ()
    assert document.data["key"] == SCALARS[written]
    assert type(document.data["key"]) is type(SCALARS[written])


def test_every_key_and_item_has_its_line() -> None:
    document = parse_document("a: 1\n\nb:\n  c: [1,\n      2]\n  d:\n  - x\n  - y: 1\n")
    assert document.lines == {
        ("a",): 1,
        ("b",): 3,
        ("b", "c"): 4,
        ("b", "c", "0"): 4,
        ("b", "c", "1"): 5,
        ("b", "d"): 6,
        ("b", "d", "0"): 7,
        ("b", "d", "1"): 8,
        ("b", "d", "1", "y"): 8,
    }
    assert document.line_of(("b", "c", "7")) == 4
    assert document.line_of(("z",)) is None
    assert document.stated(("b", "c", "7")) == ("b", "c")
    assert document.stated(("b", "z")) is None


def test_texts_that_look_like_numbers_stay_as_they_are_written() -> None:
    text = "version: 1.10\ntags: [2026, 0x1, 1e5]\n"
    data = parse_document(text, [("version",), ("tags", "*")]).data
    assert data == {"version": "1.10", "tags": ["2026", "0x1", "1e5"]}


def test_a_key_given_twice_keeps_its_first_value_and_is_a_problem() -> None:
    document = parse_document("a: 1\nb: 2\na: 3\na: 4\n")
    assert document.data == {"a": 1, "b": 2}
    assert [p.message for p in document.problems] == [
        "given twice, first in line 1; and again in line 3",
        "given twice, first in line 1; and again in line 4",
    ]


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=20)
    | st.sampled_from(sorted(SCALARS)),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.mark.property
@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), values, min_size=1))
def test_what_is_rendered_reads_back_the_same_by_both_versions_of_yaml(
    data: dict[str, object],
) -> None:
    text = render_document(data)
    document = parse_document(text)
    assert document.problems == ()
    assert document.data == data
    assert repr(document.data) == repr(data)
    assert yaml.safe_load(text) == data


@pytest.mark.property
@given(st.text(max_size=200))
def test_any_text_is_data_or_problems_with_keys_that_have_lines(text: str) -> None:
    document = parse_document(text)
    assert document.problems or document.data or text.strip()
    for problem in document.problems:
        assert problem.path == () or problem.path in document.lines
