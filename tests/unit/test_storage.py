from __future__ import annotations

import contextlib
import errno
import hashlib
import math
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from muster import storage
from muster.errors import (
    ConfigError,
    InvalidInput,
    MissingInput,
    MusterError,
    SoftwareError,
    Transient,
)
from muster.storage.s3 import S3Limits, S3Object
from tests.s3_server import empty_bucket

if TYPE_CHECKING:
    from collections.abc import Iterator

ODD = "größe 50%25 #1?x=&é漢.txt"


@pytest.fixture(scope="module")
def s3(s3_server):
    with empty_bucket(s3_server, "maps") as client:
        yield client


SMALL = S3Limits(listed_keys=3, deleted_keys=2, part_bytes=5 << 20)
"""Small requests, so that a few objects take several: S3 takes no smaller parts."""


def in_small_requests(uri: str) -> S3Object:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return S3Object(uri, bucket, key, SMALL)


@contextlib.contextmanager
def listing_requests() -> Iterator[list[int]]:
    """Collect, for each listing request meanwhile, how many keys it asks for at most."""
    from muster.storage.s3 import _client

    sizes: list[int] = []

    def note_size(params: dict[str, Any], **_: Any) -> None:
        sizes.append(int(params["query_string"].get("max-keys", 1000)))

    name = "before-call.s3.ListObjectsV2"
    events = _client().meta.events
    events.register(name, note_size)
    try:
        yield sizes
    finally:
        events.unregister(name, note_size)


@pytest.fixture(params=["path", "file", "s3"])
def folder(request, tmp_path) -> str:
    """A folder of each kind, with a name that any careless quoting breaks."""
    place = tmp_path / "with blank, 100% & #hash?"
    if request.param == "path":
        return str(place)
    if request.param == "file":
        return place.as_uri()
    request.getfixturevalue("s3")
    return f"s3://maps/{request.node.name}/with blank, 100% & #hash?"


def test_write_read_list_delete(folder):
    uri = storage.join(folder, "2024", ODD)
    assert not storage.exists(uri)
    assert storage.list(folder) == []
    storage.delete(uri)

    storage.write_bytes(uri, b"first")
    storage.write_text(uri, "zweite Größe")

    content = "zweite Größe".encode()
    assert storage.read_bytes(uri) == content
    assert storage.read_text(uri) == "zweite Größe"
    assert storage.sha256(uri) == hashlib.sha256(content).hexdigest()
    assert storage.stat(uri).bytes == len(content)
    assert storage.list(folder) == ["2024"]
    assert storage.list(storage.join(folder, "2024")) == [ODD]
    assert not storage.exists(folder)
    storage.delete(uri)
    assert not storage.exists(uri)


def test_walk_finds_everything_below_and_delete_below_deletes_it(folder):
    before = datetime.now(UTC) - timedelta(minutes=1)
    sizes = {"top": 1, f"a/{ODD}": 2, "a/b/c/deep": 3, "a/.x.tif.part": 4, "ab/other": 5}
    for name, size in sizes.items():
        storage.write_bytes(storage.join(folder, name), b"x" * size)
    found = {entry.name: entry for entry in storage.walk(folder)}
    assert {name: entry.bytes for name, entry in found.items()} == sizes
    assert all(before < entry.modified_at for entry in found.values())
    below_a = {entry.name for entry in storage.walk(storage.join(folder, "a"))}
    assert below_a == {ODD, "b/c/deep", ".x.tif.part"}, "ab is another folder"

    storage.delete_below(folder, ["top", f"a/{ODD}", "a/b/c/deep", "a/.x.tif.part", "a/never"])
    storage.prune(folder, "a")
    assert [entry.name for entry in storage.walk(folder)] == ["ab/other"]
    assert list(storage.walk(storage.join(folder, "nowhere"))) == []
    storage.prune(folder, "nowhere")


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", ""])
def test_delete_below_does_not_leave_the_folder(folder, name):
    storage.write_bytes(storage.join(folder, "a", "kept"), b"x")
    with pytest.raises(InvalidInput, match="not a name below"):
        storage.delete_below(folder, ["a/kept", name])
    with pytest.raises(InvalidInput, match="not a name below"):
        storage.prune(folder, name)
    assert storage.exists(storage.join(folder, "a", "kept"))


