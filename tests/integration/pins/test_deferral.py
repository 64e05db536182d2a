"""A batch that is deferred by one version of Muster, and comes back to another."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.exceptions import TaskDeferred

from operators import trigger
from operators.batch import SlurmBatchOperator
from tests.integration.pins.stored_rows import insert_batch, insert_run
from tests.unit.pins.golden_files import check_literal

if TYPE_CHECKING:
    from muster.store.database import Database

USER = "is stored in Airflow's tables for every batch that is deferred now"


@pytest.fixture
def batch_id(db: Database, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MUSTER_STORE_URL", db.url)
    insert_run(db)
    return insert_batch(db, submission="ended")


def make_operator(batch_id: str) -> Any:
    """Make the operator with what the task plan of an earlier version has pushed."""
    pushed = {"group": "SLA", "run": "r", "batches": {"traits.aoa": batch_id}, "skipped": {}}
    return SlurmBatchOperator(task_id="aoa", step="traits.aoa", batch=pushed)


def test_a_batch_is_deferred_to_this_trigger_and_method(batch_id: str) -> None:
    context: Any = {"ti": SimpleNamespace(max_tries=2)}
    with pytest.raises(TaskDeferred) as deferred:
        make_operator(batch_id).execute(context)
    check_literal(
        "the deferral",
        (*deferred.value.trigger.serialize(), deferred.value.method_name, deferred.value.kwargs),
        (
            "operators.trigger.BatchTrigger",
            {"batch_id": batch_id, "shortest_s": 10.0},
            "resume",
            None,
        ),
        USER,
    )


def test_a_batch_that_is_over_gives_this_event(
    batch_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trigger, "LOG_DRAINS_S", 0.0)

    async def read_events() -> list[Any]:
        db, _ = trigger._shared()
        try:
            return [event.payload async for event in trigger.BatchTrigger(batch_id, 0.0).run()]
        finally:
            db.close()

    events = asyncio.run(asyncio.wait_for(read_events(), 60))
    check_literal("the events", events, [{"batch": batch_id, "succeeded": True}], USER)


def test_a_stored_event_is_resumed(batch_id: str) -> None:
    """What the task returns is XCom, too."""
    context: Any = {}
    returned = make_operator(batch_id).resume(context, {"batch": batch_id, "succeeded": True})
    check_literal("what a batch's task returns", returned, {"batch": batch_id, "elements": 3}, USER)
