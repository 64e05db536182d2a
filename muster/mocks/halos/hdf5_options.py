"""Which HDF5 files of haloes, and what one of them holds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from muster.frozen import Frozen
from muster.jobs.planning.params import location_with
from muster.mocks.halos.cosmologies import CosmologyOptions

PLACEHOLDERS = ("realization", "phase", "redshift")

LengthUnit = Literal["Mpc/h", "kpc/h", "Mpc"]
MassUnit = Literal["log10(Msun/h)", "Msun/h", "Msun"]
ObjectName = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")]

DEFAULT_IDS = "halos/id"
"""Read where a file has it; any other name that is stated must be there."""


class Hdf5Layout(Frozen):
    """What the datasets of a file are called, and their units; the defaults are our catalogues'.

    Attributes
    ----------
    masses, positions, velocities, radii : str
        Names of datasets: (n,), (n, 3), (n, 3), (n,).
    ids : str or None
        Name of the dataset of unique integers; None where a halo's number is its row.  A file
        without the default's dataset has its rows as numbers, too.
    mass_unit : {"log10(Msun/h)", "Msun/h", "Msun"}
        Of the masses.
    length_unit : {"Mpc/h", "kpc/h", "Mpc"}
        Of positions and radii, which are comoving.  Velocities are peculiar, proper, in km/s.
    box_size : str
        Name of the attribute of the file that holds the box size, in the unit of length.
    redshift : str
        Name of the attribute of the file that holds the redshift; checked where it is there.
    """

    masses: ObjectName = "halos/logmhost"
    positions: ObjectName = "halos/pos"
    velocities: ObjectName = "halos/vel"
    radii: ObjectName = "halos/radius"
    ids: ObjectName | None = DEFAULT_IDS
    mass_unit: MassUnit = "log10(Msun/h)"
    length_unit: LengthUnit = "Mpc/h"
    box_size: ObjectName = "Lbox"
    redshift: ObjectName = "z_obs"


class Hdf5Options(Frozen):
    """Where the files lie, and what they hold.

    Attributes
    ----------
    path : str
        Of one file; {realization} is filled as 0007, {phase} as ph3007, {redshift} as 1.100.
    first_phase : int
        Phase of realization 0; realization n is phase first_phase + n.
    box_size_mpch : float or None
        Side of the box in Mpc/h; by default what the file's attribute says.
    layout : Hdf5Layout
        Names and units of the datasets.
    cosmology : CosmologyOptions
        Of the simulation: the files do not state it.
    """

    path: Annotated[str, Field(min_length=1, max_length=4096), location_with(*PLACEHOLDERS)]
    first_phase: Annotated[int, Field(ge=0, le=99999)] = 0
    box_size_mpch: Annotated[float, Field(gt=0, le=1e5, allow_inf_nan=False)] | None = None
    layout: Hdf5Layout = Hdf5Layout()
    cosmology: CosmologyOptions = CosmologyOptions()


class Hdf5Inputs(Frozen):
    """What one box of one redshift is read from.

    Attributes
    ----------
    path : str
        Of the file.
    layout : Hdf5Layout
    box_size_mpch : float or None
        Side of the box; by default what the file says.
    cosmology : CosmologyOptions
    phase : str
    realization : int or None
    redshift : float or None
        What the file must state, where it states one; None where any will do.
    """

    path: str
    layout: Hdf5Layout = Hdf5Layout()
    box_size_mpch: Annotated[float, Field(gt=0, le=1e5, allow_inf_nan=False)] | None = None
    cosmology: CosmologyOptions = CosmologyOptions()
    phase: str = ""
    realization: int | None = None
    redshift: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
