"""Statistics that are absent, empty of meaning, or of another catalogue are problems."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest

from muster.mocks.catalogue_check import check_catalogue
from muster.mocks.qa.statistics import compute_statistics
from tests.unit.mocks.catalogue.boxes import make_box, write_box

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    statistics = compute_statistics(*make_box()).to_arrays()
    return write_box(tmp_path / "box.hdf5", statistics=statistics)


def fill(name: str, value: float) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file[f"statistics/{name}"][...] = value

    return change


def remove(name: str) -> Callable[[h5py.File], None]:
    return lambda file: file.__delitem__(name)


def test_a_good_catalogue_has_no_problem(path: Path) -> None:
    assert check_catalogue(path) == check_catalogue(path, statistics=True) == []


@pytest.mark.parametrize(
    ("change", "kind", "says"),
    [
        (remove("statistics"), "missing", "the group is missing"),
        (remove("statistics/power_mpch3"), "statistics", "without ['power_mpch3']"),
        (fill("power_mpch3", np.nan), "statistics", "power_mpch3 is not finite"),
        (fill("halo_counts", -1), "statistics", "halo_counts holds a negative number"),
        (fill("counts", 0), "statistics", "statistics cannot be true"),
        (fill("version", 99), "statistics", "statistics of another version"),
    ],
)
def test_bad_statistics_are_named(path: Path, change: Any, kind: str, says: str) -> None:
    with h5py.File(path, "r+") as file:
        change(file)
    (problem,) = check_catalogue(path, statistics=True)
    assert (problem.kind, problem.where) == (kind, "statistics")
    assert says in problem.describe()
    assert check_catalogue(path) == [problem]  # it has a fingerprint


def test_statistics_of_another_catalogue_are_named(tmp_path: Path) -> None:
    statistics = compute_statistics(*make_box(200)).to_arrays()
    path = write_box(tmp_path / "box.hdf5", statistics=statistics)
    (problem,) = check_catalogue(path)
    assert problem.describe() == ("statistics: count another n_galaxies; got: 200; expected: 300")


def test_a_file_without_a_fingerprint_needs_no_statistics(tmp_path: Path) -> None:
    path = write_box(tmp_path / "box.hdf5", attributes={})
    assert check_catalogue(path) == []
    assert [p.kind for p in check_catalogue(path, statistics=True)] == ["missing"]


def test_a_file_that_is_none_is_one_problem(tmp_path: Path) -> None:
    assert [p.kind for p in check_catalogue(tmp_path / "absent.hdf5")] == ["unreadable"]