def test_links_are_told_and_not_followed(tmp_path):
    outside, work = tmp_path / "outside", tmp_path / "work"
    (outside / "maps").mkdir(parents=True)
    (outside / "maps" / "product.tif").write_bytes(b"mine")
    (work / "a").mkdir(parents=True)
    (work / "a" / "folder").symlink_to(outside / "maps")
    (work / "a" / "file").symlink_to(outside / "maps" / "product.tif")
    found = list(storage.walk(str(work)))
    assert {(e.name, e.is_link, e.bytes) for e in found} == {
        ("a/folder", True, 0),
        ("a/file", True, 0),
    }
    with pytest.raises(InvalidInput, match="leads out of its folder"):
        storage.delete_below(str(work), ["a/folder/product.tif"])
    with pytest.raises(InvalidInput, match="leads out of its folder"):
        storage.prune(str(work), "a/folder/maps")
    storage.prune(str(work), "a/folder")
    storage.delete_below(str(work), ["a/folder", "a/file"])
    storage.prune(str(work), "a")
    assert not (work / "a").exists()
    assert (outside / "maps" / "product.tif").read_bytes() == b"mine"


def test_a_work_folder_that_is_itself_a_link_is_one(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "work").symlink_to(tmp_path / "disk")
    storage.write_bytes(str(tmp_path / "work" / "a" / "x"), b"x")
    assert [entry.name for entry in storage.walk(str(tmp_path / "work"))] == ["a/x"]
    storage.delete_below(str(tmp_path / "work"), ["a/x"])
    assert not (tmp_path / "disk" / "a" / "x").exists()


def test_prune_removes_what_is_empty_and_nothing_else(tmp_path):
    for folder in ("a/b/c", "a/d/e"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "a" / "d" / "kept").write_text("")
    assert {entry.name for entry in storage.walk(str(tmp_path))} == {
        "a/b/c/",
        "a/d/e/",
        "a/d/kept",
    }
    storage.delete_below(str(tmp_path), ["a/b/c/"])
    storage.prune(str(tmp_path), "a")
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == [
        "a", "a/d", "a/d/kept",
    ]  # fmt: skip


def test_requests_are_as_large_as_s3_takes():
    assert S3Limits() == S3Limits(listed_keys=1000, deleted_keys=1000, part_bytes=16 << 20)
    assert S3Object("s3://maps/x", "maps", "x").limits == S3Limits()


@pytest.mark.parametrize(
    ("count", "limits"),
    [(7, SMALL), pytest.param(1003, S3Limits(), marks=pytest.mark.thorough)],
)
def test_walk_and_delete_below_go_beyond_one_page(s3, count, limits):
    names = [f"{number:05d}" for number in range(count)]
    for name in names:
        s3.put_object(Bucket="maps", Key=f"crowd{count}/{name}", Body=b"x")
    s3.put_object(Bucket="maps", Key=f"crowd{count}ed", Body=b"x")
    uri = f"s3://maps/crowd{count}"
    crowd = S3Object(uri, "maps", f"crowd{count}", limits)
    with listing_requests() as sizes:
        assert [entry.name for entry in crowd.walk()] == names
    assert sizes == [limits.listed_keys] * math.ceil(count / limits.listed_keys)
    assert [entry.name for entry in storage.walk(uri)] == names
    crowd.delete_below(names[:-1])
    assert storage.list(uri) == names[-1:]
    assert storage.exists(f"s3://maps/crowd{count}ed")


def test_no_request_to_delete_is_larger_than_its_limit(s3):
    from muster.storage.s3 import _client

    sizes = []

    def count_keys(params, **_):
        sizes.append(params["body"].count(b"<Key>"))

    name = "before-call.s3.DeleteObjects"
    events = _client().meta.events
    events.register(name, count_keys)
    try:
        in_small_requests("s3://maps/never").delete_below(list("abcde"))
    finally:
        events.unregister(name, count_keys)
    assert sizes == [2, 2, 1]


def test_version_changes_with_the_content(folder):
    uri = storage.join(folder, "x")
    storage.write_bytes(uri, b"one")
    before = storage.stat(uri).version
    storage.write_bytes(uri, b"two")
    assert storage.stat(uri).version != before


