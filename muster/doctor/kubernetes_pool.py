"""Trying one pool of a Kubernetes cluster: what it names and asks for, and a small pod of it."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from muster import storage
from muster.backends.kubernetes.client import ApiError, jobs_path
from muster.backends.kubernetes.refusal import classify_refusal, explain_refusal
from muster.backends.kubernetes.render import render_job, render_pod
from muster.doctor import kubernetes_findings
from muster.doctor.asked import Asked
from muster.doctor.check import Check, bad, doubtful
from muster.doctor.kubernetes_limits import (
    LimitRange,
    PodAsks,
    Quota,
    check_limit_ranges,
    check_quotas,
)
from muster.doctor.kubernetes_objects import check_objects, describe_unseen, find_named_objects
from muster.doctor.kubernetes_probe_job import ProbePod
from muster.doctor.probe import (
    ahead_s,
    check_clocks,
    check_gpus,
    check_software,
    check_store,
    make_probe,
    read_report,
)
from muster.errors import MusterError
from muster.model.outcome import Outcome
from muster.model.resources import Resources
from muster.model.wave import Wave

if TYPE_CHECKING:
    from collections.abc import Sequence

    from muster.backends.kubernetes.backend import KubernetesBackend
    from muster.doctor.kubernetes_looks import Looks
    from muster.doctor.kubernetes_nodes import Node
    from muster.doctor.kubernetes_objects import Named
    from muster.model.batch import Batch
    from muster.pools import KubernetesPool
    from muster.site import Site

PROBE_MEMORY_MIB = 1024
PROBE_TIME_S = 300
PROBE_TTL_S = 600
"""So long a Job of a doctor that was killed is kept after its end, in seconds."""
_DO_GPUS = {
    "do_without": "see that the device plugin runs; say runtime_class where the cluster has one",
    "do_unlisted": "see that the driver is loaded there; environment = "
    '{ NVIDIA_DRIVER_CAPABILITIES = "compute,utility" } gives pods nvidia-smi',
}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inventory:
    """What was listed of a namespace and its cluster.

    Attributes
    ----------
    namespace : str
        Which.
    quotas, ranges : sequence of Quota, of LimitRange
        Its limits, as far as they may be listed.
    nodes : sequence of Node or None
        The cluster's; None where they may not be listed.
    """

    namespace: str
    quotas: Sequence[Quota] = ()
    ranges: Sequence[LimitRange] = ()
    nodes: Sequence[Node] | None = None


class PoolExaminer:
    """Tries one pool.

    Parameters
    ----------
    site : Site
        Whose.
    name, pool : str, KubernetesPool
        Which.
    backend : KubernetesBackend
        What submits and ends its pod.
    looks : Looks
        What looks at objects.
    inventory : Inventory
        What was listed already.
    patience_s : float
        How long a pod may wait to begin, in seconds.
    """

    def __init__(
        self,
        site: Site,
        name: str,
        pool: KubernetesPool,
        backend: KubernetesBackend,
        looks: Looks,
        inventory: Inventory,
        patience_s: float,
    ) -> None:
        self._site = site
        self._name = name
        self._pool = pool
        self._backend = backend
        self._client = backend.client
        self._looks = looks
        self._inventory = inventory
        self._patience_s = patience_s
        self._label = f"pool {name}"
        self._target = pool.target(site)

    async def examine(self) -> list[Check]:
        """Look at what the pool names and asks for, and send it a small pod."""
        label, pool = self._label, self._pool
        probe = self._make_probe()
        spec = self._spec_of(probe)
        checks = await self._check_objects(spec)
        if self._inventory.nodes is not None:
            nodes = self._inventory.nodes
            checks += kubernetes_findings.check_nodes(label, pool, spec, nodes)
        checks += await self._try_placements(probe)
        if not all(check.good for check in checks):
            return [*checks, Check(label, False, "no pod was sent: see the lines above")]
        return [*checks, *await self._run_probe(probe)]

    async def _check_objects(self, spec: dict[str, Any]) -> list[Check]:
        """Look for all that the pod names, as far as that is allowed."""
        found: dict[Named, dict[str, Any] | None] = {}
        unseen = []
        namespace = self._inventory.namespace
        for named in find_named_objects(spec):
            seen, item = await self._looks.get(namespace, named)
            if seen:
                found[named] = item
            else:
                unseen.append(named)
        work = storage.local_path(self._site.work_uri)
        volume = None if work is None else self._target.claim_of(str(work))
        claim = None if volume is None else volume.claim
        checks = check_objects(
            self._label, found, namespace, work_claim=claim, slots=self._pool.slots
        )
        return [*checks, *describe_unseen(self._label, unseen)]

    async def _try_placements(self, probe: Batch) -> list[Check]:
        """Ask whether the API server would take a Job of each step that is placed here."""
        label, pool, inventory = self._label, self._pool, self._inventory
        checks: list[Check] = []
        good, asks = [], []
        small = Asked.of("a small pod", probe.resources, pool.caps, 1)
        for asked in [small, *self._asked()]:
            batch = probe if asked is small else self._make_batch(asked.resources)
            problems = await self._try(batch)
            one = PodAsks(asked.step, self._spec_of(batch))
            problems += check_limit_ranges(label, one, inventory.ranges)
            problems += check_quotas(label, one, inventory.quotas, inventory.ranges, pool.slots)
            checks += [p for p in problems if p.finding not in {c.finding for c in checks}]
            asks.append((one, asked.describe()))
            if asked is not small and all(problem.good for problem in problems):
                good.append(f"{asked.step} ({asked.describe()})")
        if good:
            checks.insert(0, Check(label, True, f"Kubernetes would take Jobs of {', '.join(good)}"))
        return [*checks, *kubernetes_findings.check_fit(label, asks, inventory.nodes or [])]

    def _asked(self) -> list[Asked]:
        """List what the steps and job types that are placed on a pool ask for."""
        caps, pack = self._pool.caps, self._target.pack
        named = [
            *self._site.placement.items(),
            *((f"job type {key}", job_type) for key, job_type in self._site.job_types.items()),
        ]
        return [
            Asked.of(step, one.resources, caps, pack)
            for step, one in named
            if one.pool == self._name
        ]

    async def _try(self, batch: Batch) -> list[Check]:
        """Ask what the API server would do with a batch's Job, without making it."""
        label, namespace = self._label, self._inventory.namespace
        job = render_job(_wave(batch), render_pod(batch))
        query = {"dryRun": "All", "fieldValidation": "Strict"}
        try:
            async with self._client.open("POST", jobs_path(namespace), query, job) as response:
                told = json.loads(await response.read())
                warnings = response.headers.getall("Warning", [])
        except ApiError as error:
            why = explain_refusal(error.status, error.reason, error.message, batch)
            if classify_refusal(error.status, error.reason, error.message) == "unreachable":
                raise
            return [Check(label, False, str(why))]
        checks = [
            doubtful(
                label,
                "the API server warns of these pods",
                got=kubernetes_findings.parse_warning(header),
            )
            for header in warnings
        ]
        kept = told.get("spec") or {}
        dropped = [
            key for key in ("backoffLimitPerIndex", "podReplacementPolicy")
            if kept.get(key) != job["spec"][key]
        ]  # fmt: skip
        if dropped:
            checks.append(
                bad(label, f"this cluster does not keep {' and '.join(dropped)} of a Job",
                    do="turn the feature gates JobBackoffLimitPerIndex and JobPodReplacementPolicy "
                    "on, or upgrade it")
            )  # fmt: skip
        return checks

    # -- its pod -----------------------------------------------------------------------------

    def _make_probe(self) -> Batch:
        """Make the small batch of a pool, with a GPU where steps there ask for some."""
        pool, target = self._pool, self._target
        wants_gpu = any(asked.resources.gpus for asked in self._asked())
        memory_mib = min(PROBE_MEMORY_MIB, pool.max_memory or PROBE_MEMORY_MIB)
        batch = self._make_batch(
            Resources(gpus=int(wants_gpu), memory_mib=memory_mib, time_limit_s=PROBE_TIME_S),
        )
        return batch.model_copy(
            update={
                "target": target.model_copy(update={"ttl": PROBE_TTL_S}),
                "needs_store": target.store is not None,
            }
        )

    def _make_batch(self, resources: Resources) -> Batch:
        return make_probe(self._site, self._name, self._pool, resources)

    @staticmethod
    def _spec_of(batch: Batch) -> dict[str, Any]:
        """Return the pod that a batch's Job would have, as the API server is told it."""
        job = render_job(_wave(batch), render_pod(batch))
        spec: dict[str, Any] = job["spec"]["template"]["spec"]
        return spec

    async def _run_probe(self, batch: Batch) -> list[Check]:
        """Send a pod, and say what it has found where it ran; its files go unless they tell why."""
        label = self._label
        submitted_s = time.time()
        keeps = False
        try:
            end = await ProbePod(self._backend, _wave(batch)).run(self._patience_s)
            seen_s = time.time()
            keeps = True
            if end.trouble is not None or end.result is None:
                return [Check(label, False, str(end.trouble))]
            if end.result.outcome != Outcome.SUCCEEDED:
                return [
                    bad(label, "the pod failed", where=end.node,
                        got=f"{end.result.outcome}: {end.result.message}",
                        do=f"see {batch.work_uri}")
                ]  # fmt: skip
            facts = await asyncio.to_thread(read_report, batch)
            keeps = False
        finally:
            if not keeps:
                await asyncio.to_thread(_remove, batch.work_uri)
        node = end.node or facts["host"]
        ahead = ahead_s(facts.get("clock_s", submitted_s), submitted_s, seen_s)
        clocks = check_clocks(label, {node: ahead})
        python = f"Python {facts['python']} ({facts['executable']})"
        waited = "" if end.waited_s is None else f" waited {end.waited_s:.0f} s and"
        return [
            Check(
                label, True,
                f"a pod on {node}{waited} was back with its result {end.took_s:.0f} s after it was "
                f"submitted: image {self._target.image}, user {facts['user']}, {python}, "
                f"Muster {facts['muster']}; it has read and written {self._site.work_uri}",
            ),
            *([clocks] if clocks.warning else []),
            *check_software(label, facts),
            *check_store(label, facts),
            *check_gpus(label, facts, batch.resources.gpus, **_DO_GPUS),
        ]  # fmt: skip


def _wave(batch: Batch) -> Wave:
    return Wave(batch, f"{batch.id}.w1", {0: 1}, batch.resources)


def _remove(uri: str) -> None:
    """Remove a folder of the doctor's own; what others own in it stays for who may."""
    folder, _, name = uri.rpartition("/")
    try:
        storage.delete_below(uri, [entry.name for entry in storage.walk(uri)])
        storage.prune(folder, name)
    except MusterError as error:
        log.warning("files of a doctor stay in the work directory: %s", error)
