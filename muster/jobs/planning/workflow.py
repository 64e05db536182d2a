"""What the workflows are made of, and how a run of one is opened, planned and frozen.

The Airflow tasks and the command line both call these functions; neither adds a rule of its own.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from muster import storage
from muster.config import parse_config
from muster.errors import ConfigError, InvalidInput, MissingInput
from muster.imports import load_named
from muster.jobs.planning.cost import tell_cost
from muster.jobs.planning.freeze import Freezer, plan_batches, resources_of, safe_name
from muster.model.batch import Element
from muster.model.plan import Plan
from muster.store import runs
from muster.store.retention import read_removed_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from muster.jobs.planning.freeze import Group
    from muster.jobs.planning.params import RunParams
    from muster.site import Site
    from muster.store.database import Database
    from muster.store.records import Run

log = logging.getLogger(__name__)


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
    needs : tuple of str
        Steps without whose success a later stage of the group has nothing to do.
    gather : tuple of str
        Steps of one group of its own, taken one after the other when every other group is over,
        whatever became of it.
    word : str
        What a person calls a group: trait, dataset.
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
    needs: tuple[str, ...] = ()
    gather: tuple[str, ...] = ()
    word: str = "group"
    report: str | None = None
    conclude: str | None = None

    @property
    def steps(self) -> tuple[str, ...]:
        """Every step, in the order in which a run takes them."""
        return (self.inspect, *self.computing)

    @property
    def computing(self) -> tuple[str, ...]:
        """Every step but the inspection, in the same order."""
        return (*(step for stage in self.stages for step in stage), *self.gather)

    @property
    def making(self) -> frozenset[str]:
        """Steps that make what a group is there for."""
        return frozenset((*self.stages[-1], *self.gather))

    def split_groups(self, groups: Iterable[Group]) -> tuple[list[Group], list[Group]]:
        """Tell the groups that run side by side from the one that runs when those are over."""
        by_kind: tuple[list[Group], list[Group]] = [], []
        for group in groups:
            steps = {*group.batches, *group.skipped}
            by_kind[not steps.isdisjoint(self.gather)].append(group)
        return by_kind

    def batches_before(
        self, group: str, step: str, batches: Mapping[str, Mapping[str, str]]
    ) -> tuple[list[str], list[str]]:
        """List the batches that a step's batch comes after.

        Parameters
        ----------
        batches : mapping
            Group → step → batch id, of the whole run.

        Returns
        -------
        before, needed : list of str
            All of them, and those without whose success it has nothing to do.
        """
        if step in self.gather:
            later = (self.inspect, *self.gather[self.gather.index(step) :])
            every = (pair for steps in batches.values() for pair in steps.items())
            return [batch for name, batch in every if name not in later], []
        number = next((n for n, stage in enumerate(self.stages) if step in stage), 0)
        earlier = {name for stage in self.stages[:number] for name in stage}
        before = {name: b for name, b in batches.get(group, {}).items() if name in earlier}
        return list(before.values()), [b for name, b in before.items() if name in self.needs]

    def parse_params(self, data: Mapping[str, Any]) -> RunParams:
        """Validate a run's parameters.

        Raises
        ------
        ConfigError
            When a key is unknown, absent or wrong.
        MissingInput
            When they name a file that is not there.
        """
        model: type[RunParams] = load_named(self.params)
        return parse_config(model, model.complete(data), f"params of {self.name}")


WORKFLOWS: dict[str, Workflow] = {
    "trait_inference": Workflow(
        name="trait_inference",
        inspect="traits.inspect",
        stages=(("traits.predict", "traits.cov", "traits.aoa"), ("traits.build",)),
        params="muster.traits.params:InferParams",
        needs=("traits.predict",),
        word="trait",
        report="muster.traits.report:make_report",
        conclude="muster.traits.conclude:conclude_run",
    ),
    "resampling": Workflow(
        name="resampling",
        inspect="resampling.inspect",
        stages=(("resampling.resample",),),
        params="muster.resampling.config.params:ResamplingParams",
        gather=("resampling.merge",),
        word="dataset",
        conclude="muster.resampling.conclude:conclude_run",
    ),
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
    MissingInput
        When the parameters name a file that is not there.
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
    runs.open_run(
        db,
        run_id,
        workflow=workflow.name,
        params=checked,
        work_uri=work_uri,
        interval=interval,
    )
    element = inspection_element(site, workflow, checked, storage.join(work_uri, "plan.json"))
    freezer = Freezer(site, run_id, work_uri, {})
    batch = freezer.freeze(workflow.inspect, "inputs", [element], looks=True)
    runs.create_batches(db, [("inputs", batch)])
    return batch.id


def run_work_uri(site: Site, run_id: str) -> str:
    """Return the folder of a run's own work."""
    return storage.join(site.work_uri, "runs", safe_name(run_id))


def inspection_element(
    site: Site, workflow: Workflow, params: Mapping[str, Any], plan_uri: str
) -> Element:
    """Make the element that looks at a run's inputs and writes its plan.

    Parameters
    ----------
    params : mapping
        The run's parameters, checked, as JSON has them.
    plan_uri : str
        Where the plan is to be written.
    """
    return Element(
        index=0,
        name="inputs",
        inputs={
            "params": dict(params),
            "bands": storage.join(site.work_uri, "bands"),
            "gpus": _count_gpus(site, workflow, params.get("resources") or {}),
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
    for element in plan.elements:
        said = (element.group, element.step, element.decision.value, element.reason)
        log.info("%s %s: %s: %s", *said)
    for line in tell_cost(db, [batch for _, batch in frozen.batches]):
        log.info("%s", line)
    if frozen.batches:
        runs.create_batches(db, frozen.batches, again=again)
    facts = {
        **plan.facts,
        "products": plan.products,
        "looked_at": looked_at,
        "bands": plan.band_names(),  # what retention must leave alone
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
