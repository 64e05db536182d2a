"""Which synthetic boxes, and what one of them is made from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from muster.frozen import Frozen
from muster.mocks.halos.cosmologies import CosmologyOptions

METHOD = 1
"""Raised when the same options give other haloes; part of the fingerprint."""


HIGHEST_REDSHIFT = 20.0
"""The mass function is made for lower redshifts."""


class SyntheticOptions(Frozen):
    """A box of synthetic haloes.

    Attributes
    ----------
    box_size_mpch : float
        Side of the periodic box.
    seed : int
        Of the whole campaign; each realization has streams of its own.
    cosmology : CosmologyOptions
        Of the box.
    mass_definition : {"200m", "vir"}
        What the masses and radii of the haloes are of.
    lowest_mass_msunh : float
        No halo is lighter, whatever mass a reader asks for, as in a simulation of that resolution.
    cell_mpch : float
        Width of a cell of the density field: there is no structure below it.
    """

    box_size_mpch: Annotated[float, Field(ge=25, le=1000)] = 500.0
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    cosmology: CosmologyOptions = CosmologyOptions()
    mass_definition: Literal["200m", "vir"] = "200m"
    lowest_mass_msunh: Annotated[float, Field(ge=1e9, le=1e15)] = 1e11
    cell_mpch: Annotated[float, Field(ge=2, le=16)] = 4.0


class SyntheticInputs(Frozen):
    """What one synthetic box is made from.

    Attributes
    ----------
    options : SyntheticOptions
    realization : int
        Number of the realization.
    redshift : float
        At which the haloes are drawn.
    """

    options: SyntheticOptions
    realization: Annotated[int, Field(ge=0, le=99999)] = 0
    redshift: Annotated[float, Field(ge=0, le=HIGHEST_REDSHIFT)]
