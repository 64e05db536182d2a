"""Making a box of synthetic haloes: for tests, for examples, and where no simulation is at hand.

Masses are drawn a bin of mass at a time from the mass function of Tinker et al. (2008), positions
from a lognormal field with the bias of Tinker et al. (2010), velocities from linear theory.  Haloes
do not exclude each other and have no substructure, and there is no power below the cells of the
field: good for large scales and counts, not for the one-halo regime.
"""

from __future__ import annotations

import math
from collections import defaultdict
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from muster.mocks.errors import ValidationError
from muster.mocks.halos.catalog import HaloMetadata
from muster.mocks.halos.columns import Columns
from muster.mocks.halos.linear_theory import (
    LOG10_MASSES,
    STEPS_PER_DEX,
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
from muster.mocks.halos.slabs import check_selection, wrap_positions
from muster.mocks.halos.synthetic_options import METHOD

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from muster.mocks.halos.catalog import Cosmology, HaloCatalog
    from muster.mocks.halos.source import SlabAxis
    from muster.mocks.halos.synthetic_options import SyntheticInputs

BINS_PER_DEX = 10
_STEPS = STEPS_PER_DEX // BINS_PER_DEX
MOST_HALOS = 200_000_000
_BIAS_RATIO = 1.15
"""Ratio of the least and greatest bias of haloes that share one lognormal field."""

_NOISE_STREAM, _HALO_STREAM = 0, 1


def make_synthetic_box(
    inputs: SyntheticInputs,
    *,
    min_mass_msunh: float,
    slab: tuple[int, int] | None,
    slab_axis: SlabAxis,
    n_halos: int | None,
) -> HaloCatalog:
    """Make the haloes of one box, or of a slab of it.

    The same inputs give the same haloes.  A higher mass cut leaves the heavier ones as they are.

    Parameters
    ----------
    inputs : SyntheticInputs
    min_mass_msunh, slab, slab_axis, n_halos
        As :meth:`muster.mocks.halos.source.HaloSource.read` has them.

    Raises
    ------
    ValidationError
        When the box would hold more haloes than memory should.
    """
    check_selection(min_mass_msunh, slab, n_halos)
    options = inputs.options
    cosmology = options.cosmology.cosmology
    least = max(min_mass_msunh, options.lowest_mass_msunh)
    field = _make_field(inputs, cosmology)
    growth = calculate_growth(cosmology, inputs.redshift)
    columns = Columns(slab=slab, slab_axis=slab_axis, n_halos=n_halos)
    for masses, positions, ids in _draw_halos(inputs, cosmology, field, least):
        kept = masses >= least
        masses, ids = masses[kept], ids[kept]
        wrapped = wrap_positions(positions[kept], options.box_size_mpch)
        radii = calculate_radii(cosmology, inputs.redshift, options.mass_definition, masses)
        velocities = np.zeros_like(wrapped)
        columns.add(wrapped, masses, ids, velocities, radii, box_size_mpch=options.box_size_mpch)
    catalog = columns.build(
        HaloMetadata(
            simulation="synthetic",
            box_size_mpch=options.box_size_mpch,
            redshift=inputs.redshift,
            cosmology=cosmology,
            phase=f"ph{inputs.realization:03d}",
            realization=inputs.realization,
            min_mass_msunh=float(least),
            slab=slab,
            source={
                "suite": "synthetic",
                "method": METHOD,
                "seed": options.seed,
                "cells": field.cells,
                "mass_definition": options.mass_definition,
                "lowest_mass_msunh": options.lowest_mass_msunh,
                "colossus": version("colossus"),
                "numpy": np.__version__,
            },
        ),
        where="synthetic haloes",
    )
    catalog.velocities[:] = field.calculate_velocities(
        catalog.positions, growth.velocity_factor_kms
    )
    return catalog


def _make_field(inputs: SyntheticInputs, cosmology: Cosmology) -> LinearField:
    options = inputs.options
    cells = choose_cells(options.box_size_mpch, options.cell_mpch)
    random = _stream(inputs, _NOISE_STREAM)
    growth = calculate_growth(cosmology, inputs.redshift).growth
    power = _power_on_grid(cosmology, cells, options.box_size_mpch) * np.float32(growth**2)
    return LinearField(options.box_size_mpch, draw_white_noise(cells, random), power)


@lru_cache(maxsize=1)
def _power_on_grid(cosmology: Cosmology, cells: int, box_size_mpch: float) -> NDArray[np.float32]:
    k = np.sqrt(sum_of_squares(wavenumbers(cells, box_size_mpch)))
    return calculate_linear_power(cosmology, k).astype(np.float32)


def _draw_halos(
    inputs: SyntheticInputs, cosmology: Cosmology, field: LinearField, least_msunh: float
) -> list[tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.int64]]]:
    """Draw masses, positions and ids, a bin of mass at a time."""
    options = inputs.options
    tables = tabulate_halos(cosmology, inputs.redshift, options.mass_definition)
    per_step, per_bin = _integrate(tables.dn_dlog10m)
    expected = per_bin * options.box_size_mpch**3
    first = int((math.log10(least_msunh) - LOG10_MASSES[0]) * BINS_PER_DEX)
    total = float(expected[first:].sum())
    if total > MOST_HALOS:
        raise ValidationError(
            "too many synthetic haloes",
            got=f"{total:.3g} above {least_msunh:.3g} Msun/h",
            expected=f"at most {MOST_HALOS:.3g}",
            do="raise the minimum mass, or make the box smaller",
        )
    drawn = []
    for bins, bias in _group_by_bias(tables.bias, per_bin):
        randoms = {b: _stream(inputs, _HALO_STREAM, b) for b in bins if b >= first}
        counts = {b: int(random.poisson(expected[b])) for b, random in randoms.items()}
        if not any(counts.values()):
            continue
        density, _ = field.calculate_lognormal(bias)
        for b, random in randoms.items():
            masses = _draw_masses(per_step, b, counts[b], random)
            positions = place_in_cells(density, counts[b], options.box_size_mpch, random)
            ids = np.arange(counts[b], dtype=np.int64) + (b << 40)
            drawn.append((masses, positions, ids))
    return drawn


