"""Working copies go after their time, and only what lies staged as it lies here."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from muster.errors import MissingInput
from muster.mocks.campaign.archive import archive_campaign
from muster.mocks.campaign.ledger import read_completed
from muster.mocks.campaign.outputs import CampaignRetention
from muster.mocks.campaign.retention import clean_campaign
from muster.mocks.campaign.stage import stage_campaign
from tests.unit.mocks.campaign.staged_campaign import (
    check_all_are_listed,
    checksums,
    make_campaign,
)

if TYPE_CHECKING:
    from pathlib import Path

KEEP = CampaignRetention(catalogs="30d", logs="7d", qa="never")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = make_campaign(tmp_path / "campaigns")
    assert stage_campaign(str(folder), str(tmp_path / "permanent")).complete
    return folder


def later(folder: Path, days: float) -> datetime:
    staging = read_completed(folder)
    assert staging is not None
    return staging.at + timedelta(days=days)


@pytest.mark.parametrize(
    ("days", "catalogs", "logs"), [(6.9, 0, 0), (7, 0, 2), (29.9, 0, 2), (30, 12, 2)]
)
def test_each_part_goes_after_its_time(folder: Path, days: float, catalogs: int, logs: int) -> None:
    before = checksums(folder)
    now = later(folder, days)
    planned = clean_campaign(str(folder), KEEP, now=now, dry_run=True)
    assert checksums(folder) == before
    done = clean_campaign(str(folder), KEEP, now=now)
    assert done.removed == planned.removed == {"catalogs": catalogs, "logs": logs, "qa": 0}
    left = checksums(folder)
    assert len(left) == len(before) - catalogs - logs
    assert {name for name in before if name.startswith(("metadata/", "qa/"))} <= set(left)
    assert clean_campaign(str(folder), KEEP, now=now).removed == dict.fromkeys(done.removed, 0)
    if catalogs:
        staged = folder.parents[1] / "permanent" / "small_v1"
        check_all_are_listed(folder, "staged", str(staged / "catalogs/r0000/mock_z0.800.hdf5"))
        archived = archive_campaign(str(folder), str(folder.parents[1] / "tape"))
        assert (archived.problems, archived.elsewhere) == ((), 12)
    assert stage_campaign(str(folder), str(folder.parents[1] / "permanent")).complete


def test_what_changed_since_or_is_not_there_stays(folder: Path, tmp_path: Path) -> None:
    changed, lost, spoilt = sorted((folder / "catalogs").rglob("*.hdf5"))[:3]
    changed.write_bytes(b"other content, of another size than any")
    top = tmp_path / "permanent" / "small_v1"
    (top / lost.relative_to(folder)).unlink()
    (top / spoilt.relative_to(folder)).write_bytes(b"")
    done = clean_campaign(str(folder), KEEP, now=later(folder, 99))
    assert done.removed["catalogs"] == 9
    assert {changed, lost, spoilt} == set((folder / "catalogs").rglob("*.hdf5"))
    assert any("3 files are not staged as they are here" in note for note in done.notes)


def test_what_was_never_staged_or_is_gone_keeps_everything(folder: Path, tmp_path: Path) -> None:
    now = datetime.now(UTC) + timedelta(days=999)
    shutil.rmtree(tmp_path / "permanent")
    with pytest.raises(MissingInput, match="the staged campaign is not there"):
        clean_campaign(str(folder), KEEP, now=now)
    shutil.rmtree(folder / ".staging")
    with pytest.raises(MissingInput, match="never completely staged"):
        clean_campaign(str(folder), KEEP, now=now)
    assert len(checksums(folder)) == 21
