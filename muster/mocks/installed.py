"""Which packages of a halo source or a galaxy model are installed; found without an import."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Protocol

from muster.mocks.errors import ModelNotInstalled

if TYPE_CHECKING:
    from collections.abc import Iterable


class Installable(Protocol):
    """A halo source or a galaxy model."""

    def check_installed(self) -> str | None:
        """Return what is missing here and how to install it, in a sentence; None if nothing is."""


def find_absent(modules: Iterable[str]) -> list[str]:
    """List the modules that are not installed."""
    return [name for name in modules if importlib.util.find_spec(name) is None]


def require_installed(*parts: Installable, where: str | None = None) -> None:
    """Refuse parts whose packages are not installed.

    Raises
    ------
    ModelNotInstalled
        For the first of them.
    """
    for part in parts:
        absent = part.check_installed()
        if absent is not None:
            raise ModelNotInstalled(absent, where=where)
