"""What a watch keeps of Jobs and pods, and how it reads events."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from muster.backends.kubernetes import snapshot
from muster.backends.kubernetes.client import ApiUnreachable, parse_error
from muster.backends.kubernetes.snapshot import Jobs, Pods
from muster.backends.kubernetes.watch import _read_events

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def pod(name: str, job: str = "a", **status: Any) -> dict[str, Any]:
    labels = {"batch.kubernetes.io/job-name": job}
    managed = [{"manager": "kubelet"}]
    return {
        "metadata": {"name": name, "labels": labels, "managedFields": managed},
        "spec": {"nodeName": "n1", "containers": [{"name": "muster"}]},
        "status": {"phase": "Running", "podIP": "10.0.0.1", **status},
    }


def test_of_a_pod_is_kept_what_its_state_is_read_from() -> None:
    pods = Pods()
    pods.put(pod("a-0"))
    (kept,) = pods.of_job("a")
    assert kept["spec"] == {"nodeName": "n1"}
    assert kept["status"] == {"phase": "Running"}
    assert "managedFields" not in kept["metadata"]
    assert pods.of_job("b") == []


def test_a_pod_that_was_deleted_is_known_as_it_was_last() -> None:
    pods = Pods()
    pods.put(pod("a-0"))
    pods.remove(pod("a-0", phase="Failed"))
    (kept,) = pods.of_job("a")
    assert (kept["status"]["phase"], pods.is_deleted(kept)) == ("Failed", True)


def test_a_list_tells_of_what_was_deleted_while_nobody_watched() -> None:
    pods = Pods()
    for name in ("a-0", "a-1"):
        pods.put(pod(name))
    pods.replace([pod("a-1"), pod("a-2")])
    deleted = {p["metadata"]["name"]: pods.is_deleted(p) for p in pods.of_job("a")}
    assert deleted == {"a-0": True, "a-1": False, "a-2": False}


def test_what_was_deleted_long_ago_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    pods = Pods()
    pods.put(pod("b-0", job="b"))
    monkeypatch.setattr(snapshot, "SWEEP_S", 0.0)
    monkeypatch.setattr(snapshot, "DELETED_KEPT_S", -1.0)
    pods.remove(pod("a-0"))
    assert (pods.of_job("a"), len(pods.of_job("b"))) == ([], 1)


def test_jobs_are_those_of_the_newest_list_without_their_template() -> None:
    jobs = Jobs()
    jobs.put({"metadata": {"name": "old"}, "spec": {}, "status": {}})
    item = {"metadata": {"name": "new"}, "spec": {"template": {}, "suspend": True}}
    jobs.replace([item])
    assert jobs.get("old") is None
    assert jobs.get("new") == {
        "metadata": {"name": "new"}, "spec": {"suspend": True}, "status": {},
    }  # fmt: skip
    jobs.remove(item)
    assert jobs.get("new") is None


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_events_are_read_however_they_are_cut(size: int) -> None:
    said = [{"type": "ADDED", "object": {"name": f"é{i}"}} for i in range(3)]
    lines = "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in said)
    data = lines.encode() + b'{"type": "MODI'

    async def parts() -> AsyncIterator[bytes]:
        for first in range(0, len(data), size):
            yield data[first : first + size]

    async def read() -> list[dict[str, Any]]:
        return [event async for event in _read_events(parts(), "here")]

    assert asyncio.run(read()) == said


def test_an_event_without_end_ends_the_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muster.backends.kubernetes.watch.LONGEST_EVENT", 10)

    async def parts() -> AsyncIterator[bytes]:
        while True:
            yield b"xxxx"

    async def read() -> None:
        async for _ in _read_events(parts(), "here"):
            pass

    with pytest.raises(ApiUnreachable, match="without end"):
        asyncio.run(read())


def test_a_proxy_s_own_page_is_an_error_in_one_line() -> None:
    error = parse_error(502, b"<html>\n<b>Bad Gateway</b>", where="cluster c, GET /x")
    assert (error.status, error.reason) == (502, "")
    assert str(error) == (
        "the API server says no; where: cluster c, GET /x; got: 502 : <html> <b>Bad Gateway</b>"
    )
