"""Slurm's commands on this machine: a process a call, in an environment that says nothing else.

What a person, Airflow or an enclosing job has set must not change what sbatch submits or how
squeue prints, and no secret of ours is a business of a scheduler's: a child gets the few variables
that Slurm's clients need.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import shlex
import shutil
import signal
from typing import TYPE_CHECKING

from muster.backends.remote.transport import Answer, check_arguments
from muster.errors import ConfigError, InvalidInput, Transient

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Mapping, Sequence

KILL_PATIENCE_S = 5.0
"""How long a killed process is waited for: one that waits for a dead disk cannot be killed."""

_KEPT = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|TZ|TMPDIR|LANG|LANGUAGE|LC_[A-Z]+|LD_LIBRARY_PATH"
    r"|SLURM_CONF|SLURM_CONF_SERVER|SLURM_JWT|KRB5[A-Z0-9_]*|SSL_CERT_(?:FILE|DIR)"
    r"|XDG_RUNTIME_DIR|MUNGE_[A-Z_]+"
)


def slurm_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Choose the variables that Slurm's clients get, out of all; times are asked for as numbers."""
    kept = {name: value for name, value in environment.items() if _KEPT.fullmatch(name)}
    return {"PATH": os.defpath, **kept, "SLURM_TIME_FORMAT": "%s"}


class LocalCommands:
    """Runs commands on this machine.

    Parameters
    ----------
    environment : mapping of str to str, optional
        Variables that are set besides those that are kept of this process's: SLURM_CONF of
        another cluster, for one.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._added = dict(environment or {})

    async def call(self, arguments: Sequence[str], *, timeout_s: float) -> Answer:
        """Run a command to its end; killed with all that it started, where it takes too long."""
        process = await self._start(arguments)
        ended = False
        try:
            async with asyncio.timeout(timeout_s):
                stdout, stderr = await process.communicate()
            ended = True
        except TimeoutError as error:
            raise Transient(
                "the command did not end in time",
                where=shlex.join(arguments[:3]),
                expected=f"{timeout_s:g} s",
            ) from error
        finally:
            if not ended:
                await _kill(process)
        code = await process.wait()
        return Answer(
            code if code >= 0 else 128 - code,
            stdout.decode("utf-8", "replace"),
            stderr.decode("utf-8", "replace"),
        )

    async def close(self) -> None:
        """Do nothing: nothing is open between two calls."""

    async def _start(self, arguments: Sequence[str]) -> Process:
        check_arguments(arguments)
        environment = {**slurm_environment(os.environ), **self._added}
        # looked up here: the kernel's own word may be about another folder of PATH
        program = shutil.which(arguments[0], path=environment["PATH"])
        if program is None:
            raise ConfigError(
                "no such program on this machine",
                where=arguments[0],
                got=f"PATH={environment['PATH']}",
                do="install Slurm's clients (Debian: slurm-client), put them on PATH, or reach"
                " the cluster with transport = 'ssh'",
            )
        try:
            return await asyncio.create_subprocess_exec(
                program,
                *arguments[1:],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            if error.errno == errno.E2BIG:
                raise InvalidInput(
                    "the arguments are too long for one command",
                    where=arguments[0],
                    got=f"{sum(map(len, arguments))} characters",
                ) from error
            raise Transient(
                "the command did not start", where=arguments[0], got=error.strerror
            ) from error


async def _kill(process: Process) -> None:
    """End a process that has not been heard to its end, and what it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    waiting = asyncio.ensure_future(process.wait())
    try:
        await asyncio.wait({waiting}, timeout=KILL_PATIENCE_S)
    finally:
        waiting.cancel()
        # somebody who has left the group may hold the pipes open for ever
        process._transport.close()  # type: ignore[attr-defined]
