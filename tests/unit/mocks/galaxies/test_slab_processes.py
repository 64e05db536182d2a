"""Processes that share the slabs of a box stay for the next box of a warm process."""

from __future__ import annotations

import importlib.util
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from muster import storage
from muster.jobs.running.runner import Running, run_elements
from muster.mocks.campaign.config import read_campaign
from muster.mocks.coordinates import Coordinate
from muster.mocks.plan.catalogue_inputs import plan_one
from muster.model.attempt import Result
from muster.model.fence import write_fences
from muster.model.logs import log_of
from muster.model.resources import Resources
from muster.model.wave import Wave
from tests.batches import add_steps_to_path, make_batch
from tests.mock_campaigns import write_campaign
from tests.unit.mocks.galaxies.haloes import draw_masses, make_halos

if TYPE_CHECKING:
    from muster.model.batch import Batch

pytestmark = pytest.mark.slow
KEY = "run.b.w1.0a1b2c3d"


@pytest.fixture(autouse=True)
def _steps(monkeypatch: pytest.MonkeyPatch) -> None:
    add_steps_to_path(monkeypatch)


def make(folder: Path, acts: list[str], step: str = "test.share_slabs") -> Batch:
    (folder / "halos").write_bytes(pickle.dumps(make_halos(draw_masses(200))))
    inputs = [{"act": act, "halos": str(folder / "halos")} for act in acts]
    resources = Resources(cpus=2)
    batch = make_batch(
        folder, inputs, step=step, resources=resources, layout=None
    )  # a log an element
    write_fences(Wave(batch, KEY, dict.fromkeys(range(len(acts)), 1), resources))
    return batch


def run(batch: Batch) -> list[Result]:
    indexes = list(range(len(batch.elements)))
    run_elements(batch.uri, indexes, Running(KEY, own_logs=True))
    return [Result.model_validate_json(storage.read_bytes(batch.result_uri(i, 1))) for i in indexes]


def test_they_stay_unless_one_ends_which_is_charged_to_its_element(tmp_path: Path) -> None:
    batch = make(tmp_path, ["", "", "fail", "", "die", "orphan", ""])
    results = run(batch)
    failed = {2: "planted", 4: "a process of the galaxy model ended"}
    for index, result in enumerate(results):
        said = log_of(batch, index, 1).read().decode()
        assert f"slab 0 of element {index}\n" in said
        if index in failed:
            assert result.outcome == "software_error"
            assert failed[index] in (result.message or "")
        else:
            assert result.outcome == "succeeded", result.message
            assert result.facts["indexes"] == [index]
            assert said.count("slab") == 4
    made = {i: set(r.facts["pids"]) for i, r in enumerate(results) if i not in failed}
    assert len({r.facts["pid"] for i, r in enumerate(results) if i not in failed}) == 1
    assert len(made[0]) == 2
    assert made[0] == made[1] == made[3], "an error of the model ends none"
    assert made[5].isdisjoint(made[0])
    assert made[6].isdisjoint(made[5]), "one that ended between boxes fails none"
    assert (results[1].max_rss_mib or 0) > 1.8 * results[1].facts["rss_mib"], "theirs counts"
    assert not [p for pids in made.values() for p in pids if storage.is_alive(p)]


def test_none_outlives_a_runner_that_is_killed(tmp_path: Path) -> None:
    batch = make(tmp_path, ["", "sleep"])
    command = [sys.executable, "-m", "muster", "run", batch.uri, "--index", "0", "--index", "1"]
    runner = subprocess.Popen(
        command, env={**os.environ, "MUSTER_JOB": KEY}, stdin=subprocess.DEVNULL
    )
    deadline_s = time.monotonic() + 30
    while not Path(batch.result_uri(0, 1)).exists() or len(below(runner.pid)) < 4:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    left = below(runner.pid)
    runner.kill()
    runner.wait()
    psutil.wait_procs(left, timeout=10)
    assert not [p.pid for p in left if storage.is_alive(p.pid)]


def below(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


@pytest.mark.thorough
def test_a_second_box_of_diffsky_compiles_nothing_on_few_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec("diffsky") is None:  # to import it would start JAX here
        pytest.skip("diffsky is not installed: make mocks")
    monkeypatch.setenv("JAX_LOG_COMPILES", "1")
    monkeypatch.setenv("MUSTER_XLA_CACHE", str(tmp_path / "cache"))
    box = {"box_size_mpch": 50, "lowest_mass_msunh": 1e12}
    campaign = read_campaign(
        write_campaign(tmp_path, realizations=3, model="diffsky", box=box, slabs=2)
    )
    batch = make(tmp_path, [""] * 3, step="mocks.populate")
    elements = tuple(
        element.model_copy(
            update={
                "inputs": plan_one(campaign, Coordinate(element.index, 1.1)),
                "outputs": {"catalogue": str(tmp_path / f"{element.index}.hdf5")},
            }
        )
        for element in batch.elements
    )
    batch = batch.model_copy(update={"elements": elements})
    write_fences(Wave(batch, KEY, dict.fromkeys(range(3), 1), batch.resources))
    monkeypatch.delenv("NPROC", raising=False)  # JAX may have been started in this process
    visible = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(list(visible)[:2]))  # fewer than JAX's pool needs
    try:
        results = run(batch)
    finally:
        os.sched_setaffinity(0, visible)
    assert [result.outcome for result in results] == ["succeeded"] * 3, results[1].message
    compiled = [log_of(batch, i, 1).read().count(b"Finished XLA compilation") for i in range(3)]
    assert compiled[0] > 10
    assert compiled[1:] == [0, 0]
    seconds = [result.facts["seconds"]["galaxies"] for result in results]
    assert max(seconds[1:]) < seconds[0] / 5
