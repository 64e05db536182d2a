"""The Slurm backend on a real cluster: the contract, and what only a scheduler has."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from muster.backends.remote.local_commands import LocalCommands
from muster.backends.remote.transport import SharedFiles
from muster.backends.slurm.backend import SlurmBackend
from muster.backends.slurm.client import CommandClient
from muster.backends.slurm.clients import SLURM_CLIENTS
from muster.model.slurm_target import Cluster, SlurmTarget
from tests.backend_contract import BackendContract
from tests.batches import STEPS_FOLDER
from tests.integration.slurm.campaign import count_jobs

if TYPE_CHECKING:
    from minislurm.cluster import SlurmCluster
    from muster.backends.contract import Backend
    from muster.model.batch import Batch
    from muster.store.database import Database

pytestmark = pytest.mark.slurm


class TestSlurmBackend(BackendContract):
    """The contract, kept by jobs of a cluster."""

    @pytest.fixture(autouse=True)
    def _cluster(self, slurm_cluster: SlurmCluster, db: Database) -> None:
        self.slurm = slurm_cluster
        self.db = db
        self.cluster = Cluster(
            poll_every="00:00:01",
            result_grace="00:00:02",
            submissions_per_s=100,
            environment={"PYTHONPATH": os.pathsep.join([str(STEPS_FOLDER)])},
        )

    def make_backend(self) -> Backend:
        transport = LocalCommands(SLURM_CLIENTS, self.slurm.environment)
        client = CommandClient(transport, self.db, "slurm")
        backend = SlurmBackend(self.db, self.cluster, client, SharedFiles(), transport)
        backend.look_again_s = 0.5
        return backend

    def place(self, batch: Batch) -> Batch:
        place = SlurmTarget(cluster=self.cluster, partition="genoa")
        return batch.model_copy(update={"target": place})

    def count_jobs(self, key: str) -> int:
        return count_jobs(key)
