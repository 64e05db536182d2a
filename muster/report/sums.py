"""What a run's attempts come to, step by step, and what failed: pure sums over its story."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from muster.jobs.runs.verdict import GOOD
from muster.model.outcome import Outcome
from muster.report.read import UNFINISHED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from muster.report.read import ElementStory, RunStory
    from muster.store.history import TriedAttempt

_AGAIN = "then start a new run or clear the red task; what is there already is reused"
_TAKEN_AWAY = f"see whether the machine and its scheduler are well, {_AGAIN}"

NEXT: dict[str, str] = {
    "pending": "it was not reached; start a new run",
    Outcome.MISSING_INPUT: f"put it where the message looks for it, {_AGAIN}",
    Outcome.INVALID_INPUT: f"mend what the message names, {_AGAIN}",
    Outcome.SOFTWARE_ERROR: f"read the log; mend or report what it tells, {_AGAIN}",
    Outcome.TRANSIENT: f"see that disks have room and the network answers, {_AGAIN}",
    Outcome.OUT_OF_MEMORY: f"give the step more memory in the run's resources, {_AGAIN}",
    Outcome.TIMED_OUT: f"give the step more time or CPUs in the run's resources, {_AGAIN}",
    Outcome.NODE_FAILED: _TAKEN_AWAY,
    Outcome.PREEMPTED: _TAKEN_AWAY,
    Outcome.LOST: _TAKEN_AWAY,
    Outcome.SUPERSEDED: _TAKEN_AWAY,
    Outcome.NOT_BEGUN: "its turn had not come when its job ended; start a new run",
    Outcome.CANCELLED: "somebody ended it; a new run computes what is missing",
}
"""State of an element that is no success → what to do about it."""

_ENGINE_FACTS = ("engine", "engines")


@dataclass(frozen=True)
class StepSum:
    """All attempts of one step together; None where nothing was measured or asked for.

    Attributes
    ----------
    step : str
        The step.
    states : dict
        State → number of elements.
    elements, attempts : int
        How many elements were tried, and how often in all.
    seconds, cpu_hours : float
        Wall time of all attempts, and that times the CPUs asked for.
    longest_s, longest_wait_s, peak_mib : float or None
        The most that one attempt took, waited, and used.
    time_limit_s, memory_mib, cpus : int or None
        The most that one attempt asked for.
    pools, hosts, engines : tuple of str
        Where they were sent, where they ran, and with what.
    """

    step: str
    states: dict[str, int]
    elements: int
    attempts: int
    seconds: float
    cpu_hours: float
    longest_s: float | None
    longest_wait_s: float | None
    peak_mib: float | None
    time_limit_s: int | None
    memory_mib: int | None
    cpus: int | None
    pools: tuple[str, ...]
    hosts: tuple[str, ...]
    engines: tuple[str, ...]


@dataclass(frozen=True)
class Failure:
    """Steps of one element that came to the same bad end for the same reason."""

    element: str
    steps: tuple[str, ...]
    state: str
    why: str
    attempts: int
    log_uri: str | None
    do: str


def sum_steps(story: RunStory) -> list[StepSum]:
    """Add up each step, in the order in which they run."""
    found = dict.fromkeys([*story.steps, *(e.step for e in story.elements)])
    sums = [_sum_step(step, [e for e in story.elements if e.step == step]) for step in found]
    return [s for s in sums if s.states]


def list_failures(story: RunStory) -> list[Failure]:
    """List what is no success, told together where it is one and the same."""
    together: dict[tuple[str, str, str, str | None], list[ElementStory]] = {}
    for element in story.elements:
        if element.state in GOOD or (story.going and element.state in UNFINISHED):
            continue
        log_uri = element.attempts[-1].log_uri if element.attempts else None
        key = (element.name, element.state, element.why or "", log_uri)
        together.setdefault(key, []).append(element)
    return [
        Failure(
            element=name,
            steps=tuple(e.step for e in members),
            state=state,
            why=why,
            attempts=max(len(e.attempts) for e in members),
            log_uri=log_uri,
            do=NEXT.get(state, NEXT["pending"]),
        )
        for (name, state, why, log_uri), members in together.items()
    ]


def list_engines(facts: Mapping[str, Any]) -> list[str]:
    """Name the engines that a step says it worked with."""
    named: list[str] = []
    for key in _ENGINE_FACTS:
        value = facts.get(key)
        if isinstance(value, dict):
            named += [f"{name} {engine}" for name, engine in value.items()]
        elif isinstance(value, list | tuple):
            named += [str(engine) for engine in value]
        elif value:
            named.append(str(value))
    return named


def _sum_step(step: str, elements: Sequence[ElementStory]) -> StepSum:
    tried = [attempt for element in elements for attempt in element.attempts]
    return StepSum(
        step=step,
        states=dict(Counter(e.state for e in elements)),
        elements=sum(bool(e.attempts) for e in elements),
        attempts=len(tried),
        seconds=sum(a.seconds or 0.0 for a in tried),
        cpu_hours=sum(a.cpu_hours or 0.0 for a in tried),
        longest_s=_most(tried, lambda a: a.seconds),
        longest_wait_s=_most(tried, lambda a: a.waited_s),
        peak_mib=_most(tried, lambda a: a.max_rss_mib),
        time_limit_s=_most(tried, lambda a: a.resources.time_limit_s),
        memory_mib=_most(tried, lambda a: a.resources.memory_mib),
        cpus=_most(tried, lambda a: a.cpus),
        pools=_names(f"{a.pool} ({a.backend})" for a in tried),
        hosts=_names(a.host for a in tried if a.host),
        engines=_names(engine for a in tried for engine in list_engines(a.facts)),
    )


def _most(tried: Sequence[TriedAttempt], value: Callable[[TriedAttempt], Any]) -> Any:
    return max((v for a in tried if (v := value(a)) is not None), default=None)


def _names(names: Any) -> tuple[str, ...]:
    return tuple(sorted(set(names)))