def test_absent_is_missing_input(folder, tmp_path):
    uri = storage.join(folder, "absent")
    calls = (storage.stat, storage.read_bytes, storage.sha256)
    for call in calls:
        with pytest.raises(MissingInput, match="absent"):
            call(uri)
    with pytest.raises(MissingInput, match="absent"):
        storage.fetch(uri, tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


def test_stage_publishes_whole_or_not_at_all(folder, tmp_path):
    uri = storage.join(folder, "product", "map é.tif")
    staged = storage.stage(uri, scratch=tmp_path)
    staged.path.write_bytes(b"half")
    assert not storage.exists(uri)
    assert storage.list(storage.join(folder, "product")) == []
    staged.path.write_bytes(b"whole")
    published = staged.publish()
    assert (published.sha256, published.bytes) == (hashlib.sha256(b"whole").hexdigest(), 5)
    assert storage.read_bytes(uri) == b"whole"
    assert not staged.path.exists()

    other = storage.stage(uri, scratch=tmp_path)
    other.path.write_bytes(b"rubbish")
    other.discard()
    other.discard()
    assert storage.read_bytes(uri) == b"whole"
    assert not list(tmp_path.rglob("*.part"))
    assert not list(tmp_path.glob("muster-stage-*"))


def test_two_writers_of_one_target_do_not_meet(folder):
    uri = storage.join(folder, "twin")
    one, two = storage.stage(uri), storage.stage(uri)
    one.path.write_bytes(b"1")
    two.path.write_bytes(b"2")
    one.publish()
    two.publish()
    assert storage.read_bytes(uri) == b"2"


def test_publishing_nothing_is_our_own_error(folder):
    staged = storage.stage(storage.join(folder, "nothing"))
    with pytest.raises(SoftwareError, match="nothing was written"):
        staged.publish()
    staged.discard()


def write_large(path: Path, mib: int) -> str:
    """Write a file in which no two MiB are equal, and return its SHA-256."""
    block = bytes(range(256)) * 4096
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for number in range(mib):
            piece = number.to_bytes(4, "big") + block[4:]
            file.write(piece)
            digest.update(piece)
    return digest.hexdigest()


def copy_large(folder: str, place: S3Object | None, mib: int, tmp_path: Path) -> None:
    uri = storage.join(folder, "large.bin")
    staged = storage.stage(uri, scratch=tmp_path) if place is None else place.stage(tmp_path)
    sha256 = write_large(staged.path, mib)
    assert staged.publish().sha256 == sha256
    assert storage.sha256(uri) == sha256
    copy = tmp_path / "copies" / "copy of it"
    if place is None:
        storage.fetch(uri, copy)
    else:
        place.fetch(copy)
    with copy.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == sha256


@pytest.mark.thorough
def test_fetch_copies_a_large_object(folder, tmp_path):
    """40 MiB: three parts on S3, so that order and borders of the parts matter."""
    copy_large(folder, None, 40, tmp_path)


def test_fetch_copies_what_takes_several_pieces(folder, tmp_path):
    """12 MiB: three parts of 5 MiB on S3, and several pieces of a file."""
    place = None
    if folder.startswith("s3:"):
        place = in_small_requests(storage.join(folder, "large.bin"))
    copy_large(folder, place, 12, tmp_path)
    if place is not None:
        assert storage.stat(place.uri).version.endswith("-3"), "not in parts"


@pytest.mark.parametrize(
    ("count", "limits"),
    [(7, SMALL), pytest.param(1003, S3Limits(), marks=pytest.mark.thorough)],
)
def test_list_goes_beyond_one_page(s3, count, limits):
    expected = [f"{number:05d}" for number in range(count)]
    for name in expected:
        s3.put_object(Bucket="maps", Key=f"many{count}/{name}", Body=b"")
    s3.put_object(Bucket="maps", Key=f"many{count}/zz/below", Body=b"")
    uri = f"s3://maps/many{count}"
    with listing_requests() as sizes:
        assert S3Object(uri, "maps", f"many{count}", limits).names() == [*expected, "zz"]
    assert sizes == [limits.listed_keys] * math.ceil((count + 1) / limits.listed_keys)
    assert storage.list(f"{uri}/") == [*expected, "zz"]


def test_s3_says_what_an_object_is(s3, tmp_path):
    storage.write_bytes("s3://maps/typed/report.html", b"<!DOCTYPE html>")
    staged = storage.stage("s3://maps/typed/map.png", scratch=tmp_path)
    staged.path.write_bytes(b"png")
    staged.publish()
    storage.write_bytes("s3://maps/typed/fence", b"1")
    types = {
        name: s3.head_object(Bucket="maps", Key=f"typed/{name}")["ContentType"]
        for name in ("report.html", "map.png", "fence")
    }
    assert types == {
        "report.html": "text/html",
        "map.png": "image/png",
        "fence": "application/octet-stream",
    }


def test_s3_names_its_failures(s3, tmp_path):
    with pytest.raises(MissingInput, match="no such bucket"):
        storage.list("s3://absent-bucket/x")
    with pytest.raises(MissingInput, match="bucket"):
        storage.write_bytes("s3://absent-bucket/x", b"")
    with pytest.raises(InvalidInput, match="not an object"):
        storage.read_bytes("s3://maps/folder/")
    staged = in_small_requests("s3://absent-bucket/large").stage(tmp_path)
    staged.path.write_bytes(bytes(6 << 20))
    with pytest.raises(MissingInput, match="s3://absent-bucket/large"):
        staged.publish()
    staged.discard()


def test_s3_without_an_answer_is_transient(s3, monkeypatch):
    from muster.storage import s3 as module

    monkeypatch.setattr(module, "MAX_ATTEMPTS", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(Transient, match="did not answer"):
        storage.read_bytes("s3://maps/x")


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("AccessDenied", 403, InvalidInput),
        ("403", 403, InvalidInput),
        ("NoSuchKey", 404, MissingInput),
        ("NoSuchBucket", 404, MissingInput),
        ("SlowDown", 503, Transient),
        ("InternalError", 500, Transient),
        ("TooManyRequests", 429, Transient),
        ("ExpiredToken", 400, InvalidInput),
    ],
)
def test_s3_answers_are_told_apart(code, status, expected):
    from botocore.exceptions import ClientError

    from muster.storage.s3 import explain_s3_error

    error = ClientError(
        {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
        "GetObject",
    )
    explained = explain_s3_error(error, "s3://maps/x")
    assert type(explained) is expected
    assert "s3://maps/x" in str(explained)


def test_s3_without_credentials_says_which_to_set():
    from botocore.exceptions import NoCredentialsError

    from muster.storage.s3 import explain_s3_error

    explained = explain_s3_error(NoCredentialsError(), "s3://maps/x")
    assert isinstance(explained, ConfigError)
    assert "AWS_ACCESS_KEY_ID" in str(explained)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, Transient),
        (errno.EFBIG, Transient),
        (errno.EDQUOT, Transient),
        (errno.ESTALE, Transient),
        (errno.EROFS, InvalidInput),
        (errno.EACCES, InvalidInput),
        (errno.ENOENT, MissingInput),
    ],
)
def test_os_errors_are_told_apart(number, expected):
    explained: MusterError = storage.explain_os_error(OSError(number, os.strerror(number)), "/d/x")
    assert type(explained) is expected
    assert "/d/x" in str(explained)


