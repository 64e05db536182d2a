"""S3 and what speaks its language (MinIO, Ceph, moto), through boto3, imported only when used."""

from __future__ import annotations

import base64
import contextlib
import functools
import mimetypes
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)

from muster.errors import (
    ConfigError,
    InvalidInput,
    MissingInput,
    MusterError,
    SoftwareError,
    Transient,
)
from muster.storage.files import check_sha256, hash_file, os_errors_at
from muster.storage.place import CHUNK_BYTES, Entry, Occupied, Published, Stat
from muster.storage.temporaries import is_temporary, temporary_sibling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import PaginatorConfigTypeDef

MAX_ATTEMPTS: Final = 5
"""How often boto3 itself tries, within one call."""
SHA256_KEY: Final = "sha256"
"""Metadata of an object: the SHA-256 of its content, as hexadecimal digits."""
_ABSENT = {"404", "NotFound", "NoSuchKey", "NoSuchBucket"}


@dataclass(frozen=True)
class S3Limits:
    """Sizes of requests.

    Attributes
    ----------
    listed_keys : int
        Keys in a page of a listing; S3 gives at most 1000.
    deleted_keys : int
        Keys in one request to delete; S3 takes at most 1000.
    part_bytes : int
        Bytes in a part of an upload or download, and the size from which there are parts; S3
        takes no part under 5 MiB but the last.
    single_bytes : int
        The largest object that :meth:`S3Object.deposit` sends in one request, with one checksum of
        the whole; S3 takes at most 5 GiB.
    """

    listed_keys: int = 1000
    deleted_keys: int = 1000
    part_bytes: int = 16 << 20
    single_bytes: int = 1 << 30

    @property
    def transfer(self) -> TransferConfig:
        """The limits as boto3 takes them."""
        return TransferConfig(
            multipart_threshold=self.part_bytes,
            multipart_chunksize=self.part_bytes,
            max_concurrency=4,
        )

    @property
    def page(self) -> PaginatorConfigTypeDef:
        """The size of a page as a paginator of boto3 takes it."""
        return {"PageSize": self.listed_keys}


DEFAULT_LIMITS: Final = S3Limits()


