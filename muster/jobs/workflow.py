"""What the workflows are made of, and how a run of one is opened, planned and frozen.

The Airflow tasks and the command line both call these functions; neither adds a rule of its own.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from muster import storage
from muster.config import parse_config
from muster.errors import ConfigError, InvalidInput, MissingInput
from muster.jobs.model import Batch, Element, RunParams
from muster.jobs.plan import Decision, Plan, PlannedElement
from muster.site import Placement, SlurmPool
from muster.store import runs
from muster.store.retention import read_removed_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from muster.jobs.model import Resources
    from muster.site import Site
    from muster.store.database import Database
    from muster.store.records import Run

log = logging.getLogger(__name__)

MOST_BATCHES = 250
"""Batches of one run: what Airflow's scheduler expands without being blocked."""


@dataclass(frozen=True)
class Workflow:
    """A workflow's parts by name.

    Attributes
    ----------
    name : str
        Name of the DAG.
    inspect : str
        The step that looks at the inputs and writes plan.json.
    stages : tuple of tuple of str
        Steps of a group: those of a stage run side by side, a stage when the one before is over.
    params : str
        "module:class" of the typed parameters.
    report : str or None
        "module:function" that makes the report of a run where the general one does not say enough:
        ``function(db, run) -> Report``.
    conclude : str or None
        "module:function" of what is left to do when a run's verdict is recorded:
        ``function(db, run, verdict)``.  Its failure is told, and changes no verdict.
    """

    name: str
    inspect: str
    stages: tuple[tuple[str, ...], ...]
    params: str
    report: str | None = None
    conclude: str | None = None

    @property
    def steps(self) -> tuple[str, ...]:
        """Every step, in the order in which a run takes them."""
        return (self.inspect, *(step for stage in self.stages for step in stage))

    def parse_params(self, data: Mapping[str, Any]) -> RunParams:
        """Validate a run's parameters.

        Raises
        ------
        ConfigError
            When a key is unknown, absent or wrong.
        """
        model: type[RunParams] = load_named(self.params)
        return parse_config(model, data, f"params of {self.name}")


WORKFLOWS: dict[str, Workflow] = {
    "trait_inference": Workflow(
        name="trait_inference",
        inspect="traits.inspect",
        stages=(("traits.predict", "traits.cov", "traits.aoa"), ("traits.build",)),
        params="muster.traits.params:InferParams",
        report="muster.traits.report:make_report",
        conclude="muster.traits.conclude:conclude_run",
    ),
}


def load_named(name: str) -> Any:
    """Import what is named as "module:attribute", when it is needed and not before."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


@dataclass(frozen=True)
class Group:
    """What one mapped task group runs: a trait with its batches.

    Attributes
    ----------
    name : str
        The group: the trait.
    run : str
        The run.
    batches : dict
        Step → batch id, of what is to be run.
    skipped : dict
        Step → why it is not.
    """

    name: str
    run: str
    batches: dict[str, str]
    skipped: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return what Airflow passes to the group's tasks."""
        return {
            "group": self.name,
            "run": self.run,
            "batches": self.batches,
            "skipped": self.skipped,
        }


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
        _resources(site, step, override)
    work_uri = storage.join(site.work_uri, "runs", safe_name(run_id))
    runs.open_run(
        db,
        run_id,
        workflow=workflow.name,
        params=checked,
        work_uri=work_uri,
        interval=interval,
    )
    element = Element(
        index=0,
        name="inputs",
        inputs={
            "params": checked,
            "bands": storage.join(site.work_uri, "bands"),
            "gpus": _count_gpus(site, workflow, checked.get("resources") or {}),
        },
        outputs={"plan": storage.join(work_uri, "plan.json")},
    )
    batch = _freeze(site, run_id, work_uri, workflow.inspect, "inputs", [element], {})
    batch = batch.model_copy(update={"looks": True})
    runs.create_batches(db, [("inputs", batch)])
    return batch.id


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
    overrides = run.params.get("resources") or {}
    looked_at = plan.made_at.isoformat()
    again = run.facts.get("looked_at") not in (None, looked_at)
    batches: list[tuple[str, Batch]] = []
    settled: list[PlannedElement] = []
    members: dict[str, dict[str, list[PlannedElement]]] = {}
    for planned in plan.elements:
        members.setdefault(planned.group, {}).setdefault(planned.step, []).append(planned)
    groups: list[Group] = []
    for name, by_step in members.items():
        group = Group(name, run_id, {}, {})
        for step, elements in by_step.items():
            to_run = [e for e in elements if e.decision is Decision.RUN]
            settled += [e for e in elements if e.decision is not Decision.RUN]
            for element in elements:
                said = (name, step, element.decision.value, element.reason)
                log.info("%s %s: %s: %s", *said)
            if not to_run:
                group.skipped[step] = _why_skipped(elements)
                continue
            batch = _freeze(site, run_id, run.work_uri, step, name, _elements(to_run), overrides)
            group.batches[step] = batch.id
            batches.append((name, batch))
        groups.append(group)
    if len(batches) > MOST_BATCHES:
        raise ConfigError(
            "too many batches for one run",
            where=run_id,
            got=len(batches),
            expected=f"at most {MOST_BATCHES}",
            do="split the run",
        )
    if batches:
        runs.create_batches(db, batches, again=again)
    facts = {
        **plan.facts,
        "products": plan.products,
        "looked_at": looked_at,
        "bands": plan.band_names(),  # what retention must leave alone
    }
    runs.record_plan(db, run_id, settled, facts)
    return groups


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
    site.placed(workflow.inspect)
    for stage in workflow.stages:
        for step in stage:
            site.placed(step)


