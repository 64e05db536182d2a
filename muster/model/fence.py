"""The fence: it names the current attempt of an element, and what that may use.

The supervisor writes it before a wave is submitted; the runner reads it before it starts and before
it publishes.  A job whose submission it does not name has been superseded.

All fences of a batch lie in one file, which is replaced as a whole under a lock; batches that were
frozen before have a file an element.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from muster import storage
from muster.errors import InvalidInput, MissingInput
from muster.model.attempt import Fence
from muster.model.batch import Batch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from muster.model.wave import Wave


_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_KNOWN: dict[str, tuple[tuple[int, int, int, int], dict[str, Any]]] = {}
"""The fences that were parsed last, with what their file was then."""


def write_fences(wave: Wave) -> None:
    """Write the batch's file once, and make a wave's attempts the current ones."""
    batch = wave.batch
    if not storage.exists(batch.uri):
        storage.write_text(batch.uri, batch.to_json())
    fences = {
        index: Fence(
            submission=wave.key,
            attempt=number,
            resources=wave.resources,
            longest_s=wave.longest_s if batch.layout else None,
        )
        for index, number in wave.attempts.items()
    }
    if not batch.layout:
        for index, fence in fences.items():
            storage.write_text(batch.fence_uri(index), fence.model_dump_json())
        return
    with _locked(batch):  # who was replaced and does not know touches none but its own
        said = _read_all(batch.fence_uri(0))
        said |= {str(index): fence.model_dump(mode="json") for index, fence in fences.items()}
        storage.write_text(batch.fence_uri(0), json.dumps(said))


def read_fence(batch: Batch, index: int) -> Fence | None:
    """Read which attempt of an element is the current one; None where there is none.

    Raises
    ------
    InvalidInput
        When what lies there is no fence.
    """
    uri = batch.fence_uri(index)
    try:
        if not batch.layout:
            return Fence.model_validate_json(storage.read_bytes(uri))
        said = _read_all(uri).get(str(index))
        return None if said is None else Fence.model_validate(said)
    except MissingInput:
        return None
    except ValidationError as error:
        raise InvalidInput("not a fence", where=uri, got=error) from error


def read_fences(batch: Batch) -> dict[int, Fence]:
    """Read the fences of all elements of a batch that have one, by index."""
    if not batch.layout:
        found = {e.index: read_fence(batch, e.index) for e in batch.elements}
        return {index: fence for index, fence in found.items() if fence is not None}
    uri = batch.fence_uri(0)
    every = _read_all(uri)
    try:
        return {
            element.index: Fence.model_validate(said)
            for element in batch.elements
            if (said := every.get(str(element.index))) is not None
        }
    except ValidationError as error:
        raise InvalidInput("not a fence", where=uri, got=error) from error


def _read_all(uri: str) -> dict[str, Any]:
    """Read a batch's fences; nothing where none were written yet.

    The file is opened each time, which on a network's disk makes sure that it is the newest, and
    parsed anew where it is another one: it is replaced as a whole, and never changed.
    """
    path = storage.local_path(uri)
    if path is None:
        return _parse_all(uri, storage.read_bytes(uri)) if storage.exists(uri) else {}
    try:
        with storage.os_errors_at(path), path.open("rb") as file:
            status = os.fstat(file.fileno())
            version = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
            known = _KNOWN.get(uri)
            if known is not None and known[0] == version:
                return dict(known[1])
            said = _parse_all(uri, file.read())
    except MissingInput:
        return {}
    _KNOWN.clear()
    _KNOWN[uri] = (version, said)
    return dict(said)


def _parse_all(uri: str, data: bytes) -> dict[str, Any]:
    try:
        said = json.loads(data)
    except ValueError as error:
        raise InvalidInput("not a file of fences", where=uri, got=error) from error
    if not isinstance(said, dict):
        raise InvalidInput("not a file of fences", where=uri, got=type(said).__name__)
    return said


@contextlib.contextmanager
def _locked(batch: Batch) -> Iterator[None]:
    """Keep other supervisors from replacing the fences; the batch's own file is what is locked."""
    path = storage.local_path(batch.uri)
    if path is None:  # an object has no lock: the claim, checked before each submission, is all
        yield
        return
    with storage.os_errors_at(path), path.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:  # there the claim is all, too
                raise
        yield


def read_batch_file(uri: str) -> Batch:
    """Read what a batch was frozen with.

    Raises
    ------
    MissingInput, InvalidInput
        When it is not there, or is not one.
    """
    try:
        return Batch.model_validate_json(storage.read_bytes(uri))
    except ValidationError as error:
        raise InvalidInput("not a batch file", where=uri, got=error) from error
