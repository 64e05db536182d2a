"""Site, campaign and overrides merged, and where each value comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from muster.errors import ConfigError
from muster.mocks.campaign.config import parse_campaign
from muster.mocks.campaign.explain import explain
from muster.mocks.campaign.placement import describe_idle_ranks, override_of, place_campaign
from muster.mocks.campaign.problems import CampaignFileError
from muster.mocks.coordinates import Coordinate
from muster.model.resources import PartialResources, Resources
from muster.model.slurm_target import SlurmTarget
from tests.unit.mocks.campaign.campaign_files import make_campaign
from tests.unit.mocks.campaign.sites import make_site

if TYPE_CHECKING:
    from pathlib import Path

OVERRIDES = """job_type: cpu
  overrides:
    - redshifts: {max: 0.5}
      memory: 80GiB
    - realizations: [1, 2]
      memory: 90GiB
      time: 12:00:00
    - {redshifts: 0.5, realizations: {min: 9}, cpus: 32}"""


def resources(tmp_path: Path, *changes: tuple[str, str]) -> Resources:
    return place_campaign(make_campaign(tmp_path, *changes), make_site(tmp_path)).resources


@pytest.mark.parametrize(
    ("requirement", "memory_gib"),
    [("low", 30), ("normal", 60), ("high", 100)],  # the pool gives 100GiB at most
)
def test_a_requirement_is_a_factor_of_the_job_types_memory_up_to_the_pools_cap(
    tmp_path: Path, requirement: str, memory_gib: int
) -> None:
    asked = ("job_type: cpu", f"job_type: cpu\n  memory_requirement: {requirement}")
    assert resources(tmp_path, asked) == Resources(
        cpus=16, memory_mib=memory_gib * 1024, time_limit_s=10800
    )


def test_without_a_job_type_the_sites_placement_counts(tmp_path: Path) -> None:
    asked = resources(tmp_path, ("resources:\n  job_type: cpu\n", ""))
    assert asked == Resources(memory_mib=4096, time_limit_s=3600)


def test_a_timeout_takes_the_place_of_the_job_types_time(tmp_path: Path) -> None:
    asked = resources(tmp_path, ("batch_size: 4", "timeout_hours: 0.1"))
    assert asked.time_limit_s == 360


def test_an_account_takes_the_place_of_the_pools(tmp_path: Path) -> None:
    campaign = make_campaign(tmp_path, ("job_type: cpu", "job_type: cpu\n  account: 4943"))
    target = place_campaign(campaign, make_site(tmp_path)).target
    assert isinstance(target, SlurmTarget)
    assert target.account == "4943"


def test_overrides_change_the_elements_that_they_select_and_the_later_one_wins(
    tmp_path: Path,
) -> None:
    campaign = make_campaign(tmp_path, ("job_type: cpu", OVERRIDES))
    gib = 1024
    assert override_of(campaign, Coordinate(0, 1.1)) is None
    assert override_of(campaign, Coordinate(0, 0.5)) == PartialResources(memory_mib=80 * gib)
    both = PartialResources(memory_mib=90 * gib, time_limit_s=43200)
    assert override_of(campaign, Coordinate(1, 1.1)) == both
    assert override_of(campaign, Coordinate(2, 0.5)) == both
    last = PartialResources(memory_mib=80 * gib, cpus=32)
    assert override_of(campaign, Coordinate(9, 0.5)) == last


def test_every_value_has_its_source(tmp_path: Path) -> None:
    asked = OVERRIDES + "\n  memory_requirement: low"
    campaign = make_campaign(
        tmp_path,
        ("job_type: cpu", asked),
        ("base_path", "compression: gzip\n  base_path"),
    )
    site = make_site(tmp_path)
    found = {row.key: (row.value, row.source) for row in explain(campaign, site)}
    file = str(tmp_path / "campaign.yaml")
    assert found["execution.batch_size"] == (4, f"{file} line 11")
    assert found["execution.max_retries"] == (3, "default")
    assert found["science.realizations.count"] == (10, f"{file} line 7")
    assert found["science.box.box_size_mpch"] == (50.0, f"{file} line 6")
    assert found["science.box.cell_mpch"] == (4.0, "default")
    assert found["outputs.compression.filter"] == ("gzip", f"{file} line 23")
    assert found["outputs.naming_scheme"] == ("mock_z{redshift:.3f}", "default")
    assert found["resources.overrides[0].redshifts.max"] == (0.5, f"{file} line 15")
    table = "centre.toml [job_types.cpu]"
    assert found["mocks.populate.pool"] == ("cpu", table)
    assert found["mocks.populate.gpus"] == (0, "default")
    assert found["mocks.populate.memory"] == (
        "30GiB",
        f"{table}, 0.5 × for memory_requirement low ({file} line 21)",
    )
    assert found["mocks.populate.account"] == ("m1", "centre.toml [pools.cpu]")
    assert found["mocks.populate of 10 elements, as r0000_z0.500: memory"] == (
        "80GiB",
        f"override 0, {file} line 15",
    )
    assert found["mocks.populate of 4 elements, as r0001_z1.100: time"] == (
        "12:00:00",
        f"override 1, {file} line 17",
    )
    # Every key of the configuration is there, whether it is stated or not.
    for block in ("campaign", "science", "execution", "resources", "outputs"):
        for key in campaign.config.to_data()[block]:
            assert any(name.startswith(f"{block}.{key}") for name in found), key


def test_a_campaign_given_as_data_is_explained_too(tmp_path: Path) -> None:
    campaign = parse_campaign(make_campaign(tmp_path).config.to_data(), "params of the run")
    found = {row.key: row.source for row in explain(campaign, make_site(tmp_path))}
    assert found["execution.batch_size"] == "params of the run"


@pytest.mark.parametrize(
    ("new", "says"),
    [
        ("job_type: gpu", "line 13: resources.job_type: site centre has no such job type; "
         "got: 'gpu'; allowed: cpu, local"),
        ("job_type: local\n  account: m1", "line 14: resources.account: only a pool on Slurm "
         "charges an account; here is a local pool; got: 'm1'"),
        ("job_type: local\n  memory_requirement: high", "line 14: resources.memory_requirement: "
         "the job type asks for no memory that could be high"),
        ("job_type: cpu\n  overrides:\n  - {redshifts: [0.5], memory: 101GiB}", "line 15: "
         "resources.overrides[0].memory: 103424 MiB is more than the pool cpu gives; allowed: "
         "at most 102400 MiB"),
        ("job_type: cpu\n  overrides:\n  - {redshifts: [0.5], time: 2d}", "line 15: "
         "resources.overrides[0].time: 172800 s is more than the pool cpu gives"),
    ],
)  # fmt: skip
def test_what_a_site_cannot_give_is_refused_by_key_and_line(
    tmp_path: Path, new: str, says: str
) -> None:
    campaign = make_campaign(tmp_path, ("job_type: cpu", new))
    with pytest.raises(CampaignFileError) as caught:
        place_campaign(campaign, make_site(tmp_path))
    assert says in str(caught.value)


def test_all_that_a_site_cannot_give_is_told_at_once(tmp_path: Path) -> None:
    campaign = make_campaign(
        tmp_path,
        ("job_type: cpu", "job_type: cpu\n  overrides:\n  - {redshifts: [0.5], memory: 1TiB}"),
        ("batch_size: 4", "timeout_hours: 25"),
    )
    with pytest.raises(CampaignFileError) as caught:
        explain(campaign, make_site(tmp_path))
    keys = [problem.key for problem in caught.value.problems]
    assert keys == ["execution.timeout_hours", "resources.overrides[0].memory"]
    assert isinstance(caught.value, ConfigError)


@pytest.mark.parametrize(
    ("slabs", "said"),
    [
        (1, "starts 4 ranks for a catalogue, and science.slabs is 1: 1 rank works and 3 idle"),
        (3, "science.slabs is 3: 3 ranks work and 1 idle; make slabs a multiple of 4"),
        (6, "science.slabs is 6: ranks have unequal work"),
        (8, None),
    ],
)
def test_ranks_that_slabs_give_no_work_are_told(
    tmp_path: Path, slabs: int, said: str | None
) -> None:
    site = make_site(tmp_path, ('max_time = "1-', 'ntasks = 4\nmax_time = "1-'))
    changed = ("galaxy_model: hod", f"galaxy_model: hod\n  slabs: {slabs}")
    campaign = make_campaign(tmp_path, changed)
    found = describe_idle_ranks(campaign, place_campaign(campaign, site))
    assert found is None if said is None else said in str(found)
