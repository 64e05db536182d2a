"""That the cluster on one machine is a Slurm: it runs jobs, survives its daemons, and goes away."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from minislurm.cluster import SlurmCluster
from minislurm.config import ClusterOptions
from muster.errors import ConfigError, MusterError
from muster.laptop.processes import StartFailed, check_listeners, find_processes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.slurm

DONE = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}


def submit(cluster: SlurmCluster, script: str, *options: str) -> str:
    """Submit a script and return its job id."""
    sent = cluster.run(
        "sbatch", "--parsable", f"--chdir={cluster.folder}", *options, text=f"#!/bin/sh\n{script}\n"
    )
    assert sent.returncode == 0, sent.stderr
    return sent.stdout.strip()


def states(cluster: SlurmCluster, job: str) -> dict[str, str]:
    """Return the state of each element of a job, by the name that squeue has for it."""
    answer = cluster.run("squeue", "-h", "-r", "-t", "all", "-j", job, "-o", "%i %T")
    return dict(line.split() for line in answer.stdout.splitlines())


def wait_until(reached: Callable[[], bool], patience_s: float = 30.0) -> None:
    """Return when the answer is yes."""
    deadline = time.monotonic() + patience_s
    while not reached():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.05)


def wait_done(cluster: SlurmCluster, job: str, patience_s: float = 30.0) -> dict[str, str]:
    """Return the states of a job's elements when all of them have ended."""
    wait_until(
        lambda: (seen := set(states(cluster, job).values())) != set() and seen <= DONE, patience_s
    )
    return states(cluster, job)


def exit_code(cluster: SlurmCluster, job: str) -> str:
    """Return the exit code that Slurm has for a job, as code:signal."""
    words = cluster.run("scontrol", "show", "job", "--oneliner", job).stdout.split()
    return next(word for word in words if word.startswith("ExitCode=")).removeprefix("ExitCode=")


def all_commands() -> list[str]:
    """Return the command of each process of this machine."""
    commands = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            commands.append(" ".join(process.cmdline()))
    return commands


def sleepers(numbers: list[int]) -> list[int]:
    """Return those of the numbers for which a ``sleep NUMBER`` runs."""
    commands = set(all_commands())
    return [n for n in numbers if {f"sleep {n}", f"/bin/sleep {n}"} & commands]


def processes_in(folder: Path) -> list[str]:
    """Return the command of each process that has the folder in its command or its variables."""
    found = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), *process.environ().values(), process.cwd()]
        except psutil.Error:
            continue
        if process.pid != os.getpid() and any(str(folder) in word for word in words):
            found.append(" ".join(process.cmdline()))
    return found


def test_a_job_runs_and_ends(slurm_cluster):
    output = slurm_cluster.folder / "hello.out"
    job = submit(slurm_cluster, "echo hello from $SLURMD_NODENAME", f"--output={output}")
    assert wait_done(slurm_cluster, job) == {job: "COMPLETED"}
    assert output.read_text() == "hello from cpu1\n"
    assert f"JobId={job} " in slurm_cluster.layout.completion_log.read_text()


def test_each_element_of_an_array_has_its_own_exit_code(slurm_cluster):
    job = submit(slurm_cluster, "exit $SLURM_ARRAY_TASK_ID", "--array=0,65,75")
    assert wait_done(slurm_cluster, job) == {
        f"{job}_0": "COMPLETED",
        f"{job}_65": "FAILED",
        f"{job}_75": "FAILED",
    }
    assert exit_code(slurm_cluster, f"{job}_65") == "65:0"


def test_jobs_on_one_node_see_different_gpus(slurm_cluster):
    ask = ("--partition=l40s", "--nodelist=gpu1", "--gres=gpu:2")
    jobs = [
        submit(
            slurm_cluster,
            "echo $CUDA_VISIBLE_DEVICES; sleep 2",
            *ask,
            f"--output={slurm_cluster.folder}/gpus.{number}",
        )
        for number in (0, 1)
    ]
    for job in jobs:
        assert wait_done(slurm_cluster, job) == {job: "COMPLETED"}
    seen = [(slurm_cluster.folder / f"gpus.{number}").read_text().strip() for number in (0, 1)]
    assert sorted(seen) == ["0,1", "2,3"]


def test_more_gpus_than_a_node_has_are_refused(slurm_cluster):
    sent = slurm_cluster.run("sbatch", "--partition=l40s", "--gres=gpu:5", "--wrap=true")
    assert sent.returncode == 1
    assert "Requested node configuration is not available" in sent.stderr


