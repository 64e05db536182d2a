"""Haloes of AbacusSummit: options, and the look for superslabs; imports no compute library.

A box of one redshift is a folder ``halos/zN.NNN/halo_info`` of files ``halo_info_NNN.asdf``, its
superslabs; what cleaning changed lies in ``cleaned_halo_info_NNN.asdf`` in a folder ``cleaning``
above it.  Data model: https://abacussummit.readthedocs.io/en/latest/data-products.html.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from muster.config import parse_config
from muster.frozen import Frozen
from muster.mocks.errors import ModelNotInstalled
from muster.mocks.halos.cosmologies import CosmologyOptions
from muster.mocks.halos.listing import Listing
from muster.mocks.halos.source import InputState, SlabAxis, fingerprint_inputs
from muster.mocks.halos.superslabs import (
    Cleaning,
    count_listed,
    describe_lacking,
    find_cleaning,
    find_superslabs,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from muster.mocks.coordinates import Coordinate
    from muster.mocks.halos.catalog import HaloCatalog

SMALL_BOX_MPCH = 500.0
MOST_SUPERSLABS = 1000
_PLACES = ("folder", "cleaning", "cleaned_folder")

Location = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00-\x1f\x7f]+$")]
Superslabs = Annotated[int, Field(ge=1, le=MOST_SUPERSLABS)]


class AbacusSummitSmallOptions(Frozen):
    """Which boxes of AbacusSummit_small, and where they lie.

    Attributes
    ----------
    root : str
        Folder that holds ``AbacusSummit_small_c000_ph3000`` and its like.
    cosmology : CosmologyOptions
        Its name is part of the folders' names; h and omega_m must be those of the files.
    first_phase : int
        Phase of realization 0; realization n is phase first_phase + n.
    cleaned : bool
        Whether haloes that were merged or are unphysical are cleaned away (Bose et al. 2022).
    superslabs : int or None
        How many files a box has; by default as many as the fullest box among those looked for.
    """

    root: Location = "/global/cfs/cdirs/desi/public/cosmosim/AbacusSummit/small"
    cosmology: CosmologyOptions = CosmologyOptions()
    first_phase: Annotated[int, Field(ge=0, le=99999)] = 3000
    cleaned: bool = True
    superslabs: Superslabs | None = None


class AbacusBoxOptions(Frozen):
    """One box in the layout of AbacusSummit.

    Attributes
    ----------
    root : str
        Folder that holds ``halos``.
    cleaned : bool
        Whether to read the cleaned catalogue; must be stated.
    box_size_mpch : float or None
        Side of the box; by default what the files say.
    phase : str
        Name of the initial conditions.
    realization : int
        Number of the only realization that there is.
    cosmology : CosmologyOptions
        h and omega_m must be those of the files; the others are taken where the files have none.
    superslabs : int or None
        How many files the box has; by default as many as checksums.crc32 lists, else as there are.
    """

    root: Location
    cleaned: bool
    box_size_mpch: Annotated[float, Field(gt=0, le=1e5, allow_inf_nan=False)] | None = None
    phase: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.+-]{1,64}$")] = "ph000"
    realization: Annotated[int, Field(ge=0, le=99999)] = 0
    cosmology: CosmologyOptions = CosmologyOptions()
    superslabs: Superslabs | None = None


class CompasoInputs(Frozen):
    """What one box of one redshift is read from.

    Attributes
    ----------
    suite : str
        Name of the source.
    folder : str
        Folder of the redshift, which holds ``halo_info``.
    superslabs : int
        Number of files.
    cleaned : bool
        Whether the cleaned catalogue is read.
    cleaning : str or None
        Folder ``cleaning`` that holds what cleaning changed, of many boxes.
    cleaned_folder : str or None
        Folder in it of this box's ``cleaned_halo_info_NNN.asdf``.
    simulation : str or None
        SimName that the files must state; None where any will do.
    redshift : float or None
        Redshift that the files must state; None where any will do.
    box_size_mpch : float or None
        Side of the box that the files must state; None where any will do.
    phase : str
        Name of the initial conditions.
    realization : int or None
        Number of the realization.
    cosmology : CosmologyOptions or None
        The files must state its h and omega_m; None where any will do.
    """

    suite: str
    folder: Location
    superslabs: Superslabs
    cleaned: bool
    cleaning: Location | None = None
    cleaned_folder: Location | None = None
    simulation: str | None = None
    redshift: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    box_size_mpch: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    phase: str = ""
    realization: int | None = None
    cosmology: CosmologyOptions | None = None


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
        if importlib.util.find_spec("abacusnbody") is None:
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
        muster.errors.InvalidInput, muster.errors.Transient
            When a folder is there and cannot be listed.
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
        absent = self.check_installed()
        if absent is not None:
            raise ModelNotInstalled(absent)
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
            if name not in (listing.names(options.root) or ()):
                return _Box(options.root, reason=f"{options.root} holds no {name}")
            simulation = os.path.join(options.root, name)
        halos = os.path.join(simulation, "halos")
        if redshift not in (listing.names(halos) or ()):
            return _Box(halos, reason=f"{halos} holds no {redshift}")
        folder = os.path.join(halos, redshift)
        found = find_superslabs(listing.names(os.path.join(folder, "halo_info")))
        if not found:
            return _Box(folder, reason=f"{folder}/halo_info holds no superslab")
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
