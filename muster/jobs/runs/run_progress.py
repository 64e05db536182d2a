"""How far a run is, from what its elements say; and how ``muster status`` tells it.

Everything here is pure: whoever asks brings the elements and the time.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, timedelta
from statistics import fmean
from typing import TYPE_CHECKING

from muster.backends.registry import BACKENDS
from muster.jobs.running.eta import describe_progress, describe_roughly
from muster.model.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from muster.store.runs import ElementStatus

WAITING = frozenset({"pending", "waiting"})
RUNNING = "running"
NOT_ASKED = "not_asked"


@dataclass(frozen=True)
class RunProgress:
    """How many elements of a run are done, run, and wait; and when all are done, if it is known.

    What was not asked for counts nowhere; what failed is done.
    """

    done: int
    running: int
    waiting: int
    eta_at: datetime | None

    def describe(self, now: datetime) -> str:
        """Say "3 of 9 done, 2 running, 4 waiting · about 3 min left (12:34:56Z)"."""
        total = self.done + self.running + self.waiting
        counts = f"{self.done} of {total} done, {self.running} running, {self.waiting} waiting"
        return counts + _describe_eta(self.eta_at, now)


def summarize_run(
    elements: Sequence[ElementStatus], now: datetime, *, planned: bool
) -> RunProgress:
    """Count a run's elements and estimate its end.

    Parameters
    ----------
    planned : bool
        Whether all elements are known; before that nobody can tell the end.
    """
    running = [e for e in elements if e.state == RUNNING]
    waiting = [e for e in elements if e.state in WAITING]
    not_asked = sum(e.state == NOT_ASKED for e in elements)
    left_s = _left_s(elements, running, waiting, now) if planned else None
    return RunProgress(
        done=len(elements) - len(running) - len(waiting) - not_asked,
        running=len(running),
        waiting=len(waiting),
        eta_at=now + timedelta(seconds=left_s) if left_s else None,
    )


def describe_running(element: ElementStatus, now: datetime) -> str:
    """Say how far a running element is: "42 % · window 84 of 200 · about 3 min left (12:34:56Z)".

    Empty where it has not said.
    """
    if element.state != RUNNING or element.progress is None:
        return ""
    told = describe_progress(element.progress, "", None)
    if element.progress_message:
        told += f" · {element.progress_message}"
    return told + _describe_eta(element.eta_at, now)


def describe_job(element: ElementStatus) -> str:
    """Say what a cluster calls an element's open job, where it runs, and what does not answer.

    Empty where the element has ended, or has no job of a scheduler's.
    """
    if element.state not in (RUNNING, "waiting"):  # what is pending has no job yet, or an old one
        return ""
    told = []
    kind = BACKENDS.get(element.backend or "")
    if kind is not None and kind.names_jobs and element.reference is not None:
        on = f" on {element.host}" if element.host and element.state == RUNNING else ""
        told.append(f"job {element.reference}{on}")
    if element.degraded is not None:
        told.append(element.degraded)
    return " · ".join(told)


def _describe_eta(eta_at: datetime | None, now: datetime) -> str:
    if eta_at is None or eta_at <= now:  # what should have been over by now is no estimate
        return ""
    at, today = eta_at.astimezone(UTC), now.astimezone(UTC).date()
    clock = f"{at:%H:%M:%SZ}" if at.date() == today else f"{at:%Y-%m-%d %H:%MZ}"
    return f" · {describe_roughly((eta_at - now).total_seconds())} left ({clock})"


def _left_s(
    elements: Sequence[ElementStatus],
    running: Sequence[ElementStatus],
    waiting: Sequence[ElementStatus],
    now: datetime,
) -> float | None:
    """Estimate the seconds until all is done, if as many go on running as do now.

    None where it cannot be known: nothing runs, or there is a step that none has ended or told.
    """
    typical_s = _typical_seconds(elements)
    lefts = [_element_left_s(e, typical_s, now) for e in running]
    lefts_waiting = [typical_s.get(e.step) for e in waiting]
    known = [left for left in lefts if left is not None]
    known_waiting = [left for left in lefts_waiting if left is not None]
    if not lefts or len(known) < len(lefts) or len(known_waiting) < len(lefts_waiting):
        return None
    return max(max(known), (sum(known) + sum(known_waiting)) / len(running))


def _typical_seconds(elements: Sequence[ElementStatus]) -> dict[str, float]:
    """Step → what an element of it takes in seconds: what has ended says it, else what runs."""
    ended: dict[str, list[float]] = defaultdict(list)
    expected: dict[str, list[float]] = defaultdict(list)
    for e in elements:
        if e.state == Outcome.SUCCEEDED and e.seconds is not None:
            ended[e.step].append(e.seconds)
        elif e.state == RUNNING and e.eta_at is not None and e.started_at is not None:
            expected[e.step].append(max(0.0, (e.eta_at - e.started_at).total_seconds()))
    return {step: fmean(seconds) for step, seconds in {**expected, **ended}.items()}


def _element_left_s(
    element: ElementStatus, typical_s: Mapping[str, float], now: datetime
) -> float | None:
    if element.eta_at is not None:
        return max(0.0, (element.eta_at - now).total_seconds())
    if element.started_at is None or element.step not in typical_s:
        return None
    return max(0.0, typical_s[element.step] - (now - element.started_at).total_seconds())
