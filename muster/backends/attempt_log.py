"""An attempt's own log, read by byte offset where the work directory is seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from muster.model.logs import log_of
from muster.storage import require_local

if TYPE_CHECKING:
    from pathlib import Path

    from muster.model.batch import Batch

CHUNK_BYTES = 1024 * 1024


def read_log_file(
    batch: Batch, index: int, attempt: int, offset: int, limit: int = CHUNK_BYTES
) -> bytes:
    """Read an attempt's log from an offset on; empty where there is no more, or none yet.

    Parameters
    ----------
    offset, limit : int
        Where to begin, and how much to read at most, in bytes.
    """
    local_work_path(batch.work_uri)
    return log_of(batch, index, attempt).read(offset, limit)


def local_work_path(uri: str) -> Path:
    """Return the path of something in a work directory that must be on this machine.

    Raises
    ------
    InvalidInput
        When it is elsewhere.
    """
    what = "this backend needs a work directory on this machine"
    return require_local(uri, what, do="set work in the site file")
