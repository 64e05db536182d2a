"""A cluster of which one has only a login node: the contract, and batches through every break."""

from __future__ import annotations

import asyncio
import hashlib
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from muster.backends.slurm import poller
from muster.model.logs import log_of
from muster.model.slurm_target import SlurmTarget
from muster.store import batches
from tests import backend_contract
from tests.backend_contract import BackendContract
from tests.batches import make_batch
from tests.integration.backends.sshd import Sshd, sshd
from tests.integration.slurm.campaign import count_jobs
from tests.integration.slurm.login import (
    PYTHONPATH,
    LoginCampaign,
    make_backend,
    open_login_node,
)

if TYPE_CHECKING:
    from minislurm.cluster import SlurmCluster
    from muster.backends.contract import Backend
    from muster.model.attempt import Fence
    from muster.model.batch import Batch
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
        place = SlurmTarget(cluster=self.cluster, partition="genoa")
        if self.mirrored:
            self.here = Path(batch.work_uri).parent
            place = place.model_copy(update={"work_root": str(self.here)})
        return batch.model_copy(update={"target": place})

    def set_fence(self, batch: Batch, index: int, order: Fence) -> None:
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


class TestOverSshMirrored(OverSsh):
    """What is quick of it, with a work directory that the cluster has elsewhere."""

    mirrored = True
    for _name in set(vars(BackendContract)) - set(QUICK):
        if _name.startswith("test_"):
            locals()[_name] = None


@pytest.mark.thorough
class TestWholeContractOverSsh(OverSsh):
    """All of it, with a work directory that both sides see."""


@pytest.mark.thorough
class TestWholeContractOverSshMirrored(OverSsh):
    """All of it, with a work directory that the cluster has elsewhere."""

    mirrored = True


@pytest.fixture(
    params=[pytest.param("shared", marks=pytest.mark.thorough), "mirrored"],
    ids=["shared", "mirrored"],
)
def campaign(
    request: pytest.FixtureRequest,
    db: Database,
    tmp_path: Path,
    slurm_cluster: SlurmCluster,
    sshd: Sshd,
) -> LoginCampaign:
    open_login_node(sshd, slurm_cluster)
    (tmp_path / "here").mkdir()
    work = tmp_path / "there" / "work" if request.param == "mirrored" else None
    return LoginCampaign(db, slurm_cluster, tmp_path / "here", server=sshd, work=work)


def logs_of(campaign: LoginCampaign, batch: Batch) -> list[str]:
    """What each element's last attempt has said."""
    elements = batches.read_elements(campaign.db, batch.id)
    return [log_of(batch, e.index, e.attempts[-1].number).read().decode() for e in elements]


def test_every_break_of_the_connection_costs_no_element_anything(campaign: LoginCampaign) -> None:
    """While submitting, on either side of the cluster's answer; while polling; and for a while."""
    batch = campaign.batch([["fine"], ["raise", "fine"], ["fine"], ["fine"]], seconds=3.0)
    server = campaign.server
    said: list[str] = []

    async def cut_submission(when: str) -> None:
        await campaign.until(lambda: campaign.is_held(when))
        server.cut()
        await campaign.until(lambda: campaign.degraded(batch))
        said.append(campaign.degraded(batch) or "")
        campaign.let_go(when)

    async def meanwhile() -> None:
        await cut_submission("before")  # what is held may still submit, and have a twin then
        campaign.hold("after")
        await campaign.until(lambda: campaign.count("begin") >= 4)
        server.cut()
        server.stop()
        await campaign.until(lambda: campaign.degraded(batch))
        said.append(campaign.degraded(batch) or "")
        await campaign.until(lambda: campaign.count("done") >= 3)
        server.start()
        await cut_submission("after")  # the second wave, of the element that has failed

    campaign.hold("before")
    campaign.run(batch, meanwhile)
    assert campaign.outcomes(batch) == [
        ["succeeded"],
        ["software_error", "succeeded"],
        ["succeeded"],
        ["succeeded"],
    ]
    assert all("connection" in text or "cannot be reached" in text for text in said), said
    campaign.check_once(batch)
    campaign.check_record(batch)
    assert all("succeeded in" in text for text in logs_of(campaign, batch))
    assert campaign.submissions() == 2


def test_what_lies_in_the_work_directory_comes_back_and_products_stay(
    campaign: LoginCampaign, tmp_path: Path
) -> None:
    """Both are recorded by where they are and what is in them; names are taken literally."""
    there = tmp_path / "cluster's disk" / "$(id) ü;&|*?"
    outputs = [
        str(campaign.work_root / "bands" / "a b'$(id)`id`\n%j.txt"),
        str(there / "product.txt"),
        str(campaign.folder / "products" / "beside.txt"),
    ]
    inputs = [
        {"name": f"n{index}", "acts": ["fine"], "ledger": str(campaign.ledger)}
        for index in range(3)
    ]
    batch = make_batch(campaign.folder, inputs, step="test.perform")
    elements = [
        element.model_copy(update={"outputs": {"out": output}})
        for element, output in zip(batch.elements, outputs, strict=True)
    ]
    batch = campaign.store(batch.model_copy(update={"elements": tuple(elements)}))
    assert campaign.run(batch).succeeded
    digests = {uri: hashlib.sha256(f"n{i}".encode()).hexdigest() for i, uri in enumerate(outputs)}
    with campaign.db.transaction() as cursor:
        cursor.execute("SELECT uri, sha256 FROM artifact")
        assert dict(cursor.fetchall()) == digests
    for uri, digest in digests.items():
        assert hashlib.sha256(Path(uri).read_bytes()).hexdigest() == digest
    if campaign.work:
        names = [path.name for path in (campaign.work / "bands").iterdir()]
        assert names == [Path(outputs[0]).name]
        assert not list(campaign.work.rglob("product.txt"))


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(3))
def test_a_connection_that_breaks_all_the_time_brings_a_batch_to_its_end(
    campaign: LoginCampaign, seed: int
) -> None:
    """Whatever is under way just then: a submission, a look, a result that comes."""
    acts = [["fine"]] * 30
    for index in range(0, 30, 6):
        acts[index] = ["raise", "fine"]
    batch = campaign.batch(acts, seconds=0.5)
    chance = random.Random(seed)

    async def meanwhile() -> None:
        await campaign.until(lambda: campaign.server.count_connections())
        for _ in range(12):
            await asyncio.sleep(chance.uniform(0.05, 2.5))
            campaign.server.cut()
        campaign.server.stop()
        await asyncio.sleep(3)
        campaign.server.start()

    campaign.run(batch, meanwhile)
    expected = [["software_error", "succeeded"] if len(a) > 1 else ["succeeded"] for a in acts]
    assert campaign.outcomes(batch) == expected
    campaign.check_once(batch)
    campaign.check_record(batch)
