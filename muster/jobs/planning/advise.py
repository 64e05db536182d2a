"""What to ask the scheduler for next time, from what past attempts really used.

Who asks for too little is killed, and who asks for too much waits longer in the queue and keeps
others waiting.  The advice is a high quantile of what succeeded, with a margin; an attempt that was
killed for want of memory or time says that it needed more than it had, and pushes the advice up.
"""

from __future__ import annotations

import json
import statistics
from collections import Counter
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from muster.config import render_time
from muster.model.outcome import Outcome
from muster.model.resources import Caps
from muster.store.history import PlacedStep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from muster.model.resources import Resources
    from muster.store.history import TriedAttempt

MARGIN = 1.2
"""Factor on what was used."""

ENOUGH = 5
"""Succeeded attempts from which on a quantile says more than the greatest of them."""

SHORTEST_S = 300
"""The least time that is advised: a job's own start counts too, and no queue is faster for less."""

_MEMORY_STEPS_MIB = ((1024, 128), (4096, 256))
_MEMORY_STEP_MIB = 1024
_KILLED = frozenset({Outcome.OUT_OF_MEMORY, Outcome.TIMED_OUT})


@dataclass(frozen=True)
class Spread:
    """How some measured numbers are spread: two quantiles, as of :func:`quantile`, and the most."""

    p50: float
    p95: float
    most: float


@dataclass(frozen=True)
class Waste:
    """What attempts that are over have held, and what of it was asked for in vain.

    How busy the CPUs were is not measured: an idle CPU counts as held.

    Attributes
    ----------
    cpu_hours, gpu_hours : float
        CPUs and GPUs held, times wall time.
    cpu_hours_lost, gpu_hours_lost : float
        Of that, what attempts held that did not succeed.
    cpu_hours_unused : float
        What the time limits asked for beyond the wall time.
    memory_gib_h : float
        Memory asked for, times wall time, where some was asked for.
    memory_gib_h_unused : float
        Of that, what lay above the peak, where a peak was measured.
    """

    cpu_hours: float
    cpu_hours_lost: float
    cpu_hours_unused: float
    memory_gib_h: float
    memory_gib_h_unused: float
    gpu_hours: float
    gpu_hours_lost: float


@dataclass(frozen=True)
class StepAdvice:
    """What attempts of one step used that had the same pool, CPUs and GPUs; and the advice.

    Attributes
    ----------
    step, pool : str
        What was run where.
    asked : Resources
        What the newest element asked for at first, before any retry.
    advised : Resources
        What to ask for; what nothing is known of stays as it was asked for.
    deadline_s : int or None
        How long a batch might take in all, in seconds.
    outcomes : dict
        Outcome → number of attempts that are over.
    memory_mib, elapsed_s : Spread or None
        What succeeded attempts used: peak memory in MiB, wall time in s.
    waited_s : Spread or None
        Time in the queue, of every attempt that started.
    waste : Waste
        What was held, and what of it in vain.
    notes : tuple of str
        What to know before the advice is followed.
    """

    step: str
    pool: str
    asked: Resources
    advised: Resources
    deadline_s: int | None
    outcomes: dict[str, int]
    memory_mib: Spread | None
    elapsed_s: Spread | None
    waited_s: Spread | None
    waste: Waste
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Wish:
    """One resource: what is known of it, and how it is advised and told."""

    name: str
    unit: str
    asked: int | None
    used: list[float]
    bounds: list[float]  # what killed attempts had reached: each needed more
    cap: int | None
    round_up: Callable[[float], int]
    tell: Callable[[int], str]


def advise_steps(
    tried: Iterable[TriedAttempt], placed: Iterable[PlacedStep], *, margin: float = MARGIN
) -> list[StepAdvice]:
    """Advise what each step should ask for.

    Parameters
    ----------
    tried : iterable of TriedAttempt
        Oldest first; those that are not over are left out.
    placed : iterable of PlacedStep
        The caps of each pool that a step was sent to.
    margin : float
        Factor on what was used, at least 1.

    Returns
    -------
    list of StepAdvice
        In the order in which the steps were first tried.  Attempts that asked for other CPUs or
        GPUs, or in another pool, are told apart; of a step, the newest kind is the last.
    """
    kinds: dict[tuple[str, str, int, int], list[TriedAttempt]] = {}
    order: dict[str, int] = {}
    for attempt in tried:
        if attempt.outcome is None:
            continue
        order.setdefault(attempt.step, len(order))
        asked = attempt.resources
        kind = (attempt.step, attempt.pool, asked.cpus, asked.gpus)
        # Taken out and put in again: a kind stands where its newest attempt does.
        kinds[kind] = [*kinds.pop(kind, []), attempt]
    places = {(place.step, place.pool): place for place in placed}
    advice = [
        _advise_kind(attempts, places.get(kind[:2], PlacedStep(*kind[:2], Caps(), None)), margin)
        for kind, attempts in kinds.items()
    ]
    return sorted(advice, key=lambda a: order[a.step])


