"""Means, bands, covariances and outliers of an ensemble against formulas and brute force."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from muster.counts import count_of
from muster.mocks.qa.bins import HALO_MASS, SFR
from muster.mocks.qa.collect import read_campaign
from muster.mocks.qa.ensemble import (
    STATISTICS,
    average_histogram,
    estimate_covariance,
    hartlap_factor,
    summarise,
    summarise_campaign,
)
from muster.mocks.qa.judge import Expected, find_missing, judge_campaign
from muster.mocks.qa.outliers import LEAST_BOXES, score_boxes, threshold
from muster.mocks.qa.statistics_file import write_statistics
from tests.unit.mocks.qa.made_statistics import (
    BOX_SIZE_MPCH,
    HALO_COUNTS,
    POWER,
    draw,
    make_row,
    modes,
    write_campaign,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

BY_NAME = {statistic.name: statistic for statistic in STATISTICS}


def draw_correlated(rng: np.random.Generator, boxes: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Draw boxes of four bins whose variances differ by 16 orders; return their covariance too."""
    mix = np.array([[1, 0, 0, 0], [0.6, 0.8, 0, 0], [0.3, -0.4, 0.7, 0], [0, 0.5, 0.2, 0.6]])
    scale = np.array([1e-8, 1e-3, 1.0, 1e4])
    spread = scale[:, None] * mix
    values = 5 * scale + rng.normal(size=(boxes, 4)) @ spread.T
    return values, spread @ spread.T


def test_covariance_equals_that_of_numpy() -> None:
    values, _ = draw_correlated(np.random.default_rng(1), 30)
    found = estimate_covariance(values)
    np.testing.assert_allclose(found.covariance, np.cov(values, rowvar=False), rtol=1e-12)
    np.testing.assert_allclose(found.correlation, np.corrcoef(values, rowvar=False), rtol=1e-12)
    scale = np.sqrt(np.diag(found.covariance))
    inverse = np.linalg.inv(found.correlation) / np.outer(scale, scale)
    assert found.hartlap == (30 - 4 - 2) / 29
    assert found.precision is not None
    np.testing.assert_allclose(found.precision, found.hartlap * inverse)
    assert (found.rank, found.boxes, found.warnings) == (4, 30, ())


def test_hartlaps_factor_makes_the_inverse_unbiased() -> None:
    rng = np.random.default_rng(2)
    ratios = []
    for _ in range(1500):
        values, true = draw_correlated(rng, 12)
        found = estimate_covariance(values)
        assert found.precision is not None
        # Ψ C has the unit matrix as its mean, whatever the units.
        ratios.append(np.trace(found.precision @ true) / 4)
    error = np.std(ratios) / np.sqrt(len(ratios))
    assert abs(np.mean(ratios) - 1) < 4 * error
    biased = np.mean(ratios) * (12 - 1) / (12 - 4 - 2)
    assert abs(biased - 1) > 20 * error


@pytest.mark.parametrize(
    ("boxes", "bins", "factor"),
    [(100, 16, 82 / 99), (19, 16, 1 / 18), (18, 16, None), (2, 1, None)],
)
def test_hartlaps_factor(boxes: int, bins: int, factor: float | None) -> None:
    assert hartlap_factor(boxes, bins) == factor


def test_too_few_boxes_for_an_inverse_are_warned_of() -> None:
    values = np.random.default_rng(3).normal(size=(7, 5))
    found = estimate_covariance(values)
    assert found.precision is None
    assert found.hartlap is None
    assert found.warnings == ("7 boxes for 5 bins: an inverse needs more than p + 2",)
    assert estimate_covariance(values[:, :4]).precision is not None


def test_a_short_rank_is_warned_of() -> None:
    values = np.random.default_rng(4).normal(size=(50, 4))
    values[:, 3] = 2 * values[:, 0] - values[:, 1]
    found = estimate_covariance(values)
    assert (found.rank, found.precision) == (3, None)
    assert found.warnings == ("the covariance has rank 3 of 4: it has no inverse",)


def test_bins_that_never_vary_are_left_out() -> None:
    values = np.random.default_rng(5).normal(size=(50, 4))
    values[:, 1] = 7.0
    found = estimate_covariance(values)
    assert found.bins.tolist() == [0, 2, 3]
    assert found.covariance.shape == (3, 3)
    assert found.hartlap == (50 - 3 - 2) / 49


@pytest.mark.parametrize("boxes", [0, 1])
def test_one_box_has_no_covariance(boxes: int) -> None:
    found = estimate_covariance(np.ones((boxes, 3)))
    assert found.precision is None
    assert found.warnings == (f"{count_of(boxes, 'box', 'boxes')}: a covariance needs 2",)


