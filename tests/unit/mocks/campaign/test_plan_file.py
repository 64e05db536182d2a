"""The file of the original plan is taken as it stands, and means what it meant."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from muster.errors import ConfigError
from muster.mocks.campaign.config import parse_campaign, read_campaign
from muster.mocks.campaign.placement import make_placement, place_campaign
from muster.mocks.campaign.selection import select
from muster.mocks.coordinates import Coordinate
from muster.model.retry_policy import RetryPolicy
from muster.model.slurm_target import SlurmTarget
from muster.site import read_site
from tests.unit.mocks.campaign.campaign_files import PLAN, make_campaign, write_campaign

if TYPE_CHECKING:
    from pathlib import Path


def test_the_plans_file_is_taken_as_it_stands(tmp_path: Path) -> None:
    campaign = make_campaign(tmp_path, text=PLAN)
    assert campaign.label == "1.0_covariance_mocks"
    assert len(select(campaign)) == 40_000
    assert campaign.outputs.catalogue_compression == {
        "kind": "gzip",
        "level": 4,
        "shuffle": True,
        "chunk_rows": 131_072,
    }
    assert campaign.catalogue_uri(Coordinate(7, 1.1)) == (
        "/pscratch/campaigns/1.0_covariance_mocks/catalogs/r0007/mock_c000_ph3007_1.1.hdf5"
    )


def test_its_keys_reach_pool_account_memory_time_retries_and_arrays(tmp_path: Path) -> None:
    campaign = make_campaign(tmp_path, text=PLAN)
    placed = place_campaign(campaign, read_site("perlmutter"))
    assert placed.pool_name == "gpu"
    assert isinstance(placed.target, SlurmTarget)
    assert placed.target.account == "m4943"
    assert placed.resources.model_dump() == {
        "cpus": 32,
        "memory_mib": 120 * 1024,  # twice the 60GiB of gpu_intensive
        "time_limit_s": 7200,
        "gpus": 1,
    }
    planned = make_placement(campaign)
    assert planned.retries == RetryPolicy(max_retries=3, backoff="exponential")
    assert planned.array_size == 100


@pytest.mark.parametrize(
    ("written", "version"),
    [('"1.0"', "1.0"), ("1.0", "1.0"), ("1.10", "1.10"), ("2", "2"), ("v1.0.0", "v1.0.0")],
)
def test_a_version_is_a_text_however_it_is_written(
    tmp_path: Path, written: str, version: str
) -> None:
    campaign = make_campaign(tmp_path, ('version: "1.0"', f"version: {written}"), text=PLAN)
    assert campaign.version == version
    assert campaign.label == f"{version}_covariance_mocks"


def test_words_that_yaml_takes_for_something_else_stay_words(tmp_path: Path) -> None:
    for written in ("no", "on", "1e3", "12:30:00", "2026-11-30", "010"):
        campaign = make_campaign(
            tmp_path, ('"2,000 realizations at 20 redshifts"', written), text=PLAN
        )
        assert campaign.config.campaign.description == written


def test_a_campaign_file_and_its_data_are_the_same_campaign(tmp_path: Path) -> None:
    campaign = make_campaign(tmp_path, text=PLAN)
    again = parse_campaign(campaign.config.to_data())
    assert again.config == campaign.config
    assert again.config.sha256 == campaign.config.sha256
    other = make_campaign(tmp_path, ("realizations: 2000", "realizations: 1999"), text=PLAN)
    assert other.config.sha256 != campaign.config.sha256


def test_a_model_of_another_version_is_refused_where_it_says_two(tmp_path: Path) -> None:
    path = write_campaign(
        tmp_path, ("  galaxy_model", "  parameters: {version: '2'}\n  galaxy_model"), text=PLAN
    )
    with pytest.raises(ConfigError, match=r"line 10: science\.parameters: .*two versions"):
        read_campaign(path)


def test_reading_a_campaign_imports_no_compute_library() -> None:
    import subprocess

    code = (
        "import sys, muster.mocks.campaign.config as c, muster.mocks.campaign.explain\n"
        "from pathlib import Path\n"
        "c.read_campaign(Path('config/examples/production_campaign.yaml')).file_names\n"
        "print(*sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    unwanted = {"numpy", "scipy", "h5py", "jax", "colossus", "abacusnbody", "matplotlib", "airflow"}
    assert not unwanted & set(ended.stdout.split())
