"""Step mocks.inspect: what a run has to do for each catalogue of a campaign, and why.

Folders of input are listed, and nothing is opened.  What is there and whole is known from the
record; a catalogue is made again only when what it is made from has changed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from muster import storage
from muster.errors import InvalidInput
from muster.jobs.planning.inspection import write_plan
from muster.mocks.campaign.facts import name_in_campaign, require_local
from muster.mocks.campaign.placement import STEP as POPULATE
from muster.mocks.campaign.placement import make_placement, override_of
from muster.mocks.campaign.places import Copy, choose_copy, find_copies
from muster.mocks.campaign.selection import select
from muster.mocks.params import MockParams
from muster.mocks.plan.batches import ENSEMBLE, collect_reused, deal_batches, plan_ensemble
from muster.mocks.plan.catalogue_inputs import CatalogueInputs
from muster.mocks.qa.collect import DECIMALS, read_collected
from muster.model.coordinates import Coordinates
from muster.model.plan import Decision, PlannedElement
from muster.model.step import StepContext

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from muster.mocks.coordinates import Coordinate
    from muster.mocks.halos.source import InputState

WORKFLOW = "mock_campaign"
NO_HALOES = "its haloes are not there any more"
"""Why a catalogue that is there cannot be held against what it was made from."""


@dataclass(frozen=True)
class Whole:
    """A catalogue that is there by the record."""

    fingerprint: str
    bytes: int
    uri: str
    sha256: str


@dataclass(frozen=True)
class _Files:
    """What lies in the folders of catalogues, and elsewhere of what does not.

    Attributes
    ----------
    bytes : mapping of str to int
        URI → size, of the files in the folders.
    copies : mapping of str to Copy
        URI → staged or archived copy of a catalogue whose file was removed.
    """

    bytes: Mapping[str, int]
    copies: Mapping[str, Copy]


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
        URI of what the record says is there: realization, redshift, fingerprint, bytes, URI and
        SHA-256 each.
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
    inputs = CatalogueInputs(campaign, device, code=code)
    inspection = _Inspection(checked, inputs, read_whole(whole))
    context.progress(0.1, "listing input")
    coordinates = select(campaign, checked.selection)
    if only is not None:
        wanted = read_coordinates(only)
        coordinates = [c for c in coordinates if (c.realization, c.redshift) in wanted]
    catalogues = inspection.decide(coordinates)
    context.progress(0.8, "batches")
    elements = list(deal_batches(campaign, catalogues, first_batch))
    if not checked.dry_run:
        lost = inspection.find_uncollected(catalogues)
        elements += collect_reused(campaign, lost, first_batch)
    if any(element.decision in (Decision.RUN, Decision.REUSED) for element in catalogues):
        elements += [] if checked.dry_run else plan_ensemble(campaign)
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
        return {
            (int(r), float(z)): Whole(str(f), int(b), str(u), str(h)) for r, z, f, b, u, h in rows
        }
    except (ValueError, TypeError) as error:
        raise InvalidInput(
            "not a list of catalogues", where=uri, got=error, do="plan the run again"
        ) from error


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
        raise InvalidInput(
            "not a list of coordinates", where=uri, got=error, do="plan the run again"
        ) from error


class _Inspection:
    """Decides on the catalogues of a run."""

    def __init__(
        self,
        params: MockParams,
        inputs: CatalogueInputs,
        whole: Mapping[tuple[int, float], Whole],
    ) -> None:
        self.params = params
        self.campaign = inputs.campaign
        self.inputs = inputs
        self.whole = whole

    def decide(self, coordinates: Sequence[Coordinate]) -> list[PlannedElement]:
        """Decide on catalogues; ``first`` ends the list after so many that are to be made."""
        inputs = self.inputs.find(coordinates)
        found: list[PlannedElement] = []
        to_make = 0
        files = self._list_files(coordinates) if self.params.verify else None
        for coordinate in coordinates:
            element = self._decide_one(coordinate, inputs[coordinate], files)
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

    def _decide_one(
        self, coordinate: Coordinate, state: InputState, files: _Files | None
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
        has_haloes = state.state == "present"
        fingerprint = self.inputs.fingerprint(coordinate, state) if has_haloes else None
        uri = campaign.catalogue_uri(coordinate)
        known = self.whole.get((coordinate.realization, coordinate.redshift))
        why = _why_made(known, fingerprint, uri, files)
        if why is None:
            reason = _why_reused(has_haloes, uri, files, campaign.folder_uri)
            return PlannedElement(decision=Decision.REUSED, reason=reason, **said)
        if not has_haloes:
            reason = state.reason or "its input is not there"
            return PlannedElement(decision=Decision.MISSING_INPUT, reason=reason, **said)
        return PlannedElement(
            decision=Decision.RUN,
            reason=why,
            inputs=self.inputs.make(coordinate, state),
            outputs={"catalogue": uri},
            resources=override_of(campaign, coordinate),
            **said,
        )

    def find_uncollected(self, catalogues: Sequence[PlannedElement]) -> list[dict[str, Any]]:
        """List catalogues that are there and in no file of statistics, for mocks.collect."""
        collected = read_collected(self.campaign.folder.statistics_uri)
        lost = []
        for element in catalogues:
            at = element.coordinates
            if element.decision is not Decision.REUSED or at is None or at.redshift is None:
                continue
            realization = at.realization or 0
            known = self.whole[realization, at.redshift]
            if (realization, round(at.redshift, DECIMALS), known.fingerprint) not in collected:
                lost.append(
                    {
                        "realization": realization,
                        "redshift": at.redshift,
                        "redshift_index": self.campaign.redshift_index(at.redshift),
                        "fingerprint": known.fingerprint,
                        "uri": known.uri,
                    }
                )
        return lost

    def _list_files(self, coordinates: Sequence[Coordinate]) -> _Files:
        """List the sizes of the catalogues' files, a folder at a time, and copies of the absent."""
        catalogs = self.campaign.folder.catalogs_uri
        sizes: dict[str, int] = {}
        for folder in dict.fromkeys(coordinate.folder for coordinate in coordinates):
            uri = storage.join(catalogs, folder)
            sizes |= {storage.join(uri, entry.name): entry.bytes for entry in storage.walk(uri)}
        return _Files(sizes, self._find_copies(coordinates, sizes))

    def _find_copies(
        self, coordinates: Sequence[Coordinate], sizes: Mapping[str, int]
    ) -> dict[str, Copy]:
        """Find staged and archived copies that are the very files of the record: URI → copy."""
        folder = self.campaign.folder_uri
        absent = {
            uri: known
            for c in coordinates
            if (known := self.whole.get((c.realization, c.redshift))) is not None
            and (uri := self.campaign.catalogue_uri(c)) == known.uri
            and uri not in sizes
        }
        copies = find_copies(require_local(folder)) if absent else {}
        chosen = {
            uri: choose_copy(
                copies.get(name_in_campaign(uri, folder), ()), known.sha256, known.bytes
            )
            for uri, known in absent.items()
        }
        return {uri: copy for uri, copy in chosen.items() if copy is not None}


