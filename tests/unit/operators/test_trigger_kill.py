"""What a trigger does when Airflow tells it to end, which may mean one thing or the other."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from muster.errors import ClaimLost
from operators import trigger as module
from operators.trigger import BatchTrigger


class Supervision:
    """Stands for a supervisor: notes what it is asked, and loses its claim after some looks."""

    def __init__(self, looks: int = 1_000) -> None:
        self.asked: list[str] = []
        self.looks = looks

    async def look(self) -> None:
        self.asked.append("look")
        if len(self.asked) > self.looks:
            raise ClaimLost("the batch was taken over")

    async def cancel(self, by: str) -> None:
        self.asked.append(f"cancel {by}")


def kill(monkeypatch: pytest.MonkeyPatch, answers: list[Any], looks: int = 1_000) -> list[str]:
    """Kill a trigger while Airflow answers these task states, or fails; return what was asked."""
    left = iter(answers)

    def answer(**_: Any) -> dict[str, dict[str, Any]]:
        state = next(left)
        if isinstance(state, Exception):
            raise state
        return {"run": {} if state == "no task" else {"task_0": state}}

    monkeypatch.setattr(module.RuntimeTaskInstance, "get_task_states", answer)
    for name in ("WATCH_INTERVAL_S", "ASK_AGAIN_S"):
        monkeypatch.setattr(module, name, 0.0)
    supervision = Supervision(looks)
    killed = BatchTrigger("b")
    names = SimpleNamespace(dag_id="dag", task_id="task", run_id="run", map_index=0)
    killed._task_instance = names
    killed._supervisor = supervision  # type: ignore[assignment]
    asyncio.run(killed.on_kill())
    return supervision.asked


@pytest.mark.parametrize("state", ["failed", "success", "skipped", "removed", "no task"])
def test_what_has_ended_is_cancelled(monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    assert kill(monkeypatch, [state]) == ["cancel kill"]


@pytest.mark.parametrize("state", [None, "scheduled", "queued", "running", "deferred"])
def test_what_is_to_run_again_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, state: str | None
) -> None:
    assert kill(monkeypatch, [state] * 5, looks=2) == ["look"] * 3


def test_what_was_cleared_and_then_marked_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kill(monkeypatch, [None, "queued", "failed"]) == ["look", "look", "cancel kill"]


def test_what_is_not_known_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [OSError("planted"), OSError("planted"), "queued", "failed"]
    assert kill(monkeypatch, answers) == ["look", "cancel kill"]


def test_what_nobody_ever_says_is_taken_to_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ASK_PATIENCE_S", 0.2)
    assert kill(monkeypatch, [OSError("planted")] * 100_000) == ["cancel kill"]


def test_the_end_goes_on_when_airflow_waits_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow gives on_kill 30 s; ending jobs and seeing it takes what it takes."""
    monkeypatch.setattr(
        module.RuntimeTaskInstance, "get_task_states", lambda **_: {"run": {"task_0": "failed"}}
    )
    ended: list[str] = []

    class Slow(Supervision):
        async def cancel(self, by: str) -> None:
            await asyncio.sleep(0.3)
            ended.append(by)

    async def scenario() -> None:
        killed = BatchTrigger("b")
        names = SimpleNamespace(dag_id="dag", task_id="task", run_id="run", map_index=0)
        killed._task_instance = names
        killed._supervisor = Slow()  # type: ignore[assignment]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(killed.on_kill(), 0.1)
        assert ended == []
        await asyncio.sleep(0.6)

    asyncio.run(scenario())
    assert ended == ["kill"]