def test_a_job_that_takes_too_much_memory_is_ended(slurm_cluster):
    if slurm_cluster.layout.cgroups is None:
        pytest.skip("memory can be limited only by root and with cgroup v1")
    job = submit(slurm_cluster, "exec python3 -c 'bytearray(200 << 20)'", "--mem=50")
    assert wait_done(slurm_cluster, job) == {job: "OUT_OF_MEMORY"}


def test_nobody_elsewhere_can_reach_it(slurm_cluster):
    if slurm_cluster.layout.everywhere:
        pytest.skip("this machine's name is not on loopback")
    processes = find_processes(slurm_cluster.home)
    assert {process.name() for process in processes} >= {"munged", "slurmctld", "slurmd"}
    assert check_listeners(processes) == []


def test_a_running_cluster_is_left_as_it_is(slurm_cluster):
    before = slurm_cluster.running()
    SlurmCluster(slurm_cluster.folder).start()
    assert slurm_cluster.running() == before
    with pytest.raises(ConfigError, match=r"running with other settings; where: .*slurm\.conf"):
        SlurmCluster(slurm_cluster.folder, ClusterOptions(settings={"KillWait": "5"})).start()
    assert slurm_cluster.running() == before


@pytest.mark.thorough
def test_two_clusters_side_by_side_know_nothing_of_each_other(slurm_cluster, make_slurm_cluster):
    other = make_slurm_cluster(settings={"FirstJobId": "7000"})
    output = other.folder / "other.out"
    job = submit(other, "sleep 1; echo $SLURM_CONF", f"--output={output}")
    assert job == "7000"
    assert slurm_cluster.run("squeue", "-h", "-j", job).returncode == 1
    wait_done(other, job)
    assert output.read_text().strip() == str(other.folder / "slurm.conf")
    running = slurm_cluster.running()
    other.stop()
    assert slurm_cluster.running() == running
    assert wait_done(slurm_cluster, submit(slurm_cluster, "true")).popitem()[1] == "COMPLETED"


@pytest.mark.thorough
def test_a_controller_that_was_killed_keeps_its_jobs(make_slurm_cluster):
    cluster = make_slurm_cluster()
    go = cluster.folder / "go"
    runs = submit(cluster, f"while [ ! -e {go} ]; do sleep 0.1; done; exit 65")
    waits = submit(cluster, "true", "--begin=now+1hour")
    wait_until(lambda: states(cluster, runs) == {runs: "RUNNING"})
    # What was told to slurmctld in the last seconds before a kill, it forgets.
    time.sleep(6)
    cluster.kill("slurmctld")
    assert cluster.run("scontrol", "ping").returncode == 1
    go.touch()
    cluster.start_daemon("slurmctld")
    cluster.wait_ready()
    assert states(cluster, waits) == {waits: "PENDING"}
    assert wait_done(cluster, runs, patience_s=60) == {runs: "FAILED"}
    assert exit_code(cluster, runs) == "65:0"


@pytest.mark.thorough
def test_a_job_outlives_the_daemon_of_its_node(make_slurm_cluster):
    cluster = make_slurm_cluster()
    go = cluster.folder / "go"
    job = submit(cluster, f"while [ ! -e {go} ]; do sleep 0.1; done", "--nodelist=cpu2")
    wait_until(lambda: states(cluster, job) == {job: "RUNNING"})
    cluster.kill("slurmd.cpu2")
    assert "slurmd.cpu2" not in cluster.running()
    cluster.start_daemon("slurmd.cpu2")
    cluster.wait_ready()
    assert states(cluster, job) == {job: "RUNNING"}
    go.touch()
    assert wait_done(cluster, job) == {job: "COMPLETED"}


@pytest.mark.thorough
def test_a_node_that_does_not_come_back_fails_its_jobs(make_slurm_cluster):
    cluster = make_slurm_cluster(settings={"SlurmdTimeout": "5"})
    job = submit(cluster, "sleep 600", "--nodelist=cpu1")
    wait_until(lambda: states(cluster, job) == {job: "RUNNING"})
    cluster.kill("slurmd.cpu1")
    assert wait_done(cluster, job, patience_s=120) == {job: "NODE_FAIL"}


