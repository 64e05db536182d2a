"""The model ``diffsky``: halo growth, satellites and star formation of the diffsky family.

Numbers of satellites and their peak masses follow diffsky's subhalo mass function, growth
histories diffmahpop, star-formation histories diffstarpop; each satellite joins its NFW halo as in
:mod:`muster.mocks.galaxies.nfw`.  Halo arrays are padded to one of a few sizes, so that a second
box compiles nothing.  Each galaxy has a key of its own, and all that is drawn for whole arrays is
drawn by NumPy before the padding: the padded size changes no draw.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from jax import numpy as jnp

from muster.mocks.errors import ModelError
from muster.mocks.galaxies.catalog import GalaxyCatalog
from muster.mocks.galaxies.cosmic_time import age_gyr
from muster.mocks.galaxies.hod import OCCUPATION, PHASE_SPACE, SUBHALOS, draw_poisson
from muster.mocks.galaxies.jax_runtime import jax_precision
from muster.mocks.galaxies.model import Expectation
from muster.mocks.galaxies.nfw import concentration_of, draw_phase_space, virial_velocity_kms
from muster.mocks.halos.slabs import wrap_positions

with jax_precision(x64=False):  # constants of these modules are made when they are imported
    from diffmah.diffmah_kernels import DiffmahParams, _log_mah_kern, mah_singlehalo
    from diffmah.diffmahpop_kernels.bimod_censat_params import DEFAULT_DIFFMAHPOP_PARAMS
    from diffmah.diffmahpop_kernels.mc_bimod_cens import mc_diffmah_params_singlecen
    from diffmah.diffmahpop_kernels.mc_bimod_sats import mc_diffmah_params_singlesat
    from diffsky.mass_functions.mc_subs import (
        _compute_mean_subhalo_counts,
        generate_subhalopop_kern,
    )
    from diffstar import calc_sfh_singlegal
    from diffstar.defaults import SFR_MIN, T_TABLE_MIN
    from diffstar.diffstarpop import DEFAULT_DIFFSTARPOP_PARAMS, mc_diffstar_params_singlegal
    from diffstar.utils import cumulative_mstar_formed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from muster.mocks.galaxies.parameters import DiffskyParams
    from muster.mocks.galaxies.stream import RandomStream
    from muster.mocks.halos.catalog import HaloCatalog

BUCKETS = (1024, 4096, 16_384, 65_536)
"""Sizes that arrays are padded to; longer ones are computed in pieces of the last size."""

TIMES = 50
"""Times of a history, from 0.01 Gyr to the age at the snapshot."""

PROPERTIES = ("logsm_t_obs", "logssfr_t_obs", "logmp_t_obs")
HISTORIES = ("log_mah_table", "sfh_table")
GROWTH, STARS = range(2)
"""Purposes of the keys of a galaxy: one changes no draw of another."""

FALLBACK_LOG_MIN_MASS = 10.0
_PAD_LOG_MASS = 12.0


class Epoch(NamedTuple):
    """What all galaxies of a box share, as numbers that a compiled program takes as arguments.

    Attributes
    ----------
    t_obs_gyr, log_t0_gyr : float
        Age at the snapshot, and log10 of the age today.
    baryon_fraction : float
        Ω_b / Ω_m.
    """

    t_obs_gyr: np.float32
    log_t0_gyr: np.float32
    baryon_fraction: np.float32


def expect_number(halos: HaloCatalog, params: DiffskyParams) -> Expectation:
    """Return mean and standard deviation of the number of galaxies of given haloes."""
    with jax_precision(x64=False):
        satellites = float(_mean_satellites(halos, params).sum())
    return Expectation(len(halos) + satellites, float(np.sqrt(satellites)))


def populate(
    halos: HaloCatalog, params: DiffskyParams, stream: RandomStream, *, histories: bool = False
) -> GalaxyCatalog:
    """Populate haloes with a central each, and with satellites.

    Parameters
    ----------
    halos : HaloCatalog
        n ≥ 0 haloes.
    params : DiffskyParams
        Parameters of the model.
    stream : RandomStream
        All randomness.
    histories : bool
        Whether to return ``log_mah_table`` (log10 of Msun/h) and ``sfh_table`` (Msun/yr), both
        (n galaxies, 50) at the attribute ``t_table`` (Gyr).

    Returns
    -------
    GalaxyCatalog
        Grouped by halo, the central first; ``vel``, ``logsm_t_obs`` (Msun), ``logssfr_t_obs``
        (1/yr), ``logmp_t_obs`` (Msun/h) and ``upid``.

    Raises
    ------
    ModelError
        When the model gives what is not finite.
    """
    meta = halos.metadata
    t_obs, t0 = age_gyr(meta.cosmology, meta.redshift), age_gyr(meta.cosmology, 0.0)
    baryon_fraction = meta.cosmology.omega_b / meta.cosmology.omega_m
    epoch = Epoch(np.float32(t_obs), np.float32(np.log10(t0)), np.float32(baryon_fraction))
    with jax_precision(x64=False):
        means = _mean_satellites(halos, params)
        counts = draw_poisson(stream.numpy(OCCUPATION), means)
        hosts = np.repeat(np.arange(len(halos)), counts)
        drawn = _draw_properties(halos, hosts, params, stream, epoch, histories=histories)
    log_h = np.float32(np.log10(meta.cosmology.h))
    for name in ("logmp_t_obs", "log_mah_table"):
        if name in drawn:
            drawn[name] += log_h
    positions, velocities, upid = _place_galaxies(halos, hosts, params, stream)
    attributes = {
        "galaxy_model": "diffsky",
        "z_obs": meta.redshift,
        "t_obs": t_obs,
        "t0": t0,
        "t_table": np.linspace(T_TABLE_MIN, t_obs, TIMES),
    }
    parents = np.sort(np.concatenate([np.arange(len(halos)), hosts]), kind="stable")
    return GalaxyCatalog(positions, {"vel": velocities, **drawn, "upid": upid}, parents, attributes)


def _draw_properties(
    halos: HaloCatalog,
    hosts: NDArray[np.intp],
    params: DiffskyParams,
    stream: RandomStream,
    epoch: Epoch,
    *,
    histories: bool,
) -> dict[str, NDArray[np.float32]]:
    """Draw growth and star formation of all galaxies, in the order of the catalogue."""
    key = stream.jax()
    central_key, satellite_key = jax.random.fold_in(key, 0), jax.random.fold_in(key, 1)
    log_m = _log_mass_msun(halos)
    log_min = np.float32(_log_min_mass_msun(halos, params))
    numbers = np.arange(len(halos))
    central_rows = numbers + np.searchsorted(hosts, numbers)
    size = len(halos) + len(hosts)
    kept = (*PROPERTIES, *HISTORIES) if histories else PROPERTIES
    made: dict[str, NDArray[np.float32]] = {
        name: np.empty((size, TIMES) if name in HISTORIES else size, dtype=np.float32)
        for name in kept
    }
    growth = np.empty((len(halos), 5), dtype=np.float32)
    for part, (masses,) in _pieces((log_m,), (_PAD_LOG_MASS,)):
        first = np.uint32(part.start)
        grown = _grow_centrals(central_key, first, masses, epoch)
        growth[part] = _unpad(grown, part)
        formed = _form_stars(central_key, first, np.int32(-1), grown, grown, epoch)
        _scatter(made, central_rows[part], formed, part)

    ranks = stream.numpy(SUBHALOS).random(len(hosts), dtype=np.float32)
    for part, (rank, host) in _pieces((ranks, hosts), (0.5, 0)):
        first = np.uint32(part.start)
        grown = _grow_satellites(satellite_key, first, rank, log_m[host], log_min, epoch)
        formed = _form_stars(satellite_key, first, np.int32(0), grown, growth[host], epoch)
        _scatter(made, np.arange(part.start, part.stop) + hosts[part] + 1, formed, part)
    for name, values in made.items():
        bad = int((~np.isfinite(values)).sum())
        if bad:
            raise ModelError(
                "diffsky made values that are not finite",
                where=name,
                got=bad,
                do="check the model's parameters, and min_mass_msunh",
            )
    return made


def _place_galaxies(
    halos: HaloCatalog, hosts: NDArray[np.intp], params: DiffskyParams, stream: RandomStream
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Return positions, velocities and host ids of all galaxies, in the order of the catalogue."""
    meta = halos.metadata
    size = len(halos) + len(hosts)
    rows = np.arange(len(hosts)) + hosts + 1
    parents = np.sort(np.concatenate([np.arange(len(halos)), hosts]), kind="stable")
    positions = np.take(halos.positions, parents, axis=0)
    velocities = np.take(halos.velocities, parents, axis=0)
    upid = np.full(size, -1, dtype=np.int64)
    upid[rows] = halos.ids[hosts]

    relation = params.concentration
    concentrations = concentration_of(halos.masses, meta.redshift, relation).astype(np.float32)
    speeds = virial_velocity_kms(halos.masses, halos.radii, meta.redshift).astype(np.float32)
    offsets = np.empty((len(hosts), 3), dtype=np.float32)
    kicks = np.empty((len(hosts), 3), dtype=np.float32)
    draw_phase_space(
        stream.numpy(PHASE_SPACE), halos.radii[hosts], speeds[hosts], concentrations[hosts],
        offsets, kicks,
    )  # fmt: skip
    positions[rows] += offsets
    velocities[rows] += kicks
    positions = wrap_positions(positions, meta.box_size_mpch)
    return positions, velocities, upid


