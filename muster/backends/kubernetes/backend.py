"""The contract of all backends, kept by a Kubernetes cluster."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from muster import storage
from muster.backends.array_tasks import render_elements
from muster.backends.attempt_log import CHUNK_BYTES
from muster.backends.kubernetes.client import NOT_FOUND, ApiClient, ApiError, pods_path
from muster.backends.kubernetes.names import job_name
from muster.backends.kubernetes.parse import newest_pods, observe_index
from muster.backends.kubernetes.refusal import explain_refusal
from muster.backends.kubernetes.render import elements_uri, render_job, render_pod, target_of
from muster.backends.kubernetes.stuck import StuckPods
from muster.backends.kubernetes.submissions import Submissions, is_of
from muster.backends.kubernetes.watch import ClusterWatch
from muster.errors import Transient
from muster.model.kubernetes_words import CONTAINER
from muster.model.logs import log_of
from muster.model.outcome import ALIVE, JobState, Observation
from muster.store import clusters, pods

if TYPE_CHECKING:
    from collections.abc import Mapping

    from muster.backends.kubernetes.refusal import Hindrance
    from muster.model.batch import Batch
    from muster.model.kubernetes_target import Kubernetes, KubernetesTarget
    from muster.model.wave import Wave
    from muster.store.database import Database

SETTLE_S = 10.0
"""So long the watch may not know of a Job that was just submitted, in seconds."""
LOOK_AGAIN_S = 5.0
"""A Job that the watch does not know is looked up by its key at most so often, in seconds."""
LAG_S = 60.0
"""A watch that does not know after so long what is there is begun anew."""
END_PATIENCE_S = 120.0
END_POLL_S = (0.2, 0.3, 0.5, 1.0, 2.0, 4.0)
ENDED_PODS, KNOWN_JOBS = 20_000, 20_000
"""So many are remembered by a process."""
TOLD_TO_STOP = frozenset({128 + signal.SIGTERM, 128 + signal.SIGKILL})

log = logging.getLogger(__name__)


def open_kubernetes(db: Database, target: KubernetesTarget) -> KubernetesBackend:
    """Open the cluster of a batch, the way it was frozen with."""
    return KubernetesBackend(db, target.cluster)


@dataclass
class _KnownJob:
    """What this process remembers of a submission, to be quicker; times are monotonic.

    Attributes
    ----------
    submitted_s : float
        When this process submitted it.
    missing_s : float or None
        Since when the watch does not know it.
    looked_s : float
        When it was last looked up by its key.
    absent : bool
        Whether it was not there then.
    anywhere : bool
        Whether it was submitted again without excluded nodes.
    """

    submitted_s: float = -math.inf
    missing_s: float | None = None
    looked_s: float = -math.inf
    absent: bool = False
    anywhere: bool = False


class KubernetesBackend:
    """Runs waves as Jobs of a Kubernetes cluster: a wave is one Indexed Job.

    Parameters
    ----------
    db : Database
        The store, where pod templates lie and processes share a rate of submissions.
    cluster : Kubernetes
        Which cluster and namespace.
    """

    look_again_s = LOOK_AGAIN_S
    settle_s = SETTLE_S

    def __init__(self, db: Database, cluster: Kubernetes) -> None:
        self.cluster = cluster
        self.result_grace_s = float(cluster.result_grace)
        self.client = ApiClient(cluster)
        self._db = db
        self._submissions = Submissions(self.client, cluster.namespace)
        self._watch = ClusterWatch(self.client, cluster.namespace)
        self._stuck = StuckPods(self.client, cluster)
        self._known_jobs: OrderedDict[str, _KnownJob] = OrderedDict()  # by submission key
        self._ended_pods: OrderedDict[tuple[str, int, int], str] = OrderedDict()
        self._known = False

    @property
    def degraded_reason(self) -> str | None:
        """What keeps pods from being started, although the API server answers."""
        return self._stuck.reason

    async def close(self) -> None:
        """Follow no more, and close the connections; jobs go on."""
        await self._watch.close()
        await self.client.close()

    async def wait_for_change(self) -> None:
        """Return when the watch has told of something, and after half a minute in any case."""
        await self._watch.wait_for_change()

    async def free_slots(self, batch: Batch) -> int | None:
        """Set no limit: of a Job so many pods run at once as its pool has slots."""
        return None

    async def acquire_submit_slot(self) -> None:
        """Wait for this submission's place in the row of all processes."""
        name = f"kubernetes {self.cluster.name} {self.cluster.namespace}"
        if not self._known:
            await asyncio.to_thread(clusters.know_cluster, self._db, name)
            self._known = True
        every_s = 1.0 / self.cluster.requests_per_s
        await asyncio.sleep(
            await asyncio.to_thread(clusters.reserve_submission, self._db, name, every_s)
        )

    async def find(self, wave: Wave) -> str | None:
        """Look the Job up by its key, with a list that is from no cache."""
        return await self._submissions.find(wave.key)

    async def submit(self, wave: Wave) -> str:
        """Submit the wave as one Job."""
        job = await asyncio.to_thread(self._prepare, wave)
        known = self._know(wave.key)
        known.absent = False
        try:
            await self._submissions.create(job)
        except ApiError as error:
            raise explain_refusal(error.status, error.reason, error.message, wave.batch) from error
        known.submitted_s = time.monotonic()
        return job_name(wave.key)

    async def observe(self, wave: Wave, reference: str) -> Mapping[int, Observation]:
        """Say of every element what the watch knows of it.

        Raises
        ------
        Transient
            When the API server does not answer.
        """
        self._watch.ask()
        if self._watch.trouble is not None:
            raise Transient("the cluster cannot be watched", where=self.cluster.name,
                            got=self._watch.trouble)  # fmt: skip
        if not self._watch.synced:
            return dict.fromkeys(wave.attempts, Observation(JobState.UNKNOWN))
        job = self._watch.jobs.get(job_name(wave.key))
        if job is None or not is_of(job, wave.key):
            return await self._observe_without_job(wave)
        known = self._know(wave.key)
        known.missing_s, known.submitted_s = None, -math.inf  # should it go, it is gone
        places, newest = _places(wave), self._newest(wave)
        seen = {
            index: self._observe_pod(job, places[index], newest.get(places[index]))
            for index in wave.attempts
        }
        if job["metadata"].get("deletionTimestamp"):
            # Who deletes a Job does not cancel its elements: they are gone when it is.
            unknown = Observation(JobState.UNKNOWN)
            seen = {i: unknown if _is_of_deletion(o) else o for i, o in seen.items()}
        self._remember_pods(wave, seen, newest)
        stuck = await self._stuck.find(wave, job, places, newest, seen)
        if stuck is None or stuck[1] < self.cluster.stuck_after:
            return seen
        return await self._end_stuck(wave, job, stuck[0], seen)

    async def cancel(self, wave: Wave, reference: str | None) -> None:
        """Delete the Job, and return when it is gone and no pod of its runs."""
        deadline_s = time.monotonic() + END_PATIENCE_S
        for pause_s in (*END_POLL_S, *[END_POLL_S[-1]] * 1000):
            deleting = await self._submissions.delete(wave.key)
            alive = await self._submissions.alive_pods(wave.key)
            if not deleting and not alive:
                known = self._know(wave.key)
                known.absent, known.submitted_s, known.looked_s = True, -math.inf, time.monotonic()
                return
            if time.monotonic() > deadline_s:
                raise Transient(
                    "pods do not end", where=f"cluster {self.cluster.name}, {job_name(wave.key)}",
                    got=", ".join(alive[:3]) or "the Job is still there",
                    do="does their node still answer?",
                )  # fmt: skip
            await asyncio.sleep(pause_s)

    async def read_log(
        self, batch: Batch, index: int, attempt: int, offset: int, limit: int = CHUNK_BYTES
    ) -> bytes:
        """Read the log of the work directory; that of the pod, where it ended without one."""
        part = await asyncio.to_thread(log_of, batch, index, attempt)
        data = await asyncio.to_thread(part.read, offset, limit)
        pod = self._ended_pods.get((batch.id, index, attempt))
        if data or pod is None or await asyncio.to_thread(part.exists):
            return data
        path = f"{pods_path(self.cluster.namespace, pod)}/log"
        query = {"container": CONTAINER, "limitBytes": offset + limit}
        try:
            return (await self.client.read_text(path, query))[offset : offset + limit]
        except ApiError as error:
            if error.status in (NOT_FOUND, 400, 403):  # it is gone, never began, or is not ours
                return b""
            raise

    # -- what is submitted -------------------------------------------------------------------

    def _prepare(self, wave: Wave) -> dict[str, Any]:
        """Render the Job of a wave and write which elements its indexes are."""
        template = pods.read_pod(self._db, wave.batch.id) or render_pod(wave.batch)
        job = render_job(wave, template)
        lines = render_elements(wave.order, target_of(wave.batch).pack)
        storage.write_text(elements_uri(wave), lines)
        return job

    # -- what is seen ------------------------------------------------------------------------

    def _newest(self, wave: Wave) -> dict[int, dict[str, Any]]:
        """Return the newest pod of each index of a wave's Job, as far as one is known."""
        found = newest_pods(self._watch.pods.of_job(job_name(wave.key)))
        return {index: pod for index, pod in found.items() if is_of(pod, wave.key)}

    def _observe_pod(
        self, job: dict[str, Any] | None, place: int, pod: dict[str, Any] | None
    ) -> Observation:
        """Say how an index of a Job is.

        A pod that was deleted while it ran is none.  Nor is a deletion a wish of who deletes that
        the element should not run: nodes are drained and cleaned up by it.
        """
        look = observe_index(job, place, pod)
        if look.state in ALIVE and pod is not None and self._watch.pods.is_deleted(pod):
            look = observe_index(job, place, None)
        if look.state is JobState.CANCELLED and job is not None:
            look = replace(look, state=JobState.FAILED)
        return look

    def _remember_pods(
        self,
        wave: Wave,
        seen: Mapping[int, Observation],
        newest: Mapping[int, dict[str, Any]],
    ) -> None:
        """Remember in which pods attempts have ended: there may be no other log of them."""
        places = _places(wave)
        for index, look in seen.items():
            pod = newest.get(places[index])
            if pod is not None and look.state not in ALIVE:
                attempt = (wave.batch.id, index, wave.attempts[index])
                self._ended_pods[attempt] = str(pod["metadata"]["name"])
                self._ended_pods.move_to_end(attempt)
        while len(self._ended_pods) > ENDED_PODS:
            self._ended_pods.popitem(last=False)

    async def _observe_without_job(self, wave: Wave) -> dict[int, Observation]:
        """Say how a wave is whose Job the watch does not know."""
        refused = self._stuck.refused(wave)
        is_gone = bool(refused) or await self._look_up(wave)
        places, newest = _places(wave), self._newest(wave)
        seen = {
            index: self._observe_pod(None, places[index], newest.get(places[index]))
            for index in wave.attempts
        }
        self._remember_pods(wave, seen, newest)
        absent = Observation(JobState.GONE if is_gone else JobState.UNKNOWN)
        seen = {i: absent if _is_of_deletion(o) else o for i, o in seen.items()}
        return {**seen, **{i: o for i, o in refused.items() if i in seen}}

    async def _look_up(self, wave: Wave) -> bool:
        """Look a Job up that the watch does not know; tell whether it is gone."""
        known, now_s = self._know(wave.key), time.monotonic()
        if known.missing_s is None:
            known.missing_s = now_s
        if now_s - known.submitted_s < self.settle_s:
            self._watch.wake_in(self.settle_s)
            return False
        if now_s - known.looked_s < self.look_again_s:
            self._watch.wake_in(self.look_again_s)
            return known.absent
        known.looked_s = now_s
        if await self.find(wave) is None:
            if not known.absent:
                log.warning("%s has no Job any more", wave.key)
            known.absent = True
        else:
            known.absent = False
            if now_s - known.missing_s > LAG_S:
                known.missing_s = now_s
                self._watch.list_again()
        return known.absent

    def _know(self, key: str) -> _KnownJob:
        """Return what is remembered of a submission; those asked for long ago are forgotten."""
        known = self._known_jobs.setdefault(key, _KnownJob())
        self._known_jobs.move_to_end(key)
        while len(self._known_jobs) > KNOWN_JOBS:
            self._known_jobs.popitem(last=False)
        return known

    # -- what is ended -----------------------------------------------------------------------

    async def _end_stuck(
        self, wave: Wave, job: dict[str, Any], why: Hindrance, seen: dict[int, Observation]
    ) -> dict[int, Observation]:
        """End a wave that cannot start, or let it start on any node where it kept off some."""
        if why.lasting:
            await self._submissions.delete(wave.key)
            waiting = frozenset(i for i, look in seen.items() if look.state in ALIVE)
            self._stuck.give_up(wave, waiting, why)
            return {**seen, **self._stuck.refused(wave)}
        status = job.get("status") or {}
        begun = len(seen) < len(wave.order) or status.get("succeeded") or status.get("failed")
        kept_off = why.reason == "Unschedulable" and wave.excluded_hosts and not begun
        known = self._know(wave.key)
        if kept_off and not known.anywhere:
            known.anywhere = True
            log.warning("%s: no other node takes it, so none is excluded", wave.key)
            await self.cancel(wave, None)
            await self.submit(replace(wave, excluded_hosts=()))
        return seen


def _is_of_deletion(look: Observation) -> bool:
    """Tell whether a pod is as it is because its Job was deleted."""
    if look.state is JobState.FAILED:
        return look.exit_code in TOLD_TO_STOP
    return look.state in (JobState.CANCELLED, JobState.WAITING, JobState.GONE)


def _places(wave: Wave) -> dict[int, int]:
    """Say in which index of its Job each element of a wave runs."""
    pack = target_of(wave.batch).pack
    return {index: place // pack for place, index in enumerate(wave.order)}
