"""The one loop that knows a batch's life: look up, observe, record, decide, submit, wait, again.

It keeps nothing in memory that it needs: every pass reads the batch from the store and writes what
it learnt back, on the condition that it still holds the batch's claim.  It can therefore be stopped
anywhere and started again by anyone: an Airflow trigger, an Airflow task, the command line.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from muster.backends import open_backend
from muster.backends.contract import Wave
from muster.errors import InvalidInput, Transient
from muster.jobs.batch_end import BatchEnd, end_of
from muster.jobs.endings import make_ending, read_result, tell_ending
from muster.jobs.follow_progress import READ_INTERVAL_S, ProgressFollower
from muster.jobs.orders import write_orders
from muster.jobs.outcome import ALIVE, Observation, Outcome, Sighting, decide_outcome
from muster.jobs.retry import FREE, Again, BackOff, Stop, decide_retry
from muster.store import batches, claims
from muster.store.records import Attempt, AttemptState, Ending

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from muster.backends.contract import Backend
    from muster.jobs.model import Batch, Resources
    from muster.store.database import Database
    from muster.store.records import BatchRecord, Claim, ElementRecord, Submission

log = logging.getLogger(__name__)

T = TypeVar("T")

LONGEST_WAIT_S = 30.0


async def patiently(act: Callable[[], Awaitable[T]]) -> T:
    """Do something, and again after a while as long as something outside does not answer."""
    delay_s = 1.0
    while True:
        try:
            return await act()
        except Transient as error:
            log.warning("waiting %.0f s: %s", delay_s, error)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, LONGEST_WAIT_S)


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
    """

    def __init__(
        self,
        db: Database,
        backend: Backend,
        claim: Claim,
        *,
        back_off: BackOff | None = None,
        progress_every_s: float = READ_INTERVAL_S,
    ) -> None:
        self.db = db
        self.backend = backend
        self.claim = claim
        self.back_off = back_off or BackOff()
        self._progress = ProgressFollower(db, claim, every_s=progress_every_s)

    @classmethod
    async def take_over(
        cls,
        db: Database,
        batch_id: str,
        *,
        max_tries: int | None = None,
        open_backend: Callable[[str], Backend] = open_backend,
    ) -> Supervisor:
        """Take a batch over from whoever had it, with the backend that it was frozen with.

        Parameters
        ----------
        max_tries : int, optional
            As in :func:`muster.store.claims.take_claim`.
        open_backend : callable
            From a backend's name to a backend.

        Raises
        ------
        MissingInput
            When the store knows no such batch.
        """

        async def take() -> tuple[Claim, Batch]:
            claim = await asyncio.to_thread(claims.take_claim, db, batch_id, max_tries=max_tries)
            return claim, await asyncio.to_thread(batches.read_spec, db, batch_id)

        claim, batch = await patiently(take)
        return cls(db, open_backend(batch.backend), claim)

    async def run(self) -> BatchEnd:
        """Supervise until nothing retryable is left.

        Raises
        ------
        ClaimLost
            When somebody else has taken the batch over; nothing was cancelled.
        """
        while True:
            end = await patiently(self._pass)
            if end is not None:
                return end
            await asyncio.sleep(self.backend.poll_interval_s)

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
        await patiently(lambda: self._store(claims.request_cancel, by))
        return await self.run()

    async def _pass(self) -> BatchEnd | None:
        record: BatchRecord = await self._store(batches.read_batch)
        if record.submissions and self._why_over(record):
            record = await self._cancel_open(record)
        silent: Transient | None = None
        for submission in record.submissions:
            try:
                await self._follow(record, submission)
            except Transient as error:  # one that cannot be asked must not hide the others
                silent = error
        if silent is not None:
            raise silent
        if record.submissions:
            record = await self._store(batches.read_batch)
        end = await self._submit_or_end(record)
        if end is None:
            await self._progress.follow(record)
        return end

    # -- what is open ------------------------------------------------------------------------

    async def _follow(self, record: BatchRecord, submission: Submission) -> None:
        """Look at one open submission and record what has become of it."""
        open_attempts = _open_attempts(record, submission)
        wave = _wave_of(record, submission)
        reference = submission.reference
        if not submission.submitted:
            reference = await self.backend.find(wave)
            if reference is None:
                await self._submit_again(record, submission, wave)
                return
            log.info("found %s again after an interruption", submission.key)
            await self._store(batches.record_submitted, submission.id, reference)
        seen = await self.backend.observe(wave, reference or "")
        await self._record(record, submission, open_attempts, seen)

    async def _submit_again(self, record: BatchRecord, submission: Submission, wave: Wave) -> None:
        """Deal with what was intended and, as its key shows, was not submitted.

        Our own intent is carried out now.  Somebody else's may still be on its way, from a process
        that does not know yet that it was replaced: it is given up, and the next attempt, with a
        fence and a key of its own, makes it a superseded one should it arrive.
        """
        if submission.claim == self.claim.id and not submission.cancelled:
            await self._hand_over(submission.id, wave)
            return
        outcome = Outcome.CANCELLED if submission.cancelled else Outcome.SUPERSEDED
        message = f"intended as {submission.key}, and never submitted"
        attempts = _open_attempts(record, submission).values()
        await self._store(
            batches.record_endings, [Ending(a.id, outcome, message=message) for a in attempts]
        )

    async def _record(
        self,
        record: BatchRecord,
        submission: Submission,
        open_attempts: Mapping[int, Attempt],
        seen: Mapping[int, Observation],
    ) -> None:
        endings: list[Ending] = []
        running: dict[int, str | None] = {}
        back: list[int] = []
        missing: list[int] = []
        over = self._why_over(record)
        for index, attempt in open_attempts.items():
            look = seen.get(index, Observation(Sighting.UNKNOWN))
            if look.sighting in ALIVE:
                if look.sighting is Sighting.RUNNING and attempt.state is not AttemptState.RUNNING:
                    running[attempt.id] = look.host
                if attempt.missing_since is not None:
                    back.append(attempt.id)
                continue
            result = await self._in_thread(
                read_result, record.batch, submission.key, index, attempt
            )
            since = attempt.missing_since
            outcome = decide_outcome(
                look,
                result,
                cancelled_by_us=submission.cancelled,
                missing_for_s=(record.now - since).total_seconds() if since else 0.0,
                grace_s=self.backend.result_grace_s,
            )
            if outcome is Outcome.SUCCEEDED and submission.fingerprint != record.batch.fingerprint:
                outcome = Outcome.SUPERSEDED  # the batch was planned anew while it ran
            if outcome is not None:
                ending = make_ending(attempt, outcome, look, result)
                if outcome is Outcome.CANCELLED and over is not None:
                    ending = replace(ending, outcome=over[0], message=over[1])
                endings.append(ending)
            elif look.sighting is not Sighting.UNKNOWN:
                missing.append(attempt.id)
        await self._store(batches.record_running, running)
        await self._store(batches.record_seen, back)
        await self._store(batches.record_missing, missing)
        await self._store(batches.record_endings, endings)
        names = {a.id: e.name for e in record.elements for a in e.attempts}
        for ending in endings:
            tell_ending(f"{record.batch.step} {names[ending.attempt_id]}", ending)

    async def _cancel_open(self, record: BatchRecord) -> BatchRecord:
        """Cancel what is open, having said so in the store first; every pass until it has ended."""
        if not all(s.cancelled for s in record.submissions):
            await self._store(batches.record_cancelled)
            record = await self._store(batches.read_batch)
        for submission in record.submissions:
            wave = _wave_of(record, submission)
            await self.backend.cancel(wave, submission.reference)
            log.info("cancelled %s", submission.key)
        return record

    # -- what comes next ---------------------------------------------------------------------

    async def _submit_or_end(self, record: BatchRecord) -> BatchEnd | None:
        """Submit what is due; or, when nothing is open or will be, say how the batch ended."""
        due: dict[tuple[Resources, tuple[str, ...]], list[ElementRecord]] = defaultdict(list)
        waiting = bool(record.submissions)
        over = self._why_over(record)
        for element in record.elements:
            if element.state == Outcome.SUCCEEDED or _is_open(element):
                continue
            step = self._next_step(record, element)
            if isinstance(step, Stop) or over:
                continue
            ready_at = _ended_at(element, record) + timedelta(seconds=step.delay_s)
            if ready_at <= record.now:
                due[step.resources, _excluded_hosts(element)].append(element)
            else:
                waiting = True
        for (resources, hosts), elements in due.items():
            await self._submit(record, resources, hosts, elements)
        if due or waiting:
            return None
        if over:
            await self._store(batches.record_stopped, over[0].value, over[1])
            record = await self._store(batches.read_batch)
        return end_of(record.batch.id, record.elements)

    def _why_over(self, record: BatchRecord) -> tuple[Outcome, str] | None:
        """Say why nothing more may be submitted, as outcome and reason; None while it may."""
        if record.cancel_requested:
            return Outcome.CANCELLED, "cancelled"
        deadline_s = record.batch.deadline_s
        age_s = (record.now - record.generation_started_at).total_seconds()
        if deadline_s is not None and age_s > deadline_s:
            return Outcome.TIMED_OUT, f"the batch's deadline of {deadline_s} s has passed"
        return None

    def _next_step(self, record: BatchRecord, element: ElementRecord) -> Again | Stop:
        """Decide by this generation's attempts; with none, the element is simply due."""
        past = [a for a in element.attempts if a.generation == record.generation and a.outcome]
        if not past:
            resources = record.batch.resources
            return Again(resources=resources, delay_s=0.0)
        return decide_retry(
            [a.outcome for a in past if a.outcome is not None],
            past[-1].resources,
            record.batch.caps,
            back_off=self.back_off,
            seed=element.id,
        )

    async def _submit(
        self,
        record: BatchRecord,
        resources: Resources,
        hosts: tuple[str, ...],
        elements: Sequence[ElementRecord],
    ) -> None:
        """Commit the intent, set the fences, and hand the wave over."""
        batch = record.batch
        numbers = {e.index: 1 + max((a.number for a in e.attempts), default=0) for e in elements}
        submission_id, key = await self._store(
            batches.intend_submission,
            {
                e.id: (numbers[e.index], resources, batch.log_uri(e.index, numbers[e.index]))
                for e in elements
            },
        )
        await self._hand_over(submission_id, Wave(batch, key, numbers, resources, hosts))

    async def _hand_over(self, submission_id: int, wave: Wave) -> None:
        try:
            await self._in_thread(write_orders, wave)
            await self._store(claims.check_claim)
            reference = await self.backend.submit(wave)
        except InvalidInput as error:
            log.error("refused: %s", error)  # noqa: TRY400 - one line for people
            await self._store(batches.record_refused, submission_id, str(error))
            return
        await self._store(batches.record_submitted, submission_id, reference)
        log.info("submitted %s to pool %s as %s", _names(wave), wave.batch.pool, wave.key)

    # -- calls that block ----------------------------------------------------------------------

    async def _store(self, call: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.to_thread(call, self.db, self.claim, *arguments)

    async def _in_thread(self, call: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.to_thread(call, *arguments)


def _open_attempts(record: BatchRecord, submission: Submission) -> dict[int, Attempt]:
    """Return the attempts of a submission that have not ended, by element index."""
    return {
        e.index: a
        for e in record.elements
        for a in e.attempts
        if a.submission_id == submission.id and a.state is not AttemptState.ENDED
    }


def _wave_of(record: BatchRecord, submission: Submission) -> Wave:
    """Make the wave of an open submission again, as far as it has not ended."""
    attempts = _open_attempts(record, submission)
    members = [e for e in record.elements if e.index in attempts]
    resources = next((a.resources for a in attempts.values()), record.batch.resources)
    return Wave(
        batch=record.batch,
        key=submission.key,
        attempts={index: attempt.number for index, attempt in attempts.items()},
        resources=resources,
        excluded_hosts=sorted({host for e in members for host in _excluded_hosts(e)}),
    )


def _names(wave: Wave) -> str:
    names = [wave.batch.elements[index].name for index in sorted(wave.attempts)]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _is_open(element: ElementRecord) -> bool:
    return any(a.state is not AttemptState.ENDED for a in element.attempts)


def _ended_at(element: ElementRecord, record: BatchRecord) -> Any:
    ended = [a.ended_at for a in element.attempts if a.ended_at is not None]
    return max(ended, default=record.generation_started_at)


def _excluded_hosts(element: ElementRecord) -> tuple[str, ...]:
    hosts = {a.host for a in element.attempts if a.outcome in FREE and a.host}
    return tuple(sorted(hosts))
