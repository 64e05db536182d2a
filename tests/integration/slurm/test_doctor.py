"""``muster doctor`` on a real cluster: what is good, what is bad, and that nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from muster.cli import main
from muster.doctor.site import examine_site
from muster.site import read_site
from muster.store.database import URL_VARIABLE

if TYPE_CHECKING:
    from minislurm.cluster import SlurmCluster
    from muster.store.database import Database
    from tests.integration.slurm.conftest import MakeCluster

pytestmark = pytest.mark.slurm

REPOSITORY = Path(__file__).resolve().parents[3]


class Desk:
    """A person with a site file, at a cluster."""

    def __init__(
        self,
        cluster: SlurmCluster,
        db: Database,
        folder: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self.cluster = cluster
        self.db = db
        self.work = folder / "work"
        self.site = folder / "mine.toml"
        self._capsys = capsys
        for name in ("SLURM_CONF", "PATH"):
            monkeypatch.setenv(name, cluster.environment[name])
        monkeypatch.setenv(URL_VARIABLE, db.url)

    def write(self, pools: dict[str, str], placement: str = "", cluster: str = "") -> None:
        """Write a site file: name of a pool → what it says."""
        lines = [f'{name} = {{ backend = "slurm", slots = 2, {w} }}' for name, w in pools.items()]
        self.site.write_text(
            f'work = "{self.work}"\n[pools]\n' + "\n".join(lines) + "\n[clusters.mini]\n"
            f'environment = {{ PYTHONPATH = "{REPOSITORY}" }}\n{cluster}\n[placement]\n{placement}'
        )

    def doctor(self, *options: str) -> tuple[int, dict[str, list[dict[str, Any]]]]:
        """Run the command; its exit code, and its checks by name."""
        code = main(["doctor", str(self.site), "--json", *options])
        return code, self.by_name(self._capsys.readouterr().out)

    @staticmethod
    def by_name(document: str) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for check in json.loads(document)["checks"]:
            found.setdefault(check["name"], []).append(check)
            assert "\n" not in check["finding"]
        return found

    def probes(self) -> list[str]:
        """List the doctor's jobs that wait or run."""
        names = self.cluster.run("squeue", "-h", "-o", "%j").stdout.split()
        return [name for name in names if name.startswith("doctor-")]


