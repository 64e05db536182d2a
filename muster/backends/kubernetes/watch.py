"""One list and one watch for all batches of a process, of Jobs and of their pods.

A list gives the state and its version; the watch goes on from there.  A watch that breaks is taken
up at the newest version that it has told of, bookmarks among them; only where the API server no
longer has that (410) is everything listed again.  Between a Job's creation and the event that tells
of it this lags: what it does not know is looked up by its key, and never taken for gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
import logging
import random
import time
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

from muster.backends.kubernetes.client import GONE, ApiError, ApiUnreachable, jobs_path, pods_path
from muster.backends.kubernetes.names import LABEL_MANAGED, MANAGED_BY
from muster.backends.kubernetes.snapshot import Jobs, Pods
from muster.errors import Transient, one_line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from muster.backends.kubernetes.client import ApiClient

SELECTOR = f"{LABEL_MANAGED}={MANAGED_BY}"
WATCH_S = 240
"""So long one watch lasts, in seconds; the API server ends it."""
WATCH_SLACK_S = 30.0
FIRST_BACK_OFF_S, LONGEST_BACK_OFF_S = 0.5, 10.0
SHORTEST_WATCH_S = 1.0
LONGEST_WAIT_S = 30.0
FIRST_WAIT_S = 5.0
SPACING_S, SPACING_EACH_S = 1.0, 0.02
"""Who waits is woken at most so often, and the less often the more wait: each reads the store."""
IDLE_S = 900.0
LONGEST_EVENT = 8 << 20

log = logging.getLogger(__name__)


class Expired(Exception):
    """The version that a watch was to go on from is no longer kept."""


class Kept(Protocol):
    """What one kind of object is kept in."""

    def replace(self, items: list[dict[str, Any]]) -> None:
        """Keep what a list has given, and nothing else."""

    def put(self, item: dict[str, Any]) -> None:
        """Keep an object that is new or has changed."""

    def remove(self, item: dict[str, Any]) -> None:
        """Note that an object has been deleted."""


class Reflector:
    """Keeps the objects of one kind as the API server has them.

    Attributes
    ----------
    synced : bool
        Whether they were listed.
    trouble : str or None
        Why the newest list or watch was not answered.
    """

    def __init__(self, client: ApiClient, path: str, kept: Kept, watch: ClusterWatch) -> None:
        self.synced = False
        self.trouble: str | None = None
        self._client = client
        self._path = path
        self._kept = kept
        self._watch = watch
        self._version: str | None = None
        self._failures = 0

    async def run(self) -> None:
        """Follow for as long as someone asks."""
        while self._watch.is_wanted:
            try:
                if self._version is None:
                    await self._list()
                await self._follow()
            except Expired:
                log.info("watch of %s: its version has expired, all is listed anew", self._path)
                self._version = None
            except Transient as error:
                await self._back_off(error)
            except Exception as error:  # a watch that goes wrong must not be the last one
                log.exception("the watch of %s failed", self._path)
                self._version = None
                await self._back_off(error)

    def list_again(self) -> None:
        """List everything when the present watch ends."""
        self._version = None

    async def _list(self) -> None:
        items, version = await self._client.list_all(self._path, {"labelSelector": SELECTOR})
        self._kept.replace(items)
        self._version = version
        self.synced = True
        self._succeed()
        self._watch.notify()

    async def _follow(self) -> None:
        """Take in events until the watch ends."""
        query = {
            "labelSelector": SELECTOR,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": WATCH_S,
        }
        began_s = time.monotonic()
        try:
            async with self._client.open(
                "GET", self._path, query, timeout_s=WATCH_S + WATCH_SLACK_S
            ) as response:
                self._succeed()
                async for event in _read_events(response.content.iter_any(), self._path):
                    self._take(event)
                    if self._version is None:
                        return
        except ApiError as error:
            if error.status == GONE:
                raise Expired from error
            raise
        if time.monotonic() - began_s < SHORTEST_WATCH_S:  # a proxy that lets nothing last
            await asyncio.sleep(SHORTEST_WATCH_S)

    def _take(self, event: dict[str, Any]) -> None:
        kind, item = event.get("type"), event.get("object") or {}
        if kind == "ERROR":
            if item.get("code") == GONE:
                raise Expired
            raise ApiUnreachable(
                "a watch ended in an error", where=self._path, got=item.get("message", item)
            )
        version = (item.get("metadata") or {}).get("resourceVersion")
        if kind in ("ADDED", "MODIFIED"):
            self._kept.put(item)
        elif kind == "DELETED":
            self._kept.remove(item)
        elif kind != "BOOKMARK":
            log.warning("watch of %s: unknown event %r", self._path, kind)
            return
        if version and self._version is not None:
            self._version = str(version)
        if kind != "BOOKMARK":
            self._watch.notify()

    def _succeed(self) -> None:
        if self.trouble is not None:
            log.info("the API server answers again: %s", self._path)
        self._failures, self.trouble = 0, None

    async def _back_off(self, error: Exception) -> None:
        """Wait ever longer; one watch that broke is no trouble, for the next may be answered."""
        self._failures += 1
        if self._failures > 1 or not self.synced:
            if self.trouble is None:
                log.warning("the cluster cannot be watched: %s", error)
            self.trouble = one_line(str(error)) or type(error).__name__
            self._watch.notify()
        wait_s = min(LONGEST_BACK_OFF_S, FIRST_BACK_OFF_S * 2.0 ** min(self._failures - 1, 10))
        await asyncio.sleep(wait_s * random.uniform(0.75, 1.25))


class ClusterWatch:
    """Follows the Jobs and pods of one namespace for all batches of this process.

    Parameters
    ----------
    client : ApiClient
        What speaks to the API server.
    namespace : str
        Where they lie.

    Attributes
    ----------
    jobs, pods
        What is known of them.
    """

    longest_wait_s = LONGEST_WAIT_S

    def __init__(self, client: ApiClient, namespace: str) -> None:
        self.jobs = Jobs()
        self.pods = Pods()
        self._reflectors = (
            Reflector(client, jobs_path(namespace), self.jobs, self),
            Reflector(client, pods_path(namespace), self.pods, self),
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()
        self._changes = 0
        self._known: WeakKeyDictionary[asyncio.Task[Any], int] = WeakKeyDictionary()
        self._told_s = 0.0
        self._telling: asyncio.TimerHandle | None = None
        self._waking: asyncio.TimerHandle | None = None
        self._wanted_s = 0.0
        self._waiting = 0

    @property
    def synced(self) -> bool:
        """Whether all was listed since the watch began."""
        return all(reflector.synced for reflector in self._reflectors)

    @property
    def trouble(self) -> str | None:
        """Why the API server was not heard of lately."""
        return next((r.trouble for r in self._reflectors if r.trouble is not None), None)

    @property
    def is_wanted(self) -> bool:
        """Whether someone waits, or has asked lately."""
        return bool(self._waiting) or time.monotonic() - self._wanted_s < IDLE_S

    def ask(self) -> None:
        """Want to know; follow for a while."""
        self._wanted_s = time.monotonic()
        if any(not task.done() for task in self._tasks):
            return
        loop = asyncio.get_running_loop()
        for reflector in self._reflectors:
            reflector.synced = False
            reflector.list_again()
        # A context of their own, or their log lines would carry the name of whoever came first.
        self._tasks = [
            loop.create_task(reflector.run(), context=contextvars.Context())
            for reflector in self._reflectors
        ]

    async def wait_for_change(self) -> None:
        """Return when something has changed since this task last waited, or after a while."""
        self.ask()
        task = asyncio.current_task()
        assert task is not None
        known = self._known.get(task)
        self._waiting += 1
        try:
            if known is None or known == self._changes:
                # What has changed before the first time is not known to have been looked at.
                first_s = min(FIRST_WAIT_S, self.longest_wait_s)
                async with asyncio.timeout(first_s if known is None else self.longest_wait_s):
                    await self._changed.wait()
        except TimeoutError:
            pass
        finally:
            self._waiting -= 1
            self._known[task] = self._changes

    def notify(self) -> None:
        """Wake those who wait, not more often than they can bear."""
        if self._telling is not None:
            return
        spacing_s = max(SPACING_S, SPACING_EACH_S * self._waiting)
        wait_s = max(0.0, self._told_s + spacing_s - time.monotonic())
        self._telling = asyncio.get_running_loop().call_later(wait_s, self._tell)

    def wake_in(self, seconds: float) -> None:
        """Wake those who wait after a while, though nothing may have changed by then."""
        if self._waking is None:
            self._waking = asyncio.get_running_loop().call_later(seconds, self._wake)

    def list_again(self) -> None:
        """List everything anew, where the watch has not told of what is there."""
        for reflector in self._reflectors:
            reflector.list_again()

    async def close(self) -> None:
        """Follow no more."""
        for timer in (self._telling, self._waking):
            if timer is not None:
                timer.cancel()
        self._telling = self._waking = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def _wake(self) -> None:
        self._waking = None
        self.notify()

    def _tell(self) -> None:
        self._telling = None
        self._told_s = time.monotonic()
        self._changes += 1
        self._changed.set()
        self._changed = asyncio.Event()


async def _read_events(parts: AsyncIterator[bytes], where: str) -> AsyncIterator[dict[str, Any]]:
    """Read events, a line each; the last one may be cut off where a watch breaks."""
    held = bytearray()
    async for part in parts:
        held += part
        *lines, rest = held.split(b"\n")
        held = bytearray(rest)
        if len(held) > LONGEST_EVENT:
            raise ApiUnreachable("an event without end", where=where, got=f"{len(held)} bytes")
        for line in lines:
            if line.strip():
                with contextlib.suppress(ValueError):
                    yield json.loads(line)
