"""The places where attempts run, behind one small contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

from muster.errors import ConfigError

if TYPE_CHECKING:
    from muster.backends.contract import Backend


def open_backend(name: str) -> Backend:
    """Open the backend that a batch was frozen with.

    Raises
    ------
    ConfigError
        When this version has no such backend.
    """
    if name == "local":
        from muster.backends.local import LocalBackend

        return LocalBackend()
    raise ConfigError("this version has no such backend", got=name, expected="local")
