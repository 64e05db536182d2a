"""Haloes from HDF5 files that others wrote: units, names, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from muster.errors import ConfigError
from muster.mocks.coordinates import Coordinate
from muster.mocks.errors import CatalogNotFound, ValidationError
from muster.mocks.halos.hdf5 import HDF5

if TYPE_CHECKING:
    from pathlib import Path

h5py = pytest.importorskip("h5py", reason="h5py is not installed: make mocks")

AT = Coordinate(7, 1.1)
BOX = 100.0


def draw_columns(count: int = 50, seed: int = 1) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return {
        "halos/logmhost": random.uniform(10, 14, count),
        "halos/pos": random.uniform(0, BOX, (count, 3)).astype(np.float32),
        "halos/vel": random.normal(0, 300, (count, 3)).astype(np.float32),
        "halos/radius": random.uniform(0.1, 1, count).astype(np.float32),
    }


def write(path: Path, columns: dict[str, Any], **attributes: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in columns.items():
            file.create_dataset(name, data=values)
        file.attrs.update({"Lbox": BOX, "z_obs": 1.1, **attributes})
    return path


def read(path: Path, min_mass: float = 0.0, **options: Any) -> Any:
    selection = {"slab", "slab_axis", "n_halos"} & set(options)
    asked = {name: options.pop(name) for name in selection}
    parsed = HDF5.parse_options({"path": str(path), **options})
    state = HDF5.find_inputs(parsed, [AT])[AT]
    assert state.state == "present", state.reason
    return HDF5.read(state.inputs, min_mass_msunh=min_mass, **asked)


def test_a_file_in_our_own_layout_is_read_as_it_is(tmp_path: Path) -> None:
    columns = draw_columns()
    halos = read(write(tmp_path / "halos.hdf5", columns))
    assert np.array_equal(halos.positions, columns["halos/pos"])
    np.testing.assert_allclose(halos.masses, 10 ** columns["halos/logmhost"], rtol=1e-12)
    assert np.array_equal(halos.velocities, columns["halos/vel"])
    assert np.array_equal(halos.radii, columns["halos/radius"])
    assert halos.ids.tolist() == list(range(50))
    said = halos.metadata
    assert (said.box_size_mpch, said.redshift, said.realization) == (BOX, 1.1, 7)


def test_ids_of_our_own_layout_are_kept_where_a_file_has_them(tmp_path: Path) -> None:
    columns = {**draw_columns(), "halos/id": np.arange(50, dtype=np.int64)[::-1] * 5}
    path = write(tmp_path / "halos.hdf5", columns)
    assert read(path).ids.tolist() == list(range(0, 250, 5))
    assert read(path, layout={"ids": None}).ids.tolist() == list(range(50))
    columns["halos/id"][:3] = 10
    write(path, columns)
    with pytest.raises(ValidationError, match=r"there twice.*got: 3, the first of id 10;"):
        read(path)


def test_other_names_and_units(tmp_path: Path) -> None:
    columns = draw_columns()
    h = 0.7
    ids = np.arange(50, 0, -1, dtype=np.uint32) * 3
    path = write(
        tmp_path / "rockstar.h5",
        {
            "Mvir": 10 ** columns["halos/logmhost"] / h,
            "x": columns["halos/pos"].astype(float) / h,
            "v": columns["halos/vel"].astype(float),
            "Rvir": columns["halos/radius"].astype(float) / h,
            "id": ids,
        },
        Lbox=BOX / h,
    )
    layout = {
        "masses": "Mvir", "positions": "x", "velocities": "v", "radii": "Rvir", "ids": "id",
        "mass_unit": "Msun", "length_unit": "Mpc",
    }  # fmt: skip
    halos = read(path, layout=layout, cosmology={"h": h})
    order = np.argsort(ids)
    assert halos.ids.tolist() == sorted(ids.tolist())
    np.testing.assert_allclose(halos.masses, 10 ** columns["halos/logmhost"][order], rtol=1e-12)
    np.testing.assert_allclose(halos.positions, columns["halos/pos"][order], rtol=1e-6)
    np.testing.assert_allclose(halos.radii, columns["halos/radius"][order], rtol=1e-6)
    assert halos.metadata.box_size_mpch == pytest.approx(BOX)
    kpc = {**layout, "length_unit": "kpc/h"}
    small = read(path, layout=kpc, cosmology={"h": h}, box_size_mpch=BOX / h / 1000)
    np.testing.assert_allclose(small.radii, halos.radii / h / 1000, rtol=1e-6)


def test_windows_of_rows_and_slabs_give_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "halos.hdf5", draw_columns(101))
    whole = read(path, 1e11)
    assert 0 < len(whole) < 101
    monkeypatch.setattr("muster.mocks.halos.hdf5_file.WINDOW_ROWS", 10)
    in_windows = read(path, 1e11)
    assert np.array_equal(in_windows.ids, whole.ids)
    assert np.array_equal(in_windows.positions, whole.positions)
    for slabs in (1, 3, 7):
        parts = [read(path, 1e11, slab=(s, slabs), slab_axis="x") for s in range(slabs)]
        ids = np.concatenate([part.ids for part in parts])
        assert sorted(ids) == whole.ids.tolist()
    few = read(path, 1e11, n_halos=5)
    smallest = np.argsort(whole.positions[:, 0])[:5]
    assert few.ids.tolist() == sorted(whole.ids[smallest])


def test_files_are_found_by_their_names(tmp_path: Path) -> None:
    write(tmp_path / "r0007/ph3007_z1.100.hdf5", draw_columns())
    path = str(tmp_path / "r{realization}" / "{phase}_z{redshift}.hdf5")
    options = HDF5.parse_options({"path": path, "first_phase": 3000})
    others = [Coordinate(7, 0.5), Coordinate(8, 1.1)]
    found = HDF5.find_inputs(options, [AT, *others])
    assert [found[c].state for c in (AT, *others)] == ["present", "missing", "missing"]
    assert "holds no ph3007_z0.500.hdf5" in str(found[others[0]].reason)
    assert found[AT].inputs["phase"] == "ph3007"
    assert len(found[AT].fingerprint) == 64


def test_a_file_that_vanished_is_missing_input(tmp_path: Path) -> None:
    path = write(tmp_path / "halos.hdf5", draw_columns())
    parsed = HDF5.parse_options({"path": str(path)})
    inputs = HDF5.find_inputs(parsed, [AT])[AT].inputs
    path.unlink()
    with pytest.raises(CatalogNotFound, match="no such file"):
        HDF5.read(inputs, min_mass_msunh=0)


def test_no_halo_above_the_mass_is_an_empty_catalogue(tmp_path: Path) -> None:
    path = write(tmp_path / "halos.hdf5", draw_columns())
    assert len(read(path, 1e15)) == 0
    none = {name: values[:0] for name, values in draw_columns().items()}
    assert len(read(write(tmp_path / "none.hdf5", none))) == 0


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("halos/pos", None, r"no dataset halos/pos"),
        ("halos/pos", np.zeros((50, 2)), r"not what positions should be.*\(50, 2\)"),
        ("halos/pos", np.zeros((49, 3)), r"not what positions should be.*\(49, 3\)"),
        ("halos/vel", np.zeros((50, 3), "S3"), r"not what velocities should be"),
        ("halos/logmhost", np.full(50, np.nan), "masses: 50 values"),
        ("halos/logmhost", np.full(50, 1e12), "masses: 50 values.*log10"),
        ("halos/pos", np.full((50, 3), BOX * 1.1), "positions: 150 values"),
        ("halos/pos", np.full((50, 3), np.nan), "positions: 150 values"),
        ("halos/vel", np.full((50, 3), np.inf), "velocities: 150 values"),
        ("halos/radius", np.full(50, -1.0), "radii: 50 values"),
    ],
)
def test_wrong_datasets_are_refused(tmp_path: Path, name: str, values: Any, words: str) -> None:
    columns = draw_columns()
    columns.pop(name)
    if values is not None:
        columns[name] = values
    with pytest.raises(ValidationError, match=words):
        read(write(tmp_path / "halos.hdf5", columns))


@pytest.mark.parametrize(
    ("attributes", "options", "words"),
    [
        ({"z_obs": 0.5}, {}, r"z_obs states another redshift.*got: 0\.5; expected: 1\.1"),
        ({"z_obs": "late"}, {}, "z_obs is no number"),
        ({"Lbox": 500.0}, {"box_size_mpch": 100}, "Lbox states another box size"),
        ({"Lbox": -1.0}, {}, "Lbox states another box size"),
        ({"Lbox": np.nan}, {}, "Lbox is no number"),
        ({}, {"layout": {"box_size": "BoxSize"}}, "no attribute BoxSize.*state box_size_mpch"),
    ],
)
def test_wrong_attributes_are_refused(
    tmp_path: Path, attributes: dict[str, Any], options: dict[str, Any], words: str
) -> None:
    path = write(tmp_path / "halos.hdf5", draw_columns(), **attributes)
    with pytest.raises(ValidationError, match=words):
        read(path, **options)


def test_an_id_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "halos.hdf5", {**draw_columns(), "id": np.arange(50) % 49})
    with pytest.raises(ValidationError, match="id that is there twice"):
        read(path, layout={"ids": "id"})


def test_data_in_other_files_are_refused(tmp_path: Path) -> None:
    columns = draw_columns()
    secret = write(tmp_path / "secret.hdf5", columns)
    positions = columns.pop("halos/pos")
    linked = write(tmp_path / "linked.hdf5", columns)
    with h5py.File(linked, "a") as file:
        file["halos/pos"] = h5py.ExternalLink(str(secret), "halos/pos")
    external = write(tmp_path / "external.hdf5", columns)
    raw = tmp_path / "raw.bin"
    raw.write_bytes(positions.tobytes())
    with h5py.File(external, "a") as file:
        file.create_dataset("halos/pos", positions.shape, "f4", external=[(str(raw), 0, 600)])
    virtual = write(tmp_path / "virtual.hdf5", columns)
    with h5py.File(virtual, "a") as file:
        layout = h5py.VirtualLayout(positions.shape, "f4")
        layout[:] = h5py.VirtualSource(str(secret), "halos/pos", positions.shape)
        file.create_virtual_dataset("halos/pos", layout)
    for path in (linked, external, virtual):
        with pytest.raises(ValidationError, match="takes data from another file"):
            read(path)


def test_a_chunk_that_fills_memory_is_refused(tmp_path: Path) -> None:
    columns = draw_columns()
    columns.pop("halos/radius")
    path = write(tmp_path / "halos.hdf5", columns)
    with h5py.File(path, "a") as file:
        file.create_dataset(
            "halos/radius", (50,), "f8", maxshape=(None,), chunks=(1 << 28,), compression="gzip"
        )
    with pytest.raises(ValidationError, match="chunk of dataset halos/radius is too large"):
        read(path)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    columns = {
        name: np.tile(v, (40, 1) if v.ndim > 1 else 40) for name, v in draw_columns().items()
    }
    path = tmp_path / "halos.hdf5"
    with h5py.File(path, "w") as file:
        for name, values in columns.items():
            file.create_dataset(name, data=values, compression="gzip", fletcher32=True, chunks=True)
        file.attrs.update({"Lbox": BOX, "z_obs": 1.1})
    content = path.read_bytes()
    assert len(read(path)) == 2000
    for size in (0, 100, len(content) // 2, len(content) - 10):
        path.write_bytes(content[:size])
        with pytest.raises(ValidationError, match="not a readable HDF5 file"):
            read(path)
    middle = bytearray(content)
    middle[len(content) // 2 : len(content) // 2 + 200] = bytes(200)
    path.write_bytes(middle)
    with pytest.raises(ValidationError, match=r"halos.hdf5"):
        read(path)


def test_what_hdf5_says_is_told_in_plain_words(tmp_path: Path) -> None:
    path = tmp_path / "halos.hdf5"
    path.mkdir()
    with pytest.raises(ValidationError, match=r"cannot be read.*got: Is a directory") as folder:
        read(path)
    path.rmdir()
    path.write_bytes(bytes(100))
    with pytest.raises(ValidationError, match="not a readable HDF5 file") as damaged:
        read(path)
    for told in (folder, damaged):
        assert "0x" not in str(told.value)
        assert "; do: " in str(told.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "a key is missing.*path"),
        ({"path": "/data/{phse}.h5"}, "unknown placeholder {phse}"),
        ({"path": "/data/{phase.h5"}, "unbalanced brace"),
        ({"path": "/d.h5", "layout": {"mass_unit": "kg"}}, r"layout\.mass_unit.*Msun"),
        ({"path": "/d.h5", "box_size_mpch": 0}, "box_size_mpch"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        HDF5.parse_options(options)