def _count_gpus(
    site: Site, workflow: Workflow, overrides: Mapping[str, Mapping[str, Any]]
) -> dict[str, int]:
    """Say which steps are placed where there are GPUs: what computes there is chosen by it."""
    steps = [step for stage in workflow.stages for step in stage]
    counts = {step: _resources(site, step, overrides.get(step) or {}).gpus for step in steps}
    return {step: count for step, count in counts.items() if count}


def _elements(planned: Iterable[PlannedElement]) -> list[Element]:
    return [
        Element(index=index, name=e.name, inputs=e.inputs, outputs=e.outputs)
        for index, e in enumerate(planned)
    ]


def _why_skipped(elements: list[PlannedElement]) -> str:
    reasons = sorted({f"{e.decision.value}: {e.reason}" for e in elements})
    return "; ".join(reasons[:3])


def _freeze(
    site: Site,
    run_id: str,
    work_uri: str,
    step: str,
    group: str,
    elements: list[Element],
    overrides: Mapping[str, Mapping[str, Any]],
) -> Batch:
    """Freeze pool, backend and resources into a batch."""
    placement, pool = site.placed(step)
    return Batch(
        id=f"{_digest(run_id)}.{step}.{safe_name(group)}",
        run=run_id,
        step=step,
        backend=pool.backend,
        pool=placement.pool,
        slots=pool.slots,
        resources=_resources(site, step, overrides.get(step) or {}),
        caps=pool.caps,
        elements=tuple(elements),
        work_uri=storage.join(work_uri, "batches", f"{step}.{safe_name(group)}"),
        pool_uri=storage.join(site.work_uri, "pools", placement.pool),
        slurm=pool.place(site) if isinstance(pool, SlurmPool) else None,
        deadline_s=placement.deadline,
    )


def _resources(site: Site, step: str, override: Mapping[str, Any]) -> Resources:
    """Lay a run's own wishes over the site's placement."""
    placement, pool = site.placed(step)
    asked = {name: value for name, value in override.items() if value is not None}
    stated = {**placement.model_dump(mode="json"), **asked}
    resources = parse_config(Placement, stated, f"resources of {step}").resources
    for name, most in pool.caps.model_dump().items():
        wanted = getattr(resources, name)
        if most is not None and wanted is not None and wanted > most:
            raise ConfigError(
                "more than the pool gives",
                where=f"resources of {step}",
                got=f"{name} {wanted}",
                expected=f"at most {most} in pool {placement.pool}",
            )
    return resources


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def safe_name(text: str) -> str:
    """Make a name safe in a path and in a job's name, and still different for different names."""
    safe = re.sub(r"[^A-Za-z0-9_-]+", "-", text)[:60].strip("-")
    return safe if safe == text else f"{safe}-{_digest(text)}"
