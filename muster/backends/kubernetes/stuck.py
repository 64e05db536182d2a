"""Pods that do not start, and Jobs that have none: said at once, and given up where no time helps.

A pod that waits for a node or for a quota waits on, as in a full queue.  One whose image is not
there, or whose Secret lacks a key, would wait as long as somebody lets it: after a while its wave
is ended, with Kubernetes' own words, unless others of it run.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from muster.backends.kubernetes.client import ApiError, events_path
from muster.backends.kubernetes.parse import is_ended, is_suspended, parse_pod
from muster.backends.kubernetes.refusal import (
    Hindrance,
    find_failed_creation,
    find_failed_start,
    find_hindrance,
)
from muster.model.outcome import JobState, Observation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from muster.backends.kubernetes.client import ApiClient
    from muster.model.kubernetes_target import Kubernetes
    from muster.model.wave import Wave

FEW_PODS_S = 10.0
"""So long a Job may have fewer pods than it should before its events are asked for, in seconds."""
STARTING_S = 60.0
"""So long a node may take to start a pod before its events are asked for, in seconds."""
EVENTS_EVERY_S = 30.0
PAUSE_S = 60.0
"""A pod that was not hindered for so long begins anew: its node tries again in between."""
FORGET_S = 180.0
MOST_KEPT = 50_000

log = logging.getLogger(__name__)


@dataclass
class _Waiting:
    """A pod, or a Job without, that is hindered."""

    since_s: float
    seen_s: float


@dataclass
class _Asked:
    """A Job that has fewer pods than it should have, or a pod that its node does not start."""

    since_s: float
    asked_s: float = float("-inf")
    why: Hindrance | None = None


class StuckPods:
    """Watches over what does not start, for all batches of a process.

    Parameters
    ----------
    client : ApiClient
        What asks for the events of a Job without pods.
    cluster : Kubernetes
        Which cluster, and after how long a pod is given up.
    """

    few_pods_s = FEW_PODS_S
    starting_s = STARTING_S
    events_every_s = EVENTS_EVERY_S

    def __init__(self, client: ApiClient, cluster: Kubernetes) -> None:
        self._client = client
        self._cluster = cluster
        self._waiting: dict[tuple[str, int, bool], _Waiting] = {}
        self._asked: dict[str, _Asked] = {}  # name of a Job or pod → what was told of it
        self._logged: dict[tuple[str, str], None] = {}
        self._told: dict[str, tuple[float, str]] = {}  # key → when and what
        self._refused: dict[str, tuple[frozenset[int], str]] = {}

    @property
    def reason(self) -> str | None:
        """What keeps pods from being started now; None where nothing does."""
        oldest_s = time.monotonic() - FORGET_S
        self._told = {key: told for key, told in self._told.items() if told[0] > oldest_s}
        if not self._told:
            return None
        key, (_, text) = next(iter(self._told.items()))
        more = f"; and {len(self._told) - 1} more" if len(self._told) > 1 else ""
        return f"{key} waits: {text}{more}"

    def refused(self, wave: Wave) -> dict[int, Observation]:
        """Say how the elements of a wave are that were given up; none where it was not."""
        waiting, message = self._refused.get(wave.key, (frozenset(), ""))
        return dict.fromkeys(waiting, Observation(JobState.REFUSED, message=message))

    def give_up(self, wave: Wave, waiting: frozenset[int], hindrance: Hindrance) -> None:
        """Remember that elements of a wave are ended for good, and why.

        Parameters
        ----------
        waiting : frozenset of int
            Those that have not ended by themselves.
        """
        log.error("%s is ended, for it cannot start: %s", wave.key, hindrance)
        self._refused[wave.key] = (waiting, str(hindrance))
        _drop_first(self._refused)
        self._told.pop(wave.key, None)

    async def find(
        self,
        wave: Wave,
        job: Mapping[str, Any],
        places: Mapping[int, int],
        newest: Mapping[int, Mapping[str, Any]],
        seen: Mapping[int, Observation],
    ) -> tuple[Hindrance, float] | None:
        """Say what keeps all of a wave that has not ended from starting, and since how long.

        Parameters
        ----------
        places : mapping of int to int
            Element index → index of its pod.
        newest : mapping of int to mapping
            Index of a pod → the pod.
        seen : mapping of int to Observation
            Element index → how it is.

        Returns
        -------
        tuple of Hindrance and float, or None
            One that time alone does not end goes before one that it may; None where something of
            the wave runs, or is only about to start.
        """
        now_s = time.monotonic()
        waiting = {places[i] for i, look in seen.items() if look.state is JobState.WAITING}
        found: list[tuple[Hindrance, float]] = []
        starting = []
        for place in sorted(waiting & newest.keys()):
            hindrance = find_hindrance(parse_pod(newest[place]))
            if hindrance is not None:
                found.append((hindrance, self._since(wave.key, place, hindrance, now_s)))
            elif (newest[place].get("spec") or {}).get("nodeName"):
                starting.append(place)
        if waiting - newest.keys():
            few = await self._find_few(job, now_s)
            if few is not None:
                found.append((few, self._since(wave.key, -1, few, now_s)))
        if starting:  # one of them stands for all: their events are many
            first = min(starting, key=lambda place: str(_created_at(newest[place])))
            slow = await self._ask("Pod", newest[first], self.starting_s, now_s)
            if slow is not None:
                found.append((slow, self._since(wave.key, first, slow, now_s)))
        self._tell(wave.key, [hindrance for hindrance, _ in found], now_s)
        if not found or any(look.state is JobState.RUNNING for look in seen.values()):
            return None
        return max(found, key=lambda one: (one[0].lasting, one[1]))

    def _since(self, key: str, place: int, hindrance: Hindrance, now_s: float) -> float:
        """Say since how long a pod has been hindered, in seconds.

        An image that is not there has two names in turn.
        """
        name = (key, place, hindrance.lasting)
        known = self._waiting.get(name)
        if known is None or now_s - known.seen_s > PAUSE_S:
            known = self._waiting[name] = _Waiting(now_s, now_s)
        known.seen_s = now_s
        _drop_first(self._waiting)
        return now_s - known.since_s

    async def _find_few(self, job: Mapping[str, Any], now_s: float) -> Hindrance | None:
        """Say why a Job has fewer pods than it should have, by its events."""
        if not _has_few(job):
            self._asked.pop(str(job["metadata"]["name"]), None)
            return None
        return await self._ask("Job", job, self.few_pods_s, now_s)

    async def _ask(
        self, kind: str, item: Mapping[str, Any], patience_s: float, now_s: float
    ) -> Hindrance | None:
        """Say why a Job or a pod has not gone on for so long: its events are asked now and then."""
        asked = self._asked.setdefault(str(item["metadata"]["name"]), _Asked(now_s))
        _drop_first(self._asked)
        if now_s - asked.since_s >= patience_s and now_s - asked.asked_s >= self.events_every_s:
            asked.asked_s = now_s
            asked.why = await self._read_events(kind, str(item["metadata"]["name"]))
        return asked.why

    async def _read_events(self, kind: str, name: str) -> Hindrance | None:
        query = {"fieldSelector": f"involvedObject.kind={kind},involvedObject.name={name}"}
        try:
            events, _ = await self._client.list_all(events_path(self._cluster.namespace), query)
        except ApiError as error:
            if error.status != 403:
                raise
            what = {"Job": "the Job has fewer pods than it should", "Pod": "a pod does not start"}
            return Hindrance(
                {"Job": "FailedCreate", "Pod": "ContainerCreating"}[kind],
                f"{what[kind]}, and its events may not be read: {error}",
                lasting=False,
                do=f"ask 'kubectl describe {kind.lower()} {name}', or give the right to list "
                "events",
            )
        return find_failed_creation(events) if kind == "Job" else find_failed_start(events)

    def _tell(self, key: str, hindrances: list[Hindrance], now_s: float) -> None:
        """Log each hindrance once, and keep the first for who asks."""
        if not hindrances:
            self._told.pop(key, None)
            return
        self._told[key] = (now_s, str(hindrances[0]))
        for hindrance in hindrances:
            if (key, hindrance.reason) not in self._logged:
                self._logged[key, hindrance.reason] = None
                _drop_first(self._logged)
                log.warning("%s waits: %s", key, hindrance)


def _drop_first(kept: dict[Any, Any]) -> None:
    """Forget the oldest of what a process that runs for months remembers."""
    while len(kept) > MOST_KEPT:
        del kept[next(iter(kept))]


def _created_at(pod: Mapping[str, Any]) -> str | None:
    created: str | None = pod["metadata"].get("creationTimestamp")
    return created


def _has_few(job: Mapping[str, Any]) -> bool:
    """Tell whether a Job has fewer pods than it should have."""
    if is_suspended(job) or is_ended(job) or job["metadata"].get("deletionTimestamp"):
        return False
    spec, status = job.get("spec") or {}, job.get("status") or {}
    ended = int(status.get("succeeded") or 0) + int(status.get("failed") or 0)
    left = int(spec.get("completions") or 0) - ended
    # A pod that is being deleted is replaced when it has ended, not before.
    present = int(status.get("active") or 0) + int(status.get("terminating") or 0)
    return present < min(left, int(spec.get("parallelism") or 1))