def test_bands_hold_their_share_of_the_boxes() -> None:
    rng = np.random.default_rng(6)
    values = rng.normal(3.0, 2.0, size=(20_000, 2))
    found = summarise(BY_NAME["power"], 0.5, values, box_size_mpch=100.0, k_hmpc=np.ones(2))
    # Quantiles of a normal distribution, and the density there, for their standard errors.
    sigmas_of = (-1.95996, -0.99446, 0.99446, 1.95996)
    densities = (0.0584, 0.2433, 0.2433, 0.0584)
    for got, sigmas, density in zip(found.quantiles, sigmas_of, densities, strict=True):
        share = 0.16 if abs(sigmas) < 1 else 0.025
        error = 2.0 * np.sqrt(share * (1 - share) / 20_000) / density
        assert (np.abs(got - (3.0 + 2.0 * sigmas)) < 5 * error).all()
    np.testing.assert_array_equal(
        found.quantiles, np.quantile(values, (0.025, 0.16, 0.84, 0.975), axis=0)
    )
    np.testing.assert_allclose(found.mean, values.mean(axis=0))


def test_counts_become_densities(tmp_path: Path) -> None:
    write_campaign(tmp_path, range(200))
    found = {s.statistic.name: s for s in summarise_campaign(read_campaign(tmp_path))}
    halos = found["halo_mass_function"]
    expected = HALO_COUNTS / (BOX_SIZE_MPCH**3 * HALO_MASS.width)
    error = np.sqrt(HALO_COUNTS / 200) / (BOX_SIZE_MPCH**3 * HALO_MASS.width)
    assert (np.abs(halos.mean - expected) <= 4.5 * error).all()
    np.testing.assert_array_equal(halos.x, HALO_MASS.centres)
    assert halos.covariance.bins.tolist() == list(range(40))
    variance = np.diag(halos.covariance.covariance) * (BOX_SIZE_MPCH**3 * HALO_MASS.width) ** 2
    assert np.mean(variance / HALO_COUNTS[:40]) == pytest.approx(1.0, abs=4 * np.sqrt(2 / 199 / 40))
    rates = found["sfr_function"]
    above = np.mean([draw(5000 + n).sfr_cumulative for n in range(200)], axis=0)
    np.testing.assert_allclose(rates.mean, above / BOX_SIZE_MPCH**3)
    np.testing.assert_array_equal(rates.x, SFR.edges[:-1])


def test_power_of_an_ensemble_is_compared_with_a_gaussian_field(tmp_path: Path) -> None:
    write_campaign(tmp_path, range(300))
    found = summarise_campaign(read_campaign(tmp_path))[0]
    assert found.statistic.name == "power"
    error = POWER * np.sqrt(2 / modes() / 300)
    assert (np.abs(found.mean - POWER) < 4 * error).all()
    assert found.gaussian_ratio == pytest.approx(1.0, abs=4 * np.sqrt(2 / 299 / 16))
    assert found.covariance.hartlap == (300 - 16 - 2) / 299
    np.testing.assert_allclose(found.x, draw(0).power_k_hmpc)


def test_many_files_give_the_same_as_all_at_once(tmp_path: Path) -> None:
    redshifts = (0.5, 1.1)
    rows = write_campaign(tmp_path / "one", range(30), redshifts)
    write_campaign(tmp_path / "many", range(30), redshifts, files=8)
    one = summarise_campaign(read_campaign(tmp_path / "one"))
    many = summarise_campaign(read_campaign(tmp_path / "many"))
    assert len(one) == len(many) == 8
    for a, b in zip(one, many, strict=True):
        assert (a.statistic, a.redshift, a.warnings) == (b.statistic, b.redshift, b.warnings)
        np.testing.assert_array_equal(a.mean, b.mean)
        np.testing.assert_array_equal(a.quantiles, b.quantiles)
        np.testing.assert_array_equal(a.covariance.covariance, b.covariance.covariance)
    for redshift, of in ((0.5, one[0]), (1.1, one[1])):
        values = [r.statistics.power_mpch3 for r in rows if r.coordinate.redshift == redshift]
        assert of.redshift == redshift
        np.testing.assert_allclose(of.mean, np.mean(values, axis=0))
        np.testing.assert_allclose(of.covariance.covariance, np.cov(values, rowvar=False))
    for folder in ("one", "many"):
        means = average_histogram(read_campaign(tmp_path / folder), "halo_stellar")
        for redshift in redshifts:
            values = [r.statistics.halo_stellar for r in rows if r.coordinate.redshift == redshift]
            np.testing.assert_allclose(means[redshift], np.mean(values, axis=0))


