"""Killed, stalled and cut off while batches run on a cluster: nothing lost, nothing run twice."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from muster.laptop.environment import render_commands
from muster.laptop.home import read_tail
from muster.store import batches
from tests.integration.airflow.conftest import REPOSITORY
from tests.integration.airflow.slurm.cluster_run import ClusterRun, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.airflow.slurm.conftest import OnSlurm

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.slow,
    pytest.mark.slurm,
    pytest.mark.timeout(1200),
]


def family(pid: int) -> list[psutil.Process]:
    """Return a process and all below it."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def kill_worker(muster: OnSlurm, run: ClusterRun) -> bool:
    """Kill the process of one of the run's tasks, if one executes now."""
    for task in muster.api.task_instances(run.dag_id, run.run_id):
        if task.state == "running" and task.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(task.pid, signal.SIGKILL)
                return True
    return False


@contextlib.contextmanager
def second_triggerer(muster: OnSlurm) -> Iterator[Path]:
    """Run another triggerer beside the first, and give its log."""
    command = render_commands(muster.live.installation)["triggerer"]
    log = muster.folder / "second-triggerer.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            env=muster.live.environment,
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield log
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


@pytest.mark.parametrize(
    ("how", "seconds"), [("KILL", 10.0), pytest.param("TERM", 30.0, marks=pytest.mark.thorough)]
)
def test_the_triggerer_ends(muster: OnSlurm, tmp_path: Path, how: str, seconds: float) -> None:
    run = ClusterRun(muster, tmp_path, [write(tmp_path, seconds, 3)], slots=2)
    run.start()
    muster.wait(lambda: len(run.running()) == 2)
    before = run.running()
    pid = muster.live.pid("triggerer")
    os.kill(pid, getattr(signal, f"SIG{how}"))
    muster.wait(lambda: "triggerer" not in muster.live.services.running(), 60)
    assert run.running() == before, "what runs goes on"
    muster.live.restart("triggerer")
    assert run.end() == "success"
    run.check_whole()
    assert len(run.submissions()) == 1


@pytest.mark.thorough
def test_the_triggerer_ends_between_sbatch_and_its_record(muster: OnSlurm, tmp_path: Path) -> None:
    """The cluster has the job, and nobody knows its id: it is found by its key."""
    run = ClusterRun(muster, tmp_path, [write(tmp_path, 20.0, 3)])
    muster.kill_after_sbatch.write_text(f"{muster.live.pid('triggerer')}\n")
    run.start()
    muster.wait(lambda: "triggerer" not in muster.live.services.running())
    assert not muster.kill_after_sbatch.exists()
    muster.wait(lambda: len(run.queue()) == 3)
    assert len(run.submissions()) == 1
    (element, *_) = batches.read_elements(muster.db, run.batch.id)
    assert element.attempts[0].state.value == "planned", "intended, and not recorded as submitted"
    muster.live.restart("triggerer")
    assert run.end() == "success"
    run.check_whole()
    assert len(run.submissions()) == 1, "found again, and not submitted twice"
    assert "found" in run.task_log()


@pytest.mark.thorough
def test_a_stalled_triggerer_is_replaced_and_comes_back(muster: OnSlurm, tmp_path: Path) -> None:
    """What it does not know yet does no harm: its claims are gone."""
    count = 3
    run = ClusterRun(
        muster, tmp_path, [write(tmp_path, 45.0, 2, number) for number in range(count)]
    )
    run.start()
    muster.wait(lambda: len(run.running()) == 2 * count)
    first = family(muster.live.pid("triggerer"))
    claims = run.claims()
    for process in first:
        process.suspend()
    try:
        with second_triggerer(muster) as log:
            muster.wait(lambda: run.claims() >= claims + count, 180)
            for process in first:
                process.resume()
            time.sleep(10)
            assert len(run.running()) == 2 * count or run.lines(), "nothing was cancelled"
            assert run.end() == "success", read_tail(log)
    finally:
        for process in first:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
    run.check_whole()
    assert len(run.submissions()) == count
    muster.live.restart("triggerer")


@pytest.mark.thorough
def test_the_scheduler_ends(muster: OnSlurm, tmp_path: Path) -> None:
    run = ClusterRun(muster, tmp_path, [write(tmp_path, 10.0)])
    run.start()
    muster.wait(lambda: len(run.running()) == 2)
    muster.live.kill("scheduler")
    muster.live.restart("scheduler")
    assert run.end() == "success"
    run.check_whole()
    assert len(run.submissions()) == 1


@pytest.mark.thorough
def test_the_worker_ends_inside_execute(muster: OnSlurm, tmp_path: Path) -> None:
    run = ClusterRun(muster, tmp_path, [write(tmp_path, 2.0)], hold=True)
    run.hold.touch()
    run.start()
    muster.wait(lambda: run.claims() == 1)
    assert kill_worker(muster, run)
    muster.wait(lambda: run.claims() == 2)
    run.hold.unlink()
    assert run.end() == "success"
    run.check_whole()
    assert len(run.submissions()) == 1


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(5))
def test_four_moments_of_a_run(muster: OnSlurm, tmp_path: Path, seed: int) -> None:
    """Twenty in all: something is killed at a moment that the seed draws, and again, and again."""
    chance = random.Random(seed)
    run = ClusterRun(
        muster,
        tmp_path,
        [write(tmp_path, chance.uniform(2.0, 8.0), 6, number) for number in range(3)],
        slots=2,
    )
    run.start()
    killed: list[str] = []
    for _ in range(4):
        time.sleep(chance.uniform(0.0, 12.0))
        victim = chance.choice(("triggerer", "triggerer", "TERM", "scheduler", "worker"))
        if victim == "worker" and not kill_worker(muster, run):
            victim = "triggerer"  # no task executes now: each moment ends something
        killed.append(victim)
        if victim == "worker":
            continue
        if victim == "TERM":
            os.kill(muster.live.pid("triggerer"), signal.SIGTERM)
            muster.wait(lambda: "triggerer" not in muster.live.services.running(), 60)
            muster.live.restart("triggerer")
        else:
            muster.live.kill(victim)
            muster.live.restart(victim)
    print("killed:", *killed)
    assert run.end(600) == "success", run.outcomes()
    run.check_whole()


@pytest.mark.thorough
def test_the_cluster_does_not_answer_for_a_while(muster: OnSlurm, tmp_path: Path) -> None:
    """The task's log says so once, the record says so while it lasts, and then it goes on."""
    run = ClusterRun(muster, tmp_path, [write(tmp_path, 5.0)])
    run.start()
    muster.wait(lambda: len(run.running()) == 2)
    muster.slurm.kill("slurmctld")
    try:
        muster.wait(lambda: run.degraded() is not None)
        time.sleep(60)
    finally:
        muster.slurm.start_daemon("slurmctld")
    muster.slurm.wait_ready()
    assert run.end(600) == "success"
    run.check_whole()
    assert run.degraded() is None
    log = run.task_log().splitlines()
    assert 1 <= sum("waiting: " in line for line in log) <= 4, log
    assert sum("going on after" in line for line in log) >= 1
