"""Haloes from HDF5 files: options, and the look for the files; imports no compute library."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field

from muster.config import parse_config
from muster.frozen import Frozen
from muster.locations import check_location, fill_location
from muster.mocks.errors import ModelNotInstalled
from muster.mocks.halos.cosmologies import CosmologyOptions
from muster.mocks.halos.listing import Listing
from muster.mocks.halos.source import InputState, SlabAxis, fingerprint_inputs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from muster.mocks.coordinates import Coordinate
    from muster.mocks.halos.catalog import HaloCatalog

PLACEHOLDERS = ("realization", "phase", "redshift")

LengthUnit = Literal["Mpc/h", "kpc/h", "Mpc"]
MassUnit = Literal["log10(Msun/h)", "Msun/h", "Msun"]
ObjectName = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")]


def _check_path(path: str) -> str:
    problems = check_location(path, PLACEHOLDERS)
    if problems:
        raise ValueError("; ".join(problems))
    return path


class Hdf5Layout(Frozen):
    """What the datasets of a file are called, and their units; the defaults are our catalogues'.

    Attributes
    ----------
    masses, positions, velocities, radii : str
        Names of datasets: (n,), (n, 3), (n, 3), (n,).
    ids : str or None
        Name of the dataset of unique integers; None where a halo's number is its row.
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
    ids: ObjectName | None = None
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

    path: Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_check_path)]
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


@dataclass(frozen=True)
class Hdf5Source:
    """Haloes from one HDF5 file a box and redshift.

    Attributes
    ----------
    name : str
        Of the source.
    """

    name: str = "hdf5"

    def check_installed(self) -> str | None:
        """Return which package is not installed, and how to install it; None if all are."""
        if importlib.util.find_spec("h5py") is None:
            return "h5py, which reads haloes from HDF5 files, is not installed: make mocks"
        return None

    def parse_options(self, options: Mapping[str, Any]) -> Hdf5Options:
        """Validate the options of HDF5 files.

        Raises
        ------
        ConfigError
            When an option is unknown, absent or wrong.
        """
        return parse_config(Hdf5Options, options, "options of the halo source hdf5")

    def name_parts(self, options: Hdf5Options, coordinate: Coordinate) -> dict[str, str]:
        """Return what names of files say of a catalogue: ``cosmology`` and ``phase``."""
        phase = f"ph{options.first_phase + coordinate.realization:03d}"
        return {"cosmology": options.cosmology.name, "phase": phase}

    def find_inputs(
        self, options: Hdf5Options, coordinates: Sequence[Coordinate]
    ) -> dict[Coordinate, InputState]:
        """Find the files of catalogues, each folder listed once.

        Raises
        ------
        muster.errors.InvalidInput, muster.errors.Transient
            When a folder is there and cannot be listed.
        """
        listing = Listing()
        return {c: self._look_at(options, c, listing) for c in coordinates}

    def _look_at(
        self, options: Hdf5Options, coordinate: Coordinate, listing: Listing
    ) -> InputState:
        phase = self.name_parts(options, coordinate)["phase"]
        values = {
            "realization": f"{coordinate.realization:04d}",
            "phase": phase,
            "redshift": f"{coordinate.redshift:.3f}",
        }
        path = fill_location(options.path, values)
        folder, name = os.path.split(path)
        if name not in (listing.names(folder or ".") or ()):
            return InputState("missing", f"{folder or '.'} holds no {name}")
        inputs = Hdf5Inputs(
            path=path,
            layout=options.layout,
            box_size_mpch=options.box_size_mpch,
            cosmology=options.cosmology,
            phase=phase,
            realization=coordinate.realization,
            redshift=coordinate.redshift,
        ).model_dump(mode="json")
        fingerprint = fingerprint_inputs({"source": self.name, **inputs, "path": name})
        return InputState("present", None, inputs, fingerprint)

    def read(
        self,
        inputs: Mapping[str, Any],
        *,
        min_mass_msunh: float,
        slab: tuple[int, int] | None = None,
        slab_axis: SlabAxis = "y",
        n_halos: int | None = None,
    ) -> HaloCatalog:
        """Read the haloes of one box, or of a slab of it, as :class:`HaloSource` describes."""
        absent = self.check_installed()
        if absent is not None:
            raise ModelNotInstalled(absent)
        from muster.mocks.halos.hdf5_file import read_hdf5_halos

        parsed = parse_config(Hdf5Inputs, inputs, "inputs of the halo source hdf5")
        return read_hdf5_halos(
            parsed,
            min_mass_msunh=min_mass_msunh,
            slab=slab,
            slab_axis=slab_axis,
            n_halos=n_halos,
        )


HDF5 = Hdf5Source()
