"""Slurm's verbs, by its commands: submit, read the queue and the accounting, cancel.

Whatever speaks to the cluster otherwise (slurmrestd) has the same verbs.  Each call has a time-out
of its own and is counted; what was not answered is Transient, and nothing is known then.
"""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from muster.backends.slurm.limits import ASSOCIATION_ARGUMENTS, parse_config, parse_limits
from muster.backends.slurm.parse import (
    ACCOUNTING_ARGUMENTS,
    QUEUE_ARGUMENTS,
    TIMES,
    parse_accounting,
    parse_job_completions,
    parse_job_id,
    parse_queue,
)
from muster.backends.slurm.refusal import classify_refusal, refusal_line
from muster.errors import InvalidInput, SoftwareError, StoreUnavailable, Transient
from muster.store.clusters import record_call

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from muster.backends.remote.transport import Answer, Transport
    from muster.backends.slurm.limits import Limits
    from muster.backends.slurm.parse import JobRow
    from muster.store.database import Database

ANSWER_TIMEOUT_S = 60.0
SUBMIT_TIMEOUT_S = 90.0

log = logging.getLogger(__name__)


class ClusterFull(Transient):
    """The cluster takes no more jobs now; this one was surely not taken."""


class SlurmClient(Protocol):
    """What the backend asks of a cluster.

    Every verb raises Transient when the cluster did not answer.
    """

    async def submit(self, folder: str, script: str) -> int:
        """Submit a script in a folder of the cluster and return the job's id.

        Raises
        ------
        ClusterFull
            When it was surely not taken, and may be later.
        Transient
            When it is not known whether it was taken.
        InvalidInput
            When it was refused for good.
        """
        ...

    async def read_queue(self, name: str | None = None) -> list[JobRow]:
        """Read this user's jobs, those that ended lately too: all, or those of a name."""
        ...

    async def read_accounting(
        self, ids: Sequence[str] = (), *, name: str | None = None, since: datetime
    ) -> list[JobRow]:
        """Read from the accounting what became of jobs, by their ids or by their name."""
        ...

    async def read_completions(self, path: str, names: Sequence[str]) -> list[JobRow]:
        """Read from Slurm's own log of ended jobs what became of those of these names."""
        ...

    async def cancel(self, name: str) -> None:
        """Cancel every job of a name; that there is none is no error."""
        ...

    async def read_limits(self) -> Limits:
        """Read what the cluster allows, and which sources it has."""
        ...


