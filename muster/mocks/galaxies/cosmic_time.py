"""Age of the Universe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from muster.mocks.halos.catalog import Cosmology

HUBBLE_TIME_GYR = 9.777922216
"""1 / (100 km/s/Mpc)."""

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)


def age_gyr(cosmology: Cosmology, redshift: float) -> float:
    """Return the age of a flat wCDM universe at a redshift, without radiation.

    Parameters
    ----------
    cosmology : Cosmology
        Flat; w(a) = w0 + wa (1 - a) (Chevallier & Polarski 2001, Linder 2003).
    redshift : float
        At least 0.

    Returns
    -------
    float
        Gyr.
    """
    # t = 1/H0 ∫ da / (a E(a)); with a = u^(2/3) the integrand is smooth at 0.
    upper = (1.0 / (1.0 + redshift)) ** 1.5
    u = 0.5 * upper * (_NODES + 1)
    a = u ** (2 / 3)
    w0, wa = cosmology.w0, cosmology.wa
    dark = (1 - cosmology.omega_m) * a ** (-3 * (w0 + wa)) * np.exp(-3 * wa * (1 - a))
    integrand = 1 / np.sqrt(cosmology.omega_m + dark)
    integral = (2 / 3) * 0.5 * upper * float(_WEIGHTS @ integrand)
    return float(HUBBLE_TIME_GYR / cosmology.h * integral)
