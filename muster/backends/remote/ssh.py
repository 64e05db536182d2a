"""Commands on a login node: one connection for all of them, and no answer but theirs.

A login shell may be any shell and may print what it likes, so nothing that comes from elsewhere is
ever on its command line: it starts ``sh``, which reads what to run from its input and says when
the answer begins.  A connection that breaks takes the calls under way with it, each as Transient:
nobody knows what became of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import shlex
import signal
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from muster.backends.remote.ssh_login import LoginRefused, import_asyncssh, log_in
from muster.backends.remote.transport import Answer, check_arguments
from muster.errors import ConfigError, MusterError, Transient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    import asyncssh

    from muster.backends.remote.transport import SchedulerClients
    from muster.model.login import Login

SHELL = "exec /bin/sh"
SESSIONS = 6
"""Commands at once; OpenSSH lets a connection have 10 by default."""
STEADY_S = 30.0
"""A connection that lived longer is taken up again as if nothing had failed before."""
LONGEST_BACK_OFF_S = 60.0
REFUSED_FACTOR = 30.0
"""Who is refused too often in a short time is locked out by some hosts."""
GUARD_S = 5
"""How much later than here a slow command is ended over there, should nobody tell it to."""
END_PATIENCE_S = 5.0


def render_script(
    clients: SchedulerClients,
    arguments: Sequence[str],
    token: str,
    timeout_s: float,
    data: str | None = None,
) -> str:
    """Write what ``sh`` reads to run one program.

    Parameters
    ----------
    clients : SchedulerClients
        Which variables the program gets.
    arguments : sequence of str
        The program and its arguments.
    token : str
        What tells on both streams that the answer begins: on stdout with the number of the
        process, on a line that has its end.
    timeout_s : float
        When it is ended at the latest, where there is coreutils' ``timeout``.
    data : str, optional
        The program's input, which ends with a line feed; by default none.
    """
    program = shlex.quote(arguments[0])
    command = shlex.join(arguments)
    variables = " ".join(
        f"-e 's/^\\({prefix}_[A-Za-z0-9_]*\\)=.*/\\1/p'" for prefix in clients.prefixes
    )
    kept = "|".join(clients.kept)
    settings = "\n".join(f"export {name}={shlex.quote(v)}" for name, v in clients.settings.items())
    given = f"<<'{token}'\n{data}{token}" if data is not None else "</dev/null"
    guard = math.ceil(timeout_s) + GUARD_S
    return f"""\
printf '%s %s\\n' '{token}' $$
printf '%s\\n' '{token}' >&2
if ! command -v {program} >/dev/null 2>&1; then
  . /etc/profile >/dev/null 2>&1 </dev/null
fi
for name in $(env | sed -n {variables}); do
  case $name in
    {kept}) ;;
    *) unset "$name" ;;
  esac
done
{settings}
if ! command -v {program} >/dev/null 2>&1; then
  printf '%s' 'absent {token}' >&2
  exit 127
