"""How the supervisor learns how far its elements are, and never pays for it.

Progress is looked for at most every few seconds a batch, in a few threads that all batches of this
process share; a pass of the supervisor waits for the answers a moment and no longer.  Progress
decides nothing: whatever goes wrong here, the batch goes on as if nobody had asked.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import ValidationError

from muster import storage
from muster.errors import ClaimLost, MissingInput, MusterError, one_line
from muster.jobs.running.eta import describe_progress
from muster.model.attempt import Progress
from muster.model.logs import read_words
from muster.store.progress import record_progress
from muster.store.records import AttemptState

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from muster.model.batch import Batch
    from muster.store.database import Database
    from muster.store.records import BatchRecord, Claim

READ_INTERVAL_S = 10.0
READ_PATIENCE_S = 2.0
TELL_INTERVAL_S = 60.0
TELL_STEP = 0.1

log = logging.getLogger(__name__)

_READERS = ThreadPoolExecutor(max_workers=8, thread_name_prefix="muster-progress")


@dataclass(frozen=True)
class _Running:
    """An attempt that runs, and where its word is to be looked for."""

    attempt_id: int
    name: str
    index: int
    number: int
    submission: str


class ProgressFollower:
    """Reads, records and tells how far the elements of one batch are.

    Parameters
    ----------
    db, claim
        Where it is recorded, and by what right.
    every_s : float
        How often it is looked for at most, in seconds.
    """

    def __init__(self, db: Database, claim: Claim, *, every_s: float = READ_INTERVAL_S) -> None:
        self._db = db
        self._claim = claim
        self._every_s = every_s
        self._due_s = 0.0
        self._reading: asyncio.Future[list[Progress | None]] | None = None
        self._asked: list[_Running] = []
        self._recorded: dict[int, datetime] = {}
        self._told: dict[int, tuple[float, float]] = {}

    async def follow(self, record: BatchRecord) -> None:
        """Look for the progress of what runs, where that is due.

        Raises
        ------
        ClaimLost
            When somebody else has taken the batch over.
        """
        try:
            await self._follow(record)
        except ClaimLost:
            raise
        except Exception as error:  # whatever it is, it is no business of the batch
            self._reading = None
            log.warning("progress is not recorded: %s", one_line(f"{error!r}"))

    async def _follow(self, record: BatchRecord) -> None:
        now_s = asyncio.get_running_loop().time()
        patience_s = 0.0
        if self._reading is None:
            running = _running(record)
            if not running or now_s < self._due_s:
                return
            self._due_s = now_s + self._every_s
            self._asked = running
            self._reading = asyncio.ensure_future(_read_all(record.batch, running))
            patience_s = READ_PATIENCE_S
        done, _ = await asyncio.wait({self._reading}, timeout=patience_s)
        if not done:
            return  # another pass will find the answers
        found, self._reading = self._reading.result(), None
        fresh = {
            asked: progress
            for asked, progress in zip(self._asked, found, strict=True)
            if progress is not None and progress.at != self._recorded.get(asked.attempt_id)
        }
        said = {asked.attempt_id: progress for asked, progress in fresh.items()}
        await asyncio.to_thread(record_progress, self._db, self._claim, said)
        self._recorded |= {attempt_id: progress.at for attempt_id, progress in said.items()}
        for asked, progress in fresh.items():
            self._tell(f"{record.batch.step} {asked.name}", asked.attempt_id, progress, now_s)

    def _tell(self, name: str, attempt_id: int, progress: Progress, now_s: float) -> None:
        """Log progress, where a minute and ten points have passed since it was last logged."""
        fraction, told_s = self._told.setdefault(attempt_id, (0.0, now_s))
        if now_s - told_s < TELL_INTERVAL_S or progress.fraction - fraction < TELL_STEP - 1e-9:
            return
        self._told[attempt_id] = (progress.fraction, now_s)
        told = describe_progress(progress.fraction, progress.message, progress.left_s)
        log.info("%s: %s", name, told)


def _running(record: BatchRecord) -> list[_Running]:
    keys = {submission.id: submission.key for submission in record.submissions}
    return [
        _Running(attempt.id, element.name, element.index, attempt.number, key)
        for element in record.elements
        for attempt in element.attempts
        if attempt.state is AttemptState.RUNNING and (key := keys.get(attempt.submission_id))
    ]


async def _read_all(batch: Batch, running: list[_Running]) -> list[Progress | None]:
    loop = asyncio.get_running_loop()
    if batch.layout:
        return await loop.run_in_executor(_READERS, read_words_of, batch, running)
    reads = (loop.run_in_executor(_READERS, read_progress, batch, asked) for asked in running)
    return await asyncio.gather(*reads)


def read_words_of(batch: Batch, running: Sequence[_Running]) -> list[Progress | None]:
    """Read the workers' words of these attempts, each None where there is none."""
    words = {(w.submission, w.index, w.attempt): w.progress for w in read_words(batch.work_uri)}
    names = [(asked.submission, asked.index, asked.number) for asked in running]
    return [_own(words.get(name), name) for name in names]


def _own(said: Progress | None, name: tuple[str, int, int]) -> Progress | None:
    if said is None or (said.submission, said.index, said.attempt) != name:
        return None
    return said


def read_progress(batch: Batch, asked: _Running) -> Progress | None:
    """Read the word of this very submission and attempt; None where there is none."""
    uri = batch.progress_uri(asked.index, asked.number)
    try:
        said = Progress.model_validate_json(storage.read_bytes(uri))
    except MissingInput:
        return None
    except (MusterError, ValidationError) as error:
        log.debug("not progress, so none: %s", one_line(f"{uri}: {error}"))
        return None
    return _own(said, (asked.submission, asked.index, asked.number))
