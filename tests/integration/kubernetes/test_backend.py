"""The Kubernetes backend keeps the contract of all backends, by Jobs of a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from muster.backends.kubernetes.backend import KubernetesBackend
from tests.backend_contract import BackendContract
from tests.integration.kubernetes.backend_under_test import make_target

if TYPE_CHECKING:
    from pathlib import Path

    from muster.backends.contract import Backend
    from muster.model.batch import Batch
    from muster.store.database import Database
    from tests.kubernetes_under_test import KubernetesUnderTest


class TestKubernetesBackend(BackendContract):
    """The contract, kept by Jobs of a cluster."""

    @pytest.fixture(autouse=True)
    def _cluster(self, kubernetes: KubernetesUnderTest, db: Database, tmp_path: Path) -> None:
        self.kubernetes = kubernetes
        self.db = db
        self.target = make_target(kubernetes, tmp_path)

    def make_backend(self) -> Backend:
        backend = KubernetesBackend(self.db, self.target.cluster)
        backend.settle_s, backend.look_again_s = 2.0, 0.5
        return backend

    def place(self, batch: Batch) -> Batch:
        return batch.model_copy(update={"target": self.target})

    def count_jobs(self, key: str) -> int:
        return self.kubernetes.count_processes(key)