@pytest.fixture
def make_desk(
    db: Database,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    return lambda cluster: Desk(cluster, db, tmp_path, capsys, monkeypatch)


@pytest.fixture
def desk(slurm_cluster: SlurmCluster, make_desk) -> Desk:
    return make_desk(slurm_cluster)


def bad_of(checks: list[dict[str, Any]]) -> list[str]:
    return [check["finding"] for check in checks if not check["good"]]


def test_a_good_site(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.write(
        {"cpu": 'partition = "genoa"', "gpu": 'partition = "l40s", gres = "gpu:l40s"'},
        '"traits.cov" = { pool = "cpu", cpus = 8, memory = "4GiB", time = "02:00:00" }\n'
        '"traits.aoa" = { pool = "gpu", cpus = 8, memory = "4GiB", gpus = 2 }\n',
    )
    code = main(["doctor", str(desk.site)])
    text = capsys.readouterr().out
    assert code == 0, text
    lines = text.splitlines()
    expected = (
        "ok   store: at version",
        "ok   work directory: ",
        "ok   cluster mini: Slurm 22.05.8, cluster muster",
        "ok   cluster mini: the clocks of this machine, the store and the controller agree",
        "ok   cluster mini: how jobs end is told by the queue (for 600 s, MinJobAge), the log of",
        "ok   cluster mini: arrays of 50,001 tasks (MaxArraySize), 200,000 jobs in all",
        "ok   cluster mini: Muster looks at the queue every 30 s",
        "ok   pool cpu: partition genoa is UP, 2 of 2 nodes take jobs: 48 CPUs, 190000 MiB;",
        "ok   pool cpu: Slurm would take jobs of traits.cov (8 CPUs, 4096 MiB, 02:00:00)",
        "ok   pool cpu: a job on cpu",
        "ok   pool gpu: partition l40s is UP, 2 of 2 nodes take jobs: 32 CPUs, 256000 MiB,",
        "ok   pool gpu: Slurm would take jobs of traits.aoa (8 CPUs, 2 GPUs, 4096 MiB)",
        "ok   pool gpu: a job on gpu",
        "warn pool gpu: the job was given a GPU (CUDA_VISIBLE_DEVICES=",
    )
    assert [line[: len(start)] for line, start in zip(lines, expected, strict=True)] == [*expected]
    assert desk.probes() == []
    assert {path.name for path in desk.work.iterdir()} == {"doctor", "pools"}
    assert len([*(desk.work / "doctor").iterdir()]) == 2


def test_pools_that_the_cluster_does_not_have(desk: Desk) -> None:
    """None of them gets as far as a job."""
    desk.write(
        {
            "nowhere": 'partition = "nope"',
            "a100": 'partition = "l40s", gres = "gpu:a100"',
            "odd": 'partition = "genoa", constraint = "zen9"',
        }
    )
    code, checks = desk.doctor()
    assert code == 1
    (nowhere,) = bad_of(checks["pool nowhere"])
    assert nowhere.startswith("no such partition; got: nope; expected: genoa, l40s; do: ")
    (absent,) = bad_of(checks["pool a100"])
    assert "Slurm would refuse a small job" in absent
    assert "expected: a gres that the nodes have: gpu:l40s:4; do: correct 'gres'" in absent
    (odd,) = bad_of(checks["pool odd"])
    assert "Invalid feature specification" in odd
    assert "constraint = zen9" in odd
    assert not (desk.work / "doctor").exists()


def test_placements_that_ask_for_more_than_there_is(desk: Desk) -> None:
    desk.write(
        {"gpu": 'partition = "l40s", gres = "gpu:l40s", max_time = "3-00:00:00"'},
        '"traits.predict" = { pool = "gpu", cpus = 33 }\n'
        '"traits.cov" = { pool = "gpu", time = "1-00:00:01" }\n'
        '"traits.aoa" = { pool = "gpu", gpus = 5, time = "01:00:00" }\n'
        '"traits.build" = { pool = "gpu", memory = "300GiB", time = "01:00:00" }\n',
    )
    code, checks = desk.doctor()
    assert code == 1
    found = checks["pool gpu"]
    cpus, time_, gpus, memory = bad_of(found)
    assert "traits.predict" in cpus
    assert "at most 32 CPUs" in cpus
    assert "traits.cov would wait for ever" in time_
    assert "asks for 1-00:00:01; expected: 1-00:00:00 at most" in time_
    assert "traits.aoa" in gpus
    assert "at most 4 GPUs" in gpus
    assert "traits.build" in memory
    assert "at most 256000 MiB" in memory
    warned = [check["finding"] for check in found if check["warning"]]
    assert 'max_time = "1-00:00:00"' in warned[0]
    assert any("a job on gpu" in check["finding"] for check in found)  # what fits is tried


def test_environments_that_do_not_start(desk: Desk) -> None:
    desk.write(
        {
            "python": 'partition = "genoa", python = "/nonexistent/python"',
            "prelude": 'partition = "genoa", prelude = ["module load x || exit 75"]',
            "bare": 'partition = "genoa", python = "/bin/true"',
        },
        cluster='result_grace = "00:00:01"',
    )
    code, checks = desk.doctor()
    assert code == 1
    (python,) = bad_of(checks["pool python"])
    assert "the environment does not start on cpu" in python
    assert "got: /nonexistent/python: No such file or directory (FAILED, exit code 127)" in python
    assert "where: [pools] python; " in python
    (prelude,) = bad_of(checks["pool prelude"])
    assert "module: command not found (FAILED, exit code 75)" in prelude
    (bare,) = bad_of(checks["pool bare"])
    assert "the job ended well, and its result is not seen here" in bare
    assert desk.probes() == []


def test_a_work_directory_that_the_nodes_do_not_see(desk: Desk) -> None:
    """The doctor alone sees a file system that is mounted over the work directory."""
    desk.work.mkdir()
    mount = f"mount -t tmpfs muster-test {desk.work}"
    alone = ("unshare", "--mount", "sh", "-c")
    if subprocess.run([*alone, mount], capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not mount anything")
    desk.write({"cpu": 'partition = "genoa"'})
    command = "from muster.cli import main; raise SystemExit(main())"
    ran = subprocess.run(
        [*alone, f'{mount} && exec "$@"', "sh", sys.executable, "-c", command, "doctor",
         str(desk.site), "--json"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip
    assert ran.returncode == 1, ran.stderr
    (unseen,) = bad_of(desk.by_name(ran.stdout)["pool cpu"])
    assert unseen.startswith("cpu"), unseen
    assert "does not see the work directory as this machine does" in unseen
    assert desk.probes() == []


class TestBusy:
    """Nodes that somebody else has for an hour."""

    @pytest.fixture(autouse=True)
    def _somebody_else(self, desk: Desk):
        self.desk = desk
        desk.write({"gpu": 'partition = "l40s"'})
        taken = desk.cluster.run(
            "sbatch", "--parsable", "-p", "l40s", "-N2", "--exclusive", "-t", "60", "-o",
            "/dev/null", "--wrap=sleep 600",
        )  # fmt: skip
        job = taken.stdout.strip()
        while desk.cluster.run("squeue", "-h", "-j", job, "-o", "%T").stdout != "RUNNING\n":
            time.sleep(0.05)
        yield
        desk.cluster.run("scancel", job)

    def test_a_job_that_waits_is_told_with_its_reason_and_cancelled(self) -> None:
        code, checks = self.desk.doctor("--patience", "0.5")
        assert code == 1
        (waits,) = bad_of(checks["pool gpu"])
        assert waits.startswith("the job did not start, and was cancelled; got: Resources, after ")
        assert "(Slurm expects to start it on 20" in waits
        assert "do: the cluster is busy: try again with --patience" in waits
        assert self.desk.probes() == []

    def test_a_doctor_that_is_interrupted_leaves_no_job(self) -> None:
        async def examine() -> None:
            async for _ in examine_site(read_site(str(self.desk.site)), self.desk.db):
                pass

        async def interrupt() -> None:
            task = asyncio.ensure_future(examine())
            while not await asyncio.to_thread(self.desk.probes):
                await asyncio.sleep(0.05)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

        asyncio.run(interrupt())
        assert self.desk.probes() == []


@pytest.mark.thorough
def test_a_controller_that_does_not_run(make_slurm_cluster: MakeCluster, make_desk) -> None:
    cluster = make_slurm_cluster()
    cluster.kill("slurmctld")
    desk = make_desk(cluster)
    desk.write({"cpu": 'partition = "genoa"', "gpu": 'partition = "l40s"'})
    code, checks = desk.doctor()
    assert code == 1
    (silent,) = bad_of(checks["cluster mini"])
    assert "scontrol was not answered" in silent
    assert "Unable to contact slurm controller" in silent
    assert "do: see that slurmctld runs" in silent
    assert (
        bad_of(checks["pool cpu"]) == bad_of(checks["pool gpu"]) == ["not tried: see cluster mini"]
    )
