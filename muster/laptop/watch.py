"""A run as it goes: trait by step in a live table on a terminal, a line a change elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.live import Live
from rich.table import Table

from muster.errors import Transient

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console

    from muster.laptop.airflow_api import AirflowApi, DagRun, TaskInstance

DAG_ID = "trait_inference"
STEPS = ("predict", "cov", "aoa", "build")
"""Tasks of a trait's group, in the table's order."""

POLL_S = 1.0
PATIENCE_S = 120.0
"""How long the server may be away."""

_STYLES = {
    "success": "green",
    "running": "yellow",
    "failed": "bold red",
    "upstream_failed": "red",
    "up_for_retry": "magenta",
    "skipped": "magenta",
    "none": "dim",
}


def arrange_tasks(
    tasks: Sequence[TaskInstance], traits: Sequence[str]
) -> dict[str, dict[str, TaskInstance]]:
    """Arrange a run's mapped tasks: trait → step → task; traits of the request come first."""
    arranged: dict[str, dict[str, TaskInstance]] = {trait: {} for trait in traits}
    for task in tasks:
        group, _, step = task.task_id.rpartition(".")
        if group and task.map_index >= 0 and task.state != "removed":
            # Until a task has run Airflow shows its index in place of the trait's name.
            name = task.label
            if name.isdecimal() and name not in arranged and int(name) < len(traits):
                name = traits[int(name)]
            arranged.setdefault(name, {})[step] = task
    return arranged


def describe_task(task: TaskInstance | None) -> str:
    """Say how a task stands, in a few characters."""
    if task is None or task.state == "none":
        return "waiting"
    said = task.state.replace("_", " ")
    if task.try_number > 1:
        said += f", try {task.try_number}"
    if task.seconds is not None and task.state in ("success", "failed"):
        said += f" {task.seconds:.0f} s"
    return said


def render_table(
    run: DagRun, tasks: Sequence[TaskInstance], traits: Sequence[str], seconds: float
) -> Table:
    """Render a run as a table of trait × step."""
    single = ", ".join(
        f"{task.task_id} {describe_task(task)}" for task in tasks if "." not in task.task_id
    )
    table = Table(
        title=f"{DAG_ID}: {run.state}, {seconds:.0f} s", caption=single, title_justify="left"
    )
    table.add_column("trait")
    for step in STEPS:
        table.add_column(step, min_width=12)
    for trait, steps in arrange_tasks(tasks, traits).items():
        cells = []
        for step in STEPS:
            task = steps.get(step)
            style = _STYLES.get(task.state if task else "none", "")
            cells.append(f"[{style}]{describe_task(task)}[/]" if style else describe_task(task))
        table.add_row(trait, *cells)
    return table


def render_lines(tasks: Sequence[TaskInstance], traits: Sequence[str]) -> list[str]:
    """Render a run as one line for each task that has a state."""
    lines = [
        f"{task.task_id}: {task.state}"
        for task in tasks
        if "." not in task.task_id and task.state != "none"
    ]
    for trait, steps in arrange_tasks(tasks, traits).items():
        for step in STEPS:
            task = steps.get(step)
            if task is not None and task.state != "none":
                lines.append(f"{trait} {step}: {describe_task(task)}")
    return lines


def watch_run(api: AirflowApi, run_id: str, traits: Sequence[str], console: Console) -> DagRun:
    """Show a run until it has ended, and return it."""
    if not console.is_terminal:
        told: set[str] = set()

        def tell_changes(_: DagRun, tasks: Sequence[TaskInstance]) -> None:
            for line in render_lines(tasks, traits):
                if line not in told:
                    told.add(line)
                    console.print(line, highlight=False, markup=False, soft_wrap=True)

        return _follow(api, run_id, tell_changes)

    began = time.monotonic()
    with Live(console=console, refresh_per_second=4) as live:

        def update(run: DagRun, tasks: Sequence[TaskInstance]) -> None:
            live.update(render_table(run, tasks, traits, time.monotonic() - began))

        return _follow(api, run_id, update)


def _follow(
    api: AirflowApi, run_id: str, show: Callable[[DagRun, Sequence[TaskInstance]], None]
) -> DagRun:
    answered = time.monotonic()
    while True:
        try:
            # The run first: when it has ended, so have the tasks that are read after it.
            run = api.run(DAG_ID, run_id)
            show(run, api.task_instances(DAG_ID, run_id))
            if run.ended:
                return run
            answered = time.monotonic()
        except Transient:
            # A server that is started again is waited for; one that was stopped is not.
            if time.monotonic() - answered > PATIENCE_S:
                raise
        time.sleep(POLL_S)
