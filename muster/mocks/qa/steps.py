"""The steps mocks.collect (a batch's statistics into one file) and mocks.qa (the ensemble)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from muster import storage
from muster.errors import ConfigError
from muster.mocks.coordinates import name_redshift
from muster.mocks.qa.collect import collect_statistics, read_campaign
from muster.mocks.qa.judge import Expected, judge_campaign, make_summary
from muster.mocks.qa.plots import draw_ensemble
from muster.model.step import StepContext

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from muster.mocks.qa.ensemble import EnsembleStatistic

_TOLD = 20
"""Problems and outliers that go into the facts of an attempt; the summary has all of them."""


def collect_batch(
    *,
    catalogues: list[dict[str, Any]],
    statistics: Path,
    context: StepContext = StepContext(),  # noqa: B008 - frozen
) -> dict[str, Any]:
    """Collect the statistics of a batch's catalogues into one Parquet file.

    Parameters
    ----------
    catalogues : list of dict
        ``realization``, ``redshift``, ``redshift_index``, ``uri`` and ``fingerprint`` of each.
    statistics : Path
        The Parquet file to write, a row a catalogue.
    context : StepContext
        For progress.

    Returns
    -------
    dict
        ``catalogues``, ``collected``, and ``problems`` with the first lines of what could not be
        collected: a catalogue that cannot be read ends no other.

    Raises
    ------
    ConfigError
        When an entry is not described as it should be.
    Transient
        When storage did not answer.
    """
    collected = collect_statistics(catalogues, statistics, progress=context.progress)
    return {
        "catalogues": len(catalogues),
        "collected": collected.rows,
        "problem_count": len(collected.problems),
        "problems": list(collected.problems[:_TOLD]),
    }


def check_ensemble(
    *,
    statistics_folder: str,
    expected: dict[str, Any],
    figures: str,
    summary: Path,
    matrices: Path | None = None,
    context: StepContext = StepContext(),  # noqa: B008 - frozen
) -> dict[str, Any]:
    """Judge the ensemble of a campaign from the statistics of its batches.

    Parameters
    ----------
    statistics_folder : str
        Folder of the Parquet files of :func:`collect_batch`.
    expected : dict
        ``realizations`` and ``redshifts``, two lists: every pair is expected to be there.
    figures : str
        Folder for the plots (file:// or S3); each is written aside and renamed.
    summary : Path
        The JSON summary to write, see :class:`muster.mocks.qa.summary.EnsembleSummary`.
    matrices : Path, optional
        A NumPy archive to write: for each statistic and redshift ``NAME/zZ.ZZZ/`` x, mean,
        covariance, correlation and, where there is one, precision (Hartlap's factor applied).
    context : StepContext
        For progress.

    Returns
    -------
    dict
        Counts of boxes, missing catalogues, outliers, problems and warnings, and the names of the
        first of them.  Missing files and rows are reported and end nothing.

    Raises
    ------
    ConfigError
        When ``expected`` or ``statistics_folder`` is not as it should be.
    Transient
        When storage did not answer.
    """
    wanted = Expected.parse(expected)
    folder = storage.local_path(statistics_folder)
    if folder is None:
        raise ConfigError(
            "statistics are read from a file system",
            where="statistics_folder",
            got=statistics_folder,
            expected="a path or file://",
            do="set outputs.base_path to a path",
        )
    campaign = read_campaign(folder)
    context.progress(0.3, f"{len(campaign)} catalogues")
    judgement = judge_campaign(campaign)
    context.progress(0.6, "plots")
    drawn = draw_ensemble(campaign, judgement.statistics, figures)
    found = make_summary(campaign, judgement, wanted, drawn)
    with storage.os_errors_at(summary):
        summary.write_text(found.model_dump_json(indent=1), encoding="utf-8")
    if matrices is not None:
        write_matrices(matrices, judgement.statistics)
    return {
        "boxes": found.boxes,
        "expected": found.expected_boxes,
        "missing": found.missing_count,
        "outlier_count": found.outlier_count,
        "outliers": list(dict.fromkeys(outlier.name for outlier in found.outliers))[:_TOLD],
        "problem_count": found.problem_count,
        "problems": list(found.problems[:_TOLD]),
        "warning_count": len(found.warnings),
        "warnings": list(found.warnings[:_TOLD]),
        "figures": len(drawn),
    }


def write_matrices(path: Path, statistics: Sequence[EnsembleStatistic]) -> None:
    """Write means, covariances and their inverses as a NumPy archive (no pickles).

    Raises
    ------
    InvalidInput, Transient
        When the file cannot be written.
    """
    arrays: dict[str, Any] = {}
    for found in statistics:
        key = f"{found.statistic.name}/{name_redshift(found.redshift)}"
        bins = found.covariance.bins
        arrays[f"{key}/x"] = found.x[bins]
        arrays[f"{key}/mean"] = found.mean[bins]
        arrays[f"{key}/boxes"] = np.array(found.boxes)
        arrays[f"{key}/covariance"] = found.covariance.covariance
        arrays[f"{key}/correlation"] = found.covariance.correlation
        if found.covariance.precision is not None:
            arrays[f"{key}/precision"] = found.covariance.precision
    with storage.os_errors_at(path), path.open("wb") as file:  # a name would get a suffix
        np.savez_compressed(file, allow_pickle=False, **arrays)
