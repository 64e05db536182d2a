"""The galaxies of a box, slab by slab.

Slabs are cut in y; their number is part of the configuration.  Each has a random stream of its own,
so that one process, several processes and the ranks of an MPI job give the same arrays: slab after
slab, within a slab in the order that the model gives.
"""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from muster.errors import ConfigError
from muster.mocks.errors import ModelError
from muster.mocks.galaxies.catalog import GalaxyCatalog
from muster.mocks.galaxies.slab_processes import map_slabs
from muster.mocks.galaxies.stream import RandomStream
from muster.mocks.halos.catalog import HaloCatalog
from muster.mocks.halos.slabs import slab_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from muster.frozen import Frozen
    from muster.mocks.galaxies.model import GalaxyModel
    from muster.mocks.mpi_setup import MPIContext

MOST_SLABS = 4096

_Task = tuple["GalaxyModel", HaloCatalog, "Frozen", RandomStream, bool]


def generate_box(
    halos: HaloCatalog,
    model: GalaxyModel,
    params: Frozen,
    *,
    seed: int,
    realization: int,
    redshift_index: int,
    slabs: int,
    workers: int = 1,
    histories: bool = False,
    mpi_context: MPIContext | None = None,
) -> GalaxyCatalog:
    """Populate the haloes of a box.

    Parameters
    ----------
    halos : HaloCatalog
        The whole box, on each rank.
    model, params
        A galaxy model, and what its ``parse`` returned.
    seed, realization, redshift_index : int
        What the random streams follow from, see :class:`RandomStream`.
    slabs : int
        Number of slabs in y, in [1, 4096].
    workers : int
        Processes that share the slabs; each holds the haloes of a slab.
    histories : bool
        Whether to return formation histories too.
    mpi_context : MPIContext, optional
        With several ranks each populates a run of slabs: the shares in the order of the ranks,
        one after the other, are the box.

    Returns
    -------
    GalaxyCatalog
        The box, or this rank's share of it; ``parent_halos`` counts in ``halos``.

    Raises
    ------
    ConfigError
        When a number is out of its range.
    ModelError
        When the model fails, a process of it ends, or galaxies lie outside the box.
    """
    if not 1 <= slabs <= MOST_SLABS:
        raise ConfigError(
            "no such number of slabs",
            got=slabs,
            expected=f"1 to {MOST_SLABS}",
            do="choose a number in this range",
        )
    rows = _rows_of_slabs(halos, slabs)
    mine = range(slabs)
    if mpi_context is not None:
        rank, size = mpi_context.rank, mpi_context.size
        mine = range(rank * slabs // size, (rank + 1) * slabs // size)
    tasks = [
        (
            model,
            take_halos(halos, rows[slab], (slab, slabs)),
            params,
            RandomStream(seed, realization, redshift_index, slab),
            histories,
        )
        for slab in mine
    ]
    made = _populate_all(tasks, model, max(1, workers))
    parts = [
        replace(part, parent_halos=rows[slab][part.parent_halos])
        for slab, part in zip(mine, made, strict=True)
    ]
    if not parts:  # more ranks than slabs: a share of no galaxies, of the same kinds as the others
        nothing = take_halos(halos, np.zeros(0, dtype=np.intp), (0, slabs))
        stream = RandomStream(seed, realization, redshift_index, 0)
        parts = [model.generate(nothing, params, stream, histories=histories)]
    box = join_galaxies(parts)
    _check_box(box, halos.metadata.box_size_mpch, model.name)
    return box


def take_halos(
    halos: HaloCatalog, rows: NDArray[np.intp], slab: tuple[int, int] | None = None
) -> HaloCatalog:
    """Return some of the haloes, in their order, as those of a slab; ``rows`` ascend."""
    metadata = replace(halos.metadata, slab=slab)
    if len(rows) == len(halos):  # in their order: no copy of a whole box
        return replace(halos, metadata=metadata)
    return HaloCatalog(
        positions=halos.positions[rows],
        masses=halos.masses[rows],
        ids=halos.ids[rows],
        velocities=halos.velocities[rows],
        radii=halos.radii[rows],
        metadata=metadata,
    )


def join_galaxies(parts: Sequence[GalaxyCatalog]) -> GalaxyCatalog:
    """Return at least one catalogue's galaxies one after the other, with the first's attributes.

    Properties have their galaxies along the first axis.
    """
    if len(parts) == 1:
        return parts[0]
    return GalaxyCatalog(
        np.concatenate([part.positions for part in parts]),
        {
            name: np.concatenate([part.properties[name] for part in parts])
            for name in parts[0].properties
        },
        np.concatenate([part.parent_halos for part in parts]),
        parts[0].attributes,
    )


def _rows_of_slabs(halos: HaloCatalog, slabs: int) -> list[NDArray[np.intp]]:
    """Return of each slab the rows of its haloes, in their order."""
    if slabs == 1:
        return [np.arange(len(halos))]
    numbers = slab_of(halos.positions, "y", slabs, halos.metadata.box_size_mpch)
    order = np.argsort(numbers, kind="stable")
    return np.split(order, np.searchsorted(numbers[order], np.arange(1, slabs)))


def _populate(task: _Task) -> GalaxyCatalog:
    model, halos, params, stream, histories = task
    return model.generate(halos, params, stream, histories=histories)


def _populate_all(
    tasks: Sequence[_Task], model: GalaxyModel, workers: int
) -> Iterable[GalaxyCatalog]:
    """Populate slabs in this process, or in several, and return them in the order given."""
    busy = sum(len(task[1]) > 0 for task in tasks)
    if workers == 1 or busy < 2:
        return [_populate(task) for task in tasks]
    try:
        return map_slabs(_populate, tasks, model, min(workers, busy))
    except BrokenProcessPool as error:
        raise ModelError(
            "a process of the galaxy model ended",
            where=model.name,
            do="give the job more memory, or fewer threads",
        ) from error


def _check_box(box: GalaxyCatalog, box_size_mpch: float, name: str) -> None:
    """Refuse galaxies outside the box, or at no place at all."""
    side = box.positions.dtype.type(box_size_mpch)
    if len(box) and not (box.positions.min() >= 0 and box.positions.max() < side):
        inside = ((box.positions >= 0) & (box.positions < side)).all(axis=1)
        raise ModelError(
            "galaxies outside the box",
            where=name,
            got=f"{len(box) - int(inside.sum())} of {len(box)}",
            expected=f"0 to {box_size_mpch} Mpc/h",
            do="mend the galaxy model: wrap positions into the box",
        )
