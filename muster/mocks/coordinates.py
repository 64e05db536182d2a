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
        """What the element is called: r0007_z1.100."""
        return f"r{self.realization:04d}_z{self.redshift:.3f}"

    @property
    def folder(self) -> str:
        """Folder of the realization's catalogues: r0007."""
        return f"r{self.realization:04d}"