def _log_mass_msun(halos: HaloCatalog) -> NDArray[np.float32]:
    return np.log10(halos.masses / halos.metadata.cosmology.h).astype(np.float32)


def _log_min_mass_msun(halos: HaloCatalog, params: DiffskyParams) -> float:
    """Return log10 of the smallest peak mass of subhaloes, in Msun."""
    stated = params.log_min_subhalo_mass
    cut = halos.metadata.min_mass_msunh
    if stated is None:
        stated = float(np.log10(cut)) if cut > 0 else FALLBACK_LOG_MIN_MASS
    return stated - float(np.log10(halos.metadata.cosmology.h))


def _mean_satellites(halos: HaloCatalog, params: DiffskyParams) -> NDArray[np.float64]:
    """Return the mean number of satellites of each halo; none in one below their least mass."""
    log_m = _log_mass_msun(halos)
    log_min = np.float32(_log_min_mass_msun(halos, params))
    means = np.empty(len(halos))
    for part, (padded,) in _pieces((log_m,), (_PAD_LOG_MASS,)):
        means[part] = _unpad(_mean_counts(padded, log_min), part)
    means[log_m <= log_min] = 0
    return means


def _bucket(size: int) -> int:
    return next((bucket for bucket in BUCKETS if size <= bucket), BUCKETS[-1])


