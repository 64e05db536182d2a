"""What partitions and nodes a cluster has, and what it would do with a job: text made into values.

scontrol, sinfo and ``sbatch --test-only`` are asked by somebody else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from muster.backends.slurm.refusal import refusal_line
from muster.config import parse_time_s
from muster.errors import SoftwareError

if TYPE_CHECKING:
    from muster.backends.remote.transport import Answer

PARTITION_ARGUMENTS = ("-a", "-o", "show", "partition")
"""Of scontrol, for :func:`parse_partitions`."""
NODE_ARGUMENTS = ("-h", "-a", "-e", "-o", "%R|%D|%c|%m|%G|%T|%f")
"""Of sinfo, for :func:`parse_nodes`: a row for all nodes of a partition that are alike."""

_GRES = re.compile(r"([^:()]+)(?::(?!\d+[KMGTP]?(?:\(|$))([^:()]+))?(?::(\d+)([KMGTP]?))?(?:\(.*)?")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50}
_NO_LIMIT = frozenset({"UNLIMITED", "INFINITE", "NONE", "(null)", "0", "N/A"})
_TAKES_JOBS = frozenset({"idle", "mixed", "allocated", "completing", "planned", "reserved"})
_TRIAL = re.compile(r"Job \d+ to start at (\S+) .*?(?:in partition (\S+))?$", re.MULTILINE)


@dataclass(frozen=True)
class Partition:
    """A partition and what it gives one job at most; None is no limit.

    Attributes
    ----------
    name, state : str
        As Slurm calls them; only in state UP do its jobs start.
    max_time_s : int or None
        Wall time in seconds.
    max_memory_mib, max_memory_cpu_mib : int or None
        Memory in MiB of a job on one node, and of it for each CPU.
    default : bool
        Whether jobs go there that name no partition.
    """

    name: str
    state: str
    max_time_s: int | None = None
    max_memory_mib: int | None = None
    max_memory_cpu_mib: int | None = None
    default: bool = False


@dataclass(frozen=True)
class Nodes:
    """Nodes of a partition that are alike.

    Attributes
    ----------
    partition : str
        Which.
    count : int
        How many.
    cpus, memory_mib : int
        What one of them is configured with; of memory in MiB.
    gres : mapping
        (Name, type) → how many one of them has; without a type that is "".
    state : str
        Slurm's word, without the signs behind it.
    answers : bool
        Whether the controller hears of them.
    """

    partition: str
    count: int
    cpus: int
    memory_mib: int
    gres: dict[tuple[str, str], int]
    state: str
    answers: bool = True

    @property
    def takes_jobs(self) -> bool:
        """Whether a job can start there, now or when others have ended."""
        return self.answers and self.state in _TAKES_JOBS

    def gpus(self, kind: str = "") -> int:
        """Say how many GPUs of a type one of them has; of any where none is named."""
        return sum(
            count for (name, type_), count in self.gres.items()
            if name == "gpu" and kind in ("", type_)
        )  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """What Slurm would do with a job.

    Attributes
    ----------
    refusal : str or None
        Why it would not take it.
    start_s : int or None
        When it would start, in seconds since 1970.
    partition : str or None
        Where.
    """

    refusal: str | None
    start_s: int | None = None
    partition: str | None = None


def parse_partitions(text: str) -> dict[str, Partition]:
    """Parse what ``scontrol`` with PARTITION_ARGUMENTS prints: name → partition.

    Raises
    ------
    SoftwareError
        When a line is not as it should be.
    """
    found = {}
    for line in text.splitlines():
        words = dict(word.partition("=")[::2] for word in line.split())
        if not words or line.startswith("No partitions"):
            continue
        try:
            found[words["PartitionName"]] = Partition(
                name=words["PartitionName"],
                state=words["State"],
                max_time_s=_read_limit_s(words["MaxTime"]),
                max_memory_mib=_read_mib(words.get("MaxMemPerNode", "UNLIMITED")),
                max_memory_cpu_mib=_read_mib(words.get("MaxMemPerCPU", "UNLIMITED")),
                default=words.get("Default") == "YES",
            )
        except (KeyError, ValueError) as error:
            raise _malformed("scontrol show partition", line) from error
    return found


def parse_nodes(text: str) -> list[Nodes]:
    """Parse what ``sinfo`` with NODE_ARGUMENTS prints.

    Raises
    ------
    SoftwareError
        When a line is not as it should be.
    """
    found = []
    for line in text.splitlines():
        try:
            partition, count, cpus, memory, gres, state, _ = line.split("|", 6)
            found.append(
                Nodes(
                    partition=partition,
                    count=int(count),
                    cpus=int(cpus.rstrip("+")),
                    memory_mib=int(memory.rstrip("+")),
                    gres=parse_gres(gres),
                    state=re.sub(r"[^a-z_]+$", "", state.lower()),
                    answers=not state.endswith("*"),
                )
            )
        except ValueError as error:
            raise _malformed("sinfo", line) from error
    return found


def parse_gres(text: str) -> dict[tuple[str, str], int]:
    """Parse a node's generic resources, ``gpu:l40s:4(S:0-1),nvme:1``: (name, type) → number.

    Raises
    ------
    ValueError
        When it is none.
    """
    found: dict[tuple[str, str], int] = {}
    if text in ("", "(null)"):
        return found
    for entry in re.split(r",(?![^(]*\))", text):
        match = _GRES.fullmatch(entry)
        if match is None:
            raise ValueError(entry)
        key = (match[1], match[2] or "")
        found[key] = found.get(key, 0) + int(match[3] or 1) * _UNITS[match[4] or ""]
    return found


def parse_trial(answer: Answer) -> Trial:
    """Parse what ``sbatch --test-only`` says, with times in seconds since 1970."""
    match = _TRIAL.search(answer.stderr)
    if answer.exit_code == 0 and match is not None:
        start_s = int(match[1]) if match[1].isdecimal() else None
        return Trial(None, start_s, match[2])
    line = refusal_line(answer.stderr).replace("allocation failure: ", "")
    return Trial(line if answer.exit_code else None)


def _read_limit_s(text: str) -> int | None:
    return None if text in _NO_LIMIT else parse_time_s(text)


def _read_mib(text: str) -> int | None:
    return None if text in _NO_LIMIT else int(text)


def _malformed(source: str, line: str) -> SoftwareError:
    return SoftwareError("cannot understand Slurm", where=source, got=repr(line)[:500])
