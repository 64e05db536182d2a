"""What a workflow declares of itself, and which workflows there are.

A workflow is one declaration: its steps in their order, its parameters, what becomes of a run at
its end.  The DAG, the form on Airflow's page, the command line and the report follow from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from muster.config import parse_config
from muster.entry_points import Registry
from muster.imports import load_named

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from muster.jobs.planning.freeze import Group
    from muster.jobs.planning.params import RunParams


@dataclass(frozen=True)
class NoInterval:
    """A workflow whose runs stand for no interval of time.

    Attributes
    ----------
    reason : str
        What a backfill is told: why there is none, and what to do instead.
    """

    reason: str


@dataclass(frozen=True)
class Preparation:
    """What a workflow knows of a run before its inputs are inspected.

    Attributes
    ----------
    campaign_id : int or None
        The campaign that the run belongs to, in the store.
    inputs : dict
        Further inputs of the step that inspects, under their names.
    """

    campaign_id: int | None = None
    inputs: dict[str, Any] = field(default_factory=dict)


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
        "module:class" of the typed parameters, a :class:`~muster.jobs.planning.params.RunParams`.
    needs : tuple of str
        Steps without whose success a later stage of the group has nothing to do.
    final_steps : tuple of str
        Steps of one group of its own, taken one after the other when every other group is over,
        whatever became of it.
    noun : str
        What a person calls a group: trait, dataset.
    interval : {"year", "month", "slice"} or NoInterval
        What the interval of a backfill's run is: a year that fills {year} in locations, a month of
        it that fills {month} too, or a slice of the elements, which the parameters choose by it.
    report : str or None
        "module:function" that makes the report of a run where the general one does not say enough:
        ``function(db, run) -> Report``.
    conclude : str or None
        "module:function" of what is left to do when a run's verdict is recorded:
        ``function(db, run, verdict)``.  Its failure is told, and changes no verdict.
    judged : {"group", "element"}
        What the success quorum counts: groups, or the elements of the steps ``counted``.
    counted : tuple of str
        Steps whose elements the quorum counts where it counts elements; by default those of the
        last stage.
    prepare : str or None
        "module:function" of what is to be known before a run's inputs are inspected:
        ``function(db, site, params, work_uri) -> Preparation``, with the typed parameters.
    opening : str or None
        "module:function" of a context manager in which a run is prepared and recorded, so that of
        runs that exclude each other one alone is opened: ``function(db, run_id, params)``.
    told_apart_by : mapping of str to tuple of str
        Step → its inputs, nested ones with dots, that tell kinds of its work apart: how long one
        kind takes says nothing of another.
    """

    name: str
    inspect: str
    stages: tuple[tuple[str, ...], ...]
    params: str
    interval: Literal["year", "month", "slice"] | NoInterval
    needs: tuple[str, ...] = ()
    final_steps: tuple[str, ...] = ()
    noun: str = "group"
    report: str | None = None
    conclude: str | None = None
    judged: Literal["group", "element"] = "group"
    counted: tuple[str, ...] = ()
    prepare: str | None = None
    opening: str | None = None
    told_apart_by: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def plural(self) -> str:
        """What a person calls several groups."""
        return f"{self.noun}es" if self.noun.endswith(("ch", "s", "x")) else f"{self.noun}s"

    @property
    def steps(self) -> tuple[str, ...]:
        """Every step, in the order in which a run takes them."""
        return (self.inspect, *self.computing)

    @property
    def computing(self) -> tuple[str, ...]:
        """Every step but the inspection, in the same order."""
        return (*(step for stage in self.stages for step in stage), *self.final_steps)

    @property
    def making(self) -> frozenset[str]:
        """Steps that make what a group is there for."""
        return frozenset((*self.stages[-1], *self.final_steps))

    @property
    def judged_steps(self) -> frozenset[str]:
        """Steps whose elements the quorum counts, where it counts elements."""
        return frozenset(self.counted or self.stages[-1])

    def split_groups(self, groups: Iterable[Group]) -> tuple[list[Group], list[Group]]:
        """Tell the groups that run side by side from the one that runs when those are over."""
        by_kind: tuple[list[Group], list[Group]] = [], []
        for group in groups:
            steps = {*group.batches, *group.skipped}
            by_kind[not steps.isdisjoint(self.final_steps)].append(group)
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
        if step in self.final_steps:
            later = (self.inspect, *self.final_steps[self.final_steps.index(step) :])
            every = (pair for steps in batches.values() for pair in steps.items())
            return [batch for name, batch in every if name not in later], []
        number = next((n for n, stage in enumerate(self.stages) if step in stage), 0)
        earlier = {name for stage in self.stages[:number] for name in stage}
        before = {name: b for name, b in batches.get(group, {}).items() if name in earlier}
        return list(before.values()), [b for name, b in before.items() if name in self.needs]

    @property
    def params_model(self) -> type[RunParams]:
        """The type of the parameters; imports it."""
        model: type[RunParams] = load_named(self.params)
        return model

    def parse_params(self, data: Mapping[str, Any]) -> RunParams:
        """Validate a run's parameters.

        Raises
        ------
        ConfigError
            When a key is unknown, absent or wrong.
        MissingInput
            When they name a file that is not there.
        """
        return parse_config(
            self.params_model, self.params_model.complete(data), f"params of {self.name}"
        )


WORKFLOWS: dict[str, str] = {
    "trait_inference": "muster.traits.workflow:WORKFLOW",
    "resampling": "muster.resampling.workflow:WORKFLOW",
    "mock_campaign": "muster.mocks.workflow:WORKFLOW",
}
"""Name → "module:attribute" of our own declarations, imported when they are needed."""


WORKFLOW_REGISTRY: Registry[Workflow] = Registry("muster.workflows", "workflow", WORKFLOWS)
"""Our own workflows and those that packages add."""


def find_workflow(name: str) -> Workflow | None:
    """Return a workflow; None where there is none or, with a warning, it cannot be loaded."""
    return WORKFLOW_REGISTRY.find(name)


def load_workflow(name: str) -> Workflow:
    """Return a workflow, our own or an installed package's.

    Raises
    ------
    ConfigError
        When there is none of that name, or it cannot be loaded.
    """
    return WORKFLOW_REGISTRY.load(name)
