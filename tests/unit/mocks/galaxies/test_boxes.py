"""A box from slabs: the same arrays from one process, several, and the ranks of an MPI job."""

from __future__ import annotations

import importlib.util
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from muster.errors import ConfigError
from muster.mocks.errors import ModelError
from muster.mocks.galaxies.boxes import generate_box, join_galaxies, take_halos
from muster.mocks.galaxies.model import load_model
from muster.mocks.galaxies.stream import RandomStream
from muster.mocks.galaxy_generator import generate_galaxies
from tests.unit.mocks.galaxies.haloes import assert_same, columns, draw_masses, make_halos

REPOSITORY = Path(__file__).parents[4]
HOD = load_model("hod")
PARAMS = HOD.parse({})
WHERE = {"seed": 5, "realization": 2, "redshift_index": 1}


def box(halos, slabs, **more):
    return generate_box(halos, HOD, PARAMS, slabs=slabs, **{**WHERE, **more})


@pytest.fixture(scope="module")
def halos():
    return make_halos(draw_masses(4000))


@pytest.mark.parametrize("slabs", [1, 3, 7])
def test_a_box_is_its_slabs_one_after_the_other(halos, slabs):
    galaxies = box(halos, slabs)
    start = 0
    for slab in range(slabs):
        inside = np.floor(halos.positions[:, 1].astype(float) * slabs / 100) == slab
        rows = np.flatnonzero(inside)
        alone = HOD.generate(take_halos(halos, rows), PARAMS, RandomStream(5, 2, 1, slab))
        part = slice(start, start + len(alone))
        np.testing.assert_array_equal(galaxies.positions[part], alone.positions)
        np.testing.assert_array_equal(galaxies.parent_halos[part], rows[alone.parent_halos])
        start = part.stop
    assert start == len(galaxies)
    satellite = galaxies.properties["upid"] != -1
    np.testing.assert_array_equal(
        galaxies.properties["upid"][satellite], halos.ids[galaxies.parent_halos[satellite]]
    )


def test_workers_change_nothing(halos):
    assert_same(box(halos, 5), box(halos, 5, workers=2))


def test_slabs_without_haloes(halos):
    low = take_halos(halos, np.flatnonzero(halos.positions[:, 1] < 20))
    galaxies = box(low, 8)
    assert len(galaxies) > 100
    assert_same(galaxies, box(low, 8, workers=2))
    nothing = box(take_halos(halos, np.zeros(0, dtype=int)), 3)
    assert {name: values.dtype for name, values in columns(nothing).items()} == {
        name: values.dtype for name, values in columns(galaxies).items()
    }
    assert len(nothing) == 0


class Rank:
    def __init__(self, rank, size):
        self.comm, self.rank, self.size, self.jax_devices = None, rank, size, ()


@pytest.mark.parametrize("size", [2, 3, 9])
def test_shares_of_ranks_in_turn_are_the_box(halos, size):
    shares = [box(halos, 7, mpi_context=Rank(rank, size)) for rank in range(size)]
    assert_same(join_galaxies(shares), box(halos, 7))


@pytest.mark.slow
@pytest.mark.mpi
@pytest.mark.skipif(
    shutil.which("mpirun") is None or importlib.util.find_spec("mpi4py") is None,
    reason="needs mpirun (openmpi-bin) and mpi4py",
)
def test_ranks_of_a_real_mpi_job_make_the_box(halos, tmp_path):
    program = Path(__file__).with_name("mpi_program.py")
    (tmp_path / "halos").write_bytes(pickle.dumps(halos))
    subprocess.run(
        ["mpirun", "--allow-run-as-root", "--oversubscribe", "--mca", "btl", "self,vader",
         "-n", "3", sys.executable, program, tmp_path],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        check=True, timeout=120, capture_output=True,
    )  # fmt: skip
    shares = [pickle.loads((tmp_path / str(rank)).read_bytes()) for rank in range(3)]
    assert all(len(share) > 0 for share in shares)
    assert_same(join_galaxies(shares), box(halos, 5))


@pytest.mark.parametrize("slabs", [0, -1, 4097])
def test_numbers_of_slabs_out_of_range_are_refused(halos, slabs):
    with pytest.raises(ConfigError, match="slabs"):
        box(halos, slabs)


@pytest.mark.parametrize("name", ["seed", "realization", "redshift_index"])
@pytest.mark.parametrize("value", [-1, 2**62, True, 1.5])
def test_coordinates_out_of_range_are_refused(halos, name, value):
    with pytest.raises(ConfigError, match=name):
        box(halos, 2, **{name: value})


class Escaped:
    """A model whose galaxies leave the box."""

    name, compiles = "escaped", False

    def __init__(self, value):
        self.value = value

    def generate(self, halos, params, stream, *, histories=False):
        made = HOD.generate(halos, params, stream)
        made.positions[0, 1] = self.value
        return made


@pytest.mark.parametrize("value", [-1e-6, 100.0, np.nan, np.inf])
def test_galaxies_outside_the_box_are_an_error_of_the_model(halos, value):
    with pytest.raises(ModelError, match=r"outside the box.*got: 1 of"):
        generate_box(halos, Escaped(value), PARAMS, slabs=1, **WHERE)


class Killed(Escaped):
    """A model whose process is killed."""

    def generate(self, halos, params, stream, *, histories=False):
        os._exit(9)


def test_a_killed_worker_is_an_error_of_the_model(halos):
    with pytest.raises(ModelError, match="a process of the galaxy model ended"):
        generate_box(halos, Killed(0), PARAMS, slabs=2, workers=2, **WHERE)


def test_generate_galaxies_is_the_box_of_one_slab(halos):
    galaxies = generate_galaxies(halos, {"model": "hod", "alpha": 0.9}, random_seed=11)
    params = HOD.parse({"alpha": 0.9})
    same = generate_box(halos, HOD, params, seed=11, realization=0, redshift_index=0, slabs=1)
    assert_same(galaxies, same)
    assert galaxies.attributes["seed"] == 11
    one, other = (generate_galaxies(halos, {"model": "hod"}) for _ in range(2))
    assert one.attributes["seed"] != other.attributes["seed"]
    assert_same(one, generate_galaxies(halos, {"model": "hod"}, one.attributes["seed"]))


def test_generate_galaxies_takes_the_realization_of_the_haloes(halos):
    seventh = replace(halos, metadata=replace(halos.metadata, realization=7))
    galaxies = generate_galaxies(seventh, {"model": "hod"}, random_seed=11)
    same = generate_box(halos, HOD, PARAMS, seed=11, realization=7, redshift_index=0, slabs=1)
    assert_same(galaxies, same)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({}, "no galaxy model"),
        ({"model": "hodd"}, "unknown galaxy model.*hod, diffsky, rgrspit"),
        ({"model": "hod", "beta": 1}, "beta"),
        ({"model": "hod", "histories": "yes"}, "histories"),
    ],
)
def test_generate_galaxies_refuses_what_it_does_not_know(halos, parameters, said):
    with pytest.raises(ConfigError, match=said):
        generate_galaxies(halos, parameters)