def _why_made(
    known: Whole | None, fingerprint: str | None, uri: str, files: _Files | None
) -> str | None:
    """Say why a catalogue is made; None where the one that is there is whole and up to date.

    ``fingerprint`` is None where its haloes are not there: it cannot be compared then.
    """
    if known is None:
        return "it is not there"
    if fingerprint is not None and known.fingerprint != fingerprint:
        return "what it is made from has changed"
    if known.uri != uri:
        return f"it lies elsewhere: {known.uri}"
    if files is None or uri in files.copies:
        return None
    if uri not in files.bytes:
        return "its file is gone"
    if files.bytes[uri] != known.bytes:
        return f"its file has {files.bytes[uri]} bytes, and had {known.bytes}"
    return None


def _why_reused(has_haloes: bool, uri: str, files: _Files | None, folder: str) -> str:
    """Say why a catalogue is not made again, and where it lies if not in the campaign's folder."""
    copy = None if files is None else files.copies.get(uri)
    there = "it is there"
    if copy is not None:  # the tree, and not the file: what is alike is told once
        tree = copy.uri.removesuffix(f"/{name_in_campaign(uri, folder)}")
        there = f"it is {copy.place} in {tree}"
    return (
        f"{there}, and up to date" if has_haloes else f"{there}; its haloes are not there any more"
    )