def test_full_disk_is_transient_and_leaves_nothing(tmp_path):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
    try:
        with pytest.raises(Transient, match="no space left"):
            storage.write_bytes(str(tmp_path / "big"), bytes(10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert list(tmp_path.iterdir()) == []


def test_folder_in_the_way_is_invalid_and_leaves_nothing(tmp_path):
    (tmp_path / "target").mkdir()
    with pytest.raises(InvalidInput, match="target"):
        storage.write_bytes(str(tmp_path / "target"), b"x")
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="below"):
        storage.write_bytes(str(tmp_path / "file" / "below"), b"x")
    with pytest.raises(InvalidInput, match="not a file"):
        storage.stat(str(tmp_path / "target"))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "target"]


KILLED_WRITER = """
import sys, time
from muster import storage
staged = storage.stage(sys.argv[1])
with staged.path.open("wb") as file:
    file.write(b"half")
    file.flush()
    print("written", flush=True)
    time.sleep(60)
staged.publish()
"""


def test_killed_writer_leaves_only_a_hidden_part(tmp_path):
    target = tmp_path / "map.tif"
    target.write_bytes(b"old and whole")
    writer = subprocess.Popen(
        [sys.executable, "-c", KILLED_WRITER, str(target)], stdout=subprocess.PIPE, text=True
    )
    with writer:
        assert writer.stdout.readline() == "written\n"
        writer.send_signal(signal.SIGKILL)
    assert target.read_bytes() == b"old and whole"
    assert storage.list(str(tmp_path)) == ["map.tif"]
    left = [entry.name for entry in tmp_path.iterdir() if entry.name != "map.tif"]
    assert len(left) == 1
    assert left[0].startswith(".map.tif.")
    assert left[0].endswith(".part")


