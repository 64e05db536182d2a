"""Every case of the one function that says why an attempt ended."""

from __future__ import annotations

import itertools
import signal

import pytest

from muster.jobs.supervision.decide_outcome import decide_outcome
from muster.model.attempt import Result
from muster.model.outcome import TERMINATED, JobState, Observation, Outcome

S = JobState
End = Outcome


def result(outcome: str) -> Result:
    return Result(
        submission="k", index=0, attempt=1, outcome=outcome, started_at="2026-01-01T00:00:00+00:00",
        seconds=1.0, host="h", pid=1,
    )  # fmt: skip


def decide(
    seen: Observation,
    said: str | None = None,
    *,
    ours: bool = False,
    missing_for_s: float = 0.0,
    grace_s: float = 0.0,
) -> Outcome | None:
    return decide_outcome(
        seen,
        result(said) if said else None,
        cancelled_by_us=ours,
        missing_for_s=missing_for_s,
        grace_s=grace_s,
    )


@pytest.mark.parametrize(
    ("seen", "said", "ours", "expected"),
    [
        # alive, and nothing said: not an end
        (Observation(S.WAITING), None, False, None),
        (Observation(S.RUNNING), None, False, None),
        (Observation(S.RUNNING), None, True, None),
        (Observation(S.RUNNING), TERMINATED, True, None),
        # unknown is neither success nor failure
        (Observation(S.UNKNOWN), None, False, None),
        (Observation(S.UNKNOWN), None, True, None),
        (Observation(S.UNKNOWN), TERMINATED, False, None),
        # the scheduler's word, where the attempt left none
        (Observation(S.OUT_OF_MEMORY), None, False, End.OUT_OF_MEMORY),
        (Observation(S.TIMED_OUT), None, False, End.TIMED_OUT),
        (Observation(S.NODE_FAILED), None, False, End.NODE_FAILED),
        (Observation(S.PREEMPTED), None, False, End.PREEMPTED),
        (Observation(S.CANCELLED), None, False, End.CANCELLED),
        (Observation(S.REFUSED), None, False, End.INVALID_INPUT),
        (Observation(S.REFUSED), None, True, End.CANCELLED),
        # told to stop: the scheduler says why
        (Observation(S.TIMED_OUT), TERMINATED, False, End.TIMED_OUT),
        (Observation(S.PREEMPTED), TERMINATED, False, End.PREEMPTED),
        (Observation(S.FAILED, exit_code=143), TERMINATED, False, End.TRANSIENT),
        (Observation(S.COMPLETED, exit_code=0), TERMINATED, False, End.TRANSIENT),
        (Observation(S.GONE), TERMINATED, False, End.TRANSIENT),
        # our own cancellation explains an end without a result
        (Observation(S.FAILED, exit_code=143), TERMINATED, True, End.CANCELLED),
        (Observation(S.FAILED, signal=9), None, True, End.CANCELLED),
        (Observation(S.GONE), None, True, End.CANCELLED),
        (Observation(S.TIMED_OUT), None, True, End.CANCELLED),
        # exit codes, where no result could be written
        (Observation(S.FAILED, exit_code=65), None, False, End.INVALID_INPUT),
        (Observation(S.FAILED, exit_code=66), None, False, End.MISSING_INPUT),
        (Observation(S.FAILED, exit_code=70), None, False, End.SOFTWARE_ERROR),
        (Observation(S.FAILED, exit_code=75), None, False, End.TRANSIENT),
        (Observation(S.FAILED, exit_code=1), None, False, End.SOFTWARE_ERROR),
        (Observation(S.FAILED, signal=signal.SIGKILL), None, False, End.TRANSIENT),
        (Observation(S.FAILED, signal=signal.SIGSEGV), None, False, End.SOFTWARE_ERROR),
        # as a shell tells of a signal
        (Observation(S.FAILED, exit_code=137), None, False, End.TRANSIENT),
        (Observation(S.FAILED, exit_code=139), None, False, End.SOFTWARE_ERROR),
        # without a result file nothing is a success
        (Observation(S.COMPLETED, exit_code=0), None, False, End.LOST),
        (Observation(S.GONE), None, False, End.LOST),
    ],
)
def test_outcome(seen: Observation, said: str | None, ours: bool, expected: Outcome | None) -> None:
    assert decide(seen, said, ours=ours) == expected


@pytest.mark.parametrize("seen", list(S))
def test_what_has_not_begun_waits_for_the_end_of_its_job_and_is_cancelled_with_it(
    seen: JobState,
) -> None:
    """Whoever cancels a job means those of its elements, too, whose turn had not come."""
    found = decide(Observation(seen), "not_begun")
    ours = decide(Observation(seen), "not_begun", ours=True)
    if seen in (S.WAITING, S.RUNNING, S.UNKNOWN):
        assert (found, ours) == (None, None)
    else:
        assert found is (End.CANCELLED if seen is S.CANCELLED else End.NOT_BEGUN)
        assert ours is End.CANCELLED


@pytest.mark.parametrize(("seen", "ours"), list(itertools.product(S, [False, True])))
@pytest.mark.parametrize("said", [end for end in End if end is not End.NOT_BEGUN])
def test_the_attempts_own_word_is_final(seen: JobState, ours: bool, said: Outcome) -> None:
    assert decide(Observation(seen), said.value, ours=ours) == said


@pytest.mark.parametrize("ours", [False, True])
@pytest.mark.parametrize("seen", sorted(set(S) - {S.WAITING, S.RUNNING, S.UNKNOWN}))
def test_a_result_may_lag_behind_the_end_of_its_job(seen: JobState, ours: bool) -> None:
    look = Observation(seen, exit_code=0)
    grace_s = 10.0 if ours else 60.0  # most of what we cancel never began
    assert decide(look, ours=ours, missing_for_s=grace_s - 0.1, grace_s=60.0) is None
    assert decide(look, ours=ours, missing_for_s=grace_s, grace_s=60.0) is not None
    assert decide(look, "succeeded", ours=ours, grace_s=60.0) == End.SUCCEEDED


@pytest.mark.parametrize("seen", list(S))
def test_nothing_but_a_result_makes_a_success(seen: JobState) -> None:
    assert decide(Observation(seen, exit_code=0), missing_for_s=1e9) != End.SUCCEEDED