def _pieces(
    arrays: tuple[NDArray[Any], ...], fill: tuple[float, ...]
) -> Iterator[tuple[slice, list[NDArray[Any]]]]:
    """Yield pieces of arrays of equal length, each padded to the bucket of all."""
    size = len(arrays[0])
    bucket = _bucket(size)
    for start in range(0, size, bucket):
        part = slice(start, min(start + bucket, size))
        lacking = bucket - (part.stop - start)
        yield (
            part,
            [
                np.concatenate([array[part], np.full(lacking, value, dtype=array.dtype)])
                for array, value in zip(arrays, fill, strict=True)
            ],
        )


def _unpad(values: Any, part: slice) -> NDArray[np.float32]:
    return np.asarray(values)[: part.stop - part.start]


def _scatter(
    made: dict[str, NDArray[np.float32]],
    rows: NDArray[np.intp],
    formed: Mapping[str, Any],
    part: slice,
) -> None:
    """Copy what is wanted of a piece to its rows."""
    for name, values in made.items():
        values[rows] = _unpad(formed[name], part)


# What follows is compiled once for each size of BUCKETS that occurs.


@jax.jit
def _mean_counts(log_m: Any, log_min: Any) -> Any:
    return _compute_mean_subhalo_counts(log_m, log_min)


def _keys_of(key: Any, first: Any, size: int) -> Any:
    """Return a key of each galaxy, by its number in the slab."""
    numbers = jnp.asarray(first, dtype=jnp.uint32) + jnp.arange(size, dtype=jnp.uint32)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, numbers)


