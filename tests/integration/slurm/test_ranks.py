"""Ranks in jobs of a real Slurm, started by srun with PMIx or by mpirun inside the allocation."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from muster import storage
from muster.model.attempt import Result
from muster.model.fence import write_fences
from muster.model.outcome import ALIVE, JobState
from muster.model.wave import Wave
from tests.batches import STEPS_FOLDER, add_steps_to_path, make_batch
from tests.integration.slurm.campaign import Campaign
from tests.mock_campaigns import write_campaign
from tests.ranks import MPIRUN, NTASKS

if TYPE_CHECKING:
    from collections.abc import Callable

    from minislurm.cluster import SlurmCluster
    from muster.model.batch import Batch
    from muster.model.outcome import Observation
    from muster.store.database import Database

pytest.importorskip("h5py", reason="h5py is not installed: make mocks")
pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.mpi, pytest.mark.timeout(300)]
if shutil.which("mpirun") is None or importlib.util.find_spec("mpi4py") is None:
    pytestmark.append(pytest.mark.skip("needs mpirun (openmpi-bin) and mpi4py: make mpi"))

REPOSITORY = Path(__file__).parents[3]
KEY = "run.b.w1.0a1b2c3d"
PATIENCE_S = 120.0
LAUNCHERS = {
    "srun": ("srun", "--mpi=pmix"),  # Debian builds both Slurm and OpenMPI with PMIx
    "mpirun": MPIRUN,
}


@pytest.fixture(params=LAUNCHERS)
def place(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What a pool says of its ranks."""
    return {"ntasks": NTASKS, "launcher": LAUNCHERS[request.param]}


@pytest.fixture
def campaign(
    slurm_cluster: SlurmCluster, db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Campaign:
    add_steps_to_path(monkeypatch)
    path = os.pathsep.join(map(str, (STEPS_FOLDER, REPOSITORY)))
    return Campaign(db, slurm_cluster, tmp_path, {"environment": {"PYTHONPATH": path}})


def submit(
    campaign: Campaign, batch: Batch, meanwhile: Callable[[Observation], bool] = lambda _: True
) -> Observation:
    """Submit the first element alone, and say how its job ended."""
    wave = Wave(batch, KEY, {0: 1}, batch.resources)
    write_fences(wave)

    async def scenario() -> Observation:
        async with asyncio.timeout(PATIENCE_S):
            backend = campaign.backend()
            try:
                reference = await backend.submit(wave)
                done = False
                while True:
                    seen = (await backend.observe(wave, reference))[0]
                    done = done or meanwhile(seen)
                    if seen.state not in ALIVE | {JobState.UNKNOWN}:
                        return seen
                    await asyncio.sleep(0.2)
            finally:
                await backend.close()

    return asyncio.run(scenario())


def read(batch: Batch) -> Result:
    return Result.model_validate_json(storage.read_bytes(batch.result_uri(0, 1)))


def share(campaign: Campaign, place: dict[str, Any], acts: list[str]) -> tuple[Batch, Path]:
    pids = campaign.folder / "pids"
    batch = make_batch(campaign.folder, [{"acts": acts, "pids": str(pids)}], step="test.share")
    return campaign.store(batch, place), pids


def ranks_of(pids: Path) -> list[int]:
    return [int(path.read_text().split()[0]) for path in pids.glob("[0-9]*")]


def test_a_catalogue_of_ranks_has_the_bytes_of_one_process(
    campaign: Campaign, place: dict[str, Any], tmp_path: Path
) -> None:
    from muster.mocks.campaign.config import read_campaign
    from muster.mocks.coordinates import Coordinate
    from muster.mocks.plan.catalogue_inputs import plan_one
    from muster.mocks.populate import populate_mock

    box = {"box_size_mpch": 50, "lowest_mass_msunh": 1e12}
    file = write_campaign(tmp_path, box=box, slabs=5)
    inputs = plan_one(read_campaign(file), Coordinate(0, 1.1))
    serial, made = tmp_path / "serial.hdf5", tmp_path / "ranks.hdf5"
    facts = populate_mock(**inputs, catalogue=serial)
    batch = make_batch(campaign.folder, [inputs], step="mocks.populate")
    (element,) = batch.elements
    element = element.model_copy(update={"outputs": {"catalogue": str(made)}})
    batch = campaign.store(batch.model_copy(update={"elements": (element,)}), place)
    seen = submit(campaign, batch)
    result = read(batch)
    assert (result.outcome, seen.state) == ("succeeded", JobState.COMPLETED), result.message
    assert made.read_bytes() == serial.read_bytes()
    assert result.facts["galaxies"] == facts["galaxies"] > 100


@pytest.mark.parametrize(
    ("act", "outcome", "says"),
    [
        ("2:missing", "missing_input", "planted; where: here"),
        ("1:crash", "software_error", "rank 1 was ended by SIGSEGV"),
    ],
)
def test_a_rank_that_fails_ends_the_others_and_says_why(
    campaign: Campaign, place: dict[str, Any], act: str, outcome: str, says: str
) -> None:
    batch, pids = share(campaign, place, [act])
    assert submit(campaign, batch).state is JobState.FAILED
    result = read(batch)
    assert (result.outcome, result.message) == (outcome, says)
    assert len(ranks_of(pids)) == NTASKS
    assert not any(storage.is_alive(pid) for pid in ranks_of(pids))


def test_no_rank_outlives_a_runner_that_is_killed(
    campaign: Campaign, place: dict[str, Any]
) -> None:
    batch, pids = share(campaign, place, ["0:sleep"])
    killed = []

    def kill(_: Observation) -> bool:
        if len(ranks_of(pids)) < NTASKS:
            return False
        for process in psutil.process_iter():
            try:
                environment = process.environ()
            except psutil.Error:
                continue
            if environment.get("MUSTER_JOB") == KEY and "MUSTER_ROLE" not in environment:
                killed.append(process.pid)
                os.kill(process.pid, signal.SIGKILL)
        return True

    seen = submit(campaign, batch, kill)
    assert killed
    assert seen.state is not JobState.COMPLETED
    psutil.wait_procs([psutil.Process(p) for p in ranks_of(pids) if psutil.pid_exists(p)], 10)
    assert not any(storage.is_alive(pid) for pid in ranks_of(pids))
    assert not list((campaign.folder / "products").glob("b-0.txt"))
