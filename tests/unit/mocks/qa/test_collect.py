"""Statistics in Parquet files: collected, read again in parts, and whatever else may lie there."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from muster.errors import ConfigError, InvalidInput, MissingInput, Transient
from muster.mocks.catalogue.write import write_catalogue
from muster.mocks.coordinates import Coordinate
from muster.mocks.qa.bins import FIELDS
from muster.mocks.qa.collect import collect_statistics, read_campaign
from muster.mocks.qa.statistics import compute_statistics
from muster.mocks.qa.statistics_file import make_schema, read_table, write_statistics
from tests.unit.mocks.qa.made_statistics import draw, make_row, write_campaign
from tests.unit.mocks.qa.test_statistics import make_box

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray


def write_statistics_group(path: Path, arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Write a file that holds nothing but statistics; return its entry of a batch."""
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[f"statistics/{name}"] = values
    return entry_of(path)


def entry_of(path: Path, realization: int = 7, redshift: float = 0.5) -> dict[str, Any]:
    return {
        "realization": realization,
        "redshift": redshift,
        "redshift_index": 3,
        "uri": path.as_uri(),
        "fingerprint": "f" * 64,
    }


def test_a_batch_becomes_one_file(tmp_path: Path) -> None:
    entries = []
    for realization in (9, 7):
        path = tmp_path / f"r{realization:04d}" / "mock.hdf5"
        entry = write_statistics_group(path, draw(realization).to_arrays())
        entries.append({**entry, "realization": realization})
        os.utime(path, ns=(0, 1_767_225_600_123_456_789))
    heard: list[tuple[float, str]] = []
    to = tmp_path / "batch.parquet"
    found = collect_statistics(entries, to, progress=lambda *told: heard.append(told))
    assert (found.rows, found.problems) == (2, ())
    assert heard == [(0.5, "r0009_z0.500"), (1.0, "r0007_z0.500")]
    table = read_table(to)
    assert table.realization.tolist() == [7, 9]
    assert table.redshift_index.tolist() == [3, 3]
    assert table.redshift.tolist() == [0.5, 0.5]
    assert table.made_at_us.tolist() == [1_767_225_600_123_456] * 2
    assert table.uri[0] == (tmp_path / "r0007" / "mock.hdf5").as_uri()
    for name, values in draw(9).to_arrays().items():
        np.testing.assert_array_equal(table.columns[name][1], values)
    again = tmp_path / "again.parquet"
    collect_statistics(entries[::-1], again)
    assert again.read_bytes() == to.read_bytes()


def test_a_column_says_its_unit_and_shape(tmp_path: Path) -> None:
    write_statistics(tmp_path / "b.parquet", [make_row(1)])
    schema = pq.read_schema(tmp_path / "b.parquet")
    said = schema.field("statistics_halo_stellar").metadata
    assert said[b"shape"] == b"[24, 28]"
    assert schema.field("statistics_power_mpch3").metadata[b"unit"] == b"(Mpc/h)^3"
    assert str(schema.field("made_at").type) == "timestamp[us, tz=UTC]"


def test_statistics_come_out_of_a_catalogue_as_they_went_in(tmp_path: Path) -> None:
    galaxies, halos = make_box(50, 200)
    properties = {
        **galaxies.properties,
        "vel": np.zeros((200, 3), np.float32),
        "logmp_t_obs": np.full(200, 12.0, np.float32),
    }
    found = compute_statistics(galaxies, halos)
    path = tmp_path / "mock.hdf5"
    write_catalogue(
        path, replace(galaxies, properties=properties), halos, statistics=found.to_arrays()
    )
    collect_statistics([entry_of(path, redshift=1.1)], tmp_path / "b.parquet")
    (row,) = read_campaign(tmp_path).read("halo_stellar")
    np.testing.assert_array_equal(row, found.halo_stellar)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_catalogue_that_cannot_be_read_is_named_and_ends_no_other(tmp_path: Path) -> None:
    good = draw(1).to_arrays()
    entries = [write_statistics_group(tmp_path / f"{n}.hdf5", good) for n in range(6)]
    for number, entry in enumerate(entries):
        entry["realization"] = number
    truncate(tmp_path / "0.hdf5")
    (tmp_path / "1.hdf5").unlink()
    write_statistics_group(tmp_path / "2.hdf5", {**good, "version": np.array([99])})
    (tmp_path / "3.hdf5").write_bytes(b"no HDF5 at all")
    entries[4]["redshift"] = 1.5
    found = collect_statistics(entries, tmp_path / "b.parquet")
    assert found.rows == 1
    assert read_table(tmp_path / "b.parquet").realization.tolist() == [5]
    names = [problem.partition(":")[0] for problem in found.problems]
    assert names == [
        "r0000_z0.500", "r0001_z0.500", "r0002_z0.500", "r0003_z0.500", "r0004_z1.500"
    ]  # fmt: skip
    assert "another version" in found.problems[2]
    assert "another redshift" in found.problems[4]
    assert all(f"{n}.hdf5" in found.problems[n] for n in range(5))