def test_killed_upload_is_not_seen(s3, tmp_path):
    """The writer is killed between the first and the last part of a multipart upload."""
    script = textwrap.dedent("""
        import sys, time
        from muster.storage.s3 import S3Limits, S3Object, _client
        limits = S3Limits(part_bytes=5 << 20)
        place = S3Object("s3://maps/killed/map.tif", "maps", "killed/map.tif", limits)
        staged = place.stage(None)
        staged.path.write_bytes(bytes(11 << 20))
        def stall(**_):
            print("last part", flush=True)
            time.sleep(60)
        _client().meta.events.register("before-call.s3.CompleteMultipartUpload", stall)
        staged.publish()
    """)
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    writer = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment
    )
    with writer:
        assert writer.stdout.readline() == "last part\n"
        writer.kill()
    assert storage.list("s3://maps/killed") == []
    assert not storage.exists("s3://maps/killed/map.tif")


def test_failed_upload_is_aborted(s3, tmp_path, monkeypatch):
    from muster.storage.s3 import _client

    def fail(**_):
        raise OSError(errno.EIO, "cable pulled")

    name = "before-call.s3.CompleteMultipartUpload"
    events = _client().meta.events
    events.register(name, fail)
    try:
        staged = in_small_requests("s3://maps/failed/map.tif").stage(tmp_path)
        staged.path.write_bytes(bytes(11 << 20))
        with pytest.raises(Transient, match=r"failed/map\.tif"):
            staged.publish()
    finally:
        events.unregister(name, fail)
    uploads = s3.list_multipart_uploads(Bucket="maps", Prefix="failed/").get("Uploads", [])
    assert uploads == []
    assert not storage.exists("s3://maps/failed/map.tif")


@pytest.mark.parametrize(
    ("uri", "parts", "expected"),
    [
        ("/a b", ("c#", "d"), "/a b/c#/d"),
        ("relative", ("x",), "relative/x"),
        ("/", ("x",), "/x"),
        ("file:///a%20b", ("c#", "50%"), "file:///a%20b/c%23/50%25"),
        ("file:///", ("x",), "file:///x"),
        ("s3://bucket", ("a b/c",), "s3://bucket/a b/c"),
        ("s3://bucket/", ("x",), "s3://bucket/x"),
        ("s3://bucket/k/", ("50%",), "s3://bucket/k/50%"),
        ("s3://bucket/k", (), "s3://bucket/k"),
    ],
)
def test_join(uri, parts, expected):
    assert storage.join(uri, *parts) == expected


@pytest.mark.parametrize("part", ["..", "a/../b", "/etc/passwd", "", "a//b"])
@pytest.mark.parametrize("uri", ["/data", "file:///data", "s3://bucket/data"])
def test_join_does_not_leave_the_folder(uri, part):
    with pytest.raises(InvalidInput, match="not a name below"):
        storage.join(uri, part)


@pytest.mark.parametrize(
    ("uri", "folder", "expected"),
    [
        ("/w/runs/a", "/w/", "runs/a"),
        ("file:///w/runs/a%20b", "/w", "runs/a b"),
        ("/w/../x", "/w", None),
        ("/work", "/w", None),
        ("/w", "/w", None),
        ("s3://b/w/runs/a/", "s3://b/w", "runs/a"),
        ("s3://b/work", "s3://b/w", None),
        ("s3://b/runs/a", "s3://b", "runs/a"),
        ("s3://c/w/runs", "s3://b/w", None),
        ("/w/runs", "s3://b/w", None),
    ],
)
def test_name_below(uri, folder, expected):
    assert storage.name_below(uri, folder) == expected


def test_a_link_is_the_same_place(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "work").symlink_to(tmp_path / "disk")
    assert storage.name_below(str(tmp_path / "disk" / "a"), str(tmp_path / "work")) == "a"


