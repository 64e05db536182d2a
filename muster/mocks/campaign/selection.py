"""Which of a campaign's catalogues a run is about, and in which order.

Numbers and redshifts are the campaign's own: what selects none of them is an error, so that a
slip of the pen does not end as an empty run.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from muster.errors import ConfigError
from muster.mocks.coordinates import Coordinate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from muster.mocks.campaign.config import Campaign

SAME_REDSHIFT = 1e-9
"""Difference below which a redshift of the command line is the campaign's."""


@dataclass(frozen=True)
class Selection:
    """A part of a campaign.

    Attributes
    ----------
    slice_index : int or None
        The n-th slice of ``execution.slice_realizations`` realizations, from 0.
    realizations : tuple of int or None
        Numbers; all by default.
    redshifts : tuple of float or None
        All by default.
    order : {"depth_first", "breadth_first"} or None
        The campaign's by default.
    first : int or None
        The first so many, in that order.
    """

    slice_index: int | None = None
    realizations: tuple[int, ...] | None = None
    redshifts: tuple[float, ...] | None = None
    order: str | None = None
    first: int | None = None


def parse_realizations(text: str) -> tuple[int, ...]:
    """Parse numbers and ranges, both ends included: "0-99,120,200-299".

    Raises
    ------
    ConfigError
        When it is neither.
    """
    numbers: dict[int, None] = {}
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        ends = (low, high if dash else low)
        if not all(end.isascii() and end.isdigit() and len(end) <= 6 for end in ends):
            raise ConfigError(
                "no realizations",
                got=repr(part),
                expected="as in 0-99,120",
                do="write numbers and ranges, separated by commas",
            )
        start, stop = int(ends[0]), int(ends[1])
        if start > stop:
            raise ConfigError(
                "a range of realizations ends before it starts",
                got=part,
                expected="as in 0-99",
                do="write the lower number first",
            )
        numbers.update(dict.fromkeys(range(start, stop + 1)))
    return tuple(numbers)


def count_slices(campaign: Campaign) -> int:
    """Count the slices of a campaign."""
    numbers = campaign.science.realizations.numbers
    return -(-len(numbers) // campaign.execution.slice_realizations)


def select(campaign: Campaign, selection: Selection | None = None) -> list[Coordinate]:
    """List catalogues in the order in which they are made.

    Parameters
    ----------
    campaign : Campaign
        The campaign.
    selection : Selection, optional
        A part of it; all by default.

    Raises
    ------
    ConfigError
        When it names a slice, realization, redshift or order that the campaign does not have.
    """
    chosen = selection or Selection()
    realizations = _slice(campaign, chosen.slice_index)
    if chosen.realizations is not None:
        known = campaign.science.realizations.numbers
        absent = sorted({*chosen.realizations} - {*known})
        _check_known("realization", chosen.realizations, absent, known)
        wanted = frozenset(chosen.realizations)
        realizations = [number for number in realizations if number in wanted]
    redshifts = _choose_redshifts(campaign, chosen.redshifts)
    order = chosen.order or campaign.execution.order
    if order not in ("depth_first", "breadth_first"):
        raise ConfigError(
            "unknown order",
            got=order,
            expected="depth_first, breadth_first",
            do="choose one of these",
        )
    if chosen.first is not None and chosen.first < 1:
        raise ConfigError(
            "first selects nothing",
            got=chosen.first,
            expected="at least 1",
            do="give a number of 1 or more, or leave it out",
        )
    return list(islice(_walk(realizations, redshifts, order), chosen.first))


def _walk(
    realizations: Sequence[int], redshifts: Sequence[float], order: str
) -> Iterator[Coordinate]:
    if order == "depth_first":
        return (Coordinate(r, z) for r in realizations for z in redshifts)
    return (Coordinate(r, z) for z in redshifts for r in realizations)


def _slice(campaign: Campaign, index: int | None) -> list[int]:
    numbers = list(campaign.science.realizations.numbers)
    if index is None:
        return numbers
    slices = count_slices(campaign)
    if not 0 <= index < slices:
        raise ConfigError(
            "the campaign has no such slice",
            where=campaign.label,
            got=index,
            expected=f"0 to {slices - 1}",
            do="choose one of these slices",
        )
    size = campaign.execution.slice_realizations
    return numbers[index * size : (index + 1) * size]


def _choose_redshifts(campaign: Campaign, wanted: Sequence[float] | None) -> list[float]:
    known = campaign.science.redshifts
    if wanted is None:
        return list(known)
    absent = [w for w in wanted if not any(_is_close(w, z) for z in known)]
    _check_known("redshift", wanted, absent, known)
    return [z for z in known if any(_is_close(z, other) for other in wanted)]


def _check_known(
    what: str, wanted: Sequence[float], absent: Sequence[float], known: Sequence[float]
) -> None:
    if not wanted:
        raise ConfigError(
            f"no {what} is selected", do="name one at least, or leave the selection out"
        )
    if absent:
        shown = ", ".join(map(str, absent[:5])) + (" …" if len(absent) > 5 else "")
        few = known if len(known) <= 25 else (*known[:3], "…", known[-1])
        raise ConfigError(
            f"the campaign has no such {what}",
            got=shown,
            expected=", ".join(map(str, few)),
            do="choose among these",
        )


def _is_close(one: float, other: float) -> bool:
    return abs(one - other) < SAME_REDSHIFT
