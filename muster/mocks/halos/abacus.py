"""Haloes of AbacusSummit: options, and the look for superslabs; imports no compute library.

A box of one redshift is a folder ``halos/zN.NNN/halo_info`` of files ``halo_info_NNN.asdf``, its
superslabs; what cleaning changed lies in ``cleaned_halo_info_NNN.asdf`` in a folder ``cleaning``
above it.  Data model: https://abacussummit.readthedocs.io/en/latest/data-products.html.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from muster.config import parse_config
from muster.mocks.halos.abacus_options import (
    SMALL_BOX_MPCH,
    AbacusBoxOptions,
    AbacusSummitSmallOptions,
    CompasoInputs,
)
from muster.mocks.halos.listing import Listing
from muster.mocks.halos.source import InputState, SlabAxis, fingerprint_inputs
from muster.mocks.halos.superslabs import (
    Cleaning,
    count_listed,
    describe_lacking,
    find_cleaning,
    find_superslabs,
)
from muster.mocks.installed import find_absent, require_installed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from muster.frozen import Frozen
    from muster.mocks.coordinates import Coordinate
    from muster.mocks.halos.catalog import HaloCatalog

_PLACES = ("folder", "cleaning", "cleaned_folder")


@dataclass(frozen=True)
class _Box:
    """Where one catalogue's input should be, and what was found there."""

    folder: str
    reason: str | None = None
    found: frozenset[int] = frozenset()
    cleaning: Cleaning | None = None


