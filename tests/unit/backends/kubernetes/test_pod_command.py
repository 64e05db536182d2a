"""The command of a pod, run as a kubelet would: by its index it finds its elements."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from muster import storage
from muster.backends.array_tasks import parse_elements, render_elements
from muster.backends.kubernetes.render import elements_uri, render_job, render_pod
from muster.errors import InvalidInput
from muster.model.attempt import Result
from muster.model.fence import write_fences
from muster.model.kubernetes_target import Kubernetes
from muster.model.outcome import Outcome
from muster.model.wave import Wave
from tests.batches import STEPS_FOLDER, make_batch
from tests.unit.backends.kubernetes.test_render import started
from tests.unit.backends.kubernetes.waves import KEY, make_target

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def wave(tmp_path: Path) -> Wave:
    """Elements 0, 2 and 3 of a batch, two a pod, with all that its pods read."""
    target = make_target(
        pack=2,
        volumes=[{"path": str(tmp_path), "claim": "work"}],
        environment={"PYTHONPATH": f"{STEPS_FOLDER}:{os.getcwd()}"},
        cluster=Kubernetes(python=sys.executable),
    )
    batch = make_batch(tmp_path, [{"text": f"$(HOME) {i}"} for i in range(4)])
    batch = batch.model_copy(update={"target": target})
    wave = Wave(batch, KEY, {0: 1, 2: 1, 3: 1}, batch.resources)
    storage.write_text(batch.uri, batch.to_json())
    write_fences(wave)
    storage.write_text(elements_uri(wave), render_elements(wave.order, 2))
    return wave


def run_pod(wave: Wave, index: int) -> subprocess.CompletedProcess[str]:
    command, variables = started(render_job(wave, render_pod(wave.batch)), index)
    return subprocess.run(
        command,
        env={
            "PATH": os.defpath,
            **variables,
            "MUSTER_HOST": "node-7",
            "TMPDIR": wave.batch.work_uri,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def read_result(wave: Wave, index: int) -> Result:
    return Result.model_validate_json(storage.read_bytes(wave.batch.result_uri(index, 1)))


def test_a_pod_runs_the_elements_of_its_index(wave: Wave, tmp_path: Path) -> None:
    ended = run_pod(wave, 0)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "products" / "b-2.txt").read_text().startswith("$(HOME) 2")
    for index in (0, 2):
        result = read_result(wave, index)
        assert (result.outcome, result.submission) == (Outcome.SUCCEEDED, KEY)
        assert result.host == "node-7"
    assert not storage.exists(wave.batch.result_uri(3, 1))


def test_a_node_that_does_not_see_the_list_leaves_its_elements_to_another(wave: Wave) -> None:
    storage.delete(elements_uri(wave))
    ended = run_pod(wave, 1)
    assert ended.returncode == os.EX_TEMPFAIL
    assert "this node does not see the list of elements" in ended.stderr


def test_an_index_beyond_the_list_is_refused(wave: Wave) -> None:
    wave = replace(wave, submitted=(0, 2, 3))
    ended = run_pod(wave, 5)
    assert ended.returncode == os.EX_DATAERR
    assert "no elements at this place of the list" in ended.stderr
    assert "got: place 5; expected: one of 2 lines" in ended.stderr


def test_a_list_of_elements_says_which_are_whose() -> None:
    text = render_elements([4, 1, 9, 7, 12], 2)
    assert [parse_elements(text, place, "x") for place in range(3)] == [[1, 4], [7, 9], [12]]
    for wrong in ("", "1 a\n", "\n", "-1\n", "1.5\n"):
        with pytest.raises(InvalidInput, match="no elements at this place"):
            parse_elements(wrong, 0, "x")


@pytest.mark.parametrize(
    "arguments",
    [(), ("--index", "1", "--all"), ("--elements", "x"), ("--index", "1", "--place", "0")],
)
def test_muster_run_takes_one_way_to_name_elements(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    from muster.cli import main

    assert main(["run", "batch.json", "--job", KEY, *arguments]) != 0
    assert "give " in capsys.readouterr().err
