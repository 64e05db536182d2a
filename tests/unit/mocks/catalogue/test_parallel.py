"""Three ranks under a real mpirun write what one process writes; what fails, fails on all."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from muster.mocks.catalogue.compare import compare_catalogues
from muster.mocks.catalogue.layout import Compression
from muster.mocks.catalogue.parallel import write_catalogue_parallel
from muster.mocks.catalogue.read import read_catalogue, read_statistics
from muster.mocks.catalogue.validate import Expected, validate_catalogue
from muster.mocks.errors import MPIError
from tests.shared_fixtures import make_once
from tests.unit.mocks.catalogue.boxes import make_box, write_box

REPOSITORY = Path(__file__).parents[4]
PROGRAM = Path(__file__).with_name("mpi_program.py")
GOOD = ("whole", "gzip", "plan", "shares")
BAD = {
    "other kinds": "galaxies of other kinds; where: ranks 0 and 1; got: galaxies/vel",
    "fails on rank 2": "not the shape of the layout; where: galaxies/pos",
    "cannot be written": "cannot be read or written",
    "shares that overlap": "a halo is on two ranks; got: id 5",
}
PARALLEL_HDF5 = Path("/usr/lib/x86_64-linux-gnu/hdf5/openmpi")


def run_ranks(python: str, folder: Path) -> None:
    subprocess.run(
        [
            "mpirun", "--allow-run-as-root", "--oversubscribe", "--mca", "btl", "self,vader", "-n",
            "3", python, str(PROGRAM), str(folder), *GOOD, *BAD,
        ],
        check=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def build_parallel_h5py(folder: Path) -> str:
    """Build h5py against Debian's parallel HDF5 in an environment of its own."""
    python = str(folder / "bin" / "python")
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    if not Path(uv).exists():
        pytest.skip("needs uv: make lock installs it")
    if not PARALLEL_HDF5.is_dir():
        pytest.skip(f"needs {PARALLEL_HDF5}: apt-get install libhdf5-openmpi-dev openmpi-bin")

    def run(*command: str, **environment: str) -> None:
        subprocess.run([uv, *command], check=True, env={**os.environ, **environment})

    run("venv", "--quiet", "--python", sys.executable, str(folder))
    install = ("pip", "install", "--quiet", "--python", python)
    run(*install, "Cython", "numpy", "pkgconfig", "setuptools", "mpi4py", "psutil")
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    run(
        *install, "--no-build-isolation", "--no-binary", "h5py", "--no-deps", "h5py",
        HDF5_MPI="ON", CC="mpicc", HDF5_DIR=str(PARALLEL_HDF5), PATH=path,
    )  # fmt: skip
    return python


@dataclass(frozen=True)
class Ranks:
    """Files and answers of three ranks, by case."""

    folder: Path

    def catalogue(self, case: str) -> Path:
        return self.folder / case / "made.hdf5"

    def told(self, case: str) -> list[dict[str, Any]]:
        return [json.loads((self.folder / case / f"{r}.json").read_text()) for r in range(3)]