def test_no_catalogue_at_all_is_a_file_without_rows(tmp_path: Path) -> None:
    found = collect_statistics([entry_of(tmp_path / "none.hdf5")], tmp_path / "b.parquet")
    assert found.rows == 0
    assert len(found.problems) == 1
    table = read_table(tmp_path / "b.parquet")
    assert table.columns["halo_stellar"].shape == (0, 24, 28)
    assert len(read_campaign(tmp_path)) == 0


def test_an_entry_that_is_none_is_refused(tmp_path: Path) -> None:
    entry = entry_of(tmp_path / "x")
    for name, value in (("realization", "7"), ("redshift", True), ("uri", None)):
        with pytest.raises(ConfigError, match=rf"catalogues\[0\]\.{name}"):
            collect_statistics([{**entry, name: value}], tmp_path / "b.parquet")
    del entry["fingerprint"]
    with pytest.raises(ConfigError, match="fingerprint"):
        collect_statistics([entry], tmp_path / "b.parquet")


def test_a_file_system_that_fails_is_no_problem_of_a_catalogue(tmp_path: Path) -> None:
    def fail(path: Path) -> Mapping[str, NDArray[Any]]:
        raise Transient("the network is away", where=path)

    entry = write_statistics_group(tmp_path / "a.hdf5", draw(1).to_arrays())
    with pytest.raises(Transient):
        collect_statistics([entry], tmp_path / "b.parquet", read=fail)


def test_files_are_read_as_one_whatever_their_number(tmp_path: Path) -> None:
    realizations, redshifts = range(20), (0.5, 1.1)
    rows = write_campaign(tmp_path / "one", realizations, redshifts)
    write_campaign(tmp_path / "many", reversed(realizations), redshifts, files=7)
    rows.sort(key=lambda row: (row.coordinate.redshift, row.coordinate.realization))
    one, many = read_campaign(tmp_path / "one"), read_campaign(tmp_path / "many")
    assert (len(one.files), len(many.files)) == (1, 7)
    for campaign in (one, many):
        assert campaign.coordinates == [row.coordinate for row in rows]
        assert campaign.redshifts == [0.5, 1.1]
        assert campaign.uri == tuple(row.uri for row in rows)
        assert campaign.at(1.1).tolist() == list(range(20, 40))
        for field in FIELDS:
            expected = [row.statistics.to_arrays()[field.name] for row in rows]
            np.testing.assert_array_equal(campaign.read(field.name), expected)


def test_the_newest_catalogue_of_a_coordinate_counts(tmp_path: Path) -> None:
    old, new, same = draw(1), draw(2), draw(3)
    write_statistics(tmp_path / "a.parquet", [make_row(5, minutes=9, statistics=new, uri="/new")])
    write_statistics(
        tmp_path / "b.parquet",
        [make_row(5, minutes=2, statistics=old, uri="/old"), make_row(6, statistics=same)],
    )
    campaign = read_campaign(tmp_path)
    assert campaign.coordinates == [Coordinate(5, 0.5), Coordinate(6, 0.5)]
    assert campaign.uri[0] == "/new"
    np.testing.assert_array_equal(campaign.read("halo_counts"), [new.halo_counts, same.halo_counts])


def write_columns(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    write_statistics(path, [make_row(1), make_row(2)])
    pq.write_table(change(pq.read_table(path)), path)


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (truncate, "cannot be read"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: path.write_bytes(b"PAR1" + bytes(100) + b"PAR1"), "cannot be read"),
        (lambda path: path.write_text("no Parquet"), "cannot be read"),
        (
            lambda path: write_columns(path, lambda table: table.drop_columns(["uri"])),
            "other columns",
        ),
        (
            lambda path: write_columns(path, lambda table: table.append_column("x", [[1, 2]])),
            "other columns",
        ),
        (
            lambda path: pq.write_table(pa.table({"realization": ["1"]}), path),
            "other columns",
        ),
    ],
)
def test_a_file_that_is_none_is_named_and_ends_no_other(
    tmp_path: Path, spoil: Callable[[Path], object], what: str
) -> None:
    write_campaign(tmp_path, range(4), files=2)
    spoil(tmp_path / "batch_0000.parquet")
    campaign = read_campaign(tmp_path)
    assert campaign.realization.tolist() == [1, 3]
    (problem,) = campaign.problems
    assert "batch_0000.parquet" in problem
    assert what in problem


