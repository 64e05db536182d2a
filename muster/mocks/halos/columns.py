"""Putting a halo catalogue together from parts, whatever its source."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from muster.mocks.errors import ValidationError
from muster.mocks.halos.catalog import HaloCatalog
from muster.mocks.halos.slabs import select_halos, slab_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from muster.mocks.halos.catalog import HaloMetadata
    from muster.mocks.halos.source import SlabAxis

_NONE_YET = (
    np.empty((0, 3), np.float32),
    np.empty(0, np.float64),
    np.empty(0, np.int64),
    np.empty((0, 3), np.float32),
    np.empty(0, np.float32),
)


@dataclass
class Columns:
    """Parts of a catalogue as they are read; what lies outside the slab is dropped at once.

    Attributes
    ----------
    slab, slab_axis, n_halos
        As :meth:`muster.mocks.halos.source.HaloSource.read` has them.
    parts : list of tuple of arrays
        Positions, masses, ids, velocities, radii.
    """

    slab: tuple[int, int] | None
    slab_axis: SlabAxis
    n_halos: int | None
    parts: list[tuple[NDArray[Any], ...]] = field(default_factory=lambda: [_NONE_YET])

    def add(
        self,
        positions: NDArray[np.float32],
        masses: NDArray[np.float64],
        ids: NDArray[np.int64],
        velocities: NDArray[np.float32],
        radii: NDArray[np.float32],
        *,
        box_size_mpch: float,
    ) -> None:
        """Add haloes above the mass cut.

        Parameters
        ----------
        positions : array of float32, shape (n, 3)
            In Mpc/h, in [0, box_size_mpch).
        masses, ids, velocities, radii
            As :class:`muster.mocks.halos.catalog.HaloCatalog` has them.
        box_size_mpch : float
        """
        part = (positions, masses, ids, velocities, radii)
        if self.slab is not None and self.n_halos is None:
            number, slabs = self.slab
            inside = slab_of(positions, self.slab_axis, slabs, box_size_mpch) == number
            part = tuple(column[inside] for column in part)
        self.parts.append(part)

    def build(self, metadata: HaloMetadata, where: object) -> HaloCatalog:
        """Make the catalogue of all that was added, in the order of the ids.

        Raises
        ------
        ValidationError
            When two haloes have one id.
        """
        positions, masses, ids, velocities, radii = map(
            np.concatenate, zip(*self.parts, strict=True)
        )
        self.parts = []
        order = select_halos(
            positions,
            ids,
            metadata.box_size_mpch,
            slab=self.slab,
            slab_axis=self.slab_axis,
            n_halos=self.n_halos,
        )
        ids = ids[order]
        twice = np.flatnonzero(ids[1:] == ids[:-1])
        if len(twice):
            raise ValidationError(
                "haloes with an id that is there twice",
                where=where,
                got=f"{len(twice)}, the first of id {ids[twice[0]]}",
                do="give every halo an id of its own",
            )
        return HaloCatalog(
            positions=positions[order],
            masses=masses[order],
            ids=ids,
            velocities=velocities[order].astype(np.float32),
            radii=radii[order].astype(np.float32),
            metadata=metadata,
        )
