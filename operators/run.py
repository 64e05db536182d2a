"""A run's beginning and end as Airflow tasks: parameters checked, plan frozen, verdict given."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException

from muster.errors import ConfigError, InvalidInput, MissingInput, MusterError, Transient
from muster.jobs.planning.form import RUN_OPTIONS
from muster.jobs.planning.freeze import Group
from muster.jobs.planning.params import make_interval
from muster.jobs.planning.plan_run import freeze_plan
from muster.jobs.planning.plan_run import open_run as open_run_in_store
from muster.jobs.planning.workflow import NoInterval, load_workflow
from muster.jobs.runs.verdict import give_verdict
from muster.site import read_site
from muster.store.database import Database

if TYPE_CHECKING:
    from datetime import datetime

    from airflow.sdk import Context

    from muster.jobs.planning.workflow import Workflow

log = logging.getLogger(__name__)

FINAL_KEY = "gather"
"""XCom key of what runs when all groups are over: a key of one's own cannot be mapped over."""


def run_id_of(context: Context) -> str:
    """Name a DAG run in the store."""
    dag_run = context["dag_run"]
    return f"{dag_run.dag_id}.{dag_run.run_id}"


def open_run(context: Context) -> dict[str, Any]:
    """Check a DAG run's parameters and open its run; return the inspection's batch.

    Raises
    ------
    AirflowFailException
        When a parameter is unknown or wrong: no retry can mend it.
    """
    dag_run = context["dag_run"]
    try:
        params = _checked_params(context)
        site = read_site()
        workflow = load_workflow(dag_run.dag_id)
        interval = interval_of(context, workflow)
        if interval is not None:
            params["interval_start"], params["interval_end"] = (t.isoformat() for t in interval)
        batch_id = open_run_in_store(
            Database.from_environment(), site, workflow, run_id_of(context), params, interval
        )
    except (InvalidInput, MissingInput) as error:  # a params file that is not there, for one
        raise _refusal(error) from None
    return {
        "group": "inputs",
        "run": run_id_of(context),
        "batches": {workflow.inspect: batch_id},
        "skipped": {},
    }


def freeze(context: Context) -> list[dict[str, Any]]:
    """Freeze the run's plan into batches; return one small dict for each group to map over.

    The group of the final steps is no part of the list: its dict is pushed under ``FINAL_KEY``.
    """
    run_id = run_id_of(context)
    workflow = load_workflow(context["dag_run"].dag_id)
    try:
        groups = freeze_plan(Database.from_environment(), read_site(), run_id)
    except InvalidInput as error:  # no retry mends a plan, or what it was made by
        raise _refusal(error) from None
    side_by_side, final = workflow.split_groups(groups)
    if workflow.final_steps:
        none = Group("", run_id, {}, dict.fromkeys(workflow.final_steps, "the params ask for none"))
        last = (*final, none)[0]
        context["ti"].xcom_push(key=FINAL_KEY, value=last.to_dict())
    return [group.to_dict() for group in side_by_side]


def _refusal(error: MusterError) -> AirflowFailException:
    """Log what is wrong in a line of its own: Airflow logs an exception with its traceback."""
    log.error("%s", error)
    return AirflowFailException(str(error))


def conclude(context: Context) -> str:
    """Report what the run has come to, group by group, and fail it where that is not enough."""
    said = context["params"].get("quorum")
    quorum = None if said is None else float(said)  # None: what the run's own params say
    try:
        verdict = give_verdict(Database.from_environment(), run_id_of(context), quorum=quorum)
    except Transient:
        raise  # Airflow tries again
    except MissingInput:
        raise AirflowFailException("the run was not opened: see the task open") from None
    except MusterError as error:
        raise AirflowFailException(f"no verdict: {error}") from None
    for line in verdict.describe().splitlines():
        log.info("%s", line)
    if not verdict.good:
        raise AirflowFailException(verdict.summary)
    return verdict.summary


def interval_of(context: Context, workflow: Workflow) -> tuple[datetime, datetime] | None:
    """Return the interval that a run is for, or None where it is for none.

    A backfill's runs have theirs from the timetable.  What Airflow infers for a run that somebody
    starts by hand is not meant by that person: there the params ``year`` and ``month`` say it.

    Raises
    ------
    ConfigError
        When there is a month without a year, or the workflow's runs stand for no interval.
    """
    dag_run = context["dag_run"]
    if dag_run.run_type in ("backfill", "scheduled"):
        if isinstance(workflow.interval, NoInterval):
            raise ConfigError(
                f"{workflow.name} takes no interval",
                where=dag_run.run_id,
                do=workflow.interval.reason,
            )
        start, end = context.get("data_interval_start"), context.get("data_interval_end")
        return (start, end) if start is not None and end is not None else None
    return make_interval(context["params"].get("year"), context["params"].get("month"))


def _checked_params(context: Context) -> dict[str, Any]:
    """Refuse keys that Airflow lets through, and leave out what is not the workflow's own."""
    declared = set(context["dag"].params)
    unknown = sorted(set(context["dag_run"].conf or {}) - declared)
    if unknown:
        raise ConfigError(
            "unknown params", got=", ".join(unknown), expected=", ".join(sorted(declared))
        )
    return {
        name: value
        for name, value in context["params"].items()
        if name not in RUN_OPTIONS and value is not None
    }
