"""How a run of a workflow is opened, planned and frozen.

The Airflow tasks and the command line both call these functions; neither adds a rule of its own.
"""

from __future__ import annotations

import logging
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from muster import storage
from muster.errors import ConfigError, InvalidInput, MissingInput
from muster.imports import load_named
from muster.jobs.planning.cost import tell_cost
from muster.jobs.planning.freeze import Freezer, plan_batches, safe_name
from muster.jobs.planning.placement import resources_of
from muster.jobs.planning.workflow import Preparation, find_workflow
from muster.model.batch import Element
from muster.model.plan import Plan, describe_decisions
from muster.store import runs
from muster.store.retention import read_removed_at

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from datetime import datetime

    from muster.jobs.planning.freeze import Group
    from muster.jobs.planning.params import RunParams
    from muster.jobs.planning.workflow import Workflow
    from muster.site import Site
    from muster.store.database import Database
    from muster.store.records import Run

log = logging.getLogger(__name__)


def open_run(
    db: Database,
    site: Site,
    workflow: Workflow,
    run_id: str,
    params: Mapping[str, Any],
    interval: tuple[datetime, datetime] | None = None,
) -> str:
    """Open a run: check its parameters, record it, and freeze the batch that inspects its inputs.

    Returns
    -------
    str
        Id of the inspection's batch.

    Raises
    ------
    ConfigError
        When a parameter is unknown or wrong.
    MissingInput
        When the parameters name a file that is not there.
    InvalidInput
        When a run that is going excludes it.
    """
    typed = workflow.parse_params(params)
    relative = typed.relative_locations()
    if relative:
        raise ConfigError(
            "locations are relative",
            where=f"params of {workflow.name}",
            got=", ".join(relative),
            expected="absolute paths, or s3://",
        )
    checked = typed.model_dump(mode="json")
    _check_steps_placed(site, workflow)
    for step, override in (checked.get("resources") or {}).items():
        resources_of(site, step, override)
    work_uri = run_work_uri(site, run_id)
    with _opening(db, workflow, run_id, typed):
        prepared = _prepare(db, site, workflow, typed, work_uri)
        runs.open_run(
            db,
            run_id,
            workflow=workflow.name,
            params=checked,
            work_uri=work_uri,
            interval=interval,
            campaign_id=prepared.campaign_id,
        )
    plan_uri = storage.join(work_uri, "plan.json")
    element = inspection_element(site, workflow, checked, plan_uri, prepared.inputs)
    freezer = Freezer(site, run_id, work_uri, {})
    batch = freezer.freeze(workflow.inspect, "inputs", [element], looks=True)
    runs.create_batches(db, [("inputs", batch)])
    return batch.id


def run_work_uri(site: Site, run_id: str) -> str:
    """Return the folder of a run's own work."""
    return storage.join(site.work_uri, "runs", safe_name(run_id))


def _opening(
    db: Database, workflow: Workflow, run_id: str, params: RunParams
) -> AbstractContextManager[None]:
    if workflow.opening is None:
        return nullcontext()
    opening: AbstractContextManager[None] = load_named(workflow.opening)(db, run_id, params)
    return opening


def _prepare(
    db: Database, site: Site, workflow: Workflow, params: RunParams, work_uri: str
) -> Preparation:
    if workflow.prepare is None:
        return Preparation()
    prepared: Preparation = load_named(workflow.prepare)(db, site, params, work_uri)
    return prepared


def inspection_element(
    site: Site,
    workflow: Workflow,
    params: Mapping[str, Any],
    plan_uri: str,
    inputs: Mapping[str, Any] | None = None,
) -> Element:
    """Make the element that looks at a run's inputs and writes its plan.

    Parameters
    ----------
    params : mapping
        The run's parameters, checked, as JSON has them.
    plan_uri : str
        Where the plan is to be written.
    inputs : mapping, optional
        Further inputs, as the workflow has prepared them.
    """
    return Element(
        index=0,
        name="inputs",
        inputs={
            "params": dict(params),
            "bands": storage.join(site.work_uri, "bands"),
            "gpus": _count_gpus(site, workflow, params.get("resources") or {}),
            **(inputs or {}),
        },
        outputs={"plan": plan_uri},
    )


def freeze_plan(db: Database, site: Site, run_id: str) -> list[Group]:
    """Turn a run's plan.json into elements, and batches frozen as the site places them.

    Returns
    -------
    list of Group
        One for each mapped task group, in the plan's order.

    Raises
    ------
    MissingInput
        When the run has no plan.
    InvalidInput
        When retention has removed it, or it is none.
    ConfigError
        When the plan is too large for one run, or asks for more than a pool gives.
    """
    run = runs.read_run(db, run_id)
    try:
        plan = read_plan(run)
    except MissingInput as error:
        removed_at = read_removed_at(db, run_id)
        if removed_at is None:
            raise
        raise InvalidInput(
            "the run's plan was removed by retention",
            where=run.work_uri,
            got=f"removed {removed_at:%Y-%m-%d}",
            do="clear the task inspect and all that comes after it",
        ) from error
    looked_at = plan.made_at.isoformat()
    again = run.facts.get("looked_at") not in (None, looked_at)
    frozen = plan_batches(site, run.id, run.work_uri, plan, run.params.get("resources") or {})
    told = tell_cost(db, [batch for _, batch in frozen.batches], find_workflow(run.workflow))
    for line in (*describe_decisions(plan.elements), *told):
        log.info("%s", line)
    if frozen.batches:
        runs.create_batches(db, frozen.batches, again=again, coordinates=frozen.coordinates)
    facts = {
        **plan.facts,
        "products": plan.products,
        "looked_at": looked_at,
        "bands": plan.cached_names(),  # what retention must leave alone
    }
    runs.record_plan(db, run_id, frozen.settled, facts)
    return frozen.groups


def read_plan(run: Run) -> Plan:
    """Read a run's plan.json."""
    uri = storage.join(run.work_uri, "plan.json")
    try:
        return Plan.model_validate_json(storage.read_bytes(uri))
    except ValidationError as error:
        raise InvalidInput(
            "not a plan", where=uri, got=error, do="clear the task inspect"
        ) from error


def _check_steps_placed(site: Site, workflow: Workflow) -> None:
    for step in workflow.steps:
        site.placed(step)


def _count_gpus(
    site: Site, workflow: Workflow, overrides: Mapping[str, Mapping[str, Any]]
) -> dict[str, int]:
    """Say which steps are placed where there are GPUs: what computes there is chosen by it."""
    counts = {
        step: resources_of(site, step, overrides.get(step) or {}).gpus
        for step in workflow.computing
    }
    return {step: count for step, count in counts.items() if count}