def test_the_writer_of_a_temporary_is_known(tmp_path):
    code = f"from muster import storage; print(storage.stage({str(tmp_path / 'x')!r}).path)"
    dead = subprocess.check_output([sys.executable, "-c", code], text=True).strip()
    mine = storage.stage(str(tmp_path / "x")).path
    assert storage.writer_is_alive(dead) is False
    assert storage.writer_is_alive(str(mine)) is True
    elsewhere = mine.name.replace(mine.name.split(".")[-3].partition("-")[0], "0" * 12)
    assert storage.writer_is_alive(elsewhere) is None
    assert storage.writer_is_alive(".somebody.elses.part") is None
    assert storage.writer_is_alive(".part") is None


def test_local_path():
    assert storage.local_path("/a%20b") == Path("/a%20b")
    assert storage.local_path("file:///a%20b") == Path("/a b")
    assert storage.local_path("file://localhost/a") == Path("/a")
    assert storage.local_path("a:b") == Path("a:b")
    assert storage.local_path("s3://bucket/key") is None


@pytest.mark.parametrize(
    "uri", ["", "http://host/x", "gs://b/k", "s3://", "s3:///key", "file://host/x", "file://"]
)
def test_other_addresses_are_refused(uri):
    with pytest.raises(InvalidInput):
        storage.exists(uri)


def test_very_long_names_can_be_staged(tmp_path):
    name = "漢" * 85  # 255 bytes, all that a file system takes
    storage.write_bytes(str(tmp_path / name), b"x")
    assert storage.list(str(tmp_path)) == [name]
    name.encode()
    str(storage.temporary_sibling(tmp_path / name)).encode()


def test_boto3_is_imported_for_s3_only(tmp_path):
    script = (
        "import sys; from muster import storage; storage.write_bytes(sys.argv[1], b'x');"
        "storage.sha256(sys.argv[1]); sys.exit('boto3' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "x")], check=True)


def test_readers_see_old_or_new_never_a_part(tmp_path):
    target = tmp_path / "status.json"
    old, new = b"o" * 300_000, b"n" * 300_000
    target.write_bytes(old)
    script = (
        "import sys; from muster import storage\n"
        "for i in range(40): storage.write_bytes(sys.argv[1], (b'n' if i % 2 else b'o') * 300_000)"
    )
    writer = subprocess.Popen([sys.executable, "-c", script, str(target)])
    seen = set()
    while writer.poll() is None:
        seen.add(target.read_bytes())
        time.sleep(0.001)
    assert writer.returncode == 0
    assert seen <= {old, new}


def test_leftovers_are_swept_and_what_somebody_writes_now_is_not(tmp_path):
    target = str(tmp_path / "map.tif")
    mine, theirs = (storage.stage(target, owner=owner) for owner in ("run1/0", "run2/0"))
    code = f"from muster import storage; print(storage.stage({target!r}, owner='run3/0').path)"
    dead = Path(subprocess.check_output([sys.executable, "-c", code], text=True).strip())
    for path in (mine.path, theirs.path, dead):
        path.write_bytes(b"half")
    storage.sweep(target, "run1/0")
    assert not mine.path.exists(), "the same element's earlier attempt"
    assert not dead.exists(), "another run's, whose process is gone"
    theirs.publish()
    assert storage.read_bytes(target) == b"half"


def test_leftovers_of_a_dead_process_that_nobody_has_collected_are_swept(tmp_path):
    target = str(tmp_path / "map.tif")
    code = f"from muster import storage; print(storage.stage({target!r}, owner='run3/0').path)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as dead:
        left = Path(dead.stdout.readline().strip())
        left.write_bytes(b"half")
        while psutil.Process(dead.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        storage.sweep(target, "run1/0")
        assert not left.exists()


def test_a_part_is_read_as_far_as_there_is_any(folder: str) -> None:
    uri = storage.join(folder, "part.log")
    with pytest.raises(MissingInput):
        storage.read_part(uri, 0, 10)
    storage.write_bytes(uri, b"0123456789")
    parts = [(0, 4), (4, 10), (8, 99), (10, 20), (50, 60), (5, 5), (7, 3)]
    read = [storage.read_part(uri, start, stop) for start, stop in parts]
    assert read == [b"0123", b"456789", b"89", b"", b"", b"", b""]
    assert [storage.read_tail(uri, most) for most in (3, 10, 99)] == [
        b"789", b"0123456789", b"0123456789",
    ]  # fmt: skip
