"""Whether an element is tried again, when, and with what: one pure function.

It sees this generation's outcomes only, so that clearing a task grants a fresh budget.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from muster.model.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from muster.model.resources import Caps, Resources

GROWTH = 1.5
"""Factor by which memory or time grows after a kill for want of it."""

BUDGET: dict[Outcome, int] = {
    Outcome.MISSING_INPUT: 0,
    Outcome.INVALID_INPUT: 0,
    Outcome.SOFTWARE_ERROR: 1,
    Outcome.TRANSIENT: 3,
    Outcome.OUT_OF_MEMORY: 5,
    Outcome.TIMED_OUT: 5,
    Outcome.NODE_FAILED: 5,
    Outcome.PREEMPTED: 5,
    Outcome.LOST: 5,
    Outcome.SUPERSEDED: 5,
    Outcome.CANCELLED: 0,
}
"""How many further attempts an outcome is worth in one generation."""

FREE = frozenset({Outcome.NODE_FAILED, Outcome.PREEMPTED, Outcome.LOST, Outcome.SUPERSEDED})
"""Outcomes that are nobody's fault; they share one budget, and the host is not asked again."""


@dataclass(frozen=True)
class BackOff:
    """Exponential back-off with full jitter above half of the step.

    Attributes
    ----------
    first_s, longest_s : float
        Delay after the first failure, and the most it grows to, in seconds.
    """

    first_s: float = 5.0
    longest_s: float = 300.0

    def delay_s(self, failures: int, seed: int) -> float:
        """Delay in seconds after so many failures; equal seeds give equal delays."""
        step = min(self.longest_s, self.first_s * 2.0 ** max(0, failures - 1))
        return step * random.Random(seed * 1_000_003 + failures).uniform(0.5, 1.0)


@dataclass(frozen=True)
class Again:
    """The element is tried again, after the delay and with these resources."""

    resources: Resources
    delay_s: float


@dataclass(frozen=True)
class Stop:
    """The element is not tried again."""

    reason: str


def decide_retry(
    outcomes: Sequence[Outcome],
    resources: Resources,
    caps: Caps,
    *,
    back_off: BackOff,
    seed: int = 0,
) -> Again | Stop:
    """Decide what follows the last of this generation's outcomes.

    Parameters
    ----------
    outcomes : sequence of Outcome
        How the attempts of this generation ended, oldest first; at least one.
    resources : Resources
        What the last attempt had.
    caps : Caps
        The most that the pool gives.
    back_off : BackOff
        Delays between attempts.
    seed : int
        Seed of the jitter: the element's id.
    """
    last = outcomes[-1]
    counts = Counter(outcomes)
    if last is Outcome.SUCCEEDED:
        return Stop("succeeded")
    spent = sum(counts[o] for o in FREE) if last in FREE else counts[last]
    if spent > BUDGET[last]:
        tries = "is never tried again" if not BUDGET[last] else f"was tried again {spent - 1} ×"
        return Stop(f"{last.value} {tries}")
    grown = _grow(last, resources, caps)
    if isinstance(grown, Stop):
        return grown
    return Again(
        resources=grown,
        delay_s=back_off.delay_s(len(outcomes), seed),
    )


def _grow(last: Outcome, resources: Resources, caps: Caps) -> Resources | Stop:
    """Give the next attempt more of what the last one lacked."""
    wanted = {Outcome.OUT_OF_MEMORY: "memory_mib", Outcome.TIMED_OUT: "time_limit_s"}.get(last)
    if wanted is None:
        return resources
    had: int | None = getattr(resources, wanted)
    if had is None:
        return Stop(f"{last.value} although no limit was asked for")
    cap: int | None = getattr(caps, wanted)
    more = ceil(had * GROWTH) if cap is None else min(ceil(had * GROWTH), cap)
    if more <= had:
        return Stop(f"{last.value} with all that the pool gives: {wanted} {had}")
    return resources.model_copy(update={wanted: more})
