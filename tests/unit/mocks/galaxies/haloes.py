"""Haloes for tests of galaxy models: plain arrays, no simulation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from muster.mocks.halos.catalog import Cosmology, HaloCatalog, HaloMetadata

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from muster.mocks.galaxies.catalog import GalaxyCatalog

BOX_MPCH = 100.0
COSMOLOGY = Cosmology(h=0.6736, omega_m=0.3152, omega_b=0.0493, sigma8=0.808, n_s=0.9649)


def make_halos(
    masses: NDArray[np.float64], redshift: float = 1.1, seed: int = 1, box_mpch: float = BOX_MPCH
) -> HaloCatalog:
    """Place haloes of given masses at random; ids are 7, 14, 21, …"""
    rng = np.random.default_rng(seed)
    n = len(masses)
    return HaloCatalog(
        positions=rng.random((n, 3), dtype=np.float32) * np.float32(box_mpch),
        masses=np.asarray(masses, dtype=np.float64),
        ids=np.arange(1, n + 1, dtype=np.int64) * 7,
        velocities=rng.standard_normal((n, 3), dtype=np.float32) * np.float32(300),
        radii=(0.2 * (np.asarray(masses) / 1e12) ** (1 / 3)).astype(np.float32),
        metadata=HaloMetadata("test", box_mpch, redshift, COSMOLOGY),
    )


def draw_masses(n: int, seed: int = 1, least: float = 11.6, most: float = 14.8) -> NDArray:
    """Draw masses of a steep power law between 10^least and 10^most Msun/h."""
    u = np.random.default_rng([seed, 5]).random(n)
    return 10 ** (least - np.log10(1 - u * (1 - 10 ** (-0.9 * (most - least)))) / 0.9)


def columns(galaxies: GalaxyCatalog) -> dict[str, NDArray]:
    """Return all arrays of a catalogue by name."""
    return {
        "positions": galaxies.positions,
        "parent_halos": galaxies.parent_halos,
        **galaxies.properties,
    }


def assert_same(one: GalaxyCatalog, other: GalaxyCatalog) -> None:
    """Hold two catalogues equal, to the bit and in their types."""
    ours, theirs = columns(one), columns(other)
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        assert values.dtype == theirs[name].dtype, name
        np.testing.assert_array_equal(values, theirs[name], err_msg=name)
