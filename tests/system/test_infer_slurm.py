"""Traits mapped on a real Slurm from the command line: left alone, waited for, tried again."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.integration.slurm.conftest import slurm_cluster
from tests.system.conftest import TRAITS
from tests.system.desk import POLL_S, say_states

if TYPE_CHECKING:
    from pathlib import Path

    from minislurm.cluster import SlurmCluster
    from tests.system.desk import Desk

__all__ = ["slurm_cluster"]

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

# A flag lets the jobs of the pool "fragile" fail, another lets them wait, before they begin.
SITE = """
[clusters.small]
poll_every = "00:00:01"
result_grace = "00:00:02"
submissions_per_s = 50

[pools]
cpu = {{ backend = "slurm", partition = "genoa", slots = 4 }}
gpu = {{ backend = "slurm", partition = "l40s", gres = "gpu:l40s", slots = 4 }}

[pools.fragile]
backend = "slurm"
partition = "genoa"
slots = 4
prelude = ["test ! -e '{folder}/broken' || exit 70", "while test -e '{folder}/slow'; do sleep 0.1; done"]

[placement]
"traits.inspect" = {{ pool = "cpu" }}
"traits.predict" = {{ pool = "fragile", cpus = 2, memory = "2GiB", time = "00:10:00" }}
"traits.cov"     = {{ pool = "cpu", time = "00:10:00" }}
"traits.aoa"     = {{ pool = "gpu", gpus = 2, time = "00:10:00" }}
"traits.build"   = {{ pool = "cpu", time = "00:10:00" }}
"""  # noqa: E501


@pytest.fixture
def clustered(desk: Desk, slurm_cluster: SlurmCluster) -> Desk:
    """A desk from which jobs can be submitted."""
    desk.environment |= slurm_cluster.environment | {"PATH": slurm_cluster.environment["PATH"]}
    desk.environment["MUSTER_SITE"] = str(desk.folder / "site.toml")
    (desk.folder / "site.toml").write_text(SITE.format(folder=desk.folder))
    desk.write_params(["leaf_area"])
    return desk


def queue(cluster: SlurmCluster) -> str:
    return cluster.run("squeue", "-h", "-t", "pending,running", "-o", "%j").stdout


def test_a_run_that_is_left_alone_survives_a_failure_and_is_tried_again(
    clustered: Desk, slurm_cluster: SlurmCluster, mapped: Desk
) -> None:
    """build waits for predict alone; when predict fails it is given up, and made good later."""
    (clustered.folder / "broken").touch()
    ran = clustered.invoke_infer("--backend", "slurm", "--no-wait", "--json")
    assert ran.code == 0, ran.stderr
    said = ran.json()
    assert [job["step"] for job in said["submitted"]] == [
        "traits.predict", "traits.cov", "traits.aoa", "traits.build",
    ]  # fmt: skip
    assert all(job["jobs"][0].isdecimal() for job in said["submitted"])
    run = said["run"]
    until_queue_is_empty(slurm_cluster)
    states = clustered.states(run)["leaf_area"]
    deadline = time.monotonic() + 120  # a result may be late: a while is waited for it
    while "waiting" in states.values() and time.monotonic() < deadline:
        time.sleep(POLL_S)
        states = clustered.states(run)["leaf_area"]
    assert states["predict"] == "software_error"
    assert states["build"] == "missing_input"
    assert (states["cov"], states["aoa"]) == ("succeeded", "succeeded")
    (clustered.folder / "broken").unlink()
    waited = clustered.invoke("wait", run)
    assert waited.code == 0, waited.stderr
    assert "1 of 1 succeeded" in waited.stdout
    attempts = {e["step"]: e["attempts"] for e in clustered.status(run)["elements"]}
    assert (attempts["traits.cov"], attempts["traits.aoa"]) == (1, 1), "what was well stays"
    assert (attempts["traits.predict"], attempts["traits.build"]) == (2, 2)
    product = clustered.maps / "leaf_area.tif"
    assert product.read_bytes() == (mapped.maps / "leaf_area.tif").read_bytes()


def test_a_cancelled_run_is_gone_from_the_queue_and_may_be_tried_again(
    clustered: Desk, slurm_cluster: SlurmCluster
) -> None:
    (clustered.folder / "slow").touch()
    run = clustered.invoke_infer("--predict-only", "--no-wait", "--json").json()["run"]
    assert "traits.predict" in queue(slurm_cluster)
    again = clustered.invoke("retry", run)
    assert again.code == 65
    assert "the run is not over" in again.stderr
    cancelled = clustered.invoke("cancel", run)
    assert cancelled.code == 0, cancelled.stderr
    assert queue(slurm_cluster) == ""
    assert clustered.status(run)["run"]["state"] == "cancelled"
    assert clustered.states(run)["leaf_area"]["predict"] == "cancelled"
    (clustered.folder / "slow").unlink()
    retried = clustered.invoke("retry", run)
    assert retried.code == 0, retried.stderr
    states = say_states("succeeded", bands="not_asked", predict="succeeded")
    assert clustered.states(run)["leaf_area"] == states


@pytest.mark.thorough
def test_a_hostile_trait_is_mapped_while_somebody_waits(clustered: Desk) -> None:
    clustered.write_params(TRAITS)
    ran = clustered.invoke_infer("--predict-only")
    assert ran.code == 0, ran.stderr
    assert set(clustered.states(clustered.newest_run())) == {"inputs", *TRAITS}
    assert len(list(clustered.maps.glob("*.tif"))) == len(TRAITS)
    assert not list(clustered.folder.rglob("x")), "no part of a name is a command"


def test_a_dry_run_prints_scripts_and_cost_and_submits_nothing(
    clustered: Desk, slurm_cluster: SlurmCluster, tmp_path: Path
) -> None:
    ran = clustered.invoke_infer("--dry-run")
    assert ran.code == 0, ran.stderr
    scripts = ran.stdout.split("\n# == ")[1:]
    assert [script.split()[1].rstrip(":") for script in scripts] == [
        "traits.predict", "traits.cov", "traits.aoa", "traits.build",
    ]  # fmt: skip
    assert "#SBATCH --gres=gpu:l40s:2" in scripts[2]
    for script in scripts:
        path = tmp_path / "job.sh"
        path.write_text(script.partition("\n")[2])
        subprocess.run(["bash", "-n", path], check=True)
    assert "CPU-hours" in ran.stdout
    assert queue(slurm_cluster) == ""
    assert clustered.invoke("status").stdout == "no runs yet\n"


def test_what_cannot_be_is_said_in_a_line(clustered: Desk) -> None:
    elsewhere = clustered.invoke_infer("--backend", "local")
    assert elsewhere.code == 65
    assert "the site computes elsewhere" in elsewhere.stderr
    here = clustered.invoke_infer("--site", "laptop", "--no-wait")
    assert here.code == 65
    assert "cannot be left alone" in here.stderr
    unknown = clustered.invoke("wait", "nobody")
    assert unknown.code == 66
    assert "no such run" in unknown.stderr


def until_queue_is_empty(cluster: SlurmCluster, patience_s: float = 120) -> None:
    deadline = time.monotonic() + patience_s
    while queue(cluster):
        assert time.monotonic() < deadline, queue(cluster)
        time.sleep(0.3)
