"""How jobs and steps are started, and that what was started by an earlier version still runs.

A job script waits in a queue for days, and a runner lives for hours: both start this code by the
names that they were written with.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from muster.backends.array_tasks import render_elements
from muster.backends.local import LocalBackend
from muster.backends.slurm.render import job_variables, render_script
from muster.cli import main
from muster.model.fence import write_fences
from muster.model.slurm_target import SlurmTarget
from tests.batches import add_steps_to_path, make_batch
from tests.unit.pins import frozen
from tests.unit.pins.golden_files import check_golden, check_literal, read_golden, render_json

if TYPE_CHECKING:
    from pathlib import Path

USER = "is called by job scripts that wait in a queue, and by runners that live"
KEY = "run.b.w1.0a1b2c3d"


class Started(OSError):
    """Raised in place of a start."""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Note what is to be started, with the files that it is to read, and start nothing."""
    found: list[dict[str, Any]] = []

    def note(command: list[str], **how: Any) -> None:
        named = {n: v for n, v in how["env"].items() if n.startswith("MUSTER_")}
        found.append({"command": command, "named": named, "env": how["env"]})
        if command[-1].endswith("task.json"):
            with open(command[-1]) as file:
                found[-1]["task"] = json.load(file)
        raise Started(13, "not started: this is a test")

    for name in [name for name in os.environ if name.startswith("MUSTER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(subprocess, "Popen", note)
    return found


def make_wave(folder: Path) -> frozen.Wave:
    batch = make_batch(folder, [{"text": "a"}, {"text": "b"}])
    wave = frozen.Wave(batch, KEY, {1: 3}, frozen.Resources(cpus=2, memory_mib=512))
    write_fences(wave)
    return wave


OF_A_JOB = ("#SBATCH ", "exec ", ". ./", "IFS=' ' read ", "muster_arguments+=")
"""How the lines of a script begin that ask Slurm, read files beside it, or call Muster."""


def test_a_job_script_asks_for_the_same_and_calls_the_same_command() -> None:
    batch = frozen.read_stored(frozen.Batch, "batch-slurm.json")
    wave = frozen.Wave(batch, KEY, {0: 1, 1: 1, 2: 2}, batch.resources)
    assert isinstance(batch.target, SlurmTarget)
    lines = render_script(wave, slots=2).splitlines()
    text = "".join(f"{line}\n" for line in lines if line.lstrip().startswith(OF_A_JOB))
    check_golden("job-script-lines.txt", text, USER)
    check_golden("job-elements.txt", render_elements(wave.attempts, batch.target.pack), USER)
    variables = job_variables(wave, lambda path: f"there:{path}")
    check_golden("job-variables.json", render_json(variables), USER)


def test_a_job_script_of_the_second_layout_says_which_log_is_its_own() -> None:
    batch = frozen.read_stored(frozen.Batch, "batch-campaign.json")
    wave = frozen.Wave(batch, KEY, {0: 1, 1: 1}, batch.resources)
    lines = render_script(wave, slots=2).splitlines()
    check_literal(
        "log and command of a job script",
        [line for line in lines if line.startswith("export MUSTER_LOG") or "muster run" in line],
        [
            'export MUSTER_LOG="slurm/$MUSTER_JOB/job.out"',
            'exec apptainer exec --nv /images/muster.sif "$MUSTER_PYTHON" -m muster run'
            ' "$MUSTER_BATCH" "${muster_arguments[@]}"',
        ],
        USER,
    )


def test_a_local_runner_is_started_by_this_command(
    tmp_path: Path, started: list[dict[str, Any]]
) -> None:
    wave = make_wave(tmp_path)

    async def submit() -> None:
        backend = LocalBackend()
        await backend.submit(wave)
        for _ in range(100):
            if started:
                return
            await asyncio.sleep(0.01)

    asyncio.run(submit())
    check_literal(
        "a local runner",
        (started[0]["command"], started[0]["named"]),
        (
            [sys.executable, "-m", "muster", "run", wave.batch.uri, "--index", "1"],
            {
                "MUSTER_JOB": KEY,
                "MUSTER_BATCH": wave.batch.uri,
                "MUSTER_INDEX": "1",
                "MUSTER_ATTEMPT": "3",
                "MUSTER_WORK": wave.batch.work_uri,
                "MUSTER_LOG": "logs/1.3.log",
                "MUSTER_PARENT_PID": str(os.getpid()),
            },
        ),
        USER,
    )


def test_a_runner_starts_its_step_by_this_command_and_task(
    tmp_path: Path, started: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    wave = make_wave(tmp_path)
    monkeypatch.setenv("MUSTER_JOB", KEY)
    main(["run", wave.batch.uri, "--index", "1"])
    step = started[0]
    task = step["task"]
    scratch = step["command"][3].removesuffix("/task.json")
    check_literal("start of a step", step["command"][:2], [sys.executable, "-m"], USER)
    assert step["command"][2].endswith(".child"), "wherever the module lies"
    check_literal(
        "variables of a step",
        {name: step["env"].get(name) for name in [*step["named"], *THREADS]},
        {
            "MUSTER_JOB": KEY,
            "MUSTER_INDEX": "1",
            "MUSTER_ATTEMPT": "3",
            "MUSTER_ROLE": "step",
            **dict.fromkeys(THREADS, "2"),
        },
        USER,
    )
    check_golden("child-task.json", mask(task, scratch), USER)


THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "GDAL_NUM_THREADS",
)


def mask(task: dict[str, Any], scratch: str) -> str:
    """Render a task without what is another one in every run."""
    text = render_json({**task, "parent_pid": 0, "outputs": dict.fromkeys(task["outputs"], "OUT")})
    return text.replace(scratch, "SCRATCH")


@pytest.mark.parametrize("module", ["muster.jobs.child"])
def test_a_living_runner_can_start_its_step(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the task of the golden file, and by every module name that a runner may have in hand."""
    add_steps_to_path(monkeypatch)
    text = read_golden("child-task.json").replace("SCRATCH", str(tmp_path))
    task = {**json.loads(text), "parent_pid": os.getpid(), "outputs": {"out": f"{tmp_path}/out"}}
    path = tmp_path / "task.json"
    path.write_text(json.dumps(task))
    ended = subprocess.run(
        [sys.executable, "-m", module, str(path)], capture_output=True, text=True, check=False
    )
    check_literal(f"end of python -m {module}", ended.returncode, 0, f"{USER}: {ended.stderr}")
    report = json.loads((tmp_path / "report.json").read_text())
    check_literal("report of a step", report, {"facts": {"characters": 1}}, USER)


def test_a_step_that_fails_says_so_by_these_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_steps_to_path(monkeypatch)
    text = read_golden("child-task.json").replace("SCRATCH", str(tmp_path))
    task = json.loads(text)
    task |= {"parent_pid": os.getpid(), "outputs": {"out": f"{tmp_path}/out"}}
    task |= {"step": "test.misbehave", "inputs": {"how": "invalid", "ledger": f"{tmp_path}/l"}}
    (tmp_path / "task.json").write_text(json.dumps(task))
    command = [sys.executable, "-m", "muster.jobs.child", str(tmp_path / "task.json")]
    ended = subprocess.run(command, capture_output=True, check=False)
    check_literal("exit code of an invalid input", ended.returncode, 65, USER)
    check_literal(
        "report of a step",
        json.loads((tmp_path / "report.json").read_text()),
        {"error_class": "InvalidInput", "message": "planted invalid; where: here", "outcome": None},
        USER,
    )


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        (["--logs", "--index", "0", "--index", "1"], {"MUSTER_JOB": "another"}),
        (["--index", "1"], {"MUSTER_JOB": "another", "MUSTER_PROGRESS_EVERY_S": "2.5"}),
        (["--all", "--workers", "2", "--job", "another", "--progress-every", "1"], {}),
    ],
)
def test_muster_run_takes_what_job_scripts_say(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    variables: dict[str, str],
) -> None:
    """Of a job that was superseded: it ends well, and has started nothing."""
    wave = make_wave(tmp_path)
    monkeypatch.delenv("MUSTER_JOB", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    check_literal(
        f"muster run {' '.join(arguments)}", main(["run", wave.batch.uri, *arguments]), 0, USER
    )


def test_muster_run_without_a_submission_key_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the key above was taken from the variable."""
    monkeypatch.delenv("MUSTER_JOB", raising=False)
    assert main(["run", make_wave(tmp_path).batch.uri, "--index", "1"]) == os.EX_USAGE
