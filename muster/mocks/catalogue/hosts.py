"""Galaxies at their haloes: which halo a satellite belongs to, and whether a galaxy lies at one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

FARTHEST_RADII = 5.0
"""Radii of its halo that a galaxy is away from its middle at the most."""

_ROUNDING_MPCH = 1e-3
_NEAREST = 8
_MIXER = np.uint64(0x9E3779B97F4A7C15)


@dataclass
class Rows:
    """Rows of a dataset that are wrong: how many, and the first."""

    count: int = 0
    first: int = 0

    def add(self, wrong: NDArray[np.bool_], start: int) -> None:
        """Add those of a slab that begins at a row."""
        found = np.flatnonzero(wrong)
        if found.size and not self.count:
            self.first = start + int(found[0])
        self.count += int(found.size)


class HaloIds:
    """Ids of the haloes, and their rows by id.

    Parameters
    ----------
    ids : array of int, shape (n,)
        In the order of the file.
    """

    def __init__(self, ids: NDArray[Any]) -> None:
        self.ids = ids
        ascending = bool((ids[1:] > ids[:-1]).all())
        self._order = None if ascending else np.argsort(ids, kind="stable")

    def find_doubled(self) -> NDArray[np.intp]:
        """Return the rows of ids that stand in an earlier row too."""
        if self._order is None:
            return np.zeros(0, np.intp)
        ordered = self.ids[self._order]
        doubled: NDArray[np.intp] = self._order[1:][ordered[1:] == ordered[:-1]]
        return doubled

    def find_hosts(
        self, upid: NDArray[Any], *, by_id: bool
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return of each galaxy the row of the halo that ``upid`` names, and whether there is one.

        The row means nothing where there is none.
        """
        last = len(self.ids) - 1
        if last < 0:
            return np.zeros(upid.shape, np.intp), np.zeros(upid.shape, bool)
        if not by_id:
            return np.clip(upid, 0, last), (upid >= 0) & (upid <= last)
        rows = np.minimum(np.searchsorted(self.ids, upid, sorter=self._order), last)
        if self._order is not None:
            rows = self._order[rows]
        return rows, self.ids[rows] == upid


class HaloPlaces:
    """Where haloes lie in their periodic box, and how far they reach.

    Parameters
    ----------
    positions : array of float, shape (n, 3)
        Comoving, in Mpc/h, in [0, box size).
    radii : array of float, shape (n,)
        In Mpc/h.
    box_size_mpch : float
        Side of the box.
    """

    def __init__(self, positions: NDArray[Any], radii: NDArray[Any], box_size_mpch: float) -> None:
        self._positions = positions
        self._farthest = FARTHEST_RADII * radii + _ROUNDING_MPCH
        self._box_size = box_size_mpch
        self._keys = np.sort(_keys_of(positions))

    def find_far(self, positions: NDArray[Any], hosts: NDArray[Any]) -> NDArray[np.bool_]:
        """Say which galaxies lie farther from their hosts, given by row, than galaxies may."""
        away = np.abs(positions - self._positions[hosts])
        np.minimum(away, self._box_size - away, out=away)
        far: NDArray[np.bool_] = np.einsum("ij,ij->i", away, away) > self._farthest[hosts] ** 2
        return far

    def find_lost(self, positions: NDArray[Any]) -> NDArray[np.bool_]:
        """Say which galaxies lie at no halo: not in its middle, nor as near as galaxies may."""
        keys = _keys_of(positions)
        lost = np.zeros(len(keys), bool)
        if not len(self._keys):
            return ~lost
        ordered = np.sort(keys)
        at = np.minimum(np.searchsorted(self._keys, ordered), len(self._keys) - 1)
        if (self._keys[at] == ordered).all():
            return lost
        elsewhere = np.flatnonzero(~np.isin(keys, self._keys))
        lost[elsewhere] = ~self._is_near(positions[elsewhere])
        return lost

    def _is_near(self, positions: NDArray[Any]) -> NDArray[np.bool_]:
        # SciPy's trees: only catalogues whose centrals lie beside the middle wait for them.
        from scipy.spatial import cKDTree

        wide = np.asarray(self._positions, np.float64)
        tree = cKDTree(wide, boxsize=self._box_size)
        count = min(_NEAREST, len(wide))
        away, rows = tree.query(np.asarray(positions, np.float64), k=range(1, count + 1))
        near: NDArray[np.bool_] = (away <= self._farthest[rows]).any(axis=1)
        return near


def _keys_of(positions: NDArray[Any]) -> NDArray[np.uint64]:
    """Mix the bits of a position to one number; equal positions have equal ones."""
    single = np.ascontiguousarray(positions, np.float32) + np.float32(0)  # no -0
    x, y, z = single.view(np.uint32).astype(np.uint64).T
    keys: NDArray[np.uint64] = ((x << np.uint64(32)) | y) ^ (z * _MIXER)
    return keys
