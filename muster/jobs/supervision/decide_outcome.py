"""Decide why an attempt ended: one pure function of what is known, and never a guess.

The attempt's own result file is believed first: it is written last, atomically, and names its
submission.  Without one, the scheduler's word decides.  What cannot be told stays undecided (None)
and is asked again; a job that queue and accounting have forgotten is lost after a grace period.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from muster.model.outcome import (
    ALIVE,
    EXIT_CODES,
    TERMINATED,
    JobState,
    Observation,
    Outcome,
    outcome_of_signal,
)

if TYPE_CHECKING:
    from muster.model.attempt import Result

CANCELLED_GRACE_S = 10.0
"""How long a result is waited for of what was cancelled: most of it never began."""

_ASK_SCHEDULER = frozenset({TERMINATED, Outcome.NOT_BEGUN})
"""Words of a runner that leave the reason to the scheduler."""

_SAID_BY_SCHEDULER: dict[JobState, Outcome] = {
    JobState.OUT_OF_MEMORY: Outcome.OUT_OF_MEMORY,
    JobState.TIMED_OUT: Outcome.TIMED_OUT,
    JobState.NODE_FAILED: Outcome.NODE_FAILED,
    JobState.PREEMPTED: Outcome.PREEMPTED,
    JobState.CANCELLED: Outcome.CANCELLED,
    JobState.ORPHANED: Outcome.MISSING_INPUT,
    JobState.REFUSED: Outcome.INVALID_INPUT,
}


def decide_outcome(
    seen: Observation,
    result: Result | None,
    *,
    cancelled_by_us: bool,
    missing_for_s: float,
    grace_s: float,
) -> Outcome | None:
    """Decide why an attempt ended, or None while that cannot be told.

    Parameters
    ----------
    seen : Observation
        The backend's word.
    result : Result or None
        The result file of this very submission and attempt; None where there is none yet.
    cancelled_by_us : bool
        Whether we asked the scheduler to cancel it.
    missing_for_s : float
        How long the job has been ended or gone without a result, in seconds.
    grace_s : float
        How long a result may lag behind the end of its job, in seconds.
    """
    if result is not None and result.outcome not in _ASK_SCHEDULER:
        return Outcome(result.outcome)
    if seen.state in ALIVE or seen.state is JobState.UNKNOWN:
        return None
    if cancelled_by_us:
        grace_s = min(grace_s, CANCELLED_GRACE_S)
    if result is None and missing_for_s < grace_s:
        return None  # its result may still be on its way
    if cancelled_by_us:
        return Outcome.CANCELLED
    if result is not None and result.outcome is Outcome.NOT_BEGUN:
        # Whoever has cancelled its job meant it, too.
        return Outcome.CANCELLED if seen.state is JobState.CANCELLED else Outcome.NOT_BEGUN
    if seen.state in _SAID_BY_SCHEDULER:
        return _SAID_BY_SCHEDULER[seen.state]
    if seen.state is JobState.FAILED:
        if result is not None:  # told to stop, by somebody who left no reason
            return Outcome.TRANSIENT
        return _outcome_of_exit(seen)
    # COMPLETED or GONE: nothing but the result file could prove a success
    return Outcome.TRANSIENT if result is not None else Outcome.LOST


def _outcome_of_exit(seen: Observation) -> Outcome:
    signal = seen.signal or max(0, (seen.exit_code or 0) - 128)  # as a shell tells it
    if signal:
        return outcome_of_signal(signal)
    return EXIT_CODES.get(seen.exit_code or 0, Outcome.SOFTWARE_ERROR)
