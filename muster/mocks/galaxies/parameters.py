"""Parameters of the galaxy models, as a campaign file states them: typed, with units and ranges."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from muster.frozen import Frozen

Concentration = Literal["duffy08_200c", "duffy08_vir", "duffy08_200m"]

_Log10Mass = Annotated[float, Field(ge=5, le=17, allow_inf_nan=False)]


class HodParams(Frozen):
    """Parameters of ``hod``: the halo occupation distribution of Zheng et al. (2007).

    The defaults of the occupation are theirs for galaxies brighter than M_r = -20.

    Attributes
    ----------
    log_m_min, log_m0, log_m1 : float
        log10 of masses in Msun/h: half of the haloes of mass M_min have a central; satellites
        begin at M_0; a halo of mass M_0 + M_1 has one satellite on average.
    sigma_log_m : float
        Width of the central's step, in dex.
    alpha : float
        Slope of the satellites' power law.
    concentration : str
        Concentration-mass relation of Duffy et al. (2008), full sample, by its mass definition.
    stellar_mass_scatter_dex, main_sequence_scatter_dex : float
        Scatter of log10 stellar mass at a halo mass, and of log10 SFR at a stellar mass.
    quiescent_log_ssfr_per_yr, quiescent_scatter_dex : float
        Mean and scatter of log10 specific SFR (1/yr) of quiescent galaxies.
    """

    log_m_min: _Log10Mass = 12.02
    sigma_log_m: float = Field(0.26, ge=0, le=2, allow_inf_nan=False)
    log_m0: _Log10Mass = 11.38
    log_m1: _Log10Mass = 13.31
    alpha: float = Field(1.06, ge=0, le=3, allow_inf_nan=False)
    concentration: Concentration = "duffy08_200c"
    stellar_mass_scatter_dex: float = Field(0.15, ge=0, le=1, allow_inf_nan=False)
    main_sequence_scatter_dex: float = Field(0.2, ge=0, le=1, allow_inf_nan=False)
    quiescent_log_ssfr_per_yr: float = Field(-11.8, ge=-15, le=-9, allow_inf_nan=False)
    quiescent_scatter_dex: float = Field(0.36, ge=0, le=1, allow_inf_nan=False)


class DiffskyParams(Frozen):
    """Parameters of ``diffsky``.

    Attributes
    ----------
    log_min_subhalo_mass : float or None
        log10 of the smallest peak mass of subhaloes, in Msun/h; None is the mass below which the
        halo catalogue was cut, or 10 where it was not.
    concentration : str
        Concentration-mass relation of Duffy et al. (2008), full sample, by its mass definition.
    """

    log_min_subhalo_mass: _Log10Mass | None = None
    concentration: Concentration = "duffy08_200c"


class RgrspitParams(Frozen):
    """Parameters of ``rgrspit``.

    Attributes
    ----------
    log_min_subhalo_mass : float
        log10 of the smallest peak mass of subhaloes, in the unit of the halo masses.
    baseline : bool
        Key 0 for every box, as the original's pipeline, for comparison with it: the draws of all
        boxes are the same ones then.  Else each slab has its own key.
    version : str or None
        Version of rgrspit_diffsky that must be installed; None takes any.
    """

    log_min_subhalo_mass: _Log10Mass = 10.0
    baseline: bool = False
    version: str | None = Field(None, pattern=r"[0-9A-Za-z][0-9A-Za-z.+_-]{0,39}")
