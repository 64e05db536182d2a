"""A DAG of bare batches, so that a test can say what each element does and when it is killed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param, get_current_context, task

from operators.batch import BatchOperator, LocalBatchOperator
from operators.trigger import BatchTrigger


class DeferredBatchOperator(BatchOperator):
    """Defers whatever the backend, so that a test needs no cluster to see a trigger at work."""

    def execute(self, context: Any) -> Any:
        """Hand the batch to the triggerer."""
        trigger = BatchTrigger(self.batch["batches"][self.step])
        self.defer(trigger=trigger, method_name="resume")


with DAG(
    dag_id="batches",
    schedule=None,
    params={"batches": Param([], type="array"), "deferred": Param([], type="array")},
    default_args={"retries": 2, "retry_delay": timedelta(seconds=1)},
):

    @task
    def hand_out(key: str) -> list[dict[str, Any]]:
        """Return what the run was told."""
        found: list[dict[str, Any]] = get_current_context()["params"][key]
        return found

    for key, operator in (("batches", LocalBatchOperator), ("deferred", DeferredBatchOperator)):
        operator.partial(task_id=f"run_{key}", step="test.step", pool="local").expand(
            batch=hand_out.override(task_id=f"hand_out_{key}")(key)
        )
