"""Synthetic haloes against the formulas that they are drawn from."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy.fft

from muster.errors import ConfigError
from muster.mocks.coordinates import Coordinate
from muster.mocks.errors import ValidationError
from muster.mocks.halos.cosmologies import CosmologyOptions
from muster.mocks.halos.synthetic import SYNTHETIC

pytest.importorskip("colossus", reason="colossus is not installed: make mocks")

import itertools

from colossus.cosmology import cosmology as colossus_cosmology
from colossus.lss import bias as colossus_bias
from colossus.lss import mass_function as colossus_mass_function

from muster.mocks.halos.linear_theory import (
    calculate_growth,
    calculate_linear_power,
    calculate_radii,
    tabulate_halos,
)
from muster.mocks.halos.lognormal import (
    LinearField,
    choose_cells,
    draw_white_noise,
    place_in_cells,
    sum_of_squares,
    wavenumbers,
)

if TYPE_CHECKING:
    from pathlib import Path

C000 = CosmologyOptions().cosmology


def make(
    realization: int = 0, redshift: float = 1.0, min_mass: float = 1e12, **options: Any
) -> Any:
    asked = {
        name: options.pop(name) for name in ("slab", "slab_axis", "n_halos") if name in options
    }
    parsed = SYNTHETIC.parse_options({"box_size_mpch": 250.0, **options})
    at = Coordinate(realization, redshift)
    inputs = SYNTHETIC.find_inputs(parsed, [at])[at].inputs
    return SYNTHETIC.read(inputs, min_mass_msunh=min_mass, **asked)


@pytest.fixture(scope="module")
def reference() -> Any:
    """A cosmology of colossus's own, set up apart from the code under test."""
    return colossus_cosmology.setCosmology(
        "c000",
        params={
            "flat": True, "H0": 67.36, "Om0": 0.315192, "Ob0": 0.0493, "sigma8": 0.8114,
            "ns": 0.9649,
        },
        persistence="",
    )  # fmt: skip


def count_expected(edges: Any, redshift: float, volume: float) -> Any:
    """Integrate colossus's mass function over bins of log mass, on a grid of its own."""
    expected = []
    for low, high in itertools.pairwise(edges):
        ln_masses = np.linspace(np.log(low), np.log(high), 101)
        dndlnm = colossus_mass_function.massFunction(
            np.exp(ln_masses), redshift, mdef="200m", model="tinker08", q_out="dndlnM"
        )
        expected.append(np.trapezoid(dndlnm, ln_masses) * volume)
    return np.array(expected)


@pytest.mark.parametrize("redshift", [0.0, 1.1])
def test_the_mass_function_is_tinkers_within_poisson_error(reference: Any, redshift: float) -> None:
    # Edges that are none of the bins in which masses are drawn.
    edges = 10 ** np.array([12.03, 12.31, 12.64, 13.07, 13.52, 14.21])
    counts = np.zeros(5)
    for realization in range(4):
        masses = make(realization, redshift, 10**12.03).masses
        counts += np.histogram(masses, edges)[0]
    expected = count_expected(edges, redshift, 4 * 250.0**3)
    pull = (counts - expected) / np.sqrt(expected)
    assert expected.min() > 20
    assert np.abs(pull).max() < 4
    assert (pull**2).sum() < 20  # of 5: one in a thousand


def measure_power(positions: Any, box: float, cells: int, edges: Any) -> tuple[Any, Any]:
    """Measure the power spectrum of points, shot noise taken off; return k and P of bins."""
    index = np.ravel_multi_index((positions * (cells / box)).astype(int).T % cells, (cells,) * 3)
    counts = np.bincount(index, minlength=cells**3).reshape((cells,) * 3)
    modes = scipy.fft.rfftn(counts / counts.mean() - 1)
    axes = wavenumbers(cells, box)
    k = np.sqrt(sum_of_squares(axes))
    window = np.prod(np.broadcast_arrays(*(np.sinc(a * box / cells / 2 / np.pi) for a in axes)), 0)
    power = (np.abs(modes) ** 2 * box**3 / cells**6 - box**3 / len(positions)) / window**2
    twice = np.where((axes[2] == 0) | (axes[2] == axes[2].max()), 1.0, 2.0) + 0 * k
    number = np.digitize(k.ravel(), edges)
    of_bin = [
        np.bincount(number, weights.ravel(), len(edges) + 1)[1:-1]
        for weights in (twice, twice * k, twice * power)
    ]
    return of_bin[1] / of_bin[0], of_bin[2] / of_bin[0]


