"""Step mocks.inspect: what a run has to do for each catalogue of a campaign, and why.

Folders of input are listed, and nothing is opened.  What is there and whole is known from the
record; a catalogue is made again only when what it is made from has changed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from muster import storage
from muster.errors import InvalidInput
from muster.jobs.planning.inspection import write_plan
from muster.mocks.campaign.code_version import read_code_version
from muster.mocks.campaign.estimate_size import MOST_GROUPS
from muster.mocks.campaign.placement import STEP as POPULATE
from muster.mocks.campaign.placement import make_placement, override_of
from muster.mocks.campaign.selection import select
from muster.mocks.errors import CatalogNotFound, ModelNotInstalled
from muster.mocks.galaxies.model import load_model
from muster.mocks.halos.source import load_source
from muster.mocks.params import MockParams
from muster.model.coordinates import Coordinates
from muster.model.plan import Decision, PlannedElement
from muster.model.step import StepContext

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from muster.mocks.campaign.config import Campaign
    from muster.mocks.coordinates import Coordinate
    from muster.mocks.halos.source import InputState

WORKFLOW = "mock_campaign"
COLLECT = "mocks.collect"
QA = "mocks.qa"
MANIFEST = "mocks.manifest"
ENSEMBLE = "ensemble"
"""Group, and name of the elements, of the steps that take the whole campaign."""

ALGORITHM = 1
"""To be raised when the same inputs give another catalogue than before."""


@dataclass(frozen=True)
class Whole:
    """A catalogue that is there by the record."""

    fingerprint: str
    bytes: int
    uri: str


def inspect_campaign(
    *,
    params: dict[str, Any],
    whole: str,
    plan: Path,
    only: str | None = None,
    first_batch: int = 0,
    device: str = "cpu",
    code: str = "",
    bands: str = "",
    gpus: dict[str, int] | None = None,
    context: StepContext = StepContext(),  # noqa: B008 - frozen
) -> dict[str, Any]:
    """Decide on each catalogue of a run, and write its plan.

    Parameters
    ----------
    params : dict
        As :class:`muster.mocks.params.MockParams`.
    whole : str
        URI of what the record says is there: realization, redshift, fingerprint, bytes, URI each.
    plan : Path
        Where plan.json is written.
    only : str, optional
        URI of a list of realization and redshift: no other catalogue is looked at.
    first_batch : int
        Number of the run's first batch in the campaign.
    device : {"cpu", "gpu"}
        What galaxies are drawn on; part of a catalogue's fingerprint.
    code : str
        Version of the code that the run was started with; an attribute of each catalogue.
    bands, gpus
        What inspections of other workflows are told; not used.
    context : StepContext
        Progress.

    Returns
    -------
    dict
        ``campaign``, ``catalogues``, ``batches``, and ``decisions``: step → decision → number.

    Raises
    ------
    ModelNotInstalled
        When the packages of the halo source or galaxy model are not installed here.
    ConfigError
        When the selection names what the campaign does not have.
    """
    del bands, gpus
    checked = MockParams.model_validate(params)
    campaign = checked.campaign
    inspection = _Inspection(checked, campaign, read_whole(whole), device, code=code)
    context.progress(0.1, "listing input")
    coordinates = select(campaign, checked.selection)
    if only is not None:
        wanted = read_coordinates(only)
        coordinates = [c for c in coordinates if (c.realization, c.redshift) in wanted]
    catalogues = inspection.decide(coordinates)
    context.progress(0.8, "batches")
    elements = list(inspection.batch(catalogues, first_batch))
    elements += inspection.plan_ensemble(catalogues)
    facts = {"campaign": campaign.label, "catalogues": len(catalogues)}
    return write_plan(
        plan,
        WORKFLOW,
        elements,
        facts,
        products={ENSEMBLE: campaign.folder.metadata_uri},
        placements=(make_placement(campaign),),
    )


def read_whole(uri: str) -> dict[tuple[int, float], Whole]:
    """Read what the record says is there.

    Raises
    ------
    InvalidInput
        When the file is none of prepare_run's.
    """
    try:
        rows = json.loads(storage.read_bytes(uri))
        return {(int(r), float(z)): Whole(str(f), int(b), str(u)) for r, z, f, b, u in rows}
    except (ValueError, TypeError) as error:
        raise InvalidInput("not a list of catalogues", where=uri, got=error) from error


def read_coordinates(uri: str) -> set[tuple[int, float]]:
    """Read which catalogues a run is restricted to.

    Raises
    ------
    InvalidInput
        When the file is none of prepare_run's.
    """
    try:
        return {(int(r), float(z)) for r, z in json.loads(storage.read_bytes(uri))}
    except (ValueError, TypeError) as error:
        raise InvalidInput("not a list of coordinates", where=uri, got=error) from error


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
    params = MockParams.model_validate({"definition": campaign.config.to_data()})
    code = read_code_version().text
    inspection = _Inspection(params, campaign, {}, "cpu", code=code, n_gen=n_gen)
    return inspection.require_inputs(coordinate)


class _Inspection:
    """Decides on the catalogues of a run."""

    def __init__(
        self,
        params: MockParams,
        campaign: Campaign,
        whole: Mapping[tuple[int, float], Whole],
        device: str,
        *,
        code: str = "",
        n_gen: int | None = None,
    ) -> None:
        self.params = params
        self._told = {"code": code, "n_gen": n_gen}
        self.campaign = campaign
        self.whole = whole
        science = campaign.science
        self.source = load_source(science.simulation_suite)
        self.model = load_model(science.galaxy_model)
        for part in (self.source, self.model):
            lacking = part.check_installed()
            if lacking is not None:
                raise ModelNotInstalled(lacking, where=f"science of {campaign.label}")
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

    def decide(self, coordinates: Sequence[Coordinate]) -> list[PlannedElement]:
        """Decide on catalogues; ``first`` ends the list after so many that are to be made."""
        options = self.source.parse_options(self.campaign.science.box)
        inputs = self.source.find_inputs(options, coordinates)
        found: list[PlannedElement] = []
        to_make = 0
        there = self._list_files(coordinates) if self.params.verify else None
        for coordinate in coordinates:
            element = self._decide_one(coordinate, inputs[coordinate], there)
            to_make += element.decision is Decision.RUN
            found.append(element)
            if to_make == self.params.first:
                break
        if not self.params.dry_run:
            return found
        return [
            e.model_copy(update={"decision": Decision.NOT_ASKED, "reason": f"dry run; {e.reason}"})
            if e.decision is Decision.RUN
            else e
            for e in found
        ]

    def require_inputs(self, coordinate: Coordinate) -> dict[str, Any]:
        """Return the inputs of one catalogue, whatever is there already."""
        options = self.source.parse_options(self.campaign.science.box)
        state = self.source.find_inputs(options, [coordinate])[coordinate]
        if state.state != "present":
            raise CatalogNotFound(state.reason or "its input is not there", where=coordinate.name)
        return self._inputs(coordinate, state, self._fingerprint(coordinate, state))

    def _decide_one(
        self, coordinate: Coordinate, state: InputState, there: Mapping[str, int] | None
    ) -> PlannedElement:
        campaign = self.campaign
        said: dict[str, Any] = {
            "step": POPULATE,
            "name": coordinate.name,
            "group": "",
            "coordinates": Coordinates(
                realization=coordinate.realization, redshift=coordinate.redshift
            ),
        }
        if state.state != "present":
            reason = state.reason or "its input is not there"
            return PlannedElement(decision=Decision.MISSING_INPUT, reason=reason, **said)
        fingerprint = self._fingerprint(coordinate, state)
        uri = campaign.catalogue_uri(coordinate)
        known = self.whole.get((coordinate.realization, coordinate.redshift))
        why = _why_made(known, fingerprint, uri, there)
        if why is None:
            return PlannedElement(
                decision=Decision.REUSED, reason="it is there, and up to date", **said
            )
        return PlannedElement(
            decision=Decision.RUN,
            reason=why,
            inputs=self._inputs(coordinate, state, fingerprint),
            outputs={"catalogue": uri},
            resources=override_of(campaign, coordinate),
            **said,
        )

    def _inputs(
        self, coordinate: Coordinate, state: InputState, fingerprint: str
    ) -> dict[str, Any]:
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
            "fingerprint": fingerprint,
            "reports": self.campaign.folder.reports_uri,
            **self._told,
        }

    def _fingerprint(self, coordinate: Coordinate, state: InputState) -> str:
        made_from = {
            **self._made_from,
            "haloes": state.fingerprint,
            "realization": coordinate.realization,
            "redshift": coordinate.redshift,
            "redshift_index": self.campaign.redshift_index(coordinate.redshift),
        }
        return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()

    def _list_files(self, coordinates: Sequence[Coordinate]) -> dict[str, int]:
        """List the sizes of the catalogues' files, a folder at a time."""
        catalogs = self.campaign.folder.catalogs_uri
        sizes: dict[str, int] = {}
        for folder in dict.fromkeys(coordinate.folder for coordinate in coordinates):
            uri = storage.join(catalogs, folder)
            sizes |= {storage.join(uri, entry.name): entry.bytes for entry in storage.walk(uri)}
        return sizes

    def batch(
        self, catalogues: Sequence[PlannedElement], first_batch: int
    ) -> Iterator[PlannedElement]:
        """Deal catalogues to batches of whole arrays, each with the step that collects it."""
        to_make = sum(element.decision is Decision.RUN for element in catalogues)
        array = self.campaign.execution.batch_size
        arrays = max(1, -(-to_make // array))
        size = array * -(-arrays // MOST_GROUPS)
        members: list[PlannedElement] = []
        made, number = 0, first_batch
        for element in catalogues:
            members.append(element)
            made += element.decision is Decision.RUN
            if made == size:
                yield from self._close_batch(members, number)
                members, made, number = [], 0, number + 1
        if members:
            yield from self._close_batch(members, number)

    def _close_batch(
        self, members: Sequence[PlannedElement], number: int
    ) -> Iterator[PlannedElement]:
        group = f"batch_{number:04d}"
        for member in members:
            yield member.model_copy(update={"group": group})
        made = [member for member in members if member.decision is Decision.RUN]
        if not made:
            return
        catalogues = [
            {
                "uri": member.outputs["catalogue"],
                **{
                    name: member.inputs[name]
                    for name in ("realization", "redshift", "redshift_index", "fingerprint")
                },
            }
            for member in made
        ]
        uri = storage.join(self.campaign.folder.statistics_uri, f"{group}.parquet")
        yield PlannedElement(
            step=COLLECT,
            name=group,
            group=group,
            decision=Decision.RUN,
            reason=f"statistics of {len(made)} catalogues",
            inputs={"catalogues": catalogues},
            outputs={"statistics": uri},
        )

    def plan_ensemble(self, catalogues: Sequence[PlannedElement]) -> list[PlannedElement]:
        """Plan the steps that take the whole campaign."""
        campaign, folder = self.campaign, self.campaign.folder
        good = (Decision.RUN, Decision.REUSED)
        if self.params.dry_run or not any(e.decision in good for e in catalogues):
            return []
        said: dict[str, Any] = {"name": ENSEMBLE, "group": ENSEMBLE, "decision": Decision.RUN}
        science = campaign.science
        realizations, redshifts = science.realizations.numbers, science.redshifts
        metadata = folder.metadata_uri
        return [
            PlannedElement(
                step=QA,
                reason="the ensemble of all catalogues that there are",
                inputs={
                    "statistics_folder": folder.statistics_uri,
                    "expected": {
                        "realizations": list(realizations),
                        "redshifts": list(redshifts),
                    },
                    "figures": folder.plots_uri,
                },
                outputs={
                    "summary": storage.join(folder.uri, "qa", "summary.json"),
                    "matrices": storage.join(folder.uri, "qa", "matrices.npz"),
                },
                **said,
            ),
            PlannedElement(
                step=MANIFEST,
                reason="all catalogues that there are",
                inputs={
                    "folder": folder.uri,
                    "campaign": campaign.config.campaign.model_dump(mode="json"),
                    "expected": len(realizations) * len(redshifts),
                },
                outputs={
                    "manifest": storage.join(metadata, "manifest.sha256"),
                    "table": storage.join(metadata, "manifest.parquet"),
                    "jobs": storage.join(metadata, "jobs.parquet"),
                    "database": storage.join(metadata, "campaign.db"),
                },
                needs_store=True,
                **said,
            ),
        ]


def _why_made(
    known: Whole | None, fingerprint: str, uri: str, there: Mapping[str, int] | None
) -> str | None:
    """Say why a catalogue is made; None where the one that is there is whole and up to date."""
    if known is None:
        return "it is not there"
    if known.fingerprint != fingerprint:
        return "what it is made from has changed"
    if known.uri != uri:
        return f"it lies elsewhere: {known.uri}"
    if there is not None and uri not in there:
        return "its file is gone"
    if there is not None and there[uri] != known.bytes:
        return f"its file has {there[uri]} bytes, and had {known.bytes}"
    return None
