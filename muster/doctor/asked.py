"""What one job is going to ask of a pool, in the words of all clusters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from muster.backends.array_tasks import job_time_s
from muster.config import render_time
from muster.counts import count_of

if TYPE_CHECKING:
    from muster.model.resources import Caps, Resources


@dataclass(frozen=True)
class Asked:
    """What one job is going to ask of a pool.

    Attributes
    ----------
    step : str
        Whose job.
    resources : Resources
        Of one element.
    time_s : int or None
        Of the whole job, in seconds.
    """

    step: str
    resources: Resources
    time_s: int | None

    @classmethod
    def of(cls, step: str, resources: Resources, caps: Caps, pack: int) -> Asked:
        """Say what a job of a full pack asks for."""
        return cls(step, resources, job_time_s(resources, caps, pack))

    def describe(self) -> str:
        """Say it in a few words."""
        wants = self.resources
        words = [count_of(wants.cpus, "CPU")]
        if wants.gpus:
            words.append(count_of(wants.gpus, "GPU"))
        if wants.memory_mib is not None:
            words.append(f"{wants.memory_mib} MiB")
        if self.time_s is not None:
            words.append(render_time(self.time_s))
        return ", ".join(words)
