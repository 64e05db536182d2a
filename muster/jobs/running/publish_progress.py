"""How the runner publishes its step's progress: in a thread, for it may be far away.

The job has no credentials of the store, so its last word lies as a small file in the work
directory, where the supervisor finds it.  Nothing here can fail an element or hold it up: a word
that could not be published is followed by another.
"""

from __future__ import annotations

import json
import logging
import threading
from typing import TYPE_CHECKING, Any, Self

from pydantic import ValidationError

from muster import storage
from muster.errors import MusterError
from muster.model.attempt import LogSpan, Progress, WorkerWord

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from muster.model.attempt import Fence
    from muster.model.batch import Batch

PUBLISH_INTERVAL_S = 10.0
LOOK_INTERVAL_S = 0.5
LAST_WORD_S = 2.0

log = logging.getLogger(__name__)


class ProgressPublisher:
    """Publishes what a step says of its progress for as long as it is entered.

    Parameters
    ----------
    batch, index, fence
        Whose progress it is: the file is named by the element and the attempt.
    said : Path
        The local file that the step's process writes.
    every_s : float
        How often it is published at most, in seconds; the first word goes out at once.
    worker_uri : str, optional
        The file of the worker that runs it, where its elements share one; it says from the start
        what runs.
    log_span : LogSpan, optional
        Where its output begins, which is said there too.
    """

    def __init__(
        self,
        batch: Batch,
        index: int,
        fence: Fence,
        said: Path,
        every_s: float,
        *,
        worker_uri: str | None = None,
        log_span: LogSpan | None = None,
    ) -> None:
        self._shared = worker_uri is not None
        self._uri = worker_uri or batch.progress_uri(index, fence.attempt)
        self._span = log_span
        self._names: dict[str, Any] = {
            "submission": fence.submission,
            "index": index,
            "attempt": fence.attempt,
        }
        self._said = said
        self._every_s = every_s
        self._ended = threading.Event()
        self._warned = False
        self._thread = threading.Thread(target=self._follow, name="muster-progress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join(LAST_WORD_S)  # and no longer: its network may hang

    def _follow(self) -> None:
        published: bytes | None = None
        begun = not self._shared
        while not self._ended.wait(min(LOOK_INTERVAL_S, self._every_s)):
            try:
                said = self._said.read_bytes()
            except OSError:
                if not begun:
                    self._publish(None)
                    begun = True
                continue
            if said == published:
                continue
            self._publish(said)
            published = said
            if self._ended.wait(self._every_s):
                return

    def _publish(self, said: bytes | None) -> None:
        try:
            progress = (
                None
                if said is None
                else Progress.model_validate({**json.loads(said), **self._names})
            )
            told: Progress | WorkerWord | None = progress
            if self._shared:
                told = WorkerWord(**self._names, log=self._span, progress=progress)
            if told is not None:
                storage.write_bytes(self._uri, told.model_dump_json().encode())
        except (MusterError, ValidationError, TypeError, ValueError) as error:
            if not self._warned:
                log.warning("progress is not told: %s", error)
            self._warned = True