@pytest.fixture(scope="module")
def gathered(tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    """Three ranks of this interpreter, whose h5py knows nothing of MPI."""
    if shutil.which("mpirun") is None or importlib.util.find_spec("mpi4py") is None:
        pytest.skip("needs mpirun and mpi4py: apt-get install openmpi-bin; the extra mpi")

    def run(folder: Path) -> None:
        run_ranks(sys.executable, folder)

    return Ranks(make_once(tmp_path_factory, "catalogues-of-ranks", run))


@pytest.fixture(scope="module")
def in_parallel(tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    """Three ranks with an h5py that was built with parallel HDF5."""
    folder = tmp_path_factory.mktemp("parallel-hdf5")
    python = build_parallel_h5py(folder / "environment")
    made = folder / "made"
    made.mkdir()
    run_ranks(python, made)
    return Ranks(made)


class Contract:
    """What holds however the ranks write."""

    parallel: bool

    @pytest.fixture
    def serial(self, tmp_path: Path) -> Path:
        return write_box(
            tmp_path / "serial.hdf5", 2500, layout="full",
            statistics={"counts": np.arange(3)}, compression=Compression(chunk_rows=1024),
        )  # fmt: skip

    @pytest.mark.parametrize("case", ["whole", "gzip"])
    def test_serial_and_parallel_are_equal(self, ranks: Ranks, serial: Path, case: str) -> None:
        assert all(told == {"parallel": self.parallel} for told in ranks.told(case))
        difference = compare_catalogues(serial, ranks.catalogue(case))
        assert difference.is_equal, difference.describe()
        np.testing.assert_array_equal(read_statistics(ranks.catalogue(case))["counts"], [0, 1, 2])

    def test_the_plans_function_says_true_on_all_ranks(self, ranks: Ranks, serial: Path) -> None:
        assert [told["returned"] for told in ranks.told("plan")] == [True] * 3
        made = read_catalogue(ranks.catalogue("plan"))[0]
        for path, array in read_catalogue(serial)[0].items():
            np.testing.assert_array_equal(made[path], array)

    def test_haloes_of_shares_lie_in_the_order_of_their_ids(
        self, ranks: Ranks, serial: Path
    ) -> None:
        made, whole = read_catalogue(ranks.catalogue("shares"))[0], read_catalogue(serial)[0]
        hosts = make_box(2500, full=True)[0].parent_halos
        order = np.concatenate([np.flatnonzero(hosts % 3 == rank) for rank in range(3)])
        for path, array in whole.items():
            if path == "galaxies/mah_params":
                np.testing.assert_array_equal(made[path], array[:, order])
            elif path.startswith("galaxies/") and array.shape[:1] == (2500,):
                np.testing.assert_array_equal(made[path], array[order])
            else:
                np.testing.assert_array_equal(made[path], array)
        assert validate_catalogue(ranks.catalogue("shares"), expected=Expected()) == []

    @pytest.mark.parametrize("case", BAD)
    def test_all_ranks_fail_and_nothing_is_left(self, ranks: Ranks, case: str) -> None:
        for told in ranks.told(case):
            assert BAD[case] in told["error"][1]
        names = {told["error"][0] for told in ranks.told(case)}
        assert {"MPIError", "RankFailed"} & names or names == {
            "InvalidInput"
        }  # each rank may see it itself
        left = {found.name for found in (ranks.folder / case).iterdir()}
        assert left - {"file"} == {"0.json", "1.json", "2.json"}

    def test_nothing_but_the_files_is_left(self, ranks: Ranks) -> None:
        for case in GOOD:
            left = {found.name for found in (ranks.folder / case).iterdir()}
            assert left == {"0.json", "1.json", "2.json", "made.hdf5"}


@pytest.mark.mpi
class TestGathered(Contract):
    parallel = False

    @pytest.fixture
    def ranks(self, gathered: Ranks) -> Ranks:
        return gathered

    def test_the_bytes_are_those_of_one_process(self, ranks: Ranks, serial: Path) -> None:
        assert ranks.catalogue("whole").read_bytes() == serial.read_bytes()


@pytest.mark.parallel_hdf5
@pytest.mark.thorough
@pytest.mark.timeout(900)
class TestParallelHdf5(Contract):
    parallel = True

    @pytest.fixture
    def ranks(self, in_parallel: Ranks) -> Ranks:
        return in_parallel


@dataclass
class Alone:
    comm: Any = None
    rank: int = 0
    size: int = 1


def test_a_single_process_needs_no_communicator(tmp_path: Path) -> None:
    galaxies, halos = make_box()
    path = tmp_path / "alone.hdf5"
    attributes = {"seed": 3, "fingerprint": "ab12"}
    write_catalogue_parallel(path, galaxies, halos, mpi_context=Alone(), attributes=attributes)
    assert path.read_bytes() == write_box(tmp_path / "serial.hdf5").read_bytes()


class Broken:
    """A communicator of two ranks whose other rank is gone."""

    def allgather(self, value: object) -> list[object]:
        raise RuntimeError("MPI_ERR_PROC_FAILED")


def test_errors_of_mpi_are_ours(tmp_path: Path) -> None:
    galaxies, halos = make_box()
    with pytest.raises(MPIError, match="MPI_ERR_PROC_FAILED"):
        write_catalogue_parallel(
            tmp_path / "no.hdf5", galaxies, halos, mpi_context=Alone(Broken(), 0, 2)
        )