fi
guard=
if command -v timeout >/dev/null 2>&1; then guard='timeout -s KILL {guard}'; fi
exec $guard {command} {given}
"""


@dataclass
class RemoteProcess:
    """A program that runs on the login node.

    Attributes
    ----------
    stdout : asyncssh.SSHReader
        Bytes that it prints, without what the login shell printed before.
    """

    stdout: asyncssh.SSHReader[bytes]
    _process: asyncssh.SSHClientProcess[bytes]
    _errors: asyncio.Future[bytes]
    _token: str
    _install: str

    async def end(self) -> tuple[int, str]:
        """Wait for its end; the exit code as a shell tells it, and what it said on stderr."""
        stderr = (await self._errors).decode("utf-8", "replace")
        await self._process.wait_closed()
        said = stderr.rpartition(f"{self._token}\n")[2]
        if self._process.exit_signal is not None:
            name = f"SIG{self._process.exit_signal[0]}"
            number = getattr(signal, name, signal.SIGKILL)
            return 128 + int(number), said
        code = self._process.exit_status
        if code is None or code < 0:
            raise Transient("the connection ended before the command did", got=said or None)
        if code == 127 and said == f"absent {self._token}":
            raise ConfigError(
                "no such program on the login node",
                do=self._install,
            )
        return code, said


class SshCommands:
    """Runs commands on a cluster's login node, over one connection that is kept.

    Parameters
    ----------
    login : Login
        Where.
    clients : SchedulerClients
        Whose commands.
    keepalive_s : float
        How often a silent peer is asked for an answer; it is given up after three times that.
    back_off_s : float
        How long it is waited, about, before a second attempt to connect; doubled for each further.
    connect_s : float
        How long one attempt may take.
    """

    def __init__(
        self,
        login: Login,
        clients: SchedulerClients,
        *,
        keepalive_s: float = 10.0,
        back_off_s: float = 1.0,
        connect_s: float = 30.0,
    ) -> None:
        self.login = login
        self._clients = clients
        self._keepalive_s = keepalive_s
        self._back_off_s = back_off_s
        self._connect_s = connect_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._forget()

    async def call(self, arguments: Sequence[str], *, timeout_s: float) -> Answer:
        """Run a command to its end."""
        async with self.run(arguments, timeout_s=timeout_s) as process:
            stdout = await process.stdout.read()
            code, stderr = await process.end()
        return Answer(code, stdout.decode("utf-8", "replace"), stderr)

    @contextlib.asynccontextmanager
    async def run(
        self, arguments: Sequence[str], *, timeout_s: float, data: str | None = None
    ) -> AsyncIterator[RemoteProcess]:
        """Give a program that runs on the login node; it is ended where the block ends first.

        Parameters
        ----------
        arguments : sequence of str
            The program and its arguments, taken literally.
        timeout_s : float
            How long all may take, the connection and the block included.
        data : str, optional
            The program's input: text that ends with a line feed.
        """
        check_arguments(arguments)
        token = f"muster-{uuid.uuid4().hex}"
        script = render_script(self._clients, arguments, token, timeout_s, data)
        what = shlex.join(arguments[:3])[:200]
        async with self._session(what, timeout_s) as connection:
            process: Any = await connection.create_process(SHELL, encoding=None)
            errors = asyncio.ensure_future(process.stderr.read())
            number = None
            try:
                with contextlib.suppress(BrokenPipeError):  # it has ended: what it said tells why
                    process.stdin.write(script.encode("utf-8", "surrogateescape"))
                    process.stdin.write_eof()
                try:
                    await process.stdout.readuntil(f"{token} ".encode())
                    number = int(await process.stdout.readuntil(b"\n"))
                except asyncio.IncompleteReadError as error:
                    said = (error.partial + await errors)[-200:].decode("utf-8", "replace")
                    raise Transient(
                        "the login shell ended without running the command", where=what, got=said
                    ) from error
                yield RemoteProcess(
                    process.stdout, process, errors, token, self._clients.install_there
                )
            finally:
                errors.cancel()
                if number is not None and process.exit_status is None:
                    self._end_there(connection, number)
                process.close()

    @contextlib.asynccontextmanager
    async def sftp(self, timeout_s: float) -> AsyncIterator[asyncssh.SFTPClient]:
        """Give a session for files."""
        async with (
            self._session("sftp", timeout_s) as connection,
            connection.start_sftp_client() as client,
        ):
            yield client

    async def close(self) -> None:
        """Let go of the connection; the next call makes another one."""
        connection, attempt = self._connection, self._attempt
        endings = self._endings
        self._forget()
        if endings:
            await asyncio.wait(endings, timeout=END_PATIENCE_S)
        if attempt is not None:
            attempt.cancel()
        if connection is not None:
            connection.close()
            with contextlib.suppress(Exception):
                async with asyncio.timeout(5):
                    await connection.wait_closed()
            connection.abort()

    def _end_there(self, connection: asyncssh.SSHClientConnection, number: int) -> None:
        """End a program over there, in a session of its own.

        OpenSSH passes signals on for some accounts only, and does not end what it started when
        nobody listens any more.
        """

        async def end() -> None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(END_PATIENCE_S):
                    kill = f"kill -KILL -{number} 2>/dev/null || kill -KILL {number}"
                    await connection.run(SHELL, input=f"{kill}\n")

        ending = asyncio.create_task(end())
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)

    def _forget(self) -> None:
        self._endings: set[asyncio.Task[None]] = set()
        self._connection: asyncssh.SSHClientConnection | None = None
        self._attempt: asyncio.Task[asyncssh.SSHClientConnection] | None = None
        self._sessions = asyncio.Semaphore(SESSIONS)
        self._failures = 0
        self._connected_at = -math.inf
        self._not_before = -math.inf
        self._error: MusterError | None = None

    @contextlib.asynccontextmanager
    async def _session(
        self, what: str, timeout_s: float
    ) -> AsyncIterator[asyncssh.SSHClientConnection]:
        """Give the connection for one session, and turn whatever breaks it into Transient."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # what belongs to a loop that has ended is of no use
            self._loop = loop
            self._forget()
        where = f"{what} on {self.login.host}"
        try:
            async with asyncio.timeout(timeout_s):
                async with self._sessions:
                    connection = await self._connect(loop.time() + timeout_s)
                    with _breaks(where):
                        yield connection
        except TimeoutError as error:
            raise Transient(
                "the command did not end in time",
                where=where,
                got=self._error,
                expected=f"{timeout_s:g} s",
            ) from error

    async def _connect(self, until: float) -> asyncssh.SSHClientConnection:
        """Return the connection; all who want one wait for the same attempt."""
        loop = asyncio.get_running_loop()
        while True:
            if self._connection is not None and not self._connection.is_closed():
                return self._connection
            if self._connection is not None:
                self._lost(loop.time())
            if self._attempt is None:
                later = self._error is not None and (
                    isinstance(self._error, ConfigError) or self._not_before >= until
                )
                if self._error is not None and later and loop.time() < self._not_before:
                    raise self._error
                self._attempt = asyncio.create_task(self._try())
                self._attempt.add_done_callback(self._tried)
            return await asyncio.shield(self._attempt)

    async def _try(self) -> asyncssh.SSHClientConnection:
        delay_s = self._not_before - asyncio.get_running_loop().time()
        if delay_s > 0:
            await asyncio.sleep(delay_s)
        return await log_in(self.login, keepalive_s=self._keepalive_s, timeout_s=self._connect_s)

    def _tried(self, attempt: asyncio.Task[asyncssh.SSHClientConnection]) -> None:
        if attempt is not self._attempt:  # closed meanwhile
            if not attempt.cancelled() and attempt.exception() is None:
                attempt.result().abort()
            return
        self._attempt = None
        if attempt.cancelled():
            return
        now = asyncio.get_running_loop().time()
        error = attempt.exception()
        if error is None:
            self._connection, self._connected_at, self._error = attempt.result(), now, None
            return
        self._error = error if isinstance(error, MusterError) else Transient(repr(error))
        factor = REFUSED_FACTOR if isinstance(error, LoginRefused) else 1.0
        self._wait(now, factor)

    def _lost(self, now: float) -> None:
        """Note that the connection is gone, and when another one may be made."""
        self._connection = None
        if now - self._connected_at > STEADY_S:
            self._failures = 0
        self._wait(now, 1.0)

    def _wait(self, now: float, factor: float) -> None:
        """Put the next attempt off: doubled each time, and not at the same moment for all."""
        longest = LONGEST_BACK_OFF_S * max(1.0, factor / 3)
        delay_s = min(self._back_off_s * factor * 2.0**self._failures, longest)
        self._not_before = now + delay_s * random.uniform(0.5, 1.0)
        self._failures = min(self._failures + 1, 10)


@contextlib.contextmanager
def _breaks(where: str) -> Iterator[None]:
    """Raise whatever breaks a session as Transient."""
    asyncssh = import_asyncssh()
    try:
        yield
    except (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection) as error:
        raise Transient("the connection broke", where=where, got=error) from error
    except asyncssh.SFTPError:
        raise
    except (asyncssh.Error, OSError, EOFError) as error:
        if isinstance(error, TimeoutError):
            raise
        raise Transient("the connection broke", where=where, got=error or repr(error)) from error
