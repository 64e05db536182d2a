"""Elements that run one after the other in one process: what they share, and what they do not."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psutil
import pytest

from muster import storage
from muster.jobs.running.runner import Running, run_elements
from muster.jobs.running.warm import GROWTH_ELEMENTS, GROWTH_MIB, why_replace
from muster.model.attempt import Fence, Result
from muster.model.fence import read_fence, write_fences
from muster.model.logs import log_of
from muster.model.outcome import Outcome
from muster.model.resources import Resources
from muster.model.wave import Wave
from tests.batches import add_steps_to_path, make_batch

if TYPE_CHECKING:
    from muster.model.batch import Batch

KEY = "run.b.w1.0a1b2c3d"


@pytest.fixture(autouse=True)
def _steps(monkeypatch: pytest.MonkeyPatch) -> None:
    add_steps_to_path(monkeypatch)


def make(
    folder: Path,
    acts: list[list[str]],
    *,
    step: str = "test.stay",
    resources: Resources | None = None,
    layout: Literal[2] | None = 2,
    **more: Any,
) -> Batch:
    inputs = [{"acts": a, **more} for a in acts]
    batch = make_batch(folder, inputs, step=step, resources=resources, layout=layout)
    write_fences(Wave(batch, KEY, dict.fromkeys(range(len(acts)), 1), batch.resources))
    return batch


def run(batch: Batch, **how: Any) -> list[Result]:
    indexes = list(range(len(batch.elements)))
    run_elements(batch.uri, indexes, Running(KEY, own_logs=True, **how))
    return [read(batch, index) for index in indexes]


def read(batch: Batch, index: int) -> Result:
    return Result.model_validate_json(storage.read_bytes(batch.result_uri(index, 1)))


def outcomes(results: list[Result]) -> list[str]:
    return [str(result.outcome) for result in results]


def pids(results: list[Result]) -> list[int | None]:
    return [result.facts.get("pid") for result in results]


def test_elements_of_a_job_share_a_process_and_nothing_that_changes_them(tmp_path: Path) -> None:
    results = run(make(tmp_path, [["leave"], [], ["invalid"], []]))
    assert outcomes(results) == ["succeeded", "succeeded", "invalid_input", "succeeded"]
    assert (results[2].exit_code, results[2].error_class) == (65, "InvalidInput")
    first, second, _, last = (result.facts for result in results)
    assert first["pid"] == second["pid"] == last["pid"] != os.getpid()
    assert [facts["index"] for facts in (first, second, last)] == ["0", "1", "3"]
    for name in ("cwd", "umask", "variable", "stdin"):
        assert second[name] == first[name], name
    assert first["stdin"] == "/dev/null"
    assert first["variable"] is None
    assert not psutil.pid_exists(first["pid"]), "it ends with its job"


@pytest.mark.parametrize(
    ("how", "expected", "sign"),
    [
        ("crash", "software_error", signal.SIGSEGV),
        ("kill", "terminated", signal.SIGKILL),
        ("exit", "software_error", None),
        ("sleep", "timed_out", None),
        ("use", "out_of_memory", None),
    ],
)
def test_what_ends_the_process_is_charged_to_the_element_that_ran(
    tmp_path: Path, how: str, expected: str, sign: int | None
) -> None:
    limits = Resources(memory_mib=300, time_limit_s=2)
    acts = [[], [how, *(["sleep"] if how == "use" else [])], [], []]
    if how == "use":  # it is measured now and then, so it stays a while
        acts[1] = ["keep", "sleep"]
    results = run(make(tmp_path, acts, resources=limits, mib=400))
    assert outcomes(results) == ["succeeded", expected, "succeeded", "succeeded"]
    assert results[1].signal == sign
    assert results[1].facts == {}
    first, _, third, fourth = pids(results)
    assert first != third == fourth
    assert not Path(make_batch(tmp_path, [{}] * 2).elements[1].outputs["out"]).exists()


def test_a_step_may_have_a_process_of_its_own(tmp_path: Path) -> None:
    alone = run(make(tmp_path / "alone", [[], [], []], step="test.stay_alone"))
    assert len(set(pids(alone))) == 3


def test_who_leaves_processes_behind_loses_them_and_the_next_has_a_fresh_one(
    tmp_path: Path,
) -> None:
    first, second, third = run(make(tmp_path, [["fork"], [], []]))
    assert first.facts["pid"] != second.facts["pid"] == third.facts["pid"]
    left = [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", "600"]]
    assert not left


def test_memory_is_measured_of_each_element_and_what_is_kept_replaces_the_process(
    tmp_path: Path,
) -> None:
    acts = [["use"], [], ["keep"], []]
    results = run(make(tmp_path, acts, resources=Resources(memory_mib=200), mib=130))
    assert outcomes(results) == ["succeeded"] * 4
    used, idle, kept, after = (result.max_rss_mib or 0 for result in results)
    assert used > 130
    assert idle < 100
    assert kept > 130
    assert after < 100
    first, second, third, fourth = pids(results)
    assert first == second == third != fourth


def test_growth_without_an_end_replaces_a_process() -> None:
    grown = [100 + number * GROWTH_MIB / (GROWTH_ELEMENTS - 1) for number in range(20)]
    assert why_replace(grown[:GROWTH_ELEMENTS], None) is None
    assert "grown" in (why_replace(grown[: GROWTH_ELEMENTS + 1], None) or "")
    level = [100.0, 400.0, *[410.0, 405.0] * 10]
    assert all(why_replace(level[:end], None) is None for end in range(len(level)))
    assert why_replace([599.0], 1000) is None
    assert "keeps" in (why_replace([601.0], 1000) or "")


@pytest.mark.parametrize("layout", [None, 2])
def test_each_element_has_its_own_part_of_what_was_said(
    tmp_path: Path, layout: Literal[2] | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="muster")
    batch = make(tmp_path, [[], ["kill"], ["invalid"], []], layout=layout)
    results = run(batch)
    for index in range(4):
        said = log_of(batch, index, 1).read().decode()
        assert f"element {index} says b-{index}\n" in said
        assert said.count("says") == 1
        assert said.splitlines()[-1].endswith(" s"), "the runner's own word is the last"
        assert f"b-e{index}: {results[index].outcome}" in said
    logs = [path for path in Path(batch.work_uri, "logs").rglob("*") if path.is_file()]
    assert len(logs) == (1 if layout else 4)


def test_a_job_leaves_two_inodes_an_attempt_and_fewer_for_packs(tmp_path: Path) -> None:
    alone = make(tmp_path / "alone", [[]])
    run(alone)
    assert count_inodes(alone) == 2
    pack = make(tmp_path / "pack", [[]] * 10)
    run(pack, progress_every_s=0.01)
    assert count_inodes(pack) == 11, "a result each, and one log"


def count_inodes(batch: Batch) -> int:
    """Count what attempts have left, without what there is once a batch."""
    work = Path(batch.work_uri)
    once = {work / name for name in ("results", "logs", "progress", "fences.json")}
    found = [p for p in work.rglob("*") if p not in once and not p.name.startswith("batch-")]
    return len({p.stat().st_ino for p in found})


def test_elements_are_begun_while_there_is_time_and_left_to_another_job(tmp_path: Path) -> None:
    batch = make(tmp_path, [[]] * 4, seconds=0.5)
    code = run_elements(batch.uri, [0, 1, 2, 3], Running(KEY, ends_at=time.time() + 16.5))
    results = [read(batch, index) for index in range(4)]
    assert code == 0
    assert outcomes(results)[0] == "succeeded", "one is begun in any case"
    assert outcomes(results)[-1] == "not_begun"
    assert set(outcomes(results)) == {"succeeded", "not_begun"}
    assert results[-1].message == "its job's walltime would have ended before it"
    again = run_elements(batch.uri, [3], Running(KEY))
    assert (again, outcomes([read(batch, 3)])) == (0, ["not_begun"]), "an end is an end"


def test_what_past_attempts_took_is_part_of_the_margin(tmp_path: Path) -> None:
    batch = make(tmp_path, [[]] * 2)
    wave = Wave(batch, KEY, {0: 1, 1: 1}, batch.resources, longest_s=100.0)
    write_fences(wave)
    run_elements(batch.uri, [0, 1], Running(KEY, ends_at=time.time() + 100))
    assert outcomes([read(batch, index) for index in (0, 1)]) == ["succeeded", "not_begun"]


def test_who_is_told_to_stop_leaves_what_has_not_begun(tmp_path: Path) -> None:
    batch = make(tmp_path, [[], ["sleep"], [], []])
    runner = start(batch, 4)
    wait_for(lambda: "element 1 says" in log_of(batch, 1, 1).read().decode())
    runner.send_signal(signal.SIGTERM)
    assert runner.wait(20) == 143
    results = [read(batch, index) for index in range(4)]
    assert outcomes(results) == ["succeeded", "terminated", "not_begun", "not_begun"]


def test_the_log_of_what_runs_is_read_from_where_it_begins(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    batch = make(tmp_path, [[], []], gate=str(gate))
    runner = start(batch, 2)
    wait_for(lambda: "element 0 says" in log_of(batch, 0, 1).read().decode())
    gate.touch()
    wait_for(lambda: Path(batch.result_uri(0, 1)).exists())
    assert runner.wait(20) == 0
    assert not list(Path(batch.work_uri, "progress").glob("*")), "no word is left"
    first, second = log_of(batch, 0, 1).read(), log_of(batch, 1, 1).read()
    assert b"element 1" not in first
    assert b"element 0" not in second
    assert b"element 1 says" in second


def test_the_word_of_a_worker_says_what_it_runs_and_where_its_output_begins(
    tmp_path: Path,
) -> None:
    gate = tmp_path / "gate"
    inputs: list[dict[str, Any]] = [{"acts": []}, {"acts": [], "gate": str(gate)}]
    batch = make_batch(tmp_path, inputs, step="test.stay")
    write_fences(Wave(batch, KEY, {0: 1, 1: 1}, batch.resources))
    runner = start(batch, 2, MUSTER_PROGRESS_EVERY_S="0.05")
    wait_for(lambda: b"element 1 says" in log_of(batch, 1, 1).read())
    assert b"element 0" not in log_of(batch, 1, 1).read(), "while it runs, too"
    gate.touch()
    assert runner.wait(20) == 0


def test_a_kill_of_the_runner_ends_its_process(tmp_path: Path) -> None:
    batch = make(tmp_path, [[], ["sleep"]])
    runner = start(batch, 2)
    wait_for(lambda: b"element 1 says" in log_of(batch, 1, 1).read())
    (below,) = psutil.Process(runner.pid).children()
    runner.kill()
    runner.wait()
    psutil.wait_procs([below], timeout=10)
    assert not below.is_running()
    assert not Path(batch.result_uri(1, 1)).exists()


def test_a_superseded_element_publishes_nothing_and_the_next_one_runs(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    batch = make(tmp_path, [[], []], gate=str(gate))
    runner = start(batch, 2)
    wait_for(lambda: b"element 0 says" in log_of(batch, 0, 1).read())
    write_fences(Wave(batch, "run.b.w2.other", {0: 2}, batch.resources))
    gate.touch()
    assert runner.wait(20) == 0
    assert outcomes([read(batch, index) for index in (0, 1)]) == ["superseded", "succeeded"]
    assert not Path(batch.elements[0].outputs["out"]).exists()


def test_several_at_once_have_a_process_and_a_log_each(tmp_path: Path) -> None:
    batch = make(tmp_path, [[]] * 6, seconds=0.2)
    results = run(batch, workers=2)
    assert outcomes(results) == ["succeeded"] * 6
    assert len(set(pids(results))) == 2
    for index in range(6):
        said = log_of(batch, index, 1).read().decode()
        assert said.count("says") == 1
        assert f"element {index} says" in said


def test_fences_of_others_stay_when_somebody_who_was_replaced_writes_his(tmp_path: Path) -> None:
    batch = make(tmp_path, [[]] * 3)
    write_fences(Wave(batch, "new", {2: 5}, Resources(cpus=3)))
    write_fences(Wave(batch, "old", {0: 1}, batch.resources))
    said = json.loads(Path(batch.fence_uri(0)).read_text())
    assert {index: Fence.model_validate(fence).submission for index, fence in said.items()} == {
        "0": "old", "1": KEY, "2": "new",
    }  # fmt: skip


def test_not_begun_is_no_exit_code_of_a_failure() -> None:
    from muster.model.outcome import exit_code_of

    assert exit_code_of(Outcome.NOT_BEGUN) == 0


def test_a_word_of_a_step_in_its_process_name_is_checked(tmp_path: Path) -> None:
    """Whatever it writes to the line: one element ends by it, and the next one runs."""
    acts = [[], ["answer"], []]
    results = run(make(tmp_path, acts, resources=Resources(time_limit_s=20)))
    assert outcomes(results) == ["succeeded", "software_error", "succeeded"]
    assert results[0].facts["pid"] != results[2].facts["pid"]


def test_fences_are_written_where_there_are_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr("muster.model.fence.fcntl.flock", refuse)
    batch = make(tmp_path, [[], []])
    fence = read_fence(batch, 1)
    assert fence is not None
    assert fence.submission == KEY


def start(batch: Batch, count: int, **variables: str) -> subprocess.Popen[bytes]:
    """Start a job as a backend does: its output goes to the log that it is told of."""
    log = Path(batch.log_uri(0, 1))
    log.parent.mkdir(parents=True, exist_ok=True)
    indexes = [word for index in range(count) for word in ("--index", str(index))]
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "muster", "run", batch.uri, *indexes],
            env={
                **os.environ,
                "MUSTER_JOB": KEY,
                "MUSTER_LOG": f"logs/{log.name}",
                "PYTHONUNBUFFERED": "1",
                **variables,
            },
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)
