"""Where a catalogue stands in its campaign: realization and redshift, and the names of both."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Coordinate:
    """One element of a campaign.

    Attributes
    ----------
    realization : int
        Number of the realization, from 0 to 99999.
    redshift : float
        As the campaign file states it.
    """

    realization: int
    redshift: float

    @property
    def name(self) -> str:
        """What the element is called: r0007_z1.100, with more digits where the redshift has."""
        return f"{self.folder}_{name_redshift(self.redshift)}"

    @property
    def folder(self) -> str:
        """Folder of the realization's catalogues: r0007."""
        return f"r{self.realization:04d}"


def name_redshift(redshift: float) -> str:
    """Return z1.100, or as many digits as the redshift has."""
    short = f"{redshift:.3f}"
    return f"z{short}" if float(short) == redshift else f"z{redshift!r}"
