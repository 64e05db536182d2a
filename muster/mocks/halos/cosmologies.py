"""The cosmology of a source, as its options state it; imports no compute library."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from muster.frozen import Frozen
from muster.mocks.halos.catalog import Cosmology

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class CosmologyOptions(Frozen):
    """A flat cosmology; the defaults are AbacusSummit's c000 (Planck 2018, base ΛCDM).

    Attributes
    ----------
    name : str
        What names of files call it.
    h, omega_m, omega_b, sigma8, n_s, w0, wa : float
        As :class:`muster.mocks.halos.catalog.Cosmology` has them.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.+-]{1,64}$")] = "c000"
    h: Annotated[float, Field(gt=0.2, lt=2)] = 0.6736
    omega_m: Annotated[float, Field(gt=0.01, lt=1)] = 0.315192
    omega_b: Annotated[float, Field(gt=0, lt=0.5)] = 0.0493
    sigma8: Annotated[float, Field(gt=0, lt=3)] = 0.8114
    n_s: Annotated[float, Field(gt=0, lt=2)] = 0.9649
    w0: Annotated[float, Field(gt=-3, lt=0)] = -1.0
    wa: Annotated[float, Field(gt=-3, lt=3)] = 0.0

    @property
    def cosmology(self) -> Cosmology:
        """The same without its name."""
        return Cosmology(**self.model_dump(exclude={"name"}))