@dataclass(frozen=True)
class AbacusSource:
    """CompaSO halo catalogues, read through abacusutils.

    Attributes
    ----------
    name : str
        Of the suite.
    options : type
        Type of its options.
    """

    name: str
    options: type[AbacusSummitSmallOptions | AbacusBoxOptions]

    def check_installed(self) -> str | None:
        """Return which package is not installed, and how to install it; None if all are."""
        if find_absent(["abacusnbody"]):
            return f"abacusutils, which reads {self.name}, is not installed: make abacus"
        return None

    def parse_options(self, options: Mapping[str, Any]) -> Frozen:
        """Validate the options of this suite.

        Raises
        ------
        ConfigError
            When an option is unknown, absent or wrong.
        """
        return parse_config(self.options, options, f"options of the halo source {self.name}")

    def name_parts(
        self, options: AbacusSummitSmallOptions | AbacusBoxOptions, coordinate: Coordinate
    ) -> dict[str, str]:
        """Return what names of files say of a catalogue: ``cosmology`` and ``phase``."""
        phase = (
            options.phase
            if isinstance(options, AbacusBoxOptions)
            else f"ph{options.first_phase + coordinate.realization:03d}"
        )
        return {"cosmology": options.cosmology.name, "phase": phase}

    def find_inputs(
        self,
        options: AbacusSummitSmallOptions | AbacusBoxOptions,
        coordinates: Sequence[Coordinate],
    ) -> dict[Coordinate, InputState]:
        """Find the superslabs of catalogues, each folder listed once.

        Parameters
        ----------
        options : AbacusSummitSmallOptions or AbacusBoxOptions
        coordinates : sequence of Coordinate

        Returns
        -------
        dict
            The state of each coordinate's input.

        Raises
        ------
        muster.errors.Transient
            When the file system failed.
        """
        listing = Listing()
        boxes = {c: self._look_at(options, c, listing) for c in coordinates}
        most = max((max(box.found) + 1 for box in boxes.values() if box.found), default=0)
        return {c: self._judge(options, c, box, most) for c, box in boxes.items()}

    def read(
        self,
        inputs: Mapping[str, Any],
        *,
        min_mass_msunh: float,
        slab: tuple[int, int] | None = None,
        slab_axis: SlabAxis = "y",
        n_halos: int | None = None,
    ) -> HaloCatalog:
        """Read the haloes of one box, or of a slab, as :class:`HaloSource` describes.

        A slab in x reads the superslabs that may reach into it; one in y or z reads all.
        """
        require_installed(self)
        # abacusutils imports Numba and Astropy, for two seconds: only who reads waits for it.
        from muster.mocks.halos.compaso import read_compaso

        parsed = parse_config(CompasoInputs, inputs, f"inputs of the halo source {self.name}")
        return read_compaso(
            parsed,
            min_mass_msunh=min_mass_msunh,
            slab=slab,
            slab_axis=slab_axis,
            n_halos=n_halos,
        )

    def _look_at(
        self,
        options: AbacusSummitSmallOptions | AbacusBoxOptions,
        coordinate: Coordinate,
        listing: Listing,
    ) -> _Box:
        redshift = f"z{coordinate.redshift:.3f}"
        if isinstance(options, AbacusBoxOptions):
            if coordinate.realization != options.realization:
                reason = f"the folder holds one box, realization {options.realization}"
                return _Box(options.root, reason=reason)
            simulation = options.root
        else:
            name = self._simulation(options, coordinate)
            if name not in listing.names(options.root):
                return _Box(options.root, reason=listing.explain_lack(options.root, name))
            simulation = os.path.join(options.root, name)
        halos = os.path.join(simulation, "halos")
        if redshift not in listing.names(halos):
            return _Box(halos, reason=listing.explain_lack(halos, redshift))
        folder = os.path.join(halos, redshift)
        info = os.path.join(folder, "halo_info")
        found = find_superslabs(listing.names(info))
        if not found:
            return _Box(folder, reason=listing.explain_lack(info, "superslab"))
        if not options.cleaned:
            return _Box(folder, found=found)
        return _Box(folder, found=found, cleaning=find_cleaning(folder, listing))

    def _judge(
        self,
        options: AbacusSummitSmallOptions | AbacusBoxOptions,
        coordinate: Coordinate,
        box: _Box,
        most: int,
    ) -> InputState:
        if box.reason is not None:
            return InputState("missing", box.reason)
        superslabs = options.superslabs or most
        if isinstance(options, AbacusBoxOptions) and options.superslabs is None:
            superslabs = max(superslabs, count_listed(box.folder))
        lacking = describe_lacking(box.found, superslabs, "halo_info")
        if lacking is None and box.cleaning is not None:
            lacking = describe_lacking(box.cleaning.found, superslabs, "cleaned_halo_info")
        elif lacking is None and options.cleaned:
            lacking = "no folder cleaning above it; the uncleaned catalogue has cleaned: false"
        if lacking is not None:
            return InputState("incomplete", f"{box.folder}: {lacking}")
        simulation: str | None = None
        box_size_mpch: float | None = SMALL_BOX_MPCH
        if isinstance(options, AbacusBoxOptions):
            box_size_mpch = options.box_size_mpch
        else:
            simulation = self._simulation(options, coordinate)
        inputs = CompasoInputs(
            suite=self.name,
            folder=box.folder,
            superslabs=superslabs,
            cleaned=options.cleaned,
            cleaning=box.cleaning.root if box.cleaning else None,
            cleaned_folder=box.cleaning.folder if box.cleaning else None,
            simulation=simulation,
            redshift=coordinate.redshift,
            box_size_mpch=box_size_mpch,
            phase=self.name_parts(options, coordinate)["phase"],
            realization=coordinate.realization,
            cosmology=options.cosmology,
        ).model_dump(mode="json")
        # The same files under another root are the same haloes.
        parts = {k: v for k, v in inputs.items() if k not in _PLACES}
        return InputState("present", None, inputs, fingerprint_inputs(parts))

    @staticmethod
    def _simulation(options: Any, coordinate: Coordinate) -> str:
        phase = options.first_phase + coordinate.realization
        return f"AbacusSummit_small_{options.cosmology.name}_ph{phase:03d}"


ABACUS_SUMMIT_SMALL = AbacusSource("AbacusSummit_small", AbacusSummitSmallOptions)
ABACUS_BOX = AbacusSource("abacus_box", AbacusBoxOptions)
