"""A deposit is verified, whole under its name or absent, and never takes another file's place."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.exceptions import ClientError

from muster import storage
from muster.errors import InvalidInput, MissingInput, Transient
from muster.storage import files
from muster.storage.s3 import S3Limits, S3Object
from tests.s3_server import empty_bucket

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def s3(s3_server: str) -> Iterator[Any]:
    with empty_bucket(s3_server, "stage") as client:
        yield client


@pytest.fixture(params=["file", "s3"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return str(tmp_path / "there" / "x.hdf5")
    request.getfixturevalue("s3")
    return f"s3://stage/{tmp_path.name}/x.hdf5"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "x.hdf5"
    path.write_bytes(bytes(range(256)) * 9000)
    return path


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_is_deposited_equals_the_file(target: str, source: Path) -> None:
    done = storage.deposit(target, source, sha256=sha256_of(source))
    assert (done.sha256, done.bytes) == (sha256_of(source), source.stat().st_size)
    assert storage.read_bytes(target) == source.read_bytes()
    assert storage.list(target.rpartition("/")[0]) == ["x.hdf5"]
    assert storage.recorded_sha256(target) in (None, done.sha256)


def test_another_file_is_never_replaced_unless_asked(target: str, source: Path) -> None:
    storage.write_bytes(target, b"another's")
    with pytest.raises(storage.Occupied, match="lies there"):
        storage.deposit(target, source)
    assert storage.read_bytes(target) == b"another's"
    storage.deposit(target, source, replace=True)
    assert storage.read_bytes(target) == source.read_bytes()


def test_a_file_that_is_not_what_its_record_states_is_refused(target: str, source: Path) -> None:
    with pytest.raises(storage.ContentMismatch, match="not what its record states"):
        storage.deposit(target, source, sha256="0" * 64)
    assert not storage.exists(target)


def test_a_file_that_is_not_there_is_missing(target: str, tmp_path: Path) -> None:
    with pytest.raises(MissingInput):
        storage.deposit(target, tmp_path / "absent")
    assert not storage.exists(target)


def test_a_copy_that_the_disk_has_spoilt_is_never_named(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = files.os.fsync

    def spoil(descriptor: int) -> None:
        sync(descriptor)
        for part in tmp_path.glob("there/.*.part"):
            with part.open("r+b") as file:
                file.seek(4097)
                file.write(b"?")

    target = tmp_path / "there" / "x.hdf5"
    monkeypatch.setattr(files.os, "fsync", spoil)
    with pytest.raises(Transient, match="the copy differs from the file"):
        storage.deposit(str(target), source)
    assert list(target.parent.iterdir()) == []


def test_a_name_taken_meanwhile_stays_anothers(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "there" / "x.hdf5"
    hash_file = files.hash_file

    def hash_late(path: Path) -> Any:
        target.write_bytes(b"another's")
        return hash_file(path)

    monkeypatch.setattr(files, "hash_file", hash_late)
    with pytest.raises(storage.Occupied):
        storage.deposit(str(target), source)
    assert target.read_bytes() == b"another's"
    assert list(target.parent.iterdir()) == [target]


def test_s3_keeps_the_checksum_of_the_whole(s3: Any, source: Path) -> None:
    storage.deposit("s3://stage/whole", source)
    head = s3.head_object(Bucket="stage", Key="whole", ChecksumMode="ENABLED")
    expected = hashlib.sha256(source.read_bytes()).digest()
    assert base64.b64decode(head["ChecksumSHA256"]) == expected
    assert storage.recorded_sha256("s3://stage/whole") == expected.hex()


def test_a_large_object_goes_in_parts_with_a_checksum_each(s3: Any, tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"0123456789" * (700 << 10))
    limits = S3Limits(part_bytes=5 << 20, single_bytes=1 << 20)
    done = S3Object("s3://stage/large", "stage", "large", limits).deposit(path, None, replace=False)
    assert storage.sha256("s3://stage/large") == sha256_of(path) == done.sha256
    assert storage.recorded_sha256("s3://stage/large") == done.sha256
    with pytest.raises(storage.Occupied):
        S3Object("s3://stage/large", "stage", "large", limits).deposit(path, None, replace=False)


def test_a_checksum_that_no_upload_recorded_is_none(s3: Any) -> None:
    s3.put_object(Bucket="stage", Key="plain", Body=b"x", Metadata={"sha256": "abc"})
    assert storage.recorded_sha256("s3://stage/plain") is None
    with pytest.raises(MissingInput):
        storage.recorded_sha256("s3://stage/none")


def test_no_bucket_is_no_other_object(s3: Any, source: Path) -> None:
    with pytest.raises((MissingInput, InvalidInput), match="bucket"):
        storage.deposit("s3://elsewhere/x", source)
    with pytest.raises(ClientError):
        boto3.client("s3").head_bucket(Bucket="elsewhere")
