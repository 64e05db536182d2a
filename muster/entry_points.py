"""Parts that are found by name: Muster's own, and those that installed packages add.

A package adds a part as an entry point of the part's group.  Listing names imports no part; a part
is imported when it is loaded.  A broken or doubled entry point ends the loading of its own name,
told with the distribution that it is of, and nothing else.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from muster.errors import ConfigError
from muster.imports import load_named

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.metadata import EntryPoint

log = logging.getLogger(__name__)

Part = TypeVar("Part")

_IMPORT_FAILURES = (
    ImportError, SyntaxError, AttributeError, NameError, LookupError, TypeError, ValueError,
    RuntimeError, OSError,
)  # fmt: skip
"""What the module of another package may fail with while it is imported."""


@dataclass(frozen=True)
class Registry(Generic[Part]):
    """The parts of one kind.

    Attributes
    ----------
    group : str
        Group of the entry points by which an installed package adds parts.
    noun : str
        What a person calls a part: step, galaxy model.
    own : mapping of str to str
        Name → "module:attribute" of Muster's own parts, which no package can replace.
    """

    group: str
    noun: str
    own: Mapping[str, str]

    def __contains__(self, name: str) -> bool:
        """Tell whether there is a part of that name; whether it can be loaded is not looked at."""
        return name in self.own or any(entry.name == name for entry in _read_entries(self.group))

    def names(self) -> list[str]:
        """List the names of all parts, Muster's own first."""
        return list(dict.fromkeys([*self.own, *(e.name for e in _read_entries(self.group))]))

    def load(self, name: str) -> Part:
        """Return a part.

        Raises
        ------
        ConfigError
            When there is none of that name, when packages disagree about it, or when the package's
            module cannot be imported.
        """
        if name in self.own:
            part: Part = load_named(self.own[name])
            return part
        entries = [entry for entry in _read_entries(self.group) if entry.name == name]
        if not entries:
            known = ", ".join(self.names())
            raise ConfigError(f"unknown {self.noun}", got=name, expected=known)
        if len({entry.value for entry in entries}) > 1:
            raise ConfigError(
                f"{self.noun} {name} is there more than once",
                got=", ".join(map(_describe, entries)),
                expected="one",
                do="uninstall all but one of these packages",
            )
        return self._load_entry(entries[0])

    def find(self, name: str) -> Part | None:
        """Return a part; None where there is none or, with a warning, it cannot be loaded."""
        if name not in self:
            return None
        try:
            return self.load(name)
        except ConfigError as error:
            log.warning("%s", error)
            return None

    def _load_entry(self, entry: EntryPoint) -> Part:
        try:
            part: Part = entry.load()
        except _IMPORT_FAILURES as error:
            raise ConfigError(
                f"{self.noun} {entry.name} cannot be loaded",
                where=_describe(entry),
                got=f"{type(error).__name__}: {error}",
                do="mend or uninstall that package",
            ) from error
        return part


def _describe(entry: EntryPoint) -> str:
    of = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown package"
    return f"{entry.value} of {of}"


def _read_entries(group: str) -> list[EntryPoint]:
    """Read the entry points of a group, of each distribution once; none is imported."""
    import importlib.metadata  # a third of a process's start, for packages of others alone

    return list(importlib.metadata.entry_points(group=group))
