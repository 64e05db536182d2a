"""The model ``rgrspit``: an adapter for rgrspit_diffsky (roman-grs-pit), where that is installed.

It needs versions of the diffsky family that the model ``diffsky`` cannot use, thus an environment
of its own.  In the mode ``baseline`` its arrays are those of the original's pipeline: key 0, its
order of galaxies (all centrals, then all satellites by host), its types, no padding.  Elsewhere
each slab has its own key, galaxies are grouped by halo, and ``upid`` is the id of the host.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from muster.mocks.errors import ModelError
from muster.mocks.galaxies.catalog import GalaxyCatalog
from muster.mocks.galaxies.jax_runtime import jax_precision
from muster.mocks.galaxies.model import Expectation
from muster.mocks.halos.slabs import wrap_positions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from muster.mocks.galaxies.parameters import RgrspitParams
    from muster.mocks.galaxies.stream import RandomStream
    from muster.mocks.halos.catalog import HaloCatalog

PROPERTIES = ("vel", "logsm_t_obs", "logssfr_t_obs", "logmp_t_obs", "upid")
HISTORIES = ("log_mah_table", "sfh_table")
OF_THE_BOX = ("z_obs", "t_obs", "t0", "t_table")


def expect_number(halos: HaloCatalog, params: RgrspitParams) -> Expectation:
    """Return mean and standard deviation of the number of galaxies of given haloes."""
    if not len(halos):
        return Expectation(0.0, 0.0)
    with jax_precision(x64=True):
        from diffsky.mass_functions.ccshmf_model import DEFAULT_CCSHMF_PARAMS, predict_ccshmf

        log_m = np.log10(halos.masses)
        log_ratio = params.log_min_subhalo_mass - log_m
        means = 10 ** np.asarray(predict_ccshmf(DEFAULT_CCSHMF_PARAMS, log_m, log_ratio))
    satellites = float(means.sum())
    return Expectation(len(halos) + satellites, float(np.sqrt(satellites)))


def populate(
    halos: HaloCatalog, params: RgrspitParams, stream: RandomStream, *, histories: bool = False
) -> GalaxyCatalog:
    """Populate haloes by ``mc_galpop_synthetic_subs``.

    Parameters
    ----------
    halos : HaloCatalog
        n ≥ 0 haloes.
    params : RgrspitParams
        Parameters of the model.
    stream : RandomStream
        All randomness, but for the mode ``baseline``.
    histories : bool
        Whether to return ``log_mah_table`` and ``sfh_table`` too.

    Returns
    -------
    GalaxyCatalog
        In the mode ``baseline`` with the order, the types and the ``upid`` (row of the host) of the
        original.

    Raises
    ------
    ModelError
        When the model gives what is not finite.
    """
    attributes: dict[str, Any] = {"galaxy_model": "rgrspit"}
    if not len(halos):
        return _make_empty(histories=histories, attributes=attributes)
    with jax_precision(x64=True):  # as it is once dsps was imported
        made = _call_original(halos, params, stream)
    attributes |= {name: np.asarray(made[name]) for name in OF_THE_BOX}
    kept = (*PROPERTIES, *HISTORIES) if histories else PROPERTIES
    columns = {name: np.asarray(made[name]) for name in kept}
    positions = np.asarray(made["pos"])
    del made
    for name, values in (("pos", positions), *columns.items()):
        if not np.isfinite(values).all():
            raise ModelError(
                "rgrspit made values that are not finite",
                where=name,
                do="check the model's parameters and the installed version of rgrspit_diffsky",
            )
    upid = columns["upid"]
    parents = np.where(upid < 0, np.arange(len(upid)), upid).astype(np.int64)
    if params.baseline:
        return GalaxyCatalog(positions, columns, parents, attributes)
    order = np.argsort(parents, kind="stable")
    parents = parents[order]
    columns = {name: values[order].astype(np.float32) for name, values in columns.items()}
    columns["upid"] = np.where(upid[order] < 0, np.int64(-1), halos.ids[parents])
    wrapped = wrap_positions(positions[order], halos.metadata.box_size_mpch)
    return GalaxyCatalog(wrapped, columns, parents, attributes)


def _call_original(
    halos: HaloCatalog, params: RgrspitParams, stream: RandomStream
) -> Mapping[str, Any]:
    """Call the original as its pipeline does: masses in Msun/h, arrays of 32 bits."""
    from dsps.cosmology import DEFAULT_COSMOLOGY
    from jax import numpy as jnp
    from jax import random
    from rgrspit_diffsky import mc_galpop

    made: Mapping[str, Any] = mc_galpop.mc_galpop_synthetic_subs(
        random.key(0) if params.baseline else stream.jax(),
        jnp.asarray(np.log10(halos.masses), dtype=jnp.float32),
        jnp.asarray(halos.radii, dtype=jnp.float32),
        jnp.asarray(halos.positions, dtype=jnp.float32),
        jnp.asarray(halos.velocities, dtype=jnp.float32),
        halos.metadata.redshift,
        params.log_min_subhalo_mass,
        DEFAULT_COSMOLOGY,
        float(halos.metadata.box_size_mpch),
    )
    return made


def _make_empty(*, histories: bool, attributes: Mapping[str, Any]) -> GalaxyCatalog:
    """Return no galaxies; the original cannot."""
    columns: dict[str, Any] = {
        name: np.zeros((0, 3) if name == "vel" else 0, dtype=np.float32) for name in PROPERTIES
    }
    columns["upid"] = np.zeros(0, dtype=np.int64)
    if histories:
        columns |= {name: np.zeros((0, 50), dtype=np.float32) for name in HISTORIES}
    positions = np.zeros((0, 3), dtype=np.float32)
    return GalaxyCatalog(positions, columns, np.zeros(0, dtype=np.int64), attributes)
