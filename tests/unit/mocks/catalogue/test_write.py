"""Catalogues are written whole or not at all, and the same arrays give the same bytes."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest

from muster.errors import InvalidInput, SoftwareError
from muster.mocks.catalogue import write
from muster.mocks.catalogue.layout import Compression
from muster.mocks.catalogue.read import read_catalogue, read_statistics
from muster.mocks.catalogue.write import chunk_shape, write_catalogue
from muster.storage import is_temporary, temporary_sibling
from tests.unit.mocks.catalogue.boxes import make_box, write_box

if TYPE_CHECKING:
    from muster.mocks.catalogue.layout import Column

COMPRESSIONS = {
    "none": Compression(chunk_rows=1024),
    "gzip": Compression("gzip", 6, chunk_rows=1024),
    "gzip without shuffle": Compression("gzip", 1, shuffle=False, chunk_rows=1024),
    "lzf": Compression("lzf", chunk_rows=1024),
}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", COMPRESSIONS)
@pytest.mark.parametrize("count", [0, 1, 1024, 2500])
def test_all_arrays_come_back_to_the_bit(tmp_path: Path, name: str, count: int) -> None:
    path = tmp_path / "box.hdf5"
    galaxies, halos = make_box(count, full=True)
    write_catalogue(path, galaxies, halos, layout="full", compression=COMPRESSIONS[name])
    arrays, attributes = read_catalogue(path)
    for column, values in {**galaxies.properties, "pos": galaxies.positions}.items():
        found = arrays[f"galaxies/{column}"]
        assert found.dtype == values.dtype
        np.testing.assert_array_equal(found, values)
    np.testing.assert_array_equal(arrays["halos/pos"], halos.positions)
    np.testing.assert_array_equal(arrays["halos/vel"], halos.velocities)
    assert attributes["n_galaxies"] == count


def test_no_haloes_and_no_galaxies_are_a_catalogue(tmp_path: Path) -> None:
    arrays, attributes = read_catalogue(write_box(tmp_path / "box.hdf5", 0, 0))
    assert arrays["galaxies/pos"].shape == arrays["halos/vel"].shape == (0, 3)
    assert (attributes["n_galaxies"], attributes["n_halos"]) == (0, 0)


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_the_same_arrays_give_the_same_bytes_at_another_time(tmp_path: Path, name: str) -> None:
    more = {"compression": COMPRESSIONS[name], "statistics": {"b": np.arange(3), "a": np.eye(2)}}
    first = write_box(tmp_path / "first.hdf5", 2500, layout="full", **more)
    time.sleep(1.1)  # HDF5 keeps times in seconds
    second = write_box(tmp_path / "second.hdf5", 2500, layout="full", **more)
    third = write_box(tmp_path / "third.hdf5", 2500, layout="full", threads=3, **more)
    assert digest(first) == digest(second) == digest(third)


def test_hdf5s_own_filters_made_chunks_of_the_same_bytes(tmp_path: Path) -> None:
    """Chunks that are compressed here are chunks as shuffle and deflate of HDF5 make them."""
    values = np.random.default_rng(1).normal(size=(1000, 3)).astype(np.float32)
    with h5py.File(tmp_path / "peer.hdf5", "w") as file:
        peer = file.create_dataset(
            "x", data=values, chunks=values.shape, compression="gzip", compression_opts=4,
            shuffle=True,
        )  # fmt: skip
        _, theirs = peer.id.read_direct_chunk((0, 0))
    import zlib

    ours = write.encode(values, Compression("gzip", 4))
    assert zlib.decompress(ours) == zlib.decompress(theirs)


def test_chunks_are_even_and_small() -> None:
    column: Column = write.COLUMN_BY_PATH["galaxies/pos"]
    assert chunk_shape(column, (0, 3), 4, 1 << 17) is None
    assert chunk_shape(column, (10, 3), 4, 1 << 17) == (10, 3)
    rows, width = chunk_shape(column, ((1 << 17) + 1, 3), 4, 1 << 17) or (0, 0)
    assert (rows, width) == ((1 << 16) + 1, 3)
    for count in (1, 1000, 131_073, 10_000_019):
        rows = (chunk_shape(column, (count, 3), 4, 1 << 17) or (0,))[0]
        chunks = -(-count // rows)
        assert chunks * rows - count < chunks  # next to no padding
    table = write.COLUMN_BY_PATH["galaxies/sfh_table"]
    rows = (chunk_shape(table, (10**6, 1000), 8, 1 << 24) or (0,))[0]
    assert rows * 8000 <= 4 << 20


def test_statistics_lie_apart_and_come_back(tmp_path: Path) -> None:
    statistics = {"counts": np.arange(5), "pk": np.linspace(0, 1, 7), "version": np.asarray(2)}
    path = write_box(tmp_path / "box.hdf5", statistics=statistics)
    found = read_statistics(path)
    assert set(found) == set(statistics)
    for name, values in statistics.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values)
    assert not any("statistics" in name for name in read_catalogue(path)[0])
    for wrong in (
        {"a": np.zeros(1 << 17)},
        {"a/b": np.zeros(1)},
        {"a": np.asarray(["text"])},
    ):
        with pytest.raises(SoftwareError):
            write_box(tmp_path / "no.hdf5", statistics=wrong)
    assert not (tmp_path / "no.hdf5").exists()


def test_attributes_take_the_kind_of_the_layout(tmp_path: Path) -> None:
    more = {"seed": np.int64(5), "versions": {"jax": "1"}, "realization": 9, "mine": 2.5}
    _, attributes = read_catalogue(write_box(tmp_path / "box.hdf5", attributes=more))
    assert attributes["seed"] == 5
    assert attributes["versions"] == '{"jax": "1"}'
    assert attributes["realization"] == 9  # the caller's before the source's
    assert attributes["mine"] == 2.5
    with pytest.raises(SoftwareError, match="another kind; where: seed"):
        write_box(tmp_path / "no.hdf5", attributes={"seed": "five"})
    with pytest.raises(SoftwareError, match="too long; where: versions"):
        write_box(tmp_path / "no.hdf5", attributes={"versions": "x" * 40_000})


def test_a_failure_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_box(tmp_path / "box.hdf5")
    before = digest(path)

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(write, "_write_chunks", fail)
    with pytest.raises(Exception, match="no space left"):
        write_box(path, 200)
    assert [found.name for found in tmp_path.iterdir()] == ["box.hdf5"]
    assert digest(path) == before


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match=r"where: .*file/box\.hdf5"):
        write_box(tmp_path / "file" / "box.hdf5")


WRITER = """
import sys
from pathlib import Path
from muster.mocks.catalogue import write
from tests.unit.mocks.catalogue.boxes import write_box

