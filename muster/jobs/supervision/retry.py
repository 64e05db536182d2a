"""Whether an element is tried again, when, and with what: one pure function.

It sees this generation's outcomes only, so that clearing a task grants a fresh budget.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Literal

from muster.model.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from muster.model.resources import Caps, Resources
    from muster.model.retry_policy import RetryPolicy

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
    """Back-off with full jitter above half of the step.

    Attributes
    ----------
    first_s, longest_s : float
        Delay after the first failure, and the most it grows to, in seconds.
    kind : {"exponential", "fixed", "none"}
        Whether the delay doubles with each failure, stays the first one, or is none.
    """

    first_s: float = 5.0
    longest_s: float = 300.0
    kind: Literal["exponential", "fixed", "none"] = "exponential"

    def of(self, policy: RetryPolicy | None) -> BackOff:
        """Return the back-off that a batch's own policy asks for, this one where it has none."""
        if policy is None:
            return self
        first_s = self.first_s if policy.first_delay_s is None else policy.first_delay_s
        longest_s = self.longest_s if policy.longest_delay_s is None else policy.longest_delay_s
        return BackOff(first_s, max(first_s, longest_s), policy.backoff)

    def delay_s(self, failures: int, seed: int) -> float:
        """Delay in seconds after so many failures; equal seeds give equal delays."""
        if self.kind == "none":
            return 0.0
        doublings = min(64, max(0, failures - 1)) if self.kind == "exponential" else 0
        step = min(self.longest_s, self.first_s * 2.0**doublings)
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
    policy: RetryPolicy | None = None,
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
        Delays between attempts, where the policy says none.
    policy : RetryPolicy or None
        The batch's own policy, which caps the budgets.
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
    most = None if policy is None else policy.max_retries
    charged = sum(n for outcome, n in counts.items() if outcome not in FREE)
    if most is not None and charged > most:
        return Stop(f"{last.value}, and the {most} retries of its campaign are spent")
    grown = _grow(last, resources, caps)
    if isinstance(grown, Stop):
        return grown
    return Again(
        resources=grown,
        delay_s=back_off.of(policy).delay_s(len(outcomes), seed),
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
