"""Where an attempt's output lies, and how it is read: elements of one worker share its log.

While an attempt runs, its worker's word says where its output begins; when it has ended, its result
says where that ends, too.  A log that was frozen into an address says it behind a ``#``:
``…/logs/0.1.log#120-4560``.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import ValidationError

from muster import storage
from muster.errors import InvalidInput, MissingInput, MusterError
from muster.model.attempt import Result, WorkerWord

if TYPE_CHECKING:
    from muster.model.attempt import LogSpan
    from muster.model.batch import Batch

MOST_WORDS = 4096
WORDS_AGE_S = 0.5
LONGEST_WORD = 64 << 10

_PART = re.compile(r"(?P<uri>.*)#(?P<begin>\d{1,18})-(?P<end>\d{0,18})", re.DOTALL)
_SHARED = re.compile(r"(?P<work>.*)/logs/(?P<index>\d{1,9})\.(?P<attempt>\d{1,9})\.log", re.DOTALL)
_known: dict[str, tuple[float, list[WorkerWord]]] = {}


@dataclass(frozen=True)
class LogPart:
    """A part of a log.

    Attributes
    ----------
    uri : str
        The log.
    begin, end : int, int or None
        Offsets in bytes; None for the end of the log.
    """

    uri: str
    begin: int = 0
    end: int | None = None

    def read(self, offset: int = 0, limit: int | None = None) -> bytes:
        """Read at most so many bytes from an offset in the part on; empty where there is no more.

        Raises
        ------
        InvalidInput, Transient
            When it cannot be read.
        """
        start = self.begin + offset
        stop = None if limit is None else start + limit
        if self.end is not None:
            stop = self.end if stop is None else min(stop, self.end)
        if stop is not None and stop <= start:
            return b""
        path = storage.local_path(self.uri)
        try:
            if path is None:
                if stop is None:
                    return storage.read_bytes(self.uri)[start:]
                return storage.read_part(self.uri, start, stop)
            with storage.os_errors_at(path), path.open("rb") as file:
                file.seek(start)
                return file.read() if stop is None else file.read(stop - start)
        except MissingInput:
            return b""

    def size(self) -> int:
        """Return its size in bytes; 0 where there is none."""
        try:
            size = storage.stat(self.uri).bytes
        except MissingInput:
            return 0
        return max(0, (size if self.end is None else min(size, self.end)) - self.begin)

    def exists(self) -> bool:
        """Say whether there is such a log."""
        return storage.exists(self.uri)


def render_log_uri(work_uri: str, span: LogSpan) -> str:
    """Render where an attempt's output lies as one address."""
    end = "" if span.end is None else span.end
    return f"{storage.join(work_uri, *span.name.split('/'))}#{span.begin}-{end}"


def locate_log(uri: str) -> LogPart:
    """Find what the address of an attempt's log means, as the store has it."""
    part = _PART.fullmatch(uri)
    if part is not None:
        end = int(part["end"]) if part["end"] else None
        return LogPart(part["uri"], int(part["begin"]), end)
    shared = _SHARED.fullmatch(uri)
    if shared is not None:
        return find_log(shared["work"], int(shared["index"]), int(shared["attempt"]))
    return LogPart(uri)


def log_of(batch: Batch, index: int, attempt: int) -> LogPart:
    """Find the log of an attempt of a batch."""
    if batch.layout:
        return find_log(batch.work_uri, index, attempt)
    return LogPart(batch.log_uri(index, attempt))


def find_log(work_uri: str, index: int, attempt: int) -> LogPart:
    """Find an attempt's output by its result, or by the word of the worker that runs it.

    Without either it can only be in a log that begins with it.
    """
    name = f"{index}.{attempt}"
    span = _span_of_result(storage.join(work_uri, "results", f"{name}.json"))
    if span is None:
        said = (w for w in read_words(work_uri) if (w.index, w.attempt) == (index, attempt))
        span = next((word.log for word in said if word.log is not None), None)
    if span is None:
        return LogPart(storage.join(work_uri, "logs", f"{name}.log"))
    return LogPart(storage.join(work_uri, *span.name.split("/")), span.begin, span.end)


def read_words(work_uri: str) -> list[WorkerWord]:
    """Read what the workers of a batch say now; what is none of their words is left out."""
    known = _known.get(work_uri)
    now_s = time.monotonic()
    if known is not None and now_s - known[0] < WORDS_AGE_S:
        return known[1]
    folder = storage.join(work_uri, "progress")
    words = []
    for name in storage.list(folder)[:MOST_WORDS]:
        try:
            data = storage.read_bytes(storage.join(folder, name))
            if len(data) <= LONGEST_WORD:
                words.append(WorkerWord.model_validate_json(data))
        except (MusterError, ValidationError):
            continue
    _known.clear()  # of one batch at a time: the elements of one are asked for in a row
    _known[work_uri] = (now_s, words)
    return words


def _span_of_result(uri: str) -> LogSpan | None:
    try:
        return Result.model_validate_json(storage.read_bytes(uri)).log
    except (MissingInput, InvalidInput, ValidationError):
        return None