whole = write._write_chunks
def slowly(dataset, *arguments):
    print(dataset.name, flush=True)
    if dataset.name == sys.argv[2]:
        sys.stdin.read()  # until it is killed
    whole(dataset, *arguments)
write._write_chunks = slowly
write_box(Path(sys.argv[1]), 2000)
"""


@pytest.mark.parametrize("dataset", ["/galaxies/pos", "/galaxies/upid", "/halos/vel"])
def test_a_writer_that_is_killed_leaves_nothing_under_the_name(
    tmp_path: Path, dataset: str
) -> None:
    path = tmp_path / "box.hdf5"
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), dataset],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[4],
    )
    assert writer.stdout
    assert writer.stdin
    for line in writer.stdout:
        if line.strip() == dataset:
            break
    os.kill(writer.pid, signal.SIGKILL)
    assert writer.wait(10) == -signal.SIGKILL
    writer.stdout.close()
    writer.stdin.close()
    left = [found.name for found in tmp_path.iterdir()]
    assert len(left) == 1
    assert is_temporary(left[0])
    write_box(path)
    assert read_catalogue(path)[1]["n_galaxies"] == 300


def test_the_temporary_of_a_steps_temporary_is_known_as_one(tmp_path: Path) -> None:
    given = temporary_sibling(tmp_path / "box.hdf5", "attempt 1")
    assert write_box(given) == given
    assert [found.name for found in tmp_path.iterdir()] == [given.name]
    assert len(temporary_sibling(given).name) < 250
