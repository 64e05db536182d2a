"""What Airflow's REST API answers, as types: the part of it that Muster looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

ENDED_RUN = frozenset({"success", "failed"})
"""States in which a DAG run stays."""


@dataclass(frozen=True)
class DagRun:
    """A run of a DAG, as the server sees it."""

    run_id: str
    state: str
    run_type: str
    conf: dict[str, Any]
    logical_date: str | None
    data_interval_start: str | None
    data_interval_end: str | None

    @property
    def ended(self) -> bool:
        """Whether the run has ended, well or not."""
        return self.state in ENDED_RUN


@dataclass(frozen=True)
class TaskInstance:
    """One task of a run; one index of it where the task is mapped.

    Attributes
    ----------
    task_id : str
        With its group's name before it, as in ``trait.predict``.
    map_index : int
        -1 where the task is not mapped.
    label : str
        What map_index_template made of the index, or the index.
    state : str
        Airflow's name of the state; ``none`` where it has none yet.
    try_number : int
        Number of the newest try, from 1; 0 before the first.
    seconds : float or None
        How long the newest try took or has taken.
    """

    task_id: str
    map_index: int
    label: str
    state: str
    try_number: int
    seconds: float | None
    pid: int | None


def parse_dag_run(row: Mapping[str, Any]) -> DagRun:
    """Take a run from a row of the answer."""
    return DagRun(
        run_id=str(row["dag_run_id"]),
        state=str(row["state"]),
        run_type=str(row["run_type"]),
        conf=dict(row["conf"] or {}),
        logical_date=row["logical_date"],
        data_interval_start=row["data_interval_start"],
        data_interval_end=row["data_interval_end"],
    )


def parse_task_instance(row: Mapping[str, Any]) -> TaskInstance:
    """Take a task instance from a row of the answer."""
    map_index = int(row["map_index"])
    return TaskInstance(
        task_id=str(row["task_id"]),
        map_index=map_index,
        label=str(row["rendered_map_index"] or (map_index if map_index >= 0 else "")),
        state=str(row["state"] or "none"),
        try_number=int(row["try_number"]),
        seconds=row["duration"],
        pid=row["pid"],
    )


def parse_log_line(event: Any) -> str:
    """Take a line of a log from an event of the answer, with the error that it may carry."""
    if not isinstance(event, dict):
        return str(event)
    parts = [str(event[key]) for key in ("timestamp", "level", "event") if event.get(key)]
    for error in event.get("error_detail") or []:
        parts.append(f"{error.get('exc_type')}: {error.get('exc_value')}")
    return " ".join(parts)
