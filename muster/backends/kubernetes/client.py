"""The API server, spoken to in raw JSON: every call has a time-out, and calls are paced.

The configuration and the connections are kubernetes_asyncio's; its models are not used, for they
take four times the processor and ten times the memory.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from muster.backends.kubernetes.connect import load_configuration
from muster.errors import Transient, one_line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from aiohttp import ClientResponse
    from kubernetes_asyncio.client.configuration import Configuration
    from kubernetes_asyncio.client.rest import RESTClientObject

    from muster.model.kubernetes_target import Kubernetes

CALL_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 10.0
PAGE = 500
BURST = 10
"""So many calls may follow each other at once before they are paced."""
LONGEST_RETRY_AFTER_S = 60.0
LONGEST_ANSWER = 256 << 20
MOST_RESTARTS = 5
USER_AGENT = "muster"

UNAUTHORIZED, NOT_FOUND, CONFLICT, GONE, TOO_MANY = 401, 404, 409, 410, 429

log = logging.getLogger(__name__)


class ApiUnreachable(Transient):
    """No answer came: what was asked for may have been done."""


class ApiError(Transient):
    """The API server answered with an error.

    Attributes
    ----------
    status : int
        Of HTTP.
    reason, message : str
        Its own word for it, and its own sentence.
    """

    def __init__(self, status: int, reason: str, message: str, *, where: str) -> None:
        super().__init__("the API server says no", where=where, got=f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class ApiClient:
    """Calls of one process on one API server.

    Parameters
    ----------
    cluster : Kubernetes
        Which, and how many calls a second it is asked for at most.

    Attributes
    ----------
    calls : Counter
        How often it was asked, by verb and path.
    """

    def __init__(self, cluster: Kubernetes) -> None:
        self.calls: Counter[str] = Counter()
        self._cluster = cluster
        self._configuration: Configuration | None = None
        self._rest: RESTClientObject | None = None
        self._loading = asyncio.Lock()
        self._every_s = 1.0 / cluster.requests_per_s
        self._next_s = 0.0
        self._not_before_s = 0.0

    @property
    def host(self) -> str | None:
        """The address of the API server; None before the first call."""
        return None if self._configuration is None else self._configuration.host

    async def close(self) -> None:
        """Close the connections."""
        rest, self._rest, self._configuration = self._rest, None, None
        if rest is not None:
            await rest.close()

    async def call(
        self,
        verb: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> dict[str, Any]:
        """Call, and return what the API server answers.

        Raises
        ------
        ApiError
            When the answer is an error.
        ApiUnreachable
            When none came: what was asked for may have been done.
        """
        async with self.open(verb, path, query, body, timeout_s) as response:
            data = await _read(response, f"{verb} {path}")
        try:
            answer = json.loads(data)
        except ValueError as error:
            raise ApiUnreachable(
                "not an answer of an API server", where=f"{verb} {path}", got=repr(data[:200])
            ) from error
        if not isinstance(answer, dict):
            raise ApiUnreachable("not an object", where=f"{verb} {path}", got=repr(data[:200]))
        return answer

    async def read_text(self, path: str, query: Mapping[str, Any] | None = None) -> bytes:
        """Read what is no JSON: a container's log."""
        async with self.open("GET", path, query) as response:
            return await _read(response, f"GET {path}")

    async def list_all(
        self, path: str, query: Mapping[str, Any]
    ) -> tuple[list[dict[str, Any]], str]:
        """List all objects, page by page; return them and the version that they are of.

        Without a resourceVersion the list is consistent, and from no cache.
        """
        for _ in range(MOST_RESTARTS):
            try:
                return await self._list_pages(path, query)
            except ApiError as error:
                if error.status != GONE:
                    raise
        raise ApiUnreachable(
            "a list expires while it is read",
            where=path,
            got=f"{MOST_RESTARTS} tries",
            do="is the API server overloaded?",
        )

    @asynccontextmanager
    async def open(
        self,
        verb: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> AsyncIterator[ClientResponse]:
        """Call, and give the answer to be read; errors are raised as :meth:`call` does."""
        import aiohttp

        where = f"{verb} {path}"
        try:
            response = await self._request(verb, path, query, body, timeout_s)
            if response.status == UNAUTHORIZED:
                response.release()
                log.info("cluster %s: credentials are read again", self._cluster.name)
                await self._reload(response)
                response = await self._request(verb, path, query, body, timeout_s)
            async with response:
                if not 200 <= response.status < 300:
                    raise self._explain(response, await _read(response, where), where)
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiUnreachable(
                "the API server does not answer",
                where=f"cluster {self._cluster.name}, {where}",
                got=one_line(str(error)) or type(error).__name__,
            ) from error

    async def _list_pages(
        self, path: str, query: Mapping[str, Any]
    ) -> tuple[list[dict[str, Any]], str]:
        items: list[dict[str, Any]] = []
        page: dict[str, Any] = {}
        while True:
            answer = await self.call("GET", path, {**query, "limit": PAGE, **page})
            items += answer.get("items") or []
            told = answer.get("metadata") or {}
            if not told.get("continue"):
                return items, str(told.get("resourceVersion", ""))
            page = {"continue": told["continue"]}

    async def _request(
        self,
        verb: str,
        path: str,
        query: Mapping[str, Any] | None,
        body: Mapping[str, Any] | None,
        timeout_s: float,
    ) -> ClientResponse:
        import aiohttp

        await self._pace()
        configuration, rest = await self._connect()
        headers = {"Accept": "application/json", "User-Agent": USER_AGENT}
        token = await configuration.get_api_key_with_prefix("BearerToken")
        if token:
            headers["Authorization"] = token.strip()
        self.calls[f"{verb} {path}"] += 1
        response: ClientResponse = await rest.request(
            verb,
            (configuration.host or "").rstrip("/") + path,
            headers=headers,
            query_params=None if query is None else dict(query),
            body=body,
            _preload_content=False,
            _request_timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S),
        )
        return response

    async def _connect(self) -> tuple[Configuration, RESTClientObject]:
        from kubernetes_asyncio.client.rest import RESTClientObject

        async with self._loading:
            if self._configuration is None or self._rest is None:
                self._configuration = await load_configuration(self._cluster)
                self._rest = RESTClientObject(self._configuration)
            return self._configuration, self._rest

    async def _reload(self, refused: ClientResponse) -> None:
        """Read the credentials again, unless another call has since this one was refused."""
        used = refused.request_info.headers.get("Authorization", "")
        async with self._loading:
            configuration = self._configuration
            if configuration is None:
                return
            token = await configuration.get_api_key_with_prefix("BearerToken") or ""
            if token.strip() != used:
                return
            # Other calls may still read from what is closed here: they are made again.
            rest, self._rest, self._configuration = self._rest, None, None
        if rest is not None:
            await rest.close()

    async def _pace(self) -> None:
        """Wait until one more call may be made."""
        now_s = time.monotonic()
        self._next_s = max(self._next_s, now_s - (BURST - 1) * self._every_s, self._not_before_s)
        wait_s = self._next_s - now_s
        self._next_s += self._every_s
        if wait_s > 0:
            await asyncio.sleep(wait_s)

    def _explain(self, response: ClientResponse, data: bytes, where: str) -> ApiError:
        """Make the error that an answer is, and hold back where it asks for that."""
        after = response.headers.get("Retry-After", "")
        if response.status == TOO_MANY and after.isdecimal():
            held_s = min(float(after), LONGEST_RETRY_AFTER_S)
            self._not_before_s = time.monotonic() + held_s
        return parse_error(response.status, data, where=f"cluster {self._cluster.name}, {where}")


