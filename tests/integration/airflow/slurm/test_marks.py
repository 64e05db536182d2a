"""Cleared, marked and deleted by a person: what must end on the cluster ends, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pytest

from muster.jobs.runs.reconcile import reconcile
from muster.laptop.airflow_api import wait_until
from muster.store import batches
from tests.integration.airflow.slurm.cluster_run import ClusterRun, write

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.airflow.slurm.conftest import OnSlurm

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.slow,
    pytest.mark.slurm,
    pytest.mark.timeout(900),
]


def ended(run: ClusterRun) -> bool:
    return run.queue() == [] and all(None not in attempts for attempts in run.outcomes())


@pytest.mark.thorough
def test_a_cleared_task_takes_over_what_runs(muster: OnSlurm, tmp_path: Path) -> None:
    run = ClusterRun(muster, tmp_path, [write(tmp_path, 18.0)])
    run.start()
    muster.wait(lambda: len(run.running()) == 2)
    before = muster.queue(run.name)
    run.clear()
    muster.wait(lambda: run.generations() == [2])
    assert set(muster.queue(run.name)) <= set(before)
    assert run.end() == "success"
    run.check_whole()
    assert len(run.submissions()) == 1, "nothing was submitted again"
    assert run.outcomes() == [["succeeded"], ["succeeded"]]


@pytest.mark.thorough
@pytest.mark.parametrize("state", ["failed", "success"])
def test_a_mark_ends_what_runs(
    muster: OnSlurm, tmp_path: Path, state: Literal["failed", "success"]
) -> None:
    run = ClusterRun(muster, tmp_path, [write(tmp_path, 600.0, 3)], slots=2)
    run.start()
    muster.wait(lambda: len(run.running()) == 2)
    run.mark(state)
    muster.wait(lambda: run.queue() == [])
    assert run.end() == state
    muster.wait(lambda: run.outcomes() == [["cancelled"]] * 3)
    assert run.lines() == []
    assert len(run.submissions()) == 1


@pytest.mark.thorough
def test_the_end_and_deletion_of_a_run_ends_what_runs(muster: OnSlurm, tmp_path: Path) -> None:
    run = ClusterRun(muster, tmp_path, [write(tmp_path, 600.0)])
    run.start()
    muster.wait(lambda: len(run.running()) == 2)
    muster.api.set_run_state("slurm_batches", run.run_id, "failed")
    muster.api.delete_run("slurm_batches", run.run_id)
    muster.wait(lambda: run.queue() == [])
    muster.wait(lambda: run.outcomes() == [["cancelled"]] * 2)


@pytest.mark.thorough
def test_a_cleared_task_that_waits_for_its_turn_leaves_its_jobs_alone(
    muster: OnSlurm, tmp_path: Path
) -> None:
    """The pool is full: nobody has taken the batch over when its old trigger is told to end."""
    run = ClusterRun(muster, tmp_path, [write(tmp_path, 60.0)])
    run.start()
    muster.wait(lambda: len(run.running()) == 2)
    genoa = {"slots": 80, "description": "", "include_deferred": True}
    muster.api.set_pools({"genoa": {**genoa, "slots": 0}})
    try:
        run.clear()
        log = "goes on: its task is to run again"
        muster.wait(lambda: log in run.task_log(0, 1))
        assert len(run.running()) == 2
        assert run.generations() == [1]
    finally:
        muster.api.set_pools({"genoa": genoa})
    assert run.end() == "success"
    run.check_whole()
    assert len(run.submissions()) == 1


@pytest.mark.thorough
def test_a_cleared_task_that_is_then_marked_ends_what_runs(muster: OnSlurm, tmp_path: Path) -> None:
    """Before its next try began: the old trigger still has the say."""
    run = ClusterRun(muster, tmp_path, [write(tmp_path, 600.0)])
    run.start()
    muster.wait(lambda: len(run.running()) == 2)
    genoa = {"slots": 80, "description": "", "include_deferred": True}
    muster.api.set_pools({"genoa": {**genoa, "slots": 0}})
    try:
        run.clear()
        log = "goes on: its task is to run again"
        muster.wait(lambda: log in run.task_log(0, 1))
        run.mark("failed")
        muster.wait(lambda: ended(run))
    finally:
        muster.api.set_pools({"genoa": genoa})
    assert run.outcomes() == [["cancelled"], ["cancelled"]]


@pytest.mark.thorough
@pytest.mark.parametrize("act", ["clear", "failed", "success"])
def test_while_it_executes(
    muster: OnSlurm, tmp_path: Path, act: Literal["clear", "failed", "success"]
) -> None:
    """A first try that has taken the batch over and has not deferred: nothing was submitted."""
    run = ClusterRun(muster, tmp_path, [write(tmp_path, 1.0)], hold=True)
    run.hold.touch()
    run.start()
    muster.wait(lambda: run.claims() == 1)
    if act == "clear":
        run.clear()
        muster.wait(lambda: run.claims() >= 2)
        run.hold.unlink()
        assert run.end() == "success"
        run.check_whole()
        return
    run.mark(act)
    assert run.end() == act
    run.hold.unlink()
    assert run.submissions() == []
    assert run.queue() == []


@pytest.mark.thorough
@pytest.mark.parametrize("act", ["clear", "failed"])
def test_while_the_next_try_executes(
    muster: OnSlurm, tmp_path: Path, act: Literal["clear", "failed"]
) -> None:
    """Its jobs run already: a clear leaves them alone; a mark's are found by the reconciler."""
    run = ClusterRun(
        muster, tmp_path, [write(tmp_path, 90.0 if act == "clear" else 600.0)], hold=True
    )
    run.start()
    muster.wait(lambda: len(run.running()) == 2)
    run.hold.touch()
    run.clear()
    muster.wait(lambda: run.generations() == [2])
    claims = run.claims()
    if act == "clear":
        run.clear()
        muster.wait(lambda: run.claims() > claims)
        assert len(run.running()) == 2
        run.hold.unlink()
        assert run.end() == "success"
        run.check_whole()
        assert len(run.submissions()) == 1
        return
    run.mark("failed")
    assert run.end() == "failed"
    run.hold.unlink()
    assert not wait_until(lambda: run.running() == [], 5)
    muster.wait(lambda: run.heartbeat_age_s() > 3)
    ended_here = reconcile_here(muster, run)
    assert ended_here, "the reconciler must have found it"
    assert run.outcomes() == [["cancelled"], ["cancelled"]]


