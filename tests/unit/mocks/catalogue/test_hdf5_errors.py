"""What HDF5 says of a file system keeps its class, in one short line."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from muster.errors import InvalidInput, MusterError, Transient
from muster.mocks.catalogue.hdf5 import explain_hdf5_error
from muster.mocks.catalogue.validate import validate_catalogue
from tests.unit.mocks.catalogue.boxes import write_box

if TYPE_CHECKING:
    from pathlib import Path

FULL = """\
import resource, signal, sys
from pathlib import Path
from muster.errors import Transient
from muster.mocks.catalogue.layout import Compression
from tests.unit.mocks.catalogue.boxes import write_box

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    write_box(Path(sys.argv[1]), 20_000, compression=Compression(sys.argv[2]))
except Transient as error:
    Path(sys.argv[3]).write_text(str(error))
"""


@pytest.mark.parametrize("kind", ["none", "gzip", "lzf"])
def test_a_file_that_finds_no_space_fails_for_a_time_leaves_nothing_and_crashes_nothing(
    tmp_path: Path, kind: str
) -> None:
    """A limit on the size of files fails as a full disk does."""
    path, told = tmp_path / "box.hdf5", tmp_path / "told"
    command = [sys.executable, "-c", FULL, str(path), kind, str(told)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert told.read_text() == (
        f"no space left to write; where: {path}; got: File too large; do: free some space"
    )
    assert list(tmp_path.iterdir()) == [told]


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (
            RuntimeError(
                "Can't decrement id ref count (file write failed: time = Mon Nov 30 15:31:56 2026\n"
                ", filename = '/a', file descriptor = 3, errno = 28, error message = "
                "'No space left on device', buf = 0x563e234ae068, total write size = 441842)"
            ),
            Transient,
            "no space left to write; where: box; got: No space left on device; do: free some space",
        ),
        (
            OSError("Can't read data (file read failed: errno = 5, buf = 0x1)"),
            Transient,
            "the file system failed; where: box; got: Input/output error",
        ),
        (
            RuntimeError("Unable to read (time = Mon\n, filename = 'a', buf = 0x5f, size = 4)"),
            InvalidInput,
            "not a file that HDF5 can read; where: box; got: Unable to read (size = 4); "
            "do: copy the file again from where it is whole",
        ),
    ],
)
def test_what_hdf5_says_keeps_its_class(
    error: Exception, kind: type[MusterError], says: str
) -> None:
    found = explain_hdf5_error(error, "box")
    assert type(found) is kind
    assert str(found) == says


def test_a_file_system_that_fails_says_nothing_of_the_catalogue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_box(tmp_path / "box.hdf5")

    def fail(*_: object) -> None:
        raise OSError("Can't read data (file read failed: errno = 5, buf = 0x1)")

    monkeypatch.setattr("muster.mocks.catalogue.validate.read_slabs", fail)
    with pytest.raises(Transient, match="Input/output error"):
        validate_catalogue(path)
