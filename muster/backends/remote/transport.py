"""How a command reaches the cluster, and how the work directory is seen there.

A transport that fails says so with Transient, and never with an answer: what became of the command
is then not known, and nobody may take it for a failure of a job.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from muster.errors import InvalidInput, Transient

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


@dataclass(frozen=True)
class Answer:
    """What a command that ended has said.

    Attributes
    ----------
    exit_code : int
        As a shell tells it; 128 + n for a signal.
    stdout, stderr : str
        Decoded as UTF-8, wrong bytes replaced.
    """

    exit_code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class SchedulerClients:
    """The client programs of a scheduler: what they get of the environment, and where they are.

    Attributes
    ----------
    kept : tuple of str
        Variables that say which cluster is meant, or prove who asks.
    prefixes : tuple of str
        Of the variables that change what the programs do: all that begin with PREFIX_ are taken
        away, except those that are kept.
    settings : mapping of str to str
        Variables that are set for each command.
    folder : str
        Folder of a batch that the scheduler's own files lie in: scripts, and what jobs print.
    install, install_there : str
        What a person can do where a program is not on this machine, or not on the login node.
    """

    kept: tuple[str, ...]
    prefixes: tuple[str, ...]
    settings: Mapping[str, str]
    folder: str
    install: str
    install_there: str


def check_arguments(arguments: Sequence[str]) -> None:
    """Refuse what no way carries to a program.

    Raises
    ------
    InvalidInput
        When there is no program, or an argument holds a NUL.
    """
    if not arguments or not arguments[0]:
        raise InvalidInput("no program to run", got=list(arguments))
    if any("\0" in argument for argument in arguments):
        raise InvalidInput("an argument holds a NUL", where=arguments[0])


class NotAllCame(Transient):
    """Of some folders not all has come: the next time goes on; of the others all is here.

    Attributes
    ----------
    folders : frozenset of str
        Of which something is still to come, on this side.
    """

    def __init__(self, what: str, *, where: str, got: str, folders: Iterable[str]) -> None:
        super().__init__(what, where=where, got=got)
        self.folders = frozenset(folders)


class Transport(Protocol):
    """A way to run commands on the cluster."""

    async def call(self, arguments: Sequence[str], *, timeout_s: float) -> Answer:
        """Run a command to its end.

        Parameters
        ----------
        arguments : sequence of str
            The program and its arguments, each taken literally on whatever way it goes.
        timeout_s : float
            How long it may take, in seconds; it is ended then.

        Raises
        ------
        Transient
            When the cluster could not be reached, or the command did not end in time.
        ConfigError
            When it never can be: the program is not there, the host's key is another one.
        """
        ...

    async def close(self) -> None:
        """Let go of what is open; the next call opens it again."""
        ...


class WorkFiles(Protocol):
    """How the files of a work directory get to the cluster and back.

    Attributes
    ----------
    shared : bool
        Whether both sides see the same files, so that nothing has to come.
    """

    shared: bool

    def there(self, path: str) -> str:
        """Return the path on the cluster of a path on this side."""
        ...

    async def send(self, paths: Sequence[str]) -> None:
        """Bring files, and folders with all that is in them, to the cluster.

        Raises
        ------
        Transient
            When not all of them are there.
        """
        ...

    async def collect(self, folders: Sequence[str]) -> None:
        """Bring back what is new below folders: results, logs, progress, outputs.

        Raises
        ------
        NotAllCame
            When of some of them more is to come.
        Transient
            When it is not known whether all has come.
        """
        ...


class SharedFiles:
    """Both sides see the same work directory: nothing travels."""

    shared = True

    def there(self, path: str) -> str:
        """Return the path itself."""
        return path

    async def send(self, paths: Sequence[str]) -> None:
        """Do nothing."""

    async def collect(self, folders: Sequence[str]) -> None:
        """Do nothing."""
