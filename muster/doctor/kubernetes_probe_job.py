"""One small pod of a pool: submitted as any other, watched with patience, and never left."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from muster import storage
from muster.backends.kubernetes.client import (
    NOT_FOUND,
    ApiError,
    events_path,
    jobs_path,
    pods_path,
)
from muster.backends.kubernetes.names import LABEL_KEY, job_name, key_label
from muster.backends.kubernetes.parse import newest_pods, observe_index, parse_pod
from muster.backends.kubernetes.render import target_of
from muster.doctor.kubernetes_findings import explain_end, explain_wait, find_wait
from muster.errors import MusterError, Transient
from muster.model.attempt import Result
from muster.model.fence import write_fences
from muster.model.kubernetes_words import CONTAINER
from muster.model.outcome import ALIVE, JobState, Observation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from muster.backends.kubernetes.backend import KubernetesBackend
    from muster.model.wave import Wave

    Item = Mapping[str, Any]

RUN_PATIENCE_S = 180.0
LASTING_S = 10.0
"""So long a pod may be hindered by what time alone does not end: a registry may have hiccups."""
EVENTS_EVERY_S = 3.0
LOOK_FIRST_S, LOOK_LONGEST_S = 0.3, 3.0
LOG_LINES = 20


@dataclass(frozen=True)
class ProbeEnd:
    """How the pod ended.

    Attributes
    ----------
    result : Result or None
        What it left.
    trouble : MusterError or None
        Why there is no result.
    took_s : float
        How long it took from its submission until its result was seen here, in seconds.
    waited_s : float or None
        How long it waited of that, where that is known.
    node : str or None
        Where it ran.
    """

    result: Result | None
    trouble: MusterError | None
    took_s: float
    waited_s: float | None = None
    node: str | None = None


class ProbePod:
    """One wave of one element.

    Parameters
    ----------
    backend : KubernetesBackend
        What submits and ends it.
    wave : Wave
        The Job.
    """

    def __init__(self, backend: KubernetesBackend, wave: Wave) -> None:
        self._backend = backend
        self._wave = wave
        self._client = backend.client
        self._namespace = backend.cluster.namespace
        self._job: Item | None = None
        self._pod: Item | None = None
        self._events: list[dict[str, Any]] = []
        self._asked_s = 0.0
        self._submitted_s = 0.0

    async def run(self, patience_s: float) -> ProbeEnd:
        """Submit it, and wait until it has ended or is not worth waiting for.

        Parameters
        ----------
        patience_s : float
            How long it may wait to begin, in seconds.

        Raises
        ------
        MusterError
            When it could not be submitted, or perhaps not be ended.
        """
        await asyncio.to_thread(write_fences, self._wave)
        await self._backend.acquire_submit_slot()
        self._submitted_s = time.monotonic()
        submitting = asyncio.ensure_future(self._backend.submit(self._wave))
        try:
            await asyncio.shield(submitting)
            trouble = await self._watch(patience_s)
        finally:
            # What was sent may be there: it is looked for when its answer has come.
            with contextlib.suppress(MusterError):
                await submitting
            await self._end()
        result = await self._read_result()
        pod = None if self._pod is None else parse_pod(self._pod)
        waited_s = None
        if pod is not None and pod.started_at is not None and pod.created_at is not None:
            waited_s = max(0.0, (pod.started_at - pod.created_at).total_seconds())
        return ProbeEnd(
            result,
            None if result is not None else trouble,
            time.monotonic() - self._submitted_s,
            waited_s,
            None if pod is None else pod.host,
        )

    async def _watch(self, patience_s: float) -> MusterError | None:
        """Return when there is a result, or why there will be none."""
        pause_s = LOOK_FIRST_S
        began_s = time.monotonic()
        hindered_s: float | None = None
        ends_by: float | None = None
        while True:
            look = await self._look()
            if await self._read_result() is not None:
                return None
            now = time.monotonic()
            if look.state is JobState.WAITING:
                ends_by = None
                await self._read_events(now)
                why = find_wait(self._pod, self._events)
                hindered_s = (hindered_s or now) if why is not None and why.lasting else None
                is_over = now - began_s > patience_s
                if is_over or (hindered_s is not None and now - hindered_s > LASTING_S):
                    return explain_wait(look, self._pod, self._events, now - self._submitted_s)
            elif look.state is not JobState.UNKNOWN and look.state not in ALIVE:
                return await self._await_result(look)
            else:
                ends_by = ends_by or now + max(patience_s, RUN_PATIENCE_S)
                if now > ends_by:
                    return MusterError(
                        "the pod runs and does not end; it was taken away", where=look.host,
                        got=f"{look.state} for {now - ends_by + RUN_PATIENCE_S:.0f} s",
                        do="see its log in the work directory",
                    )  # fmt: skip
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, LOOK_LONGEST_S)

    async def _look(self) -> Observation:
        """Ask how Job and pod are; no watch, for it is one pod and not for long."""
        name = job_name(self._wave.key)
        try:
            self._job = await self._client.call("GET", jobs_path(self._namespace, name))
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise
            self._job = None
        query = {"labelSelector": f"{LABEL_KEY}={key_label(self._wave.key)}"}
        pods, _ = await self._client.list_all(pods_path(self._namespace), query)
        self._pod = newest_pods(pods).get(0, self._pod)
        return observe_index(self._job, 0, self._pod)

    async def _read_events(self, now_s: float) -> None:
        """Read now and then what is told of the pod, or of the Job while that has none."""
        if now_s - self._asked_s < EVENTS_EVERY_S:
            return
        self._asked_s = now_s
        kind, name = "Job", job_name(self._wave.key)
        if self._pod is not None:
            kind, name = "Pod", str(self._pod["metadata"]["name"])
        query = {"fieldSelector": f"involvedObject.kind={kind},involvedObject.name={name}"}
        try:
            self._events, _ = await self._client.list_all(events_path(self._namespace), query)
        except ApiError as error:
            if error.status != 403:
                raise

    async def _await_result(self, look: Observation) -> MusterError | None:
        """Wait for the result of a pod that has ended, as file systems may show it late."""
        deadline = time.monotonic() + self._backend.result_grace_s
        while await self._read_result() is None:
            if look.state is not JobState.COMPLETED or time.monotonic() > deadline:
                batch = self._wave.batch
                output = await self._read_output()
                image = target_of(batch).image or ""
                return explain_end(look, output, image, batch.work_uri)
            await asyncio.sleep(LOOK_FIRST_S)
        return None

    async def _read_result(self) -> Result | None:
        uri = self._wave.batch.result_uri(0, 1)
        if not await asyncio.to_thread(storage.exists, uri):
            return None
        return Result.model_validate_json(await asyncio.to_thread(storage.read_bytes, uri))

    async def _read_output(self) -> str:
        """Read the last lines of the pod's log, where that may be read."""
        if self._pod is None:
            return ""
        path = f"{pods_path(self._namespace, str(self._pod['metadata']['name']))}/log"
        query = {"container": CONTAINER, "tailLines": LOG_LINES}
        try:
            return (await self._client.read_text(path, query)).decode("utf-8", "replace")
        except ApiError:
            return ""  # what the node tells of the end is told in its place

    async def _end(self) -> None:
        """Leave nothing in the cluster, whatever has happened."""
        try:
            await self._backend.cancel(self._wave, None)
        except Transient as error:
            name = job_name(self._wave.key)
            raise Transient(
                "a Job may be left in the cluster", where=f"namespace {self._namespace}", got=error,
                do=f"kubectl --namespace {self._namespace} delete job {name}",
            ) from error  # fmt: skip
