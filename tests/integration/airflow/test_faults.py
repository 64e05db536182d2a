"""Killed, cleared and marked while it runs: nothing lost, nothing run to success twice."""

from __future__ import annotations

import os
import signal
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from muster.backends.local import find_processes
from muster.store import batches, runs
from tests.batches import make_batch
from tests.integration.airflow.conftest import Muster, processes_of

if TYPE_CHECKING:
    from muster.model.batch import Batch

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(400)]


class BatchRun:
    """A run of the DAG of bare batches, with one batch."""

    def __init__(self, muster: Muster, folder: Path, wishes: list[dict[str, Any]], **options: Any):
        self.muster = muster
        self.folder = folder
        self.ledger = folder / "ledger"
        name = folder.name
        elements = [{**wish, "ledger": str(self.ledger)} for wish in wishes]
        batch = make_batch(folder, elements, slots=1, name=name, **options)
        self.batch: Batch = batch.model_copy(update={"run": name, "id": f"{name}.b"})
        runs.open_run(muster.db, name, workflow="test", params={}, work_uri=str(folder))
        runs.create_batches(muster.db, [("group", self.batch)])

    def start(self, *, deferred: bool = False) -> None:
        told = {
            "group": "group",
            "run": self.batch.run,
            "batches": {"test.step": self.batch.id},
            "skipped": {},
        }
        self.task_id = "run_deferred" if deferred else "run_batches"
        self.run_id = self.muster.api.trigger(
            "batches", {"deferred" if deferred else "batches": [told]}
        )

    def end(self) -> str:
        return self.muster.api.wait_for_run("batches", self.run_id, 240).state

    def lines(self) -> list[str]:
        return self.ledger.read_text().splitlines() if self.ledger.exists() else []

    def outcomes(self) -> list[list[str | None]]:
        return [
            [a.outcome.value if a.outcome else None for a in element.attempts]
            for element in batches.read_elements(self.muster.db, self.batch.id)
        ]

    def key(self) -> str:
        with self.muster.db.transaction() as cursor:
            cursor.execute(
                "SELECT key FROM submission WHERE batch_id = %s ORDER BY id DESC LIMIT 1",
                (self.batch.id,),
            )
            row = cursor.fetchone()
        return row[0] if row else "none"

    def runner(self, index: int) -> int | None:
        """Find the runner that an element is in: it began with that one, or with one before it."""
        if self._has_ended(index) or not all(map(self._has_ended, range(index))):
            return None
        return next((p for pids in find_processes(self.key()).values() for p in pids), None)

    def _has_ended(self, index: int) -> bool:
        folder = Path(self.batch.work_uri, "results")
        return any(folder.glob(f"{index}.*.json"))

    def step(self, index: int) -> int | None:
        runner = self.runner(index)
        try:
            below = psutil.Process(runner).children() if runner else []
        except psutil.NoSuchProcess:
            return None
        return below[0].pid if below else None

    def check_whole(self) -> None:
        """Check what must hold however often something was killed."""
        assert [o.count("succeeded") for o in self.outcomes()] == [1] * len(self.batch.elements)
        names = sorted(p.name for p in (self.folder / "products").iterdir())
        assert all(name.endswith(".txt") for name in names), names
        assert len(names) == len(self.batch.elements)
        assert processes_of(self.folder) == []


def kill(pid: int | None) -> None:
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def write(seconds: float, count: int = 2) -> list[dict[str, Any]]:
    return [{"text": f"t{i}", "seconds": seconds} for i in range(count)]


@pytest.mark.parametrize(
    ("victim", "index"),
    [
        pytest.param("worker", 1),
        *(
            pytest.param(victim, index, marks=pytest.mark.thorough)
            for victim, index in (("worker", 0), *product(("step", "runner"), (0, 1)))
        ),
    ],
)
def test_a_process_is_killed(muster: Muster, tmp_path: Path, victim: str, index: int) -> None:
    run = BatchRun(muster, tmp_path, write(3.0))
    run.start()
    muster.wait(lambda: run.step(index))
    ended = run.lines()
    if victim == "worker":
        task = muster.task("batches", run.run_id, "run_batches")
        kill(task.pid)
    else:
        kill(run.step(index) if victim == "step" else run.runner(index))
    assert run.end() == "success"
    run.check_whole()
    assert run.lines()[: len(ended)] == ended
    assert run.lines().count("done t0") == 1, "an ended element must not run again"
    assert len(run.outcomes()[index]) >= 2, "the kill must have been seen"


