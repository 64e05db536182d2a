"""Where a batch is placed, and with what: the site's word, under the plan's, under the run's own.

Pure: a batch is frozen with what is found here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from muster.config import parse_config
from muster.errors import ConfigError
from muster.model.plan import PlannedPlacement
from muster.model.slurm_target import SlurmTarget
from muster.model.target import LocalTarget
from muster.site import Placement

if TYPE_CHECKING:
    from collections.abc import Mapping

    from muster.model.resources import PartialResources, Resources
    from muster.model.target import Target
    from muster.pools import Pool
    from muster.site import JobType, Site


@dataclass(frozen=True)
class Placed:
    """Where a batch runs.

    Attributes
    ----------
    step, pool_name : str
        The step, and the name of its pool.
    pool : Pool
        The pool, as the site has it.
    target : Target
        What the batch is frozen with.
    resources : Resources
        What an element asks for at first, within the pool's caps.
    deadline_s : int or None
        How long a generation of the batch may take in all, in seconds.
    slots : int
        How many elements of the batch run at once.
    """

    step: str
    pool_name: str
    pool: Pool
    target: Target
    resources: Resources
    deadline_s: int | None
    slots: int

    def resources_with(self, change: PartialResources | None) -> Resources | None:
        """Return what one element asks for; None where that is what the others do.

        Raises
        ------
        ConfigError
            When it is more than the pool gives.
        """
        if change is None:
            return None
        resources = change.apply(self.resources, self.pool.caps)
        if resources == self.resources:
            return None
        _check_caps(self.step, resources, self.pool_name, self.pool)
        return resources


def place_batch(
    site: Site,
    step: str,
    override: Mapping[str, Any],
    planned: PlannedPlacement | None = None,
) -> Placed:
    """Place a step's batch.

    Parameters
    ----------
    override : mapping
        The run's own wishes, as in the site file: cpus, gpus, memory, time; None is no wish.
    planned : PlannedPlacement or None
        What the plan says of it.

    Raises
    ------
    ConfigError
        When the site has no such placement, job type or pool, the pool gives less than is asked
        for, or an account is to be charged where there is none.
    """
    planned = planned or PlannedPlacement(step=step)
    usual, _ = site.placed(step)
    kind: JobType = _job_type(site, step, planned.job_type) if planned.job_type else usual
    pool_name = planned.pool or kind.pool
    pool = site.pools.get(pool_name)
    if pool is None:
        raise ConfigError(
            "the site has no such pool",
            where=f"placement of {step}",
            got=pool_name,
            expected=", ".join(sorted(site.pools)),
        )
    resources = kind.resources
    if planned.resources is not None:
        resources = planned.resources.apply(resources, pool.caps)
    resources = _override(step, resources, override)
    _check_caps(step, resources, pool_name, pool)
    return Placed(
        step=step,
        pool_name=pool_name,
        pool=pool,
        target=_change(pool.target(site), planned),
        resources=resources,
        deadline_s=usual.deadline,
        slots=min(pool.slots, planned.slots or pool.slots),
    )


def resources_of(site: Site, step: str, override: Mapping[str, Any]) -> Resources:
    """Lay a run's own wishes over the site's placement.

    Raises
    ------
    ConfigError
        When a wish is wrong, or more than the pool gives.
    """
    return place_batch(site, step, override).resources


def _job_type(site: Site, step: str, name: str) -> JobType:
    if name not in site.job_types:
        raise ConfigError(
            "the site has no such job type",
            where=f"placement of {step}",
            got=name,
            expected=", ".join(sorted(site.job_types)) or f"none: {site.name}.toml declares none",
        )
    return site.job_types[name]


def _override(step: str, resources: Resources, override: Mapping[str, Any]) -> Resources:
    """Lay a run's own wishes over resources, in the words of the site file."""
    asked = {name: value for name, value in override.items() if value is not None}
    stated = Placement.model_construct(
        pool="",
        cpus=resources.cpus,
        gpus=resources.gpus,
        memory=resources.memory_mib,
        time=resources.time_limit_s,
    ).model_dump(mode="json")
    return parse_config(Placement, {**stated, **asked}, f"resources of {step}").resources


def _change(target: Target, planned: PlannedPlacement) -> Target:
    """Charge another account, and pack otherwise, than the pool says.

    On this machine a slot works through all elements anyway: a pack says nothing there.
    """
    where = f"account of {planned.step}"
    if planned.account is not None and not isinstance(target, SlurmTarget):
        raise ConfigError(
            "only a pool on Slurm charges an account",
            where=where,
            got=f"{planned.account!r}, on backend {target.backend}",
            do="leave the account out, or choose a pool on Slurm",
        )
    changed = {"account": planned.account, "pack": planned.pack}
    asked = {name: value for name, value in changed.items() if value is not None}
    if not asked or isinstance(target, LocalTarget):
        return target
    return parse_config(type(target), {**target.model_dump(mode="json"), **asked}, where)


def _check_caps(step: str, resources: Resources, pool_name: str, pool: Pool) -> None:
    for name, most in pool.caps.model_dump().items():
        wanted = getattr(resources, name)
        if most is not None and wanted is not None and wanted > most:
            raise ConfigError(
                "more than the pool gives",
                where=f"resources of {step}",
                got=f"{name} {wanted}",
                expected=f"at most {most} in pool {pool_name}",
            )
