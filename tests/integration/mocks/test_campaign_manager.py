"""The five methods of a notebook, as far as they compute nothing: their reports and refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from muster.campaign_manager import CampaignManager
from muster.errors import ConfigError, InvalidInput, MissingInput
from muster.mocks.campaign.config import read_campaign
from muster.mocks.campaign.register import register_campaign
from muster.mocks.params import MockParams
from muster.store import runs
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
    assert (report.valid, report.campaign) == (True, "1_small")
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