@pytest.mark.thorough
def test_a_daemon_that_was_ended_or_paused_comes_back(make_slurm_cluster):
    cluster = make_slurm_cluster()
    # One that is killed leaves its socket, at which every command then tries for 50 s.
    cluster.terminate("munged")
    assert "munge" in cluster.run("squeue").stderr.casefold()
    cluster.start_daemon("munged")
    cluster.kill("munged")
    cluster.start_daemon("munged")
    cluster.terminate("slurmctld")
    cluster.start_daemon("slurmctld")
    cluster.pause("slurmctld")
    assert "slurmctld" in cluster.running()
    assert psutil.Process(cluster.running()["slurmctld"]).status() == psutil.STATUS_STOPPED
    cluster.resume("slurmctld")
    cluster.wait_ready()
    job = submit(cluster, "true")
    assert wait_done(cluster, job) == {job: "COMPLETED"}
    cluster.pause("slurmd.gpu1")


@pytest.mark.thorough
@pytest.mark.parametrize("memory_limits", [True, False])
def test_stop_leaves_no_process_and_start_goes_on(make_slurm_cluster, memory_limits):
    cluster = make_slurm_cluster(memory_limits=memory_limits)
    submit(cluster, "setsid sleep 3333 & nohup sleep 3334 & sleep 3335")
    groups = cluster.layout.cgroups
    numbers = [3333, 3334, 3335]
    if groups is not None:
        # Without environment, session and parent: nothing but its group tells whose it is.
        submit(cluster, "(setsid env -i /bin/sleep 3336 &) ; sleep 3337")
        numbers += [3336, 3337]
    waits = submit(cluster, "true", "--begin=now+1hour")
    wait_until(lambda: sleepers(numbers) == numbers)
    before = processes_in(cluster.folder)
    assert any("slurmstepd" in command for command in before)
    cluster.pause("slurmd.cpu1")
    cluster.stop()
    assert processes_in(cluster.folder) == []
    assert sleepers(numbers) == []
    if groups is not None:
        assert not any(link.exists() for link in groups.iterdir())
    cluster.stop()
    cluster.start()
    assert states(cluster, waits) == {waits: "PENDING"}


@pytest.mark.thorough
def test_accounting_remembers_jobs_and_knows_limits(make_slurm_cluster):
    enforce = {"AccountingStorageEnforce": "associations,limits,qos"}
    cluster = make_slurm_cluster(accounting=True, settings=enforce)
    user = cluster.environment["USER"]
    for command in (
        ("add", "account", "lab", "MaxSubmitJobs=2"),
        ("add", "user", user, "account=lab"),
        ("modify", "user", user, "set", "DefaultAccount=lab"),
    ):
        done = cluster.run("sacctmgr", "--immediate", *command)
        assert done.returncode == 0, done.stderr + done.stdout
    refused = cluster.run("sbatch", "--account=lab", "--array=0-2", "--wrap=true")
    assert "Job violates accounting/QOS policy" in refused.stderr
    job = submit(cluster, "exit 65", "--account=lab", "--comment=key-1")
    wait_done(cluster, job)
    ask = ("sacct", "-X", "-n", "-P", "-j", job, "-o", "JobID,State,ExitCode,Comment")
    wait_until(lambda: cluster.run(*ask).stdout.strip() == f"{job}|FAILED|65:0|key-1")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("with blank", "Slurm cannot live in this folder; where: .*with blank; expected: a path"),
        ("x" * 90, "the path of this folder is too long for Slurm's sockets"),
        ("file", "not a folder; where: .*file"),
    ],
)
def test_a_folder_that_cannot_be_used_is_told(tmp_path_factory, name, message):
    folder = tmp_path_factory.mktemp("f")
    (folder / "file").touch()
    with pytest.raises(ConfigError, match=message):
        SlurmCluster(folder / name)


def test_a_setting_that_slurm_does_not_know_is_told(make_slurm_cluster):
    cluster = make_slurm_cluster(start=False, settings={"NoSuchSetting": "1"})
    with pytest.raises(StartFailed, match="slurmctld ended while starting") as caught:
        cluster.start()
    assert "NoSuchSetting" in caught.value.tail
    assert processes_in(cluster.folder) == []


def test_missing_programs_are_told_in_one_line(tmp_path_factory):
    folder = tmp_path_factory.mktemp("f")
    cluster = SlurmCluster(folder, search_path=str(folder))
    with pytest.raises(MusterError) as caught:
        cluster.start()
    assert "no munged, slurmctld, slurmd" in str(caught.value)
    assert "apt-get install --no-install-recommends slurmctld slurmd slurm-client munge" in str(
        caught.value
    )


def test_an_unknown_daemon_is_told(make_slurm_cluster):
    cluster = make_slurm_cluster(start=False)
    with pytest.raises(ConfigError, match="got: slurmd; expected: munged, slurmctld, "):
        cluster.kill("slurmd")
