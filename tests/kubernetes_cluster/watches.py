"""Streams: watches of a resource, and logs that are followed."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.kubernetes_cluster.statuses import ApiRefusal
from tests.kubernetes_cluster.storage import read_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.kubernetes_cluster.containers import ContainerLog
    from tests.kubernetes_cluster.faults import Faults
    from tests.kubernetes_cluster.resources import Resource
    from tests.kubernetes_cluster.storage import Change, Storage

    Object = dict[str, Any]
    Matches = Callable[[Object], bool]

TOO_LARGE_S = 3.0
LONGEST_S = 1800.0


class WatchStream:
    """One watch of one resource."""

    def __init__(
        self, store: Storage, faults: Faults, resource: Resource, matches: Matches
    ) -> None:
        self._store = store
        self._faults = faults
        self._resource = resource
        self._matches = matches

    async def answer(
        self, request: web.Request, query: Mapping[str, str], bookmark_every_s: float
    ) -> web.StreamResponse:
        """Stream what changes until the time is over, the client is gone or the watch breaks."""
        version = await self._read_version(query.get("resourceVersion", ""))
        plural = self._resource.plural
        queue: asyncio.Queue[Change | None] = asyncio.Queue()
        watcher = (plural, queue)
        lines, expired = self._first_lines(version)
        self._store.watchers.append(watcher)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        try:
            await response.prepare(request)
            for line in lines:
                await response.write(line)
            if not expired:
                bookmarks = query.get("allowWatchBookmarks") == "true"
                seconds = float(query.get("timeoutSeconds") or LONGEST_S)
                await self._follow(
                    request, response, queue, seconds, bookmark_every_s if bookmarks else None
                )
            await response.write_eof()
        except (ConnectionError, ConnectionResetError):
            pass
        finally:
            self._store.watchers.remove(watcher)
        return response

    async def _read_version(self, text: str) -> int | None:
        """Return the version to start after; None: with all that there is."""
        if text in ("", "0"):
            return None
        if not text.isdigit():
            raise ApiRefusal(400, f'Invalid value: "{text}": strconv.ParseUint: invalid syntax')
        if int(text) > self._store.version:
            await asyncio.sleep(TOO_LARGE_S)
            if int(text) > self._store.version:
                said = f"Too large resource version: {text}, current: {self._store.version}"
                raise ApiRefusal(504, f"Timeout: {said}", headers={"Retry-After": "1"})
        return int(text)

    def _first_lines(self, version: int | None) -> tuple[list[bytes], bool]:
        plural = self._resource.plural
        if version is None:
            items = filter(self._matches, self._store.list(plural))
            return [_line("ADDED", json.dumps(item)) for item in items], False
        changes = self._store.since(plural, version)
        if changes is None:
            said = f"too old resource version: {version} ({self._store.oldest})"
            return [_line("ERROR", json.dumps(ApiRefusal(410, said).body))], True
        return [line for change in changes for line in self._lines(change)], False

    def _lines(self, change: Change) -> Iterator[bytes]:
        now_in = change.kind != "DELETED" and self._matches(change.item)
        before_in = change.before is not None and self._matches(change.before)
        if now_in or before_in:
            kind = "MODIFIED" if now_in and before_in else ("ADDED" if now_in else "DELETED")
            yield _line(kind, change.raw)

    def _bookmark(self) -> bytes:
        item = {
            "kind": self._resource.kind,
            "apiVersion": self._resource.api_version,
            "metadata": {"resourceVersion": str(self._store.version), "creationTimestamp": None},
        }
        return _line("BOOKMARK", json.dumps(item))

    async def _follow(
        self,
        request: web.Request,
        response: web.StreamResponse,
        queue: asyncio.Queue[Change | None],
        seconds: float,
        bookmark_every_s: float | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        ends = loop.time() + seconds
        while (left := ends - loop.time()) > 0:
            await self._faults.unmuted.wait()
            patience = left if bookmark_every_s is None else min(left, bookmark_every_s)
            try:
                change = await asyncio.wait_for(queue.get(), patience)
            except TimeoutError:
                if bookmark_every_s is not None:
                    await response.write(self._bookmark())
                continue
            if change is None:
                if request.transport is not None:
                    request.transport.abort()
                return
            await self._faults.unmuted.wait()
            for line in self._lines(change):
                await response.write(line)


def _line(kind: str, raw: str) -> bytes:
    return f'{{"type":"{kind}","object":{raw}}}\n'.encode()


async def answer_log(
    request: web.Request, query: Mapping[str, str], log: ContainerLog
) -> web.StreamResponse:
    """Send a log, and go on until the container has ended where it is followed."""
    since = _since(query)
    stamps = query.get("timestamps") == "true"
    tail = int(query["tailLines"]) if "tailLines" in query else None
    left = int(query["limitBytes"]) if "limitBytes" in query else None
    start = 0 if tail is None else max(len(log.lines) - tail, 0)
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    await response.prepare(request)
    try:
        with log.reader() as more:
            while True:
                more.clear()
                ended = log.ended
                part = [entry for entry in log.lines[start:] if since is None or entry[0] >= since]
                start = len(log.lines)
                data = b"".join(_stamp(entry, stamps=stamps) for entry in part)
                data, left = (data, None) if left is None else (data[:left], left - len(data))
                if data:
                    await response.write(data)
                if ended or query.get("follow") != "true" or (left is not None and left <= 0):
                    break
                await more.wait()
        await response.write_eof()
    except ConnectionError:
        pass
    return response


def _since(query: Mapping[str, str]) -> datetime | None:
    if "sinceTime" in query:
        return read_time(query["sinceTime"])
    if "sinceSeconds" in query:
        return datetime.now(UTC) - timedelta(seconds=float(query["sinceSeconds"]))
    return None


def _stamp(entry: tuple[datetime, bytes], *, stamps: bool) -> bytes:
    moment, line = entry
    if not stamps:
        return line
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}000Z ".encode() + line
