"""Loading haloes by a path alone, as scripts and notebooks do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from muster.errors import ConfigError
from muster.mocks.data_loader import load_and_filter_halos
from muster.mocks.errors import CatalogNotFound, ValidationError

if TYPE_CHECKING:
    from pathlib import Path

SYNTHETIC = "synthetic:box_size_mpch=50&redshift=1.1&seed=3&realization=7"


def test_a_folder_of_abacussummit(mini: Path) -> None:
    folder = mini / "halos/z0.000"
    halos = load_and_filter_halos(folder, 1e12, cleaned=False)
    assert len(halos) == 165
    assert halos.metadata.simulation == "Mini_N64_L32"
    inner = load_and_filter_halos(str(folder / "halo_info"), 1e12, cleaned=False)
    assert np.array_equal(inner.ids, halos.ids)


def test_the_cleaned_catalogue_is_meant_unless_it_is_said_otherwise(mini: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder cleaning.*cleaned: false"):
        load_and_filter_halos(mini / "halos/z0.000", 1e12)


def test_a_folder_whose_superslab_is_missing(copy_of_mini: Path) -> None:
    (copy_of_mini / "halos/z0.000/halo_info/halo_info_001.asdf").unlink()
    with pytest.raises(CatalogNotFound, match=r"halo_info_001.asdf of 3 superslabs not there"):
        load_and_filter_halos(copy_of_mini / "halos/z0.000", 1e12, cleaned=False)


def test_ranks_load_slabs_in_y() -> None:
    whole = load_and_filter_halos(SYNTHETIC, 1e11)
    assert len(whole) > 100
    ids = []
    for rank in range(3):
        context = (rank, 3) if rank else SimpleNamespace(rank=rank, size=3)
        part = load_and_filter_halos(SYNTHETIC, 1e11, mpi_context=context)
        y = part.positions[:, 1]
        assert ((y >= rank * 50 / 3) & (y < (rank + 1) * 50 / 3)).all()
        ids.append(part.ids)
    assert np.array_equal(np.sort(np.concatenate(ids)), whole.ids)


def test_the_test_mode_takes_the_smallest_x_of_the_box_and_not_of_a_rank() -> None:
    whole = load_and_filter_halos(SYNTHETIC, 1e11)
    few = load_and_filter_halos(SYNTHETIC, 1e11, n_gen=30)
    assert np.array_equal(few.ids, np.sort(whole.ids[np.argsort(whole.positions[:, 0])[:30]]))
    ranks = [load_and_filter_halos(SYNTHETIC, 1e11, 30, (rank, 2)) for rank in range(2)]
    assert len(ranks[0]) + len(ranks[1]) == 30


def test_an_hdf5_file(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed: make mocks")
    whole = load_and_filter_halos(SYNTHETIC, 1e12)
    path = tmp_path / "halos.hdf5"
    with h5py.File(path, "w") as file:
        file["halos/pos"], file["halos/vel"] = whole.positions, whole.velocities
        file["halos/radius"], file["halos/logmhost"] = whole.radii, np.log10(whole.masses)
        file.attrs["Lbox"], file.attrs["z_obs"] = 50.0, 1.1
    halos = load_and_filter_halos(path, 1e12)
    assert np.array_equal(halos.positions, whole.positions)
    assert halos.metadata.redshift == 1.1
    assert len(load_and_filter_halos(path, 1e15)) == 0


def test_what_is_no_catalogue_is_told(tmp_path: Path) -> None:
    with pytest.raises(CatalogNotFound, match=r"no halo catalogue.*nowhere"):
        load_and_filter_halos(tmp_path / "nowhere", 1e10)
    with pytest.raises(ValidationError, match="expected: halo_info in it"):
        load_and_filter_halos(tmp_path, 1e10)
    (tmp_path / "halos.fits").touch()
    with pytest.raises(ValueError, match="known by its path"):
        load_and_filter_halos(tmp_path / "halos.fits", 1e10)
    (tmp_path / "other/halo_info").mkdir(parents=True)
    with pytest.raises(ValidationError, match=r"expected: SIMULATION/halos/zN.NNN"):
        load_and_filter_halos(tmp_path / "other", 1e10)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("synthetic:box=3&redshift=1", "unknown key.*box"),
        ("synthetic:box_size_mpch=50", "a key is missing.*redshift"),
        ("synthetic:redshift=1&redshift=2", "given twice"),
    ],
)
def test_wrong_options_of_a_synthetic_box_are_told(path: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_and_filter_halos(path, 1e12)
