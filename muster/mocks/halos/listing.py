"""Listing folders of inputs, each once; imports no compute library."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from muster.storage import os_errors_at


@dataclass
class Listing:
    """The names in folders, each folder listed at most once.

    Attributes
    ----------
    folders : dict
        Path of a folder → the names in it, or None where there is no such folder.
    """

    folders: dict[str, frozenset[str] | None] = field(default_factory=dict)

    def names(self, folder: str) -> frozenset[str] | None:
        """Return the names in a folder; None if there is no such folder.

        Raises
        ------
        muster.errors.InvalidInput, muster.errors.Transient
            When it is there and cannot be listed.
        """
        if folder not in self.folders:
            with os_errors_at(folder):
                try:
                    self.folders[folder] = frozenset(os.listdir(folder))
                except (FileNotFoundError, NotADirectoryError):
                    self.folders[folder] = None
        return self.folders[folder]