def _integrate(
    dn_dlog10m: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Integrate a mass function over each step of its table, and over each bin of mass."""
    per_step = (dn_dlog10m[1:] + dn_dlog10m[:-1]) / (2 * STEPS_PER_DEX)
    return per_step, per_step.reshape(-1, _STEPS).sum(axis=1)


def _group_by_bias(
    bias: NDArray[np.float64], per_bin: NDArray[np.float64]
) -> list[tuple[list[int], float]]:
    """Group bins of mass that share one field; return each group with its mean bias."""
    of_bin = (bias[1:] + bias[:-1]).reshape(-1, _STEPS).mean(axis=1) / 2
    groups: dict[int, list[int]] = defaultdict(list)
    for number, value in enumerate(of_bin):
        groups[math.floor(math.log(value) / math.log(_BIAS_RATIO))].append(number)
    return [
        (bins, float(np.average(of_bin[bins], weights=per_bin[bins] + 1e-300)))
        for _, bins in sorted(groups.items())
    ]


def _draw_masses(
    per_step: NDArray[np.float64], number: int, count: int, random: np.random.Generator
) -> NDArray[np.float64]:
    """Draw masses of one bin in Msun/h, uniform in log mass within a step of the table."""
    steps = np.arange(number * _STEPS, (number + 1) * _STEPS + 1)
    cumulative = np.concatenate(([0.0], np.cumsum(per_step[steps[:-1]])))
    at = random.random(count) * cumulative[-1]
    masses: NDArray[np.float64] = 10 ** np.interp(at, cumulative, LOG10_MASSES[steps])
    return masses


def _stream(inputs: SyntheticInputs, *purpose: Any) -> np.random.Generator:
    """Return the random stream of one purpose: that of the field is the same at every redshift."""
    high, low = divmod(inputs.options.seed, 2**32)
    key = [low, high, inputs.realization, *purpose]
    if purpose[0] != _NOISE_STREAM:
        key.append(round(inputs.redshift * 1e6))
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))
