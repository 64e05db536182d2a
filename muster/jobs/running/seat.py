"""What elements share that run one after the other in a job: a process, a log, a word of progress.

A job has as many seats as elements that run at once.
"""

from __future__ import annotations

import logging
import os
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from muster import storage
from muster.errors import MusterError
from muster.jobs.running.child import THREAD_VARIABLES
from muster.jobs.running.copy_log import LogCopier
from muster.jobs.running.publish_progress import PUBLISH_INTERVAL_S
from muster.jobs.running.scratch import scratch_folder, scratch_prefix
from muster.jobs.running.warm import WarmWorker
from muster.log import make_formatter
from muster.model.attempt import LogSpan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from muster.model.attempt import Fence
    from muster.model.batch import Batch

log = logging.getLogger(__name__)

STANDARD_OUTPUT = 1


@dataclass(frozen=True)
class Running:
    """How a job runs its elements.

    Attributes
    ----------
    submission : str
        The submission key of this job (MUSTER_JOB).
    workers : int
        How many elements run at once.
    progress_every_s : float
        How often an element's progress is published at most, in seconds.
    own_logs : bool
        Whether output goes into the batch's logs, as where several elements share a job; else it
        goes where that of this process goes.
    log : str or None
        The log that the output of this process goes to already, below the batch's folder.
    ends_at : float or None
        When the job's walltime ends, in seconds since 1970.
    echo : bool
        Whether the output that goes into the batch's logs goes where that of this process goes,
        too.
    feed : int or None
        Descriptor of a socket that further elements are asked for at, when those that were named
        have ended.
    """

    submission: str
    workers: int = 1
    progress_every_s: float = PUBLISH_INTERVAL_S
    own_logs: bool = False
    log: str | None = None
    ends_at: float | None = None
    echo: bool = False
    feed: int | None = None


class Stop:
    """The wish to stop; a plain flag, as a signal handler must not touch a lock."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self) -> bool:
        """Tell whether to stop."""
        return self.asked


@dataclass(frozen=True)
class Output:
    """Where an element's output goes.

    Attributes
    ----------
    log : logging.Logger
        What the runner says of it.
    descriptor : int or None
        What a process of the step writes to; None: as this one.
    path : Path or None
        The log of the element's own, where it has one.
    name : str or None
        The log that it shares with others, below the batch's folder.
    begin : int or None
        Where it begins in that, in bytes.
    copier : LogCopier or None
        What copies that log to where it is wanted.
    """

    log: logging.Logger
    descriptor: int | None = None
    path: Path | None = None
    name: str | None = None
    begin: int | None = None
    copier: LogCopier | None = None

    def copy(self) -> None:
        """Let what was said so far be where it is wanted, before anything rests on it."""
        if self.copier is not None:
            self.copier.copy()

    def span(self, *, ended: bool = False) -> LogSpan | None:
        """Say where in a shared log it lies; None where it is not shared."""
        if self.name is None or self.begin is None:
            return None
        end = os.fstat(self._shared).st_size if ended else None
        if end is not None and end < self.begin:  # somebody has emptied it
            return None
        return LogSpan(name=self.name, begin=self.begin, end=end)

    @property
    def _shared(self) -> int:
        return STANDARD_OUTPUT if self.descriptor is None else self.descriptor


class Seat:
    """What elements share that run one after the other.

    It is used from one thread.

    Parameters
    ----------
    batch : Batch
        What they belong to.
    how : Running
        As what.
    warm : bool
        Whether they share a process, too.
    """

    def __init__(self, batch: Batch, how: Running, *, warm: bool) -> None:
        self.batch = batch
        self.how = how
        self.worker = WarmWorker(self.environment) if warm else None
        self.progress_uri: str | None = None
        self._shared: tuple[str, TextIO | None] | None = None
        self._copier: LogCopier | None = None
        self._local = ExitStack()

    @cached_property
    def scratch(self) -> Path:
        """The folder for scratch folders, freed of leftovers once."""
        return scratch_folder(self.batch)

    def environment(self, threads: int) -> dict[str, str]:
        """Give the environment of a step's process, but for the variables of its element."""
        return {
            **os.environ,
            **{variable: str(threads) for variable in THREAD_VARIABLES},
            **self.batch.environment,
            "MUSTER_ROLE": "step",
        }

    @contextmanager
    def output_of(self, index: int, fence: Fence) -> Iterator[Output]:
        """Let what an element says go where its output belongs."""
        if self.batch.layout:
            yield self._share(index, fence)
            return
        path = storage.local_path(self.batch.log_uri(index, fence.attempt))
        if not self.how.own_logs or path is None:
            yield Output(log)
            return
        with _open_log(path) as file:
            yield Output(_logger_to(file, index), file.fileno(), path)

    def close(self) -> None:
        """End the process, and leave no word of progress behind."""
        if self.worker is not None:
            self.worker.close()
        if self.progress_uri is not None:
            try:
                storage.delete(self.progress_uri)
            except MusterError as error:
                log.warning("a word of progress stays: %s", error)
        if self._copier is not None:
            self._copier.close()
        if self._shared is not None and self._shared[1] is not None:
            self._shared[1].close()
        self._local.close()

    def _share(self, index: int, fence: Fence) -> Output:
        """Give an element its place in the log of this seat, which its first element names."""
        if self._shared is None:
            self._shared = self._find_log(index, fence)
        if self._shared is None:
            return Output(log)
        name, file = self._shared
        if file is None:
            return Output(log, name=name, begin=os.fstat(STANDARD_OUTPUT).st_size)
        begin = os.fstat(file.fileno()).st_size
        return Output(
            _logger_to(file, index), file.fileno(), name=name, begin=begin, copier=self._copier
        )

    def _find_log(self, index: int, fence: Fence) -> tuple[str, TextIO | None] | None:
        how = self.how
        if how.log is not None and how.workers == 1 and _is_output(self.batch, how.log):
            return how.log, None
        uri = self.batch.log_uri(index, fence.attempt)
        if not (how.own_logs or how.workers > 1):
            return None
        name, path = uri.rpartition("/")[2], storage.local_path(uri)
        wanted = uri if path is None else None
        if path is None:  # an object: it is written here
            prefix = scratch_prefix()
            folder = tempfile.TemporaryDirectory(prefix=prefix, dir=self.scratch)
            path = Path(self._local.enter_context(folder)) / name
        file = _open_log(path)
        if wanted is not None or how.echo:
            self._copier = LogCopier(path, wanted, STANDARD_OUTPUT if how.echo else None)
        return f"logs/{name}", file


def _is_output(batch: Batch, name: str) -> bool:
    """Make sure that a log is where the output of this process goes."""
    path = storage.local_path(storage.join(batch.work_uri, name))
    if path is None:
        return False
    try:
        there, ours = path.stat(), os.fstat(STANDARD_OUTPUT)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)


def _open_log(path: Path) -> TextIO:
    with storage.os_errors_at(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a", encoding="utf-8")


def _logger_to(file: TextIO, index: int) -> logging.Logger:
    handler = logging.StreamHandler(file)
    handler.setFormatter(make_formatter())
    logger = logging.getLogger(f"muster.element.{index}")
    logger.propagate = False
    logger.handlers[:] = [handler]
    return logger
