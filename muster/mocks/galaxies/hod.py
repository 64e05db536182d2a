"""The model ``hod``: the halo occupation distribution of Zheng et al. (2007), in NumPy.

Centrals rest in their haloes.  Satellites follow the mass of an NFW halo, whose concentration is
the mean of its mass and redshift, and move with the isotropic dispersion there.  A satellite's peak
mass follows the power law of the unevolved subhalo mass function, dN/dlnμ ∝ μ^-0.8 (Giocoli, Tormen
& van den Bosch 2008), between M_min and the mass of its host.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import erf

from muster.mocks.galaxies.catalog import GalaxyCatalog
from muster.mocks.galaxies.cosmic_time import age_gyr
from muster.mocks.galaxies.model import Expectation
from muster.mocks.galaxies.nfw import (
    BLOCK,
    concentration_of,
    draw_phase_space,
    virial_velocity_kms,
)
from muster.mocks.galaxies.stellar import draw_stellar_properties
from muster.mocks.halos.slabs import wrap_positions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from muster.mocks.galaxies.parameters import HodParams
    from muster.mocks.galaxies.stream import RandomStream
    from muster.mocks.halos.catalog import HaloCatalog

SUBHALO_SLOPE = 0.8

_INVERTED = 6.0
"""Up to this mean Poisson numbers are drawn by inversion."""

OCCUPATION, PHASE_SPACE, STELLAR, SUBHALOS = range(4)
"""Purposes of the generators of a stream: one changes no draw of another."""


def mean_occupation(
    masses_msunh: NDArray[np.float64], params: HodParams
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean numbers of centrals and satellites of haloes.

    Parameters
    ----------
    masses_msunh : array of float64, shape (n,)
        In Msun/h, above 0.
    params : HodParams
        Of the occupation.

    Returns
    -------
    centrals, satellites : array of float64, shape (n,)
        Zheng et al. (2007), eqs. 2 and 3: ½ [1 + erf((log M - log M_min) / σ)], and that times
        ((M - M_0) / M_1)^α above M_0.
    """
    distance = np.log10(masses_msunh) - params.log_m_min
    if params.sigma_log_m > 0:
        centrals = 0.5 * (1 + erf(distance / params.sigma_log_m))
    else:
        centrals = (distance >= 0).astype(np.float64)
    above = np.maximum(masses_msunh - 10**params.log_m0, 0) / 10**params.log_m1
    satellites = np.where(above > 0, centrals * above**params.alpha, 0.0)
    return centrals, satellites


def expect_number(halos: HaloCatalog, params: HodParams) -> Expectation:
    """Return mean and standard deviation of the number of galaxies of given haloes."""
    centrals, satellites = mean_occupation(halos.masses, params)
    variance = centrals * (1 - centrals) + satellites
    return Expectation(float((centrals + satellites).sum()), float(np.sqrt(variance.sum())))


def populate(halos: HaloCatalog, params: HodParams, stream: RandomStream) -> GalaxyCatalog:
    """Populate haloes with centrals and satellites.

    Parameters
    ----------
    halos : HaloCatalog
        n ≥ 0 haloes.
    params : HodParams
        Parameters of the model.
    stream : RandomStream
        All randomness.

    Returns
    -------
    GalaxyCatalog
        Grouped by halo, the central first; ``vel``, ``logsm_t_obs``, ``logssfr_t_obs``,
        ``logmp_t_obs`` (log10 of Msun/h) and ``upid``.
    """
    meta = halos.metadata
    occupied, has_central, satellites = _draw_occupation(halos.masses, params, stream)
    counts = satellites + has_central
    of_galaxy = np.repeat(np.arange(len(occupied)), counts)
    is_central = np.zeros(len(of_galaxy), dtype=bool)
    is_central[(np.cumsum(counts) - counts)[has_central]] = True

    parents = occupied[of_galaxy]
    positions = np.take(halos.positions, parents, axis=0)
    velocities = np.take(halos.velocities, parents, axis=0)
    masses = halos.masses[occupied]
    log_mass = np.log10(masses).astype(np.float32)[of_galaxy]
    upid = np.where(is_central, np.int64(-1), halos.ids[parents])

    rows = np.flatnonzero(~is_central)
    hosts = of_galaxy[rows]
    _place_satellites(halos, occupied, hosts, rows, (positions, velocities), params, stream)
    log_mass[rows] += _draw_log_mass_ratios(masses, hosts, params, stream)
    positions = wrap_positions(positions, meta.box_size_mpch)

    age = age_gyr(meta.cosmology, meta.redshift)
    log_m_msun = log_mass - np.float32(np.log10(meta.cosmology.h))
    log_sm, log_ssfr = draw_stellar_properties(
        stream.numpy(STELLAR), log_m_msun, meta.redshift, age, params
    )
    properties = {
        "vel": velocities,
        "logsm_t_obs": log_sm,
        "logssfr_t_obs": log_ssfr,
        "logmp_t_obs": log_mass,
        "upid": upid,
    }
    attributes = {
        "galaxy_model": "hod",
        "z_obs": meta.redshift,
        "t_obs": age,
        "t0": age_gyr(meta.cosmology, 0.0),
    }
    return GalaxyCatalog(positions, properties, parents, attributes)


