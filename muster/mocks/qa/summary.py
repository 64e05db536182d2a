"""The summary of an ensemble as JSON: what QA found, for the report and for other programs.

It is written by a step and read by the side that makes reports, which has no compute library; what
is read may be anything and is bounded and checked.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, ValidationError

from muster import storage
from muster.errors import InvalidInput
from muster.frozen import Frozen

MOST_BYTES = 64 * 1024**2
"""Of a summary that is read; one of 20 redshifts has half a megabyte."""

MOST_LISTED = 1000
"""Outliers and problems that are listed one by one; counts hold all of them."""

Text = Annotated[str, Field(max_length=2000)]
Number = float | None
"""None where there is no value."""


class RedshiftSummary(Frozen):
    """Boxes of one redshift: how many there are, and how many were expected."""

    redshift: float
    boxes: int
    expected: int


class StatisticSummary(Frozen):
    """One statistic at one redshift.

    Attributes
    ----------
    name, title, x_label, y_label : str
        Which, with units.
    redshift : float
    boxes : int
        N.
    bins : int
        p, the bins that vary.
    x, mean, low_68, high_68, low_95, high_95 : tuple of float or None
        A value a bin: the mean over boxes, and the bands that hold 68 and 95 % of them.
    rank : int
        Of the correlation matrix.
    hartlap : float or None
        (N − p − 2)/(N − 1); None where N ≤ p + 2.
    inverse : bool
        Whether there is an inverse covariance.
    gaussian_ratio : float or None
        Of the power spectrum: variance over 2P²/N_k, mean over shells.
    warnings : tuple of str
    """

    name: Text
    title: Text
    x_label: Text
    y_label: Text
    redshift: float
    boxes: int
    bins: int
    x: tuple[Number, ...]
    mean: tuple[Number, ...]
    low_68: tuple[Number, ...]
    high_68: tuple[Number, ...]
    low_95: tuple[Number, ...]
    high_95: tuple[Number, ...]
    rank: int
    hartlap: Number
    inverse: bool
    gaussian_ratio: Number
    warnings: tuple[Text, ...]


class Outlier(Frozen):
    """A box that is unlike the others of its redshift.

    Attributes
    ----------
    name : str
        Of the catalogue: r0007_z1.100.
    realization : int
    redshift : float
    statistic : str
        In which it is.
    score : float
        Robust standard deviations.
    x : float or None
        Where the statistic deviates most.
    uri : str
        The catalogue.
    """

    name: Text
    realization: int
    redshift: float
    statistic: Text
    score: float
    x: Number
    uri: Text


class Figure(Frozen):
    """A PNG in the folder of the figures."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,80}\.png$")]
    title: Text


class EnsembleSummary(Frozen):
    """What QA found in the statistics of a campaign.

    Attributes
    ----------
    boxes : int
        Catalogues with statistics.
    expected_boxes : int
        Catalogues that were expected.
    unexpected_boxes : int
        Of ``boxes`` those that were not expected; they are part of the ensemble.
    box_size_mpch : float or None
    redshifts : tuple of RedshiftSummary
    statistics : tuple of StatisticSummary
    outlier_rule : str
        How outliers are found.
    outlier_count : int
    outliers : tuple of Outlier
        The most unlike first, at most :data:`MOST_LISTED`.
    missing_count : int
    missing : dict of str to tuple of float
        Folder of a realization → its redshifts that are missing.
    problem_count : int
    problems : tuple of str
        Files and rows that could not be used, at most :data:`MOST_LISTED`.
    warnings : tuple of str
    figures : tuple of Figure
    """

    version: int = 1
    boxes: int
    expected_boxes: int
    unexpected_boxes: int
    box_size_mpch: Number
    redshifts: tuple[RedshiftSummary, ...]
    statistics: tuple[StatisticSummary, ...]
    outlier_rule: Text
    outlier_count: int
    outliers: tuple[Outlier, ...]
    missing_count: int
    missing: dict[str, tuple[float, ...]]
    problem_count: int
    problems: tuple[Text, ...]
    warnings: tuple[Text, ...]
    figures: tuple[Figure, ...]


def read_summary(uri: str) -> EnsembleSummary:
    """Read and check a summary.

    Raises
    ------
    MissingInput
        When there is none.
    InvalidInput
        When it is too large, or no summary.
    """
    size = storage.stat(uri).bytes
    if size > MOST_BYTES:
        raise InvalidInput(
            "summary is too large",
            where=uri,
            got=f"{size} bytes",
            expected=f"≤ {MOST_BYTES}",
            do="remove it: the next run writes it again",
        )
    try:
        return EnsembleSummary.model_validate_json(storage.read_bytes(uri))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise InvalidInput(
            "not the summary of an ensemble",
            where=uri,
            got=f"{'.'.join(map(str, first['loc']))}: {first['msg']}",
            do="run the step mocks.qa again",
        ) from error
