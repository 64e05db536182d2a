"""How elements' output reaches the log of who supervises them, while they run.

By byte offset, and the offset is in the store: whoever takes a batch over goes on where the last
one stopped.  It is committed before the lines are told, on the condition of the claim, so that two
supervisors never tell the same lines.  What is told is bounded; the files are kept whole.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from muster.errors import ClaimLost, one_line
from muster.model.logs import log_of
from muster.model.outcome import Outcome
from muster.store.batches import record_told
from muster.store.records import AttemptState

if TYPE_CHECKING:
    from muster.backends.contract import Backend
    from muster.store.database import Database
    from muster.store.records import Attempt, BatchRecord, Claim, ElementRecord

READ_INTERVAL_S = 10.0
ATTEMPT_BYTES = 64 * 1024
PASS_BYTES = 256 * 1024
BATCH_BYTES = 1024 * 1024
LINE_CHARACTERS = 1000

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Log:
    """The output of one attempt, as far as it was told."""

    element: ElementRecord
    attempt: Attempt

    @property
    def ended(self) -> bool:
        return self.attempt.state is AttemptState.ENDED

    @property
    def failed(self) -> bool:
        return self.attempt.outcome not in (None, Outcome.SUCCEEDED)

    @property
    def name(self) -> str:
        return f"{self.element.name}, attempt {self.attempt.number}"


class LogFollower:
    """Tells the output of one batch's elements.

    Parameters
    ----------
    db, claim
        Where it is recorded how far it was told, and by what right.
    backend : Backend
        What reads it.
    every_s : float
        How often it is looked for at most, in seconds.
    """

    def __init__(
        self, db: Database, claim: Claim, backend: Backend, *, every_s: float = READ_INTERVAL_S
    ) -> None:
        self._db = db
        self._claim = claim
        self._backend = backend
        self._every_s = every_s
        self._due_s = 0.0
        self._said: str | None = None  # why they could not be followed
        self._whole: set[int] = set()  # attempts that have ended and were told to their end

    async def follow(self, record: BatchRecord, *, at_the_end: bool = False) -> None:
        """Tell what is new, failing elements first.

        Raises
        ------
        ClaimLost
            When somebody else has taken the batch over.
        """
        now_s = asyncio.get_running_loop().time()
        if now_s < self._due_s and not at_the_end:
            return
        self._due_s = now_s + self._every_s
        try:
            await self._tell_all(record)
        except ClaimLost:
            raise
        except Exception as error:  # a log that cannot be read is no business of the batch
            said = one_line(f"{error!r}")
            if said != self._said:
                log.warning("logs are not followed: %s", said)
                self._said = said

    async def _tell_all(self, record: BatchRecord) -> None:
        left = BATCH_BYTES - sum(a.log_told for e in record.elements for a in e.attempts)
        left = min(left, PASS_BYTES)
        for found in self._find_logs(record):
            if left <= 0:
                return
            left -= await self._tell(record, found, min(left, ATTEMPT_BYTES))

    def _find_logs(self, record: BatchRecord) -> list[_Log]:
        """List this generation's logs that may hold something new, failed attempts first."""
        logs = [
            _Log(element, attempt)
            for element in record.elements
            for attempt in element.attempts
            if attempt.generation == record.generation
            and attempt.id not in self._whole
            and attempt.log_told < ATTEMPT_BYTES
            and (attempt.state in (AttemptState.RUNNING, AttemptState.ENDED))
        ]
        return sorted(logs, key=lambda found: not found.failed)

    async def _tell(self, record: BatchRecord, found: _Log, most: int) -> int:
        """Tell what is new of one log; return how many bytes that was."""
        attempt = found.attempt
        rest = ATTEMPT_BYTES - attempt.log_told
        most = min(most, rest)
        new = await self._backend.read_log(
            record.batch, found.element.index, attempt.number, attempt.log_told, most
        )
        if found.ended and len(new) < most:
            self._whole.add(attempt.id)
        elif len(new) < rest:  # a line is told when it is whole, except where the telling ends
            new = new[: new.rfind(b"\n") + 1] or (new if len(new) == most else b"")
        if not new:
            return 0
        told = attempt.log_told + len(new)
        await asyncio.to_thread(record_told, self._db, self._claim, {attempt.id: told})
        for line in new.decode("utf-8", "replace").splitlines():
            log.info("%s | %s", found.name, line[:LINE_CHARACTERS])
        if told >= ATTEMPT_BYTES:
            part = log_of(record.batch, found.element.index, attempt.number)
            log.info("%s | … and more in %s", found.name, part.uri)
            self._whole.add(attempt.id)
        return len(new)
