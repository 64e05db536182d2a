"""What elements say reaches the task's log while they run: every line once, bounded, named."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from muster.jobs.supervision.follow_logs import ATTEMPT_BYTES
from muster.model.logs import log_of
from operators.batch import LOG_LINES
from tests.integration.airflow.slurm.cluster_run import ClusterRun

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.airflow.slurm.conftest import OnSlurm

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.slow,
    pytest.mark.slurm,
    pytest.mark.thorough,
    pytest.mark.timeout(900),
]


def told(run: ClusterRun, name: str) -> list[str]:
    """Return the lines of an element that the task's log has: followed, then those of the end."""
    prefix = f"{name}, attempt 1 | "
    lines = run.task_log().splitlines()
    return [line.partition(prefix)[2] for line in lines if prefix in line]


def written(run: ClusterRun, index: int) -> list[str]:
    return log_of(run.batch, index, 1).read().decode().splitlines()


@pytest.mark.parametrize("killed", [False, True])
def test_each_line_is_told_once_while_it_runs(
    muster: OnSlurm, tmp_path: Path, killed: bool
) -> None:
    """Also where one triggerer is killed in the middle and the next goes on."""
    gate = tmp_path / "gate"
    wishes = [{"name": f"e{i}", "lines": 80, "gate": str(gate)} for i in range(3)]
    run = ClusterRun(muster, tmp_path, [wishes], step="test.talk", slots=3)
    run.start()
    names = [element.name for element in run.batch.elements]
    half = [f"e{i} says 39" for i in range(3)]
    muster.wait(lambda: [told(run, name)[-1:] for name in names] == [[line] for line in half], 600)
    assert len(run.running()) == 3, "told while they run"
    before = {name: told(run, name) for name in names}
    if killed:
        muster.live.kill("triggerer")
        muster.live.restart("triggerer")
    gate.touch()
    assert run.end(600) == "success"
    for index, name in enumerate(names):
        lines = told(run, name)
        assert lines == written(run, index), "no gap and no double"
        assert lines[: len(before[name])] == before[name]
        said = [line for line in lines if f"e{index} says" in line]
        assert said == [f"e{index} says {number}" for number in range(80)]
        assert f"log of {name}, attempt 1: {log_of(run.batch, index, 1).uri}" in run.task_log()


def test_a_flood_is_told_in_part(muster: OnSlurm, tmp_path: Path) -> None:
    wishes = [{"name": "e0", "lines": 5000, "width": 100}]
    run = ClusterRun(muster, tmp_path, [wishes], step="test.talk")
    run.start()
    assert run.end(600) == "success"
    name = run.batch.elements[0].name
    log = run.task_log()
    lines = told(run, name)
    assert lines[-1] == f"… and more in {log_of(run.batch, 0, 1).uri}"
    told_bytes = sum(len(line) + 1 for line in lines[:-1]) - 1  # the last of them is cut short
    assert told_bytes <= ATTEMPT_BYTES
    whole = written(run, 0)
    assert lines[: len(lines) - 2] == whole[: len(lines) - 2]
    tail = log.partition("| … the end of it:")[2]
    rest = re.findall(r"\| (.*)$", tail, re.MULTILINE)[:LOG_LINES]
    assert rest == whole[-LOG_LINES:]
    assert len(log) < 3 * ATTEMPT_BYTES
