"""The scripted Slurm of tests and benchmarks: it prints what the real one prints, or refuses."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from muster.backends.array_tasks import render_elements
from muster.backends.slurm.parse import (
    ACCOUNTING_ARGUMENTS,
    FIELD_END,
    QUEUE_ARGUMENTS,
    TIMES,
    parse_accounting,
    parse_job_id,
    parse_queue,
)
from muster.backends.slurm.render import (
    job_variables,
    render_environment,
    render_script,
)
from muster.model.attempt import Result
from muster.model.batch import Batch, Element
from muster.model.fence import write_fences
from muster.model.resources import Resources
from muster.model.slurm_target import SlurmTarget
from muster.model.wave import Wave
from tests.scripted_cluster import ScaledClock, Script, ScriptedCluster
from tests.scripted_slurm import STATUS_COMMANDS, Latency, ScriptedSlurm

if TYPE_CHECKING:
    from muster.backends.remote.transport import Answer

SAMPLES = Path(__file__).parent / "backends/slurm/samples"
NO_TIME = Latency((0, 0), 0, 0, 0, 0)
SINCE = ("-S", "2026-11-20T00:00:00")


class Clock(ScaledClock):
    """A clock that stands until it is set."""

    now = 0.0

    def now_s(self) -> float:
        return self.now


def make_slurm(script: Script) -> tuple[ScriptedSlurm, Clock]:
    clock = Clock()
    return ScriptedSlurm(ScriptedCluster(script, clock), NO_TIME), clock


def call(slurm: ScriptedSlurm, *arguments: str) -> Answer:
    env = ("env", *TIMES) if arguments[0] in STATUS_COMMANDS else ()
    return asyncio.run(slurm.call([*env, *arguments], timeout_s=5))


def user(slurm: ScriptedSlurm) -> str:
    return call(slurm, "id", "-un").stdout.strip()


def queue(slurm: ScriptedSlurm) -> str:
    return call(slurm, "squeue", *QUEUE_ARGUMENTS, "-u", user(slurm)).stdout


def submit(slurm: ScriptedSlurm, folder: Path, count: int = 4) -> tuple[Wave, Answer]:
    """Submit a wave as the backend does."""
    batch = Batch(
        id="run.b", run="run", step="test.write", backend="slurm", slurm=SlurmTarget(), pool="cpu",
        slots=count, elements=tuple(Element(index=i, name=f"e{i}") for i in range(count)),
        work_uri=str(folder), pool_uri=str(folder),
    )  # fmt: skip
    wave = Wave(batch, "run.b.w1.0", dict.fromkeys(range(count), 1), Resources(memory_mib=10))
    write_fences(wave)
    (folder / "job.sh").write_text(render_script(wave, slots=count))
    (folder / "elements").write_text(render_elements(wave.order, 1))
    (folder / "environment").write_text(render_environment(job_variables(wave, str)))
    return wave, call(slurm, "sbatch", "--parsable", f"--chdir={folder}", f"{folder}/job.sh")


def test_tasks_wait_for_a_slot_run_and_leave_results(tmp_path: Path) -> None:
    slurm, clock = make_slurm(Script(slots=2, runs_s=(10, 10), starts_per_s=1000))
    wave, answer = submit(slurm, tmp_path)
    assert parse_job_id(answer.stdout) == 1
    clock.now = 1
    states = {row.task: row.state for row in parse_queue(queue(slurm))}
    assert states == {0: "RUNNING", 1: "RUNNING", 2: "PENDING", 3: "PENDING"}
    assert not (tmp_path / "results").exists()
    clock.now = 15
    states = {row.task: row.state for row in parse_queue(queue(slurm))}
    assert states == {0: "COMPLETED", 1: "COMPLETED", 2: "RUNNING", 3: "RUNNING"}
    result = Result.model_validate_json((tmp_path / "results/1/1.json").read_bytes())
    assert (result.submission, result.index, result.outcome) == (wave.key, 1, "succeeded")
    assert not (tmp_path / "results/2").exists()


def test_what_has_ended_goes_from_the_queue_to_the_accounting_which_lags(tmp_path: Path) -> None:
    script = Script(slots=9, runs_s=(10, 10), min_job_age_s=20, accounting_lag_s=5)
    slurm, clock = make_slurm(script)
    wave, _ = submit(slurm, tmp_path)
    asked = ("sacct", *ACCOUNTING_ARGUMENTS, *SINCE, "-j", "1")
    (row,) = {(r.state, r.rest) for r in parse_accounting(call(slurm, *asked).stdout)}
    assert row == ("PENDING", False)
    clock.now = 11
    known = {row.state for row in parse_accounting(call(slurm, *asked).stdout)}
    assert known == {"RUNNING", "COMPLETED"}
    clock.now = 40
    assert queue(slurm) == ""
    rows = parse_accounting(call(slurm, *asked).stdout)
    assert [(r.task, r.state, r.name, r.comment) for r in rows] == [
        (i, "COMPLETED", wave.key, wave.key) for i in range(4)
    ]


def test_failures_are_shown_as_slurm_shows_them(tmp_path: Path) -> None:
    slurm, clock = make_slurm(Script(slots=9, runs_s=(1, 1), shares={"software_error": 1.0}))
    submit(slurm, tmp_path)
    clock.now = 50
    (seen,) = {(r.state, r.exit_code, r.signal, r.reason) for r in parse_queue(queue(slurm))}
    assert seen == ("FAILED", 70, None, "NonZeroExitCode")
    asked = ("sacct", *ACCOUNTING_ARGUMENTS, *SINCE, "--name=run.b.w1.0")
    (seen,) = {
        (r.state, r.exit_code, r.signal) for r in parse_accounting(call(slurm, *asked).stdout)
    }
    assert seen == ("FAILED", 70, None)


def test_its_rows_look_like_those_of_a_real_queue(tmp_path: Path) -> None:
    slurm, clock = make_slurm(Script(slots=2, runs_s=(10, 10), starts_per_s=1000))
    submit(slurm, tmp_path)
    clock.now = 12

    def shapes(text: str, state: str) -> set[tuple[str, ...]]:
        rows = [line.split(FIELD_END) for line in text.splitlines()]
        return {
            tuple(re.sub(r"\d+", "9", field) for field in (*row[1:4], *row[6:9]))
            for row in rows
            if len(row) == 12 and row[2] == state and row[1] != "N/A"
        }

    real = (SAMPLES / "queue.txt").read_text(encoding="utf-8")
    for state in ("COMPLETED",):
        assert shapes(queue(slurm), state) <= shapes(real, state)
    assert {len(line.split(FIELD_END)) for line in queue(slurm).splitlines()} == {12}


@pytest.mark.parametrize(
    "arguments",
    [
        ("rm", "-rf", "/"),
        ("sbatch", "--parsable", "--hold", "job.sh"),
        ("squeue", "--json"),
        ("squeue", "-h", "-r", "-t", "all", "-O", "JobID:20", "-u", "root"),
        ("sacct", "-X", "-n", "-p", "-D", "-o", "JobID", "-j", "1"),
        ("sacct", "--allusers"),
        ("scancel", "1"),
        ("scontrol", "shutdown"),
        ("sacctmgr", "delete", "user", "ada"),
        ("id", "-u"),
    ],
)
def test_what_it_does_not_know_it_refuses_and_tells(arguments: tuple[str, ...]) -> None:
    slurm, _ = make_slurm(Script())
    answer = call(slurm, *arguments)
    assert answer.exit_code != 0
    assert answer.stderr
    assert len(slurm.refused) == 1


def test_times_must_be_asked_for_in_seconds() -> None:
    slurm, _ = make_slurm(Script())
    asked = ("squeue", *QUEUE_ARGUMENTS, "-u", user(slurm))
    for env in ((), ("env", "TZ=UTC"), ("env", TIMES[0])):
        assert asyncio.run(slurm.call([*env, *asked], timeout_s=5)).exit_code == 125
    assert asyncio.run(slurm.call(["env", *TIMES, *asked], timeout_s=5)).exit_code == 0


def test_a_full_cluster_takes_no_more(tmp_path: Path) -> None:
    slurm, _ = make_slurm(Script(max_job_count=3))
    _, answer = submit(slurm, tmp_path)
    assert answer.exit_code == 1
    assert "Resource temporarily unavailable" in answer.stderr


def test_what_is_cancelled_ends(tmp_path: Path) -> None:
    slurm, clock = make_slurm(Script(slots=1, runs_s=(100, 100)))
    wave, _ = submit(slurm, tmp_path)
    clock.now = 5
    assert call(slurm, "scancel", f"--name={wave.key}", "-u", user(slurm)).exit_code == 0
    assert {row.state for row in parse_queue(queue(slurm))} == {"CANCELLED"}
    result = Result.model_validate_json((tmp_path / "results/0/1.json").read_bytes())
    assert result.outcome == "terminated"