@pytest.mark.thorough
def test_marked_while_the_triggerer_is_down(muster: OnSlurm, tmp_path: Path) -> None:
    """The jobs go on until the reconciler finds them, or a triggerer that is given the trigger."""
    run = ClusterRun(muster, tmp_path, [write(tmp_path, 600.0)])
    other = ClusterRun(muster, tmp_path / "other", [write(tmp_path / "other", 75.0)])
    run.start()
    other.start()
    muster.wait(lambda: len(run.running()) == 2 and len(other.running()) == 2)
    muster.live.kill("triggerer")
    run.mark("failed")
    muster.live.restart("triggerer")
    assert run.end() == "failed"
    muster.wait(lambda: other.heartbeat_age_s() < 3)
    # A restarted triggerer may load the trigger of the marked task before it drops it, and then
    # ends the jobs by itself.
    muster.wait(lambda: reconcile_here(muster, run, 20.0) or run.queue() == [])
    muster.wait(lambda: run.queue() == [] and None not in run.outcomes()[0])
    assert run.outcomes() == [["cancelled"], ["cancelled"]]
    status = batches.read_elements(muster.db, run.batch.id)
    assert {element.state for element in status} == {"cancelled"}
    assert other.end() == "success", "what is supervised is left alone"
    other.check_whole()


def reconcile_here(muster: OnSlurm, run: ClusterRun, silent_for_s: float = 3.0) -> bool:
    """Reconcile as the command does, in the environment of the cluster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", muster.slurm.environment["SLURM_CONF"])
        found = reconcile(muster.db, silent_for_s)
    return run.batch.id in {end.batch_id for end in found.batches}
