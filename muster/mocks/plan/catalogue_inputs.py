"""What one catalogue is made from: the inputs of mocks.populate, and their fingerprint."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from muster.errors import MusterError
from muster.hashing import hash_json
from muster.mocks.campaign.code_version import read_code_version
from muster.mocks.campaign.selection import Selection, select
from muster.mocks.errors import CatalogNotFound
from muster.mocks.galaxies.model import load_model
from muster.mocks.halos.source import load_source
from muster.mocks.installed import require_installed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from muster.mocks.campaign.config import Campaign
    from muster.mocks.coordinates import Coordinate
    from muster.mocks.halos.source import InputState

log = logging.getLogger(__name__)

ALGORITHM = 1
"""To be raised when the same inputs give another catalogue than before."""


def plan_one(
    campaign: Campaign, coordinate: Coordinate, *, n_gen: int | None = None
) -> dict[str, Any]:
    """Return what mocks.populate is given for one catalogue, whatever is there already.

    Raises
    ------
    CatalogNotFound
        When its input is missing or incomplete.
    ModelNotInstalled
        When the packages of the halo source or galaxy model are not installed here.
    """
    maker = CatalogueInputs(campaign, "cpu", code=read_code_version().text, n_gen=n_gen)
    state = maker.find([coordinate])[coordinate]
    if state.state != "present":
        raise CatalogNotFound(
            state.reason or "its input is not there",
            where=coordinate.name,
            do="bring it there, and run again",
        )
    return maker.make(coordinate, state)


def estimate_inputs(campaign: Campaign) -> dict[str, Any]:
    """Return as much of what mocks.populate is given as tells how long a catalogue takes.

    Nothing needs be installed, and haloes that are not on this machine are left out.
    """
    science = campaign.science
    source = load_source(science.simulation_suite)
    first = select(campaign, Selection(first=1))
    haloes: dict[str, Any] = {}
    try:
        found = source.find_inputs(source.parse_options(science.box), first)
        haloes = next((dict(state.inputs) for state in found.values() if state.inputs), {})
    except MusterError as error:
        log.debug("no haloes to estimate by: %s", error)
    return {
        "source": science.simulation_suite,
        "haloes": haloes,
        "model": science.galaxy_model,
        "min_mass_msunh": science.min_mass_msunh,
        "n_gen": None,
    }


class CatalogueInputs:
    """Makes the inputs of a campaign's catalogues.

    Parameters
    ----------
    campaign : Campaign
        The campaign.
    device : {"cpu", "gpu"}
        What galaxies are drawn on; part of the fingerprint.
    code : str
        Version of the code, an attribute of each catalogue.
    n_gen : int, optional
        Test mode: at most so many haloes.

    Raises
    ------
    ModelNotInstalled
        When the packages of the halo source or galaxy model are not installed here.
    """

    def __init__(
        self, campaign: Campaign, device: str, *, code: str = "", n_gen: int | None = None
    ) -> None:
        self.campaign = campaign
        self._told = {"code": code, "n_gen": n_gen}
        science = campaign.science
        self.source = load_source(science.simulation_suite)
        self.model = load_model(science.galaxy_model)
        require_installed(self.source, self.model, where=f"science of {campaign.label}")
        versions = self.model.versions()
        if "device" in versions:  # that of the job, and not of the machine that plans it
            versions["device"] = device
        parameters = self.model.parse(science.parameters).model_dump(mode="json")
        self._made_from = {
            "algorithm": ALGORITHM,
            "model": self.model.name,
            "versions": versions,
            "parameters": parameters,
            "seed": science.seed,
            "slabs": science.slabs,
            "min_mass_msunh": science.min_mass_msunh,
            "layout": campaign.outputs.layout,
            "compression": campaign.outputs.catalogue_compression,
            "n_gen": n_gen,
        }

    def find(self, coordinates: Sequence[Coordinate]) -> dict[Coordinate, InputState]:
        """Find the haloes of catalogues, by a cheap look."""
        options = self.source.parse_options(self.campaign.science.box)
        return self.source.find_inputs(options, coordinates)

    def make(self, coordinate: Coordinate, state: InputState) -> dict[str, Any]:
        """Return what mocks.populate is given for a catalogue whose haloes are present."""
        science, outputs = self.campaign.science, self.campaign.outputs
        return {
            "source": science.simulation_suite,
            "haloes": state.inputs,
            "model": science.galaxy_model,
            "parameters": dict(science.parameters),
            "realization": coordinate.realization,
            "redshift": coordinate.redshift,
            "redshift_index": self.campaign.redshift_index(coordinate.redshift),
            "seed": science.seed,
            "slabs": science.slabs,
            "min_mass_msunh": science.min_mass_msunh,
            "layout": outputs.layout,
            "compression": outputs.catalogue_compression,
            "fingerprint": self.fingerprint(coordinate, state),
            "reports": self.campaign.folder.reports_uri,
            **self._told,
        }

    def fingerprint(self, coordinate: Coordinate, state: InputState) -> str:
        """Return the sha256 of all that a catalogue is made from."""
        made_from = {
            **self._made_from,
            "haloes": state.fingerprint,
            "realization": coordinate.realization,
            "redshift": coordinate.redshift,
            "redshift_index": self.campaign.redshift_index(coordinate.redshift),
        }
        return hash_json(made_from)
