"""The kubelets of all nodes: they start what is bound, and end what is deleted or too large."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from tests.kubernetes_cluster.admission import ENDED
from tests.kubernetes_cluster.pod_worker import UNKNOWN, Ending, PodWorker
from tests.kubernetes_cluster.quantities import parse_quantity
from tests.kubernetes_cluster.storage import now

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.kubernetes_cluster.containers import ContainerLog
    from tests.kubernetes_cluster.storage import Storage

    Object = dict[str, Any]

MEMORY_EVERY_S = 0.05
VOLUMES_EVERY = 5


class Kubelets:
    """All nodes' kubelets.

    Attributes
    ----------
    lost : set of str
        Nodes that no longer answer: nothing of their pods is written.
    """

    def __init__(
        self,
        store: Storage,
        folder: Path,
        image: Mapping[str, str],
        on_change: Callable[[], None],
        on_error: Callable[[], None],
    ) -> None:
        self._store = store
        self._folder = folder / "pods"
        self._image = image
        self._on_change = on_change
        self._on_error = on_error
        self.lost: set[str] = set()
        self.workers: dict[str, PodWorker] = {}
        self.logs: dict[str, ContainerLog] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def sync(self) -> None:
        """Start, end and let go what the pods ask for."""
        pods = {pod["metadata"]["uid"]: pod for pod in self._store.list("pods")}
        for uid, pod in pods.items():
            node = pod["spec"].get("nodeName")
            if not node or node in self.lost:
                continue
            if uid in self.workers:
                self._end_deleted(self.workers[uid], pod)
            elif pod["status"]["phase"] not in ENDED:
                self._take(uid, pod)
            else:
                self._let_go(pod)
        for uid, worker in self.workers.items():
            if uid not in pods and worker.node not in self.lost:
                worker.end(Ending(0.0))
        for uid in set(self.logs) - set(pods) - set(self.workers):
            del self.logs[uid]

    def _take(self, uid: str, pod: Object) -> None:
        if pod["status"]["phase"] == "Running":
            self._write_unknown(pod)
            return
        worker = PodWorker(self._store, pod, self._folder, self._image)
        self.workers[uid] = worker
        self._tasks[uid] = asyncio.create_task(self._run(uid, worker))
        self._end_deleted(worker, pod)

    async def _run(self, uid: str, worker: PodWorker) -> None:
        try:
            await worker.run()
        except Exception:
            self._on_error()
        finally:
            if worker.container is not None:
                self.logs[uid] = worker.container.log
            self.workers.pop(uid, None)
            self._tasks.pop(uid, None)
            self._on_change()

    @staticmethod
    def _end_deleted(worker: PodWorker, pod: Object) -> None:
        if worker.container is not None and "deletionTimestamp" not in pod["metadata"]:
            return
        if "deletionTimestamp" in pod["metadata"]:
            worker.end(Ending(float(pod["metadata"]["deletionGracePeriodSeconds"] or 0)))

    def _let_go(self, pod: Object) -> None:
        meta = pod["metadata"]
        if meta.get("deletionGracePeriodSeconds"):
            self._store.delete("pods", meta["namespace"], meta["name"])

    def _write_unknown(self, pod: Object) -> None:
        """A kubelet that comes back to a pod whose container is gone."""
        meta = pod["metadata"]
        with self._store.edit("pods", meta["namespace"], meta["name"]) as failed:
            failed["status"]["phase"] = "Failed"
            failed["status"]["containerStatuses"][0]["state"] = {
                "terminated": {
                    "exitCode": 137,
                    "reason": "ContainerStatusUnknown",
                    "message": UNKNOWN,
                    "startedAt": None,
                    "finishedAt": now(),
                }
            }

    def log_of(self, uid: str) -> ContainerLog | None:
        worker = self.workers.get(uid)
        if worker is not None and worker.container is not None:
            return worker.container.log
        return self.logs.get(uid)

    # -- sizes ----------------------------------------------------------------------------

    async def watch_sizes(self) -> None:
        """End what has more memory, or more in a scratch volume, than its limit."""
        turn = 0
        while True:
            await asyncio.sleep(MEMORY_EVERY_S)
            turn += 1
            for worker in list(self.workers.values()):
                container = worker.container
                if container is None or container.exited.done():
                    continue
                limit = worker.memory_limit
                if limit is not None and container.memory_bytes() > parse_quantity(limit):
                    container.out_of_memory = True
                    container.kill()
                if turn % VOLUMES_EVERY == 0 and (said := worker.full_volume()):
                    worker.end(Ending(0.0, "Evicted", said, disrupted=True))

    # -- what may happen to a node ---------------------------------------------------------

    def lose(self, node: str) -> None:
        """Let a node vanish with all that runs on it; nobody is told."""
        self.lost.add(node)
        for uid, worker in list(self.workers.items()):
            if worker.node == node:
                self._tasks[uid].cancel()

    def restore(self, node: str) -> None:
        self.lost.discard(node)

    def end_on(self, node: str, ending: Ending) -> None:
        for worker in self.workers.values():
            if worker.node == node:
                worker.end(ending)

    async def close(self) -> None:
        """End all processes."""
        containers = [w.container for w in self.workers.values() if w.container is not None]
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5.0):
                await asyncio.gather(*(container.exited for container in containers))
