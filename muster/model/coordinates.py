"""Where an element stands: the coordinates that its record is found by, as columns of the store."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from muster.frozen import Frozen

MOST_REALIZATION = 2**31 - 1
"""The greatest number of a realization that the store's column holds."""


class Coordinates(Frozen):
    """Coordinates of an element; None where it has none of a kind.

    Attributes
    ----------
    realization : int or None
        Number of the realization, from 0.
    redshift : float or None
        Redshift, as the campaign file states it.
    trait, dataset : str or None
        Name of the trait, of the dataset.
    month : str or None
        The time that it stands for: YYYY, or YYYY-MM.
    """

    realization: Annotated[int, Field(ge=0, le=MOST_REALIZATION)] | None = None
    redshift: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    trait: Annotated[str, Field(min_length=1)] | None = None
    dataset: Annotated[str, Field(min_length=1)] | None = None
    month: Annotated[str, Field(pattern=r"^\d{4}(-(0[1-9]|1[0-2]))?$")] | None = None
