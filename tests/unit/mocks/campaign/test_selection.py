"""Which catalogues a run is about, and in which order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from muster.errors import ConfigError
from muster.mocks.campaign.selection import Selection, count_slices, parse_realizations, select
from muster.mocks.coordinates import Coordinate
from tests.unit.mocks.campaign.campaign_files import make_campaign

if TYPE_CHECKING:
    from pathlib import Path

    from muster.mocks.campaign.config import Campaign

SLICED = ("batch_size: 4", "slice_realizations: 4")


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    return make_campaign(tmp_path, SLICED)


def test_realizations_are_a_range_with_single_ones_added_and_left_out(tmp_path: Path) -> None:
    stated = "realizations: {count: 4, start: 10, step: 5, include: [3, 90], exclude: [15]}"
    campaign = make_campaign(tmp_path, ("realizations: 10", stated))
    assert campaign.science.realizations.numbers == (3, 10, 20, 25, 90)
    assert campaign.science.realizations.notes == []
    stated = "realizations: {count: 3, include: [2, 1, 7, 1], exclude: [0, 9]}"
    realizations = make_campaign(tmp_path, ("realizations: 10", stated)).science.realizations
    assert realizations.numbers == (1, 2, 7)
    assert realizations.notes == [
        "include: 1, 2 is among the realizations of the range already",
        "exclude: 9 is not among the realizations of the range",
    ]


def test_depth_first_completes_a_realization_breadth_first_a_redshift(campaign: Campaign) -> None:
    depth = select(campaign, Selection(first=3))
    assert depth == [Coordinate(0, 1.1), Coordinate(0, 0.5), Coordinate(1, 1.1)]
    breadth = select(campaign, Selection(order="breadth_first", first=11))
    assert breadth[:2] == [Coordinate(0, 1.1), Coordinate(1, 1.1)]
    assert breadth[-1] == Coordinate(0, 0.5)
    assert sorted(select(campaign, Selection(order="breadth_first"))) == sorted(select(campaign))


def test_the_campaigns_own_order_is_the_default(tmp_path: Path) -> None:
    campaign = make_campaign(tmp_path, ("batch_size: 4", "order: breadth_first"))
    assert [c.realization for c in select(campaign)[:10]] == list(range(10))


def test_slices_are_the_whole_campaign_and_share_nothing(campaign: Campaign) -> None:
    assert count_slices(campaign) == 3
    slices = [select(campaign, Selection(slice_index=n)) for n in range(3)]
    assert [len(part) for part in slices] == [8, 8, 4]
    assert sorted(c for part in slices for c in part) == sorted(select(campaign))


def test_slices_follow_the_numbers_where_some_are_left_out(tmp_path: Path) -> None:
    campaign = make_campaign(
        tmp_path, SLICED, ("realizations: 10", "realizations: {count: 8, exclude: [0, 1]}")
    )
    assert {c.realization for c in select(campaign, Selection(slice_index=0))} == {2, 3, 4, 5}


def test_filters_choose_realizations_and_redshifts(campaign: Campaign) -> None:
    chosen = select(campaign, Selection(realizations=(7, 2), redshifts=(0.5,)))
    assert chosen == [Coordinate(2, 0.5), Coordinate(7, 0.5)]
    almost = select(campaign, Selection(redshifts=(0.1 + 0.4, 1.1 + 1e-12)))
    assert len(almost) == 20


@pytest.mark.parametrize(
    ("selection", "says"),
    [
        (Selection(slice_index=3), "no such slice; where: 1.0_small_boxes; got: 3; expected: 0 to"),
        (Selection(slice_index=-1), "no such slice"),
        (Selection(realizations=(3, 10)), "no such realization; got: 10; expected: 0, 1, 2"),
        (Selection(realizations=()), "no realization is selected"),
        (Selection(redshifts=(0.6,)), r"no such redshift; got: 0.6; expected: 1.1, 0.5"),
        (Selection(order="sideways"), "unknown order; got: sideways; expected: depth_first"),
        (Selection(first=0), "first selects nothing"),
    ],
)
def test_what_selects_nothing_is_an_error(
    campaign: Campaign, selection: Selection, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        select(campaign, selection)


def test_realizations_are_written_as_ranges() -> None:
    assert parse_realizations("0-3, 7,2") == (0, 1, 2, 3, 7)
    for wrong in ("", "3-", "-3", "a", "3-1", "1-9999999", "٣"):
        with pytest.raises(ConfigError, match="realizations"):
            parse_realizations(wrong)
