"""The backend as tests open it: against a cluster whose pods see the test's own folder."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from muster.backends.kubernetes.backend import KubernetesBackend
from muster.backends.kubernetes.names import job_name
from muster.jobs.supervision.retry import BackOff
from muster.jobs.supervision.supervisor import Supervisor
from muster.model.kubernetes_target import Kubernetes, KubernetesTarget
from muster.model.kubernetes_words import Volume
from muster.store import batches, claims
from tests.batches import make_batch, store_batch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from muster.jobs.supervision.batch_end import BatchEnd
    from muster.model.batch import Batch
    from muster.store.database import Database
    from tests.kubernetes_under_test import KubernetesUnderTest

    Meddle = Callable[[], object]

pytest.importorskip("kubernetes_asyncio", reason="kubernetes-asyncio is not installed")

QUICK = BackOff(first_s=0.01, longest_s=0.02)
PATIENCE_S = 90.0


def make_target(kubernetes: KubernetesUnderTest, folder: Path, **words: Any) -> KubernetesTarget:
    """Return a pool on a cluster, whose pods see a folder by a claim of its own."""
    claim = f"work-{uuid.uuid4().hex[:8]}"
    kubernetes.make_claim(claim, folder)
    said = {
        "image": kubernetes.image,
        "volumes": (Volume(path=str(folder), claim=claim),),
        "termination_grace": "00:00:10",
        **words,
    }
    cluster = make_cluster(kubernetes, **said.pop("cluster", {}))
    return KubernetesTarget(cluster=cluster, **said)


def make_cluster(kubernetes: KubernetesUnderTest, **words: Any) -> Kubernetes:
    """Return how a cluster under test is reached, with little patience."""
    said = {
        "kubeconfig": str(kubernetes.kubeconfig),
        "namespace": kubernetes.namespace,
        "requests_per_s": 200,
        "result_grace": "00:00:02",
        "stuck_after": "00:00:02",
    }
    return Kubernetes(**{**said, **words})


@dataclass
class Desk:
    """Batches on a cluster, each supervised to its end while a test meddles."""

    kubernetes: KubernetesUnderTest
    db: Database
    folder: Path
    patience_s: float = PATIENCE_S
    backends: list[KubernetesBackend] = field(default_factory=list)

    def batch(
        self, inputs: list[dict[str, Any]], *, step: str = "test.perform", **how: Any
    ) -> Batch:
        """Store a batch; ``pool`` says how its pool differs, ``cluster`` how its cluster does."""
        pool = {"cluster": how.pop("cluster", {}), **how.pop("pool", {})}
        target = make_target(self.kubernetes, self.folder, **pool)
        how.setdefault("name", f"b{uuid.uuid4().hex[:6]}")
        batch = make_batch(self.folder, inputs, step=step, **how)
        return store_batch(self.db, batch.model_copy(update={"target": target}))

    def perform(self, *acts: str, **words: Any) -> dict[str, Any]:
        """Return what an element of ``test.perform`` does, attempt by attempt."""
        return {"name": "e", "acts": list(acts), "ledger": str(self.folder / "ledger"), **words}

    def open(self, batch: Batch) -> KubernetesBackend:
        backend = KubernetesBackend(self.db, batch.target.cluster)  # type: ignore[union-attr]
        backend.settle_s, backend.look_again_s = 1.0, 0.3
        backend._watch.longest_wait_s = 0.5
        backend._stuck.few_pods_s = backend._stuck.events_every_s = 0.5
        self.backends.append(backend)
        return backend

    def supervise(self, batch: Batch, meddle: Meddle | None = None) -> BatchEnd:
        """Bring a batch to its end; ``meddle`` is called meanwhile, in a thread."""

        async def run() -> BatchEnd:
            backend = self.open(batch)
            claim = claims.take_claim(self.db, batch.id)
            supervisor = Supervisor(self.db, backend, claim, back_off=QUICK)
            try:
                async with asyncio.timeout(self.patience_s):
                    meddling = asyncio.ensure_future(
                        asyncio.to_thread(meddle) if meddle else asyncio.sleep(0)
                    )
                    end = await supervisor.run()
                    await meddling
                return end
            finally:
                await backend.close()

        return asyncio.run(run())

    def job(self, batch: Batch, number: int = 0) -> str:
        """Return the name of a wave's Job, when it is there."""

        def find() -> str | None:
            with self.db.transaction() as cursor:
                cursor.execute(
                    "SELECT key FROM submission WHERE batch_id = %s ORDER BY id", (batch.id,)
                )
                keys = [key for (key,) in cursor.fetchall()]
            if len(keys) <= number or not self.kubernetes.find("jobs", job_name(keys[number])):
                return None
            return job_name(keys[number])

        found: str = self.kubernetes.until(find)
        return found

    def begun(self, batch: Batch, times: int = 1) -> list[dict[str, Any]]:
        """Return the pods of the first wave when so many attempts have begun."""
        ledger = self.folder / "ledger"
        job = self.job(batch)
        self.kubernetes.until(
            lambda: ledger.exists() and ledger.read_text().count("begin ") >= times
        )
        return self.kubernetes.pods_of(job)

    def outcomes(self, batch: Batch) -> list[list[str]]:
        return [
            [str(a.outcome) for a in element.attempts]
            for element in batches.read_elements(self.db, batch.id)
        ]

    def hosts(self, batch: Batch) -> list[str | None]:
        (element,) = batches.read_elements(self.db, batch.id)
        return [attempt.host for attempt in element.attempts]

    def degraded(self, batch: Batch) -> str | None:
        with self.db.transaction() as cursor:
            cursor.execute("SELECT degraded FROM batch WHERE id = %s", (batch.id,))
            row = cursor.fetchone()
        assert row is not None
        told: str | None = row[0]
        return told

    def until_degraded(self, batch: Batch, words: str) -> str:
        """Return why a batch waits, when it says so."""

        def told() -> str | None:
            why = self.degraded(batch)
            return why if why is not None and words in why else None

        found: str = self.kubernetes.until(told)
        return found
