"""A login node, as a site file names it and OpenSSH may know it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from muster.frozen import Frozen

Host = Annotated[str, Field(pattern=r"^[A-Za-z0-9_\[][A-Za-z0-9_.:%\[\]-]*$")]
"""A host, an address or a user, as a command's argument that no option can hide in."""


class Login(Frozen):
    """How a cluster is reached over ssh; it names a file that holds a key, and holds none.

    Attributes
    ----------
    host, port, user : str, int, str
        The login node, as ``~/.ssh/config`` may know it.
    key, known_hosts : str or None
        Files of the private key and of the hosts' keys; by default those of OpenSSH.
    """

    host: Host | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    user: Host | None = None
    key: str | None = None
    known_hosts: str | None = None