def render_placement(advice: Iterable[StepAdvice]) -> str:
    """Render advice as lines for a site file's ``[placement]``, what to know of it as comments.

    Of a step with several kinds, the newest is rendered: the last.
    """
    lines = []
    for found in {a.step: a for a in advice}.values():
        wanted = found.advised
        values = [f"pool = {json.dumps(found.pool)}", f"cpus = {wanted.cpus}"]
        if wanted.gpus:
            values.append(f"gpus = {wanted.gpus}")
        if wanted.memory_mib is not None:
            values.append(f'memory = "{render_size(wanted.memory_mib)}"')
        if wanted.time_limit_s is not None:
            values.append(f'time = "{render_time(wanted.time_limit_s)}"')
        if found.deadline_s is not None:
            values.append(f'deadline = "{render_time(found.deadline_s)}"')
        lines += [f"# {found.step}: {note}" for note in found.notes]
        lines.append(f"{json.dumps(found.step)} = {{ {', '.join(values)} }}")
    return "\n".join(lines)


def render_size(mib: int) -> str:
    """Render a size as site files have it, whole GiB as such."""
    return f"{mib // 1024}GiB" if mib % 1024 == 0 else f"{mib}MiB"


def quantile(values: Sequence[float], percent: int) -> float:
    """Interpolate linearly between the two nearest of the ordered values.

    It is Hyndman and Fan's type 7, numpy's method ``linear``: the p-quantile of n values lies at
    position (n - 1) p, from 0.

    Parameters
    ----------
    values : sequence of float
        At least one, in any order.
    percent : int
        From 1 to 99.
    """
    if len(values) == 1:
        return float(values[0])
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def measure_spread(values: Sequence[float]) -> Spread | None:
    """Say how values are spread; None where there are none."""
    if not values:
        return None
    return Spread(quantile(values, 50), quantile(values, 95), float(max(values)))


def round_memory_mib(mib: float) -> int:
    """Round memory up to what a person writes: in steps of 128 or 256 MiB, from 4 GiB on of 1."""
    steps = (step for most, step in _MEMORY_STEPS_MIB if mib <= most)
    return _round_up(mib, next(steps, _MEMORY_STEP_MIB))


def round_time_s(seconds: float) -> int:
    """Round a time up to whole minutes, five at least."""
    return max(SHORTEST_S, _round_up(seconds, 60))


def sum_waste(attempts: Iterable[TriedAttempt]) -> Waste:
    """Add up what attempts that are over have held, and what of it in vain."""
    sums: dict[str, float] = dict.fromkeys(Waste.__dataclass_fields__, 0.0)
    for attempt in attempts:
        held_h, asked = _held_s(attempt) / 3600, attempt.resources
        lost_h = 0.0 if attempt.outcome is Outcome.SUCCEEDED else held_h
        limit_h = (asked.time_limit_s or 0) / 3600
        memory_gib = (asked.memory_mib or 0) / 1024
        peak_gib = memory_gib if attempt.max_rss_mib is None else attempt.max_rss_mib / 1024
        unused_gib = max(0.0, memory_gib - peak_gib)
        sums["cpu_hours"] += held_h * attempt.cpus
        sums["cpu_hours_lost"] += lost_h * attempt.cpus
        sums["cpu_hours_unused"] += max(0.0, limit_h - held_h) * attempt.cpus
        sums["memory_gib_h"] += held_h * memory_gib * attempt.nodes
        sums["memory_gib_h_unused"] += unused_gib * held_h * attempt.nodes
        sums["gpu_hours"] += held_h * asked.gpus * attempt.nodes
        sums["gpu_hours_lost"] += lost_h * asked.gpus * attempt.nodes
    return Waste(**sums)


def _held_s(attempt: TriedAttempt) -> float:
    """Seconds that an attempt held its resources; one that left no result, by the record."""
    if attempt.seconds is not None:
        return attempt.seconds
    if attempt.started_at is None or attempt.ended_at is None:
        return 0.0
    return max(0.0, (attempt.ended_at - attempt.started_at).total_seconds())


