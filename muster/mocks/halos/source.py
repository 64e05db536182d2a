"""What a source of haloes is, and which sources there are.

A source finds the inputs of many catalogues by a cheap look, where a campaign is planned, and reads
the haloes of one, where galaxies are made.  This module and the modules that the table names import
no compute library; the modules that they read with do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from muster.entry_points import Registry
from muster.hashing import hash_compact_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from muster.frozen import Frozen
    from muster.mocks.coordinates import Coordinate
    from muster.mocks.halos.catalog import HaloCatalog

SlabAxis = Literal["x", "y", "z"]
"""Axis of the box that slabs are cut along."""


@dataclass(frozen=True)
class InputState:
    """What a cheap look finds of one catalogue's input.

    Attributes
    ----------
    state : {"present", "missing", "incomplete"}
        ``incomplete`` where a part is there and another is not.
    reason : str or None
        What is not there; None of an input that is present.
    inputs : dict
        What :meth:`HaloSource.read` is given, as JSON can say it; empty unless present.
    fingerprint : str
        SHA-256, as 64 hexadecimal digits, over the names of the files and the options that say
        which haloes are read: equal as long as the same haloes are meant.
    """

    state: Literal["present", "missing", "incomplete"]
    reason: str | None = None
    inputs: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""


class HaloSource(Protocol):
    """A source of haloes: a simulation suite, a generator, a file format.

    Attributes
    ----------
    name : str
        As a campaign file's ``simulation_suite`` names it.
    """

    name: str

    def check_installed(self) -> str | None:
        """Return which package is not installed, and how to install it; None if all are."""
        ...

    def parse_options(self, options: Mapping[str, Any]) -> Frozen:
        """Validate the options of this source.

        Raises
        ------
        ConfigError
            When an option is unknown, absent or wrong.
        """
        ...

    def name_parts(self, options: Any, coordinate: Coordinate) -> dict[str, str]:
        """Return what names of files say of a catalogue: ``cosmology`` and ``phase``."""
        ...

    def find_inputs(
        self, options: Any, coordinates: Sequence[Coordinate]
    ) -> dict[Coordinate, InputState]:
        """Find the inputs of catalogues: list each folder once, stat and open no file of haloes.

        Raises
        ------
        muster.errors.Transient
            When the file system failed.
        """
        ...

    def read(
        self,
        inputs: Mapping[str, Any],
        *,
        min_mass_msunh: float,
        slab: tuple[int, int] | None = None,
        slab_axis: SlabAxis = "y",
        n_halos: int | None = None,
    ) -> HaloCatalog:
        """Read the haloes of one box, or of a slab of it.

        Parameters
        ----------
        inputs : mapping
            Of an :class:`InputState`.
        min_mass_msunh : float
            Least mass in Msun/h, ≥ 0; haloes below it are left out.  None may be left.
        slab : tuple of (int, int), optional
            Number of the slab, from 0, and of all slabs; the whole box by default.
        slab_axis : {"x", "y", "z"}
            Axis that the slabs are cut along.
        n_halos : int, optional
            Test mode: read at most so many haloes of the box, those of the smallest x (then of the
            smallest id), before the slab is cut.

        Returns
        -------
        HaloCatalog
            In the order of the ids; of length 0 where no halo is left.

        Raises
        ------
        CatalogNotFound
            When a file is not there.
        ValidationError
            When a file is not what it should be.
        ModelNotInstalled
            When a package is not installed.
        """
        ...


@runtime_checkable
class LimitsRedshifts(Protocol):
    """A source that cannot make haloes at every redshift; one that can need not say so."""

    def find_redshift_problem(self, redshift: float) -> str | None:
        """Return in a few words why there are no haloes at a redshift; None if there are."""
        ...


HALO_SOURCES: dict[str, str] = {
    "AbacusSummit_small": "muster.mocks.halos.abacus:ABACUS_SUMMIT_SMALL",
    "abacus_box": "muster.mocks.halos.abacus:ABACUS_BOX",
    "hdf5": "muster.mocks.halos.hdf5:HDF5",
    "synthetic": "muster.mocks.halos.synthetic:SYNTHETIC",
}
"""Name → "module:attribute" of our own sources, imported when they are needed."""


SOURCE_REGISTRY: Registry[HaloSource] = Registry("muster.halo_sources", "halo source", HALO_SOURCES)
"""Our own sources and those that packages add."""


def load_source(name: str) -> HaloSource:
    """Return a source, our own or an installed package's.

    Raises
    ------
    ConfigError
        When there is none of that name, or it cannot be loaded.
    """
    return SOURCE_REGISTRY.load(name)


def fingerprint_inputs(parts: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what identifies an input, as 64 hexadecimal digits."""
    return hash_compact_json(parts)
