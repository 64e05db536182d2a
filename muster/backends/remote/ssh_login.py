"""One log-in at a login node: with whose key, on whose word about the host, and why it failed.

The host's key is always checked, and nobody is ever asked anything.  What only a person can change
(an unknown host, a key file that is not there) is a ConfigError that says what to type; a log-in
that is refused may be an agent or a ticket that has expired, which no batch must fail for.
"""

from __future__ import annotations

import asyncio
import logging
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muster.errors import ConfigError, MusterError, Transient

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    import asyncssh

    from muster.model.login import Login

GLOBAL_KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts"
MISSED_KEEPALIVES = 2
KEY_KINDS = (
    "ssh-ed25519,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521,"
    "rsa-sha2-256,rsa-sha2-512"
)
"""Accepted after the kinds that are known of a host: a changed key is to be seen to be told."""


class LoginRefused(Transient):
    """The login node answers, and does not let this account in: to be tried again slowly."""


def import_asyncssh() -> ModuleType:
    """Return the library, or say how to get it."""
    try:
        import asyncssh
    except ImportError as error:
        raise ConfigError(
            "transport = 'ssh' needs a library that is not installed",
            got=error,
            do="make ssh, or pip install 'muster[ssh]' outside the repository's .venv",
        ) from error
    logger = logging.getLogger("asyncssh")
    if logger.level == logging.NOTSET:  # it tells of each command, to whoever runs a batch
        logger.setLevel(logging.WARNING)
    return asyncssh


async def log_in(
    login: Login, *, keepalive_s: float, timeout_s: float
) -> asyncssh.SSHClientConnection:
    """Connect to a cluster's login node.

    Parameters
    ----------
    login : Login
        Which; what it leaves open, ``~/.ssh/config`` and the defaults of OpenSSH say.
    keepalive_s : float
        How often a silent peer is asked for an answer, in seconds.
    timeout_s : float
        How long it may take.

    Raises
    ------
    Transient
        When it may work later; LoginRefused where the account was not let in.
    ConfigError
        When a person has to change something first.
    """
    library = import_asyncssh()
    options = await asyncio.to_thread(_prepare, login, _settings(login, keepalive_s))
    word = _HostKeys(login, _known_hosts_files(login, options.known_hosts))

    def make_client() -> asyncssh.SSHClient:
        client: asyncssh.SSHClient = library.SSHClient()
        vars(client)["validate_host_public_key"] = word.refuse
        return client

    try:
        async with asyncio.timeout(timeout_s):
            connection: asyncssh.SSHClientConnection = await library.connect(
                login.host,
                options=options,
                known_hosts=word.match,
                client_factory=make_client,
            )
            return connection
    except MusterError:
        raise
    except TimeoutError as error:
        raise Transient(
            "the login node did not answer in time",
            where=_address(login),
            expected=f"{timeout_s:g} s",
        ) from error
    except library.HostKeyNotVerifiable as error:
        raise word.explain(error) from error
    except library.KeyExchangeFailed as error:
        if "host key" in str(error).lower():
            raise word.explain(error) from error
        raise _unreachable(login, error) from error
    except library.PermissionDenied as error:
        raise LoginRefused(
            "the login node refused to let this account in; it is tried again later",
            where=_address(login),
            got=error,
            do=f"renew the ticket or the agent's key, or have the key authorized there;"
            f" try: {_ssh_command(login)}",
        ) from error
    except (library.Error, OSError, EOFError) as error:
        raise _unreachable(login, error) from error


def _settings(login: Login, keepalive_s: float) -> dict[str, Any]:
    """Say what the site says; what it does not say is left to OpenSSH's own files."""
    said: dict[str, Any] = {"port": login.port, "username": login.user}
    if login.key is not None:
        said["client_keys"] = [str(Path(login.key).expanduser())]
    return {
        **{name: value for name, value in said.items() if value is not None},
        "keepalive_interval": keepalive_s,
        "keepalive_count_max": MISSED_KEEPALIVES,
        "password_auth": False,
        "kbdint_auth": False,
        "agent_forwarding": False,
        "x11_forwarding": False,
        "request_pty": False,
        "env": None,
        "send_env": None,
    }


