"""How large a campaign is: elements, batches, Slurm arrays and bytes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

from muster.counts import count_of
from muster.jobs.planning.freeze import MOST_BATCHES
from muster.mocks.campaign.selection import select
from muster.mocks.catalogue.layout import columns_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from muster.mocks.campaign.config import Campaign
    from muster.mocks.campaign.selection import Selection
    from muster.mocks.coordinates import Coordinate

STEPS_OF_A_GROUP = 2
"""mocks.populate and mocks.collect: each group of elements has a batch of both."""

STEPS_OF_A_RUN = 3
"""mocks.inspect, mocks.qa and mocks.manifest."""

MOST_GROUPS = (MOST_BATCHES - STEPS_OF_A_RUN) // STEPS_OF_A_GROUP
HALOES_PER_MPCH3 = 0.035
PIVOT_MSUNH = 1e11
SLOPE = 0.9
"""Number density of haloes above a mass, as a power law about the pivot: within a third of Tinker
et al. (2008) from 1e10 to 1e12 Msun/h at redshifts of 0 to 1.1, and too high above."""

LEAST_MASS_MSUNH = {"AbacusSummit_small": 7.4e10}
"""Haloes of fewer than 35 particles of 2.1e9 Msun/h are not in CompaSO's catalogues (Hadzhiyska et
al. 2022)."""

GALAXIES_PER_HALO = 1.2
DEFAULT_BOX_MPCH = {"AbacusSummit_small": 500.0}
STORED_FRACTION = {"none": 1.0, "lzf": 0.9, "gzip": 0.8}
"""Share of the bytes that a compressed catalogue has, positions and velocities being noise."""

TIME_STEPS = 100
PARAMETERS = 20
"""Entries of formation histories, and parameters of a galaxy, in a full layout."""

_BYTES = {"float32": 4, "float64": 8, "int64": 8, "int32": 4}


@dataclass(frozen=True)
class SizeEstimate:
    """How large a campaign is.

    Attributes
    ----------
    elements, realizations, redshifts : int
        How many catalogues, of how many realizations at how many redshifts.
    batches : int
        Batches of mocks.populate, each one Airflow task.
    elements_per_batch : int
        The most elements of one.
    arrays : int
        Slurm arrays that they are submitted as.
    array_size : int
        The most elements of one array.
    jobs : int
        Jobs of these arrays: an element each, or a pack.
    slices : int
        Slices of the whole campaign.
    galaxies_per_catalogue, bytes_per_catalogue, bytes : int or None
        Expected; None where the size of the box is not known.
    basis : str
        What the bytes are estimated from.
    """

    elements: int
    realizations: int
    redshifts: int
    batches: int
    elements_per_batch: int
    arrays: int
    array_size: int
    jobs: int
    slices: int
    galaxies_per_catalogue: int | None
    bytes_per_catalogue: int | None
    bytes: int | None
    basis: str

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return asdict(self)


def split_batches(
    coordinates: Sequence[Coordinate], array_size: int, most_batches: int = MOST_GROUPS
) -> list[list[Coordinate]]:
    """Split elements into batches, in their order.

    A batch has one Slurm array, or as many whole ones as it takes to stay within ``most_batches``;
    the last batch has the rest.

    Parameters
    ----------
    coordinates : sequence of Coordinate
        In the order in which they are made.
    array_size : int
        The most elements of one array.
    most_batches : int
        The most batches.
    """
    if not coordinates:
        return []
    arrays = ceil(len(coordinates) / array_size)
    size = array_size * ceil(arrays / most_batches)
    return [list(coordinates[i : i + size]) for i in range(0, len(coordinates), size)]


def estimate_size(
    campaign: Campaign,
    selection: Selection | None = None,
    *,
    pack: int | None = None,
    galaxies_per_mpch3: float | None = None,
    past_bytes: Sequence[int] = (),
) -> SizeEstimate:
    """Estimate the size of a campaign, or of a part of it.

    Parameters
    ----------
    campaign : Campaign
        The campaign.
    selection : Selection, optional
        A part; all by default.
    pack : int, optional
        Elements of one job, where the campaign does not say it: the pool's.
    galaxies_per_mpch3 : float, optional
        Number density of galaxies, in (h/Mpc)³; a power law of the mass cut by default.
    past_bytes : sequence of int
        Sizes of catalogues of this campaign that are there; their mean is taken before any guess.
    """
    coordinates = select(campaign, selection)
    array_size = campaign.execution.batch_size
    batches = split_batches(coordinates, array_size)
    arrays = [
        min(array_size, len(batch) - start)
        for batch in batches
        for start in range(0, len(batch), array_size)
    ]
    packed = campaign.execution.pack or pack or 1
    galaxies, size, basis = _expect_bytes(campaign, galaxies_per_mpch3, past_bytes)
    slice_size = campaign.execution.slice_realizations
    return SizeEstimate(
        elements=len(coordinates),
        realizations=len({c.realization for c in coordinates}),
        redshifts=len({c.redshift for c in coordinates}),
        batches=len(batches),
        elements_per_batch=max(map(len, batches), default=0),
        arrays=len(arrays),
        array_size=array_size,
        jobs=sum(ceil(elements / packed) for elements in arrays),
        slices=ceil(len(campaign.science.realizations.numbers) / slice_size),
        galaxies_per_catalogue=galaxies,
        bytes_per_catalogue=size,
        bytes=None if size is None else size * len(coordinates),
        basis=basis,
    )


def _expect_bytes(
    campaign: Campaign, density: float | None, past: Sequence[int]
) -> tuple[int | None, int | None, str]:
    if past:
        basis = f"the mean of {count_of(len(past), 'catalogue')}"
        return None, round(sum(past) / len(past)), basis
    options = campaign.file_names.options
    side = getattr(options, "box_size_mpch", None)
    side = side or DEFAULT_BOX_MPCH.get(campaign.science.simulation_suite)
    if side is None:
        return None, None, "the size of the box is not known before a catalogue is made"
    least = LEAST_MASS_MSUNH.get(campaign.science.simulation_suite, 1e9)
    least = max(least, getattr(options, "lowest_mass_msunh", least))
    mass = max(campaign.science.min_mass_msunh, least)
    haloes = HALOES_PER_MPCH3 * (mass / PIVOT_MSUNH) ** -SLOPE * side**3
    galaxies = haloes * GALAXIES_PER_HALO if density is None else density * side**3
    layout = campaign.outputs.layout
    raw = haloes * bytes_per_row("halo", layout) + galaxies * bytes_per_row("galaxy", layout)
    stored = raw * STORED_FRACTION[campaign.outputs.compression.filter]
    basis = "a number density of haloes by the mass cut"
    if density is not None:
        basis = f"{density:g} galaxies per (Mpc/h)³"
    return round(galaxies), round(stored), f"{basis} in a box of {side:g} Mpc/h"


def bytes_per_row(rows_of: str, layout: str) -> int:
    """Return the bytes of one galaxy or halo in a layout, uncompressed."""
    kind: Any = layout
    total = 0
    for column in columns_of(kind):
        if column.rows_of != rows_of:
            continue
        entries = 1
        for dim in column.dims:
            if isinstance(dim, int):
                entries *= dim
            elif dim in ("time", "parameter"):
                entries *= TIME_STEPS if dim == "time" else PARAMETERS
        total += entries * _BYTES[column.dtypes[0]]
    return total
