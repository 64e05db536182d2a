"""What a batch on Slurm is frozen with: its pool in Slurm's own words, and the way to the cluster.

It is written to ``batch.json`` with the batch, so that a changed site file touches new runs only.
It names files that hold secrets (a private key) and holds none itself.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, PlainValidator, model_validator

from muster.config import TimeS
from muster.model.launcher import RankWords
from muster.model.login import Login

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_CLUSTER = "slurm"
OWN_OPTIONS = frozenset(
    {
        "account", "array", "begin", "chdir", "cluster-constraint", "clusters", "comment",
        "constraint", "cpus-per-gpu", "cpus-per-task", "dependency", "error", "exclude",
        "exclusive", "export", "export-file", "get-user-env", "gid", "gpus", "gpus-per-node",
        "gpus-per-socket", "gpus-per-task", "gres", "help", "hold", "input", "job-name",
        "kill-on-invalid-dep", "mem", "mem-per-cpu", "mem-per-gpu", "no-kill", "no-requeue",
        "nodes", "ntasks", "open-mode", "output", "parsable", "partition", "qos", "quiet",
        "requeue", "reservation", "signal", "test-only", "time", "time-min", "uid", "usage",
        "verbose", "version", "wait", "wrap",
    }
)  # fmt: skip
"""Options of sbatch that Muster sets itself, or that would take a job out of its hands."""

_WORD = re.compile(r"[A-Za-z0-9_(\[][A-Za-z0-9_.:,+@%=|&!*()\[\]-]*")
_VALUE = re.compile(r"[^\s\"'\\#-][^\s\"'\\#]*")
_OPTION = re.compile(r"[a-z][a-z0-9-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHELLS_OWN = frozenset({"BASHOPTS", "BASH_VERSINFO", "EUID", "PPID", "SHELLOPTS", "UID"})
"""What bash lets nobody set; the script's own variables begin with muster_."""


def _word(text: str) -> str:
    if not _WORD.fullmatch(text):
        raise ValueError("holds what no word of Slurm's holds (letters, digits, _ . : , + - …)")
    return text


def _option(value: object) -> bool | int | str:
    if value is True or (isinstance(value, int) and value is not False):
        return value
    if value is False:
        raise ValueError("is false: leave it out")
    if not isinstance(value, str) or not value.isprintable() or not _VALUE.fullmatch(value):
        raise ValueError(
            "should be a number, true for an option without a value, or a word without blanks, "
            "quotes, \\ and #"
        )
    return value


def _gres(text: str) -> str:
    for entry in text.split(","):
        kind, *rest = entry.split(":")
        if kind == "gpu" and (len(rest) > 1 or any(part.isdigit() for part in rest)):
            raise ValueError("the number of GPUs is said by the placement: write 'gpu:TYPE'")
    return _word(text)


