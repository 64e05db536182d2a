"""Staging loses nothing, doubles nothing, replaces nothing of another's, whenever it is killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from muster import storage
from muster.errors import InvalidInput, MissingInput, Transient
from muster.mocks.campaign import stage
from muster.mocks.campaign.archive import archive_campaign
from muster.mocks.campaign.ledger import Ledger, ledger_path, read_completed
from muster.mocks.campaign.manifest import MANIFEST
from muster.mocks.campaign.stage import CHECKSUMS, stage_campaign
from muster.report.formats import format_bytes
from tests.s3_server import empty_bucket
from tests.unit.mocks.campaign.staged_campaign import checksums, make_campaign, renew_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from muster.mocks.campaign.stage_report import StageProgress

ONE = "catalogs/r0001/mock_z1.000.hdf5"


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
        return str(tmp_path / "permanent")
    return str(request.getfixturevalue("bucket"))


def staged_checksums(destination: str) -> dict[str, str]:
    """Return the SHA-256 of everything in the staged tree but its list of checksums."""
    top = storage.join(destination, "small_v1")
    return {
        entry.name: storage.sha256(storage.join(top, entry.name))
        for entry in storage.walk(top)
        if entry.name != CHECKSUMS
    }


def touch(path: Path, content: bytes | None = None) -> None:
    """Give a file another time of change, and perhaps another content of any size."""
    if content is not None:
        path.write_bytes(content)
    os.utime(path, ns=(0, time.time_ns() + 10**9))


def test_the_staged_tree_equals_the_campaign(folder: Path, destination: str) -> None:
    seen: list[StageProgress] = []
    report = stage_campaign(str(folder), destination, progress=seen.append)
    assert report.complete, report.describe()
    assert staged_checksums(destination) == checksums(folder)
    listed = storage.read_text(storage.join(destination, "small_v1", CHECKSUMS)).splitlines()
    assert dict(reversed(line.split("  ")) for line in listed) == checksums(folder)
    assert report.copied == len(listed) == seen[-1].files + 1  # the configuration goes first
    assert seen[-1].bytes == seen[-1].of_bytes
    assert f"copied ({format_bytes(report.bytes)}), 0 found" in report.describe()[-1]
    again = stage_campaign(str(folder), destination, verify=True)
    assert (again.copied, again.entered, again.already) == (0, 0, report.copied)
    found = read_completed(folder)
    assert found is not None
    assert set(found.files) == set(checksums(folder))
    assert found.destination == storage.join(destination, "small_v1")


def test_sha256sum_verifies_the_staged_tree(folder: Path, tmp_path: Path) -> None:
    stage_campaign(str(folder), str(tmp_path / "permanent"))
    subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", CHECKSUMS],
        cwd=tmp_path / "permanent" / "small_v1",
        check=True,
    )


def test_another_file_in_the_way_is_named_and_stays(folder: Path, destination: str) -> None:
    in_the_way = storage.join(destination, "small_v1", ONE)
    storage.write_bytes(in_the_way, b"another's")
    report = stage_campaign(str(folder), destination)
    assert [(p.name, p.kind) for p in report.problems] == [(ONE, "occupied")]
    assert storage.read_bytes(in_the_way) == b"another's"
    assert report.copied == len(checksums(folder)) - 1
    assert read_completed(folder) is None


def test_another_campaign_of_the_name_is_refused_before_anything_is_copied(
    folder: Path, destination: str
) -> None:
    config = storage.join(destination, "small_v1", "metadata/campaign_config.yaml")
    storage.write_text(config, "campaign: {name: other}\n")
    with pytest.raises(InvalidInput, match="another campaign of this name and version"):
        stage_campaign(str(folder), destination)
    assert set(staged_checksums(destination)) == {"metadata/campaign_config.yaml"}


def test_missing_and_changed_catalogues_are_named_and_do_not_end_the_others(
    folder: Path, destination: str
) -> None:
    (folder / ONE).unlink()
    spoilt = folder / "catalogs" / "r0003" / "mock_z0.800.hdf5"
    spoilt.write_bytes(b"?" + spoilt.read_bytes()[1:])
    (folder / "logs" / "link").symlink_to("/etc/hostname")
    report = stage_campaign(str(folder), destination)
    assert {(p.name, p.kind) for p in report.problems} == {
        (ONE, "missing"),
        ("catalogs/r0003/mock_z0.800.hdf5", "changed"),
        ("logs/link", "unreadable"),
    }
    assert report.copied == len(checksums(folder)) - 2
    assert not report.complete
    assert "catalogs/r0003/mock_z0.800.hdf5" not in staged_checksums(destination)


def test_the_record_is_renewed_and_catalogues_are_added(folder: Path, destination: str) -> None:
    stage_campaign(str(folder), destination)
    (folder / "catalogs" / "r0009").mkdir()
    (folder / "catalogs" / "r0009" / "mock_z1.100.hdf5").write_bytes(b"new")
    renew_manifest(folder)
    touch(folder / "logs" / "batch_0000_0.out", b"more\n")
    report = stage_campaign(str(folder), destination)
    assert report.complete, report.describe()
    assert staged_checksums(destination) == checksums(folder)
    assert report.copied < 8


def test_a_record_at_the_destination_that_is_not_ours_is_not_replaced(
    folder: Path, destination: str
) -> None:
    stage_campaign(str(folder), destination)
    theirs = storage.join(destination, "small_v1", "logs/batch_0000_0.out")
    storage.write_text(theirs, "a person's note")
    touch(folder / "logs" / "batch_0000_0.out", b"more\n")
    report = stage_campaign(str(folder), destination)
    assert [(p.name, p.kind) for p in report.problems] == [("logs/batch_0000_0.out", "occupied")]
    assert storage.read_text(theirs) == "a person's note"


def test_a_catalogue_that_changed_after_staging_never_replaces_its_copy(
    folder: Path, destination: str
) -> None:
    stage_campaign(str(folder), destination)
    kept = storage.read_bytes(storage.join(destination, "small_v1", ONE))
    touch(folder / ONE, b"another catalogue")
    renew_manifest(folder)
    report = stage_campaign(str(folder), destination)
    assert [(p.name, p.kind) for p in report.problems] == [(ONE, "changed")]
    assert storage.read_bytes(storage.join(destination, "small_v1", ONE)) == kept


def test_a_touched_catalogue_and_a_removed_working_copy_change_nothing(
    folder: Path, destination: str
) -> None:
    stage_campaign(str(folder), destination)
    touch(folder / ONE)
    (folder / "catalogs" / "r0002" / "mock_z1.100.hdf5").unlink()
    report = stage_campaign(str(folder), destination)
    assert report.complete, report.describe()
    assert report.copied == 0


def test_verify_finds_a_spoilt_copy_of_the_same_size(folder: Path, destination: str) -> None:
    stage_campaign(str(folder), destination)
    spoilt = storage.join(destination, "small_v1", ONE)
    storage.write_bytes(spoilt, b"?" + storage.read_bytes(spoilt)[1:])
    assert stage_campaign(str(folder), destination).complete  # its name and size are right
    report = stage_campaign(str(folder), destination, verify=True)
    assert [(p.name, p.kind) for p in report.problems] == [(ONE, "changed")]
    assert report.copied == 0


def test_what_is_gone_from_its_place_is_copied_again(
    folder: Path, destination: str, caplog: pytest.LogCaptureFixture
) -> None:
    stage_campaign(str(folder), destination)
    top = storage.join(destination, "small_v1")
    for name in (ONE, "metadata/campaign_config.yaml", "logs/batch_0000_0.out"):
        storage.delete(storage.join(top, name))
    report = stage_campaign(str(folder), destination)
    assert report.complete, report.describe()
    assert (report.copied, report.entered) == (3, 0)
    assert "3 files were staged, and are no longer there, such as catalogs/r0001" in caplog.text
    assert staged_checksums(destination) == checksums(folder)


def test_another_size_at_its_place_is_told_and_stays(folder: Path, destination: str) -> None:
    stage_campaign(str(folder), destination)
    config, note = "metadata/campaign_config.yaml", "logs/batch_0000_0.out"
    for name in (ONE, config, note):
        storage.write_bytes(storage.join(destination, "small_v1", name), b"cut")
    report = stage_campaign(str(folder), destination)
    assert {(p.name, p.kind) for p in report.problems} == {
        (ONE, "changed"), (config, "changed"), (note, "changed"),
    }  # fmt: skip
    assert "got: 3 B" in report.problems[0].message
    assert storage.read_bytes(storage.join(destination, "small_v1", ONE)) == b"cut"
    assert not report.complete


@pytest.mark.parametrize(("left", "kind"), [(None, "missing"), (b"cut", "changed")])
def test_a_lost_copy_whose_working_copy_was_removed_is_told(
    folder: Path, destination: str, left: bytes | None, kind: str
) -> None:
    stage_campaign(str(folder), destination)
    (folder / ONE).unlink()
    copy = storage.join(destination, "small_v1", ONE)
    storage.delete(copy)
    if left is not None:
        storage.write_bytes(copy, left)
    report = stage_campaign(str(folder), destination)
    assert [(p.name, p.kind) for p in report.problems] == [(ONE, kind)]


@pytest.mark.parametrize("link", ["catalogs", "catalogs/r0001", "metadata", ONE, CHECKSUMS])
@pytest.mark.parametrize("staged", [False, True])
def test_no_link_at_the_destination_is_followed(
    folder: Path, tmp_path: Path, link: str, staged: bool
) -> None:
    place, elsewhere = tmp_path / "permanent" / "small_v1" / link, tmp_path / "elsewhere"
    if staged:
        stage_campaign(str(folder), str(tmp_path / "permanent"))
        place.rename(elsewhere)
    else:
        place.parent.mkdir(parents=True)
        elsewhere.mkdir()
    place.symlink_to(elsewhere)
    before = checksums(elsewhere), elsewhere.stat().st_mtime_ns
    with pytest.raises(InvalidInput, match=f"links are not followed; where: {place};"):
        stage_campaign(str(folder), str(tmp_path / "permanent"))
    assert (checksums(elsewhere), elsewhere.stat().st_mtime_ns) == before
    place.unlink()
    if not staged:
        (place.parent / "a link of another's").symlink_to(elsewhere)
        assert stage_campaign(str(folder), str(tmp_path / "permanent")).complete


def test_what_was_copied_without_a_line_is_entered_and_not_copied_again(
    folder: Path, destination: str
) -> None:
    stage_campaign(str(folder), destination)
    ledger = ledger_path(folder, storage.join(destination, "small_v1"))
    lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join(lines[:5]) + lines[5][:20])  # as a kill leaves it
    report = stage_campaign(str(folder), destination)
    assert report.complete, report.describe()
    assert (report.copied, report.already) == (0, 4)
    assert report.entered == len(checksums(folder)) - 4
    assert stage_campaign(str(folder), destination).already == len(checksums(folder))


def test_a_record_replaced_without_a_line_is_still_ours(folder: Path, destination: str) -> None:
    stage_campaign(str(folder), destination)
    log = folder / "logs" / "batch_0000_0.out"
    touch(log, b"second\n")
    stage_campaign(str(folder), destination)
    ledger = ledger_path(folder, storage.join(destination, "small_v1"))
    lines = ledger.read_bytes().splitlines(keepends=True)
    intent = next(n for n, line in enumerate(lines) if b'"intended"' in line)
    ledger.write_bytes(b"".join(lines[: intent + 1]))  # killed after the copy had its name
    touch(log, b"third\n")
    assert stage_campaign(str(folder), destination).complete
    assert staged_checksums(destination) == checksums(folder)


def test_a_spoilt_ledger_is_told(folder: Path, tmp_path: Path) -> None:
    stage_campaign(str(folder), str(tmp_path / "permanent"))
    ledger = ledger_path(folder, str(tmp_path / "permanent" / "small_v1"))
    ledger.write_bytes(b'{"kind": "staged", "name": 3}\n' + ledger.read_bytes())
    with pytest.raises(InvalidInput, match=r"not a line of a ledger.*line 1"):
        stage_campaign(str(folder), str(tmp_path / "permanent"))


def test_only_one_process_stages_a_campaign_at_once(folder: Path, tmp_path: Path) -> None:
    there = str(tmp_path / "permanent" / "small_v1")
    with Ledger(folder, there), pytest.raises(Transient, match="another process is staging"):
        stage_campaign(str(folder), str(tmp_path / "permanent"))
    assert stage_campaign(str(folder), str(tmp_path / "permanent")).complete


def test_a_destination_that_is_away_ends_the_staging_soon(tmp_path: Path) -> None:
    folder = make_campaign(tmp_path / "campaigns", realizations=12)
    calls = 0

    def fail(*_: object, **__: object) -> None:
        nonlocal calls
        calls += 1
        raise Transient("no space left to write")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage.storage, "deposit", fail)
        report = stage_campaign(str(folder), str(tmp_path / "permanent"), workers=1)
    assert report.stopped is not None
    assert "is the destination there" in report.describe()[-2]
    assert calls == stage.MOST_FAILURES
    assert stage_campaign(str(folder), str(tmp_path / "permanent")).complete


def test_places_that_cannot_be_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="not a campaign's folder"):
        stage_campaign(str(tmp_path), str(tmp_path / "permanent"))
    with pytest.raises(InvalidInput, match="lies in the campaign's folder"):
        stage_campaign(str(folder), str(folder.parent))
    with pytest.raises(InvalidInput, match="lies in the campaign's folder"):
        stage_campaign(str(folder), str(folder / "qa"))
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", Path("/proc/x")):
        for bring in (stage_campaign, archive_campaign):
            with pytest.raises(InvalidInput, match=r"destination cannot be made.*do: make it"):
                bring(str(folder), str(place))
    with pytest.raises(InvalidInput, match="must be on this machine"):
        stage_campaign("s3://bucket/small_v1", str(tmp_path))


STAGE = """
import sys
from muster.mocks.campaign.stage import stage_campaign
import muster.storage.s3
print("ready", flush=True)
report = stage_campaign(sys.argv[1], sys.argv[2], workers=2)
print(report.describe()[-1], flush=True)
sys.exit(0 if report.complete else 3)
"""


def start_staging(folder: Path, destination: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", STAGE, str(folder), destination], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def stage_and_kill(folder: Path, destination: str, after_s: float) -> int:
    """Kill a staging some time after it began; return its code, 0 where it was quicker."""
    with start_staging(folder, destination) as process:
        try:
            process.wait(after_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        return process.wait()


def visible(top: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(top)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in top.rglob("*")
        if path.is_file() and not path.name.startswith(".") and path.name != CHECKSUMS
    }


def time_staging(folder: Path, destination: str) -> float:
    began = time.monotonic()
    with start_staging(folder, destination) as process:
        began = time.monotonic()
        assert process.wait() == 0
    return time.monotonic() - began


@pytest.mark.slow
def test_a_staging_killed_anywhere_is_finished_by_the_next(tmp_path: Path) -> None:
    folder = make_campaign(tmp_path / "campaigns", realizations=40, most_bytes=120_000)
    whole_s = time_staging(folder, str(tmp_path / "first"))
    top = tmp_path / "permanent" / "small_v1"
    draw = random.Random(20261130)
    kills = 0
    for _ in range(8):
        before = visible(top)
        code = stage_and_kill(folder, str(tmp_path / "permanent"), draw.uniform(0, whole_s / 4))
        kills += code == -signal.SIGKILL
        after = visible(top)
        assert before.items() <= after.items()  # neither lost nor copied again
        right = checksums(folder)
        assert all(
            right[name] == sha256 for name, sha256 in checksums(top).items() if name in right
        )
    assert kills >= 2
    before = visible(top)
    report = stage_campaign(str(folder), str(tmp_path / "permanent"))
    assert report.complete, report.describe()
    assert before.items() <= visible(top).items()
    found = checksums(top)
    assert found.pop(CHECKSUMS)
    assert found == checksums(folder)
    assert not list(top.rglob(".*")), "what a killed staging left was not swept"
    assert report.copied + report.entered + report.already == len(found)


@pytest.mark.slow
def test_a_staging_to_s3_killed_anywhere_is_finished_by_the_next(
    tmp_path: Path, bucket: str
) -> None:
    folder = make_campaign(tmp_path / "campaigns", realizations=10)
    draw = random.Random(7)
    codes = [stage_and_kill(folder, bucket, draw.uniform(0.05, 0.4)) for _ in range(4)]
    assert -signal.SIGKILL in codes
    report = stage_campaign(str(folder), bucket)
    assert report.complete, report.describe()
    assert staged_checksums(bucket) == checksums(folder)
    assert (folder / MANIFEST).exists()
