"""How the elements of a wave are spread over the tasks of an array: the places of one job.

Slurm and Kubernetes both number the tasks of a job from 0.  A file beside the submission says which
elements each of them runs, a line a task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from muster.errors import InvalidInput
from muster.model.wave import Wave

if TYPE_CHECKING:
    from collections.abc import Iterable

    from muster.model.batch import Batch
    from muster.model.resources import Caps, Resources

FIRST_KEY = "w1.00000000"


def first_wave(batch: Batch) -> Wave:
    """Return the wave that a batch would begin with, for a person to read."""
    wants = batch.resources_of(0) if batch.elements else batch.resources
    alike = [e.index for e in batch.elements if batch.resources_of(e.index) == wants]
    attempts = dict.fromkeys(alike[: batch.array_size], 1)
    return Wave(batch, f"{batch.id}.{FIRST_KEY}", attempts, wants)


def render_elements(indexes: Iterable[int], pack: int) -> str:
    """Render which elements each task of an array runs: a line a task, their indexes in it."""
    return "".join(f"{' '.join(map(str, task))}\n" for task in plan_tasks(indexes, pack))


def plan_tasks(indexes: Iterable[int], pack: int) -> list[list[int]]:
    """Say which elements each task of an array runs, in their order: task → element indexes."""
    ordered = sorted(indexes)
    return [ordered[first : first + pack] for first in range(0, len(ordered), pack)]


def longest_task(indexes: Iterable[int], pack: int) -> int:
    """Return how many elements the longest task of an array runs."""
    return max(map(len, plan_tasks(indexes, pack)), default=0)


def parse_elements(text: str, place: int, where: str) -> list[int]:
    """Parse which elements the task at a place runs, from what :func:`render_elements` gives.

    Raises
    ------
    InvalidInput
        When there is no such task, or the text is no list of elements.
    """
    lines = text.splitlines()
    words = lines[place].split() if place < len(lines) else []
    if not words or not all(word.isascii() and word.isdigit() for word in words):
        raise InvalidInput(
            "no elements at this place of the list",
            where=where,
            got=f"place {place}: {lines[place]!r}" if place < len(lines) else f"place {place}",
            expected=f"one of {len(lines)} lines, with numbers of elements",
        )
    return [int(word) for word in words]


def job_time_s(wants: Resources, caps: Caps, elements: int) -> int | None:
    """Say how long a job may take that runs so many elements, in seconds; None: nobody says."""
    times_s = [caps.time_limit_s, wants.time_limit_s and wants.time_limit_s * elements]
    return min((time_s for time_s in times_s if time_s is not None), default=None)
