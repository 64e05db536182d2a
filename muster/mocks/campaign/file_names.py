"""Names of a campaign's catalogues: the naming scheme, filled by the suite."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from muster import storage
from muster.mocks.campaign.naming import fill_scheme
from muster.mocks.halos.source import load_source

if TYPE_CHECKING:
    from muster.mocks.campaign.science import Science
    from muster.mocks.coordinates import Coordinate
    from muster.mocks.halos.source import HaloSource


@dataclass(frozen=True)
class FileNames:
    """Names the files of a campaign's catalogues.

    Attributes
    ----------
    scheme : str
        The naming scheme.
    source : HaloSource
        Says cosmology and phase.
    options : object
        Options of the source.
    """

    scheme: str
    source: HaloSource
    options: Any

    @classmethod
    def of(cls, science: Science, scheme: str) -> FileNames:
        """Return the names of a campaign.

        Raises
        ------
        ConfigError
            When the suite is unknown, or its options are wrong.
        """
        source = load_source(science.simulation_suite)
        return cls(scheme, source, source.parse_options(science.box))

    def fields(self, coordinate: Coordinate) -> dict[str, str | int | float]:
        """Return what fills the scheme: cosmology, phase, realization and redshift."""
        return {
            **self.source.name_parts(self.options, coordinate),
            "realization": coordinate.realization,
            "redshift": coordinate.redshift,
        }

    def file_name(self, coordinate: Coordinate) -> str:
        """Name a catalogue's file: mock_z1.100.hdf5."""
        return fill_scheme(self.scheme, self.fields(coordinate))

    def relative_name(self, coordinate: Coordinate) -> str:
        """Name a catalogue's file in the folder of catalogues: r0007/mock_z1.100.hdf5."""
        return f"{coordinate.folder}/{self.file_name(coordinate)}"

    def uri_below(self, catalogs_uri: str, coordinate: Coordinate) -> str:
        """Say where a catalogue lies, below the campaign's folder of catalogues."""
        return storage.join(catalogs_uri, self.relative_name(coordinate))
