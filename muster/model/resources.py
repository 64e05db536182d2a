"""What an element may use of a machine, and the most that a retry may ask for."""

from __future__ import annotations

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
