"""hod against its formulas: occupation, NFW haloes, velocities, stellar masses and rates."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from scipy.special import spence

from muster.errors import ConfigError
from muster.mocks.galaxies.cosmic_time import age_gyr
from muster.mocks.galaxies.hod import draw_poisson, mean_occupation
from muster.mocks.galaxies.model import load_model
from muster.mocks.galaxies.nfw import (
    G_MPC_KMS2_MSUN,
    _tables,
    concentration_of,
    enclosed,
    virial_velocity_kms,
)
from muster.mocks.galaxies.parameters import HodParams
from muster.mocks.galaxies.stellar import (
    main_sequence_coefficients,
    mean_log_stellar_mass,
    quiescent_fraction,
)
from muster.mocks.galaxies.stream import RandomStream
from muster.mocks.halos.catalog import Cosmology
from tests.unit.mocks.galaxies.haloes import (
    BOX_MPCH,
    COSMOLOGY,
    assert_same,
    columns,
    draw_masses,
    make_halos,
)

HOD = load_model("hod")
PARAMS = HOD.parse({})


def generate(masses, *, redshift=1.1, stream=RandomStream(3), **parameters):  # noqa: B008
    halos = make_halos(np.asarray(masses), redshift)
    return halos, HOD.generate(halos, HOD.parse(parameters), stream)


def periodic(difference):
    return difference - BOX_MPCH * np.round(difference / BOX_MPCH)


@pytest.mark.parametrize(
    "parameters",
    [{}, {"sigma_log_m": 0.0}, {"log_m_min": 12.5, "sigma_log_m": 0.6, "alpha": 0.9}],
)
def test_occupation_of_each_mass_is_that_of_the_formula(parameters):
    masses = np.repeat(10 ** np.arange(11.25, 15, 0.5), 8000)
    halos, galaxies = generate(masses, **parameters)
    params = HOD.parse(parameters)
    central = galaxies.properties["upid"] == -1
    per_halo = np.bincount(galaxies.parent_halos[central], minlength=len(halos))
    assert per_halo.max() == 1
    satellites = np.bincount(galaxies.parent_halos[~central], minlength=len(halos))
    for mass in np.unique(masses):
        mine = masses == mass
        x = (math.log10(mass) - params.log_m_min) / (params.sigma_log_m or 1e-9)
        mean = 0.5 * (1 + math.erf(x))
        above = max(mass - 10**params.log_m0, 0) / 10**params.log_m1
        mean_satellites = mean * above**params.alpha
        n = mine.sum()
        assert abs(per_halo[mine].sum() - n * mean) <= 5 * math.sqrt(n * mean * (1 - mean)) + 1e-9
        assert abs(satellites[mine].sum() - n * mean_satellites) <= 5 * math.sqrt(
            n * mean_satellites
        )
        if mean_satellites > 0.05:  # Poisson: the variance is the mean
            ratio = satellites[mine].var() / mean_satellites
            spread = math.sqrt((2 + 1 / mean_satellites) / n)
            assert abs(ratio - 1) < 5 * spread


def test_mean_occupation_at_the_masses_of_the_parameters():
    centrals, satellites = mean_occupation(
        np.array([10**12.02, 10**11.38, 10**13.31 + 10**11.38]), PARAMS
    )
    assert centrals[0] == 0.5
    assert satellites[1] == 0
    assert satellites[2] == pytest.approx(1.0, abs=1e-6)  # there each halo has a central


def test_numbers_of_galaxies_scatter_about_the_expectation():
    halos = make_halos(draw_masses(3000))
    expected = HOD.expect(halos, PARAMS)
    numbers = np.array(
        [
            len(HOD.generate(halos, PARAMS, RandomStream(1, realization)))
            for realization in range(60)
        ]
    )
    assert abs(numbers.mean() - expected.mean) < 5 * expected.standard_deviation / math.sqrt(60)
    # a variance of 60 numbers has a relative error of √(2 / 59)
    assert numbers.var(ddof=1) / expected.standard_deviation**2 == pytest.approx(
        1, abs=5 * math.sqrt(2 / 59)
    )


@pytest.mark.parametrize("mean", [0.001, 0.3, 2.0, 5.9, 6.1, 40.0])
def test_poisson_numbers_follow_their_distribution(mean):
    drawn = draw_poisson(np.random.default_rng(5), np.full(100_000, mean))
    numbers = np.arange(drawn.max() + 2)
    expected = stats.poisson.pmf(numbers, mean) * len(drawn)
    enough = expected > 10
    chi2 = ((np.bincount(drawn, minlength=len(numbers)) - expected) ** 2 / expected)[enough].sum()
    assert chi2 < stats.chi2.ppf(1 - 1e-5, enough.sum())


@pytest.mark.parametrize("log_m", [12.6, 14.5])
def test_radii_follow_the_nfw_profile_and_directions_are_isotropic(log_m):
    halos, galaxies = generate(np.full(20_000 if log_m < 13 else 1500, 10**log_m), redshift=0.5)
    satellite = galaxies.properties["upid"] != -1
    parents = galaxies.parent_halos[satellite]
    offset = periodic(galaxies.positions[satellite].astype(np.float64) - halos.positions[parents])
    r = np.sqrt((offset**2).sum(axis=1)) / halos.radii[parents]
    assert len(r) > 2000
    assert r.max() < 1 + 1e-3  # float32 positions in a box of 100
    c = float(concentration_of(np.array([10**log_m]), 0.5, "duffy08_200c")[0])
    cdf = stats.kstest(r, lambda x: enclosed(np.minimum(x, 1) * c) / enclosed(c))
    assert cdf.pvalue > 1e-4
    cosines = offset / np.sqrt((offset**2).sum(axis=1, keepdims=True))
    for axis in range(3):
        assert stats.kstest(cosines[:, axis], stats.uniform(-1, 2).cdf).pvalue > 1e-4


def test_duffy_concentration():
    # 5.71 (M / 2e12)^-0.084 (1 + z)^-0.47
    c = concentration_of(np.array([2e12, 2e14]), 0.0, "duffy08_200c")
    assert c == pytest.approx([5.71, 5.71 * 100**-0.084])
    assert concentration_of(np.array([2e12]), 1.0, "duffy08_vir") == pytest.approx(7.85 * 2**-0.71)


def closed_dispersion(y):
    """σ_r²(y) of Łokas & Mamon (2001), eq. 14 with β = 0, in units of G M_s / r_s."""
    li2 = spence(1 + y)  # Li2(-y)
    return (
        0.5 * y * (1 + y) ** 2
        * (
            np.pi**2 - np.log(y) - 1 / y - 1 / (1 + y) ** 2 - 6 / (1 + y)
            + (1 + 1 / y**2 - 4 / y - 2 / (1 + y)) * np.log1p(y)
            + 3 * np.log1p(y) ** 2 + 6 * li2
        )
    )  # fmt: skip


def test_table_of_dispersions_is_the_closed_form():
    y, sigma = (table.astype(np.float64) for table in _tables())
    inside = (y > 0.05) & (y < 90)
    np.testing.assert_allclose(sigma[inside] ** 2, closed_dispersion(y[inside]), rtol=2e-4)


def test_table_of_radii_inverts_the_enclosed_mass():
    y, _ = _tables()
    s = np.linspace(0, math.sqrt(enclosed(100.0)), len(y))
    np.testing.assert_allclose(np.sqrt(enclosed(y.astype(np.float64))), s, atol=2e-6)


def test_velocities_have_the_dispersion_of_the_jeans_equation():
    z, mass = 0.5, 10**14.5
    halos, galaxies = generate(np.full(3000, mass), redshift=z)
    satellite = galaxies.properties["upid"] != -1
    parents = galaxies.parent_halos[satellite]
    velocity = galaxies.properties["vel"][satellite] - halos.velocities[parents]
    offset = periodic(galaxies.positions[satellite].astype(np.float64) - halos.positions[parents])
    r = np.sqrt((offset**2).sum(axis=1)) / halos.radii[parents]
    c = float(concentration_of(np.array([mass]), z, "duffy08_200c")[0])
    proper_mpch = float(halos.radii[0]) / (1 + z)
    v2 = G_MPC_KMS2_MSUN * mass / proper_mpch
    standard = velocity / np.sqrt(v2 * c / enclosed(c) * closed_dispersion(c * r))[:, None]
    n = standard.size
    assert abs(standard.mean()) < 5 / math.sqrt(n)
    assert standard.std() == pytest.approx(1, abs=5 / math.sqrt(2 * n) + 1e-3)
    near = r < 0.3
    assert standard[near].std() == pytest.approx(1, abs=5 / math.sqrt(2 * 3 * near.sum()) + 1e-3)
    assert stats.kstest(standard.ravel()[:20_000], "norm").pvalue > 1e-4


def test_virial_velocity_of_a_known_halo():
    # √(4.30091e-9 × 1e14 / 0.5) at z = 1 with a comoving radius of 1 Mpc/h
    found = virial_velocity_kms(np.array([1e14, 1e14]), np.array([1, 0], np.float32), 1.0)
    assert found == pytest.approx([927.46, 0.0], abs=0.01)


def test_galaxies_across_the_boundary_are_wrapped():
    halos = make_halos(np.full(500, 1e15))
    halos.positions[:] = np.array([0, 99.9999, 0.0001], dtype=np.float32)
    galaxies = HOD.generate(halos, PARAMS, RandomStream(2))
    side = np.float32(BOX_MPCH)
    assert (galaxies.positions >= 0).all()
    assert (galaxies.positions < side).all()
    assert (galaxies.positions[:, 0] > 50).mean() == pytest.approx(0.5, abs=0.05)
    distance = np.sqrt((periodic(galaxies.positions - halos.positions[0]) ** 2).sum(axis=1))
    assert distance.max() <= halos.radii[0] * 1.001


def test_centrals_rest_in_their_haloes_and_lead_them():
    halos, galaxies = generate(draw_masses(3000))
    central = galaxies.properties["upid"] == -1
    parents = galaxies.parent_halos
    np.testing.assert_array_equal(galaxies.positions[central], halos.positions[parents[central]])
    np.testing.assert_array_equal(
        galaxies.properties["vel"][central], halos.velocities[parents[central]]
    )
    np.testing.assert_allclose(
        galaxies.properties["logmp_t_obs"][central],
        np.log10(halos.masses[parents[central]]),
        atol=1e-6,
    )
    np.testing.assert_array_equal(
        galaxies.properties["upid"][~central], halos.ids[parents[~central]]
    )
    assert (np.diff(parents) >= 0).all()
    assert not central[1:][parents[1:] == parents[:-1]].any()
    log_ratio = galaxies.properties["logmp_t_obs"][~central] - np.log10(
        halos.masses[parents[~central]]
    )
    assert (log_ratio <= 1e-6).all()
    assert galaxies.properties["logmp_t_obs"].min() > 11.5


def test_the_same_stream_gives_the_same_arrays_and_another_gives_others():
    halos = make_halos(draw_masses(3000))
    one = HOD.generate(halos, PARAMS, RandomStream(3, 1, 2, 0))
    assert_same(one, HOD.generate(halos, PARAMS, RandomStream(3, 1, 2, 0)))
    for other in [(4, 1, 2, 0), (3, 0, 2, 0), (3, 1, 1, 0), (3, 1, 2, 1)]:
        found = HOD.generate(halos, PARAMS, RandomStream(*other))
        satellite = found.positions[found.properties["upid"] != -1]
        assert not set(satellite[:, 0].tolist()) & set(
            one.positions[one.properties["upid"] != -1][:, 0].tolist()
        ), other


def test_parameters_of_stars_move_no_galaxy():
    halos = make_halos(draw_masses(2000))
    one = HOD.generate(halos, PARAMS, RandomStream(3))
    other = HOD.generate(halos, HOD.parse({"stellar_mass_scatter_dex": 0.3}), RandomStream(3))
    np.testing.assert_array_equal(one.positions, other.positions)
    assert (one.properties["logsm_t_obs"] != other.properties["logsm_t_obs"]).mean() > 0.99


def test_star_formation_follows_the_redshift_at_equal_haloes():
    masses = draw_masses(8000)
    rates = []
    for redshift in (0.1, 1.1, 2.0):
        _, galaxies = generate(masses, redshift=redshift)
        p = galaxies.properties
        rates.append(float(np.median(p["logsm_t_obs"] + p["logssfr_t_obs"])))
    assert rates[1] - rates[0] > 0.3
    assert rates[2] - rates[1] > 0.1


def test_stellar_masses_of_moster_2013():
    # at M_1 the ratio is N: 0.0351 today; at z = 1, log M_1 = 12.1875 and N = 0.02275
    assert mean_log_stellar_mass(np.array([11.590]), 0.0)[0] == pytest.approx(
        11.590 + math.log10(0.0351)
    )
    assert mean_log_stellar_mass(np.array([12.1875]), 1.0)[0] == pytest.approx(
        12.1875 + math.log10(0.02275)
    )
    single = mean_log_stellar_mass(np.array([10, 12, 15], np.float32), 0.5)
    assert single.dtype == np.float32
    np.testing.assert_allclose(
        single, mean_log_stellar_mass(np.array([10.0, 12.0, 15.0]), 0.5), atol=1e-5
    )


def test_main_sequence_of_speagle_2014_and_quiescent_fraction():
    slope, offset = main_sequence_coefficients(5.0)
    assert slope * 10.5 + offset == pytest.approx((0.84 - 0.13) * 10.5 - (6.51 - 0.55))
    assert quiescent_fraction(np.array([10.7]), 1.0)[0] == pytest.approx(0.5)
    assert quiescent_fraction(np.array([11.7]), 1.0)[0] == pytest.approx(1 / (1 + 10**-1.3))


def test_drawn_stars_scatter_as_stated():
    _, galaxies = generate(np.full(60_000, 10**12.6), redshift=0.5, sigma_log_m=0.0)
    p = galaxies.properties
    central = p["upid"] == -1
    mass = p["logsm_t_obs"][central].astype(np.float64)
    mean = mean_log_stellar_mass(np.array([12.6 - math.log10(COSMOLOGY.h)]), 0.5)[0]
    assert mass.mean() == pytest.approx(mean, abs=5 * 0.15 / math.sqrt(len(mass)) + 1e-5)
    assert mass.std() == pytest.approx(0.15, rel=5 / math.sqrt(2 * len(mass)))
    low = p["logssfr_t_obs"][central] < -10.9
    expected = quiescent_fraction(mass, 0.5).mean()
    assert low.mean() == pytest.approx(expected, abs=0.02)  # the two sequences overlap little


@pytest.mark.parametrize("masses", [[], [1e10, 2e10]])
def test_no_galaxies(masses):
    halos, galaxies = generate(np.array(masses))
    assert HOD.expect(halos, PARAMS).mean < 1e-9
    assert len(galaxies) == 0
    for name, values in columns(galaxies).items():
        assert len(values) == 0, name
    assert galaxies.positions.shape == galaxies.properties["vel"].shape == (0, 3)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"log_m_minn": 12}, "log_m_minn"),
        ({"sigma_log_m": -1}, "sigma_log_m"),
        ({"alpha": float("nan")}, "alpha"),
        ({"log_m1": 1e13}, "log_m1"),
        ({"concentration": "duffy08"}, "concentration"),
    ],
)
def test_wrong_parameters_are_refused_by_name(parameters, said):
    with pytest.raises(ConfigError, match=said):
        HOD.parse(parameters)


def test_histories_are_refused():
    with pytest.raises(ConfigError, match="no formation histories"):
        HOD.generate(make_halos(np.array([1e13])), HodParams(), RandomStream(1), histories=True)


def test_ages_of_known_universes():
    flat = Cosmology(h=0.7, omega_m=1.0, omega_b=0.05, sigma8=0.8, n_s=0.96)
    assert age_gyr(flat, 0) == pytest.approx(2 / 3 * 9.777922 / 0.7, rel=1e-6)
    # with Λ alone beside matter: 2 / (3 √Ω_Λ) asinh(√(Ω_Λ / Ω_m) a^1.5) / H_0
    dark = 1 - COSMOLOGY.omega_m
    for z in (0.0, 1.1, 3.0):
        exact = (
            2
            / (3 * math.sqrt(dark))
            * math.asinh(math.sqrt(dark / COSMOLOGY.omega_m) * (1 + z) ** -1.5)
        )
        assert age_gyr(COSMOLOGY, z) == pytest.approx(exact * 9.777922216 / COSMOLOGY.h, rel=1e-9)
    # w = -1/3 goes as curvature: E² = Ω_m a^-3 + (1 - Ω_m) a^-2
    open_like = Cosmology(0.7, 0.3, 0.05, 0.8, 0.96, w0=-1 / 3)
    a = (np.arange(200_000) + 0.5) / 200_000
    numeric = np.mean(1 / (a * np.sqrt(0.3 * a**-3 + 0.7 * a**-2)))
    assert age_gyr(open_like, 0) == pytest.approx(numeric * 9.777922216 / 0.7, rel=1e-5)
