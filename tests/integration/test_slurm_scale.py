"""Many batches on one Slurm cluster: how often it is asked, and that every element is told once."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import pytest

from muster.backends.slurm import poller
from muster.jobs.planning.plan_run import freeze_plan
from muster.model.plan import PlannedPlacement
from muster.model.resources import PartialResources
from muster.model.retry_policy import RetryPolicy
from tests.scripted_campaign import (
    RUN,
    STEP,
    Pace,
    ScriptedBackends,
    make_site,
    plan_elements,
    supervise,
    write_plan,
)
from tests.scripted_cluster import ScaledClock, Script, ScriptedCluster
from tests.scripted_slurm import ScriptedSlurm

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from muster.store.database import Database

BATCHES, SIZE = 6, 50
PACE = Pace(speed=30.0)


@pytest.fixture(autouse=True)
def _looks_as_often_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the interval alone say when to look: what a look takes is not scaled with the clock."""
    monkeypatch.setattr(poller, "FLOOR", 0)


def run_campaign(
    db: Database,
    folder: Path,
    script: Script,
    placements: Sequence[PlannedPlacement] = (),
    slots: int | None = None,
) -> ScriptedSlurm:
    """Plan a campaign and supervise it to its end."""
    site = make_site(folder, PACE, slots or script.slots)
    elements = plan_elements(folder, BATCHES * SIZE, SIZE)
    if placements:
        large = PartialResources(memory_factor=2.0)
        low = {e.name: e.model_copy(update={"resources": large}) for e in elements[::10]}
        elements = [low.get(e.name, e) for e in elements]
    write_plan(db, site, elements, placements)
    ids = [b for group in freeze_plan(db, site, RUN) for b in group.batches.values()]
    assert len(ids) == BATCHES
    slurm = ScriptedSlurm(ScriptedCluster(script, ScaledClock(PACE.speed)))

    async def follow() -> None:
        backends = ScriptedBackends(db, slurm)
        try:
            async with asyncio.timeout(240):
                await supervise(db, ids, backends, PACE)
        finally:
            await backends.close()

    asyncio.run(follow())
    assert slurm.refused == []
    return slurm


def read(db: Database, question: str) -> list[tuple]:
    with db.transaction() as cursor:
        cursor.execute(question)
        return cursor.fetchall()


def calls_of(slurm: ScriptedSlurm) -> Counter[str]:
    return Counter(call.command for call in slurm.calls)


def test_a_wave_is_one_submission_a_batch_and_a_look_is_two_calls_for_all(
    db: Database, tmp_path: Path
) -> None:
    script = Script(slots=100, runs_s=(20, 60), min_job_age_s=20)
    slurm = run_campaign(db, tmp_path, script)
    assert calls_of(slurm)["sbatch"] == BATCHES
    # what had left the queue between two looks was asked of the accounting
    assert calls_of(slurm)["sacct"] > 0
    assert max(slurm.status_calls(PACE.poll_every_s)) <= 2
    assert read(db, "SELECT state, count(*) FROM element GROUP BY 1") == [
        ("succeeded", BATCHES * SIZE)
    ]
    assert read(db, "SELECT count(*), count(DISTINCT attempt_id) FROM artifact") == [
        (BATCHES * SIZE, BATCHES * SIZE)
    ]
    assert set(slurm.cluster.begun.values()) == {1}


def test_what_failed_is_tried_again_and_every_end_is_recorded_once(
    db: Database, tmp_path: Path
) -> None:
    script = Script(
        slots=150,
        runs_s=(20, 60),
        min_job_age_s=20,
        shares={
            "transient": 0.05, "software_error": 0.04, "out_of_memory": 0.02, "timed_out": 0.02,
            "node_failed": 0.01, "invalid_input": 0.02,
        },
    )  # fmt: skip
    slurm = run_campaign(db, tmp_path, script)
    assert read(db, "SELECT count(*) FROM attempt WHERE state <> 'ended'") == [(0,)]
    assert read(db, "SELECT count(*) FROM submission WHERE state <> 'ended'") == [(0,)]
    states = dict(read(db, "SELECT state, count(*) FROM element GROUP BY 1"))
    assert sum(states.values()) == BATCHES * SIZE
    assert states["succeeded"] > 0.9 * BATCHES * SIZE
    assert set(states) <= {"succeeded", "invalid_input", "software_error", "transient"}
    # attempts in the store are exactly what the cluster has run, each under its own submission
    ran = read(
        db,
        "SELECT s.key, e.index, a.outcome FROM attempt a"
        " JOIN submission s ON s.id = a.submission_id JOIN element e ON e.id = a.element_id",
    )
    assert len(ran) > BATCHES * SIZE
    assert Counter((key, index) for key, index, _ in ran) == slurm.cluster.begun
    acted = {
        (task.job.name, index): task.kind
        for job in slurm.cluster.jobs.values()
        for task in job.tasks
        for index in task.elements
    }
    for key, index, outcome in ran:
        kind = acted[key, index]
        expected = {"TIMEOUT": "timed_out", "OUT_OF_MEMORY": "out_of_memory",
                    "NODE_FAIL": "node_failed"}.get(kind.state, kind.outcome)  # fmt: skip
        assert outcome == expected, (key, index)
    assert max(slurm.status_calls(PACE.poll_every_s)) <= 2


def test_a_batch_is_submitted_in_arrays_that_are_open_together(
    db: Database, tmp_path: Path
) -> None:
    """Five of 50 ask for more memory: arrays of 20, 20 and 5 of the usual, and one of 5."""
    script = Script(slots=300, runs_s=(60, 90), shares={"transient": 0.06, "invalid_input": 0.02})
    policy = RetryPolicy(max_retries=0)
    placement = PlannedPlacement(step=STEP, array_size=20, retries=policy)
    slurm = run_campaign(db, tmp_path, script, [placement], slots=48)
    # three arrays' worth of elements share the 48 slots of a batch
    by_batch: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
    for job in slurm.cluster.jobs.values():
        batch = job.name.rpartition(".w")[0]
        memory = {f"--mem={mib}M" for mib in (4096, 8192)}.intersection(
            read_words(tmp_path, job.name)
        )
        by_batch[batch].append((len(job.tasks), job.at_once, memory.pop()))
    assert len(by_batch) == BATCHES
    for arrays in by_batch.values():
        assert sorted(arrays) == [
            (5, 5, "--mem=4096M"), (5, 5, "--mem=8192M"),
            (20, 16, "--mem=4096M"), (20, 16, "--mem=4096M"),
        ]  # fmt: skip
    states = dict(read(db, "SELECT state, count(*) FROM element GROUP BY 1"))
    assert set(states) == {"succeeded", "transient", "invalid_input"}
    assert sum(states.values()) == BATCHES * SIZE
    assert read(db, "SELECT max(number) FROM attempt") == [(1,)], "no retry: the campaign says so"
    overlap = (
        "SELECT count(*) FROM submission a JOIN submission b ON a.batch_id = b.batch_id"
        " AND a.id < b.id AND b.intended_at < a.ended_at"
    )
    assert read(db, overlap)[0][0] > 0


def read_words(folder: Path, key: str) -> set[str]:
    """Read what the script of a submission tells sbatch."""
    (script,) = folder.glob(f"work/runs/*/batches/*/slurm/{key}/job.sh")
    return {line.removeprefix("#SBATCH ") for line in script.read_text().splitlines()}