@pytest.mark.parametrize("redshift", [0.0, 1.1])
def test_power_on_large_scales_is_linear_theory_with_tinkers_bias(
    reference: Any, redshift: float
) -> None:
    edges = np.array([0.04, 0.07, 0.1, 0.13])
    measured = [measure_power(make(r, redshift).positions, 250.0, 64, edges) for r in range(10)]
    k, power = measured[0][0], np.mean([p for _, p in measured], axis=0)
    masses = np.logspace(12, 15.5, 400)
    weights = colossus_mass_function.massFunction(
        masses, redshift, mdef="200m", model="tinker08", q_out="dndlnM"
    )
    bias = colossus_bias.haloBias(masses, redshift, mdef="200m", model="tinker10")
    mean_bias = np.average(bias, weights=weights)
    linear = reference.matterPowerSpectrum(k, z=redshift)
    np.testing.assert_allclose(power / (mean_bias**2 * linear), 1, atol=0.12)


def test_heavy_haloes_cluster_more() -> None:
    edges = np.array([0.04, 0.13])
    light, heavy = [], []
    for realization in range(6):
        halos = make(realization, 0.5, 1e12)
        is_heavy = halos.masses > 1e13
        light.append(measure_power(halos.positions[~is_heavy], 250.0, 64, edges)[1][0])
        heavy.append(measure_power(halos.positions[is_heavy], 250.0, 64, edges)[1][0])
    tables = tabulate_halos(C000, 0.5, "200m")
    log_masses = np.linspace(9, 16, len(tables.bias))
    means = [
        np.average(tables.bias[part], weights=tables.dn_dlog10m[part])
        for part in ((log_masses >= 12) & (log_masses < 13), log_masses >= 13)
    ]
    expected = (means[1] / means[0]) ** 2
    assert expected > 2.5
    assert np.mean(heavy) / np.mean(light) == pytest.approx(expected, rel=0.2)


