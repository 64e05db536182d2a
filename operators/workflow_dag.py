"""The DAG of a workflow, made from its declaration: tasks, their order and rules, and the form."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, Param, get_current_context, task, task_group

from muster.jobs.planning.form import make_form
from muster.jobs.planning.workflow import load_workflow
from muster.site import read_site
from operators import notify, run
from operators.placement import place, place_mapped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import BaseOperator

    from muster.jobs.planning.workflow import Workflow
    from muster.site import Site

GROUP_NAME = "{{ task.batch['group'] }}"
FINAL_BATCH = f"{{{{ ti.xcom_pull(task_ids='plan', key='{run.FINAL_KEY}') }}}}"


def make_dag(name: str, schedule: Any, *, doc: str, tags: Sequence[str] = ()) -> DAG:
    """Make the DAG of a workflow.

    Parameters
    ----------
    name : str
        Name of the workflow, and id of the DAG.
    schedule : timetable
        With the intervals of backfills; ``OnDemandTimetable`` never starts by itself.
    doc : str
        Markdown for people, with what each task does.
    tags : sequence of str
        Beside ``muster``.

    Raises
    ------
    ConfigError
        When there is no such workflow, the site does not place one of its steps, or Airflow lacks
        the provider of one of its notifiers.
    """
    workflow = load_workflow(name)
    site = read_site()
    with DAG(
        dag_id=name,
        schedule=schedule,
        start_date=datetime(1980, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=4,
        is_paused_upon_creation=False,
        params=make_params(workflow),
        default_args={"owner": "muster", "retries": 2, "retry_delay": timedelta(seconds=10)},
        tags=["muster", *tags],
        doc_md=doc,
        on_failure_callback=notify.failure_callbacks(site, name),
        render_template_as_native_obj=True,
    ) as dag:
        opened = open_run()
        inspect = place(site, workflow.inspect, task_id=_task_id(workflow.inspect), batch=opened)
        planned = plan()
        inspect >> planned
        last = map_groups(site, workflow, planned)
        for step in workflow.final_steps:
            # It says itself what it lacks, and a run without it says so.
            final = place(
                site, step, task_id=_task_id(step), batch=FINAL_BATCH, trigger_rule="all_done"
            )
            last >> final
            last = final
        last >> verdict()
    return dag


def make_params(workflow: Workflow) -> dict[str, Param]:
    """Make the form of a workflow, as Airflow shows it and checks conf by it."""
    return {
        name: Param(field.default, **field.schema) for name, field in make_form(workflow).items()
    }


def map_groups(site: Site, workflow: Workflow, planned: Any) -> Any:
    """Map the steps of a group over what the plan returns: one task alone, or a task group."""
    if len(workflow.stages) == 1 and len(workflow.stages[0]) == 1:
        (step,) = workflow.stages[0]
        return place_mapped(
            site, step, batches=planned, task_id=_task_id(step), map_index_template=GROUP_NAME
        )

    @task_group(group_id=workflow.noun, tooltip=f"One {workflow.noun}")
    def group(batch: dict[str, Any]) -> None:
        earlier: list[BaseOperator] = []
        for stage in workflow.stages:
            # A later stage takes what there is: one failed step must not keep it from the rest.
            rule = {"trigger_rule": "all_done"} if earlier else {}
            tasks: list[BaseOperator] = [
                place(
                    site,
                    step,
                    task_id=_task_id(step),
                    batch=batch,
                    map_index_template=GROUP_NAME,
                    **rule,
                )
                for step in stage
            ]
            for one in tasks:
                one.set_upstream(earlier)
            earlier = tasks

    return group.expand(batch=planned)


@task(task_id="open")
def open_run() -> dict[str, Any]:
    """Check the parameters and open the run."""
    return run.open_run(get_current_context())


@task
def plan() -> list[dict[str, Any]]:
    """Freeze the plan into batches."""
    return run.freeze(get_current_context())


@task(trigger_rule="all_done")
def verdict() -> str:
    """Say what the run has come to."""
    return run.conclude(get_current_context())


def _task_id(step: str) -> str:
    return step.rpartition(".")[2]