def _draw_occupation(
    masses: NDArray[np.float64], params: HodParams, stream: RandomStream
) -> tuple[NDArray[np.intp], NDArray[np.bool_], NDArray[np.int64]]:
    """Draw which haloes have galaxies, which of these a central, and their numbers of satellites.

    Haloes in which less than 1e-10 galaxies are expected are left out.
    """
    rng = stream.numpy(OCCUPATION)
    least = 10 ** (params.log_m_min - 4.5 * params.sigma_log_m)
    active = np.flatnonzero(masses >= least * (1 - 1e-12))
    has_central = np.empty(len(active), dtype=bool)
    satellites = np.empty(len(active), dtype=np.int64)
    for start in range(0, len(active), BLOCK):
        part = slice(start, start + BLOCK)
        means = mean_occupation(masses[active[part]], params)
        has_central[part] = rng.random(len(means[0])) < means[0]
        satellites[part] = draw_poisson(rng, means[1])
    taken = np.flatnonzero(has_central | (satellites > 0))
    return active[taken], has_central[taken], satellites[taken]


def draw_poisson(rng: np.random.Generator, means: NDArray[np.float64]) -> NDArray[np.int64]:
    """Draw Poisson numbers, small means by the inverse of their cumulative distribution.

    Most haloes expect few satellites, for which this is faster than NumPy's general way.
    """
    counts = np.zeros(len(means), dtype=np.int64)
    large = np.flatnonzero(means > _INVERTED)
    counts[large] = rng.poisson(means[large])
    drawn = rng.random(len(means))
    drawn[large] = 0
    left = np.flatnonzero(drawn > np.exp(-means))
    mean, drawn = means[left], drawn[left]
    term = np.exp(-mean)
    total = term.copy()
    for number in range(1, 64):
        counts[left] = number
        term *= mean / number
        total += term
        more = np.flatnonzero(drawn > total)
        if not len(more):
            break
        left, mean, drawn = left[more], mean[more], drawn[more]
        term, total = term[more], total[more]
    return counts


def _place_satellites(
    halos: HaloCatalog,
    occupied: NDArray[np.intp],
    hosts: NDArray[np.intp],
    rows: NDArray[np.intp],
    phase_space: tuple[NDArray[np.float32], NDArray[np.float32]],
    params: HodParams,
    stream: RandomStream,
) -> None:
    """Move satellites from the centres of their haloes, and add their velocities, in place."""
    positions, velocities = phase_space
    redshift = halos.metadata.redshift
    masses, radii = halos.masses[occupied], halos.radii[occupied]
    concentrations = concentration_of(masses, redshift, params.concentration).astype(np.float32)
    speeds_kms = virial_velocity_kms(masses, radii, redshift).astype(np.float32)
    rng = stream.numpy(PHASE_SPACE)
    offsets = np.empty((BLOCK, 3), dtype=np.float32)
    kicks = np.empty((BLOCK, 3), dtype=np.float32)
    for start in range(0, len(hosts), BLOCK):
        host = hosts[start : start + BLOCK]
        row = rows[start : start + BLOCK]
        size = len(host)
        draw_phase_space(
            rng, radii[host], speeds_kms[host], concentrations[host], offsets[:size], kicks[:size]
        )
        positions[row] += offsets[:size]
        velocities[row] += kicks[:size]


def _draw_log_mass_ratios(
    masses: NDArray[np.float64],
    hosts: NDArray[np.intp],
    params: HodParams,
    stream: RandomStream,
) -> NDArray[np.float32]:
    """Draw log10 of satellites' peak masses over the masses of their hosts."""
    rng = stream.numpy(SUBHALOS)
    smallest = np.minimum(10**params.log_m_min / masses, 1)
    spread = (smallest**-SUBHALO_SLOPE - 1).astype(np.float32)
    log_ratios = np.empty(len(hosts), dtype=np.float32)
    for start in range(0, len(hosts), BLOCK):
        part = slice(start, start + BLOCK)
        drawn = rng.random(len(hosts[part]), dtype=np.float32)
        drawn *= spread[hosts[part]]
        log_ratios[part] = np.log1p(drawn)
    log_ratios *= np.float32(-1 / (SUBHALO_SLOPE * np.log(10)))
    return log_ratios
