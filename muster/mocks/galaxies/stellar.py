"""Stellar masses and star-formation rates by halo mass and redshift, for the model ``hod``.

Published mean relations with scatter: stellar mass by Moster, Naab & White (2013), the
star-forming main sequence by Speagle et al. (2014), the quiescent fraction by Behroozi, Wechsler &
Conroy (2013), after Brammer et al. (2011).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from muster.mocks.galaxies.nfw import BLOCK

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from muster.mocks.galaxies.parameters import HodParams

_LN10 = float(np.log(10))


def mean_log_stellar_mass(
    log_m_msun: NDArray[np.floating], redshift: float
) -> NDArray[np.floating]:
    """Return the mean log10 stellar mass (Msun) of haloes or subhaloes.

    Parameters
    ----------
    log_m_msun : array, shape (n,)
        log10 of halo masses, of subhaloes their peak masses, in Msun (without h).
    redshift : float
        At least 0.

    Returns
    -------
    array of the dtype of ``log_m_msun``, shape (n,)
        Moster, Naab & White (2013), eq. 2 with eqs. 11 to 14 and table 1.
    """
    dtype = log_m_msun.dtype.type
    late = redshift / (1 + redshift)
    log_m1 = 11.590 + 1.195 * late
    norm = 0.0351 - 0.0247 * late
    beta = 1.376 - 0.826 * late
    gamma = 0.608 + 0.329 * late
    x = (log_m_msun - dtype(log_m1)) * dtype(_LN10)
    two_slopes: NDArray[np.floating] = np.log(np.exp(dtype(-beta) * x) + np.exp(dtype(gamma) * x))
    two_slopes *= dtype(-1 / _LN10)
    two_slopes += log_m_msun
    two_slopes += dtype(np.log10(2 * norm))
    return two_slopes


def main_sequence_coefficients(age_gyr: float) -> tuple[float, float]:
    """Return slope and offset of log10 SFR (Msun/yr) on log10 stellar mass (Msun).

    Speagle et al. (2014), eq. 28: (0.84 - 0.026 t) log M* - (6.51 - 0.11 t), t in Gyr.
    """
    return 0.84 - 0.026 * age_gyr, -(6.51 - 0.11 * age_gyr)


def quiescent_fraction(
    log_stellar_mass: NDArray[np.floating], redshift: float
) -> NDArray[np.floating]:
    """Return the fraction of quiescent galaxies at a stellar mass.

    [(M* / 10^(10.2 + 0.5 z))^-1.3 + 1]^-1 (Behroozi, Wechsler & Conroy 2013, eq. 42).
    """
    dtype = log_stellar_mass.dtype.type
    pivot = dtype(10.2 + 0.5 * redshift)
    odds: NDArray[np.floating] = np.exp(dtype(-1.3 * _LN10) * (log_stellar_mass - pivot))
    return 1 / (odds + dtype(1))


def draw_stellar_properties(
    rng: np.random.Generator,
    log_m_msun: NDArray[np.float32],
    redshift: float,
    age_gyr: float,
    params: HodParams,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Draw stellar masses and specific star-formation rates.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of the draws.
    log_m_msun : array of float32, shape (n,)
        log10 of peak masses in Msun.
    redshift, age_gyr : float
        Of the snapshot.
    params : HodParams
        Scatters.

    Returns
    -------
    log_stellar_mass, log_ssfr : array of float32, shape (n,)
        log10 of Msun, and of 1/yr.
    """
    log_sm = np.empty(len(log_m_msun), dtype=np.float32)
    log_ssfr = np.empty(len(log_m_msun), dtype=np.float32)
    slope, offset = main_sequence_coefficients(age_gyr)
    for start in range(0, len(log_m_msun), BLOCK):
        part = slice(start, start + BLOCK)
        size = len(log_m_msun[part])
        mass = mean_log_stellar_mass(log_m_msun[part], redshift)
        scatter = rng.standard_normal(size, dtype=np.float32)
        mass += scatter * np.float32(params.stellar_mass_scatter_dex)
        quiescent = rng.random(size, dtype=np.float32) < quiescent_fraction(mass, redshift)
        scatter = rng.standard_normal(size, dtype=np.float32)
        rate = (mass * np.float32(slope - 1)) + np.float32(offset)
        rate += scatter * np.float32(params.main_sequence_scatter_dex)
        low = scatter * np.float32(params.quiescent_scatter_dex)
        low += np.float32(params.quiescent_log_ssfr_per_yr)
        log_sm[part] = mass
        log_ssfr[part] = np.where(quiescent, low, rate)
    return log_sm, log_ssfr