class CommandClient:
    """The verbs by sbatch, squeue, sacct, scancel, scontrol and sacctmgr.

    Parameters
    ----------
    transport : Transport
        How commands reach the cluster.
    db : Database
        Where calls are counted.
    cluster : str
        Under which name.
    account : str or None
        The account that is charged, whose limits count.
    """

    def __init__(
        self, transport: Transport, db: Database, cluster: str, account: str | None = None
    ) -> None:
        self._transport = transport
        self._db = db
        self._cluster = cluster
        self._account = account
        self._user: str | None = None

    async def submit(self, folder: str, script: str) -> int:
        """Submit a script by sbatch."""
        options = ["--parsable", f"--chdir={folder}", *_output_options(folder)]
        answer = await self._call("sbatch", *options, script, timeout_s=SUBMIT_TIMEOUT_S)
        if answer.exit_code == 0:
            return _read_job_id(answer.stdout)
        line = refusal_line(answer.stderr)
        match classify_refusal(answer):
            case "refused":
                raise InvalidInput("Slurm refused the job", where=self._cluster, got=line)
            case "busy":
                raise ClusterFull("Slurm takes no more jobs now", where=self._cluster, got=line)
        raise Transient("Slurm did not take the job", where=self._cluster, got=line)

    async def read_queue(self, name: str | None = None) -> list[JobRow]:
        """Read the queue by squeue."""
        named = ["-n", name] if name is not None else []
        user = await self._whoami()
        answer = await self._ask("env", *TIMES, "squeue", *QUEUE_ARGUMENTS, "-u", user, *named)
        return parse_queue(answer.stdout)

    async def read_accounting(
        self, ids: Sequence[str] = (), *, name: str | None = None, since: datetime
    ) -> list[JobRow]:
        """Read the accounting by sacct."""
        asked = ["-j", ",".join(ids)] if ids else [f"--name={name}"]
        start = (since - timedelta(days=1)).astimezone().strftime("%Y-%m-%dT%H:%M:%S")
        answer = await self._ask("env", *TIMES, "sacct", *ACCOUNTING_ARGUMENTS, "-S", start, *asked)
        return parse_accounting(answer.stdout)

    async def read_completions(self, path: str, names: Sequence[str]) -> list[JobRow]:
        """Read the log of ended jobs by grep, for nobody needs the whole of it."""
        arguments = [word for name in names for word in ("-e", f" Name={name} ")]
        answer = await self._call("grep", "-h", "-F", *arguments, path, timeout_s=ANSWER_TIMEOUT_S)
        if answer.exit_code == 2:  # it is not there, or not for us to read: so it is no source
            log.warning("the log of ended jobs is not read: %s", refusal_line(answer.stderr))
            return []
        if answer.exit_code > 2:
            raise self._silent("grep", answer)
        return parse_job_completions(answer.stdout)

    async def cancel(self, name: str) -> None:
        """Cancel by scancel, by name: an id may be another job's by now."""
        await self._ask("scancel", f"--name={name}", "-u", await self._whoami())

    async def read_limits(self) -> Limits:
        """Read the limits by scontrol, and by sacctmgr where there is accounting."""
        config = (await self._ask("scontrol", "show", "config")).stdout
        limits = parse_limits(config, "")
        if not limits.accounting or not _enforces_limits(config):
            return limits
        user = await self._whoami()
        answer = await self._call(
            "sacctmgr", *ASSOCIATION_ARGUMENTS, "where", f"user={user}", timeout_s=ANSWER_TIMEOUT_S
        )
        if answer.exit_code != 0:  # it is not needed to go on
            log.warning("no limits of the account are known: %s", refusal_line(answer.stderr))
            return limits
        return parse_limits(config, answer.stdout, self._account)

    async def _whoami(self) -> str:
        if self._user is None:
            self._user = (await self._ask("id", "-un")).stdout.strip()
        return self._user

    async def _ask(self, *arguments: str) -> Answer:
        """Call a command that has to end with 0."""
        answer = await self._call(*arguments, timeout_s=ANSWER_TIMEOUT_S)
        if answer.exit_code != 0:
            raise self._silent(_program(arguments), answer)
        return answer

    async def _call(self, *arguments: str, timeout_s: float) -> Answer:
        started = time.monotonic()
        answered = False
        try:
            answer = await self._transport.call(arguments, timeout_s=timeout_s)
            answered = answer.exit_code == 0
        finally:
            seconds = time.monotonic() - started
            await self._count(_program(arguments), seconds, answered=answered)
        return answer

    async def _count(self, command: str, seconds: float, *, answered: bool) -> None:
        try:
            await asyncio.to_thread(
                record_call, self._db, self._cluster, command, seconds, answered=answered
            )
        except StoreUnavailable as error:  # a count is not worth a wave
            log.debug("a call was not counted: %s", error)

    def _silent(self, command: str, answer: Answer) -> Transient:
        line = refusal_line(answer.stderr) or f"exit code {answer.exit_code}"
        return Transient(f"{command} was not answered", where=self._cluster, got=line)


def _enforces_limits(config: str) -> bool:
    """Tell whether an account's limits hold; elsewhere they are anything, also nought."""
    enforced = parse_config(config).get("AccountingStorageEnforce", "").split(",")
    return not {"limits", "safe"}.isdisjoint(enforced)


def _output_options(folder: str) -> list[str]:
    """Say where the jobs' own output goes, where the script cannot say it.

    slurmd takes a pattern for the whole path, the folder's part of it included; and one with a
    backslash in it for no pattern.
    """
    if "\\" in folder:
        path = folder.replace("\\", "\\\\")
    elif "%" in folder:
        path = folder.replace("%", "%%")
    else:
        return []
    return [f"--output={path}/jobs.out"]


def _program(arguments: Sequence[str]) -> str:
    """Name the program of a command, behind the variables that it is called with."""
    return next(word for word in arguments if word != "env" and "=" not in word)


def _read_job_id(text: str) -> int:
    """Read the id that sbatch has printed, behind what a site's wrapper may have put before it."""
    said = text.strip().splitlines()
    try:
        return parse_job_id(said[-1] if said else "")
    except SoftwareError as error:  # it was taken, and is found by its name
        raise Transient("sbatch did not say the job's id", got=error) from error
