"""Airflow's REST API as people and their scripts use it beside what ``make run`` does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from muster.errors import Transient
from muster.laptop.airflow_answers import parse_dag_run
from muster.laptop.airflow_api import AirflowApi, DagRun, TaskAddress, quoted, run_path, wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime


class AirflowClient(AirflowApi):
    """Airflow at one address, as one user, with all that tests ask of it."""

    def runs(self, dag_id: str) -> list[DagRun]:
        """Return all runs of a DAG, oldest first."""
        path = f"dags/{quoted(dag_id)}/dagRuns"
        return [parse_dag_run(row) for row in self._rows(path, "dag_runs", {"order_by": "id"})]

    def wait_for_run(self, dag_id: str, run_id: str, patience_s: float = 600.0) -> DagRun:
        """Wait until a run has ended, well or not.

        Raises
        ------
        Transient
            When it has not ended after ``patience_s``; the message tells where its tasks are.
        """

        def ended() -> bool:
            return self.run(dag_id, run_id).ended

        if not wait_until(ended, patience_s):
            tasks = ", ".join(
                f"{task.task_id}[{task.map_index}] {task.state}"
                for task in self.task_instances(dag_id, run_id)
            )
            raise Transient(
                "the run has not ended",
                where=f"{dag_id} {run_id}",
                got=tasks,
                expected=f"an end within {patience_s:.0f} s",
            )
        return self.run(dag_id, run_id)

    def clear(
        self,
        dag_id: str,
        run_id: str,
        tasks: Sequence[str | TaskAddress],
        *,
        include_downstream: bool = False,
        only_failed: bool = False,
    ) -> list[TaskAddress]:
        """Clear tasks of a run so that they run again; return those that were cleared."""
        body = {
            "dry_run": False,
            "dag_run_id": run_id,
            "task_ids": [list(task) if isinstance(task, tuple) else task for task in tasks],
            "include_downstream": include_downstream,
            "only_failed": only_failed,
        }
        answer = self.call("POST", f"dags/{quoted(dag_id)}/clearTaskInstances", body)
        return [(str(row["task_id"]), int(row["map_index"])) for row in answer["task_instances"]]

    def set_task_state(
        self,
        dag_id: str,
        run_id: str,
        task: TaskAddress,
        state: Literal["success", "failed", "skipped"],
    ) -> None:
        """Mark a task."""
        task_id, map_index = task
        path = f"{run_path(dag_id, run_id)}/taskInstances/{quoted(task_id)}"
        if map_index >= 0:
            path += f"/{map_index}"
        self.call("PATCH", path, {"new_state": state})

    def set_run_state(
        self, dag_id: str, run_id: str, state: Literal["queued", "success", "failed"]
    ) -> None:
        """Mark a run."""
        self.call("PATCH", run_path(dag_id, run_id), {"state": state})

    def delete_run(self, dag_id: str, run_id: str) -> None:
        """Delete a run that does not run."""
        self.call("DELETE", run_path(dag_id, run_id))

    def backfill(
        self,
        dag_id: str,
        interval: tuple[datetime, datetime],
        conf: Mapping[str, Any] | None = None,
        max_active_runs: int = 1,
        reprocess: Literal["none", "failed", "completed"] = "none",
    ) -> int:
        """Start a backfill of all intervals from one date to another, and return its id."""
        body = {
            "dag_id": dag_id,
            "from_date": interval[0].isoformat(),
            "to_date": interval[1].isoformat(),
            "dag_run_conf": dict(conf or {}),
            "max_active_runs": max_active_runs,
            "reprocess_behavior": reprocess,
            "run_backwards": False,
        }
        return int(self.call("POST", "backfills", body)["id"])

    def backfill_ended(self, backfill_id: int) -> bool:
        """Say whether all runs of a backfill have ended."""
        return self.call("GET", f"backfills/{backfill_id}")["completed_at"] is not None
