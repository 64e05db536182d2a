"""What an inspection decides by the record, the folders of input, and the campaign's own copies."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from muster.mocks.campaign.archive import archive_campaign
from muster.mocks.campaign.stage import stage_campaign
from muster.mocks.params import MockParams
from muster.mocks.plan.inspect import inspect_campaign
from muster.model.plan import Decision, Plan
from tests.mock_campaigns import write_campaign, write_haloes

if TYPE_CHECKING:
    from muster.model.plan import PlannedElement

pytest.importorskip("h5py", reason="h5py is not installed: make mocks")

REDSHIFTS = (1.1, 0.5)
PLACES = ((0, 1.1), (0, 0.5), (1, 1.1), (1, 0.5))


class Inspected:
    """A campaign of four catalogues, inspected with what a record says is there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.box = write_haloes(folder / "halos", 2, REDSHIFTS)
        self.file = write_campaign(folder, redshifts=REDSHIFTS, suite="hdf5", box=self.box)

    def inspect(self, whole: list[list[Any]], **chosen: Any) -> dict[Any, PlannedElement]:
        said = MockParams.complete({"config": str(self.file), **chosen})
        params = MockParams.model_validate(said).model_dump(mode="json")
        (self.folder / "whole.json").write_text(json.dumps(whole))
        plan = self.folder / "plan.json"
        inspect_campaign(params=params, whole=str(self.folder / "whole.json"), plan=plan)
        elements = Plan.model_validate_json(plan.read_bytes()).elements
        found = [e for e in elements if e.step == "mocks.populate"]
        places = [e.coordinates for e in found if e.coordinates is not None]
        return {(c.realization, c.redshift): e for c, e in zip(places, found, strict=True)}

    def make(self) -> tuple[list[list[Any]], dict[Any, Path]]:
        """Write a file in the place of each catalogue; return a record of them, and the files."""
        record, files = [], {}
        for (realization, redshift), element in self.inspect([]).items():
            assert element.decision is Decision.RUN
            uri = element.outputs["catalogue"]
            path = files[realization, redshift] = Path(uri.removeprefix("file://"))
            path.parent.mkdir(parents=True, exist_ok=True)
            content = f"{realization} {redshift}".encode()
            path.write_bytes(content)
            sha256 = hashlib.sha256(content).hexdigest()
            fingerprint = element.inputs["fingerprint"]
            record.append([realization, redshift, fingerprint, len(content), uri, sha256])
        return record, files


@pytest.fixture
def campaign(tmp_path: Path) -> Inspected:
    return Inspected(tmp_path)


def test_haloes_that_are_gone_take_no_catalogue_that_is_there(campaign: Inspected) -> None:
    record, files = campaign.make()
    for path in (campaign.folder / "halos").iterdir():
        path.unlink()
    files[0, 0.5].unlink()
    found = campaign.inspect(record[:3], verify=True)
    assert [found[place].decision for place in PLACES] == [
        Decision.REUSED,
        Decision.MISSING_INPUT,
        Decision.REUSED,
        Decision.MISSING_INPUT,
    ]
    assert found[0, 1.1].reason == "it is there; its haloes are not there any more"
    assert "halos_0000_z0.500.hdf5" in found[0, 0.5].reason


@pytest.mark.parametrize("place", ["staged", "archived"])
def test_verify_takes_copies_elsewhere_for_there_where_they_are_those_of_the_record(
    campaign: Inspected, place: str
) -> None:
    record, files = campaign.make()
    root = files[0, 1.1].parents[2]
    bring = {"staged": stage_campaign, "archived": archive_campaign}[place]
    bring(str(root), str(campaign.folder / "permanent"))
    for removed in ((0, 1.1), (0, 0.5)):
        files[removed].unlink()
    record[1][-1] = "0" * 64  # another file than that which was copied
    found = campaign.inspect(record, verify=True)
    reasons = [found[at].reason for at in PLACES]
    tree = f"{campaign.folder}/permanent/1_small"
    assert reasons[0].startswith(f"it is {place} in {tree}")
    assert reasons[1:] == ["its file is gone", *["it is there, and up to date"] * 2]
    assert [found[at].decision for at in PLACES] == [
        Decision.REUSED,
        Decision.RUN,
        Decision.REUSED,
        Decision.REUSED,
    ]
