"""Names of campaigns and catalogues."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.mocks.campaign.naming import (
    DEFAULT_SCHEME,
    campaign_label,
    check_scheme,
    fill_scheme,
    find_clash,
)

FIELDS = {"cosmology": "c000", "phase": "ph3007", "realization": 7, "redshift": 1.1}


@pytest.mark.parametrize(
    ("scheme", "name"),
    [
        (DEFAULT_SCHEME, "mock_z1.100.hdf5"),
        ("mock_{cosmology}_{phase}_{redshift}", "mock_c000_ph3007_1.1.hdf5"),
        ("r{realization:05d}_z{redshift:06.2f}", "r00007_z001.10.hdf5"),
        ("{redshift:.2e}", "1.10e+00.hdf5"),
    ],
)
def test_a_scheme_is_filled(scheme: str, name: str) -> None:
    assert fill_scheme(check_scheme(scheme), FIELDS) == name


@pytest.mark.parametrize(
    "scheme",
    [
        "{redshift.real}", "{redshift[0]}", "{redshift!r}", "{0}", "{}", "{redshift:{phase}}",
        "{redshift:>100}", "{redshift:1000f}", "{redshift:8.3f}", "{redshift:,}", "{phase:10}",
        "{realization:x}", "{redshift", "redshift}", "a/{redshift}", "../{redshift}", ".{redshift}",
        "a b{redshift}", "{redshift}\n", "{redshift}.hdf5", "{{redshift}}", "{redshift}\0",
    ],
)  # fmt: skip
def test_nothing_else_of_str_format_is_taken(scheme: str) -> None:
    with pytest.raises(ValueError, match=r"allowed|suffix|may hold|\{|\}"):
        check_scheme(scheme)


def test_a_field_without_a_value_is_an_error() -> None:
    with pytest.raises(ValueError, match="the box says no phase"):
        fill_scheme("{phase}_{redshift}", {"redshift": 1.0})


def test_redshifts_that_a_scheme_does_not_tell_apart_are_found() -> None:
    fields = [{**FIELDS, "redshift": z} for z in (1.001, 0.5, 1.0012)]
    clash = find_clash(DEFAULT_SCHEME, fields)
    assert clash == "does not tell redshifts apart: 1.001 and 1.0012 are both mock_z1.001.hdf5"
    assert find_clash("mock_z{redshift:.4f}", fields) is None
    assert find_clash("mock_{phase}", fields[:1]) is None


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("Roman GRS", "1.0_roman_grs"),
        ("a-b.c/d", "1.0_a_b_c_d"),
        ("../../etc", "1.0_______etc"),
        ("Évora", "1.0__vora"),
    ],
)
def test_a_campaigns_folder_is_its_version_and_its_name(name: str, label: str) -> None:
    assert campaign_label("1.0", name) == label


@pytest.mark.property
@given(st.text(max_size=30))
def test_an_accepted_scheme_names_a_file_in_its_folder(scheme: str) -> None:
    try:
        name = fill_scheme(check_scheme(scheme), FIELDS)
    except ValueError:
        return
    assert "/" not in name
    assert not name.startswith(".")
    assert name.isprintable()
    assert name.endswith(".hdf5")