def parse_error(status: int, data: bytes, *, where: str) -> ApiError:
    """Parse the Status that an API server answers with; a proxy before it has words of its own."""
    try:
        said = json.loads(data)
        reason, message = str(said["reason"]), str(said["message"])
    except (ValueError, TypeError, KeyError):
        reason, message = "", one_line(data[:500].decode("utf-8", "replace"))
    return ApiError(status, reason, message, where=where)


def jobs_path(namespace: str, name: str | None = None) -> str:
    """Return the path of a namespace's Jobs, or of one."""
    return _path(f"/apis/batch/v1/namespaces/{quote(namespace, safe='')}/jobs", name)


def pods_path(namespace: str, name: str | None = None) -> str:
    """Return the path of a namespace's pods, or of one."""
    return _path(f"/api/v1/namespaces/{quote(namespace, safe='')}/pods", name)


def events_path(namespace: str) -> str:
    """Return the path of a namespace's events."""
    return f"/api/v1/namespaces/{quote(namespace, safe='')}/events"


def _path(base: str, name: str | None) -> str:
    return base if name is None else f"{base}/{quote(name, safe='')}"


async def _read(response: ClientResponse, where: str) -> bytes:
    """Read an answer, which must end somewhere."""
    parts, size = [], 0
    async for part in response.content.iter_chunked(1 << 16):
        size += len(part)
        if size > LONGEST_ANSWER:
            raise ApiUnreachable("an answer without end", where=where, got=f"{size} bytes")
        parts.append(part)
    return b"".join(parts)
