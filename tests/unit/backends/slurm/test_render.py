"""The script of a wave: pinned word by word, and run by bash as a node would run it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from muster.backends.array_tasks import plan_tasks, render_elements
from muster.backends.slurm.render import (
    job_variables,
    render_environment,
    render_script,
)
from muster.errors import InvalidInput
from muster.model.batch import Batch, Element
from muster.model.resources import Caps, Resources
from muster.model.slurm_target import Cluster, SlurmTarget
from muster.model.target import LocalTarget
from muster.model.wave import Wave

GOLDEN = Path(__file__).parent / "golden"
KEY = "0123456789.traits.predict.SLA.w1.89abcdef"
HOSTILE = "a b\t'c' \"d\" $(touch hit) `touch hit` ${HOME} \\ %a !x;\n#é ≥ \U0001f333\r\n-- *"


def make_wave(count: int = 1, place: SlurmTarget | None = None, **changes: Any) -> Wave:
    fields: dict[str, Any] = {
        "resources": Resources(cpus=4, memory_mib=8192, time_limit_s=7200),
        "key": KEY,
        "step": "traits.predict",
        "caps": Caps(),
        "environment": {},
        "work_uri": "/work/runs/one/batches/predict",
    } | changes
    batch = Batch(
        id="0123456789.traits.predict.SLA",
        run="one",
        step=fields.pop("step"),
        backend="slurm",
        pool="genoa",
        elements=tuple(Element(index=i, name=f"e{i}") for i in range(max(count, 1))),
        caps=fields.pop("caps"),
        environment=fields.pop("environment"),
        work_uri=fields.pop("work_uri"),
        pool_uri="/work/pools/genoa",
        slurm=place if place is not None else SlurmTarget(partition="genoa"),
    )
    return Wave(batch=batch, attempts=dict.fromkeys(range(count), 1), **fields)


EVERYTHING = SlurmTarget(
    partition="genoa",
    account="m1234",
    qos="regular",
    constraint="(cpu|gpu)&hbm80g",
    reservation="maps_2",
    gres="nvme:1",
    nodes=2,
    ntasks=4,
    exclusive=True,
    options={"mail-type": "FAIL,END", "mail-user": "me@x.org", "nice": 100, "overcommit": True,
             "image": "docker:group/muster:1"},
)  # fmt: skip
CONTAINED = SlurmTarget(
    cluster=Cluster(
        prelude=("module load apptainer", "source '/opt/my env/activate' || exit 75"),
        container=("apptainer", "exec", "--nv", "--bind=/a b", "/images/$(muster).sif"),
    )
)

WAVES = {
    "one": (make_wave(), 1),
    "everything": (
        make_wave(
            5,
            EVERYTHING,
            resources=Resources(cpus=48, memory_mib=65536, time_limit_s=100_000),
            excluded_hosts=["c1", "c7", "c1"],
            depends_on={"ok": ["17"]},
        ),
        2,
    ),
    "packed": (
        make_wave(10, SlurmTarget(partition="genoa", pack=4), caps=Caps(time_limit_s=20_000)),
        8,
    ),
    "gpus": (
        make_wave(
            3, SlurmTarget(partition="l40s", gres="gpu:l40s,nvme:1"), resources=Resources(gpus=2)
        ),
        3,
    ),
    "dependencies": (
        make_wave(2, depends_on={"any": ["3"], "ok": ["1", "2_4"]}),
        100,
    ),
    "container": (make_wave(1, CONTAINED), 1),
    "hostile": (
        make_wave(2, step=f"a\n#SBATCH --wrap=x\n{HOSTILE}", environment={"SAID": HOSTILE}),
        1,
    ),
}


@pytest.mark.parametrize("name", WAVES)
def test_scripts_are_what_they_were(name: str) -> None:
    wave, slots = WAVES[name]
    script = render_script(wave, slots=slots)
    path = GOLDEN / f"{name}.sh"
    if os.environ.get("MUSTER_WRITE_GOLDEN"):
        path.write_text(script, encoding="utf-8")
    assert script == path.read_text(encoding="utf-8")
    subprocess.run(["bash", "-n", str(path)], check=True)


@pytest.mark.parametrize("name", WAVES)
def test_slurm_reads_no_directive_that_was_not_meant(name: str) -> None:
    wave, slots = WAVES[name]
    head, _, body = render_script(wave, slots=slots).partition("\n\n")
    assert "#SBATCH" not in body
    assert all(line.startswith("#SBATCH --") for line in head.splitlines()[2:])
    assert "wrap" not in "".join(head.splitlines()[2:])


@pytest.mark.parametrize(
    ("gres", "gpus", "expected"),
    [
        ("gpu:l40s", 2, "gpu:l40s:2"),
        ("gpu:l40s", 0, None),
        (None, 2, "gpu:2"),
        (None, 0, None),
        ("nvme:1", 1, "gpu:1,nvme:1"),
        ("nvme:1", 0, "nvme:1"),
        ("gpu,nvme:1", 0, "nvme:1"),
        ("gpu,nvme:1", 3, "gpu:3,nvme:1"),
        ("gpu_memory:2", 0, "gpu_memory:2"),
    ],
)
def test_gpus_are_counted_by_the_placement(
    gres: str | None, gpus: int, expected: str | None
) -> None:
    script = render_script(
        make_wave(1, SlurmTarget(gres=gres), resources=Resources(gpus=gpus)), slots=1
    )
    found = [line.partition("--gres=")[2] for line in script.splitlines() if "--gres=" in line]
    assert found == ([] if expected is None else [expected])


@pytest.mark.parametrize(
    ("limit_s", "cap_s", "pack", "count", "expected"),
    [
        (3600, None, 1, 5, "0-01:00:00"),
        (3600, None, 4, 9, "0-04:00:00"),
        (3600, None, 4, 2, "0-02:00:00"),  # no task has more than two
        (3600, 7200, 4, 9, "0-02:00:00"),
        (90000, None, 1, 1, "1-01:00:00"),
        (None, 90061, 1, 1, "1-01:01:01"),
        (None, None, 1, 1, None),
    ],
)
def test_an_array_task_has_time_for_all_its_elements(
    limit_s: int | None, cap_s: int | None, pack: int, count: int, expected: str | None
) -> None:
    wave = make_wave(
        count,
        SlurmTarget(pack=pack),
        resources=Resources(time_limit_s=limit_s),
        caps=Caps(time_limit_s=cap_s),
    )
    script = render_script(wave, slots=1)
    found = [line.partition("--time=")[2] for line in script.splitlines() if "--time=" in line]
    assert found == ([] if expected is None else [expected])


@pytest.mark.parametrize(
    ("slots", "expected"), [(1, "0-4%1"), (4, "0-4%4"), (5, "0-4"), (9, "0-4")]
)
def test_no_more_run_at_once_than_there_are_slots(slots: int, expected: str) -> None:
    assert f"#SBATCH --array={expected}\n" in render_script(make_wave(5), slots=slots)


@pytest.mark.parametrize(
    "changes",
    [
        {"key": "a\n#SBATCH --wrap=x"},
        {"key": "--wrap"},
        {"key": "a b"},
        {"key": ""},
        {"excluded_hosts": ["c1 --wrap=x"]},
        {"excluded_hosts": ["-x"]},
        {"depends_on": {"ok": ["1\n2"]}},
    ],
)
def test_a_word_that_is_none_of_slurms_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        render_script(make_wave(**changes), slots=1)


def test_a_batch_without_a_place_is_refused() -> None:
    wave = make_wave()
    homeless = Wave(
        wave.batch.model_copy(update={"target": LocalTarget()}), KEY, wave.attempts, wave.resources
    )
    with pytest.raises(InvalidInput, match="place on Slurm"):
        render_script(homeless, slots=1)
    with pytest.raises(InvalidInput, match="place on Slurm"):
        job_variables(homeless, str)


def test_elements_are_a_line_a_task() -> None:
    assert render_elements([7, 1, 0, 3, 12], 2) == "0 1\n3 7\n12\n"
    assert render_elements([5, 4], 1) == "4\n5\n"
    assert plan_tasks([7, 1, 0], 2) == [[0, 1], [7]]


@pytest.mark.parametrize(
    "variables",
    [
        {"a b": "x"},
        {"X;touch hit": "x"},
        {"": "x"},
        {"X": "a\0b"},
        {"UID": "0"},
        {"muster_task": "9"},
    ],
)
def test_a_variable_that_no_shell_takes_is_refused(variables: dict[str, str]) -> None:
    with pytest.raises(InvalidInput):
        render_environment(variables)


def test_a_jobs_own_variables_have_the_last_word() -> None:
    place = SlurmTarget(cluster=Cluster(environment={"A": "cluster", "B": "cluster"}, python="py"))
    wave = make_wave(1, place, environment={"B": "batch", "MUSTER_JOB": "another"})
    variables = job_variables(wave, lambda path: f"/there{path}")
    assert variables == {
        "PYTHONUNBUFFERED": "1",
        "A": "cluster",
        "B": "batch",
        "MUSTER_PYTHON": "py",
        "MUSTER_JOB": KEY,
        "MUSTER_BATCH": f"/there{wave.batch.uri}",
        "MUSTER_WORK": "/there/work/runs/one/batches/predict",
    }


class Node:
    """A folder of a submission, and a shell that runs its script as a node does."""

    def __init__(self, folder: Path, wave: Wave) -> None:
        self.folder = folder / "a folder"
        self.folder.mkdir()
        programs = folder / "bin"
        programs.mkdir()
        fake = programs / "python"
        fake.write_text(
            "#!/usr/bin/python3\nimport json, os, sys\n"
            "print('SAID', json.dumps([sys.argv[1:], dict(os.environ)]))\n"
        )
        fake.chmod(0o755)
        pack = wave.batch.target.pack if isinstance(wave.batch.target, SlurmTarget) else 1
        (self.folder / "environment").write_text(
            render_environment(job_variables(wave, str)), newline=""
        )
        (self.folder / "elements").write_text(render_elements(wave.attempts, pack))
        self.script = render_script(wave, slots=1)
        self.path = f"{programs}:/usr/bin:/bin"

    def run(self, task: int | None = 0, job: int = 77) -> subprocess.CompletedProcess[str]:
        variables = {"PATH": self.path, "SLURM_JOB_ID": str(job), "SLURMD_NODENAME": "c1"}
        if task is not None:
            variables["SLURM_ARRAY_TASK_ID"] = str(task)
            variables["SLURM_ARRAY_JOB_ID"] = str(job)
            variables["SLURM_JOB_ID"] = str(job + task)
        return subprocess.run(
            ["bash", "-c", self.script],
            cwd=self.folder,
            env=variables,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def said(self, task: int | None = 0) -> tuple[list[str], dict[str, str]]:
        ended = self.run(task)
        assert ended.returncode == 0, ended.stderr
        assert ended.stderr == ""
        words, arguments = ended.stdout.rstrip("\n").split(" ", 1)
        assert words == "SAID"
        found, environment = json.loads(arguments)
        return found, environment


def here(**changes: Any) -> Cluster:
    return Cluster(**({"python": "python"} | changes))


def test_what_is_hostile_arrives_unchanged_and_runs_nothing(tmp_path: Path) -> None:
    wave = make_wave(
        3,
        SlurmTarget(cluster=here(environment={"OURS": HOSTILE})),
        step=f"s\n{HOSTILE}",
        environment={"SAID": HOSTILE, "IFS": "0123"},
        work_uri=f"/w {HOSTILE}",
    )
    node = Node(tmp_path, wave)
    arguments, environment = node.said(task=2)
    assert arguments == ["-m", "muster", "run", wave.batch.uri, "--logs", "--index", "2"]
    assert environment["SAID"] == environment["OURS"] == HOSTILE
    assert environment["MUSTER_WORK"] == f"/w {HOSTILE}"
    assert environment["MUSTER_BATCH"] == wave.batch.uri
    assert environment["MUSTER_JOB"] == KEY
    assert not list(tmp_path.rglob("hit"))


@pytest.mark.parametrize(
    ("task", "indexes"), [(0, ["0", "1", "2"]), (1, ["3", "4", "5"]), (3, ["9"])]
)
def test_a_packed_task_runs_its_own_elements(tmp_path: Path, task: int, indexes: list[str]) -> None:
    wave = make_wave(10, SlurmTarget(pack=3, cluster=here()))
    arguments, _ = Node(tmp_path, wave).said(task)
    assert [a for a in arguments[5:] if a != "--index"] == indexes


def test_a_job_that_is_no_array_runs_the_only_task(tmp_path: Path) -> None:
    node = Node(tmp_path, make_wave(1, SlurmTarget(cluster=here())))
    assert node.said(task=None)[0][5:] == ["--index", "0"]
    assert (node.folder / "started.0").read_text() == "77\n"


def test_a_container_and_a_prelude_come_before_the_command(tmp_path: Path) -> None:
    cluster = here(
        prelude=("export PRELUDE='it ran'", "MUSTER_PYTHON=another; cd /", "LINE=one \\"),
        container=("python", "exec", "$(touch hit) 'x'"),
    )
    arguments, environment = Node(tmp_path, make_wave(1, SlurmTarget(cluster=cluster))).said()
    assert arguments[:5] == ["exec", "$(touch hit) 'x'", "another", "-m", "muster"]
    assert environment["PRELUDE"] == "it ran"
    assert not list(tmp_path.rglob("hit"))


def test_a_twin_runs_nothing_and_the_same_job_runs_again(tmp_path: Path) -> None:
    node = Node(tmp_path, make_wave(3, SlurmTarget(cluster=here())))
    assert "SAID" in node.run(task=1, job=77).stdout
    twin = node.run(task=1, job=90)
    assert twin.returncode == 0
    assert twin.stdout == "muster: job 77 has begun task 1: a twin of it ends here\n"
    assert "SAID" in node.run(task=1, job=77).stdout  # requeued by its administrator
    assert "SAID" in node.run(task=2, job=90).stdout  # what its twin has not begun


def test_a_task_that_somebody_began_without_a_word_is_not_begun_again(tmp_path: Path) -> None:
    node = Node(tmp_path, make_wave(1, SlurmTarget(cluster=here())))
    (node.folder / "started.0").touch()
    assert node.run().stdout == "muster: job unknown has begun task 0: a twin of it ends here\n"


def test_where_the_folder_is_not_ours_nothing_runs(tmp_path: Path) -> None:
    node = Node(tmp_path, make_wave(1, SlurmTarget(cluster=here())))
    (node.folder / "environment").unlink()
    ended = node.run()
    assert ended.returncode == os.EX_TEMPFAIL
    assert "does not see the folder" in ended.stderr
    assert ended.stdout == ""


def test_where_the_folder_cannot_be_written_to_nothing_runs(tmp_path: Path) -> None:
    node = Node(tmp_path, make_wave(1, SlurmTarget(cluster=here())))
    (node.folder / "started.0").symlink_to("/proc/no/such/folder")  # root may write anywhere
    ended = node.run()
    assert ended.returncode == os.EX_TEMPFAIL
    assert "cannot write" in ended.stderr
