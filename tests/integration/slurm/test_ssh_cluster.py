"""A cluster of which one has only a login node: the contract, and batches through every break."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from muster.backends.slurm import poller
from muster.backends.slurm.place import SlurmPlace
from tests import backend_contract
from tests.backend_contract import BackendContract
from tests.integration.backends.sshd import Sshd, sshd
from tests.integration.slurm.campaign import count_jobs
from tests.integration.slurm.login import PYTHONPATH, make_backend, open_login_node

if TYPE_CHECKING:
    from muster.backends.contract import Backend
    from muster.jobs.model import Batch, Order
    from muster.laptop.slurm.cluster import SlurmCluster
    from muster.store.database import Database

__all__ = ["sshd"]

pytestmark = pytest.mark.slurm


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look as often where a look is slow: the machine may be busy."""
    monkeypatch.setattr(poller, "FLOOR", 1)
    monkeypatch.setattr(backend_contract, "PATIENCE_S", 150.0)


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home without keys and configuration, and no agent."""
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


class OverSsh(BackendContract):
    """The contract, kept over ssh; both sides see the same work directory."""

    mirrored = False

    @pytest.fixture(autouse=True)
    def _cluster(
        self,
        slurm_cluster: SlurmCluster,
        db: Database,
        sshd: Sshd,
        tmp_path_factory: pytest.TempPathFactory,
    ) -> None:
        open_login_node(sshd, slurm_cluster)
        self.db = db
        self.here: Path | None = None
        self.there = tmp_path_factory.mktemp("there") / "work"
        self.cluster = sshd.cluster(
            poll_every="00:00:01",
            result_grace="00:00:02",
            submissions_per_s=100,
            environment={"PYTHONPATH": PYTHONPATH},
            work=str(self.there) if self.mirrored else None,
        )

    def make_backend(self) -> Backend:
        return make_backend(self.db, self.cluster, self.here, 0.5)

    def place(self, batch: Batch) -> Batch:
        place = SlurmPlace(cluster=self.cluster, partition="genoa")
        if self.mirrored:
            self.here = Path(batch.work_uri).parent
            place = place.model_copy(update={"work_root": str(self.here)})
        return batch.model_copy(update={"backend": "slurm", "slurm": place})

    def set_fence(self, batch: Batch, index: int, order: Order) -> None:
        super().set_fence(batch, index, order)
        if self.mirrored:  # as the next wave brings it
            fence = Path(batch.fence_uri(index))
            (self.there / fence.relative_to(self.here)).write_text(fence.read_text())

    def count_jobs(self, key: str) -> int:
        return count_jobs(key)


QUICK = (
    "test_a_wave_runs_and_its_results_are_there",
    "test_a_cancelled_wave_has_ended_when_cancel_returns",
    "test_hostile_text_arrives_unchanged_and_runs_nothing",
)


class TestOverSsh(OverSsh):
    """What is quick of it, with a work directory that both sides see."""

    for _name in set(vars(BackendContract)) - set(QUICK):
        if _name.startswith("test_"):
            locals()[_name] = None


class TestOverSshMirrored(OverSsh):
    """What is quick of it, with a work directory that the cluster has elsewhere."""

    mirrored = True
    for _name in set(vars(BackendContract)) - set(QUICK):
        if _name.startswith("test_"):
            locals()[_name] = None


@pytest.mark.slurm_faults
class TestWholeContractOverSsh(OverSsh):
    """All of it, with a work directory that both sides see."""


@pytest.mark.slurm_faults
class TestWholeContractOverSshMirrored(OverSsh):
    """All of it, with a work directory that the cluster has elsewhere."""

    mirrored = True
