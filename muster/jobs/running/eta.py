"""When a step will be done, from what it says of its progress; and how a person is told.

Everything here is pure: whoever asks brings the clock.
"""

from __future__ import annotations

import math

from muster.model.step import LONGEST_LEFT_S

SMALLEST_FRACTION = 0.01
SHORTEST_ELAPSED_S = 3.0
SHORTEST_MEMORY_S = 30.0
MEMORY_SHARE = 0.25
MINUTE_S, HOUR_S, DAY_S = 60, 3_600, 86_400


class EtaEstimator:
    """Estimates the seconds that are left of a step.

    The rate is that of the recent past: what was done and the time that it took both fade, over a
    quarter of the step's age.  At the start that is the overall mean; a step that changes its
    speed is followed after a while.

    Parameters
    ----------
    started_s : float
        When the step started, on a monotonic clock, in seconds.
    """

    def __init__(self, started_s: float) -> None:
        self.fraction = 0.0
        self._started_s = started_s
        self._reported_s = started_s
        self._done = 0.0  # fading sum of fractions
        self._took_s = 0.0  # fading sum of the time they took

    def report(self, fraction: float, now_s: float) -> float:
        """Take a report of the fraction done, and return what is believed of it.

        What is believed never goes back and never leaves [0, 1], whatever a step says.
        """
        known = float(fraction) if math.isfinite(fraction) else 0.0
        believed = min(1.0, max(self.fraction, known))
        took_s = max(0.0, now_s - self._reported_s)
        memory_s = max(SHORTEST_MEMORY_S, MEMORY_SHARE * (now_s - self._started_s))
        fading = math.exp(-took_s / memory_s)
        self._done = fading * self._done + (believed - self.fraction)
        self._took_s = fading * self._took_s + took_s
        self._reported_s = max(self._reported_s, now_s)
        self.fraction = believed
        return believed

    def left_s(self) -> float | None:
        """Estimate the seconds left at the last report; None where it is too early to tell."""
        if self.fraction >= 1.0:
            return 0.0
        elapsed_s = self._reported_s - self._started_s
        if self.fraction < SMALLEST_FRACTION or elapsed_s < SHORTEST_ELAPSED_S:
            return None
        if self._done <= 0.0:
            return None
        left_s = (1.0 - self.fraction) * self._took_s / self._done
        return left_s if left_s <= LONGEST_LEFT_S else None


def describe_seconds(seconds: float) -> str:
    """Say a duration in its two largest units: "45 s", "3 min 10 s", "2 h 5 min", "3 d 4 h"."""
    whole = round(max(0.0, seconds))
    if whole < MINUTE_S:
        return f"{whole} s"
    for unit_s, unit, below_s, below in (
        (DAY_S, "d", HOUR_S, "h"),
        (HOUR_S, "h", MINUTE_S, "min"),
        (MINUTE_S, "min", 1, "s"),
    ):
        if whole >= unit_s:
            rest = (whole % unit_s) // below_s
            return f"{whole // unit_s} {unit}" + (f" {rest} {below}" if rest else "")
    raise AssertionError(whole)


def describe_roughly(seconds: float) -> str:
    """Say a duration in one unit, as far as anybody would rely on it: "about 3 min"."""
    for unit_s, unit in ((DAY_S, "d"), (HOUR_S, "h"), (MINUTE_S, "min")):
        if seconds >= 1.5 * unit_s:
            return f"about {round(seconds / unit_s)} {unit}"
    if seconds >= MINUTE_S / 2:
        return "about 1 min"
    return "less than 30 s"


def describe_progress(fraction: float, message: str, left_s: float | None) -> str:
    """Say progress in one line of a log: "42 % window 84 of 200, 3 min 10 s left"."""
    percent = math.floor(100 * fraction + 1e-9)  # 100 % is what is done, and nothing less
    told = f"{percent} % {message}".rstrip()
    if left_s is None or fraction >= 1.0:
        return told
    return f"{told}, {describe_seconds(left_s)} left"
