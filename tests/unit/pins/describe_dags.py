"""Run as a script: print what Airflow, its history and its users know of the DAG files, as JSON."""

from __future__ import annotations

import json
import os
import runpy
import sys
import warnings
from typing import Any

warnings.simplefilter("ignore")

from airflow.sdk import DAG, XComArg  # noqa: E402 - warns when it is imported

WORDS = {"title", "description", "examples"}
"""Of a param's schema: for the form alone."""

DAG_SETTINGS = (
    "catchup",
    "dagrun_timeout",
    "end_date",
    "fail_fast",
    "max_active_runs",
    "max_active_tasks",
    "max_consecutive_failed_dag_runs",
)
TASK_SETTINGS = (
    "depends_on_past",
    "execution_timeout",
    "executor",
    "ignore_first_depends_on_past",
    "max_active_tis_per_dag",
    "max_active_tis_per_dagrun",
    "max_retry_delay",
    "owner",
    "pool",
    "pool_slots",
    "priority_weight",
    "queue",
    "retries",
    "retry_delay",
    "retry_exponential_backoff",
    "run_as_user",
    "wait_for_downstream",
    "wait_for_past_depends_before_skipping",
)
"""By which the scheduler decides when, where and how often a task runs."""


def describe_settings(of: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """Return settings as JSON has them, or as their text."""
    values = {name: getattr(of, name) for name in names}
    plain = (bool, int, float, str, type(None))
    return {name: v if isinstance(v, plain) else str(v) for name, v in values.items()}


def describe_argument(value: Any) -> Any:
    """Describe an argument: a literal as it is, an XCom reference as Airflow's own template."""
    if isinstance(value, XComArg):
        return str(value)
    if isinstance(value, dict):
        return {name: describe_argument(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [describe_argument(v) for v in value]
    if type(value).__name__ == "MappedArgument":
        return {"key": value._key, "of each of": describe_argument(value._input.value)}
    return value


def describe_arguments(task: Any, mapped: bool) -> dict[str, Any]:
    """Describe the templated arguments; those of a mapped operator are expanded."""
    if mapped:
        expanded = describe_argument(task.expand_input.value)
        partial = {
            f: task.partial_kwargs[f] for f in task.template_fields if f in task.partial_kwargs
        }
        return {"expanded": expanded, **describe_argument(partial)}
    return {name: describe_argument(getattr(task, name)) for name in task.template_fields}


def describe_task(task: Any) -> dict[str, Any]:
    mapped = type(task).__name__.endswith("MappedOperator")
    made_by = task.operator_class if mapped else type(task)
    ours = made_by.__module__.startswith("operators")
    own = {**task.partial_kwargs} if mapped else vars(task)
    return {
        "class": f"{made_by.__module__}.{made_by.__qualname__}" if ours else "@task",
        "mapped": mapped or bool(list(task.iter_mapped_task_groups())),
        "group": task.task_group.group_id,
        "upstream": sorted(task.upstream_task_ids),
        "trigger_rule": str(task.trigger_rule.value),
        "weight_rule": str(getattr(task.weight_rule, "value", task.weight_rule)),
        **describe_settings(task, TASK_SETTINGS),
        "arguments": describe_arguments(task, mapped),
        "do_xcom_push": own.get("do_xcom_push", True),
        "multiple_outputs": own.get("multiple_outputs", False),
        "map_index_template": own.get("map_index_template"),
        "template_fields": sorted(task.template_fields) if ours else None,
        "step": own.get("step"),
    }


def timetable_name(kind: type) -> str:
    """Name a timetable as Airflow stores ours; where its own lie is its own matter."""
    of_airflow = kind.__module__.startswith("airflow.")
    return kind.__qualname__ if of_airflow else f"{kind.__module__}.{kind.__qualname__}"


def describe_dag(dag: Any) -> dict[str, Any]:
    timetable = dag.timetable
    return {
        "dag_id": dag.dag_id,
        "schedule": {
            "class": timetable_name(type(timetable)),
            "cron": getattr(timetable, "_expression", getattr(timetable, "expression", None)),
            "timezone": str(getattr(timetable, "_timezone", getattr(timetable, "timezone", None))),
        },
        "start_date": str(dag.start_date),
        **describe_settings(dag, DAG_SETTINGS),
        "paused_upon_creation": dag.is_paused_upon_creation,
        "native_templates": dag.render_template_as_native_obj,
        "tags": sorted(dag.tags),
        "groups": {
            name: describe_argument(getattr(getattr(group, "_expand_input", None), "value", None))
            for name, group in dag.task_group.get_task_group_dict().items()
            if name is not None
        },
        "tasks": {task.task_id: describe_task(task) for task in dag.tasks},
        "params": {
            name: {
                "default": param.value,
                "schema": {key: v for key, v in param.schema.items() if key not in WORDS},
            }
            for name, param in ((name, dag.params.get_param(name)) for name in dag.params)
        },
    }


def read_dags(paths: list[str], site: str) -> list[Any]:
    os.environ["MUSTER_SITE"] = site
    found = [value for path in paths for value in runpy.run_path(path).values()]
    return [value for value in found if isinstance(value, DAG)]


if __name__ == "__main__":
    described = {dag.dag_id: describe_dag(dag) for dag in read_dags(sys.argv[1:], "laptop")}
    placed = {
        dag.dag_id: {
            name: f"{task['class']} in {task['pool']}"
            for name, task in describe_dag(dag)["tasks"].items()
        }
        for dag in read_dags(sys.argv[1:], "genoa")
    }
    for dag_id, dag in described.items():
        dag["tasks_on_slurm"] = placed[dag_id]
    print(json.dumps(described, default=str))
