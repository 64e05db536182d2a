"""Why an attempt ended, how a runner's exit code says it, and what a backend says of a job."""

from __future__ import annotations

import os
import signal as signals
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datetime import datetime


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
    NOT_BEGUN = "not_begun"


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
_NO_FAILURE = dict.fromkeys((Outcome.SUCCEEDED, Outcome.SUPERSEDED, Outcome.NOT_BEGUN), os.EX_OK)


class JobState(StrEnum):
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
    REFUSED = "refused"  # never began: the scheduler took it, and can never start it
    GONE = "gone"  # every source answered, and none knows it
    UNKNOWN = "unknown"  # a source did not answer


ALIVE = frozenset({JobState.WAITING, JobState.RUNNING})


@dataclass(frozen=True)
class Observation:
    """One look at one element's job.

    Attributes
    ----------
    state : JobState
        What the backend says.
    exit_code, signal : int or None
        How the process ended, where the backend knows.
    host : str or None
        Where it ran.
    started_at : datetime or None
        When it began, by the backend's clock.
    seconds : float or None
        How long it ran, where it has ended and the backend knows.
    message : str or None
        Why it is so, in the scheduler's own words.
    """

    state: JobState
    exit_code: int | None = None
    signal: int | None = None
    host: str | None = None
    started_at: datetime | None = None
    seconds: float | None = None
    message: str | None = None


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
