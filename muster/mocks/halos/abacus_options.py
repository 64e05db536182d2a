"""Which boxes of AbacusSummit, and what one of them is read from."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from muster.frozen import Frozen
from muster.mocks.halos.cosmologies import CosmologyOptions

SMALL_BOX_MPCH = 500.0
MOST_SUPERSLABS = 1000

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
