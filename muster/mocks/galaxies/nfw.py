"""Satellites in haloes of Navarro, Frenk & White (1997): radii, directions and velocities.

The mass within a radius and the velocity dispersion depend on y = concentration × r / radius alone,
but for factors of the halo.  Two tables of one dimension therefore serve all haloes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from muster.mocks.galaxies.parameters import Concentration

G_MPC_KMS2_MSUN = 4.30091e-9
"""Gravitational constant in Mpc (km/s)² / Msun."""

LEAST_CONCENTRATION, MOST_CONCENTRATION = 0.5, 100.0

DUFFY08: dict[Concentration, tuple[float, float, float]] = {
    "duffy08_200c": (5.71, -0.084, -0.47),
    "duffy08_vir": (7.85, -0.081, -0.71),
    "duffy08_200m": (10.14, -0.081, -1.01),
}
"""A, B, C of c = A (M / 2e12 Msun/h)^B (1 + z)^C: Duffy et al. (2008), table 1, full sample."""

BLOCK = 65_536
"""Galaxies that are computed at a time, so that what is computed stays in the caches."""

_POINTS = 8192


def concentration_of(
    masses_msunh: NDArray[np.float64], redshift: float, relation: Concentration
) -> NDArray[np.float64]:
    """Return the mean concentration of haloes.

    Parameters
    ----------
    masses_msunh : array of float64, shape (n,)
        In Msun/h.
    redshift : float
        Of the haloes.
    relation : str
        By the mass definition: 200c, vir or 200m (Duffy et al. 2008, full sample).

    Returns
    -------
    array of float64, shape (n,)
        Within [0.5, 100].
    """
    amplitude, mass_slope, redshift_slope = DUFFY08[relation]
    mean = amplitude * (masses_msunh / 2e12) ** mass_slope * (1 + redshift) ** redshift_slope
    limited: NDArray[np.float64] = np.clip(mean, LEAST_CONCENTRATION, MOST_CONCENTRATION)
    return limited


def enclosed(y: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Return ln(1 + y) - y / (1 + y): mass within y scale radii, over 4 π ρ_s r_s³."""
    y = np.asarray(y, dtype=np.float64)
    small = y * y * (0.5 - y * (2 / 3 - y * 0.75))
    return np.where(y < 1e-4, small, np.log1p(y) - y / (1 + y))


def virial_velocity_kms(
    masses_msunh: NDArray[np.float64], radii_mpch: NDArray[np.float32], redshift: float
) -> NDArray[np.float64]:
    """Return √(G M / r) of haloes with comoving radii, in proper km/s; 0 where a radius is 0."""
    proper = np.asarray(radii_mpch, dtype=np.float64) / (1 + redshift)
    square = np.divide(
        G_MPC_KMS2_MSUN * masses_msunh, proper, out=np.zeros_like(proper), where=proper > 0
    )
    return np.sqrt(square)


@lru_cache(maxsize=1)
def _tables() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Tabulate y and the dispersion over √enclosed(y), from 0 to that of the most concentration.

    The dispersion σ_r(y) is that of isotropic orbits in units of √(G M_s / r_s), M_s the mass scale
    of :func:`enclosed`: σ² = y (1 + y)² ∫_y^∞ m(t) / (t³ (1 + t)²) dt (Łokas & Mamon 2001, eq. 13).
    """
    s = np.linspace(0, float(np.sqrt(enclosed(MOST_CONCENTRATION))), _POINTS)
    grid = np.concatenate([[0.0], np.geomspace(1e-7, 1e7, 56_001)])
    with np.errstate(divide="ignore", invalid="ignore"):
        t = grid[1:]
        log_steps = np.diff(np.log(t))
        integrand = enclosed(t) / (t**2 * (1 + t) ** 2)  # of dt/t
        pieces = 0.5 * (integrand[1:] + integrand[:-1]) * log_steps
    beyond = np.concatenate([np.cumsum(pieces[::-1])[::-1], [0.0]])
    dispersion = np.concatenate([[0.0], np.sqrt(t * (1 + t) ** 2 * beyond)])
    y = np.interp(s, np.sqrt(enclosed(grid)), grid)
    sigma = np.interp(y, grid, dispersion)
    return y.astype(np.float32), sigma.astype(np.float32)


def draw_phase_space(
    rng: np.random.Generator,
    radii_mpch: NDArray[np.float32],
    velocities_kms: NDArray[np.float32],
    concentrations: NDArray[np.float32],
    offsets: NDArray[np.float32],
    speeds: NDArray[np.float32],
) -> None:
    """Draw positions and velocities of satellites, relative to their haloes.

    Radii by the inverse of the cumulative mass, directions isotropic, velocities Gaussian with the
    isotropic Jeans dispersion at the radius.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of the draws; blocks of :data:`BLOCK` satellites are drawn in turn.
    radii_mpch, velocities_kms, concentrations : array of float32, shape (n,)
        Radius (comoving), √(G M / r) and concentration of each satellite's halo.
    offsets : array of float32, shape (n, 3)
        Filled with positions in comoving Mpc/h.
    speeds : array of float32, shape (n, 3)
        Filled with velocities in km/s.
    """
    y_table, sigma_table = _tables()
    y_rise = np.append(np.diff(y_table), np.float32(0))
    sigma_rise = np.append(np.diff(sigma_table), np.float32(0))
    scale = np.float32((_POINTS - 1) / np.sqrt(float(enclosed(MOST_CONCENTRATION))))
    for start in range(0, len(radii_mpch), BLOCK):
        part = slice(start, start + BLOCK)
        c = concentrations[part]
        mass = np.log1p(c) - c / (1 + c)
        place = np.sqrt(rng.random(len(c), dtype=np.float32) * mass) * scale
        index = place.astype(np.int32)
        place -= index
        r = (y_table[index] + place * y_rise[index]) * (radii_mpch[part] / c)
        sigma = sigma_table[index] + place * sigma_rise[index]
        sigma *= velocities_kms[part] * np.sqrt(c / mass)
        cosine = 2 * rng.random(len(c), dtype=np.float32) - 1
        angle = rng.random(len(c), dtype=np.float32) * np.float32(2 * np.pi)
        across = r * np.sqrt(1 - cosine * cosine)
        offsets[part, 0] = across * np.cos(angle)
        offsets[part, 1] = across * np.sin(angle)
        offsets[part, 2] = r * cosine
        np.multiply(
            rng.standard_normal((len(c), 3), dtype=np.float32), sigma[:, None], out=speeds[part]
        )
