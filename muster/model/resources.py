"""What an element may use of a machine, and the most that a retry may ask for."""

from __future__ import annotations

from math import ceil
from typing import Annotated

from pydantic import Field

from muster.frozen import Frozen


class Resources(Frozen):
    """What one element asks for.

    Attributes
    ----------
    cpus : int
        Threads that the step may use.
    memory_mib : int or None
        Memory of the element's processes together, in MiB; None asks for no limit.
    time_limit_s : int or None
        Wall time in seconds; None asks for no limit.
    gpus : int
        Whole GPUs.
    """

    cpus: Annotated[int, Field(ge=1)] = 1
    memory_mib: Annotated[int, Field(ge=1)] | None = None
    time_limit_s: Annotated[int, Field(ge=1)] | None = None
    gpus: Annotated[int, Field(ge=0)] = 0


class Caps(Frozen):
    """The most that a pool gives one element; a retry's demands stop growing there."""

    memory_mib: int | None = None
    time_limit_s: int | None = None


class PartialResources(Frozen):
    """Resources that replace some of those that a step is placed with; None leaves them.

    Attributes
    ----------
    cpus, memory_mib, time_limit_s, gpus : int or None
        As of :class:`Resources`.
    memory_factor : float or None
        Factor on the memory, up to the pool's cap; without effect where no memory is asked for.
    """

    cpus: Annotated[int, Field(ge=1)] | None = None
    memory_mib: Annotated[int, Field(ge=1)] | None = None
    time_limit_s: Annotated[int, Field(ge=1)] | None = None
    gpus: Annotated[int, Field(ge=0)] | None = None
    memory_factor: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] | None = None

    def apply(self, resources: Resources, caps: Caps) -> Resources:
        """Return resources with these in their place."""
        said = self.model_dump(exclude_none=True, exclude={"memory_factor"})
        changed = resources.model_copy(update=said)
        if self.memory_factor is None or changed.memory_mib is None:
            return changed
        memory_mib = max(1, ceil(changed.memory_mib * self.memory_factor))
        if caps.memory_mib is not None:
            memory_mib = min(memory_mib, max(caps.memory_mib, changed.memory_mib))
        return changed.model_copy(update={"memory_mib": memory_mib})
