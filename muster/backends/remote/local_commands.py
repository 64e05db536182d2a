"""A scheduler's commands on this machine: a process a call, in an environment of their own.

The settings of a person, of Airflow or of an enclosing job must not change what a client submits or
how it prints, and no secret of ours concerns a scheduler: a child gets the few variables that the
clients need.
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

    from muster.backends.remote.transport import SchedulerClients

KILL_PATIENCE_S = 5.0
"""How long a killed process is waited for: one that waits for a dead disk cannot be killed."""

_KEPT = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|TZ|TMPDIR|LANG|LANGUAGE|LC_[A-Z]+|LD_LIBRARY_PATH"
    r"|KRB5[A-Z0-9_]*|SSL_CERT_(?:FILE|DIR)|XDG_RUNTIME_DIR|MUNGE_[A-Z_]+"
)


def client_environment(environment: Mapping[str, str], clients: SchedulerClients) -> dict[str, str]:
    """Choose the variables that a scheduler's clients get, out of all."""
    kept = {
        name: value
        for name, value in environment.items()
        if _KEPT.fullmatch(name) or name in clients.kept
    }
    return {"PATH": os.defpath, **kept, **clients.settings}


class LocalCommands:
    """Runs commands on this machine.

    Parameters
    ----------
    clients : SchedulerClients
        Whose commands.
    environment : mapping of str to str, optional
        Variables that are set besides those that are kept of this process's, as for another
        cluster.
    """

    def __init__(
        self, clients: SchedulerClients, environment: Mapping[str, str] | None = None
    ) -> None:
        self._clients = clients
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
        environment = {**client_environment(os.environ, self._clients), **self._added}
        # looked up here: the kernel's own word may be about another folder of PATH
        program = shutil.which(arguments[0], path=environment["PATH"])
        if program is None:
            raise ConfigError(
                "no such program on this machine",
                where=arguments[0],
                got=f"PATH={environment['PATH']}",
                do=self._clients.install,
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
