"""A campaign on a real Slurm whose commands do not stay: left alone, killed, watched, concluded."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from tests.conftest import fresh_database
from tests.integration.slurm.conftest import slurm_cluster
from tests.mock_campaigns import write_campaign
from tests.system.desk import POLL_S, Desk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from minislurm.cluster import SlurmCluster

__all__ = ["slurm_cluster"]

pytest.importorskip("h5py", reason="h5py is not installed: make mocks")

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.thorough]

SITE = """
[clusters.small]
poll_every = "00:00:01"
result_grace = "00:00:02"
submissions_per_s = 50

[pools]
cpu = {{ backend = "slurm", partition = "genoa", slots = 4 }}

[pools.slow]
backend = "slurm"
partition = "genoa"
slots = 4
prelude = ["while test -e '{folder}/slow'; do sleep 0.1; done"]

[placement]
"mocks.inspect" = {{ pool = "cpu", time = "00:10:00" }}
"mocks.populate" = {{ pool = "slow", memory = "1GiB", time = "00:10:00" }}
"mocks.collect" = {{ pool = "cpu", time = "00:10:00" }}
"mocks.qa" = {{ pool = "cpu", time = "00:10:00" }}
"mocks.manifest" = {{ pool = "cpu", time = "00:10:00" }}

[job_types.slow]
pool = "slow"
memory = "1GiB"
time = "00:10:00"
"""


@pytest.fixture
def desk(
    tmp_path: Path, store_url: str, migrated_template: str, slurm_cluster: SlurmCluster
) -> Iterator[Desk]:
    with fresh_database(store_url, migrated_template) as url:
        desk = Desk(tmp_path / "at", url, tmp_path)
        desk.environment |= slurm_cluster.environment
        site = desk.folder / "site.toml"
        site.write_text(SITE.format(folder=desk.folder))
        desk.environment["MUSTER_SITE"] = str(site)
        yield desk


def test_what_no_process_follows_is_watched_waited_for_and_concluded(
    desk: Desk, slurm_cluster: SlurmCluster
) -> None:
    file = str(write_campaign(desk.folder, realizations=3, resources={"job_type": "slow"}))
    submit = ["campaign", "submit", file, "--allow-dirty"]
    ran = desk.muster(*submit, "--realizations", "0", "--no-wait")
    assert ran.code == 0, ran.stderr
    first = desk.newest_run()
    watched = desk.muster("campaign", "monitor", file, "--every", "0.5")
    assert watched.code == 0, watched.stderr
    assert desk.status(first)["run"]["state"] == "succeeded"

    ran = desk.muster(*submit, "--realizations", "1", "--no-wait")
    second = desk.newest_run()
    while slurm_cluster.run("squeue", "-h", "-o", "%j").stdout:
        time.sleep(POLL_S)
    (desk.folder / "slow").touch()
    third = desk.start(*submit, "--realizations", "2", "--here")
    while desk.newest_run() == second:
        time.sleep(POLL_S)
    runs = {r["id"]: r["state"] for r in json.loads(desk.muster("status", "--json").stdout)}
    assert runs[second] == "succeeded", "the next submit concludes it"

    killed = desk.newest_run()
    while "mocks.populate" not in {
        e["step"] for e in desk.status(killed)["elements"] if e["state"] in ("queued", "running")
    }:
        time.sleep(POLL_S)
    third.process.kill()
    third.wait()
    assert f"'muster wait {killed}'" in desk.muster("campaign", "status", file).stdout
    (desk.folder / "slow").unlink()
    waited = desk.muster("wait", killed)
    assert waited.code == 0, waited.stderr
    assert desk.status(killed)["run"]["state"] == "succeeded"
