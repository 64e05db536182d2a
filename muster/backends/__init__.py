"""The places where attempts run, behind one small contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

from muster.errors import ConfigError

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
        """Open the backend that a batch was frozen with.

        Raises
        ------
        ConfigError
            When this version has no such backend.
        """
        if batch.backend == "local":
            from muster.backends.local import LocalBackend

            return self._open.setdefault("local", LocalBackend(self._db.url))
        if batch.backend == "slurm" and batch.slurm is not None:
            from muster.backends.slurm.backend import open_slurm

            target = batch.slurm
            # what differs from pool to pool is no matter of how the cluster is spoken to
            told = target.cluster.model_dump_json(
                exclude={"python", "prelude", "container", "environment"}
            )
            name = f"slurm {told} {target.work_root}"
            if name not in self._open:
                self._open[name] = open_slurm(self._db, target)
            return self._open[name]
        raise ConfigError(
            "this version has no such backend", got=batch.backend, expected="local or slurm"
        )

    async def close(self) -> None:
        """Let go of what the backends hold open; nothing that runs is touched."""
        for backend in self._open.values():
            await backend.close()
        self._open.clear()