@functools.lru_cache(maxsize=8)
def _make_client(pid: int, endpoint: str | None, identity: str | None) -> S3Client:
    session = boto3.session.Session()
    return session.client(
        "s3",
        config=Config(
            connect_timeout=10,
            read_timeout=60,
            retries={"mode": "standard", "total_max_attempts": MAX_ATTEMPTS},
            # Stores other than Amazon's are addressed by path: their buckets have no DNS names,
            # and older ones refuse the checksums that boto3 would add to every request.
            s3={"addressing_style": "path" if endpoint else "auto"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def _client() -> S3Client:
    # A client is not safe to share over a fork, and belongs to its endpoint and credentials.
    environment = os.environ
    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    identity = environment.get("AWS_ACCESS_KEY_ID") or environment.get("AWS_PROFILE")
    return _make_client(os.getpid(), endpoint, identity)


def explain_s3_error(error: Exception, where: str) -> MusterError:
    """Turn an error of boto3 into the Muster error of its class."""
    cause = error.__context__ if isinstance(error, Boto3Error) and error.__context__ else error
    if isinstance(cause, NoCredentialsError | PartialCredentialsError):
        return ConfigError(
            "no credentials for S3",
            where=where,
            got=cause,
            do="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
        )
    if isinstance(cause, ParamValidationError):
        return InvalidInput("not an S3 address", where=where, got=cause)
    if isinstance(cause, ClientError):
        code = cause.response.get("Error", {}).get("Code", "")
        status = cause.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in _ABSENT:
            what = "no such bucket" if code == "NoSuchBucket" else "no such object"
            return MissingInput(what, where=where)
        if 400 <= status < 500 and status not in (408, 409, 429):
            return InvalidInput("S3 refused", where=where, got=f"{code} {status}")
        return Transient("S3 failed", where=where, got=f"{code} {status}")
    return Transient("S3 did not answer", where=where, got=cause)


@contextlib.contextmanager
def _s3_errors_at(where: str) -> Iterator[None]:
    try:
        yield
    except (BotoCoreError, ClientError, Boto3Error) as error:
        raise explain_s3_error(error, where) from error


@dataclass(frozen=True)
class StagedObject:
    """An object in the making: a local file in a scratch folder of its own."""

    target: S3Object
    path: Path

    def publish(self, check: Callable[[], None] | None = None) -> Published:
        """Upload; the object appears when the last part has arrived, and not before.

        ``check`` is called last before the upload, and keeps it from happening by raising.
        """
        if not self.path.is_file():
            raise SoftwareError("nothing was written to publish", where=self.target.uri)
        with os_errors_at(self.target.uri):
            published = hash_file(self.path)
        if check is not None:
            check()
        with os_errors_at(self.target.uri), _s3_errors_at(self.target.uri):
            # On failure boto3 aborts the multipart upload, so nothing is left to pay for.
            _client().upload_file(
                str(self.path),
                self.target.bucket,
                self.target.key,
                ExtraArgs={"ContentType": _media_type(self.target.key)},
                Config=self.target.limits.transfer,
            )
        self.discard()
        return published

    def discard(self) -> None:
        """Remove the scratch folder."""
        shutil.rmtree(self.path.parent, ignore_errors=True)


@dataclass(frozen=True)
class S3Object:
    """An S3 key as a :class:`muster.storage.place.Place`."""

    uri: str
    bucket: str
    key: str
    limits: S3Limits = DEFAULT_LIMITS

    def exists(self) -> bool:
        """Say whether there is an object of this key."""
        try:
            self.stat()
        except MissingInput:
            return False
        return True

    def stat(self) -> Stat:
        """Return size and ETag."""
        with _s3_errors_at(self.uri):
            head = _client().head_object(Bucket=self.bucket, Key=self._object_key())
        return Stat(head["ContentLength"], head["ETag"].strip('"'))

    def chunks(self) -> Iterator[bytes]:
        """Yield the content in pieces."""
        with _s3_errors_at(self.uri):
            body = _client().get_object(Bucket=self.bucket, Key=self._object_key())["Body"]
            with contextlib.closing(body):
                yield from body.iter_chunks(CHUNK_BYTES)

    def part(self, start: int, stop: int) -> bytes:
        """Return the bytes from an offset to another, as far as there are any, in one request."""
        if stop <= start:
            return b""
        with _s3_errors_at(self.uri):
            try:
                body = _client().get_object(
                    Bucket=self.bucket, Key=self._object_key(), Range=f"bytes={start}-{stop - 1}"
                )["Body"]
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") == "InvalidRange":
                    return b""  # nothing lies behind the start
                raise
            with contextlib.closing(body):
                return body.read()

    def write(self, data: bytes) -> None:
        """Put the whole object in one request."""
        with _s3_errors_at(self.uri):
            _client().put_object(
                Bucket=self.bucket,
                Key=self._object_key(),
                Body=data,
                ContentType=_media_type(self.key),
            )

    def names(self) -> list[str]:
        """Return the sorted names below this key prefix, however many pages S3 needs."""
        prefix = self._prefix()
        names: set[str] = set()
        with _s3_errors_at(self.uri):
            pages = _client().get_paginator("list_objects_v2")
            for page in pages.paginate(
                Bucket=self.bucket,
                Prefix=prefix,
                Delimiter="/",
                PaginationConfig=self.limits.page,
            ):
                names.update(found["Key"][len(prefix) :] for found in page.get("Contents", []))
                names.update(
                    found["Prefix"][len(prefix) :].rstrip("/")
                    for found in page.get("CommonPrefixes", [])
                )
        return sorted(name for name in names if name and not is_temporary(name))

    def delete(self) -> None:
        """Delete the object, if there."""
        with _s3_errors_at(self.uri):
            _client().delete_object(Bucket=self.bucket, Key=self._object_key())

    def walk(self) -> Iterator[Entry]:
        """Yield every object below this key prefix."""
        prefix = self._prefix()
        with _s3_errors_at(self.uri):
            pages = _client().get_paginator("list_objects_v2")
            for page in pages.paginate(
                Bucket=self.bucket, Prefix=prefix, PaginationConfig=self.limits.page
            ):
                for found in page.get("Contents", []):
                    name = found["Key"][len(prefix) :]
                    if name:
                        yield Entry(name, found["Size"], found["LastModified"])

    def delete_below(self, names: Sequence[str]) -> None:
        """Delete objects, as many at once as S3 takes."""
        prefix = self._prefix()
        at_once = self.limits.deleted_keys
        for start in range(0, len(names), at_once):
            keys = [f"{prefix}{name}" for name in names[start : start + at_once]]
            with _s3_errors_at(self.uri):
                answer = _client().delete_objects(
                    Bucket=self.bucket,
                    Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True},
                )
            for refused in answer.get("Errors", []):
                raise InvalidInput(
                    "S3 refused to delete",
                    where=f"s3://{self.bucket}/{refused.get('Key')}",
                    got=f"{refused.get('Code')} {refused.get('Message')}",
                )

    def prune(self, name: str) -> None:
        """Do nothing: S3 has no folders."""

    def fetch(self, path: Path) -> None:
        """Download through a temporary sibling of the path."""
        temporary = temporary_sibling(path)
        try:
            with os_errors_at(f"{self.uri} → {path}"), _s3_errors_at(self.uri):
                path.parent.mkdir(parents=True, exist_ok=True)
                _client().download_file(
                    self.bucket,
                    self._object_key(),
                    str(temporary),
                    Config=self.limits.transfer,
                )
                temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def stage(self, scratch: Path | None, owner: str = "") -> StagedObject:
        """Give a file in a new scratch folder, which is nobody else's."""
        name = self._object_key().rpartition("/")[2]
        with os_errors_at(scratch or tempfile.gettempdir()):
            folder = tempfile.mkdtemp(prefix="muster-stage-", dir=scratch)
        return StagedObject(self, Path(folder, name))

    def deposit(self, path: Path, sha256: str | None, *, replace: bool) -> Published:
        """Upload with a SHA-256 that S3 compares with what has arrived."""
        if not replace and self.exists():  # older stores ignore the condition of the request
            raise Occupied("another object lies there", where=self.uri)
        with os_errors_at(path):
            published = hash_file(path)
        check_sha256(path, published.sha256, sha256)
        if published.bytes > self.limits.single_bytes:
            self._deposit_in_parts(path, published)
            return published
        condition: dict[str, Any] = {} if replace else {"IfNoneMatch": "*"}
        with os_errors_at(path), path.open("rb") as file:
            try:
                with _s3_errors_at(self.uri):
                    _client().put_object(
                        Bucket=self.bucket,
                        Key=self._object_key(),
                        Body=file,
                        ContentType=_media_type(self.key),
                        ChecksumAlgorithm="SHA256",
                        ChecksumSHA256=base64.b64encode(bytes.fromhex(published.sha256)).decode(),
                        Metadata={SHA256_KEY: published.sha256},
                        **condition,
                    )
            except InvalidInput as error:
                if not replace and self.exists():
                    raise Occupied("another object lies there", where=self.uri) from error
                raise
        return published

    def _deposit_in_parts(self, path: Path, published: Published) -> None:
        """Upload with a SHA-256 of each part."""
        with os_errors_at(path), _s3_errors_at(self.uri):
            _client().upload_file(
                str(path),
                self.bucket,
                self._object_key(),
                ExtraArgs={
                    "ContentType": _media_type(self.key),
                    "ChecksumAlgorithm": "SHA256",
                    "Metadata": {SHA256_KEY: published.sha256},
                },
                Config=self.limits.transfer,
            )

    def recorded_sha256(self) -> str | None:
        """Return the SHA-256 in the object's metadata."""
        with _s3_errors_at(self.uri):
            head = _client().head_object(Bucket=self.bucket, Key=self._object_key())
        found = head["Metadata"].get(SHA256_KEY, "")
        return found if re.fullmatch("[0-9a-f]{64}", found) else None

    def _prefix(self) -> str:
        prefix = self.key.rstrip("/")
        return f"{prefix}/" if prefix else ""

    def _object_key(self) -> str:
        if not self.key or self.key.endswith("/"):
            raise InvalidInput("not an object", where=self.uri, expected="s3://bucket/key")
        return self.key


def _media_type(key: str) -> str:
    """Say what an object is, so that a browser shows a page or picture instead of saving it."""
    return mimetypes.guess_type(key)[0] or "application/octet-stream"
