"""What is written is what the table of the layout says, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest

from muster.errors import ConfigError
from muster.mocks.catalogue.layout import (
    ATTRIBUTE_BY_NAME,
    ATTRIBUTES,
    COLUMN_BY_PATH,
    COLUMNS,
    Compression,
    columns_of,
    required_columns,
)
from muster.mocks.catalogue.read import read_catalogue
from muster.mocks.catalogue.write import write_catalogue
from muster.mocks.errors import ModelError
from tests.unit.mocks.catalogue.boxes import (
    BOX_MPCH,
    make_box,
    make_halos,
    with_properties,
    write_box,
)

if TYPE_CHECKING:
    from pathlib import Path

ORIGINAL = {
    "galaxies": (
        "pos", "vel", "logsm_t_obs", "logssfr_t_obs", "logmp_t_obs", "upid", "z_obs", "t_obs", "t0",
        "t_table",
    ),
    "halos": ("logmhost", "radius", "pos", "vel"),
}  # fmt: skip
"""Datasets of roman-grs-pit/covariance-mocks."""

ORIGINAL_ATTRIBUTES = {
    "Lbox": float, "z_obs": float, "lgmp_min": float, "n_halos": np.integer,
    "n_galaxies": np.integer, "simulation_box": str, "phase": str, "redshift": str,
}  # fmt: skip


def test_the_originals_datasets_are_all_there(tmp_path: Path) -> None:
    with h5py.File(write_box(tmp_path / "full.hdf5", layout="full")) as file:
        for group, names in ORIGINAL.items():
            assert set(names) <= set(file[group])
        for name in ("z_obs", "t_obs", "t0"):
            assert file[f"galaxies/{name}"].shape == ()
        for name, kind in ORIGINAL_ATTRIBUTES.items():
            assert isinstance(file.attrs[name], kind), name
        assert file.attrs["redshift"] == "z1.100"
        assert file.attrs["phase"] == "ph3007"
        assert file.attrs["lgmp_min"] == 11.0
        assert file.attrs["Lbox"] == BOX_MPCH


@pytest.mark.parametrize("layout", ["lean", "full"])
def test_each_dataset_has_what_the_table_says(tmp_path: Path, layout: str) -> None:
    path = write_box(tmp_path / "box.hdf5", layout=layout)
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: found.update({name: item}) if hasattr(item, "shape") else None
        )
        allowed = {column.path for column in columns_of(layout)}
        assert {column.path for column in required_columns(layout)} <= set(found) <= allowed
        sizes = {"galaxy": 300, "halo": 50, "time": 6, "parameter": 5}
        for name, dataset in found.items():
            column = COLUMN_BY_PATH[name]
            assert dataset.shape == tuple(sizes.get(dim, dim) for dim in column.dims)
            assert dataset.dtype.name in column.dtypes
            assert dataset.attrs["unit"] == column.unit
            assert dataset.attrs["description"] == column.description
            assert bool(dataset.attrs["h_scaled"]) is column.h_scaled
            assert bool(dataset.attrs["comoving"]) is column.comoving
        assert file.attrs["layout"] == layout
        for name in file.attrs:
            assert name in ATTRIBUTE_BY_NAME


def test_units_with_a_power_of_h_are_marked() -> None:
    for column in COLUMNS:
        assert column.h_scaled is ("/h" in column.unit), column.path
        assert column.comoving is (column.unit == "Mpc/h"), column.path
        assert column.unit
        assert column.description
    assert len({attribute.name for attribute in ATTRIBUTES}) == len(ATTRIBUTES)


def test_lean_leaves_histories_out_and_nothing_else(tmp_path: Path) -> None:
    galaxies, halos = make_box(full=True)
    write_catalogue(tmp_path / "lean.hdf5", galaxies, halos, layout="lean")
    lean, _ = read_catalogue(tmp_path / "lean.hdf5")
    assert not {"galaxies/sfh_table", "galaxies/log_mah_table", "galaxies/mah_params"} & set(lean)
    np.testing.assert_array_equal(lean["galaxies/pos"], galaxies.positions)
    for name in ("vel", "upid", "logsm_t_obs", "t_table"):
        np.testing.assert_array_equal(lean[f"galaxies/{name}"], galaxies.properties[name])


def test_halo_masses_are_logarithms_of_msun_over_h(tmp_path: Path) -> None:
    halos = make_halos()
    arrays, _ = read_catalogue(write_box(tmp_path / "box.hdf5"))
    np.testing.assert_allclose(
        10 ** arrays["halos/logmhost"].astype(float), halos.masses, rtol=2e-6
    )
    np.testing.assert_array_equal(arrays["halos/id"], halos.ids)


def test_ages_are_of_the_snapshot_and_of_today(tmp_path: Path) -> None:
    arrays, _ = read_catalogue(write_box(tmp_path / "box.hdf5"))
    # Age of a flat ΛCDM universe: 2/(3 H0 sqrt(ΩΛ)) arsinh(sqrt(ΩΛ/Ωm) (1+z)^-3/2).
    dark = 1 - 0.315192
    for name, redshift in (("t_obs", 1.1), ("t0", 0.0)):
        age = (
            2 / 3 * 977.7922 / 67.36 / np.sqrt(dark)
            * np.arcsinh(np.sqrt(dark / 0.315192) * (1 + redshift) ** -1.5)
        )  # fmt: skip
        assert arrays[f"galaxies/{name}"] == pytest.approx(age, rel=1e-6)


def test_what_the_model_says_of_the_box_becomes_datasets_and_no_attributes(tmp_path: Path) -> None:
    galaxies, halos = make_box()
    table = np.linspace(0.1, 5, 4)
    galaxies = replace(galaxies, attributes={"t_obs": 5.5, "t_table": table, "key": [1, 2]})
    write_catalogue(tmp_path / "box.hdf5", galaxies, halos)
    arrays, attributes = read_catalogue(tmp_path / "box.hdf5")
    assert arrays["galaxies/t_obs"] == 5.5
    np.testing.assert_array_equal(arrays["galaxies/t_table"], table)
    assert not {"t_obs", "t_table"} & set(attributes)
    assert attributes["key"] == "[1, 2]"


def test_refers_to_tells_ids_from_rows(tmp_path: Path) -> None:
    galaxies, halos = make_box()
    rows = np.where(galaxies.properties["upid"] == -1, -1, galaxies.parent_halos)
    for name, upid in (("halos/id", galaxies.properties["upid"]), ("row of halos", rows)):
        write_catalogue(tmp_path / "box.hdf5", with_properties(galaxies, upid=upid), halos)
        with h5py.File(tmp_path / "box.hdf5") as file:
            assert file["galaxies/upid"].attrs["refers_to"] == name
    with pytest.raises(ModelError, match="neither the id nor the row"):
        write_catalogue(tmp_path / "no.hdf5", with_properties(galaxies, upid=rows + 1), halos)


def test_arrays_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    galaxies, halos = make_box()
    path = tmp_path / "box.hdf5"
    for properties, message in (
        ({"vel": galaxies.properties["vel"][:, :2]}, "galaxies/vel; got: (300, 2)"),
        ({"upid": galaxies.properties["upid"][1:]}, "galaxies/upid; got: (299,)"),
        ({"logsm_t_obs": np.zeros(300, np.int32)}, "galaxies/logsm_t_obs; got: <i4"),
        ({"logsm_t_obs": np.zeros(300, ">f4")}, "galaxies/logsm_t_obs; got: >f4"),
        ({"colour": np.zeros(300)}, "no dataset for; got: colour"),
    ):
        with pytest.raises(ModelError) as caught:
            write_catalogue(path, with_properties(galaxies, **properties), halos)
        assert message in str(caught.value)
    lacking = replace(galaxies, properties={"vel": galaxies.properties["vel"]})
    with pytest.raises(ModelError, match="logsm_t_obs, logssfr_t_obs, logmp_t_obs, upid"):
        write_catalogue(path, lacking, halos)
    with pytest.raises(ConfigError, match="makes no formation histories"):
        write_catalogue(path, galaxies, halos, layout="full")
    assert not list(tmp_path.iterdir())


def test_compression_is_checked() -> None:
    for wrong in ({"level": 10}, {"chunk_rows": 10}, {"kind": "bzip2"}):
        with pytest.raises(ConfigError):
            Compression(**wrong)


def test_layout_is_light() -> None:
    code = (
        "import sys, muster.mocks.catalogue.layout, muster.mocks.catalogue.problems,"
        " muster.mocks.catalogue.difference;"
        "assert not {'numpy', 'h5py', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