def _grow(model: Callable[..., Any], log_m: Any, epoch: Epoch, key: Any, t_peak: Any = None) -> Any:
    """Draw the growth history (5,) of one halo or subhalo, early or late forming."""
    history_key, kind_key = jax.random.split(jax.random.fold_in(key, GROWTH))
    early, late, fraction_early = model(
        DEFAULT_DIFFMAHPOP_PARAMS, log_m, epoch.t_obs_gyr, history_key, epoch.log_t0_gyr, t_peak
    )
    is_early = jax.random.uniform(kind_key) < fraction_early
    return jnp.where(is_early, jnp.stack(early), jnp.stack(late))


@jax.jit
def _grow_centrals(key: Any, first: Any, log_m: Any, epoch: Epoch) -> Any:
    """Return growth histories (n, 5) of n haloes, which grow until today."""
    today = 10**epoch.log_t0_gyr

    def grow(key: Any, log_m: Any) -> Any:
        return _grow(mc_diffmah_params_singlecen, log_m, epoch, key, today)

    return jax.vmap(grow)(_keys_of(key, first, log_m.size), log_m)


@jax.jit
def _grow_satellites(
    key: Any, first: Any, rank: Any, host_log_m: Any, log_min: Any, epoch: Epoch
) -> Any:
    """Return growth histories (n, 5) of n satellites of given ranks in the mass function."""

    def grow(key: Any, rank: Any, host_log_m: Any) -> Any:
        log_m = host_log_m + generate_subhalopop_kern(rank, host_log_m, log_min)
        return _grow(mc_diffmah_params_singlesat, log_m, epoch, key)

    return jax.vmap(grow)(_keys_of(key, first, rank.size), rank, host_log_m)


@jax.jit
def _form_stars(
    key: Any, first: Any, upid: Any, growth: Any, host_growth: Any, epoch: Epoch
) -> dict[str, Any]:
    """Draw the star-formation histories of n galaxies; ``upid`` of all is -1 or another."""
    keys = _keys_of(key, first, len(growth))
    form = jax.vmap(_form_stars_of, in_axes=(0, None, 0, 0, None))
    made: dict[str, Any] = form(keys, upid, growth, host_growth, epoch)
    return made


def _form_stars_of(
    key: Any, upid: Any, growth_of: Any, host_growth: Any, epoch: Epoch
) -> dict[str, Any]:
    """Draw the star-formation history of one galaxy."""
    growth, host = DiffmahParams(*growth_of), DiffmahParams(*host_growth)
    t_obs, lgt0 = epoch.t_obs_gyr, epoch.log_t0_gyr
    log_host_infall = _log_mah_kern(host, growth.t_peak, lgt0)
    log_ratio_infall = _log_mah_kern(growth, growth.t_peak, lgt0) - log_host_infall
    main, quenched, _, is_quenched = mc_diffstar_params_singlegal(
        DEFAULT_DIFFSTARPOP_PARAMS,
        _log_mah_kern(growth, 10**lgt0, lgt0),
        growth.t_peak,
        upid,
        log_ratio_infall,
        log_host_infall,
        t_obs - growth.t_peak,
        jax.random.fold_in(key, STARS),
    )
    chosen = jax.tree.map(lambda q, m: jnp.where(is_quenched, q, m), quenched, main)
    times = jnp.linspace(T_TABLE_MIN, t_obs, TIMES)
    sfh = calc_sfh_singlegal(chosen, growth, times, lgt0=lgt0, fb=epoch.baryon_fraction)
    sfh = jnp.maximum(sfh, SFR_MIN)
    log_mass = jnp.log10(cumulative_mstar_formed(times, sfh)[-1])
    return {
        "logsm_t_obs": log_mass,
        "logssfr_t_obs": jnp.log10(sfh[-1]) - log_mass,
        "logmp_t_obs": _log_mah_kern(growth, t_obs, lgt0),
        "log_mah_table": mah_singlehalo(growth, times, lgt0)[1],
        "sfh_table": sfh,
    }
