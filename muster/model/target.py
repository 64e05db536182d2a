"""Where a batch runs, frozen with it: one type a backend, told apart by the backend's name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from muster.model.kubernetes_target import KubernetesTarget
from muster.model.launcher import RankWords
from muster.model.slurm_target import SlurmTarget

if TYPE_CHECKING:
    from collections.abc import Mapping


class LocalTarget(RankWords):
    """The machine that the supervisor runs on."""

    backend: ClassVar[Literal["local"]] = "local"

    _added: ClassVar[tuple[str, ...]] = ("ntasks", "launcher")

    @property
    def connection(self) -> str:
        """What batches have in common that one open backend can serve."""
        return self.backend


Target = LocalTarget | SlurmTarget | KubernetesTarget
"""One of the targets; their attribute ``backend`` tells which."""

TARGETS: dict[str, type[Target]] = {kind.backend: kind for kind in get_args(Target)}
"""Backend → type of its targets."""


def parse_target(backend: Any, targets: Mapping[str, Any]) -> Target:
    """Read a target as a batch's file has it, beside the targets of no other backend.

    Parameters
    ----------
    backend : object
        Name of the backend, as the file has it.
    targets : mapping of str to object
        Backend → its target; a target that says nothing is not written.

    Raises
    ------
    ValueError
        When this version has no such backend, or the target is not one of its.
    """
    if not isinstance(backend, str) or backend not in TARGETS:
        raise ValueError(f"no backend {backend!r} in this version; there are {sorted(TARGETS)}")
    others = [name for name, other in targets.items() if name != backend and other is not None]
    if others:
        raise ValueError(f"a batch on {backend} has no {', '.join(others)}")
    data = targets.get(backend)
    if data is None and TARGETS[backend] is not LocalTarget:
        raise ValueError(f"a batch on {backend} does not say where: {backend} is missing")
    return TARGETS[backend].model_validate({} if data is None else data)