@pytest.mark.thorough
def test_the_workers_supervisor_is_killed(muster: Muster, tmp_path: Path) -> None:
    """The orphaned task runs on beside the new try: one of the two has the claim."""
    run = BatchRun(muster, tmp_path, write(12.0, 3))
    run.start()
    muster.wait(lambda: run.step(0))
    task = muster.task("batches", run.run_id, "run_batches")
    assert task.pid is not None
    kill(psutil.Process(task.pid).ppid())
    assert run.end() == "success"
    run.check_whole()


@pytest.mark.thorough
@pytest.mark.parametrize("index", [0, 1])
def test_the_scheduler_is_killed(muster: Muster, tmp_path: Path, index: int) -> None:
    run = BatchRun(muster, tmp_path, write(4.0))
    run.start()
    muster.wait(lambda: run.step(index))
    muster.live.kill("scheduler")
    muster.live.restart("scheduler")
    assert run.end() == "success"
    run.check_whole()
    assert run.lines().count("done t0") == 1


@pytest.mark.thorough
def test_a_deferred_batch_is_supervised_by_the_triggerer(muster: Muster, tmp_path: Path) -> None:
    run = BatchRun(muster, tmp_path, write(1.0))
    run.start(deferred=True)
    assert run.end() == "success"
    run.check_whole()
    task = muster.task("batches", run.run_id, "run_deferred")
    log = muster.api.task_log("batches", run.run_id, ("run_deferred", task.map_index))
    assert "log of" in log, "resume writes the end of the elements' logs"


@pytest.mark.thorough
def test_the_triggerer_is_killed(muster: Muster, tmp_path: Path) -> None:
    run = BatchRun(muster, tmp_path, write(6.0))
    run.start(deferred=True)
    muster.wait(lambda: run.step(0))
    muster.live.kill("triggerer")
    muster.live.restart("triggerer")
    assert run.end() == "success"
    run.check_whole()


@pytest.mark.parametrize(
    "deferred", [pytest.param(False), pytest.param(True, marks=pytest.mark.thorough)]
)
def test_marked_failed_ends_what_runs(muster: Muster, tmp_path: Path, deferred: bool) -> None:
    run = BatchRun(muster, tmp_path, write(300.0))
    run.start(deferred=deferred)
    muster.wait(lambda: run.step(0))
    task = muster.task("batches", run.run_id, run.task_id)
    muster.api.set_task_state("batches", run.run_id, (run.task_id, task.map_index), "failed")
    muster.wait(lambda: not processes_of(run.folder), 60)
    assert run.end() == "failed"
    muster.wait(lambda: run.outcomes() == [["cancelled"], ["cancelled"]], 30)
    assert run.lines() == []


@pytest.mark.thorough
def test_clearing_what_ended_runs_nothing_again(muster: Muster, tmp_path: Path) -> None:
    run = BatchRun(muster, tmp_path, write(0.0))
    run.start()
    assert run.end() == "success"
    before = run.lines(), run.outcomes()
    muster.api.clear("batches", run.run_id, ["run_batches"])
    muster.wait(lambda: muster.api.run("batches", run.run_id).state != "success", 30)
    assert run.end() == "success"
    assert (run.lines(), run.outcomes()) == before


def test_clearing_what_failed_runs_what_is_missing(muster: Muster, tmp_path: Path) -> None:
    wishes = [{"how": how, "times": 1} for how in ("fine", "invalid")]
    run = BatchRun(muster, tmp_path, wishes, step="test.misbehave")
    run.start()
    assert run.end() == "failed"
    assert run.outcomes() == [["succeeded"], ["invalid_input"]]
    task = muster.task("batches", run.run_id, "run_batches")
    assert task.try_number == 1, "what failed for good is not retried by Airflow"
    log = muster.api.task_log("batches", run.run_id, ("run_batches", task.map_index))
    assert "planted invalid; where: here" in log
    muster.api.clear("batches", run.run_id, ["run_batches"])
    muster.wait(lambda: muster.api.run("batches", run.run_id).state != "failed", 30)
    assert run.end() == "success"
    assert run.outcomes() == [["succeeded"], ["invalid_input", "succeeded"]]
    assert run.lines().count("fine") == 1


@pytest.mark.thorough
def test_clearing_what_runs_ends_well_and_once(muster: Muster, tmp_path: Path) -> None:
    run = BatchRun(muster, tmp_path, write(4.0))
    run.start()
    muster.wait(lambda: run.step(1))
    muster.api.clear("batches", run.run_id, ["run_batches"])
    muster.wait(lambda: muster.task("batches", run.run_id, "run_batches").try_number == 2, 60)
    assert run.end() == "success"
    run.check_whole()
    assert run.lines().count("done t0") == 1
