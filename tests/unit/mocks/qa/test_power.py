"""The power spectrum against brute force, Poisson points and Gaussian fields of known power."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy.fft

from muster.mocks.errors import ValidationError
from muster.mocks.qa.power import count_modes, measure_field_power, measure_power

if TYPE_CHECKING:
    from numpy.typing import NDArray

L = 200.0


def integer_modes(reach: int) -> NDArray[Any]:
    """All (nx, ny, nz) but 0, of both signs: (modes, 3)."""
    along = np.arange(-reach, reach + 1)
    modes = np.stack(np.meshgrid(along, along, along, indexing="ij"), axis=-1).reshape(-1, 3)
    return modes[(modes != 0).any(axis=1)]


def shell_of(modes: NDArray[Any]) -> NDArray[Any]:
    length = np.sqrt((modes**2).sum(axis=1))
    return np.floor((length - 0.5) / 2).astype(int)


def clustered_points(rng: np.random.Generator, count: int, box: float) -> NDArray[np.float32]:
    """Points around random centres, so that the power is many times the shot noise."""
    centres = rng.uniform(0, box, (60, 3))
    points = centres[rng.integers(0, 60, count)] + rng.normal(0, 0.04 * box, (count, 3))
    return np.mod(points, box).astype(np.float32)


def gaussian_field(
    rng: np.random.Generator, grid: int, amplitude: NDArray[np.float64]
) -> NDArray[np.float64]:
    """A field whose transform is white noise times an amplitude: array, (grid, grid, grid)."""
    white = scipy.fft.rfftn(rng.normal(size=(grid, grid, grid)))
    field: NDArray[np.float64] = scipy.fft.irfftn(white * amplitude, s=(grid,) * 3)
    return field


def amplitude_of_power(grid: int, power: Any) -> NDArray[np.float64]:
    """Return √(P(k) N³ / V) of the modes of a real transform."""
    along = np.fft.fftfreq(grid, 1 / grid)
    half = np.fft.rfftfreq(grid, 1 / grid)
    length = np.sqrt(along[:, None, None] ** 2 + along[:, None] ** 2 + half**2)
    length[0, 0, 0] = 1.0
    return np.sqrt(power(2 * np.pi / L * length) * grid**3 / L**3)


def test_modes_of_a_shell_are_all_those_of_both_signs() -> None:
    found = count_modes(grid=64, shells=12)
    brute = np.bincount(shell_of(integer_modes(30)))[:12]
    np.testing.assert_array_equal(found, brute)


def test_power_equals_a_direct_sum_over_points() -> None:
    points = clustered_points(np.random.default_rng(1), 3000, L)
    modes = integer_modes(8)
    modes = modes[shell_of(modes) < 4]
    phases = np.exp(-2j * np.pi / L * (modes @ points.T.astype(np.float64)))
    exact = L**3 / len(points) ** 2 * np.abs(phases.sum(axis=1)) ** 2
    shell = shell_of(modes)
    mean = np.bincount(shell, exact) / np.bincount(shell)
    found = measure_power(points, L, grid=48, shells=4)
    np.testing.assert_allclose(found.power_mpch3, mean, rtol=0.01)
    np.testing.assert_array_equal(found.modes, np.bincount(shell))
    k = 2 * np.pi / L * np.sqrt((modes**2).sum(axis=1))
    np.testing.assert_allclose(found.k_hmpc, np.bincount(shell, k) / np.bincount(shell))
    assert found.shot_noise_mpch3 == pytest.approx(L**3 / 3000)


def test_power_of_poisson_points_is_their_shot_noise() -> None:
    rng = np.random.default_rng(2)
    boxes, count = 24, 20_000
    found = [
        measure_power(rng.uniform(0, L, (count, 3)), L, grid=64, shells=8) for _ in range(boxes)
    ]
    shot_noise = L**3 / count
    mean = np.mean([p.power_mpch3 for p in found], axis=0)
    error = shot_noise * np.sqrt(2 / found[0].modes / boxes)
    assert (np.abs(mean - shot_noise) < 4 * error).all()
    # Half of the Nyquist frequency without the window's correction would be a fifth off.
    assert error[-1] < 0.01 * shot_noise


def check_gaussian_fields(fields: int, grid: int, shells: int) -> None:
    """Compare the mean and the variance of P(k) with theory, within their errors."""

    def power(k: NDArray[np.float64]) -> NDArray[np.float64]:
        return 5000.0 * (k / 0.1) / (1 + (k / 0.1) ** 3)

    rng = np.random.default_rng(3)
    amplitude = amplitude_of_power(grid, power)
    found = [
        measure_field_power(gaussian_field(rng, grid, amplitude), L, shells=shells)
        for _ in range(fields)
    ]
    modes = found[0].modes
    n = integer_modes(grid // 2 - 1)
    shell = shell_of(n)
    n, shell = n[shell < shells], shell[shell < shells]
    each = power(2 * np.pi / L * np.sqrt((n**2).sum(axis=1)))
    mean = np.bincount(shell, each) / modes
    # The variance of a shell's mean is Σ 2P²/N_k², k and −k being one: 2P²/N_k for equal P.
    variance = 2 * np.bincount(shell, each**2) / modes**2
    values = np.array([p.power_mpch3 for p in found])
    assert (np.abs(values.mean(axis=0) - mean) < 4.5 * np.sqrt(variance / fields)).all()
    ratio = values.var(axis=0, ddof=1) / variance
    # Relative error of a sample's variance, with the excess kurtosis of a χ² of N_k/2 pairs.
    error = np.sqrt(2 / (fields - 1) + 24 / modes / fields)
    assert (np.abs(ratio - 1) < 4 * error).all()
    assert abs(ratio.mean() - 1) < 4 * np.sqrt((error**2).sum()) / shells
    assert all(p.shot_noise_mpch3 == 0 for p in found)


def test_gaussian_fields_have_their_power_and_its_variance() -> None:
    check_gaussian_fields(fields=100, grid=32, shells=6)


@pytest.mark.thorough
def test_400_gaussian_fields_have_their_power_and_its_variance() -> None:
    check_gaussian_fields(fields=400, grid=64, shells=12)


def test_threads_change_no_bit() -> None:
    points = clustered_points(np.random.default_rng(4), 5000, L)
    one = measure_power(points, L, grid=60, shells=6, workers=1)
    for workers in (2, 3, 5):
        other = measure_power(points, L, grid=60, shells=6, workers=workers)
        assert other.power_mpch3.tobytes() == one.power_mpch3.tobytes()


def test_points_outside_the_box_are_wrapped() -> None:
    points = clustered_points(np.random.default_rng(5), 500, L).astype(np.float64)
    points[0] = 0.0
    found = measure_power(points, L, grid=32, shells=4)
    moved = points + L * np.array([1, -2, 3])
    moved[0] = L
    again = measure_power(moved, L, grid=32, shells=4)
    np.testing.assert_allclose(again.power_mpch3, found.power_mpch3, rtol=1e-9)


def test_power_scales_with_the_box() -> None:
    points = clustered_points(np.random.default_rng(6), 500, 1.0)
    small = measure_power(points, 1.0, grid=32, shells=4)
    large = measure_power(points * 64, 64.0, grid=32, shells=4)
    np.testing.assert_allclose(large.power_mpch3, small.power_mpch3 * 64**3, rtol=1e-5)
    np.testing.assert_allclose(large.k_hmpc, small.k_hmpc / 64)


def test_no_points_have_no_power() -> None:
    found = measure_power(np.zeros((0, 3)), L, grid=32, shells=4)
    assert np.isnan(found.power_mpch3).all()
    assert np.isnan(found.shot_noise_mpch3)
    np.testing.assert_array_equal(found.modes, count_modes(32, 4))


@pytest.mark.parametrize(
    ("points", "box", "grid", "what"),
    [
        (np.zeros((3, 2)), L, 32, "three coordinates"),
        (np.zeros(3), L, 32, "three coordinates"),
        (np.array([[0, 1, np.nan]]), L, 32, "not finite; got: 1 of 1"),
        (np.array([[0, np.inf, 1]]), L, 32, "not finite"),
        (np.zeros((1, 3)), 0.0, 32, "a box has a side"),
        (np.zeros((1, 3)), np.nan, 32, "a box has a side"),
        (np.zeros((1, 3)), L, 16, "do not fit the mesh"),
        (np.zeros((1, 3)), L, 33, "do not fit the mesh"),
    ],
)
def test_what_has_no_power_spectrum_is_refused(
    points: NDArray[Any], box: float, grid: int, what: str
) -> None:
    with pytest.raises(ValidationError, match=what):
        measure_power(points, box, grid=grid, shells=4)
