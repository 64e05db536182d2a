"""A small client of Airflow's REST API (v2), for the demonstration; tests add to it."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from muster.errors import InvalidInput, MissingInput, MusterError, SoftwareError, Transient
from muster.laptop.airflow_answers import (
    DagRun,
    TaskInstance,
    parse_dag_run,
    parse_log_line,
    parse_task_instance,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

__all__ = ["AirflowApi", "DagRun", "TaskAddress", "TaskInstance", "wait_until"]

PAGE_SIZE = 100
"""The most rows that the server gives at once ([api] maximum_page_limit)."""

TaskAddress = tuple[str, int]
"""A task's id and its map index, -1 where it is not mapped."""


@dataclass
class AirflowApi:
    """Airflow at one address, as one user.

    Every method raises MissingInput where what it names is not there, InvalidInput where the
    server refuses, and Transient where the server does not answer or fails.
    """

    address: str
    user: str
    password: str = field(repr=False)
    timeout_s: float = 60.0
    _token: str | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        # Loopback is never reached through a proxy, whatever the environment says.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        query: Mapping[str, str | int] | None = None,
    ) -> Any:
        """Make one authenticated request and return what the JSON of the answer says."""
        url = f"{self.address}/api/v2/{path}" + (f"?{urlencode(query)}" if query else "")
        if self._token is None:
            self._token = self._fetch_token()
        try:
            return self._send(method, url, body, self._token)
        except _Unauthorized:
            self._token = self._fetch_token()
            return self._send(method, url, body, self._token)

    def health(self) -> dict[str, Any]:
        """Return the state of the server's components; this needs no login."""
        answer: dict[str, Any] = self._send(
            "GET", f"{self.address}/api/v2/monitor/health", None, None
        )
        return answer

    def has_dag(self, dag_id: str) -> bool:
        """Say whether the DAG processor has parsed a DAG."""
        try:
            self.call("GET", f"dags/{quoted(dag_id)}")
        except MissingInput:
            return False
        return True

    def import_errors(self) -> dict[str, str]:
        """Return why DAG files could not be parsed: file name → stack trace."""
        rows = self._rows("importErrors", "import_errors")
        return {str(row["filename"]): str(row["stack_trace"]) for row in rows}

    def wait_for_dag(self, dag_id: str, patience_s: float = 180.0) -> None:
        """Wait until a DAG is parsed.

        Raises
        ------
        SoftwareError
            With the import errors, when it is not there after ``patience_s``.
        """

        def parsed() -> bool:
            return self.has_dag(dag_id)

        if not wait_until(parsed, patience_s):
            errors = "; ".join(f"{file}: {text}" for file, text in self.import_errors().items())
            raise SoftwareError(
                "Airflow does not know the DAG",
                where=dag_id,
                got=errors or f"no import errors after {patience_s:.0f} s",
            )

    def unpause(self, dag_id: str) -> None:
        """Let a DAG's runs be scheduled."""
        self.call("PATCH", f"dags/{quoted(dag_id)}", {"is_paused": False})

    def trigger(
        self,
        dag_id: str,
        conf: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        logical_date: datetime | None = None,
    ) -> str:
        """Start a run and return its id."""
        body = {
            "dag_run_id": run_id,
            "logical_date": logical_date.isoformat() if logical_date else None,
            "conf": dict(conf or {}),
        }
        answer = self.call("POST", f"dags/{quoted(dag_id)}/dagRuns", body)
        return str(answer["dag_run_id"])

    def run(self, dag_id: str, run_id: str) -> DagRun:
        """Return a run."""
        return parse_dag_run(self.call("GET", run_path(dag_id, run_id)))

    def task_instances(self, dag_id: str, run_id: str) -> list[TaskInstance]:
        """Return all task instances of a run, each index of the mapped ones included."""
        path = f"{run_path(dag_id, run_id)}/taskInstances"
        return [parse_task_instance(row) for row in self._rows(path, "task_instances")]

    def task_log(
        self, dag_id: str, run_id: str, task: TaskAddress, try_number: int | None = None
    ) -> str:
        """Return the log of a try of a task (the newest one by default), a line an event."""
        task_id, map_index = task
        path = f"{run_path(dag_id, run_id)}/taskInstances/{quoted(task_id)}"
        if try_number is None:
            newest = f"{path}/{map_index}" if map_index >= 0 else path
            try_number = int(self.call("GET", newest)["try_number"])
        answer = self.call(
            "GET", f"{path}/logs/{try_number}", query={"map_index": map_index, "full_content": 1}
        )
        return "\n".join(parse_log_line(event) for event in answer["content"])

    def set_pools(self, pools: Mapping[str, Mapping[str, Any]]) -> None:
        """Make pools, or change those that are there, from what ``render_pools`` gives."""
        for name, pool in pools.items():
            body = {"name": name, **pool}
            try:
                self.call("POST", "pools", body)
            except InvalidInput:
                changed = {"pool": name, **pool}
                self.call("PATCH", f"pools/{quoted(name)}", changed)

    def _rows(
        self, path: str, key: str, query: Mapping[str, str | int] | None = None
    ) -> Iterable[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        while True:
            page = {**(query or {}), "limit": PAGE_SIZE, "offset": len(rows)}
            answer = self.call("GET", path, query=page)
            rows.extend(answer[key])
            if not answer[key] or len(rows) >= int(answer["total_entries"]):
                return rows

    def _fetch_token(self) -> str:
        body = {"username": self.user, "password": self.password}
        try:
            answer = self._send("POST", f"{self.address}/auth/token", body, None)
        except _Unauthorized as error:
            raise InvalidInput(
                "Airflow does not accept the login", where=self.address, got=self.user
            ) from error
        return str(answer["access_token"])

    def _send(self, method: str, url: str, body: object, token: str | None) -> Any:
        headers = {"Accept": "application/json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(url, data, headers, method=method)
        try:
            with self._opener.open(request, timeout=self.timeout_s) as answer:
                content = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                raise _explain(error.code, f"{method} {url}", error.read()) from error
        except (OSError, urllib.error.URLError) as error:
            raise Transient("Airflow does not answer", where=url, got=error) from error
        return json.loads(content) if content else None


class _Unauthorized(InvalidInput):
    """The token or the password was not accepted."""


def wait_until(reached: Callable[[], bool], patience_s: float, pause_s: float = 0.5) -> bool:
    """Ask until the answer is yes, or patience ends; a server that is away is asked again."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            if reached():
                return True
        except Transient:
            if time.monotonic() > deadline:
                raise
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_s)


def _explain(status: int, where: str, content: bytes) -> MusterError:
    text = content.decode("utf-8", "replace")
    try:
        detail = json.loads(text)["detail"]
    except (ValueError, KeyError, TypeError):
        detail = text[:500]
    if status == 401:
        return _Unauthorized("not logged in", where=where, got=detail)
    if status == 404:
        return MissingInput("Airflow does not know it", where=where, got=detail)
    if status in (408, 429) or status >= 500:
        return Transient("Airflow failed", where=where, got=f"{status} {detail}")
    return InvalidInput("Airflow refuses", where=where, got=f"{status} {detail}")


def quoted(name: str) -> str:
    """Quote a name as a part of a path."""
    return quote(name, safe="")


def run_path(dag_id: str, run_id: str) -> str:
    """Return the path of a run."""
    return f"dags/{quoted(dag_id)}/dagRuns/{quoted(run_id)}"