def _no_control(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError("is empty, or holds a NUL")
    return text


Word = Annotated[str, AfterValidator(_word)]
"""A word as Slurm's options take it: a partition, an account, a constraint."""

Option = Annotated[bool | int | str, PlainValidator(_option)]
"""What an option of sbatch is set to: a word, an address, a path without blanks, a number."""

Gres = Annotated[str, AfterValidator(_gres)]

Text = Annotated[str, AfterValidator(_no_control)]


def check_variables(environment: Mapping[str, str]) -> None:
    """Refuse names that no shell takes as a variable's, or keeps for itself.

    Raises
    ------
    ValueError
        When there is one.
    """
    wrong = sorted(
        name
        for name in environment
        if not _VARIABLE.fullmatch(name) or name in _SHELLS_OWN or name.startswith("muster_")
    )
    if wrong:
        raise ValueError(f"no variable can have this name: {', '.join(map(repr, wrong))}")


def is_folder(path: str) -> bool:
    """Tell whether jobs can start below a path, in which Slurm takes two signs for patterns."""
    return path.startswith("/") and path.isprintable() and not set(path) & set("%\\")


def _checked_variables(environment: dict[str, str]) -> dict[str, str]:
    check_variables(environment)
    return environment


def _further(options: dict[str, bool | int | str]) -> dict[str, bool | int | str]:
    for name in options:
        if not _OPTION.fullmatch(name):
            raise ValueError(f"{name!r} is no long option of sbatch (written without dashes)")
        if name in OWN_OPTIONS:
            raise ValueError(f"option {name!r} is set by Muster itself, or has a key of its own")
    return options


Variables = Annotated[dict[str, Text], AfterValidator(_checked_variables)]
"""Variables of a job, by name."""


class ClusterTable(Login):
    """How a cluster is reached, and how jobs start there, as a site file says it.

    Attributes
    ----------
    transport : {"local", "ssh"}
        Whether Slurm's commands run here, or on a login node.
    host, port, user, key, known_hosts
        With ssh: as of :class:`muster.model.login.Login`.
    work : str or None
        With ssh: folder on the cluster that batches and results travel to and from; None where
        both sides see the same work directory.
    poll_every : int
        Seconds between two looks at the queue; more where the controller is slow.
    result_grace : int
        How long a result may take to be seen on this side after its job has ended, in seconds.
    submissions_per_s : float
        The most submissions in a second, from all processes together.
    python : str or None
        Python on the nodes, with Muster installed; by default the one of this process.
    prelude : tuple of str
        Lines of shell before a job's command: ``module load …``, ``source …/activate``.
    container : tuple of str
        Command that the job's command is put behind: ``apptainer exec --nv /images/muster.sif``.
    environment : dict of str to str
        Variables of every job.
    """

    transport: Literal["local", "ssh"] = "local"
    work: str | None = None
    poll_every: TimeS = 30
    result_grace: TimeS = 60
    submissions_per_s: Annotated[float, Field(gt=0, le=100)] = 1.0
    python: Text | None = None
    prelude: tuple[Text, ...] = ()
    container: tuple[Text, ...] = ()
    environment: Variables = {}

    @model_validator(mode="after")
    def _check(self) -> ClusterTable:
        if self.transport == "ssh" and not self.host:
            raise ValueError("transport ssh needs a host")
        if self.transport == "local":
            given = [
                n
                for n in ("host", "port", "user", "key", "known_hosts", "work")
                if getattr(self, n) is not None
            ]
            if given:
                raise ValueError(f"{', '.join(given)}: only with transport = 'ssh'")
        if self.work is not None and not is_folder(self.work):
            raise ValueError("work must be an absolute path on the cluster, without % and \\")
        return self


class Cluster(ClusterTable):
    """A cluster by name.

    Attributes
    ----------
    name : str
        What all batches of it share: one poller, one rate of submissions.
    """

    name: Word = DEFAULT_CLUSTER


class SlurmWords(RankWords):
    """What a pool asks of a cluster, in Slurm's own words.

    Attributes
    ----------
    partition, account, qos, constraint, reservation : str or None
        As sbatch takes them.
    gres : str or None
        Generic resources without the number of GPUs, which the placement says: ``gpu:l40s``.
    nodes : int or None
        For steps that span nodes.
    ntasks, launcher
        As of :class:`muster.model.launcher.RankWords`.
    exclusive : bool
        Whether a job has its nodes alone.
    pack : int
        How many elements one array task runs, one after the other, where they are short.
    options : dict
        Further options of sbatch, without the dashes: ``{"mail-type": "FAIL"}``; true stands for
        an option without a value.
    """

    partition: Word | None = None
    account: Word | None = None
    qos: Word | None = None
    constraint: Word | None = None
    reservation: Word | None = None
    gres: Gres | None = None
    nodes: Annotated[int, Field(ge=1)] | None = None
    exclusive: bool = False
    pack: Annotated[int, Field(ge=1)] = 1
    options: Annotated[dict[str, Option], AfterValidator(_further)] = {}

    @property
    def nodes_held(self) -> int:
        """How many nodes an element holds: the pool's, else one, though Slurm may take more."""
        return self.nodes or 1


class SlurmTarget(SlurmWords):
    """A pool on a cluster: what its batches are frozen with.

    Attributes
    ----------
    cluster : Cluster
        Where.
    work_root : str or None
        The work directory on this side, whose other side is ``cluster.work``; set by the plan.
    """

    backend: ClassVar[Literal["slurm"]] = "slurm"

    cluster: Cluster = Cluster()
    work_root: str | None = None

    @property
    def connection(self) -> str:
        """What batches have in common that one open backend can serve.

        How jobs start there differs from pool to pool, and is no matter of how the cluster is
        spoken to.
        """
        way = self.cluster.model_dump_json(
            exclude={"python", "prelude", "container", "environment"}
        )
        return f"{self.backend} {way} {self.work_root}"
