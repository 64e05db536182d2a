"""Elements whose step runs on several ranks: started by a real mpirun, ended with their runner."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from muster import storage
from muster.errors import SoftwareError
from muster.jobs.running.runner import Running, run_elements
from muster.model.attempt import Result
from muster.model.fence import write_fences
from muster.model.launcher import RankWords
from muster.model.ranks import Rank, find_rank
from muster.model.resources import Resources
from muster.model.target import LocalTarget
from muster.model.wave import Wave
from tests.batches import add_steps_to_path, make_batch
from tests.ranks import MPIRUN, NTASKS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from muster.model.batch import Batch

KEY = "run.b.w1.0a1b2c3d"
PATIENCE_S = 60.0

needs_mpirun = pytest.mark.skipif(
    shutil.which("mpirun") is None, reason="needs mpirun: apt-get install openmpi-bin"
)


@pytest.fixture(autouse=True)
def _steps(monkeypatch: pytest.MonkeyPatch) -> None:
    add_steps_to_path(monkeypatch)


def make(
    folder: Path,
    acts: Sequence[Sequence[str]],
    *,
    step: str = "test.share",
    launcher: tuple[str, ...] = MPIRUN,
    resources: Resources | None = None,
    inputs: list[dict[str, Any]] | None = None,
) -> Batch:
    """Freeze a batch of elements on ranks and order its first attempts."""
    if inputs is None:
        inputs = [
            {"acts": list(act), "pids": str(folder / f"pids-{index}")}
            for index, act in enumerate(acts)
        ]
    batch = make_batch(folder, inputs, step=step, resources=resources).model_copy(
        update={"target": LocalTarget(ntasks=NTASKS, launcher=launcher)}
    )
    write_fences(Wave(batch, KEY, dict.fromkeys(range(len(acts)), 1), batch.resources))
    return batch


def run(batch: Batch) -> list[Result]:
    run_elements(batch.uri, list(range(len(batch.elements))), Running(KEY, own_logs=True))
    return [read(batch, index) for index in range(len(batch.elements))]


def read(batch: Batch, index: int) -> Result:
    return Result.model_validate_json(storage.read_bytes(batch.result_uri(index, 1)))


def noted(folder: Path, index: int) -> dict[int, tuple[int, str]]:
    """Rank → its pid and its standard input."""
    found = {}
    for path in (folder / f"pids-{index}").glob("[0-9]*"):
        pid, stdin = path.read_text().split()
        found[int(path.name)] = (int(pid), stdin)
    return found


def assert_gone(pids: Sequence[int], within_s: float = 10.0) -> None:
    deadline_s = time.monotonic() + within_s
    while any(storage.is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline_s, "a rank outlives its runner"
        time.sleep(0.02)


def test_a_launcher_is_said_in_words() -> None:
    words = RankWords(ntasks=3, launcher=("mpirun", "-n", "{ntasks}", "--map-by", "slot:PE={cpus}"))
    assert words.launch_command(4) == ("mpirun", "-n", "3", "--map-by", "slot:PE=4")
    assert RankWords(ntasks=3).launch_command(4) is None, "as batches were frozen before"


@pytest.mark.parametrize(
    ("variables", "rank"),
    [
        ({"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "3"}, Rank(2, 3)),
        ({"PMI_RANK": "0", "PMI_SIZE": "2"}, Rank(0, 2)),
        ({"PMIX_RANK": "1", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "1"}, Rank(1, 4)),
        ({"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4"}, Rank(3, 4)),
        (  # mpirun in a job of Slurm's, whose own script is task 0
            {
                "SLURM_PROCID": "0",
                "OMPI_COMM_WORLD_RANK": "1",
                "OMPI_COMM_WORLD_SIZE": "2",
            },
            Rank(1, 2),
        ),
    ],
)
def test_launchers_say_which_rank_a_process_is(variables: dict[str, str], rank: Rank) -> None:
    assert find_rank(variables) == rank


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({}, "the launcher says no rank"),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, "the launcher says no rank"),
        ({"PMI_RANK": "2", "PMI_SIZE": "2"}, "got: '2', '2'"),
        ({"PMI_RANK": "٤", "PMI_SIZE": "9"}, "no rank; where: PMI_RANK, PMI_SIZE"),
    ],
)
def test_a_launcher_that_says_no_rank_is_refused(variables: dict[str, str], says: str) -> None:
    with pytest.raises(SoftwareError, match=says):
        find_rank(variables)


def test_a_launcher_that_is_not_there_is_named(tmp_path: Path) -> None:
    (result,) = run(make(tmp_path, [[]], launcher=("no-such-mpirun",)))
    assert (result.outcome, result.error_class) == ("software_error", "SoftwareError")
    assert "the launcher of the pool is not found" in (result.message or "")
    assert "got: no-such-mpirun" in (result.message or "")


@pytest.mark.mpi
@needs_mpirun
class TestMpirun:
    """What holds of ranks that mpirun starts."""

    def test_all_ranks_run_the_step_and_the_first_alone_reports(self, tmp_path: Path) -> None:
        batch = make(tmp_path, [[], []])
        results = run(batch)
        for index, result in enumerate(results):
            assert result.outcome == "succeeded", result.message
            assert result.facts == {"rank": 0, "ranks": NTASKS, "index": str(index)}
            assert len(result.artifacts) == 1
            assert Path(batch.elements[index].outputs["out"]).read_text() == "0 1 2"
            ranks = noted(tmp_path, index)
            assert {stdin for _, stdin in ranks.values()} == {"/dev/null"}
            assert_gone([pid for pid, _ in ranks.values()])
        first, second = ({pid for pid, _ in noted(tmp_path, i).values()} for i in (0, 1))
        assert not first & second, "ranks end with their element"
        said = {path.read_text() for path in Path(batch.work_uri).glob("logs/*.log")}
        assert not [text for text in said if "rank 1" in text], "progress is told by rank 0"

    def test_a_step_that_knows_nothing_of_ranks_runs_once(self, tmp_path: Path) -> None:
        ledger = tmp_path / "ledger"
        inputs = {"text": "a", "ledger": str(ledger), "seconds": 0.3}
        (result,) = run(make(tmp_path, [[]], step="test.write", inputs=[inputs]))
        assert (result.outcome, result.facts) == ("succeeded", {"characters": 1}), result.message
        assert ledger.read_text() == "done a\n"

    @pytest.mark.parametrize(
        ("act", "expected"),
        [
            ("2:missing", ("missing_input", 66, None, "planted; where: here")),
            ("1:memory", ("out_of_memory", 70, None, "MemoryError")),
            ("2:crash", ("software_error", None, signal.SIGSEGV, "rank 2 was ended by SIGSEGV")),
            ("1:kill", ("terminated", None, signal.SIGKILL, "a rank was ended by SIGKILL")),
        ],
    )
    def test_a_rank_that_fails_ends_the_others(
        self, tmp_path: Path, act: str, expected: tuple[str, int | None, int | None, str]
    ) -> None:
        batch = make(tmp_path, [[act], []])
        failed, following = run(batch)
        outcome, code, number, message = expected
        assert (failed.outcome, failed.exit_code, failed.signal) == (outcome, code, number)
        assert message in (failed.message or "")
        assert (failed.facts, failed.artifacts) == ({}, ())
        assert failed.seconds < 30, "nobody waits for a rank that is gone"
        assert_gone([pid for pid, _ in noted(tmp_path, 0).values()])
        assert not Path(batch.elements[0].outputs["out"]).exists()
        assert following.outcome == "succeeded", "charged once"

    def test_a_launcher_that_says_all_is_well_is_not_believed(self, tmp_path: Path) -> None:
        """As srun does at times, where it had to end ranks by force."""
        launcher = ("sh", "-c", '"$@"; exit 0', "launcher", *MPIRUN)
        batch = make(tmp_path, [["2:missing"], ["1:crash"], ["1:kill"]], launcher=launcher)
        missing, crashed, killed = run(batch)
        assert (missing.outcome, missing.message) == ("missing_input", "planted; where: here")
        assert (crashed.outcome, crashed.message) == (
            "software_error",
            "rank 1 was ended by SIGSEGV",
        )
        assert killed.outcome == "software_error"
        assert "exit code 0, and no rank says why" in (killed.message or "")
        assert not list((tmp_path / "products").glob("b-*.txt"))

    @pytest.mark.parametrize(
        ("act", "limits", "outcome"),
        [
            ("1:sleep", Resources(time_limit_s=3), "timed_out"),
            ("1:keep 1:sleep", Resources(memory_mib=350), "out_of_memory"),
        ],
    )
    def test_limits_are_those_of_all_ranks_together(
        self, tmp_path: Path, act: str, limits: Resources, outcome: str
    ) -> None:
        (result,) = run(make(tmp_path, [act.split()], resources=limits))
        assert result.outcome == outcome, result.message
        assert (result.max_rss_mib or 0) > (350 if limits.memory_mib else 40)
        assert_gone([pid for pid, _ in noted(tmp_path, 0).values()])

    def test_another_number_of_ranks_is_refused(self, tmp_path: Path) -> None:
        launcher = tuple("2" if word == "{ntasks}" else word for word in MPIRUN)
        batch = make(tmp_path, [[]], launcher=launcher)
        (result,) = run(batch)
        assert result.outcome == "software_error"
        log = storage.read_text(batch.log_uri(0, 1))
        assert "the launcher started another number of ranks; got: 2; expected: 3" in log
        assert not noted(tmp_path, 0)

    @pytest.mark.parametrize(
        ("targets", "number"),
        [
            ("runner", signal.SIGKILL),
            ("runner", signal.SIGTERM),
            ("launcher", signal.SIGKILL),
            ("launcher runner", signal.SIGTERM),  # as Slurm ends a job
        ],
    )
    def test_no_rank_outlives_its_runner_or_its_launcher(
        self, tmp_path: Path, targets: str, number: signal.Signals
    ) -> None:
        batch = make(tmp_path, [["0:sleep"]])
        command = (sys.executable, "-m", "muster", "run", batch.uri, "--index", "0")
        runner = subprocess.Popen(
            [*command, "--job", KEY, "--logs"], stdin=subprocess.DEVNULL, start_new_session=True
        )
        try:
            deadline_s = time.monotonic() + PATIENCE_S
            while len(ranks := noted(tmp_path, 0)) < NTASKS:
                assert time.monotonic() < deadline_s
                assert runner.poll() is None
                time.sleep(0.02)
            below = psutil.Process(runner.pid).children(recursive=True)
            (launcher,) = [p for p in below if p.name().startswith(("mpirun", "orterun"))]
            pids = {"runner": runner.pid, "launcher": launcher.pid}
            for target in targets.split():
                os.kill(pids[target], number)
            runner.wait(PATIENCE_S)
        finally:
            runner.kill()
            runner.wait()
        assert_gone([launcher.pid, *(pid for pid, _ in ranks.values())])
        if (targets, number) != ("runner", signal.SIGKILL):
            assert read(batch, 0).outcome == "terminated"
