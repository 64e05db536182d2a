"""Files in the folder of a submission to Slurm: jobs that wait or run write and read them.

No Slurm is needed: bash runs the job script, with the variables that Slurm would set.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from muster.backends.remote import login_node
from muster.backends.remote.local_commands import LocalCommands
from muster.backends.remote.transport import SharedFiles
from muster.backends.slurm import render
from muster.backends.slurm.backend import SlurmBackend, _read_begun, submission_folder
from muster.backends.slurm.client import CommandClient, _output_options
from muster.backends.slurm.clients import SLURM_CLIENTS
from muster.model.slurm_target import SlurmTarget
from muster.store.database import Database
from tests.unit.pins import frozen
from tests.unit.pins.golden_files import check_literal
from tests.unit.pins.sources import find_all

if TYPE_CHECKING:
    from pathlib import Path

USER = "is the name of a file that jobs of other versions write and read"
KEY = "run.b.w1.0a1b2c3d"
PYTHON = '#!/bin/bash\necho "job $MUSTER_JOB, arguments $*"\n'


@pytest.fixture
def wave(tmp_path: Path) -> frozen.Wave:
    """A wave of three elements, two a task, whose Python only prints its arguments."""
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o700)
    batch = frozen.read_stored(frozen.Batch, "batch-slurm.json")
    assert isinstance(batch.target, SlurmTarget)
    here = {"prelude": (), "container": (), "python": str(python), "transport": "local"}
    cluster = batch.target.cluster.model_copy(update=here)
    slurm = batch.target.model_copy(update={"cluster": cluster})
    work = str(tmp_path / "work")
    batch = batch.model_copy(update={"target": slurm, "work_uri": work, "needs_store": False})
    return frozen.Wave(batch, KEY, {0: 1, 1: 1, 2: 2}, batch.resources)


@pytest.fixture
def folder(wave: frozen.Wave) -> Path:
    """The folder of the wave, as it is before sbatch is called."""
    assert isinstance(wave.batch.target, SlurmTarget)
    db, commands = Database("postgresql://nowhere/muster"), LocalCommands(SLURM_CLIENTS)
    cluster = wave.batch.target.cluster
    client = CommandClient(commands, db, cluster.name)
    return SlurmBackend(db, cluster, client, SharedFiles(), commands)._write(wave)


def list_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def run_task(folder: Path, task: int, job: str) -> str:
    """Run the job script as a task of a job array; return what it prints."""
    slurm = {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_JOB_ID": job, "SLURMD_NODENAME": "n1"}
    ended = subprocess.run(
        ["bash", "job.sh"],
        cwd=folder,
        env={"PATH": os.defpath, **slurm},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_a_submission_has_these_files(folder: Path) -> None:
    check_literal(
        "files of a submission", list_names(folder), ["elements", "environment", "job.sh"], USER
    )
    check_literal("elements", (folder / "elements").read_text(), "0 1\n2\n", USER)


def test_constants_are_the_names_of_files() -> None:
    check_literal(
        "constants",
        {
            "ENVIRONMENT_FILE": render.ENVIRONMENT_FILE,
            "ELEMENTS_FILE": render.ELEMENTS_FILE,
            "STARTED_FILE": render.STARTED_FILE,
            "login_node.STARTED": login_node.STARTED,
        },
        {
            "ENVIRONMENT_FILE": "environment",
            "ELEMENTS_FILE": "elements",
            "STARTED_FILE": "started",
            "login_node.STARTED": "started.",
        },
        USER,
    )


def test_a_job_reads_these_files_and_leaves_a_note(wave: frozen.Wave, folder: Path) -> None:
    """The note of its task: by it the job is found again, and ends a twin."""
    printed = run_task(folder, task=1, job="4711")
    arguments = f"-m muster run {wave.batch.uri} --logs --index 2"
    check_literal("a job's command", printed, f"job {KEY}, arguments {arguments}\n", USER)
    names = ["elements", "environment", "job.4711", "job.sh", "started.1"]
    check_literal("files of a job that has begun", list_names(folder), names, USER)
    check_literal("note of a task", (folder / "started.1").read_text(), "4711\n", USER)
    twin = run_task(folder, task=1, job="4712")
    check_literal(
        "a twin",
        twin.partition(":")[2],
        " job 4711 has begun task 1: a twin of it ends here\n",
        USER,
    )


def test_notes_of_an_earlier_version_are_found(wave: frozen.Wave) -> None:
    folder = submission_folder(wave)
    folder.mkdir(parents=True)
    (folder / "started.12").write_text("4711\n")
    check_literal("the job of a note", _read_begun(folder), "4711", USER)


def test_a_login_node_sends_these_files(wave: frozen.Wave) -> None:
    folder = submission_folder(wave)
    folder.mkdir(parents=True)
    for name in ("elements", "environment", "job.sh", "0.out", "job.out", "started.0", "x"):
        (folder / name).write_text("x")
    out = io.BytesIO()
    request = {"path": wave.batch.work_uri, "known": {}, "outputs": []}
    asked = {"limit": 9999, "share": 9999, "scheduler": "slurm", "folders": [request]}
    login_node.Collector(asked, out).run()
    sent = [json.loads(line[line.index(b"{") :]) for line in out.getvalue().splitlines()]
    check_literal(
        "files that are sent",
        sorted(frame["p"].rpartition("/")[2] for frame in sent if "p" in frame),
        ["0.out", "job.out", "started.0"],
        USER,
    )


def test_output_of_jobs_goes_to_these_files(wave: frozen.Wave) -> None:
    one = frozen.Wave(wave.batch, KEY, {0: 1}, wave.resources)
    options = [*render.render_options(wave, slots=2), *render.render_options(one, slots=2)]
    check_literal(
        "options of sbatch",
        [option for option in options if option.startswith("--output")]
        + _output_options("/work/100%"),
        ["--output=%a.out", "--output=job.out", "--output=/work/100%%/jobs.out"],
        USER,
    )


def test_the_source_names_no_other_script_or_output() -> None:
    names = find_all(r"[/\"']((?:jobs?|%a)\.\w+)[\"';]", ".py")
    of_others = {"jobs.parquet", "jobs.batch"}  # a campaign's table, a resource of Kubernetes
    names = [name for name in names if name not in of_others]
    check_literal("names", names, ["%a.out", "job.out", "job.sh", "jobs.out"], USER)
