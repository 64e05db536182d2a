"""Haloes from HDF5 files: options, and the look for the files; imports no compute library."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from muster.config import parse_config
from muster.locations import fill_location
from muster.mocks.halos.hdf5_options import Hdf5Inputs, Hdf5Options
from muster.mocks.halos.listing import Listing
from muster.mocks.halos.source import InputState, SlabAxis, fingerprint_inputs
from muster.mocks.installed import find_absent, require_installed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from muster.mocks.coordinates import Coordinate
    from muster.mocks.halos.catalog import HaloCatalog


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
        if find_absent(["h5py"]):
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
        muster.errors.Transient
            When the file system failed.
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
        folder = folder or "."
        if name not in listing.names(folder):
            return InputState("missing", listing.explain_lack(folder, name))
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
        require_installed(self)
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