def test_boxes_without_galaxies_have_no_power_and_are_told(tmp_path: Path) -> None:
    empty = replace(
        draw(1),
        counts=np.array([0, 0, 0, 0]),
        halo_counts=np.zeros(60, np.int64),
        stellar_counts=np.zeros(70, np.int64),
        sfr_cumulative=np.zeros(86, np.int64),
        halo_stellar=np.zeros((24, 28), np.int64),
        stellar_sfr=np.zeros((28, 34), np.int64),
        power_mpch3=np.full(16, np.nan),
        shot_noise_mpch3=float("nan"),
    )
    rows = [make_row(n) for n in range(20)]
    write_statistics(tmp_path / "b.parquet", [*rows, make_row(20, statistics=empty)])
    found = summarise_campaign(read_campaign(tmp_path))
    assert [s.boxes for s in found] == [20, 21, 21, 21]
    assert found[0].warnings == ("left out: 1 box without galaxies",)
    assert np.isfinite(found[0].mean).all()


@pytest.mark.parametrize("boxes", [15, 40, 500])
def test_no_box_of_an_ordinary_ensemble_is_an_outlier(boxes: int) -> None:
    rng = np.random.default_rng(7)
    for _ in range(max(2, 400 // boxes)):
        normal = score_boxes(rng.normal(5, 1, (boxes, 16)), counts=False)
        poisson = score_boxes(rng.poisson(30, (boxes, 40)), counts=True)
        assert (normal.score < threshold(boxes)).all()
        assert (poisson.score < threshold(boxes)).all()


def test_a_planted_outlier_is_found_in_its_bin() -> None:
    rng = np.random.default_rng(8)
    values = rng.poisson(np.linspace(2000, 5, 30), (60, 30))
    values[17, 4] += 900
    found = score_boxes(values, counts=True)
    assert np.flatnonzero(found.score > threshold(60)).tolist() == [17]
    assert found.bin[17] == 4
    values[:, 25] = 0  # bins with hardly an object say nothing
    values[3, 25] = 4
    assert score_boxes(values, counts=True).score[3] < threshold(60)


def test_some_outliers_do_not_hide_each_other() -> None:
    values = np.random.default_rng(9).normal(100, 1, (40, 5))
    values[:10] += 500
    found = score_boxes(values, counts=False)
    assert np.flatnonzero(found.score > threshold(40)).tolist() == list(range(10))


def test_boxes_that_are_all_the_same_have_no_outlier_until_one_differs() -> None:
    values = np.full((20, 3), 50)
    assert (score_boxes(values, counts=True).score == 0).all()
    values[4, 2] = 51
    found = score_boxes(values, counts=True)
    assert np.flatnonzero(found.score > threshold(20)).tolist() == [4]


def test_of_few_boxes_none_is_judged() -> None:
    values = np.random.default_rng(10).normal(size=(LEAST_BOXES - 1, 3))
    values[0] = 1e9
    assert np.isnan(score_boxes(values, counts=False).score).all()


def test_an_outlier_of_a_campaign_is_named(tmp_path: Path) -> None:
    rows = [make_row(n, z) for n in range(30) for z in (0.5, 1.1)]
    strange = draw(1, 1.1)
    strange = replace(strange, power_mpch3=strange.power_mpch3 * 1.5)
    rows[2 * 11 + 1] = make_row(11, 1.1, statistics=strange, uri="/strange.hdf5")
    write_statistics(tmp_path / "b.parquet", rows)
    found = judge_campaign(read_campaign(tmp_path)).outliers
    assert [(o.name, o.statistic, o.uri) for o in found] == [
        ("r0011_z1.100", "power", "/strange.hdf5")
    ]
    assert found[0].score > threshold(30)
    assert found[0].x in [pytest.approx(k, rel=1e-6) for k in strange.power_k_hmpc]


def test_missing_catalogues_are_named_by_realization(tmp_path: Path) -> None:
    rows = [make_row(n, z) for n in (0, 1, 3) for z in (0.5, 1.1) if (n, z) != (3, 1.1)]
    write_statistics(tmp_path / "b.parquet", [*rows, make_row(99)])
    expected = Expected.parse({"realizations": [3, 0, 1, 2], "redshifts": [1.1, 0.5]})
    missing, unexpected = find_missing(expected, read_campaign(tmp_path).coordinates)
    assert missing == {"r0002": (0.5, 1.1), "r0003": (1.1,)}
    assert unexpected == 1