def test_velocities_are_of_linear_theory_and_fall_into_density() -> None:
    """Their dispersion is (a H f)² ∫ P dk / 6π² over the modes of the grid, and ∇·v = −a H f δ."""
    redshift, box, cells = 1.0, 250.0, 64
    growth = calculate_growth(C000, redshift)
    k = np.sqrt(sum_of_squares(wavenumbers(cells, box)))
    power = (calculate_linear_power(C000, k) * growth.growth**2).astype(np.float32)
    twice = np.where((np.arange(cells // 2 + 1) % (cells // 2)) == 0, 1.0, 2.0) + 0 * k
    k[0, 0, 0] = np.inf
    variance = growth.velocity_factor_kms**2 * (twice * power / k**2).sum() / box**3 / 3
    axis = (np.arange(cells) + 0.5) * box / cells
    centres = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    squares, slopes = [], []
    for seed in range(6):
        noise = draw_white_noise(cells, np.random.default_rng(seed))
        field = LinearField(box, noise, power)
        velocities = field.calculate_velocities(
            centres.astype(np.float32), growth.velocity_factor_kms
        ).reshape(cells, cells, cells, 3)
        squares.append((velocities.astype(float) ** 2).mean())
        density = scipy.fft.irfftn(noise * np.sqrt(power / field.cell_volume))
        divergence = sum(
            (np.roll(velocities[..., a], -1, a) - np.roll(velocities[..., a], 1, a))
            for a in range(3)
        ) / (2 * box / cells)
        smooth = scipy.fft.rfftn(divergence), scipy.fft.rfftn(density)
        low = k < 0.15
        slopes.append(
            (smooth[0] * smooth[1].conj())[low].real.sum() / (np.abs(smooth[1][low]) ** 2).sum()
        )
    assert np.mean(squares) == pytest.approx(variance, rel=0.15)
    assert np.mean(slopes) == pytest.approx(-growth.velocity_factor_kms, rel=0.05)


def test_growth_is_that_of_an_einstein_de_sitter_universe_early() -> None:
    """Deep in matter domination D goes as a, and f is 1."""
    cosmology = CosmologyOptions(h=0.7, omega_m=0.999, omega_b=0.05).cosmology
    growth = calculate_growth(cosmology, 3.0)
    assert growth.growth == pytest.approx(0.25, rel=0.02)
    assert growth.velocity_factor_kms == pytest.approx(100 * 4**1.5 / 4, rel=0.02)


def test_radii_hold_their_mass_at_200_times_the_mean_density() -> None:
    masses = np.array([1e11, 3e13])
    radii = calculate_radii(C000, 1.5, "200m", masses).astype(float)
    density = masses / (4 / 3 * np.pi * radii**3)  # comoving, as the mean is
    np.testing.assert_allclose(density, 200 * 2.7754e11 * 0.315192, rtol=1e-3)
    virial = calculate_radii(C000, 0.0, "vir", masses).astype(float)
    over = masses / (4 / 3 * np.pi * virial**3) / (2.7754e11 * 0.315192)
    np.testing.assert_allclose(over, 325, rtol=0.05)  # Bryan and Norman: 103 ρ_c / Ω_m


def test_a_field_that_is_clipped_says_so_and_stays_positive() -> None:
    """Where cells are small and the bias great, ln(1 + b² ξ) has no positive power everywhere."""
    cells, box = 32, 64.0
    k = np.sqrt(sum_of_squares(wavenumbers(cells, box)))
    power = calculate_linear_power(C000, k).astype(np.float32)
    field = LinearField(box, draw_white_noise(cells, np.random.default_rng(1)), power)
    shares = []
    for bias in (0.7, 1.5, 6.0, 30.0):
        density, clipped = field.calculate_lognormal(bias)
        assert np.isfinite(density).all()
        assert (density >= 0).all()
        assert density.max() == 1
        shares.append(clipped)
    assert shares[0] < 0.01
    assert shares[-1] > shares[0]


def test_the_variance_of_a_lognormal_field_is_that_of_its_bias() -> None:
    """⟨δ_h²⟩ of the grid is b² ⟨δ²⟩, for the mean of many fields."""
    cells, box, bias = 32, 256.0, 1.3
    k = np.sqrt(sum_of_squares(wavenumbers(cells, box)))
    power = calculate_linear_power(C000, k).astype(np.float32)
    variances, expected = [], None
    for seed in range(40):
        field = LinearField(box, draw_white_noise(cells, np.random.default_rng(seed)), power)
        expected = bias**2 * field.correlation[0, 0, 0]
        density, clipped = field.calculate_lognormal(bias)
        assert clipped < 0.02
        variances.append((density / density.mean(dtype=float)).var(dtype=float))
    assert np.mean(variances) == pytest.approx(expected, rel=0.1)


def test_points_follow_the_density() -> None:
    density = np.zeros((4, 4, 4), np.float32)
    density[1, 2, 3], density[3, 0, 0] = 3.0, 1.0
    points = place_in_cells(density, 4000, 8.0, np.random.default_rng(5))
    cells = (points / 2).astype(int)
    heavy = (cells == [1, 2, 3]).all(axis=1)
    assert (heavy | (cells == [3, 0, 0]).all(axis=1)).all()
    assert heavy.sum() == pytest.approx(3000, abs=4 * np.sqrt(4000 * 0.75 * 0.25))
    within = points[heavy] / 2 - [1, 2, 3]
    np.testing.assert_allclose(within.mean(axis=0), 0.5, atol=0.03)
    np.testing.assert_allclose(within.std(axis=0), 12**-0.5, atol=0.02)


def test_the_same_inputs_give_the_same_bytes_and_others_give_other_haloes() -> None:
    first, again = make(3), make(3)
    for name in ("positions", "masses", "ids", "velocities", "radii"):
        assert getattr(first, name).tobytes() == getattr(again, name).tobytes()
    for other in (make(4), make(3, seed=1), make(3, 1.0000015), make(3, seed=2**32)):
        # In one bin of mass: draws that were nearly the same would give nearly the same masses.
        count = min(np.count_nonzero(halos.masses < 1.2e12) for halos in (first, other))
        ratio = np.log10(other.masses[:count] / first.masses[:count])
        assert np.median(np.abs(ratio)) > 0.01


def test_a_higher_mass_cut_leaves_the_heavier_haloes_as_they_are() -> None:
    low, high = make(min_mass=1e12), make(min_mass=4.4e12)
    kept = low.masses >= 4.4e12
    for name in ("positions", "masses", "ids", "velocities", "radii"):
        assert np.array_equal(getattr(low, name)[kept], getattr(high, name))
    assert 0 < len(high) < len(low) / 3


def test_a_realization_has_the_same_structure_at_every_redshift() -> None:
    def density(realization: int, redshift: float) -> Any:
        positions = make(realization, redshift, 3e11).positions
        cells = np.ravel_multi_index((positions / 25).astype(int).T, (10,) * 3)
        return np.bincount(cells, minlength=1000)

    at_0, at_1, other = density(0, 0.0), density(0, 1.0), density(1, 0.0)
    assert np.corrcoef(at_0, at_1)[0, 1] > 0.8
    assert abs(np.corrcoef(at_0, other)[0, 1]) < 0.2


def test_slabs_hold_the_box_none_twice() -> None:
    whole = make(box_size_mpch=50.0, min_mass=1e11)
    assert (np.diff(whole.ids) > 0).all()
    for slabs in (1, 3, 7):
        parts = [
            make(box_size_mpch=50.0, min_mass=1e11, slab=(s, slabs), slab_axis="z")
            for s in range(slabs)
        ]
        order = np.argsort(np.concatenate([part.ids for part in parts]))
        for name in ("ids", "positions", "masses", "velocities", "radii"):
            together = np.concatenate([getattr(part, name) for part in parts])[order]
            assert np.array_equal(together, getattr(whole, name))


@pytest.mark.parametrize("box", [25.0, 50.0, 333.3])
def test_haloes_lie_in_the_box(box: float) -> None:
    halos = make(box_size_mpch=box, min_mass=3e12)
    assert len(halos) > 0
    assert halos.positions.min() >= 0
    assert halos.positions.max() < np.float32(box)
    assert halos.positions.max() > 0.9 * box
    assert np.isfinite(halos.velocities).all()
    assert halos.metadata.box_size_mpch == box


def test_no_halo_above_the_mass_is_an_empty_catalogue() -> None:
    halos = make(box_size_mpch=25.0, min_mass=9e15)
    assert (len(halos), halos.velocities.shape) == (0, (0, 3))
    assert len(make(box_size_mpch=25.0, min_mass=3e17)) == 0
    assert len(make(box_size_mpch=25.0, n_halos=0)) == 0


def test_no_halo_is_below_the_resolution() -> None:
    halos = make(box_size_mpch=25.0, min_mass=0, lowest_mass_msunh=2e11)
    assert 2e11 <= halos.masses.min() < 2.2e11
    assert halos.metadata.min_mass_msunh == 2e11


def test_too_many_haloes_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"too many synthetic haloes.*raise the minimum mass"):
        make(box_size_mpch=1000.0, min_mass=1e9, lowest_mass_msunh=1e9, cell_mpch=16.0)


def test_colossus_keeps_its_cosmology_and_writes_nothing(
    reference: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    colossus_cosmology.setCurrent(reference)
    make(redshift=0.123, box_size_mpch=25.0)
    assert colossus_cosmology.getCurrent() is reference
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"box_size_mpch": 10}, "box_size_mpch: .*25"),
        ({"box_size_mpch": 2000}, "box_size_mpch: .*1000"),
        ({"boxsize": 100}, "unknown key.*boxsize"),
        ({"seed": -1}, "seed"),
        ({"cosmology": {"omega_m": 1.5}}, r"cosmology\.omega_m"),
        ({"mass_definition": "fof"}, "mass_definition"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        SYNTHETIC.parse_options(options)


def test_the_number_of_cells_is_even_and_quick_to_transform() -> None:
    assert [choose_cells(box, 4.0) for box in (25, 50, 100, 500, 1000)] == [16, 16, 30, 128, 250]
    for box in range(25, 1001, 13):
        assert choose_cells(box, 4.0) % 2 == 0
        assert box / choose_cells(box, 4.0) <= 4.0


def test_every_catalogue_has_its_input_and_a_fingerprint_of_its_own() -> None:
    options = SYNTHETIC.parse_options({})
    coordinates = [Coordinate(r, z) for r in range(3) for z in (0.5, 1.0)]
    found = SYNTHETIC.find_inputs(options, coordinates)
    assert {state.state for state in found.values()} == {"present"}
    assert len({state.fingerprint for state in found.values()}) == 6
    other = SYNTHETIC.find_inputs(SYNTHETIC.parse_options({"seed": 1}), coordinates)
    assert found[coordinates[0]].fingerprint != other[coordinates[0]].fingerprint
