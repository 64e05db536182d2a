"""From the statistics of a campaign to its summary: what is missing, what is unlike the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from muster.errors import ConfigError
from muster.mocks.coordinates import Coordinate
from muster.mocks.qa.bins import COUNTS
from muster.mocks.qa.collect import DECIMALS
from muster.mocks.qa.ensemble import STATISTICS, summarise_campaign
from muster.mocks.qa.outliers import LEAST_BOXES, score_boxes, threshold
from muster.mocks.qa.summary import (
    MOST_LISTED,
    EnsembleSummary,
    Outlier,
    RedshiftSummary,
    StatisticSummary,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from muster.mocks.qa.collect import CampaignStatistics
    from muster.mocks.qa.ensemble import EnsembleStatistic
    from muster.mocks.qa.summary import Figure

OUTLIER_RULE = (
    "cube root of the sum over bins of ((x − median)/(1.4826 MAD))², compared with its own median"
    f" and MAD over the boxes of a redshift; above 6 + 30/N, for N ≥ {LEAST_BOXES}"
)
_DIGITS = 7
"""Significant digits of numbers in a summary."""


@dataclass(frozen=True)
class Expected:
    """The catalogues that a campaign, or a slice of it, is to have: every pair.

    Attributes
    ----------
    realizations : tuple of int
    redshifts : tuple of float
    """

    realizations: tuple[int, ...]
    redshifts: tuple[float, ...]

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Expected:
        """Make it from the input of a step: ``realizations`` and ``redshifts``, two lists.

        Raises
        ------
        ConfigError
            When it is something else.
        """
        realizations, redshifts = data.get("realizations"), data.get("redshifts")
        if (
            set(data) != {"realizations", "redshifts"}
            or not _is_list_of(realizations, int)
            or not _is_list_of(redshifts, (int, float))
        ):
            raise ConfigError(
                "expected catalogues are not described",
                where="expected",
                got=repr(data)[:200],
                expected="{realizations: whole numbers, redshifts: numbers}",
                do="plan the run again with this version of Muster",
            )
        return cls(
            tuple(sorted(set(realizations or ()))),
            tuple(sorted({round(float(z), DECIMALS) for z in redshifts or ()})),
        )


@dataclass
class Judgement:
    """Statistics and outliers of a campaign, as they are found.

    Attributes
    ----------
    statistics : list of EnsembleStatistic
    outliers : list of Outlier
    without_haloes : list of str
        Names of the boxes that have none.
    """

    statistics: list[EnsembleStatistic] = field(default_factory=list)
    outliers: list[Outlier] = field(default_factory=list)
    without_haloes: list[str] = field(default_factory=list)


def judge_campaign(campaign: CampaignStatistics) -> Judgement:
    """Summarise every statistic, and find the boxes that are unlike the others.

    Returns
    -------
    Judgement
        Outliers with the most unlike first.
    """
    judgement = Judgement()

    def find(
        name: str, x: NDArray[Any] | None, mine: NDArray[np.int64], values: NDArray[Any]
    ) -> None:
        scored = score_boxes(values, counts=values.dtype.kind == "i")
        least = threshold(max(1, int(np.isfinite(values).all(axis=1).sum())))
        for place in np.flatnonzero(scored.score > least):
            coordinate = campaign.coordinates[mine[place]]
            judgement.outliers.append(
                Outlier(
                    name=coordinate.name,
                    realization=coordinate.realization,
                    redshift=coordinate.redshift,
                    statistic=name,
                    score=round_number(scored.score[place]) or 0.0,
                    x=None if x is None else round_number(x[scored.bin[place]]),
                    uri=campaign.uri[mine[place]][:2000],
                )
            )

    def visit(found: EnsembleStatistic, mine: NDArray[np.int64], values: NDArray[Any]) -> None:
        find(found.statistic.name, found.x, mine, values)

    judgement.statistics = summarise_campaign(campaign, visit)
    if len(campaign):
        counts = campaign.read("counts")
        empty = np.flatnonzero(counts[:, COUNTS.index("n_halos")] == 0)
        judgement.without_haloes = [campaign.coordinates[row].name for row in empty]
        for redshift in campaign.redshifts:
            mine = campaign.at(redshift)
            for column, name in enumerate(COUNTS):
                find(name, None, mine, counts[mine, column : column + 1])
    judgement.outliers.sort(key=lambda found: (-found.score, found.name, found.statistic))
    return judgement


def find_missing(
    expected: Expected, present: Iterable[Coordinate]
) -> tuple[dict[str, tuple[float, ...]], int]:
    """Find expected catalogues that are not there.

    Returns
    -------
    missing : dict of str to tuple of float
        Folder of a realization → its missing redshifts, both ascending.
    unexpected : int
        How many are there that were not expected.
    """
    there = {(c.realization, c.redshift) for c in present}
    missing: dict[str, tuple[float, ...]] = {}
    for realization in expected.realizations:
        lacking = tuple(z for z in expected.redshifts if (realization, z) not in there)
        if lacking:
            missing[Coordinate(realization, 0.0).folder] = lacking
    wanted = len(expected.realizations) * len(expected.redshifts)
    found = wanted - sum(map(len, missing.values()))
    return missing, len(there) - found


def make_summary(
    campaign: CampaignStatistics,
    judgement: Judgement,
    expected: Expected,
    figures: Iterable[Figure] = (),
) -> EnsembleSummary:
    """Put together what was found."""
    missing, unexpected = find_missing(expected, campaign.coordinates)
    redshifts = sorted({*campaign.redshifts, *expected.redshifts})
    return EnsembleSummary(
        boxes=len(campaign),
        expected_boxes=len(expected.realizations) * len(expected.redshifts),
        unexpected_boxes=unexpected,
        box_size_mpch=round_number(campaign.box_size_mpch),
        redshifts=tuple(
            RedshiftSummary(
                redshift=z,
                boxes=len(campaign.at(z)),
                expected=len(expected.realizations) if z in expected.redshifts else 0,
            )
            for z in redshifts
        ),
        statistics=tuple(_describe(found) for found in judgement.statistics),
        outlier_rule=OUTLIER_RULE,
        outlier_count=len(judgement.outliers),
        outliers=tuple(judgement.outliers[:MOST_LISTED]),
        missing_count=sum(map(len, missing.values())),
        missing=missing,
        problem_count=len(campaign.problems),
        problems=tuple(problem[:2000] for problem in campaign.problems[:MOST_LISTED]),
        warnings=tuple(_list_warnings(campaign, judgement)),
        figures=tuple(figures),
    )


def _list_warnings(campaign: CampaignStatistics, judgement: Judgement) -> Iterable[str]:
    """One line a statistic for what all its covariances lack, and one for each other warning."""
    if not len(campaign):
        yield "there are no statistics at all"
    empty = judgement.without_haloes
    if empty:
        yield f"boxes without haloes: {len(empty):,}, the first {empty[0]}"
    few = [z for z in campaign.redshifts if len(campaign.at(z)) < LEAST_BOXES]
    if few:
        yield f"fewer than {LEAST_BOXES} boxes, outliers are not looked for, at {_list(few)}"
    for statistic in STATISTICS:
        mine = [found for found in judgement.statistics if found.statistic is statistic]
        lacking = [found for found in mine if found.covariance.warnings]
        if lacking:
            yield f"{statistic.name}: {_describe_lack(lacking)}, {_where(lacking, mine)}"
        shared: dict[str, list[float]] = {}
        for found in mine:
            for warning in found.warnings:
                if warning not in found.covariance.warnings:
                    shared.setdefault(warning, []).append(found.redshift)
        for warning, redshifts in shared.items():
            yield f"{statistic.name}: {warning}, at {_list(redshifts)}"


def _describe_lack(lacking: Sequence[EnsembleStatistic]) -> str:
    """Say why the covariances of a statistic have no inverse, all redshifts together."""
    found = [one.covariance for one in lacking]
    if all(one.boxes < 2 for one in found):
        return "no covariance, which needs 2 boxes"
    boxes = _span(one.boxes for one in found)
    bins = _span(len(one.bins) for one in found)
    rank = _span(one.rank for one in found)
    return (
        f"no inverse covariance, which needs N > p + 2 and rank p: N = {boxes} boxes, "
        f"p = {bins} bins, rank {rank}"
    )


def _span(numbers: Iterable[int]) -> str:
    found = sorted(numbers)
    return f"{found[0]}" if found[0] == found[-1] else f"{found[0]} to {found[-1]}"


def _where(some: Sequence[EnsembleStatistic], every: Sequence[EnsembleStatistic]) -> str:
    if len(some) == len(every) > 1:
        return f"at all {len(every)} redshifts"
    where = _list([found.redshift for found in some])
    return f"at {where}" if len(every) == 1 else f"at {len(some)} of {len(every)}: {where}"


def _list(redshifts: list[float]) -> str:
    return "z = " + ", ".join(f"{z:g}" for z in redshifts)


def _describe(found: EnsembleStatistic) -> StatisticSummary:
    low_95, low_68, high_68, high_95 = (round_numbers(q) for q in found.quantiles)
    statistic, covariance = found.statistic, found.covariance
    return StatisticSummary(
        name=statistic.name,
        title=statistic.title,
        x_label=statistic.x_label,
        y_label=statistic.y_label,
        redshift=found.redshift,
        boxes=found.boxes,
        bins=len(covariance.bins),
        x=round_numbers(found.x),
        mean=round_numbers(found.mean),
        low_68=low_68,
        high_68=high_68,
        low_95=low_95,
        high_95=high_95,
        rank=covariance.rank,
        hartlap=covariance.hartlap,
        inverse=covariance.precision is not None,
        gaussian_ratio=round_number(found.gaussian_ratio),
        warnings=found.warnings,
    )


def round_number(value: float | None) -> float | None:
    """Return a number with so many digits as a summary has; None for what is not finite."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{_DIGITS}g}")


def round_numbers(values: NDArray[Any]) -> tuple[float | None, ...]:
    """Return numbers as :func:`round_number` does."""
    return tuple(round_number(float(value)) for value in values)


def _is_list_of(value: object, kinds: type | tuple[type, ...]) -> bool:
    if not isinstance(value, list | tuple):
        return False
    numbers = (isinstance(item, kinds) and not isinstance(item, bool) for item in value)
    return all(numbers) and all(math.isfinite(item) for item in value)