def _prepare(login: Login, settings: dict[str, Any]) -> Any:
    """Read OpenSSH's configuration and the private key."""
    asyncssh = import_asyncssh()
    try:
        options = asyncssh.SSHClientConnectionOptions(host=login.host, config=(), **settings)
        if options.config.get("HostKeyAlgorithms") is not None:
            return options
        return asyncssh.SSHClientConnectionOptions(options, server_host_key_algs=f"+{KEY_KINDS}")
    except asyncssh.ConfigParseError as error:
        raise ConfigError("OpenSSH's configuration is wrong", got=error) from error
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        raise ConfigError(
            "the private key cannot be used",
            where=login.key,
            got=error,
            do="load a key with a passphrase into an agent (ssh-add), and leave key out",
        ) from error
    except OSError as error:
        raise ConfigError(
            "a file of OpenSSH cannot be read",
            where=error.filename or login.key,
            got=error.strerror,
            do="check the cluster's key",
        ) from error


def _known_hosts_files(login: Login, configured: object) -> list[Path]:
    """List where hosts' keys are looked up; that nothing is to be checked is not listened to."""
    if login.known_hosts is not None:
        return [Path(login.known_hosts).expanduser()]
    if isinstance(configured, list) and configured:
        return [Path(name).expanduser() for name in configured]
    return [Path("~/.ssh/known_hosts").expanduser(), Path(GLOBAL_KNOWN_HOSTS)]


@dataclass
class _HostKeys:
    """What files say of a host's key, and how to tell what is wrong with it.

    Attributes
    ----------
    offered : str or None
        Fingerprint of a key that the host has shown and no file knows.
    """

    login: Login
    files: list[Path]
    offered: str | None = None
    _name: str = ""
    _known: bool = field(default=False)

    def match(self, host: str, addr: str, port: int | None) -> Sequence[Sequence[Any]]:
        """Look a host up, as the library asks for it."""
        asyncssh = import_asyncssh()
        self._name = host if port is None else f"[{host}]:{port}"
        readable = [str(path) for path in self.files if path.is_file()]
        try:
            known = asyncssh.read_known_hosts(readable) if readable else None
        except (ValueError, OSError) as error:
            raise ConfigError(
                "the file of known hosts cannot be read", where=", ".join(readable), got=error
            ) from error
        if known is None:
            return ((),) * 7
        found: Sequence[Sequence[Any]] = asyncssh.match_known_hosts(known, host, addr, port)
        self._known = any(found[:3])
        return found

    def refuse(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Note the key that no file knows, as the library asks whether to trust it."""
        self.offered = key.get_fingerprint()
        return False

    def explain(self, error: Exception) -> ConfigError:
        """Tell an unknown host from one with another key than before."""
        file = self.files[0]
        offered = f"fingerprint {self.offered}" if self.offered else str(error)
        learn = f"{_ssh_command(self.login, known_hosts=file)} — and say yes where they agree"
        if not self._known:
            return ConfigError(
                "the host's key is not known",
                where=self._name or _address(self.login),
                got=offered,
                expected=f"a key in {', '.join(map(str, self.files))}",
                do=f"compare the fingerprint with the one that the cluster publishes: {learn}",
            )
        forget = f"ssh-keygen -R {shlex.quote(self._name)} -f {shlex.quote(str(file))}"
        return ConfigError(
            "the host's key is another one than before: the host was set up anew, or somebody"
            " stands between",
            where=self._name,
            got=offered,
            expected=f"the key in {', '.join(map(str, self.files))}",
            do=f"ask the cluster's people; if they have changed it: {forget}; {learn}",
        )


def _unreachable(login: Login, error: Exception) -> Transient:
    return Transient("the login node cannot be reached", where=_address(login), got=repr(error))


def _address(login: Login) -> str:
    user = f"{login.user}@" if login.user else ""
    port = f":{login.port}" if login.port else ""
    return f"{user}{login.host}{port}"


def _ssh_command(login: Login, known_hosts: Path | None = None) -> str:
    """Say what a person types to try the same."""
    words = ["ssh"]
    if login.port:
        words += ["-p", str(login.port)]
    if login.key:
        words += ["-i", login.key]
    if known_hosts or login.known_hosts:
        words += ["-o", f"UserKnownHostsFile={known_hosts or login.known_hosts}"]
    user = f"{login.user}@" if login.user else ""
    return shlex.join([*words, f"{user}{login.host}", "true"])
