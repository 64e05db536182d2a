"""Two catalogues: what differs, in how many rows, where, and by how much."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from muster.errors import ConfigError, InvalidInput, MissingInput
from muster.mocks.catalogue.compare import compare_catalogues
from muster.mocks.catalogue.difference import AttributeDifference
from muster.mocks.catalogue.layout import Compression
from tests.unit.mocks.catalogue.boxes import write_box

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two equal catalogues whose chunks are not cut alike."""
    gzip = Compression("gzip", chunk_rows=1024)
    return (
        write_box(tmp_path / "a.hdf5", 2500, compression=Compression(chunk_rows=2048)),
        write_box(tmp_path / "b.hdf5", 2500, compression=gzip, statistics={"x": np.ones(2)}),
    )


def test_equal_arrays_are_equal_however_they_are_stored(pair: tuple[Path, Path]) -> None:
    difference = compare_catalogues(*pair)
    assert difference.is_equal
    assert difference.describe() == ["equal to the bit: 14 datasets, and their attributes"]
    assert difference.to_dict()["equal"] is True


def test_rows_are_counted_and_the_largest_is_found(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muster.mocks.catalogue.hdf5.SLAB_BYTES", 12 * 1024)
    with h5py.File(pair[1], "r+") as file:
        for row, off in ((3, 0.25), (1300, -7.0), (1301, 1.0), (2499, 0.5)):
            file["galaxies/vel"][row, 1] += np.float32(off)
        file["galaxies/upid"][1999] = 77
    difference = compare_catalogues(*pair)
    upid, vel = difference.datasets
    assert (vel.path, vel.rows, vel.rows_differ) == ("galaxies/vel", 2500, 4)
    assert vel.first_rows == (3, 1300, 1301, 2499)
    assert vel.largest == pytest.approx(7, abs=1e-4)
    assert vel.largest_row == 1300
    assert (upid.path, upid.rows_differ, upid.first_rows) == ("galaxies/upid", 1, (1999,))
    assert not difference.is_equal
    assert difference.describe()[1] == (
        "galaxies/vel: 4 of 2500 rows differ: 3, 1300, 1301, 2499;"
        f" largest difference {vel.largest:g} in row 1300"
    )


def test_a_tolerance_forgives_what_is_within_it(pair: tuple[Path, Path]) -> None:
    with h5py.File(pair[1], "r+") as file:
        file["galaxies/pos"][5, 0] *= np.float32(1 + 1e-5)
        file["galaxies/pos"][6, 0] *= np.float32(1 + 1e-3)
        file.attrs["h"] = 0.6736 * (1 + 1e-5)
    exact = compare_catalogues(*pair)
    assert exact.datasets[0].first_rows == (5, 6)
    assert [a.name for a in exact.attributes] == ["h"]
    near = compare_catalogues(*pair, rtol=1e-4)
    assert near.datasets[0].first_rows == (6,)
    assert not near.attributes
    assert compare_catalogues(*pair, atol=0.1).is_equal
    for wrong in (-1, math.nan, math.inf):
        with pytest.raises(ConfigError):
            compare_catalogues(*pair, rtol=wrong)


def test_nan_equals_nan_and_zero_is_not_minus_zero(pair: tuple[Path, Path]) -> None:
    for path in pair:
        with h5py.File(path, "r+") as file:
            file["galaxies/vel"][4] = np.nan
            file["galaxies/vel"][5] = np.inf
            file["galaxies/vel"][6] = 0.0 if path == pair[0] else -0.0
            file["galaxies/vel"][7] = np.nan if path == pair[0] else 1.0
    exact = compare_catalogues(*pair).datasets[0]
    assert (exact.first_rows, exact.largest) == ((6, 7), 0.0)
    near = compare_catalogues(*pair, atol=1e-9).datasets[0]
    assert (near.first_rows, near.largest, near.largest_row) == ((7,), None, None)


def test_kinds_shapes_and_what_only_one_has_are_told(pair: tuple[Path, Path]) -> None:
    with h5py.File(pair[1], "r+") as file:
        values = file["galaxies/vel"][()]
        del file["galaxies/vel"], file["halos/radius"]
        file["galaxies/vel"] = values.astype("f8")
        file["galaxies/more"] = 1.0
        shorter = file["galaxies/logsm_t_obs"][:-1]
        del file["galaxies/logsm_t_obs"]
        file["galaxies/logsm_t_obs"] = shorter
    difference = compare_catalogues(*pair)
    assert difference.only_a == ("halos/radius",)
    assert difference.only_b == ("galaxies/more",)
    found = {dataset.path: dataset for dataset in difference.datasets}
    assert found["galaxies/vel"].dtypes == ("float32", "float64")
    assert found["galaxies/vel"].rows_differ == 0
    assert found["galaxies/logsm_t_obs"].shapes == ("(2500,)", "(2499,)")
    assert found["galaxies/logsm_t_obs"].rows == 0
    lines = difference.describe()
    assert "halos/radius: only in A" in lines
    assert "galaxies/vel: dtype float32 and float64" in lines
    assert "galaxies/vel, attribute unit: 'km/s' and nothing" in lines


def test_attributes_differ_by_value_and_by_kind(pair: tuple[Path, Path]) -> None:
    with h5py.File(pair[1], "r+") as file:
        file.attrs["seed"] = 4
        file.attrs["Lbox"] = "32.2"
        file.attrs["new"] = np.nan
        file["galaxies/pos"].attrs["unit"] = "Mpc"
    difference = compare_catalogues(*pair)
    assert difference.attributes[0] == AttributeDifference("/", "Lbox", 32.2, "32.2")
    assert difference.attributes[2] == AttributeDifference("/", "seed", 3, 4)
    assert [(a.where, a.name) for a in difference.attributes] == [
        ("/", "Lbox"), ("/", "new"), ("/", "seed"), ("galaxies/pos", "unit"),
    ]  # fmt: skip
    assert json.loads(json.dumps(difference.to_dict(), allow_nan=False))["attributes"][1] == {
        "where": "/", "name": "new", "a": None, "b": "nan",
    }  # fmt: skip


def test_parameters_are_compared_along_their_galaxies(tmp_path: Path) -> None:
    paths = [write_box(tmp_path / name, layout="full") for name in ("a.hdf5", "b.hdf5")]
    with h5py.File(paths[1], "r+") as file:
        file["galaxies/mah_params"][3, 250] += 1
    (found,) = compare_catalogues(*paths).datasets
    assert (found.rows, found.first_rows) == (300, (250,))


def test_files_of_the_originals_layout_are_compared(tmp_path: Path) -> None:
    for name in ("a.hdf5", "b.hdf5"):
        with h5py.File(tmp_path / name, "w") as file:
            file["galaxies/pos"] = np.zeros((4, 3), np.float32)
            file["galaxies/z_obs"] = 1.1 if name == "a.hdf5" else 1.2
            file.attrs["phase"] = np.bytes_(b"ph3000")
    difference = compare_catalogues(tmp_path / "a.hdf5", tmp_path / "b.hdf5")
    assert difference.compared == 2
    assert difference.describe() == [
        "galaxies/z_obs: 1 of 1 rows differ: 0; largest difference 0.1 in row 0"
    ]


def test_what_cannot_be_read_is_an_error_that_names_it(
    tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    with pytest.raises(MissingInput, match=r"absent\.hdf5"):
        compare_catalogues(pair[0], tmp_path / "absent.hdf5")
    (tmp_path / "text").write_text("no HDF5")
    with pytest.raises(InvalidInput, match=r"not an HDF5 file; where: .*text"):
        compare_catalogues(tmp_path / "text", pair[0])
    with h5py.File(pair[1], "r+") as file:
        del file["galaxies/pos"]
        file["galaxies/pos"] = h5py.ExternalLink("other.hdf5", "/")
    with pytest.raises(InvalidInput, match=r"b\.hdf5, galaxies/pos"):
        compare_catalogues(*pair)


FLOATS = arrays.arrays(
    np.float32, 12, elements=st.floats(width=32, allow_nan=True, allow_infinity=True)
)


@pytest.mark.property
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(FLOATS, FLOATS, st.sampled_from([0.0, 1e-3, 0.5]), st.sampled_from([0.0, 1e-3, 2.0]))
def test_rows_are_those_that_numpy_finds(
    tmp_path: Path, a: Any, b: Any, rtol: float, atol: float
) -> None:
    b = np.where(np.arange(12) % 2, a, b)
    for name, values in (("a.hdf5", a), ("b.hdf5", b)):
        with h5py.File(tmp_path / name, "w") as file:
            file["galaxies/x"] = values
    found = compare_catalogues(tmp_path / "a.hdf5", tmp_path / "b.hdf5", rtol=rtol, atol=atol)
    if rtol or atol:
        with np.errstate(all="ignore"):
            equal = np.isclose(a.astype(float), b.astype(float), rtol, atol, equal_nan=True)
    else:
        equal = a.view(np.uint32) == b.view(np.uint32)
    rows = found.datasets[0].first_rows if found.datasets else ()
    assert rows == tuple(np.flatnonzero(~equal)[:10])
    assert (found.datasets[0].rows_differ if found.datasets else 0) == np.count_nonzero(~equal)
