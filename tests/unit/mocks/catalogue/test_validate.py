"""Each planted defect is named, a good catalogue has none, and no file raises or is unbounded."""

from __future__ import annotations

import json
import tracemalloc
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest

from muster.errors import InvalidInput, MissingInput
from muster.mocks.catalogue.hdf5 import SLAB_BYTES, read_slabs
from muster.mocks.catalogue.hosts import HaloPlaces
from muster.mocks.catalogue.layout import COLUMNS, Compression
from muster.mocks.catalogue.problems import write_validation_report
from muster.mocks.catalogue.read import read_catalogue, read_statistics
from muster.mocks.catalogue.validate import Expected, Problem, set_aside, validate_catalogue
from muster.mocks.catalogue.write import write_catalogue
from muster.mocks.galaxies.model import Expectation
from muster.storage import is_temporary, temporary_sibling
from tests.unit.mocks.catalogue.boxes import BOX_MPCH, make_box, with_properties, write_box

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

EXPECTED = Expected(
    box_size_mpch=BOX_MPCH,
    redshift=1.1,
    layout="lean",
    galaxies=Expectation(310.0, 5.0),
    n_halos=50,
    attributes={"seed": 3, "fingerprint": "ab12", "realization": 7},
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_box(tmp_path / "box.hdf5")


def validate(path: Path, expected: Expected = EXPECTED) -> list[Problem]:
    return validate_catalogue(path, expected=expected)


def spoil(path: Path, change: Callable[[h5py.File], None]) -> list[Problem]:
    """Change a good file and return what is found wrong with it."""
    assert validate(path) == []
    with h5py.File(path, "r+") as file:
        change(file)
    return validate(path)


def replace(file: h5py.File, name: str, **made: Any) -> h5py.Dataset:
    """Put another dataset in the place of one, with its attributes."""
    attributes = dict(file[name].attrs)
    del file[name]
    dataset = file.create_dataset(name, **made)
    dataset.attrs.update(attributes)
    return dataset


@pytest.mark.parametrize("kind", ["none", "gzip", "lzf"])
@pytest.mark.parametrize("layout", ["lean", "full"])
@pytest.mark.parametrize(("galaxies", "halos"), [(300, 50), (2500, 1300), (0, 50), (0, 0)])
def test_good_catalogues_have_no_problem(
    tmp_path: Path, kind: Any, layout: Any, galaxies: int, halos: int
) -> None:
    compression = Compression(kind, chunk_rows=1024)
    statistics = {"counts": np.arange(3)}
    path = write_box(
        tmp_path / "box.hdf5", galaxies, halos,
        layout=layout, compression=compression, statistics=statistics,
    )  # fmt: skip
    expected = Expected(BOX_MPCH, 1.1, layout, Expectation(galaxies, 0.0), halos)
    assert validate(path, expected) == []
    assert validate(path, Expected()) == []


@pytest.mark.parametrize(
    ("dataset", "row", "value", "kind", "told"),
    [
        ("galaxies/pos", (7, 1), np.nan, "not_finite", ""),
        ("galaxies/vel", (7, 1), -np.inf, "not_finite", ""),
        ("galaxies/logssfr_t_obs", 7, -np.inf, "not_finite", ""),
        ("halos/logmhost", 7, np.nan, "not_finite", ""),
        ("galaxies/pos", (7, 1), -1e-6, "outside_box", "[0, 32.2)"),
        ("galaxies/pos", (7, 2), 33, "outside_box", "[0, 32.2)"),
        # 32.2 rounds to a float32 above it.
        ("galaxies/pos", (7, 0), BOX_MPCH, "outside_box", "[0, 32.2)"),
        ("halos/pos", (7, 0), BOX_MPCH, "outside_box", "[0, 32.2)"),
        ("halos/logmhost", 7, 10.9, "out_of_range", "[11, 17)"),
        ("halos/logmhost", 7, 17.5, "out_of_range", "[11, 17)"),
        ("galaxies/logsm_t_obs", 7, 99, "out_of_range", "[-20, 14)"),
        ("galaxies/logssfr_t_obs", 7, 0, "out_of_range", "[-60, -3)"),
        ("galaxies/logmp_t_obs", 7, -1, "out_of_range", "[0, 17)"),
        ("galaxies/vel", (7, 1), 1e30, "out_of_range", "[-30000, 30000)"),
        ("halos/vel", (7, 1), -4e4, "out_of_range", "[-30000, 30000)"),
        ("halos/radius", 7, -0.1, "out_of_range", "[0, 50)"),
        ("halos/id", 7, 5, "not_unique", ""),
        ("galaxies/upid", 7, 6, "no_host", ""),
        ("galaxies/upid", 7, -2, "no_host", ""),
    ],
)
def test_a_wrong_value_is_named_with_its_row(
    path: Path, dataset: str, row: Any, value: float, kind: str, told: str
) -> None:
    def change(file: h5py.File) -> None:
        file[dataset][row] = value

    problems = spoil(path, change)
    # A halo whose id is gone may have had satellites.
    problem = next(found for found in problems if found.where == dataset)
    assert len(problems) == 1 or dataset == "halos/id"
    assert (problem.kind, problem.rows, problem.first_row) == (kind, 1, 7)
    assert problem.expected == told
    assert "1 rows, the first 7" in problem.describe()


def test_a_position_exactly_at_the_box_size_is_outside(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["Lbox"] = 32.0
        file["galaxies/pos"][3, 1] = 32.0
        file["halos/pos"][4, 2] = 32.0
    problems = validate(path, Expected(box_size_mpch=32.0))
    assert [(p.where, p.kind, p.rows, p.first_row) for p in problems] == [
        ("galaxies/pos", "outside_box", 1, 3),
        ("halos/pos", "outside_box", 1, 4),
    ]


def test_the_greatest_number_below_the_box_size_is_inside(path: Path) -> None:
    def change(file: h5py.File) -> None:
        file["galaxies/pos"][7, 0] = np.nextafter(np.float32(BOX_MPCH), np.float32(0))
        file["galaxies/pos"][8, 0] = 0.0

    assert [p for p in spoil(path, change) if p.kind != "misplaced"] == []


@pytest.mark.parametrize("by_id", [True, False])
@pytest.mark.parametrize("central", [True, False])
def test_galaxies_far_from_their_haloes_are_named(
    tmp_path: Path, central: bool, by_id: bool
) -> None:
    galaxies, halos = make_box()
    upid = galaxies.properties["upid"]
    if not by_id:
        upid = np.where(upid == -1, -1, galaxies.parent_halos)
    path = tmp_path / "box.hdf5"
    write_catalogue(path, with_properties(galaxies, upid=upid), halos)
    assert validate(path, Expected()) == []
    row = int(np.flatnonzero((upid == -1) == central)[5])
    halo = int(galaxies.parent_halos[row])
    farthest = 5 * halos.radii[halo]
    place = halos.positions[halo].astype(np.float64)
    for away, misplaced in ((0.98 * farthest, 0), (1.02 * farthest, 1)):
        if central and misplaced:
            continue  # may be near enough to another
        place[0] = (halos.positions[halo, 0] - away) % BOX_MPCH
        with h5py.File(path, "r+") as file:
            file["galaxies/pos"][row] = place
        assert len(validate(path, Expected())) == misplaced
    with h5py.File(path, "r+") as file:
        file["galaxies/pos"][row] = _find_void(halos.positions)
    (problem,) = validate(path, Expected())
    assert (problem.kind, problem.where, problem.rows) == ("misplaced", "galaxies/pos", 1)
    assert problem.first_row == row


def test_a_central_may_lie_beside_the_middle_of_its_halo(path: Path) -> None:
    def change(file: h5py.File) -> None:
        row = int(np.flatnonzero(file["galaxies/upid"][()] == -1)[3])
        file["galaxies/pos"][row, 1] += 0.01

    assert spoil(path, change) == []


def test_a_satellite_of_another_halo_is_misplaced(path: Path) -> None:
    galaxies, halos = make_box()
    row = int(np.flatnonzero(galaxies.properties["upid"] != -1)[0])
    away = np.abs(halos.positions - galaxies.positions[row])
    distance = np.linalg.norm(np.minimum(away, BOX_MPCH - away), axis=1)
    other = int(np.argmax(distance / halos.radii))

    def change(file: h5py.File) -> None:
        file["galaxies/upid"][row] = halos.ids[other]

    assert [(p.kind, p.first_row) for p in spoil(path, change)] == [("misplaced", row)]


def test_galaxies_lie_at_haloes_across_the_border_of_the_box() -> None:
    places = HaloPlaces(np.float32([[0.1, 31.9, 5], [9, 9, 9]]), np.float32([0.2, 0.2]), 32.0)
    galaxies = np.float32([[31.8, 0.1, 5], [31.8, 1.2, 5], [9, 9, 9], [9, 9, 10.1]])
    hosts = np.array([0, 0, 1, 1])
    assert places.find_far(galaxies, hosts).tolist() == [False, True, False, True]
    assert places.find_lost(galaxies).tolist() == [False, True, False, True]
    nobody = HaloPlaces(np.zeros((0, 3), np.float32), np.zeros(0, np.float32), 32.0)
    assert nobody.find_lost(galaxies).all()


def _find_void(positions: np.ndarray) -> np.ndarray:
    """Return the place of a grid that is farthest from all haloes."""
    axis = np.arange(0, 32, 2.0)
    grid = np.stack(np.meshgrid(axis, axis, axis), axis=-1).reshape(-1, 3)
    away = np.abs(grid[:, None] - positions)
    nearest = np.linalg.norm(np.minimum(away, BOX_MPCH - away), axis=2).min(axis=1)
    assert nearest.max() > 5
    return grid[nearest.argmax()]


def test_rows_are_counted_over_all_slabs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muster.mocks.catalogue.hdf5.SLAB_BYTES", 12 * 1024)
    path = write_box(
        tmp_path / "box.hdf5", 5000, layout="full", compression=Compression(chunk_rows=1024)
    )
    rows = [3, 1700, 1701, 4999]
    with h5py.File(path, "r+") as file:
        assert len(list(read_slabs(file["galaxies/pos"]))) == 5
        for row in rows:
            file["galaxies/pos"][row, 2] = np.nan
            file["galaxies/mah_params"][2, row] = np.nan
            file["galaxies/upid"][row] = 1
    found = {problem.where: problem for problem in validate(path, Expected())}
    assert set(found) == {"galaxies/pos", "galaxies/mah_params", "galaxies/upid"}
    assert {(problem.rows, problem.first_row) for problem in found.values()} == {(4, 3)}


def test_rows_may_stand_for_ids(tmp_path: Path) -> None:
    galaxies, halos = make_box()
    rows = np.where(galaxies.properties["upid"] == -1, -1, galaxies.parent_halos)
    path = tmp_path / "box.hdf5"
    write_catalogue(path, with_properties(galaxies, upid=rows), halos)
    assert validate(path, Expected()) == []
    with h5py.File(path, "r+") as file:
        file["galaxies/upid"][4] = 50
    (problem,) = validate(path, Expected())
    assert (problem.kind, problem.first_row) == ("no_host", 4)


@pytest.mark.parametrize("column", [c.path for c in COLUMNS if c.lean and c.required])
def test_each_missing_dataset_is_named(path: Path, column: str) -> None:
    def change(file: h5py.File) -> None:
        del file[column]

    assert [(p.kind, p.where) for p in spoil(path, change)] == [("missing", column)]


def test_histories_that_are_missing_in_a_full_catalogue_are_named(path: Path) -> None:
    missing = {p.where for p in validate(path, Expected(layout="full")) if p.kind == "missing"}
    assert missing == {"galaxies/t_table", "galaxies/log_mah_table", "galaxies/sfh_table"}


def test_a_dataset_that_is_not_of_the_layout_is_named(path: Path) -> None:
    problems = spoil(path, lambda file: file.create_dataset("galaxies/extra", data=[1.0]))
    assert [(p.kind, p.where) for p in problems] == [("unknown", "galaxies/extra")]


def test_kinds_shapes_and_units_that_are_not_those_of_the_layout_are_named(path: Path) -> None:
    def change(file: h5py.File) -> None:
        replace(file, "galaxies/logsm_t_obs", data=np.zeros(300, np.int16))
        replace(file, "galaxies/vel", data=np.zeros((300, 2), np.float32))
        replace(file, "halos/radius", data=np.zeros(49, np.float32))
        file["galaxies/pos"].attrs["unit"] = "Mpc"

    found = {(p.where, p.kind, p.got) for p in spoil(path, change)}
    assert found == {
        ("galaxies/logsm_t_obs", "kind", "int16"),
        ("galaxies/vel", "shape", "(300, 2)"),
        ("halos/radius", "shape", "(49,)"),
        ("galaxies/pos", "unit", "Mpc"),
    }


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("Lbox", 33.0, "is another; got: 33.0; expected: 32.2"),
        ("Lbox", -1.0, "is no size; got: -1.0"),
        ("Lbox", np.nan, "is no size; got: nan"),
        ("z_obs", 1.2, "is another; got: 1.2; expected: 1.1"),
        ("z_obs", "1.1", "is of another kind; got: '1.1'; expected: float"),
        ("n_galaxies", 299, "is not the number of rows; got: 299; expected: 300"),
        ("n_halos", 50.0, "is of another kind; got: 50.0; expected: int"),
        ("redshift", "z1.200", "is another; got: z1.200; expected: z1.100"),
        ("format", "other", "is another; got: other; expected: muster mock catalogue"),
        ("layout", "full", "is another; got: full; expected: lean"),
        ("seed", 4, "is another; got: 4; expected: 3"),
        ("fingerprint", None, "is missing; expected: ab12"),
        ("phase", None, "is missing"),
        ("phase", np.zeros(40_000, np.int8), "empty or too large"),
        ("phase", h5py.Empty("f"), "empty or too large"),
        ("note", "x" * 40_000, "too long"),
    ],
)
def test_a_wrong_attribute_is_named(path: Path, name: str, value: Any, told: str) -> None:
    def change(file: h5py.File) -> None:
        if name in file.attrs:
            del file.attrs[name]
        if value is not None:
            file.attrs[name] = value

    lines = [problem.describe() for problem in spoil(path, change)]
    assert f"{name}: {told}" in lines


