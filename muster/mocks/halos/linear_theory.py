"""Linear theory, mass function and bias of haloes, from colossus (Diemer 2018).

colossus keeps one current cosmology for all of a process and may write tables into the home folder;
here it is set for the length of a call, and nothing is written.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
from colossus.cosmology import cosmology as colossus_cosmology
from colossus.halo import mass_so
from colossus.lss import bias, mass_function

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from muster.mocks.halos.catalog import Cosmology

MassDefinition = Literal["200m", "vir"]

STEPS_PER_DEX = 200
LOG10_MASSES = np.arange(9 * STEPS_PER_DEX, 16 * STEPS_PER_DEX + 1) / STEPS_PER_DEX
"""Masses in log10 Msun/h that mass functions are tabled at."""


@dataclass(frozen=True)
class HaloTables:
    """Abundance and bias of haloes at one redshift, at :data:`LOG10_MASSES`.

    Attributes
    ----------
    dn_dlog10m : array of float64
        Number density per decade of mass, in (Mpc/h)^-3, comoving.
    bias : array of float64
        Linear bias with respect to matter.
    """

    dn_dlog10m: NDArray[np.float64]
    bias: NDArray[np.float64]


@dataclass(frozen=True)
class LinearGrowth:
    """Growth of structure at one redshift.

    Attributes
    ----------
    growth : float
        D(z), 1 at redshift 0.
    velocity_factor_kms : float
        a H f, in km/s per comoving Mpc/h of linear displacement.
    """

    growth: float
    velocity_factor_kms: float


@lru_cache(maxsize=64)
def tabulate_halos(cosmology: Cosmology, redshift: float, definition: MassDefinition) -> HaloTables:
    """Tabulate the mass function of Tinker et al. (2008) and the bias of Tinker et al. (2010).

    Parameters
    ----------
    cosmology : Cosmology
    redshift : float
    definition : {"200m", "vir"}
        What a halo's mass is within: 200 times the mean density, or the virial density of Bryan and
        Norman (1998).
    """
    masses = 10**LOG10_MASSES
    with _current(cosmology):
        per_ln_mass = mass_function.massFunction(
            masses, redshift, mdef=definition, model="tinker08", q_out="dndlnM"
        )
        linear_bias = bias.haloBias(masses, redshift, mdef=definition, model="tinker10")
    return HaloTables(_read_only(per_ln_mass * np.log(10)), _read_only(linear_bias))


@lru_cache(maxsize=64)
def calculate_growth(cosmology: Cosmology, redshift: float) -> LinearGrowth:
    """Calculate D, and a H f with f = d ln D / d ln a."""
    with _current(cosmology) as current:
        growth = float(current.growthFactor(redshift))
        rate = -(1 + redshift) / growth * float(current.growthFactor(redshift, derivative=1))
        hubble = 100 * float(current.Ez(redshift))
    return LinearGrowth(growth, hubble * rate / (1 + redshift))


def calculate_linear_power(
    cosmology: Cosmology, k_hmpc: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Calculate the linear power spectrum at redshift 0 (Eisenstein and Hu 1998).

    Parameters
    ----------
    cosmology : Cosmology
    k_hmpc : array of float, any shape
        Wavenumbers in h/Mpc, ≥ 0.

    Returns
    -------
    array of float64, the same shape
        In (Mpc/h)³; 0 at k = 0.
    """
    power = np.zeros(k_hmpc.shape)
    positive = k_hmpc > 0
    log_k, log_power = _tabulate_power(cosmology)
    at = np.log(k_hmpc[positive].astype(np.float64))
    power[positive] = np.exp(np.interp(at, log_k, log_power))
    return power


def calculate_radii(
    cosmology: Cosmology,
    redshift: float,
    definition: MassDefinition,
    masses_msunh: NDArray[np.float64],
) -> NDArray[np.float32]:
    """Calculate the radii within which haloes have their masses, in comoving Mpc/h."""
    with _current(cosmology):
        per_unit = float(mass_so.M_to_R(1.0, redshift, definition)) * (1 + redshift) / 1000
    return (per_unit * np.cbrt(masses_msunh)).astype(np.float32)


@lru_cache(maxsize=8)
def _tabulate_power(cosmology: Cosmology) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    log_k = np.linspace(np.log(1e-4), np.log(1e2), 2000)
    with _current(cosmology) as current:
        power = current.matterPowerSpectrum(np.exp(log_k), z=0.0, model="eisenstein98")
    return _read_only(log_k), _read_only(np.log(power))


def _read_only(values: NDArray[np.float64]) -> NDArray[np.float64]:
    values = np.asarray(values, dtype=np.float64)
    values.flags.writeable = False
    return values


@contextlib.contextmanager
def _current(cosmology: Cosmology) -> Iterator[colossus_cosmology.Cosmology]:
    """Make a cosmology colossus's current one, and put back the one before."""
    before = colossus_cosmology.current_cosmo
    made = _make(cosmology)
    colossus_cosmology.setCurrent(made)
    try:
        yield made
    finally:
        colossus_cosmology.current_cosmo = before


@lru_cache(maxsize=8)
def _make(cosmology: Cosmology) -> colossus_cosmology.Cosmology:
    dark_energy = {}
    if (cosmology.w0, cosmology.wa) != (-1.0, 0.0):
        dark_energy = {"de_model": "w0wa", "w0": cosmology.w0, "wa": cosmology.wa}
    return colossus_cosmology.Cosmology(
        name="muster",
        flat=True,
        H0=100 * cosmology.h,
        Om0=cosmology.omega_m,
        Ob0=cosmology.omega_b,
        sigma8=cosmology.sigma8,
        ns=cosmology.n_s,
        persistence="",
        **dark_energy,
    )