def _advise_kind(attempts: Sequence[TriedAttempt], place: PlacedStep, margin: float) -> StepAdvice:
    firsts: dict[tuple[str, int], TriedAttempt] = {}
    for attempt in attempts:
        firsts.setdefault((attempt.element, attempt.generation), attempt)
    asked = list(firsts.values())[-1].resources
    good = [a for a in attempts if a.outcome is Outcome.SUCCEEDED]
    killed = [a for a in attempts if a.outcome in _KILLED]
    memory = _Wish(
        name="memory",
        unit="peak memory",
        asked=asked.memory_mib,
        used=[a.max_rss_mib for a in good if a.max_rss_mib is not None],
        bounds=[b for a in killed if (b := _memory_bound_mib(a)) is not None],
        cap=place.caps.memory_mib,
        round_up=round_memory_mib,
        tell=render_size,
    )
    time = _Wish(
        name="time",
        unit="wall time",
        asked=asked.time_limit_s,
        used=[a.seconds for a in good if a.seconds is not None],
        bounds=[b for a in killed if (b := _time_bound_s(a)) is not None],
        cap=place.caps.time_limit_s,
        round_up=round_time_s,
        tell=render_time,
    )
    memory_mib, memory_notes = _advise_wish(memory, margin)
    time_limit_s, time_notes = _advise_wish(time, margin)
    notes = [*_note_evidence(attempts, (memory, time)), *memory_notes, *time_notes]
    return StepAdvice(
        step=place.step,
        pool=place.pool,
        asked=asked,
        advised=asked.model_copy(update={"memory_mib": memory_mib, "time_limit_s": time_limit_s}),
        deadline_s=place.deadline_s,
        outcomes=dict(Counter(a.outcome.value for a in attempts if a.outcome)),
        memory_mib=measure_spread(memory.used),
        elapsed_s=measure_spread(time.used),
        waited_s=measure_spread([w for a in attempts if (w := a.waited_s) is not None]),
        waste=sum_waste(attempts),
        notes=tuple(notes),
    )


def _memory_bound_mib(killed: TriedAttempt) -> float | None:
    """Memory that a killed attempt had reached: where it wanted more, no less than its limit."""
    limit = killed.resources.memory_mib if killed.outcome is Outcome.OUT_OF_MEMORY else None
    return max((b for b in (limit, killed.max_rss_mib) if b is not None), default=None)


def _time_bound_s(killed: TriedAttempt) -> float | None:
    limit = killed.resources.time_limit_s if killed.outcome is Outcome.TIMED_OUT else None
    return max((b for b in (limit, killed.seconds) if b is not None), default=None)


def _advise_wish(wish: _Wish, margin: float) -> tuple[int | None, list[str]]:
    """Advise one resource, and say what to know of it."""
    wanted = [bound * margin for bound in wish.bounds]
    if wish.used:
        enough = len(wish.used) >= ENOUGH
        typical = quantile(wish.used, 95) if enough else max(wish.used)
        wanted += [typical * margin, max(wish.used)]
    if not wanted:
        return wish.asked, [f"no {wish.unit} is known: {wish.name} stays as it was asked for"]
    advised = wish.round_up(max(wanted))
    if wish.bounds and advised <= max(wish.bounds):
        advised = wish.round_up(max(wish.bounds) + 1)
    notes = []
    if not wish.used:
        notes.append(f"{wish.name} is a lower bound: no attempt with a known {wish.unit} succeeded")
    if wish.cap is not None and advised > wish.cap:
        short = wish.cap < max([*wish.used, *wish.bounds])
        notes.append(
            f"{wish.name} would be {wish.tell(advised)}, the pool gives {wish.tell(wish.cap)}"
            + (", which is less than was needed" if short else "")
        )
        advised = wish.cap
    return advised, notes


def _note_evidence(attempts: Sequence[TriedAttempt], wishes: Sequence[_Wish]) -> list[str]:
    """Say which figures stand on few attempts, and which attempts were killed."""
    few: dict[int, list[str]] = {}
    for wish in wishes:
        if 0 < len(wish.used) < ENOUGH:
            few.setdefault(len(wish.used), []).append(wish.name)
    notes = [
        f"{' and '.join(names)}: only {count} succeeded; their most counts, not a percentile"
        for count, names in few.items()
    ]
    for outcome, want in ((Outcome.OUT_OF_MEMORY, "memory"), (Outcome.TIMED_OUT, "time")):
        killed = [a for a in attempts if a.outcome is outcome]
        if not killed:
            continue
        bound = _memory_bound_mib if want == "memory" else _time_bound_s
        known = [b for a in killed if (b := bound(a)) is not None]
        tell = render_size if want == "memory" else render_time
        reached = f" at {tell(ceil(max(known)))}" if known else ", how much it had is not known"
        notes.append(f"{len(killed)} × killed for want of {want}{reached}")
    return notes


def _round_up(value: float, step: int) -> int:
    # 1280 × 1.2 is a little more than 1536 in binary, and means 1536.
    return max(step, ceil(round(value / step, 6)) * step)
