"""MPI first, JAX after it: what a launcher says, and how devices are dealt."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from muster.mocks.errors import MPIError
from muster.mocks.mpi_setup import (
    LAUNCHER_SIZES,
    MPIContext,
    count_launched,
    deal_devices,
    initialize_mpi_jax,
)

REPOSITORY = Path(__file__).parents[4]


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch):
    for name in LAUNCHER_SIZES:
        monkeypatch.delenv(name, raising=False)


def test_a_process_without_a_launcher_is_the_only_rank():
    assert count_launched() == 1
    assert initialize_mpi_jax(with_jax=False) == MPIContext(None, 0, 1, ())


@pytest.mark.parametrize("name", LAUNCHER_SIZES)
def test_launchers_say_how_many_ranks_there_are(monkeypatch, name):
    monkeypatch.setenv(name, "4")
    assert count_launched() == 4
    for wrong in ("0", "-1", "four", "", "٤"):
        monkeypatch.setenv(name, wrong)
        with pytest.raises(MPIError, match=f"no number of ranks; where: {name}"):
            count_launched()


@pytest.mark.parametrize(
    ("count", "size", "dealt"),
    [
        (4, 4, [[0], [1], [2], [3]]),
        (4, 2, [[0, 2], [1, 3]]),
        (2, 4, [[0], [1], [0], [1]]),
        (1, 3, [[0], [0], [0]]),
        (3, 2, [[0, 2], [1]]),
    ],
)
def test_devices_of_a_node_are_dealt_to_its_ranks(count, size, dealt):
    assert [deal_devices(count, rank, size) for rank in range(size)] == dealt


RANK = """
import sys
from muster.mocks.mpi_setup import initialize_mpi_jax
context = initialize_mpi_jax()
import os
line = (context.rank, context.size, context.comm.allreduce(context.rank),
        [device.platform for device in context.jax_devices], int(os.environ["NPROC"]) >= 8)
lines = context.comm.gather(line)  # what ranks print themselves may be mixed
if context.rank == 0:
    for line in lines:
        print(*line)
"""
ALONE = """
from muster.mocks.errors import MPIError, JAXError
from muster.mocks.mpi_setup import initialize_mpi_jax
try:
    initialize_mpi_jax(with_jax=False)
except MPIError as error:
    print(error)
"""
LATE = """
import jax
jax.devices()
from muster.mocks.errors import JAXError
from muster.mocks.mpi_setup import initialize_mpi_jax
try:
    initialize_mpi_jax(with_mpi=True)
except JAXError as error:
    print(error)
"""


def run(command, **environment):
    ended = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
        check=False, timeout=200, capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout


needs_mpi = pytest.mark.skipif(
    shutil.which("mpirun") is None or importlib.util.find_spec("mpi4py") is None,
    reason="needs mpirun (openmpi-bin) and mpi4py",
)


@pytest.mark.slow
@pytest.mark.mpi
@needs_mpi
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs the extra mocks")
def test_ranks_of_a_real_job_have_their_devices():
    said = run(
        ["mpirun", "--allow-run-as-root", "--oversubscribe", "--mca", "btl", "self,vader",
         "-n", "2", sys.executable, "-c", RANK],
        JAX_PLATFORMS="cpu",
    )  # fmt: skip
    assert said.splitlines() == ["0 2 1 ['cpu'] True", "1 2 1 ['cpu'] True"]


@pytest.mark.mpi
@needs_mpi
def test_an_mpi_that_is_not_the_launchers_is_refused():
    said = run([sys.executable, "-c", ALONE], SLURM_STEP_NUM_TASKS="3")
    assert "another MPI than the launcher" in said
    assert "got: 1 ranks; expected: 3 ranks" in said


def test_ranks_without_mpi4py_are_refused():
    code = "import sys; sys.modules['mpi4py'] = None\n" + ALONE
    assert "mpi4py is missing" in run([sys.executable, "-c", code], OMPI_COMM_WORLD_SIZE="3")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs the extra mocks")
def test_devices_taken_before_mpi_are_refused():
    assert "JAX was initialised before MPI" in run([sys.executable, "-c", LATE])
