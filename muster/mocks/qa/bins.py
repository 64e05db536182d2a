"""What the statistics of a catalogue are: bins, units and shapes, fixed for a version.

Statistics of thousands of catalogues can only be put together when all have the same bins, so that
nothing here is an option.  Another choice is another ``VERSION``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]

VERSION = 1
"""Of the bins, units and names; a file of another version is refused."""

MOST_BYTES = 64 * 1024
"""All arrays of a catalogue's statistics together."""

GRID = 128
"""Cells along a side of the mesh of the power spectrum."""

SHELLS = 16
SHELL_WIDTH = 2.0
"""Shells in |k|, and their width in units of the fundamental mode 2π/L; the first starts at half
a fundamental mode, the last ends at half of the mesh's Nyquist frequency."""


@dataclass(frozen=True)
class Bins:
    """Equal bins, each with its lower edge and without its upper one.

    Attributes
    ----------
    quantity, unit : str
        What is binned, and in which unit.
    low, width : float
        Lower edge of the first bin, and the width of each.
    count : int
        Number of bins.
    """

    quantity: str
    unit: str
    low: float
    width: float
    count: int

    @property
    def edges(self) -> FloatArray:
        """The edges, ndarray, (count + 1,)."""
        return self.low + self.width * np.arange(self.count + 1, dtype=np.float64)

    @property
    def centres(self) -> FloatArray:
        """The centres, ndarray, (count,)."""
        return self.low + self.width * (np.arange(self.count, dtype=np.float64) + 0.5)

    def find(self, values: NDArray[Any]) -> NDArray[np.int32]:
        """Return the bin of each value, −1 where it is in none (NaN and ±∞ are in none)."""
        places = (np.asarray(values, np.float64) - self.low) / self.width
        inside = (places >= 0) & (places < self.count)
        return np.where(inside, places, -1.0).astype(np.int32)


HALO_MASS = Bins("halo mass", "log10(M / (Msun/h))", 10.0, 0.1, 60)
STELLAR_MASS = Bins("stellar mass", "log10(M* / Msun)", 6.0, 0.1, 70)
SFR = Bins("star-formation rate", "log10(SFR / (Msun/yr))", -5.0, 0.1, 86)
"""Of these the lower edges are the thresholds of n(>SFR)."""

COARSE_HALO_MASS = Bins(HALO_MASS.quantity, HALO_MASS.unit, 10.0, 0.25, 24)
COARSE_STELLAR_MASS = Bins(STELLAR_MASS.quantity, STELLAR_MASS.unit, 6.0, 0.25, 28)
COARSE_SFR = Bins(SFR.quantity, SFR.unit, -5.0, 0.25, 34)

COUNTS = ("n_halos", "n_galaxies", "n_centrals", "n_satellites")
"""What the array ``counts`` holds, in this order."""


@dataclass(frozen=True)
class Field:
    """One array of a catalogue's statistics.

    Attributes
    ----------
    name : str
        Its name in a catalogue's file, and of the column of a batch's.
    kind : {"int64", "float64"}
        Type of its values.
    shape : tuple of int
        Its shape.
    unit, description : str
        What it holds.
    """

    name: str
    kind: Literal["int64", "float64"]
    shape: tuple[int, ...]
    unit: str
    description: str

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


_COUNT = "1"
FIELDS: tuple[Field, ...] = (
    Field("version", "int64", (1,), _COUNT, "Version of names, units and bins"),
    Field("box_size_mpch", "float64", (1,), "Mpc/h", "Side of the box, comoving"),
    Field("redshift", "float64", (1,), "1", "Redshift of the snapshot"),
    Field("counts", "int64", (len(COUNTS),), _COUNT, "Number of " + ", ".join(COUNTS)),
    Field("halo_counts", "int64", (HALO_MASS.count,), _COUNT, "Haloes by mass"),
    Field("stellar_counts", "int64", (STELLAR_MASS.count,), _COUNT, "Galaxies by stellar mass"),
    Field("sfr_cumulative", "int64", (SFR.count,), _COUNT, "Galaxies with a greater SFR"),
    Field(
        "halo_stellar",
        "int64",
        (COARSE_HALO_MASS.count, COARSE_STELLAR_MASS.count),
        _COUNT,
        "Galaxies by (mass of their halo, stellar mass)",
    ),
    Field(
        "stellar_sfr",
        "int64",
        (COARSE_STELLAR_MASS.count, COARSE_SFR.count),
        _COUNT,
        "Galaxies by (stellar mass, SFR)",
    ),
    Field("power_k_hmpc", "float64", (SHELLS,), "h/Mpc", "Mean |k| of the modes of a shell"),
    Field("power_mpch3", "float64", (SHELLS,), "(Mpc/h)^3", "P(k), shot noise included"),
    Field("power_modes", "int64", (SHELLS,), _COUNT, "Modes of a shell, k and −k both counted"),
    Field("shot_noise_mpch3", "float64", (1,), "(Mpc/h)^3", "Volume over number of galaxies"),
)
"""Every array, in the order of a batch's columns."""
