"""Synthetic haloes: options, and the look that always finds them; imports no compute library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from muster.config import parse_config
from muster.mocks.halos.source import InputState, SlabAxis, fingerprint_inputs
from muster.mocks.halos.synthetic_options import (
    HIGHEST_REDSHIFT,
    METHOD,
    SyntheticInputs,
    SyntheticOptions,
)
from muster.mocks.installed import find_absent, require_installed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from muster.mocks.coordinates import Coordinate
    from muster.mocks.halos.catalog import HaloCatalog


@dataclass(frozen=True)
class SyntheticSource:
    """Haloes of Tinker's mass function and bias in a lognormal field.

    Attributes
    ----------
    name : str
        Of the source.
    """

    name: str = "synthetic"

    def check_installed(self) -> str | None:
        """Return which package is not installed, and how to install it; None if all are."""
        if find_absent(["colossus"]):
            return "colossus, which synthetic haloes need, is not installed: make mocks"
        return None

    def parse_options(self, options: Mapping[str, Any]) -> SyntheticOptions:
        """Validate the options of a synthetic box.

        Raises
        ------
        ConfigError
            When an option is unknown or wrong.
        """
        return parse_config(SyntheticOptions, options, "options of the halo source synthetic")

    def find_redshift_problem(self, redshift: float) -> str | None:
        """Return in a few words why there are no haloes at a redshift; None if there are."""
        if redshift <= HIGHEST_REDSHIFT:
            return None
        return f"synthetic haloes are made up to redshift {HIGHEST_REDSHIFT:g}"

    def name_parts(self, options: SyntheticOptions, coordinate: Coordinate) -> dict[str, str]:
        """Return what names of files say of a catalogue: ``cosmology`` and ``phase``."""
        return {"cosmology": options.cosmology.name, "phase": f"ph{coordinate.realization:03d}"}

    def find_inputs(
        self, options: SyntheticOptions, coordinates: Sequence[Coordinate]
    ) -> dict[Coordinate, InputState]:
        """Return the inputs of each coordinate: all are present."""
        stated = options.model_dump(mode="json")
        found = {}
        for coordinate in coordinates:
            inputs = {
                "options": stated,
                "realization": coordinate.realization,
                "redshift": coordinate.redshift,
            }
            fingerprint = fingerprint_inputs({"source": self.name, "method": METHOD, **inputs})
            found[coordinate] = InputState("present", None, inputs, fingerprint)
        return found

    def read(
        self,
        inputs: Mapping[str, Any],
        *,
        min_mass_msunh: float,
        slab: tuple[int, int] | None = None,
        slab_axis: SlabAxis = "y",
        n_halos: int | None = None,
    ) -> HaloCatalog:
        """Make the haloes of one box, or of a slab of it, as :class:`HaloSource` describes."""
        require_installed(self)
        # SciPy and colossus take half a second to import: only who reads waits for them.
        from muster.mocks.halos.synthetic_box import make_synthetic_box

        parsed = parse_config(SyntheticInputs, inputs, "inputs of the halo source synthetic")
        return make_synthetic_box(
            parsed,
            min_mass_msunh=min_mass_msunh,
            slab=slab,
            slab_axis=slab_axis,
            n_halos=n_halos,
        )


SYNTHETIC = SyntheticSource()
