"""Where a batch runs, frozen with it: one type a backend, told apart by the backend's name."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, get_args

from muster.frozen import Frozen
from muster.model.slurm_target import SlurmTarget


class LocalTarget(Frozen):
    """The machine that the supervisor runs on."""

    backend: ClassVar[Literal["local"]] = "local"

    @property
    def connection(self) -> str:
        """What batches have in common that one open backend can serve."""
        return self.backend


Target = LocalTarget | SlurmTarget
"""One of the targets; their attribute ``backend`` tells which."""

TARGETS: dict[str, type[Target]] = {kind.backend: kind for kind in get_args(Target)}
"""Backend → type of its targets."""


def parse_target(backend: str, data: Any) -> Target:
    """Read a target as a batch's file has it; a target that says nothing is not written.

    Raises
    ------
    ValueError
        When this version has no such backend, or the target is not one of its.
    """
    if backend not in TARGETS:
        raise ValueError(f"no backend {backend!r} in this version; there are {sorted(TARGETS)}")
    if data is None and TARGETS[backend].model_fields:
        raise ValueError(f"a batch on {backend} does not say where: {backend} is missing")
    return TARGETS[backend].model_validate(data or {})
