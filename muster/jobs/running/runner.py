"""What runs inside a job: it works through elements, and each leaves one result file.

The elements that are named go one after the other, or so many at once; a job that is fed asks for
another whenever one has ended.  Those that run one after the other share a process that stays
warm.  A job ends before its walltime does: what would not end in time is left for another job, as
not begun.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from muster.errors import InvalidInput, MusterError
from muster.jobs.running.element import ElementRunner
from muster.jobs.running.seat import Running, Seat, Stop
from muster.model.fence import read_batch_file, read_fence, read_fences

if TYPE_CHECKING:
    from collections.abc import Iterator

    from muster.model.batch import Batch

log = logging.getLogger(__name__)

MARGIN_FACTOR = 1.2
MARGIN_S = 15.0
"""An element is begun where so many times the longest one, and so many seconds, are left."""
LONGEST_ORDER = 1024


def is_time_left(ends_at: float | None, longest_s: float, now: float) -> bool:
    """Tell whether a job should begin another element before its walltime ends.

    Parameters
    ----------
    ends_at : float or None
        When the walltime ends, in seconds since 1970; None where nobody says.
    longest_s : float
        How long the longest element has taken that is known, in seconds.
    now : float
        The present, in seconds since 1970.
    """
    return ends_at is None or now + MARGIN_FACTOR * longest_s + MARGIN_S <= ends_at


class _Orders:
    """The elements of a job, handed out to those that run them."""

    def __init__(self, indexes: list[int], feed: int | None) -> None:
        self._indexes: Iterator[int] = iter(indexes)
        self._lock = threading.Lock()
        self._feed = None if feed is None else socket.socket(fileno=feed)
        self._lines = self._feed.makefile("rb") if self._feed else None

    def next(self) -> int | None:
        """Give the next element that is to run; None when there is none."""
        with self._lock:
            index = next(self._indexes, None)
        if index is not None or self._lines is None:
            return index
        try:
            line = self._lines.readline(LONGEST_ORDER)
        except OSError:
            return None
        return int(line) if line.strip() else None

    def tell_ended(self, index: int, code: int) -> None:
        """Tell whoever feeds this job how an element has ended."""
        if self._feed is not None:
            try:
                self._feed.sendall(json.dumps({"ended": index, "code": code}).encode() + b"\n")
            except OSError as error:  # who has started it is gone: nobody gives another
                log.warning("nobody is told of the end: %s", error)

    def close(self) -> None:
        """Ask for nothing more."""
        if self._lines is not None and self._feed is not None:
            self._lines.close()
            self._feed.close()


class _Job:
    """Works through the elements of a job."""

    def __init__(self, batch: Batch, orders: _Orders, how: Running, stop: Stop) -> None:
        self.batch = batch
        self.orders = orders
        self.how = how
        self.stop = stop
        self.longest_s = 0.0
        self.code = os.EX_OK

    def work(self, *, warm: bool) -> None:
        """Run elements in this thread until none is left."""
        seat = Seat(self.batch, self.how, warm=warm)
        first = True
        try:
            while (index := self.orders.next()) is not None:
                code = self._run(seat, index, first=first)
                first = False
                self.code = max(self.code, code)
                self.orders.tell_ended(index, code)
        finally:
            seat.close()

    def _run(self, seat: Seat, index: int, *, first: bool) -> int:
        """Run an element; where not even its result can be written, the exit code says why."""
        try:
            check_index(self.batch, index)
            element = ElementRunner(seat, index, self.stop)
            if not first and self.stop():
                return element.leave("its job was told to stop before its turn")
            if not first and not is_time_left(self.how.ends_at, self.longest_s, time.time()):
                return element.leave("its job's walltime would have ended before it")
            code = element.run()
            self.longest_s = max(self.longest_s, element.seconds, element.longest_s or 0.0)
        except MusterError as error:
            log.error("%s", error)  # noqa: TRY400 - one line for people
            return error.exit_code
        return code


def check_index(batch: Batch, index: int) -> None:
    """Refuse an element that a batch does not have.

    Raises
    ------
    InvalidInput
        When there is none of that index.
    """
    if not 0 <= index < len(batch.elements):
        raise InvalidInput(
            "no such element",
            where=batch.uri,
            got=index,
            expected=f"0 … {len(batch.elements) - 1}",
        )


def run_elements(batch_uri: str, indexes: list[int] | None, how: Running) -> int:
    """Run elements of a batch inside a job, and return the worst exit code.

    Parameters
    ----------
    batch_uri : str
        Where batch.json lies.
    indexes : list of int or None
        Which elements; None runs all whose fence names this submission.
    how : Running
        As what, and how many at once.
    """
    batch = read_batch_file(batch_uri)
    if indexes is None:
        fences = read_fences(batch)
        indexes = [i for i, fence in fences.items() if fence.submission == how.submission]
    for index in indexes:
        check_index(batch, index)
    stop = Stop()

    def ask(*_: object) -> None:
        stop.asked = True

    workers = max(1, min(how.workers, len(indexes)))
    shared = len(indexes) > workers or how.feed is not None
    warm = shared and batch.target.launcher is None  # ranks end with their element
    orders = _Orders(indexes, how.feed)
    job = _Job(batch, orders, how, stop)
    previous = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        if workers == 1:
            job.work(warm=warm)
        else:
            with ThreadPoolExecutor(max_workers=workers) as pool:
                for ended in [pool.submit(job.work, warm=warm) for _ in range(workers)]:
                    ended.result()
    finally:
        orders.close()
        for number, handler in previous.items():
            signal.signal(number, handler)
    return job.code


__all__ = ["Running", "is_time_left", "read_batch_file", "read_fence", "run_elements"]
