"""The five methods of a notebook, as far as they compute nothing: their reports and refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from muster.campaign_manager import CampaignManager
from muster.errors import ConfigError, InvalidInput, MissingInput
from muster.mocks.campaign.config import read_campaign
from muster.mocks.campaign.register import register_campaign
from muster.mocks.campaign.selection import select
from muster.mocks.params import MockParams
from muster.mocks.plan.catalogue_inputs import plan_one
from muster.model.outcome import Outcome
from muster.model.resources import Resources
from muster.store import batches, claims, runs
from muster.store.records import AttemptEnd
from tests.batches import make_batch, store_batch
from tests.mock_campaigns import write_campaign
from tests.stored_campaign import make_site

if TYPE_CHECKING:
    from pathlib import Path

    from muster.store.database import Database


@pytest.fixture
def manager(db: Database, tmp_path: Path) -> CampaignManager:
    return CampaignManager(db, make_site(tmp_path), airflow=None)


def test_whatever_is_wrong_with_a_file_is_in_the_report(
    manager: CampaignManager, tmp_path: Path
) -> None:
    report = manager.validate_configuration(write_campaign(tmp_path))
    assert (report.valid, report.campaign, report.notes) == (True, "1_small", ())
    report = manager.validate_configuration(write_campaign(tmp_path, min_mass_msunh=1e9))
    assert report.valid
    assert report.notes == (
        "science.min_mass_msunh: 1e+09 cuts nothing: the box has no halo below its "
        "lowest_mass_msunh, 1e+12 Msun/h",
    )
    for named in (tmp_path / "absent.yaml", tmp_path):
        report = manager.validate_configuration(named)
        assert (report.valid, report.campaign) == (False, None)
        (problem,) = report.problems
        assert str(named) in problem
    report = manager.validate_configuration(write_campaign(tmp_path, pack=0))
    assert "execution.pack" in report.problems[0]


def test_what_there_is_not_is_refused_by_the_other_methods(
    manager: CampaignManager, tmp_path: Path
) -> None:
    file = write_campaign(tmp_path)
    assert manager.estimate_resources(file).size.elements == 4
    assert manager.monitor_progress(str(file)).counts == {"pending": 4}
    with pytest.raises(MissingInput, match="absent"):
        manager.estimate_resources("absent")
    with pytest.raises(MissingInput, match=r"absent\.yaml"):
        manager.submit_campaign(tmp_path / "absent.yaml")
    with pytest.raises(MissingInput, match="does not know the campaign"):
        manager.retry_failed_jobs(str(file))
    with pytest.raises(ConfigError, match="frist"):
        manager.submit_campaign(file, frist=1)
    assert not (tmp_path / "campaigns").exists()


def test_hours_are_told_by_attempts_of_the_same_model_and_box(
    db: Database, manager: CampaignManager, tmp_path: Path
) -> None:
    pytest.importorskip("h5py", reason="h5py is not installed: make mocks")
    file = write_campaign(tmp_path, realizations=60, timeout_hours=1)
    campaign = read_campaign(file)
    inputs = plan_one(campaign, select(campaign)[0])
    batch = make_batch(tmp_path, [inputs], step="mocks.populate", resources=Resources(cpus=4))
    store_batch(db, batch)
    claim = claims.take_claim(db, batch.id)
    (element,) = batches.read_batch(db, claim).elements
    wave, _ = batches.intend_submission(db, claim, {element.id: (1, batch.resources, "/log")})
    batches.record_submitted(db, claim, wave, "ref")
    (attempt,) = batches.read_batch(db, claim).elements[0].attempts
    batches.record_running(db, claim, {attempt.id: "node"})
    batches.record_ends(db, claim, [AttemptEnd(attempt.id, Outcome.SUCCEEDED, seconds=30.0)])

    assert "about 4 CPU-hours" in manager.estimate_resources(file).cost
    for changed in (
        {"model": "diffsky"},
        {"box": {"box_size_mpch": 50, "lowest_mass_msunh": 1e12}},
        {"min_mass_msunh": 2e12},
    ):
        other = write_campaign(tmp_path, version="2", **changed)
        cost = manager.estimate_resources(other).cost
        assert "no attempts of mocks.populate yet with model" in cost


def test_a_retry_without_failures_starts_no_run_and_a_submit_none_beside_another(
    db: Database, manager: CampaignManager, tmp_path: Path
) -> None:
    file = write_campaign(tmp_path)
    campaign = read_campaign(file)
    record = register_campaign(db, campaign, allow_dirty=True)
    report = manager.retry_failed_jobs("Small")
    assert (report.elements, report.exhausted, report.run) == ((), (), None)
    params = MockParams.model_validate({"definition": campaign.config.to_data()})
    runs.open_run(
        db,
        "mock_campaign.manual__1",
        workflow="mock_campaign",
        params=params.model_dump(mode="json"),
        work_uri=str(tmp_path),
        campaign_id=record.id,
    )
    with pytest.raises(InvalidInput, match="manual__1: 4 of 4"):
        manager.submit_campaign(file)
