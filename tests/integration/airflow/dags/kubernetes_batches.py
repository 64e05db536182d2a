"""DAGs of bare batches on Kubernetes; the tasks of one can be held inside their ``execute``."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Param, get_current_context, task

from operators.kubernetes import KubernetesBatchOperator


class HeldBatchOperator(KubernetesBatchOperator):
    """Has taken its batch over, and does not defer as long as a file is there."""

    def defer(self, **kwargs: Any) -> None:
        """Wait until the file is gone, then defer."""
        while Path(self.batch["hold"]).exists():
            time.sleep(0.05)
        super().defer(**kwargs)


@task
def hand_out(key: str) -> list[dict[str, Any]]:
    """Return what the run was told."""
    found: list[dict[str, Any]] = get_current_context()["params"][key]
    return found


for key, operator in (("batches", KubernetesBatchOperator), ("held", HeldBatchOperator)):
    with DAG(
        dag_id=f"kubernetes_{key}",
        schedule=None,
        params={key: Param([], type="array")},
        default_args={"retries": 2, "retry_delay": timedelta(seconds=1)},
        max_active_tasks=100,
    ) as dag:
        operator.partial(
            task_id=f"run_{key}",
            step="test.step",
            labels={"cost-centre": "ecology"},
            map_index_template="{{ task.batch['group'] }}",
        ).expand(batch=hand_out(key))
    globals()[dag.dag_id] = dag
