"""What a pool says of steps on several ranks: how many, and the command that starts them.

A pool with ``ntasks`` starts a step's process as so many ranks, by Slurm's srun or an mpirun.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from muster.frozen import Frozen

SRUN = ("srun",)
MPIRUN = ("mpirun", "--bind-to", "none", "-n", "{ntasks}")

_BLANK = re.compile(r"\{[^{}]*\}")
_BLANKS = ("{ntasks}", "{cpus}")


def _launcher(words: tuple[str, ...]) -> tuple[str, ...]:
    if not words:
        raise ValueError("names no command: leave it out for the default")
    for word in words:
        if not word or "\0" in word:
            raise ValueError("has a word that is empty, or holds a NUL")
        for blank in _BLANK.findall(word):
            if blank not in _BLANKS:
                raise ValueError(f"has {blank}; it may have {' and '.join(_BLANKS)}")
    return words


Launcher = Annotated[tuple[str, ...], AfterValidator(_launcher)]
"""A command, word by word; ``{ntasks}`` and ``{cpus}`` stand for ranks and for CPUs of each."""


class RankWords(Frozen):
    """What a pool says of ranks.

    Attributes
    ----------
    ntasks : int or None
        How many ranks an element has.
    launcher : tuple of str or None
        Command that starts them; None of a batch that was frozen before pools had launchers, whose
        steps are one process each.
    """

    ntasks: Annotated[int, Field(ge=1)] | None = None
    launcher: Launcher | None = None

    _added: ClassVar[tuple[str, ...]] = ("launcher",)

    @model_validator(mode="after")
    def _check_launcher(self) -> RankWords:
        if self.launcher is not None and self.ntasks in (None, 1):
            raise ValueError("launcher: only with ntasks of 2 or more")
        return self

    @model_serializer(mode="wrap")
    def _leave_out_none(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        said: dict[str, Any] = handler(self)
        for name in self._added:
            if getattr(self, name) is None:
                said.pop(name, None)  # batches frozen before the field keep their bytes
        return said

    @property
    def ranks(self) -> int:
        """How many ranks an element has, each with the CPUs that it asks for."""
        return self.ntasks or 1

    @property
    def nodes_held(self) -> int:
        """How many nodes an element holds, each with the GPUs and memory that it asks for."""
        return 1

    def launcher_or(self, default: tuple[str, ...]) -> tuple[str, ...] | None:
        """Return the launcher that is said, or the default; None where one rank needs none."""
        return None if self.ntasks in (None, 1) else self.launcher or default

    def launch_command(self, cpus: int) -> tuple[str, ...] | None:
        """Return the command that starts the ranks of an element; None where it is one process.

        Parameters
        ----------
        cpus : int
            CPUs of each rank.
        """
        if self.launcher is None:
            return None
        blanks = {"{ntasks}": str(self.ntasks), "{cpus}": str(cpus)}
        return tuple(_BLANK.sub(lambda found: blanks[found[0]], word) for word in self.launcher)
