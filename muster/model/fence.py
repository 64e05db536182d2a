"""The fence: one small file an element that names its current attempt, and what that may use.

The supervisor writes it before a wave is submitted; the runner reads it before it starts and before
it publishes.  A job whose submission it does not name has been superseded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from muster import storage
from muster.errors import InvalidInput, MissingInput
from muster.model.attempt import Fence
from muster.model.batch import Batch

if TYPE_CHECKING:
    from muster.model.wave import Wave


def write_fences(wave: Wave) -> None:
    """Write the batch's file once, and make a wave's attempts the current ones."""
    if not storage.exists(wave.batch.uri):
        storage.write_text(wave.batch.uri, wave.batch.to_json())
    for index, number in wave.attempts.items():
        fence = Fence(submission=wave.key, attempt=number, resources=wave.resources)
        storage.write_text(wave.batch.fence_uri(index), fence.model_dump_json())


def read_fence(batch: Batch, index: int) -> Fence | None:
    """Read which attempt of an element is the current one; None where there is none."""
    uri = batch.fence_uri(index)
    try:
        return Fence.model_validate_json(storage.read_bytes(uri))
    except MissingInput:
        return None
    except ValidationError as error:
        raise InvalidInput("not a fence", where=uri, got=error) from error


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
