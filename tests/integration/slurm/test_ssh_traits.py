"""A person maps traits on a cluster that shares no disk with them, and with the same command."""

from __future__ import annotations

import shlex
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.integration.backends.sshd import Sshd, sshd
from tests.integration.slurm.login import PYTHONPATH, REPOSITORY, open_login_node
from tests.system.conftest import desk, region
from tests.system.desk import Desk, assert_says_once

if TYPE_CHECKING:
    from pathlib import Path

    from minislurm.cluster import SlurmCluster

__all__ = ["desk", "region", "sshd"]

PATIENCE_S = 400.0

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.slow,
    pytest.mark.thorough,
    pytest.mark.timeout(900),
]

SITE = """
[pools]
far = {{ backend = "slurm", partition = "genoa", slots = 8, cluster = "far" }}
[clusters.far]
transport = "ssh"
host = "{server.host}"
port = {server.port}
user = "{server.user}"
key = "{server.key}"
known_hosts = "{server.known_hosts}"
work = "{work}"
poll_every = "00:00:01"
result_grace = "00:00:05"
submissions_per_s = 20
environment = {{ PYTHONPATH = "{pythonpath}" }}
[placement]
"traits.inspect" = {{ pool = "far", memory = "2GiB" }}
"traits.predict" = {{ pool = "far", memory = "2GiB" }}
"traits.cov" = {{ pool = "far", memory = "2GiB" }}
"traits.aoa" = {{ pool = "far", memory = "2GiB" }}
"traits.build" = {{ pool = "far", memory = "2GiB" }}
"""


def hide(folder: Path) -> tuple[str, ...]:
    """Return what a command is put behind so that it does not see a folder that others see."""
    covered = f'mount -t tmpfs none {shlex.quote(str(folder))} && exec "$@"'
    if subprocess.run(["unshare", "-m", "sh", "-c", covered, "-", "true"], check=False).returncode:
        pytest.skip("may not mount anything here, so that there is no disk of the cluster's own")
    return ("unshare", "-m", "sh", "-c", covered, "-")


def test_traits_are_mapped_on_a_disk_that_is_not_seen_from_here(
    desk: Desk, sshd: Sshd, slurm_cluster: SlurmCluster, tmp_path: Path
) -> None:
    open_login_node(sshd, slurm_cluster)
    disk = tmp_path / "disk"
    disk.mkdir()
    before = hide(disk)
    for name in ("stack.tif", "models"):  # only the cluster has them
        subprocess.run(["cp", "-r", desk.region / name, disk / name], check=True)
    site = tmp_path / "far.toml"
    work = disk / "work"
    site.write_text(SITE.format(server=sshd, work=work, pythonpath=PYTHONPATH))
    desk.environment["PYTHONPATH"] = str(REPOSITORY)
    desk.write_params(
        ["leaf_area"],
        predictors=str(disk / "stack.tif"),
        models=str(disk / "models"),
        output=str(disk / "maps"),
    )
    examined = desk.muster("doctor", str(site), before=before)
    assert "pool far: a job on " in examined.stdout, examined.stdout + examined.stderr
    ran = desk.start_infer("--site", str(site), before=before).wait(PATIENCE_S)
    assert ran.code == 0, ran.stderr
    products = sorted(path.name for path in (disk / "maps").iterdir() if path.is_file())
    assert products == ["leaf_area.json", "leaf_area.png", "leaf_area.tif"]
    assert f"\n  {disk}/maps/leaf_area.tif\n" in ran.stdout
    assert ran.stderr.count(f"the products are on far, in {disk}/maps, which is not seen from") == 1
    assert ran.complaints == []
    report = desk.report(ran.run_id)
    assert report.is_relative_to(desk.home / "work")
    assert f"\nreport {report}\n" in ran.stdout
    text = report.read_text(encoding="utf-8")
    assert f"the products are on far, in {disk}/maps, which is not seen from here" in text
    logs = desk.muster("logs", ran.run_id, "leaf_area")
    assert logs.stdout.count("attempt 1: succeeded") == 4
    again = desk.start_infer("--site", str(site), "--json", before=before).wait(PATIENCE_S)
    assert again.code == 0, again.stderr
    assert set(again.json()["traits"][0]["steps"].values()) == {"reused"}


@pytest.mark.thorough
def test_input_that_the_cluster_does_not_have_is_told(
    desk: Desk, sshd: Sshd, slurm_cluster: SlurmCluster, tmp_path: Path
) -> None:
    open_login_node(sshd, slurm_cluster)
    site = tmp_path / "far.toml"
    site.write_text(SITE.format(server=sshd, work=tmp_path / "work", pythonpath=PYTHONPATH))
    desk.environment["PYTHONPATH"] = str(REPOSITORY)
    desk.write_params(["leaf_area"], predictors=str(tmp_path / "nowhere.tif"))
    ran = desk.start_infer("--site", str(site)).wait(PATIENCE_S)
    assert ran.code != 0
    assert_says_once(ran, "nowhere.tif")