def test_a_file_with_too_many_rows_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_campaign(tmp_path, range(3))
    monkeypatch.setattr("muster.mocks.qa.statistics_file.MOST_ROWS", 2)
    with pytest.raises(InvalidInput, match=r"too large; .*got: 3 rows"):
        read_table(tmp_path / "batch_0000.parquet")


def test_a_file_that_grows_when_it_is_decoded_is_refused(tmp_path: Path) -> None:
    uri = "/" + "x" * (1 << 22)
    write_statistics(tmp_path / "b.parquet", [make_row(1, uri=uri)])
    with pytest.raises(InvalidInput, match="too large"):
        read_table(tmp_path / "b.parquet")


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bytes_are_noticed_and_end_nothing(tmp_path: Path, seed: int) -> None:
    write_campaign(tmp_path, range(12), files=2)
    expected = read_campaign(tmp_path)
    arrays = {field.name: expected.read(field.name) for field in FIELDS}
    rng = np.random.default_rng(seed)
    path = tmp_path / "batch_0000.parquet"
    whole = path.read_bytes()
    for _ in range(20):
        spoilt = bytearray(whole)
        spoilt[int(rng.integers(4, len(whole)))] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(spoilt))
        campaign = read_campaign(tmp_path)
        assert set(range(1, 12, 2)) <= set(campaign.realization.tolist())
        if not campaign.problems:  # what was flipped is read by nobody
            assert campaign.coordinates == expected.coordinates
            for name, values in arrays.items():
                np.testing.assert_array_equal(campaign.read(name), values)


def test_rows_that_cannot_be_true_are_left_out_by_name(tmp_path: Path) -> None:
    bad = replace(draw(2), counts=np.array([1, 2, 3, 4]))
    write_statistics(
        tmp_path / "b.parquet",
        [make_row(1), make_row(2, statistics=bad), make_row(3, float("nan"), statistics=draw(3))],
    )
    campaign = read_campaign(tmp_path)
    assert campaign.realization.tolist() == [1]
    assert [problem.partition(":")[0] for problem in campaign.problems] == [
        "r0002_z0.500 in b.parquet", "r0003_znan in b.parquet"
    ]  # fmt: skip
    np.testing.assert_array_equal(campaign.read("counts"), [make_row(1).statistics.counts])


def test_boxes_of_another_size_are_left_out_by_name(tmp_path: Path) -> None:
    other = draw(9)
    other = replace(other, box_size_mpch=50.0, shot_noise_mpch3=50.0**3 / other.galaxies)
    rows = [make_row(n) for n in range(3)]
    write_statistics(tmp_path / "b.parquet", [*rows, make_row(9, statistics=other)])
    campaign = read_campaign(tmp_path)
    assert (campaign.box_size_mpch, campaign.realization.tolist()) == (100.0, [0, 1, 2])
    assert campaign.problems == ("r0009_z0.500: a box of 50 Mpc/h among boxes of 100 Mpc/h",)


def test_a_file_that_changes_meanwhile_is_tried_again(tmp_path: Path) -> None:
    write_campaign(tmp_path, range(4))
    campaign = read_campaign(tmp_path)
    write_campaign(tmp_path, range(2, 6))
    with pytest.raises(Transient, match="changed while they were read"):
        campaign.read("counts")
    write_campaign(tmp_path, range(2))
    with pytest.raises(Transient, match="changed while they were read"):
        campaign.read("counts")


def test_a_folder_that_is_not_there_has_no_statistics(tmp_path: Path) -> None:
    campaign = read_campaign(tmp_path / "none")
    assert (len(campaign), campaign.redshifts, campaign.problems) == (0, [], ())
    with pytest.raises(MissingInput):
        read_table(tmp_path / "none.parquet")


def test_the_schema_names_every_array_once() -> None:
    names = make_schema().names
    assert len(set(names)) == len(names) == 6 + len(FIELDS)
