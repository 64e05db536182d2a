"""What a galaxy model is, and which there are.

A model is an object without state: its parameters come from the campaign file, its randomness from
a stream.  Importing this module, loading a model and parsing parameters need no compute library;
only :meth:`GalaxyModel.generate`, :meth:`GalaxyModel.expect` and :meth:`GalaxyModel.versions` do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from muster.entry_points import Registry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from muster.frozen import Frozen
    from muster.mocks.galaxies.catalog import GalaxyCatalog
    from muster.mocks.galaxies.stream import RandomStream
    from muster.mocks.halos.catalog import HaloCatalog

MODELS: dict[str, str] = {
    "hod": "muster.mocks.galaxies.models:HOD",
    "diffsky": "muster.mocks.galaxies.models:DIFFSKY",
    "rgrspit": "muster.mocks.galaxies.models:RGRSPIT",
}
"""Name → "module:attribute" of our own models, imported when they are needed."""

_RGRSPIT = re.compile(r"rgrspit_diffsky_v([0-9A-Za-z][0-9A-Za-z.+_-]{0,39})")


@dataclass(frozen=True)
class Expectation:
    """How many galaxies a model makes of given haloes.

    Attributes
    ----------
    mean, standard_deviation : float
        Of the number of galaxies over realizations of the model.
    """

    mean: float
    standard_deviation: float


class GalaxyModel(Protocol):
    """A way to populate haloes with galaxies.

    Attributes
    ----------
    name : str
        As campaign files state it.
    compiles : bool
        Whether the first box of a process compiles programs into a cache that other processes
        share; one process then fills the cache before the others start.
    """

    @property
    def name(self) -> str:
        """The name that campaign files state."""
        ...

    @property
    def compiles(self) -> bool:
        """Whether the model fills a cache of compiled programs."""
        ...

    def check_installed(self) -> str | None:
        """Return what is missing here and how to install it, in a sentence; None if nothing is."""
        ...

    def parse(self, parameters: Mapping[str, Any]) -> Frozen:
        """Check parameters and fill in defaults.

        Raises
        ------
        ConfigError
            At the first parameter that is unknown or wrong.
        """
        ...

    def versions(self) -> dict[str, str]:
        """Return all that decides the bytes beside parameters, haloes and seed.

        Versions of libraries, and of JAX precision and device; part of a catalogue's fingerprint.
        """
        ...

    def generate(
        self,
        halos: HaloCatalog,
        params: Any,
        stream: RandomStream,
        *,
        histories: bool = False,
    ) -> GalaxyCatalog:
        """Populate haloes, those of one slab or of a whole box.

        Parameters
        ----------
        halos : HaloCatalog
            n ≥ 0 haloes.
        params : Frozen
            What :meth:`parse` returned.
        stream : RandomStream
            All randomness; the same stream and haloes give the same arrays.
        histories : bool
            Whether to return formation histories too.

        Returns
        -------
        GalaxyCatalog
            Positions in [0, box size); ``parent_halos`` counts in ``halos``.

        Raises
        ------
        ModelNotInstalled
            When a library of the model is missing.
        ModelError
            When the model fails.
        """
        ...

    def expect(self, halos: HaloCatalog, params: Any) -> Expectation | None:
        """Return the expected number of galaxies; None where the model cannot tell."""
        ...


MODEL_REGISTRY: Registry[GalaxyModel] = Registry("muster.galaxy_models", "galaxy model", MODELS)
"""Our own models and those that packages add."""


def split_model_name(name: str) -> tuple[str, dict[str, Any]]:
    """Return the registered name of a model, and the parameters that its given name implies.

    ``rgrspit_diffsky_v1.2`` is the model ``rgrspit`` with the parameter ``version`` = 1.2.
    """
    matched = _RGRSPIT.fullmatch(name)
    if matched is not None:
        return "rgrspit", {"version": matched.group(1)}
    return name, {}


def load_model(name: str) -> GalaxyModel:
    """Return a model by the name that a campaign file states, our own or an installed package's.

    Raises
    ------
    ConfigError
        When there is none of that name, or it cannot be loaded.
    """
    registered, implied = split_model_name(name)
    found = MODEL_REGISTRY.load(registered)
    return replace(found, **implied) if implied else found  # type: ignore[type-var]
