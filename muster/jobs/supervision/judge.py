"""Judge a submission's attempts from one observation, their results and our own cancellations.

The judgement is pure; the supervisor records it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from pydantic import ValidationError

from muster import storage
from muster.errors import InvalidInput, MissingInput, one_line
from muster.jobs.supervision.decide_outcome import decide_outcome
from muster.jobs.supervision.waves import open_attempts
from muster.model.attempt import Result
from muster.model.logs import render_log_uri
from muster.model.outcome import ALIVE, TERMINATED, JobState, Outcome
from muster.store.records import AttemptEnd, AttemptState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from muster.model.batch import Batch
    from muster.model.outcome import Observation
    from muster.store.records import Attempt, BatchRecord, Submission

log = logging.getLogger(__name__)

END_TOLD_S = 60.0
"""A scheduler that has not noticed the end of an attempt so long after its result never may."""


@dataclass
class Findings:
    """What is to be recorded of a submission's attempts.

    Attributes
    ----------
    running : dict of int to str or None
        Attempts that were first seen running: id → host.
    back : list of int
        Attempts that seemed to be gone and are not.
    missing : list of int
        Attempts that have ended or gone without a result so far.
    ends : list of AttemptEnd
        How attempts have ended.
    """

    running: dict[int, str | None] = field(default_factory=dict)
    back: list[int] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    ends: list[AttemptEnd] = field(default_factory=list)

    @property
    def any(self) -> bool:
        """Whether anything is to be recorded."""
        return bool(self.running or self.back or self.missing or self.ends)


def judge_attempts(
    record: BatchRecord,
    submission: Submission,
    looks: Mapping[int, Observation],
    results: Mapping[int, Result | None],
    *,
    over: tuple[Outcome, str] | None,
    grace_s: float,
) -> Findings:
    """Judge the open attempts of a submission.

    Parameters
    ----------
    looks : mapping of int to Observation
        What was seen of each element.
    results : mapping of int to Result or None
        The results that there are, by element.
    over : tuple of Outcome and str, or None
        Why nothing more of the batch may run, where that is so.
    grace_s : float
        How long a result may lag behind the end of its job, in seconds.
    """
    found = Findings()
    fingerprint: str | None = None  # of the whole batch, so once at most
    for index, attempt in open_attempts(record, submission).items():
        look, result = looks[index], results.get(index)
        if look.state in ALIVE and not _has_long_ended(record, result, grace_s):
            if look.state is JobState.RUNNING and attempt.state is not AttemptState.RUNNING:
                found.running[attempt.id] = look.host
            if attempt.missing_since is not None:
                found.back.append(attempt.id)
            continue
        since = attempt.missing_since
        outcome = decide_outcome(
            look,
            result,
            cancelled_by_us=submission.cancelled,
            missing_for_s=(record.now - since).total_seconds() if since else 0.0,
            grace_s=grace_s,
        )
        if outcome is Outcome.SUCCEEDED:
            fingerprint = fingerprint or record.batch.fingerprint
            if submission.fingerprint != fingerprint:
                outcome = Outcome.SUPERSEDED  # the batch was planned anew while it ran
        if outcome is not None:
            end = make_attempt_end(record.batch, attempt, outcome, look, result)
            if outcome is Outcome.CANCELLED and over is not None:
                end = replace(end, outcome=over[0], message=over[1])
            found.ends.append(end)
        elif look.state is not JobState.UNKNOWN:
            found.missing.append(attempt.id)
    return found


def _has_long_ended(record: BatchRecord, result: Result | None, grace_s: float) -> bool:
    """Tell whether an attempt has ended that the scheduler calls alive.

    A controller that is killed soon after it was told forgets that, and is told by nobody.
    """
    if result is None or result.outcome in (TERMINATED, Outcome.NOT_BEGUN):
        return False
    ended_at = result.started_at + timedelta(seconds=result.seconds)
    return (record.now - ended_at).total_seconds() > max(grace_s, END_TOLD_S)


def read_results(
    batch: Batch, key: str, attempts: Mapping[int, Attempt]
) -> dict[int, Result | None]:
    """Read the results of a submission's attempts, by element index."""
    return {i: read_result(batch, key, i, attempt) for i, attempt in attempts.items()}


def read_result(batch: Batch, key: str, index: int, attempt: Attempt) -> Result | None:
    """Read the result of this very submission and attempt; None where there is none."""
    uri = batch.result_uri(index, attempt.number)
    try:
        result = Result.model_validate_json(storage.read_bytes(uri))
    except MissingInput:
        return None
    except (InvalidInput, ValidationError) as error:
        log.error("not a result, so none: %s", one_line(f"{uri}: {error}"))  # noqa: TRY400
        return None
    if result.submission != key or result.attempt != attempt.number or result.index != index:
        return None
    return result


def make_attempt_end(
    batch: Batch, attempt: Attempt, outcome: Outcome, look: Observation, result: Result | None
) -> AttemptEnd:
    """Put together what is known of how an attempt ended."""
    if result is None:
        return AttemptEnd(
            attempt_id=attempt.id,
            outcome=outcome,
            exit_code=look.exit_code,
            signal=look.signal,
            host=look.host,
            seconds=look.seconds,
            started_at=look.started_at,
            message=look.message or f"no result; the backend says {look.state.value}",
        )

    return AttemptEnd(
        attempt_id=attempt.id,
        outcome=outcome,
        exit_code=result.exit_code,
        signal=result.signal,
        host=result.host,
        seconds=result.seconds,
        max_rss_mib=result.max_rss_mib,
        error_class=result.error_class,
        message=result.message,
        facts=result.facts,
        started_at=result.started_at,
        artifacts=result.artifacts if outcome is Outcome.SUCCEEDED else (),
        log_uri=None if result.log is None else render_log_uri(batch.work_uri, result.log),
    )


def log_end(name: str, end: AttemptEnd, *, asked: bool = False) -> None:
    """Log how an attempt ended, in one line; at level DEBUG where it was asked to end."""
    took = f" after {end.seconds:.1f} s" if end.seconds is not None else ""
    peak = f", peak {end.max_rss_mib:.0f} MiB" if end.max_rss_mib is not None else ""
    why = f": {end.message}" if end.message else ""
    fine = end.outcome in (Outcome.SUCCEEDED, Outcome.NOT_BEGUN)
    level = logging.DEBUG if asked else logging.INFO if fine else logging.WARNING
    log.log(level, "%s %s%s%s%s", name, end.outcome.value, took, peak, why)
