"""Freezing a plan: elements into batches, with pool, backend and resources as the site places them.

Pure: what is frozen here is recorded, printed or submitted by who asked for it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from muster import storage
from muster.errors import ConfigError
from muster.jobs.planning.placement import place_batch
from muster.model.batch import Batch, Element
from muster.model.plan import Decision, PlannedPlacement

if TYPE_CHECKING:
    from collections.abc import Mapping

    from muster.jobs.planning.placement import Placed
    from muster.model.coordinates import Coordinates
    from muster.model.plan import Plan, PlannedElement
    from muster.site import Site

MOST_BATCHES = 250
"""Batches of one run: what Airflow's scheduler expands without being blocked."""


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


@dataclass(frozen=True)
class FrozenPlan:
    """A plan as the site runs it.

    Attributes
    ----------
    groups : list of Group
        One for each mapped task group, in the plan's order.
    batches : list of (str, Batch)
        Group and batch of all that is to be run.
    settled : list of PlannedElement
        What is not to be run.
    coordinates : dict
        Batch id → coordinates of its elements, in the order of their index.
    """

    groups: list[Group]
    batches: list[tuple[str, Batch]]
    settled: list[PlannedElement]
    coordinates: dict[str, list[Coordinates | None]]


@dataclass(frozen=True)
class Freezer:
    """Freezes the batches of one run.

    Attributes
    ----------
    site : Site
        With the pools and placements that are frozen.
    run_id, work_uri : str
        The run, and its work folder.
    overrides : mapping
        Step → the run's own wishes.
    """

    site: Site
    run_id: str
    work_uri: str
    overrides: Mapping[str, Mapping[str, Any]]

    def freeze(
        self,
        step: str,
        group: str,
        elements: list[Element],
        *,
        looks: bool = False,
        needs_store: bool | None = None,
        planned: PlannedPlacement | None = None,
        placed: Placed | None = None,
    ) -> Batch:
        """Freeze pool, target, resources and retry policy into a batch.

        Parameters
        ----------
        looks, needs_store
            As of :class:`muster.model.batch.Batch`.
        planned : PlannedPlacement, optional
            What the plan says of where and how it runs.
        placed : Placed, optional
            What :meth:`place` has made of that; found here where it is not given.
        """
        planned = planned or PlannedPlacement(step=step)
        placed = placed or self.place(planned)
        return Batch(
            id=f"{_digest(self.run_id)}.{step}.{safe_name(group)}",
            run=self.run_id,
            step=step,
            target=placed.target,
            pool=placed.pool_name,
            slots=placed.slots,
            resources=placed.resources,
            caps=placed.pool.caps,
            elements=tuple(elements),
            work_uri=storage.join(self.work_uri, "batches", f"{step}.{safe_name(group)}"),
            pool_uri=storage.join(self.site.work_uri, "pools", placed.pool_name),
            deadline_s=placed.deadline_s,
            looks=looks,
            needs_store=needs_store,
            retries=planned.retries,
            array_size=planned.array_size,
            layout=2,
        )

    def place(self, planned: PlannedPlacement) -> Placed:
        """Place a step's batches, under the run's own wishes.

        Raises
        ------
        ConfigError
            As :func:`muster.jobs.planning.placement.place_batch`.
        """
        override = self.overrides.get(planned.step) or {}
        return place_batch(self.site, planned.step, override, planned)


def plan_batches(
    site: Site,
    run_id: str,
    work_uri: str,
    plan: Plan,
    overrides: Mapping[str, Mapping[str, Any]],
) -> FrozenPlan:
    """Freeze a plan's elements into batches as the site places them; nothing is recorded.

    Parameters
    ----------
    overrides : mapping
        Step → the run's own wishes.

    Raises
    ------
    ConfigError
        When the plan is too large for one run, or asks for more than a pool gives.
    """
    freezer = Freezer(site, run_id, work_uri, overrides)
    for placement in plan.placements:
        freezer.place(placement)  # what is wrong with one is said, whether or not it is used
    frozen = FrozenPlan([], [], [], {})
    members: dict[str, dict[str, list[PlannedElement]]] = {}
    for planned in plan.elements:
        members.setdefault(planned.group, {}).setdefault(planned.step, []).append(planned)
    for name, by_step in members.items():
        group = Group(name, run_id, {}, {})
        for step, elements in by_step.items():
            to_run = [e for e in elements if e.decision is Decision.RUN]
            frozen.settled.extend(e for e in elements if e.decision is not Decision.RUN)
            if not to_run:
                group.skipped[step] = _why_skipped(elements)
                continue
            batch = _freeze_elements(freezer, plan.placement_of(step, name), name, to_run)
            group.batches[step] = batch.id
            frozen.batches.append((name, batch))
            frozen.coordinates[batch.id] = [e.coordinates for e in to_run]
        frozen.groups.append(group)
    if len(frozen.batches) > MOST_BATCHES:
        raise ConfigError(
            "too many batches for one run",
            where=run_id,
            got=len(frozen.batches),
            expected=f"at most {MOST_BATCHES}",
            do="split the run",
        )
    return frozen


def _freeze_elements(
    freezer: Freezer,
    planned: PlannedPlacement,
    group: str,
    elements: list[PlannedElement],
) -> Batch:
    placed = freezer.place(planned)
    return freezer.freeze(
        planned.step,
        group,
        [
            Element(
                index=index,
                name=e.name,
                inputs=e.inputs,
                outputs=e.outputs,
                resources=placed.resources_with(e.resources),
            )
            for index, e in enumerate(elements)
        ],
        needs_store=any(element.needs_store for element in elements),
        planned=planned,
        placed=placed,
    )


def _why_skipped(elements: list[PlannedElement]) -> str:
    reasons = sorted({f"{e.decision.value}: {e.reason}" for e in elements})
    return "; ".join(reasons[:3])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def safe_name(text: str) -> str:
    """Make a name safe in a path and in a job's name, and still different for different names."""
    safe = re.sub(r"[^A-Za-z0-9_-]+", "-", text)[:60].strip("-")
    return safe if safe == text else f"{safe}-{_digest(text)}"
