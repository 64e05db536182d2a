"""What a planned set of batches will cost, told before anything is submitted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from muster.jobs.planning.advise import quantile
from muster.store.history import read_took

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from muster.jobs.planning.workflow import Workflow
    from muster.model.batch import Batch
    from muster.model.resources import Resources
    from muster.store.database import Database
    from muster.store.history import Took


@dataclass(frozen=True)
class Cost:
    """What batches will cost when each element is tried once; None where nobody can tell.

    Attributes
    ----------
    elements : int
        How many are to be computed.
    cpu_hours_at_most, gpu_hours_at_most : float or None
        With every element running into its time limit.
    cpu_hours_expected, gpu_hours_expected : float or None
        With every element taking the median of past attempts of its step.
    unlimited : tuple of str
        Steps that have no time limit.
    untried : tuple of str
        Steps of which no past attempt has succeeded.
    """

    elements: int
    cpu_hours_at_most: float | None
    gpu_hours_at_most: float | None
    cpu_hours_expected: float | None
    gpu_hours_expected: float | None
    unlimited: tuple[str, ...]
    untried: tuple[str, ...]


def tell_cost(db: Database, batches: Sequence[Batch], workflow: Workflow | None) -> list[str]:
    """Say in a line or two what batches cost, by the store's record of past attempts.

    Parameters
    ----------
    workflow : Workflow or None
        What tells kinds of a step's work apart; None counts every attempt of a step.
    """
    alike = _find_alike(batches, {} if workflow is None else workflow.told_apart_by)
    took = read_took(db, sorted({batch.step for batch in batches}), alike)
    return describe_cost(estimate_cost(batches, took), alike).splitlines()


def _find_alike(
    batches: Sequence[Batch], told_apart_by: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, Any]]:
    """Return what attempts of each step must have been given to say how long these take.

    A run's batches of a step are of one kind.
    """
    alike: dict[str, dict[str, Any]] = {}
    for batch in batches:
        keys = told_apart_by.get(batch.step, ())
        if keys and batch.step not in alike:
            inputs = batch.elements[0].inputs
            alike[batch.step] = _choose(inputs, [tuple(key.split(".")) for key in keys])
    return alike


def _choose(given: Mapping[str, Any], paths: Sequence[tuple[str, ...]]) -> dict[str, Any]:
    """Choose what stands at paths of nested keys; what there is not is left out."""
    chosen: dict[str, Any] = {}
    for key in dict.fromkeys(path[0] for path in paths):
        if key not in given:
            continue
        deeper = [path[1:] for path in paths if path[0] == key and path[1:]]
        if not deeper:
            chosen[key] = given[key]
        elif isinstance(given[key], dict) and (inner := _choose(given[key], deeper)):
            chosen[key] = inner
    return chosen


def estimate_cost(batches: Sequence[Batch], took: Iterable[Took]) -> Cost:
    """Estimate what batches cost.

    Parameters
    ----------
    batches : sequence of Batch
        As they are frozen.
    took : iterable of Took
        How long past attempts of their steps took, as ``read_took`` gives them.  Those with the
        same CPUs, GPUs and ranks are believed; where there are none, those of the step with any.
    """
    past = list(took)
    kinds = _count_kinds(batches)
    limits = [kind.resources.time_limit_s for kind in kinds]
    typical = [_typical_s(kind, past) for kind in kinds]
    return Cost(
        elements=sum(kind.elements for kind in kinds),
        cpu_hours_at_most=_sum_hours(kinds, limits, _cpus_of),
        gpu_hours_at_most=_sum_hours(kinds, limits, _gpus_of),
        cpu_hours_expected=_sum_hours(kinds, typical, _cpus_of),
        gpu_hours_expected=_sum_hours(kinds, typical, _gpus_of),
        unlimited=_steps_without(kinds, limits),
        untried=_steps_without(kinds, typical),
    )


def describe_cost(cost: Cost, alike: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """Say in one line or two what batches cost.

    Parameters
    ----------
    alike : mapping, optional
        Step → what its past attempts must have been given to be counted.
    """
    if not cost.elements:
        return "nothing is to be computed"
    elements = "1 element" if cost.elements == 1 else f"{cost.elements} elements"
    most = _tell_hours(cost.cpu_hours_at_most, cost.gpu_hours_at_most)
    if most is None:
        steps = ", ".join(cost.unlimited)
        first = f"{elements}; no upper bound: {steps} asked for no time limit"
    else:
        first = f"{elements}; at most {most}, when each is tried once"
    expected = _tell_hours(cost.cpu_hours_expected, cost.gpu_hours_expected)
    if expected is None:
        kinds = [_describe_kind(step, (alike or {}).get(step, {})) for step in cost.untried]
        steps = ", ".join(cost.untried)
        return f"{first}\nnobody knows yet how long {steps} will take{''.join(kinds)}"
    return f"{first}\nabout {expected}, by what past attempts took"


@dataclass(frozen=True)
class _Kind:
    """Elements of a step that ask for the same: the CPUs for each rank, the GPUs for each node."""

    step: str
    resources: Resources
    ranks: int
    nodes: int
    elements: int


def _count_kinds(batches: Sequence[Batch]) -> list[_Kind]:
    counts: Counter[tuple[str, Resources, int, int]] = Counter()
    for batch in batches:
        held = batch.target.ranks, batch.target.nodes_held
        counts.update((batch.step, e.resources or batch.resources, *held) for e in batch.elements)
    return [_Kind(*asked, elements=count) for asked, count in counts.items()]


def _cpus_of(kind: _Kind) -> int:
    return kind.resources.cpus * kind.ranks


def _gpus_of(kind: _Kind) -> int:
    return kind.resources.gpus * kind.nodes


def _typical_s(kind: _Kind, past: Sequence[Took]) -> float | None:
    asked = (kind.resources.cpus, kind.resources.gpus, kind.ranks)
    of_step = [t for t in past if t.step == kind.step and t.seconds]
    alike = [t for t in of_step if (t.cpus, t.gpus, t.ranks) == asked]
    seconds = [s for t in alike or of_step for s in t.seconds]
    return quantile(seconds, 50) if seconds else None


def _sum_hours(
    kinds: Sequence[_Kind], each_s: Sequence[float | None], held: Callable[[_Kind], int]
) -> float | None:
    """Add up hours of what every element holds; None where a time that matters is not known."""
    total = 0.0
    for kind, seconds in zip(kinds, each_s, strict=True):
        count = held(kind) * kind.elements
        if not count:
            continue
        if seconds is None:
            return None
        total += seconds * count / 3600
    return total


def _steps_without(kinds: Sequence[_Kind], each_s: Sequence[float | None]) -> tuple[str, ...]:
    pairs = zip(kinds, each_s, strict=True)
    return tuple(dict.fromkeys(kind.step for kind, seconds in pairs if seconds is None))


def _describe_kind(step: str, inputs: Mapping[str, Any]) -> str:
    """Say of which kind of a step no attempt has succeeded; nothing where it has but one."""
    said = [
        f"{key} {f'{value:g}' if isinstance(value, float) else value}"
        for key, value in _leaves(inputs)
        if value is not None
    ]
    return f"; no attempts of {step} yet with {', '.join(said)}" if said else ""


def _leaves(inputs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in inputs.items():
        if isinstance(value, dict):
            yield from _leaves(value)
        else:
            yield key, value


def _tell_hours(cpu: float | None, gpu: float | None) -> str | None:
    if cpu is None or gpu is None:
        return None
    return f"{_tell(cpu)} CPU-hours" + (f" and {_tell(gpu)} GPU-hours" if gpu else "")


def _tell(hours: float) -> str:
    if 0 < hours < 0.01:
        return "< 0.01"
    return f"{hours:.0f}" if hours >= 100 else f"{hours:.3g}"
