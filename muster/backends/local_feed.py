"""A runner of this machine: how it is started, and how it is given one element after the other.

It tells over a socket which element has ended, and with which exit code, and is answered by the
index of the next one; when the socket is closed it ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from muster.backends.attempt_log import local_work_path
from muster.model.environment import LOG_VARIABLE, PARENT_VARIABLE, store_variables
from muster.storage import explain_os_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from muster.model.wave import Wave

LONGEST_WORD = 1024
END_POLL_S = 0.1


@dataclass(frozen=True)
class Runner:
    """A runner that was started.

    Attributes
    ----------
    process : subprocess.Popen
        It.
    channel : socket or None
        Where it asks for more; None where it runs one element.
    """

    process: subprocess.Popen[bytes]
    channel: socket.socket | None = None


def start_runner(wave: Wave, index: int, slot: int, store_url: str | None, *, fed: bool) -> Runner:
    """Start a runner with its first element.

    Parameters
    ----------
    slot : int
        The open lock that it holds for as long as it runs.
    store_url : str or None
        Where the store is, for batches whose jobs are told.
    fed : bool
        Whether it is to ask for more.

    Raises
    ------
    MusterError
        When it cannot be started.
    """
    if not fed:
        return Runner(_start(wave, index, (slot,), store_url, []))
    ours, theirs = socket.socketpair()
    with theirs:
        arguments = ["--feed", str(theirs.fileno()), *([] if wave.batch.layout else ["--logs"])]
        try:
            descriptors = (slot, theirs.fileno())
            return Runner(_start(wave, index, descriptors, store_url, arguments), ours)
        except BaseException:
            ours.close()
            raise


def _start(
    wave: Wave,
    index: int,
    descriptors: tuple[int, ...],
    store_url: str | None,
    arguments: list[str],
) -> subprocess.Popen[bytes]:
    batch = wave.batch
    log_path = local_work_path(batch.log_uri(index, wave.attempts[index]))
    environment = {
        **{name: value for name, value in os.environ.items() if not _is_secret(name)},
        "MUSTER_JOB": wave.key,
        "MUSTER_BATCH": batch.uri,
        "MUSTER_INDEX": str(index),
        "MUSTER_ATTEMPT": str(wave.attempts[index]),
        "MUSTER_WORK": batch.work_uri,
        **({LOG_VARIABLE: f"logs/{log_path.name}"} if batch.layout else {}),
        **store_variables(batch, store_url),
        PARENT_VARIABLE: str(os.getpid()),
        "PYTHONUNBUFFERED": "1",
    }
    command = [sys.executable, "-m", "muster", "run", batch.uri, "--index", str(index)]
    try:
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("ab") as log_file:
            return subprocess.Popen(
                [*command, *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=subprocess.STDOUT,
                pass_fds=descriptors,
                start_new_session=True,
            )
    except OSError as error:
        raise explain_os_error(error, log_path) from error


async def feed_runner(runner: Runner, take_next: Callable[[int, int], int | None]) -> None:
    """Give a runner elements until there is none for it, and see it end.

    Parameters
    ----------
    take_next : callable
        ``take_next(index, exit_code)`` is told how an element ended, and gives the next one.
    """
    if runner.channel is not None:
        reader, writer = await asyncio.open_connection(sock=runner.channel, limit=LONGEST_WORD)
        try:
            while line := await reader.readline():
                said = json.loads(line)
                following = take_next(int(said["ended"]), int(said["code"]))
                if following is None:
                    break
                writer.write(f"{following}\n".encode())
                await writer.drain()
        except (OSError, ValueError, TypeError, KeyError):
            pass  # it dies, or talks nonsense: it gets no more, and its end says the rest
        finally:
            writer.close()
    while runner.process.poll() is None:
        await asyncio.sleep(END_POLL_S)


def _is_secret(variable: str) -> bool:
    """Tell what a job must not inherit: the keys of the metadata stores and of Airflow."""
    return variable == "MUSTER_STORE_URL" or variable.startswith(("AIRFLOW_", "_AIRFLOW"))
