"""The names of the original: one process, errors, paths and file names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from muster.errors import ConfigError
from muster.mocks.catalogue.read import read_catalogue
from muster.mocks.errors import ModelError, ValidationError
from muster.mocks.hdf5_writer import (
    generate_output_filename,
    validate_catalog_path,
    write_parallel_hdf5,
)
from tests.unit.mocks.catalogue.boxes import BOX_MPCH, make_box, with_properties

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("full", [False, True])
def test_the_layout_follows_from_the_galaxies(tmp_path: Path, full: bool) -> None:
    galaxies, halos = make_box(full=full)
    path = tmp_path / "new" / "box.hdf5"
    assert write_parallel_hdf5(galaxies, halos, str(path), None, BOX_MPCH) is True
    arrays, attributes = read_catalogue(path)
    assert attributes["layout"] == ("full" if full else "lean")
    assert ("galaxies/sfh_table" in arrays) is full


def test_errors_are_those_of_the_plan(tmp_path: Path) -> None:
    galaxies, halos = make_box()
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="File exists"):
        write_parallel_hdf5(galaxies, halos, tmp_path / "file" / "box.hdf5", None, BOX_MPCH)
    with pytest.raises(ValidationError, match="box_size; got: 500"):
        write_parallel_hdf5(galaxies, halos, tmp_path / "box.hdf5", None, 500.0)
    bad = with_properties(galaxies, vel=galaxies.positions[:1])
    with pytest.raises(ModelError):
        write_parallel_hdf5(bad, halos, tmp_path / "box.hdf5", None, BOX_MPCH)


def test_paths_of_halo_catalogues_are_checked(tmp_path: Path) -> None:
    assert validate_catalog_path(str(tmp_path)) is True
    with pytest.raises(FileNotFoundError, match="absent"):
        validate_catalog_path(tmp_path / "absent")
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match="expected: a folder"):
        validate_catalog_path(tmp_path / "file")


def test_files_are_named_as_the_original_names_them() -> None:
    words = ("AbacusSummit_small_c000", "ph3000", "z1.100")
    assert generate_output_filename(*words) == "mock_AbacusSummit_small_c000_ph3000_z1.100.hdf5"
    assert generate_output_filename(*words, n_gen=5000).endswith("_z1.100_test5000.hdf5")
    for wrong in (("../up", "a", "b"), ("a", "", "b"), ("a", "b", "z/1")):
        with pytest.raises(ConfigError):
            generate_output_filename(*wrong)
    with pytest.raises(ConfigError):
        generate_output_filename(*words, n_gen=-1)
