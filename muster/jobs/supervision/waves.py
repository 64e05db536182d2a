"""Which attempts go together: what is open of a submission, and what is due for the next ones.

Pure functions of a batch's record.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from muster.jobs.supervision.retry import FREE, Again, BackOff, Stop, decide_retry
from muster.model.outcome import Outcome
from muster.model.wave import Wave
from muster.store.records import AttemptState

if TYPE_CHECKING:
    from datetime import datetime

    from muster.model.resources import Resources
    from muster.store.records import Attempt, BatchRecord, ElementRecord, Submission


@dataclass(frozen=True)
class Due:
    """Elements that may be submitted together now.

    Attributes
    ----------
    resources : Resources
        What each of them gets.
    excluded_hosts : tuple of str
        Where none of them must run again.
    elements : tuple of ElementRecord
        In the order of their index.
    """

    resources: Resources
    excluded_hosts: tuple[str, ...]
    elements: tuple[ElementRecord, ...]


def open_attempts(record: BatchRecord, submission: Submission) -> dict[int, Attempt]:
    """Return the attempts of a submission that have not ended, by element index."""
    return {
        e.index: a
        for e in record.elements
        for a in e.attempts
        if a.submission_id == submission.id and a.state is not AttemptState.ENDED
    }


def wave_of(record: BatchRecord, submission: Submission) -> Wave:
    """Make the wave of an open submission again, as far as it has not ended."""
    attempts = open_attempts(record, submission)
    members = [e for e in record.elements if e.index in attempts]
    return Wave(
        batch=record.batch,
        key=submission.key,
        attempts={index: attempt.number for index, attempt in attempts.items()},
        resources=next((a.resources for a in attempts.values()), record.batch.resources),
        excluded_hosts=sorted({host for e in members for host in excluded_hosts(e)}),
        submitted=tuple(
            e.index
            for e in record.elements
            if any(a.submission_id == submission.id for a in e.attempts)
        ),
        intended_at=submission.intended_at,
        submitted_at=submission.submitted_at,
        longest_s=find_longest_s(record),
    )


def find_due(record: BatchRecord, back_off: BackOff) -> tuple[list[Due], bool]:
    """Find what may be submitted now, and whether anything is to be later.

    Elements go together that ask for the same and must keep away from the same hosts, at most
    ``array_size`` of the batch in one wave.
    """
    due: dict[tuple[Resources, tuple[str, ...]], list[ElementRecord]] = defaultdict(list)
    later = False
    for element in record.elements:
        if element.state == Outcome.SUCCEEDED or is_open(element):
            continue
        step = _next_step(record, element, back_off)
        if isinstance(step, Stop):
            continue
        if _ended_at(element, record) + timedelta(seconds=step.delay_s) <= record.now:
            due[step.resources, excluded_hosts(element)].append(element)
        else:
            later = True
    most = record.batch.array_size or len(record.elements) or 1
    return [
        Due(*asked, tuple(elements[first : first + most]))
        for asked, elements in due.items()
        for first in range(0, len(elements), most)
    ], later


def next_number(element: ElementRecord) -> int:
    """Return the number of an element's next attempt."""
    return 1 + max((a.number for a in element.attempts), default=0)


def is_open(element: ElementRecord) -> bool:
    """Tell whether an attempt of the element has not ended."""
    return any(a.state is not AttemptState.ENDED for a in element.attempts)


def excluded_hosts(element: ElementRecord) -> tuple[str, ...]:
    """Name the hosts that failed the element through no fault of its own."""
    hosts = {a.host for a in element.attempts if a.outcome in FREE and a.host}
    return tuple(sorted(hosts))


def name_elements(wave: Wave) -> str:
    """Name the first few elements of a wave, and count the others."""
    names = [wave.batch.elements[index].name for index in sorted(wave.attempts)]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _next_step(record: BatchRecord, element: ElementRecord, back_off: BackOff) -> Again | Stop:
    """Decide by this generation's attempts; with none that began, the element is simply due."""
    past = [
        a
        for a in element.attempts
        if a.generation == record.generation
        and a.outcome not in (None, Outcome.NOT_BEGUN)  # nothing was tried: it costs nothing
    ]
    if not past:
        return Again(resources=record.batch.resources_of(element.index), delay_s=0.0)
    return decide_retry(
        [a.outcome for a in past if a.outcome is not None],
        past[-1].resources,
        record.batch.caps,
        back_off=back_off,
        policy=record.batch.retries,
        seed=element.id,
    )


def find_longest_s(record: BatchRecord) -> float | None:
    """Say how long the longest attempt of a batch that did well has taken, in seconds."""
    return max(
        (
            attempt.seconds
            for element in record.elements
            for attempt in element.attempts
            if attempt.outcome is Outcome.SUCCEEDED and attempt.seconds is not None
        ),
        default=None,
    )


def _ended_at(element: ElementRecord, record: BatchRecord) -> datetime:
    ended = [a.ended_at for a in element.attempts if a.ended_at is not None]
    return max(ended, default=record.generation_started_at)
