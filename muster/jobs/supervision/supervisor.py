"""The one loop that knows a batch's life: look up, observe, record, decide, submit, wait, again.

It keeps nothing in memory that it needs: every pass reads the batch from the store and writes what
it learnt back, on the condition that it still holds the batch's claim.  It can therefore be stopped
anywhere and started again by anyone: an Airflow trigger, an Airflow task, the command line.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from muster.backends.registry import BACKENDS
from muster.errors import InvalidInput, Transient
from muster.jobs.supervision.batch_end import BatchEnd, end_of, find_stop_reason
from muster.jobs.supervision.follow_logs import LogFollower
from muster.jobs.supervision.follow_progress import READ_INTERVAL_S, ProgressFollower
from muster.jobs.supervision.judge import judge_attempts, log_end, read_results
from muster.jobs.supervision.retry import BackOff
from muster.jobs.supervision.retry_transient import retry_while_transient
from muster.jobs.supervision.waves import (
    find_due,
    find_longest_s,
    name_elements,
    next_number,
    open_attempts,
    wave_of,
)
from muster.model.fence import write_fences
from muster.model.outcome import JobState, Observation, Outcome
from muster.model.wave import Wave
from muster.store import batches, claims
from muster.store.records import AttemptEnd

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from muster.backends import Backends
    from muster.backends.contract import Backend
    from muster.jobs.supervision.waves import Due
    from muster.model.batch import Batch
    from muster.model.wave import RequiredEnd
    from muster.store.database import Database
    from muster.store.records import Attempt, BatchRecord, Claim, Submission

log = logging.getLogger(__name__)

T = TypeVar("T")

SIGN_OF_LIFE_S = 60.0
# Of their own: where files are slow, what is asked of the store must not wait behind them.
_FILES = ThreadPoolExecutor(max_workers=8, thread_name_prefix="muster-files")


class Supervisor:
    """Brings one batch to its end.

    Parameters
    ----------
    db : Database
        The store.
    backend : Backend
        The batch's own backend; batches that share it share what it has open.
    claim : Claim
        What entitles this supervisor; ClaimLost ends it as soon as somebody else has one.
    back_off : BackOff
        Delays between attempts.
    progress_every_s : float
        How often the progress of what runs is looked for at most, in seconds.
    tell_logs : bool
        Whether the elements' own output is told in this process's log.
    """

    def __init__(
        self,
        db: Database,
        backend: Backend,
        claim: Claim,
        *,
        back_off: BackOff | None = None,
        progress_every_s: float = READ_INTERVAL_S,
        tell_logs: bool = False,
    ) -> None:
        self.db = db
        self.backend = backend
        self.claim = claim
        self.back_off = back_off or BackOff()
        self._batch: Batch | None = None  # held, so that no pass has to parse it again
        self._progress = ProgressFollower(db, claim, every_s=progress_every_s)
        self._logs = LogFollower(db, claim, backend) if tell_logs else None

    @classmethod
    async def take_over(
        cls,
        db: Database,
        batch_id: str,
        backends: Backends,
        *,
        max_tries: int | None = None,
        fresh: bool = False,
        tell_logs: bool = False,
    ) -> Supervisor:
        """Take a batch over from whoever had it, with the backend that it was frozen with.

        Parameters
        ----------
        backends : Backends
            What opens the batch's backend.
        max_tries, fresh
            As in :func:`muster.store.claims.take_claim`.
        tell_logs : bool
            Whether the elements' own output is told in this process's log.

        Raises
        ------
        MissingInput
            When the store knows no such batch.
        """

        async def take() -> tuple[Claim, Batch]:
            claim = await asyncio.to_thread(
                claims.take_claim, db, batch_id, max_tries=max_tries, fresh=fresh
            )
            return claim, await asyncio.to_thread(batches.read_spec, db, batch_id)

        claim, batch = await retry_while_transient(take)
        return cls(db, backends.open(batch), claim, tell_logs=tell_logs)

    async def run(self) -> BatchEnd:
        """Supervise until nothing retryable is left.

        Raises
        ------
        ClaimLost
            When somebody else has taken the batch over; nothing was cancelled.
        """
        while True:
            end = await retry_while_transient(self._pass, self._tell_degraded)
            if end is not None:
                return end
            with contextlib.suppress(TimeoutError):  # a heartbeat now and then
                async with asyncio.timeout(SIGN_OF_LIFE_S):
                    await self.backend.wait_for_change()

    async def cancel(self, by: str) -> BatchEnd:
        """End everything the batch has open, verified and recorded.

        What ended by itself before is recorded as it ended.

        Parameters
        ----------
        by : {"kill", "person", "reconcile"}
            Who asks for it.

        Raises
        ------
        ClaimLost
            When this supervisor no longer has the say; nothing was cancelled then.
        """
        await retry_while_transient(lambda: self._store(claims.request_cancel, by))
        return await self.run()

    async def look(self) -> None:
        """Record what has become of all that is open, and submit nothing.

        Raises
        ------
        Transient
            When not everything could be asked.
        ClaimLost
            When somebody else has taken the batch over.
        """
        record = await self._store(batches.read_batch)
        await self._follow_all(record)
        if record.degraded != self.backend.degraded_reason:
            await self._store(batches.record_degraded, self.backend.degraded_reason)

    async def _tell_degraded(self, error: Transient) -> None:
        """Show in the store what the batch waits for; where that does not answer, nobody sees."""
        with contextlib.suppress(Transient):
            await self._store(batches.record_degraded, str(error))

    async def _pass(self) -> BatchEnd | None:
        record: BatchRecord = await self._store(batches.read_batch)
        self._batch = record.batch
        if record.submissions and find_stop_reason(record):
            record = await self._cancel_open(record)
        if record.submissions and await self._follow_all(record):
            record = await self._store(batches.read_batch)
        end = await self._submit_or_end(record)
        if record.degraded != self.backend.degraded_reason:
            await self._store(batches.record_degraded, self.backend.degraded_reason)
        if self._logs is not None:
            await self._logs.follow(record, at_the_end=end is not None)
        if end is None:
            await self._progress.follow(record)
        return end

    # -- what is open ------------------------------------------------------------------------

    async def _follow_all(self, record: BatchRecord) -> bool:
        """Look at all that is open; tell whether anything was recorded."""
        silent: Transient | None = None
        news = False
        for submission in record.submissions:
            try:
                news |= await self._follow(record, submission)
            except Transient as error:  # one that cannot be asked must not hide the others
                silent = error
        if silent is not None:
            raise silent
        return news

    async def _follow(self, record: BatchRecord, submission: Submission) -> bool:
        """Look at one open submission and record what has become of it, if anything has."""
        wave = wave_of(record, submission)
        reference = submission.reference
        if not submission.submitted:
            reference = await self.backend.find(wave)
            if reference is None:
                await self._submit_again(record, submission, wave)
                return True
            log.info("found %s again after an interruption", submission.key)
            await self._store(batches.record_submitted, submission.id, reference)
        seen = await self.backend.observe(wave, reference or "")
        attempts = open_attempts(record, submission)
        return await self._record(record, submission, attempts, seen) or not submission.submitted

    async def _submit_again(self, record: BatchRecord, submission: Submission, wave: Wave) -> None:
        """Deal with what was intended and, as its key shows, was not submitted.

        Our own intent is carried out now.  Somebody else's may still be on its way, from a process
        that does not know yet that it was replaced: it is given up, and the next attempt, with a
        fence and a key of its own, makes it a superseded one should it arrive.
        """
        if submission.claim == self.claim.id and not submission.cancelled:
            await self.hand_over(submission.id, wave)
            return
        # Should it arrive, its fences must not name it any more.
        nobody = replace(wave, key=f"{wave.key}.given-up")
        await self._in_thread(write_fences, nobody)
        outcome = Outcome.CANCELLED if submission.cancelled else Outcome.SUPERSEDED
        message = f"intended as {submission.key}, and never submitted"
        attempts = open_attempts(record, submission).values()
        await self._store(
            batches.record_ends, [AttemptEnd(a.id, outcome, message=message) for a in attempts]
        )

    async def _record(
        self,
        record: BatchRecord,
        submission: Submission,
        attempts: Mapping[int, Attempt],
        seen: Mapping[int, Observation],
    ) -> bool:
        looks = {i: seen.get(i, Observation(JobState.UNKNOWN)) for i in attempts}
        begun = {i: a for i, a in attempts.items() if looks[i].state is not JobState.WAITING}
        results = await self._in_thread(read_results, record.batch, submission.key, begun)
        found = judge_attempts(
            record,
            submission,
            looks,
            results,
            over=find_stop_reason(record),
            grace_s=self.backend.result_grace_s,
        )
        await self._store(batches.record_running, found.running)
        await self._store(batches.record_seen, found.back)
        await self._store(batches.record_missing, found.missing)
        await self._store(batches.record_ends, found.ends)
        names = {a.id: e.name for e in record.elements for a in e.attempts}
        for end in found.ends:
            # What was asked to end needs no line an element: whoever asked is told the number.
            asked = submission.cancelled and end.outcome is Outcome.CANCELLED
            log_end(f"{record.batch.step} {names[end.attempt_id]}", end, asked=asked)
        return found.any

    async def _cancel_open(self, record: BatchRecord) -> BatchRecord:
        """Cancel what is open, having said so in the store first; every pass until it has ended."""
        if not all(s.cancelled for s in record.submissions):
            await self._store(batches.record_cancelled)
            record = await self._store(batches.read_batch)
        for submission in record.submissions:
            wave = wave_of(record, submission)
            await self.backend.cancel(wave, submission.reference)
            log.debug("cancelled %s", submission.key)
        return record

    # -- what comes next ---------------------------------------------------------------------

    async def _submit_or_end(self, record: BatchRecord) -> BatchEnd | None:
        """Submit what is due; or, when nothing is open or will be, say how the batch ended."""
        over = find_stop_reason(record)
        due, later = ([], False) if over else find_due(record, self.back_off)
        for group in due:
            await self._submit(record, group)
        if due or later or record.submissions:
            return None
        if over:
            await self._store(batches.record_stopped, over[0].value, over[1])
            record = await self._store(batches.read_batch)
        return end_of(record.batch.id, record.elements)

    async def _submit(self, record: BatchRecord, due: Due) -> None:
        """Submit what is due as one wave, as far as there is room."""
        intended = await self.intend(record, due)
        if intended is not None:
            await self.hand_over(*intended)

    async def intend(
        self,
        record: BatchRecord,
        due: Due,
        depends_on: Mapping[RequiredEnd, Sequence[str]] | None = None,
    ) -> tuple[int, Wave] | None:
        """Commit the intent to submit what is due, as far as there is room.

        Parameters
        ----------
        depends_on : mapping of {"ok", "any"} to sequence of str, optional
            As in :class:`muster.model.wave.Wave`.

        Returns
        -------
        tuple of int and Wave, or None
            The submission's id and what is to be handed over; None where there is no room.
        """
        batch = record.batch
        elements = due.elements[: await self.backend.free_slots(batch)]
        if not elements:
            return None
        numbers = {e.index: next_number(e) for e in elements}
        submission_id, key = await self._store(
            batches.intend_submission,
            {
                e.id: (numbers[e.index], due.resources, batch.log_uri(e.index, numbers[e.index]))
                for e in elements
            },
        )
        wave = Wave(
            batch,
            key,
            numbers,
            due.resources,
            due.excluded_hosts,
            depends_on=depends_on or {},
            longest_s=find_longest_s(record),
        )
        return submission_id, wave

    async def hand_over(self, submission_id: int, wave: Wave) -> None:
        """Set the fences, submit a wave that is intended, and record what has become of it.

        Raises
        ------
        Transient
            When that is not known: the wave is to be looked for before it is handed over again.
        ClaimLost
            When somebody else has taken the batch over.
        """
        try:
            await self._in_thread(write_fences, wave)
            await self._wait_for_turn()
            await self._store(claims.check_claim)  # the turn may have taken its time to come
            reference = await self.backend.submit(wave)
        except InvalidInput as error:
            log.error("refused: %s", error)  # noqa: TRY400 - one line for people
            await self._store(batches.record_refused, submission_id, str(error))
            return
        await self._store(batches.record_submitted, submission_id, reference)
        batch = wave.batch
        job = f", job {reference}" if BACKENDS[batch.backend].names_jobs else ""
        log.info("submitted %s to pool %s as %s%s", name_elements(wave), batch.pool, wave.key, job)

    async def _wait_for_turn(self) -> None:
        """Wait until this wave may be submitted, and tell meanwhile that somebody is there."""
        turn = asyncio.ensure_future(self.backend.acquire_submit_slot())
        try:
            while not (await asyncio.wait({turn}, timeout=SIGN_OF_LIFE_S))[0]:
                await self._store(claims.record_heartbeat)
        finally:
            turn.cancel()
        await turn

    # -- calls that block ----------------------------------------------------------------------

    async def _store(self, call: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.to_thread(call, self.db, self.claim, *arguments)

    async def _in_thread(self, call: Callable[..., T], *arguments: Any) -> T:
        run = contextvars.copy_context().run
        return await asyncio.get_running_loop().run_in_executor(_FILES, run, call, *arguments)
