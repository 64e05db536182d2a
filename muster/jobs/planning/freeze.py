"""Freezing a plan: elements into batches, with pool, backend and resources as the site places them.

Pure: what is frozen here is recorded, printed or submitted by who asked for it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from muster import storage
from muster.config import parse_config
from muster.errors import ConfigError
from muster.model.batch import Batch, Element
from muster.model.plan import Decision
from muster.site import Placement

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from muster.model.plan import Plan, PlannedElement
    from muster.model.resources import Resources
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
    """

    groups: list[Group]
    batches: list[tuple[str, Batch]]
    settled: list[PlannedElement]


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
    ) -> Batch:
        """Freeze pool, target and resources into a batch.

        Parameters
        ----------
        looks, needs_store
            As of :class:`muster.model.batch.Batch`.
        """
        placement, pool = self.site.placed(step)
        return Batch(
            id=f"{_digest(self.run_id)}.{step}.{safe_name(group)}",
            run=self.run_id,
            step=step,
            target=pool.target(self.site),
            pool=placement.pool,
            slots=pool.slots,
            resources=resources_of(self.site, step, self.overrides.get(step) or {}),
            caps=pool.caps,
            elements=tuple(elements),
            work_uri=storage.join(self.work_uri, "batches", f"{step}.{safe_name(group)}"),
            pool_uri=storage.join(self.site.work_uri, "pools", placement.pool),
            deadline_s=placement.deadline,
            looks=looks,
            needs_store=needs_store,
            layout=2,
        )


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
            if not to_run:
                group.skipped[step] = _why_skipped(elements)
                continue
            batch = freezer.freeze(
                step,
                name,
                _elements(to_run),
                needs_store=any(element.needs_store for element in to_run),
            )
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
    return FrozenPlan(groups, batches, settled)


def _elements(planned: Iterable[PlannedElement]) -> list[Element]:
    return [
        Element(index=index, name=e.name, inputs=e.inputs, outputs=e.outputs)
        for index, e in enumerate(planned)
    ]


def _why_skipped(elements: list[PlannedElement]) -> str:
    reasons = sorted({f"{e.decision.value}: {e.reason}" for e in elements})
    return "; ".join(reasons[:3])


def resources_of(site: Site, step: str, override: Mapping[str, Any]) -> Resources:
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
