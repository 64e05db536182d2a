"""Listing folders of inputs, each once; imports no compute library."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from muster.errors import InvalidInput
from muster.storage import explain_os_error


@dataclass
class Listing:
    """The names in folders, each folder listed at most once.

    Attributes
    ----------
    folders : dict
        Path of a folder → the names in it; none where there is no such folder.
    refused : dict
        Path of a folder that may not be listed → why.
    """

    folders: dict[str, frozenset[str]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def names(self, folder: str) -> frozenset[str]:
        """Return the names in a folder; none where it is not there, or may not be listed.

        Raises
        ------
        muster.errors.Transient
            When the file system failed.
        """
        if folder not in self.folders:
            self.folders[folder] = self._list(folder)
        return self.folders[folder]

    def explain_lack(self, folder: str, what: str) -> str:
        """Say why something was not found in a folder."""
        self.names(folder)
        if folder in self.refused:
            return f"{folder} cannot be listed: {self.refused[folder]}"
        return f"{folder} holds no {what}"

    def _list(self, folder: str) -> frozenset[str]:
        try:
            return frozenset(os.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            return frozenset()
        except OSError as error:
            explained = explain_os_error(error, folder)
            if not isinstance(explained, InvalidInput):
                raise explained from error
            # One folder that is closed to us is the affair of the catalogues in it alone.
            self.refused[folder] = error.strerror or repr(error)
            return frozenset()
