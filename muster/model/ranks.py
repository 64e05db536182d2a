"""Which rank a process is of the step that several of them run; its launcher tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from muster.errors import SoftwareError

if TYPE_CHECKING:
    from collections.abc import Mapping

_RANKS = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("PMIX_RANK", "PMIX_SIZE"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
)
"""Variables by which mpirun and srun tell a process its rank, and how many there are."""


@dataclass(frozen=True)
class Rank:
    """One rank of an element, or the only process of one.

    Attributes
    ----------
    number, count : int
        Which it is, from 0, and how many there are.
    """

    number: int = 0
    count: int = 1


def find_rank(variables: Mapping[str, str]) -> Rank:
    """Return what a launcher tells a process of its rank.

    Parameters
    ----------
    variables : mapping
        The process's own.

    Raises
    ------
    SoftwareError
        When there is no launcher that is known, or it says no numbers.
    """
    for rank_name, size_name in _RANKS:
        number = variables.get(rank_name)
        if number is None:
            continue
        for name in (size_name, _RANKS[-1][1]):
            count = variables.get(name)
            if count is not None:
                break
        else:
            continue
        if not (_is_number(number) and _is_number(count) and int(number) < int(count)):
            raise SoftwareError(
                "no rank", where=f"{rank_name}, {name}", got=f"{number!r}, {count!r}"
            )
        return Rank(int(number), int(count))
    raise SoftwareError(
        "the launcher says no rank",
        expected=f"one of {', '.join(rank for rank, _ in _RANKS)}",
        do="correct 'launcher' of the pool",
    )


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
