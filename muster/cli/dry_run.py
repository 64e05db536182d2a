"""What a run would submit: its scripts and its cost, with nothing recorded and nothing run."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muster.backends.registry import BACKENDS
from muster.imports import load_named

if TYPE_CHECKING:
    from collections.abc import Mapping

    from muster.jobs.planning.workflow import Workflow
    from muster.model.plan import Plan
    from muster.model.step import StepContext
    from muster.site import Site
    from muster.store.database import Database


def print_dry_run(db: Database, site: Site, workflow: Workflow, params: Mapping[str, Any]) -> None:
    """Look at the inputs here, and print the scripts and the cost of what would be submitted.

    Raises
    ------
    MusterError
        When the inputs cannot be looked at, or ask for more than a pool gives.
    """
    from muster.jobs.planning.cost import tell_cost
    from muster.jobs.planning.freeze import plan_batches
    from muster.jobs.planning.plan_run import run_work_uri
    from muster.model.step import StepContext

    typed = workflow.parse_params(params)
    checked = typed.model_dump(mode="json")
    run_id = f"{workflow.name}.dry-run"
    with tempfile.TemporaryDirectory(prefix="muster-dry-run-") as folder:
        inputs: Mapping[str, Any] = {}
        if workflow.prepare is not None:
            prepare = load_named(workflow.prepare)
            inputs = prepare(db, site, typed, folder, record=False).inputs
        plan = inspect_here(site, workflow, checked, StepContext(), inputs)
    overrides = checked.get("resources") or {}
    frozen = plan_batches(site, run_id, run_work_uri(site, run_id), plan, overrides)
    for group in frozen.groups:
        for step_name, why in group.skipped.items():
            click.echo(f"# {group.name} {step_name}: {why}")
    for group_name, batch in frozen.batches:
        names = ", ".join(element.name for element in batch.elements)
        click.echo(f"\n# == {group_name} {batch.step}: {names}, pool {batch.pool}")
        click.echo(load_named(BACKENDS[batch.backend].render)(batch), nl=False)
    click.echo("")
    for line in tell_cost(db, [batch for _, batch in frozen.batches], workflow):
        click.echo(f"# {line}")


def inspect_here(
    site: Site,
    workflow: Workflow,
    params: Mapping[str, Any],
    context: StepContext,
    inputs: Mapping[str, Any] | None = None,
) -> Plan:
    """Look at a run's inputs in this process, and return the plan that a run would follow.

    Parameters
    ----------
    params : mapping
        The run's parameters, checked, as JSON has them.
    context : StepContext
        Its scratch folder is not used.
    inputs : mapping, optional
        Further inputs, as the workflow has prepared them.

    Raises
    ------
    MusterError
        When the inputs cannot be looked at.
    """
    from muster.jobs.planning.plan_run import inspection_element
    from muster.model.plan import Plan
    from muster.model.step import call_step, load_step

    with tempfile.TemporaryDirectory(prefix="muster-plan-") as folder:
        path = Path(folder) / "plan.json"
        element = inspection_element(site, workflow, params, str(path), inputs)
        step = load_step(workflow.inspect)
        call_step(step, element.inputs, {"plan": path}, replace(context, scratch=Path(folder)))
        return Plan.model_validate_json(path.read_bytes())
