"""An archive holds what the campaign holds; working copies go only when it was read back whole."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from typing import TYPE_CHECKING, Any

import pytest

from muster import storage
from muster.errors import InvalidInput, MissingInput, Transient
from muster.mocks.campaign.archive import archive_campaign
from muster.mocks.campaign.tar_file import INDEX_SUFFIX, read_index, read_tar
from muster.mocks.campaign.tar_names import label_of
from tests.s3_server import empty_bucket
from tests.unit.mocks.campaign.staged_campaign import (
    check_all_are_listed,
    checksums,
    make_campaign,
    renew_manifest,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FIRST, SECOND, RECORD = (
    f"small_v1_{label}.tar" for label in ("r0000-r0001", "r0002-r0003", "record")
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_campaign(tmp_path / "campaigns")


@pytest.fixture
def bucket(s3_server: str) -> Iterator[str]:
    with empty_bucket(s3_server, "archive"):
        yield "s3://archive/mocks"


@pytest.fixture(params=["file", "s3"])
def destination(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return str(tmp_path / "tape")
    return str(request.getfixturevalue("bucket"))


def archive(folder: Path, destination: str, **options: Any) -> Any:
    return archive_campaign(str(folder), destination, per_tar=2, **options)


def unpack(destination: str, scratch: Path) -> dict[str, str]:
    """Unpack every tar of an archive with tar itself, and return the checksums of the files."""
    scratch.mkdir()
    there = storage.join(destination, "small_v1_archive")
    for name in storage.list(there):
        if name.endswith(".tar"):
            storage.fetch(storage.join(there, name), scratch / name)
            subprocess.run(["tar", "-xf", name], cwd=scratch, check=True)
    return checksums(scratch / "small_v1")


def test_tar_unpacks_what_the_campaign_holds(
    folder: Path, destination: str, tmp_path: Path
) -> None:
    report = archive(folder, destination)
    assert report.complete, report.describe()
    assert report.written == (FIRST, SECOND, RECORD)
    assert unpack(destination, tmp_path / "out") == checksums(folder)
    assert report.files == len(checksums(folder))
    again = archive(folder, destination)
    assert (again.written, again.already) == ((), report.files)


def test_the_index_says_where_a_catalogue_lies(folder: Path, tmp_path: Path) -> None:
    archive(folder, str(tmp_path / "tape"))
    there = tmp_path / "tape" / "small_v1_archive"
    index = read_index(str(there / (FIRST + INDEX_SUFFIX)))
    content = (there / FIRST).read_bytes()
    assert len(index.members) == 6
    for member in index.members:
        part = content[member.offset : member.offset + member.bytes]
        assert part == (folder / member.name).read_bytes()
        assert hashlib.sha256(part).hexdigest() == member.sha256
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=there, check=True)


def test_a_whole_campaign_is_one_tar_of_the_same_bytes_wherever_it_goes(
    folder: Path, tmp_path: Path
) -> None:
    digests = set()
    for name in ("one", "two"):
        report = archive_campaign(str(folder), str(tmp_path / name), per_tar=None)
        assert report.written == ("small_v1_whole.tar",)
        path = tmp_path / name / "small_v1_archive" / "small_v1_whole.tar"
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(digests) == 1
    assert unpack(str(tmp_path / "one"), tmp_path / "out") == checksums(folder)


def test_working_copies_go_and_the_next_archiving_misses_nothing(
    folder: Path, destination: str, tmp_path: Path
) -> None:
    before = checksums(folder)
    report = archive(folder, destination, remove=True)
    assert report.removed == 12
    assert list((folder / "catalogs").iterdir()) == []
    assert checksums(folder) == {n: s for n, s in before.items() if not n.startswith("catalogs/")}
    assert unpack(destination, tmp_path / "out") == before
    again = archive(folder, destination, remove=True)
    assert again.complete, again.describe()
    assert (again.written, again.removed) == ((), 0)
    check_all_are_listed(folder, "archived", storage.join(destination, "small_v1_archive", FIRST))
    other = archive(folder, str(tmp_path / "other"))
    assert other.complete, other.describe()
    assert (other.elsewhere, other.files) == (12, other.files)


def test_nothing_is_removed_when_the_tar_cannot_be_read_back(
    folder: Path, destination: str
) -> None:
    archive(folder, destination)
    there = storage.join(destination, "small_v1_archive", FIRST)
    content = storage.read_bytes(there)
    storage.write_bytes(there, content[:2000] + b"?" + content[2001:])
    report = archive(folder, destination, remove=True)
    assert [(p.name, p.kind) for p in report.problems] == [(FIRST, "changed")]
    assert report.removed == 6
    left = {p.parent.name for p in (folder / "catalogs").rglob("*.hdf5")}
    assert left == {"r0000", "r0001"}


def test_a_tar_of_another_size_or_none_counts_for_nothing(folder: Path, destination: str) -> None:
    archive(folder, destination)
    there = storage.join(destination, "small_v1_archive")
    storage.delete(storage.join(there, FIRST))
    storage.write_bytes(storage.join(there, SECOND), b"short")
    report = archive(folder, destination, remove=True)
    assert {(p.name, p.kind) for p in report.problems} == {(FIRST, "changed"), (SECOND, "changed")}
    again = [FIRST.replace(".tar", ".2.tar"), SECOND.replace(".tar", ".2.tar")]
    assert list(report.written) == again
    assert report.removed == 12


def test_what_came_later_goes_into_a_further_tar(
    folder: Path, destination: str, tmp_path: Path
) -> None:
    archive(folder, destination)
    (folder / "catalogs" / "r0001" / "mock_z0.500.hdf5").write_bytes(b"new")
    renew_manifest(folder)
    report = archive(folder, destination)
    assert report.written == (
        FIRST.replace(".tar", ".2.tar"), RECORD.replace(".tar", ".2.tar")
    )  # fmt: skip
    assert archive(folder, destination).written == ()
    assert archive_campaign(str(folder), destination, per_tar=None).written == ()


def test_missing_and_changed_catalogues_are_named_and_the_others_archived(
    folder: Path, destination: str, tmp_path: Path
) -> None:
    (folder / "catalogs" / "r0000" / "mock_z1.000.hdf5").unlink()
    spoilt = folder / "catalogs" / "r0001" / "mock_z1.000.hdf5"
    spoilt.write_bytes(b"?" + spoilt.read_bytes()[1:])
    report = archive(folder, destination, remove=True)
    assert {(p.name, p.kind) for p in report.problems} == {
        ("catalogs/r0000/mock_z1.000.hdf5", "missing"),
        ("catalogs/r0001/mock_z1.000.hdf5", "changed"),
    }
    assert report.removed == 10
    assert spoilt.exists()
    found = unpack(destination, tmp_path / "out")
    assert len([name for name in found if name.startswith("catalogs/")]) == 10


def test_a_catalogue_that_changed_after_archiving_is_named_and_stays(
    folder: Path, destination: str
) -> None:
    archive(folder, destination)
    changed = folder / "catalogs" / "r0003" / "mock_z1.100.hdf5"
    changed.write_bytes(b"other")
    touched = folder / "catalogs" / "r0002" / "mock_z1.100.hdf5"
    os.utime(touched, ns=(0, time.time_ns() + 10**9))
    report = archive(folder, destination, remove=True)
    assert [(p.name, p.kind) for p in report.problems] == [
        ("catalogs/r0003/mock_z1.100.hdf5", "changed")
    ]
    assert report.removed == 11
    assert changed.read_bytes() == b"other"


def test_a_tar_without_its_index_is_taken_up(folder: Path, destination: str) -> None:
    archive(folder, destination)
    there = storage.join(destination, "small_v1_archive")
    index = storage.read_text(storage.join(there, FIRST + INDEX_SUFFIX))
    storage.delete(storage.join(there, FIRST + INDEX_SUFFIX))  # as a kill leaves it
    version = storage.stat(storage.join(there, FIRST)).version
    report = archive(folder, destination)
    assert (report.entered, report.written) == ((FIRST,), ())
    assert storage.stat(storage.join(there, FIRST)).version == version
    assert storage.read_text(storage.join(there, FIRST + INDEX_SUFFIX)) == index


def test_a_file_in_the_way_that_is_no_tar_is_named_and_stays(
    folder: Path, destination: str
) -> None:
    there = storage.join(destination, "small_v1_archive", FIRST)
    storage.write_bytes(there, b"another's")
    report = archive(folder, destination)
    assert [(p.name, p.kind) for p in report.problems] == [("small_v1_r0000-r0001", "occupied")]
    assert storage.read_bytes(there) == b"another's"
    assert report.written == (SECOND, RECORD)


@pytest.mark.parametrize("content", [b"", b"\0" * 1024])
def test_another_tar_in_the_way_is_named_and_stays(
    folder: Path, destination: str, content: bytes, tmp_path: Path
) -> None:
    there = storage.join(destination, "small_v1_archive", FIRST)
    if not content:
        with tarfile.open(tmp_path / "x.tar", "w") as tar:
            tar.add(folder / "logs" / "batch_0000.sh", "theirs")
        content = (tmp_path / "x.tar").read_bytes()
    storage.write_bytes(there, content)
    report = archive(folder, destination)
    assert storage.read_bytes(there) == content
    assert [(p.name, p.kind) for p in report.problems] == [("small_v1_r0000-r0001", "occupied")]
    assert report.written == (SECOND, RECORD)


def test_a_tar_that_the_disk_has_spoilt_is_not_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync

    def spoil(descriptor: int) -> None:
        sync(descriptor)
        for part in (tmp_path / "tape" / "small_v1_archive").glob(".*0001.tar.*.part"):
            with part.open("r+b") as file:
                file.seek(1500)
                file.write(b"?")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", spoil)
        report = archive(folder, str(tmp_path / "tape"), remove=True)
    assert [(p.name, p.kind) for p in report.problems] == [("small_v1_r0000-r0001", "failed")]
    assert (report.written, report.removed) == ((SECOND, RECORD), 6)
    again = archive(folder, str(tmp_path / "tape"), remove=True)
    assert (again.written, again.removed) == ((FIRST,), 6)
    assert again.complete


@pytest.mark.parametrize(
    "change",
    [{"members": 3}, {"sha256": "x"}, {"tar": "other.tar"}, {"extra": 1},
     {"members": [{"name": "../x", "offset": 0, "bytes": 0, "sha256": "0" * 64, "version": ""}]}],
)  # fmt: skip
def test_a_spoilt_index_counts_for_nothing(
    folder: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    archive(folder, str(tmp_path / "tape"))
    index = tmp_path / "tape" / "small_v1_archive" / (FIRST + INDEX_SUFFIX)
    index.write_text(json.dumps(json.loads(index.read_text()) | change))
    report = archive(folder, str(tmp_path / "tape"))
    assert [(p.name, p.kind) for p in report.problems] == [(FIRST, "changed")]
    assert report.written == (FIRST.replace(".tar", ".2.tar"),)


def test_a_tar_with_links_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(InvalidInput, match="holds no files alone"):
        read_tar(tmp_path / "x.tar")


def test_places_that_cannot_be_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="not a campaign's folder"):
        archive(tmp_path, str(tmp_path / "tape"))
    with pytest.raises(InvalidInput, match="lies in the campaign's folder"):
        archive(folder, str(folder))
    with pytest.raises(InvalidInput, match="at least 1"):
        archive_campaign(str(folder), str(tmp_path / "tape"), per_tar=0)


@pytest.mark.parametrize(
    ("name", "per_tar", "label"),
    [
        ("catalogs/r0099/m.hdf5", 100, "r0000-r0099"),
        ("catalogs/r0100/m.hdf5", 100, "r0100-r0199"),
        ("catalogs/r12345/m.hdf5", 100, "r12300-r12399"),
        ("catalogs/r0007/m.hdf5", 1, "r0007-r0007"),
        ("catalogs/strange/m.hdf5", 100, "other"),
        ("logs/batch_0000.sh", 100, "record"),
        ("logs/batch_0000.sh", None, "whole"),
    ],
)
def test_files_go_by_ranges_of_realizations(name: str, per_tar: int | None, label: str) -> None:
    assert label_of(name, per_tar) == label


ARCHIVE = """
import sys
from muster.mocks.campaign.archive import archive_campaign
import muster.storage.s3
print("ready", flush=True)
report = archive_campaign(sys.argv[1], sys.argv[2], per_tar=4, remove=True, workers=2)
sys.exit(0 if report.complete else 3)
"""


def archive_and_kill(folder: Path, destination: str, after_s: float) -> int:
    with subprocess.Popen(
        [sys.executable, "-c", ARCHIVE, str(folder), destination], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            process.wait(after_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        return process.wait()


@pytest.mark.slow
def test_an_archiving_killed_anywhere_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    folder = make_campaign(tmp_path / "campaigns", realizations=40, most_bytes=300_000)
    whole = {n: s for n, s in checksums(folder).items() if n.startswith("catalogs/")}
    there = tmp_path / "tape" / "small_v1_archive"
    draw = random.Random(20261130)
    codes = []
    made: dict[str, int] = {}
    for _ in range(8):
        codes.append(archive_and_kill(folder, str(tmp_path / "tape"), draw.uniform(0, 0.5)))
        indexed = {p.name.removesuffix(INDEX_SUFFIX) for p in there.glob(f"small*{INDEX_SUFFIX}")}
        now = {name: (there / name).stat().st_ino for name in indexed}
        assert made.items() <= now.items()  # no tar was lost, or written again
        made = now
        archived = {m.name: m.sha256 for t in made for m in members(there / t)}
        found = archived | checksums(folder)
        assert whole.items() <= found.items()  # each catalogue lies somewhere, whole
    assert codes.count(-signal.SIGKILL) >= 2
    report = archive_campaign(str(folder), str(tmp_path / "tape"), per_tar=4, remove=True)
    assert report.complete, report.describe()
    assert list((folder / "catalogs").iterdir()) == []
    found = [m.name for path in there.glob("small*.tar") for m in members(path)]
    assert sorted(n for n in found if n.startswith("catalogs/")) == sorted(whole)
    unpacked = unpack(str(tmp_path / "tape"), tmp_path / "out")
    assert {n: s for n, s in unpacked.items() if n.startswith("catalogs/")} == whole
    assert not list(there.glob(".*")), "what a killed archiving left was not swept"


def members(tar: Path) -> Any:
    return read_index(str(tar) + INDEX_SUFFIX).members


def test_only_one_process_archives_a_campaign_at_once(folder: Path, tmp_path: Path) -> None:
    def again(_: object) -> None:
        with pytest.raises(Transient, match="another process is archiving"):
            archive(folder, str(tmp_path / "elsewhere"))

    assert archive(folder, str(tmp_path / "tape"), progress=again).complete