@pytest.mark.parametrize(("mean", "sd", "good"), [(310, 5, True), (300, 0, True), (331, 5, False)])
def test_counts_are_judged_by_what_was_expected(
    path: Path, mean: float, sd: float, good: bool
) -> None:
    problems = validate(path, Expected(galaxies=Expectation(mean, sd)))
    assert [(p.kind, p.got) for p in problems] == ([] if good else [("count", "300")])
    (problem,) = validate(path, Expected(n_halos=51))
    assert problem.describe() == "n_halos: is another; got: 50; expected: 51"


def test_files_that_are_no_catalogues_are_a_problem_each(tmp_path: Path, path: Path) -> None:
    content = path.read_bytes()
    files = {
        "absent": None,
        "empty": b"",
        "text": b"no HDF5 at all\n" * 100,
        "signature alone": content[:8],
        "header alone": content[:2000],
        "half": content[: len(content) // 2],
        "cut by a byte": content[:-1],
    }
    for name, data in files.items():
        file = tmp_path / f"{name}.hdf5"
        if data is not None:
            file.write_bytes(data)
        problems = validate(file)
        assert [p.kind for p in problems] == ["unreadable"], (name, problems)
        assert "\n" not in problems[0].describe()
        with pytest.raises((InvalidInput, MissingInput)):
            read_catalogue(file)
    assert [p.kind for p in validate(tmp_path)] == ["unreadable"]


@pytest.mark.parametrize("kind", ["none", "gzip"])
def test_any_changed_byte_is_found_or_harmless(tmp_path: Path, kind: Any) -> None:
    """Bytes that rot anywhere give problems or other values, never an exception."""
    path = write_box(tmp_path / "box.hdf5", compression=Compression(kind))
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(5)
    bad = tmp_path / "bad.hdf5"
    found = 0
    for position in rng.integers(0, len(content), 60).tolist():
        spoilt = bytearray(content)
        spoilt[position] ^= int(rng.integers(1, 256))
        bad.write_bytes(spoilt)
        found += bool(validate(bad))
    assert found > 8


class TestHostile:
    """Files made to lead elsewhere, or to be endless."""

    @pytest.fixture(autouse=True)
    def _bounded(self) -> Any:
        tracemalloc.start()
        yield
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4 * SLAB_BYTES

    def check(self, path: Path, where: str, told: str, kind: str = "hostile") -> None:
        problems = validate(path)
        assert any(
            p.kind == kind and p.where == where and told in p.describe() for p in problems
        ), problems
        if kind == "hostile":
            with pytest.raises(InvalidInput):
                read_catalogue(path)

    def test_links(self, tmp_path: Path, path: Path) -> None:
        other = write_box(tmp_path / "other.hdf5")
        with h5py.File(path, "r+") as file:
            del file["galaxies/pos"], file["galaxies/vel"], file["halos"]
            file["galaxies/pos"] = h5py.ExternalLink(str(other), "galaxies/pos")
            file["galaxies/vel"] = h5py.SoftLink("/galaxies/upid")
            file["halos"] = h5py.ExternalLink(str(other), "halos")
        for where in ("galaxies/pos", "galaxies/vel", "halos"):
            self.check(path, where, "a link that may lead elsewhere")

    def test_a_group_that_holds_itself(self, path: Path) -> None:
        with h5py.File(path, "r+") as file:
            file["galaxies/loop"] = file["galaxies"]
        self.check(path, "galaxies/" + "loop/" * 3 + "loop", "neither a dataset nor a group")

    def test_values_in_other_files(self, tmp_path: Path, path: Path) -> None:
        (tmp_path / "passwords").write_bytes(bytes(3600))
        with h5py.File(path, "r+") as file:
            replace(
                file, "galaxies/pos", shape=(300, 3), dtype="f4",
                external=[(str(tmp_path / "passwords"), 0, 3600)],
            )  # fmt: skip
            layout = h5py.VirtualLayout((300, 3), "f4")
            layout[:] = h5py.VirtualSource(str(tmp_path / "o.hdf5"), "x", (300, 3))
            del file["galaxies/vel"]
            file.create_virtual_dataset("galaxies/vel", layout)
        self.check(path, "galaxies/pos", "kept in other files")
        self.check(path, "galaxies/vel", "kept in other files")

    def test_rows_that_are_not_in_the_file(self, path: Path) -> None:
        with h5py.File(path, "r+") as file:
            replace(file, "galaxies/pos", shape=(10**12, 3), dtype="f4", chunks=(1 << 16, 3))
            replace(file, "galaxies/vel", shape=(10**9, 3), dtype="f4", chunks=(1 << 16, 3))
            file["galaxies/vel"][5] = 1
            replace(file, "galaxies/upid", shape=(10**9,), dtype="i8")
            replace(
                file, "halos/pos", shape=(10**8, 3), dtype="f4", chunks=(10**8, 3),
                compression="gzip",
            )  # fmt: skip
        self.check(path, "galaxies/pos", "too large")
        self.check(path, "galaxies/vel", "1 of 15259 chunks are there")
        self.check(path, "galaxies/upid", "says 8000000000 bytes, has 0")
        self.check(path, "halos/pos", "chunks of 1200000000 bytes")

    def test_kinds_that_are_no_numbers(self, path: Path) -> None:
        with h5py.File(path, "r+") as file:
            replace(file, "galaxies/pos", shape=(300,), dtype=h5py.special_dtype(vlen=np.int8))
            replace(file, "galaxies/vel", data=["text"] * 300)
            replace(file, "halos/vel", data=np.zeros(50, [("x", "f4"), ("y", "f4")]))
            file["halos/type"] = np.dtype("f4")
        for where in ("galaxies/pos", "galaxies/vel", "halos/vel"):
            self.check(path, where, "no numbers but")
        self.check(path, "halos/type", "neither a dataset nor a group")

    def test_an_unknown_filter(self, path: Path) -> None:
        created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        created.set_chunk((300, 3))
        created.set_filter(32004, h5py.h5z.FLAG_OPTIONAL, ())  # LZ4, of a plugin
        with h5py.File(path, "r+") as file:
            del file["galaxies/pos"]
            space = h5py.h5s.create_simple((300, 3))
            h5py.h5d.create(file.id, b"galaxies/pos", h5py.h5t.IEEE_F32LE, space, created)
        self.check(path, "galaxies/pos", "filters that are not known: [32004]")

    def test_very_many_objects(self, path: Path) -> None:
        with h5py.File(path, "r+") as file:
            for number in range(1100):
                file.create_group(f"galaxies/{number}")
        self.check(path, "galaxies/", "more than 1024 objects")

    def test_statistics_that_lead_elsewhere_or_are_large(self, tmp_path: Path, path: Path) -> None:
        for make in (
            lambda file: None,
            lambda file: file.__setitem__("statistics", h5py.SoftLink("/galaxies")),
            lambda file: file.__setitem__("statistics", h5py.ExternalLink("o.hdf5", "/")),
            lambda file: file.create_dataset("statistics", data=[1]),
        ):
            with h5py.File(path, "r+") as file:
                if file.get("statistics", getlink=True) is not None:
                    del file["statistics"]
                make(file)
            with pytest.raises(MissingInput, match="statistics"):
                read_statistics(path)
        with h5py.File(path, "r+") as file:
            del file["statistics"]
            file.create_dataset("statistics/a", data=np.zeros(1 << 16))
        with pytest.raises(InvalidInput, match="too large"):
            read_statistics(path)


def test_statistics_are_read_although_the_rest_is_spoilt(tmp_path: Path) -> None:
    path = write_box(tmp_path / "box.hdf5", statistics={"counts": np.arange(4)})
    with h5py.File(path, "r+") as file:
        file["galaxies/link"] = h5py.SoftLink("/nowhere")
    np.testing.assert_array_equal(read_statistics(path)["counts"], np.arange(4))


def test_a_bad_file_is_set_aside_under_a_name_that_is_never_its_own(tmp_path: Path) -> None:
    first = tmp_path / "mock_z1.100.hdf5"
    first.write_text("one")
    assert set_aside(first).name == "mock_z1.100.hdf5.invalid"
    assert not first.exists()
    temporary = temporary_sibling(first, "attempt")
    temporary.write_text("two")
    aside = set_aside(temporary)
    assert aside.name == "mock_z1.100.hdf5.invalid"
    assert not is_temporary(aside.name)
    assert aside.read_text() == "two"
    temporary.write_text("three")
    kept = set_aside(temporary, tmp_path / "reports" / "r0001_z1.100.hdf5")
    assert kept == tmp_path / "reports" / "r0001_z1.100.hdf5.invalid"
    assert kept.read_text() == "three"
    with pytest.raises(MissingInput):
        set_aside(temporary)


def test_a_report_lists_the_problems(tmp_path: Path, path: Path) -> None:
    problems = validate(path, Expected(n_halos=4))
    write_validation_report(tmp_path / "report.json", str(path), problems, realization=7)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["valid"] is False
    assert report["problems"] == [problem.to_dict() for problem in problems]
    assert report["problems"][0]["expected"] == "4"
    assert report["facts"] == {"realization": 7}
    assert report["checked_at"].endswith("+00:00")
