"""Haloes of one box, or of a slab of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Cosmology:
    """A flat wCDM cosmology, as a simulation states it.

    Attributes
    ----------
    h : float
        Hubble constant over 100 km/s/Mpc.
    omega_m, omega_b : float
        Density parameters of matter and baryons today.
    sigma8, n_s : float
        Amplitude at 8 Mpc/h and slope of the linear power spectrum.
    w0, wa : float
        Equation of state of dark energy.
    """

    h: float
    omega_m: float
    omega_b: float
    sigma8: float
    n_s: float
    w0: float = -1.0
    wa: float = 0.0


@dataclass(frozen=True)
class HaloMetadata:
    """What a halo catalogue says of itself.

    Attributes
    ----------
    simulation : str
        Suite, or name of the source.
    box_size_mpch : float
        Side of the periodic box in comoving Mpc/h.
    redshift : float
        Redshift of the snapshot.
    cosmology : Cosmology
        Of the simulation.
    phase : str
        Name of the initial conditions: ph3000.
    realization : int or None
        Number of the realization, where there is one.
    particle_mass_msunh : float or None
        Mass of a particle in Msun/h.
    cleaned : bool or None
        Whether the catalogue was cleaned of unphysical haloes; None where that has no meaning.
    min_mass_msunh : float
        Mass below which haloes were left out, in Msun/h.
    slab : tuple of (int, int) or None
        Number of this slab and of all; None of a whole box.
    source : dict
        What else the source says: files, versions, seed.
    """

    simulation: str
    box_size_mpch: float
    redshift: float
    cosmology: Cosmology
    phase: str = ""
    realization: int | None = None
    particle_mass_msunh: float | None = None
    cleaned: bool | None = None
    min_mass_msunh: float = 0.0
    slab: tuple[int, int] | None = None
    source: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class HaloCatalog:
    """Haloes as arrays of equal length, in the order of their ids.

    Attributes
    ----------
    positions : array of float32, shape (n, 3)
        Comoving, in Mpc/h, in [0, box size).
    masses : array of float64, shape (n,)
        In Msun/h.
    ids : array of int64, shape (n,)
        Unique in the box.
    velocities : array of float32, shape (n, 3)
        Peculiar, proper, in km/s.
    radii : array of float32, shape (n,)
        Virial (or R200-like) radius, comoving, in Mpc/h.
    metadata : HaloMetadata
        Of the box.
    """

    positions: NDArray[np.float32]
    masses: NDArray[np.float64]
    ids: NDArray[np.int64]
    velocities: NDArray[np.float32]
    radii: NDArray[np.float32]
    metadata: HaloMetadata

    def __len__(self) -> int:
        return len(self.masses)
