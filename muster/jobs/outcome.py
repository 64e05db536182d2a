"""Why an attempt ended: one pure function of what is known, and never a guess.

The attempt's own result file is believed first: it is written last, atomically, and names its
submission.  Without one, the scheduler's word decides.  What nobody can tell stays undecided
(None) and is asked again; what everybody has forgotten is lost after a grace period.
"""

from __future__ import annotations

import os
import signal as signals
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datetime import datetime

    from muster.jobs.model import Result


class Outcome(StrEnum):
    """Why an attempt ended."""

    SUCCEEDED = "succeeded"
    MISSING_INPUT = "missing_input"
    INVALID_INPUT = "invalid_input"
    SOFTWARE_ERROR = "software_error"
    TRANSIENT = "transient"
    OUT_OF_MEMORY = "out_of_memory"
    TIMED_OUT = "timed_out"
    NODE_FAILED = "node_failed"
    PREEMPTED = "preempted"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"
    LOST = "lost"


TERMINATED: Final = "terminated"
"""The runner's word for "I was told to stop, ask the scheduler why"; not an outcome."""

EXIT_CODES: dict[int, Outcome] = {
    os.EX_DATAERR: Outcome.INVALID_INPUT,
    os.EX_NOINPUT: Outcome.MISSING_INPUT,
    os.EX_SOFTWARE: Outcome.SOFTWARE_ERROR,
    os.EX_TEMPFAIL: Outcome.TRANSIENT,
}
"""sysexits.h codes that a runner ends with → outcome."""

EXIT_TERMINATED = 128 + signals.SIGTERM
CANCELLED_GRACE_S = 10.0
"""How long a result is waited for of what was cancelled: most of it never began."""
_NO_FAILURE = {Outcome.SUCCEEDED: os.EX_OK, Outcome.SUPERSEDED: os.EX_OK}


class Sighting(StrEnum):
    """What a backend says of a job, in no scheduler's own words."""

    WAITING = "waiting"
    RUNNING = "running"
    COMPLETED = "completed"  # ended with exit code 0
    FAILED = "failed"  # ended with another exit code, or by a signal
    OUT_OF_MEMORY = "out_of_memory"
    TIMED_OUT = "timed_out"
    NODE_FAILED = "node_failed"
    PREEMPTED = "preempted"
    CANCELLED = "cancelled"
    ORPHANED = "orphaned"  # never began: what it was to wait for has failed
    GONE = "gone"  # every source answered, and none knows it
    UNKNOWN = "unknown"  # a source did not answer


ALIVE = frozenset({Sighting.WAITING, Sighting.RUNNING})

_SAID_BY_SCHEDULER: dict[Sighting, Outcome] = {
    Sighting.OUT_OF_MEMORY: Outcome.OUT_OF_MEMORY,
    Sighting.TIMED_OUT: Outcome.TIMED_OUT,
    Sighting.NODE_FAILED: Outcome.NODE_FAILED,
    Sighting.PREEMPTED: Outcome.PREEMPTED,
    Sighting.CANCELLED: Outcome.CANCELLED,
    Sighting.ORPHANED: Outcome.MISSING_INPUT,
}


@dataclass(frozen=True)
class Observation:
    """One look at one element's job.

    Attributes
    ----------
    sighting : Sighting
        What the backend says.
    exit_code, signal : int or None
        How the process ended, where the backend knows.
    host : str or None
        Where it ran.
    started_at : datetime or None
        When it began, by the backend's clock.
    seconds : float or None
        How long it ran, where it has ended and the backend knows.
    """

    sighting: Sighting
    exit_code: int | None = None
    signal: int | None = None
    host: str | None = None
    started_at: datetime | None = None
    seconds: float | None = None


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
    if result is not None and result.outcome != TERMINATED:
        return Outcome(result.outcome)
    if seen.sighting in ALIVE or seen.sighting is Sighting.UNKNOWN:
        return None
    if cancelled_by_us:
        grace_s = min(grace_s, CANCELLED_GRACE_S)
    if result is None and missing_for_s < grace_s:
        return None  # its result may still be on its way
    if cancelled_by_us:
        return Outcome.CANCELLED
    if seen.sighting in _SAID_BY_SCHEDULER:
        return _SAID_BY_SCHEDULER[seen.sighting]
    if seen.sighting is Sighting.FAILED:
        if result is not None:  # told to stop, by somebody who left no reason
            return Outcome.TRANSIENT
        return _outcome_of_exit(seen)
    # COMPLETED or GONE: nothing but the result file could prove a success
    return Outcome.TRANSIENT if result is not None else Outcome.LOST


def exit_code_of(outcome: str) -> int:
    """Return the code that a runner ends with, from its own word of how the element ended."""
    if outcome == TERMINATED:
        return EXIT_TERMINATED
    codes = {known: code for code, known in EXIT_CODES.items()} | _NO_FAILURE
    return codes.get(Outcome(outcome), os.EX_SOFTWARE)


def outcome_of_signal(signal: int) -> Outcome:
    """Tell a crash of the code from a kill from outside."""
    crashes = {signals.SIGSEGV, signals.SIGBUS, signals.SIGABRT, signals.SIGFPE, signals.SIGILL}
    return Outcome.SOFTWARE_ERROR if signal in crashes else Outcome.TRANSIENT


def _outcome_of_exit(seen: Observation) -> Outcome:
    signal = seen.signal or max(0, (seen.exit_code or 0) - 128)  # as a shell tells it
    if signal:
        return outcome_of_signal(signal)
    return EXIT_CODES.get(seen.exit_code or 0, Outcome.SOFTWARE_ERROR)
