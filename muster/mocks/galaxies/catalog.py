"""Galaxies of one box, or of a slab of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class GalaxyCatalog:
    """Galaxies as arrays of equal length, centrals and satellites, grouped by halo.

    Attributes
    ----------
    positions : array of float32, shape (n, 3)
        Comoving, in Mpc/h, in [0, box size).
    properties : mapping of str to array
        By the name of the dataset in a catalogue's file (see muster.mocks.catalogue.layout):
        ``vel`` (n, 3) in km/s, ``logsm_t_obs``, ``logssfr_t_obs``, ``logmp_t_obs``, ``upid``; in a
        full catalogue the histories too.
    parent_halos : array of int64, shape (n,)
        Position of each galaxy's halo in the halo catalogue that it was made from.
    attributes : mapping
        What a file's attributes say of the model: ``galaxy_model``, ``t_obs``, versions, key.
    """

    positions: NDArray[np.float32]
    properties: Mapping[str, NDArray[Any]]
    parent_halos: NDArray[np.int64]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.positions)
