"""The places where attempts run, behind one small contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

from muster.backends.registry import BACKENDS
from muster.imports import load_named

if TYPE_CHECKING:
    from muster.backends.contract import Backend
    from muster.model.batch import Batch
    from muster.store.database import Database


class Backends:
    """The backends of one process, or of one event loop of it: batches share what they can.

    Parameters
    ----------
    db : Database
        The store, where those that look at a cluster find each other.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._open: dict[str, Backend] = {}

    def open(self, batch: Batch) -> Backend:
        """Open the backend that a batch was frozen with."""
        name = batch.target.connection
        if name not in self._open:
            self._open[name] = load_named(BACKENDS[batch.backend].opener)(self._db, batch.target)
        return self._open[name]

    async def close(self) -> None:
        """Let go of what the backends hold open; nothing that runs is touched."""
        for backend in self._open.values():
            await backend.close()
        self._open.clear()
