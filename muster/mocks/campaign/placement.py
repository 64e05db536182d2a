"""What a campaign's elements ask of a site: site file, campaign file and overrides, merged.

The site's job type (or its placement of the step) is the first tier, the campaign's
``memory_requirement``, ``timeout_hours`` and ``account`` the second, ``resources.overrides`` of
single elements the third.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from muster.config import ConfigProblem
from muster.errors import ConfigError
from muster.jobs.planning.placement import place_batch
from muster.mocks.campaign.execution import MEMORY_FACTORS
from muster.mocks.campaign.problems import CampaignFileError, place_problems
from muster.model.plan import PlannedPlacement
from muster.model.resources import PartialResources
from muster.model.retry_policy import RetryPolicy
from muster.pools import SlurmPool

if TYPE_CHECKING:
    from muster.jobs.planning.placement import Placed
    from muster.mocks.campaign.config import Campaign
    from muster.mocks.coordinates import Coordinate
    from muster.pools import Pool
    from muster.site import JobType, Site

STEP = "mocks.populate"
"""The step that a campaign's resources are about."""


def make_placement(campaign: Campaign) -> PlannedPlacement:
    """Return what a plan says of the batches of mocks.populate."""
    asked, execution = campaign.resources, campaign.execution
    factor = MEMORY_FACTORS[asked.memory_requirement]
    return PlannedPlacement(
        step=STEP,
        job_type=asked.job_type,
        account=asked.account,
        resources=PartialResources(
            time_limit_s=execution.timeout_s,
            memory_factor=None if factor == 1 else factor,
        ),
        retries=RetryPolicy(max_retries=execution.max_retries, backoff=execution.retry_backoff),
        array_size=execution.batch_size,
        pack=execution.pack,
        slots=execution.concurrency,
    )


def override_of(campaign: Campaign, coordinate: Coordinate) -> PartialResources | None:
    """Return what the overrides change for one element, a later one first; None for nothing."""
    changed: dict[str, int] = {}
    for override in campaign.resources.overrides:
        if override.matches(coordinate.realization, coordinate.redshift):
            said = {
                "memory_mib": override.memory,
                "time_limit_s": override.time,
                "cpus": override.cpus,
            }
            changed |= {name: value for name, value in said.items() if value is not None}
    return PartialResources(**changed) if changed else None


def place_campaign(campaign: Campaign, site: Site) -> Placed:
    """Place the batches of mocks.populate at a site.

    Raises
    ------
    CampaignFileError
        Lists everything that the site cannot give.
    """
    problems = find_site_problems(campaign, site)
    if problems:
        where = f"{campaign.where} at site {site.name}"
        raise CampaignFileError(where, place_problems(problems, campaign.document))
    return place_batch(site, STEP, {}, make_placement(campaign))


def job_type_of(campaign: Campaign, site: Site) -> tuple[JobType, Pool]:
    """Return the job type that a campaign picks, or the placement of the step, and its pool.

    Raises
    ------
    ConfigError
        When the site has none of that name, or does not place the step.
    """
    name = campaign.resources.job_type
    if name is None:
        return site.placed(STEP)
    if name not in site.job_types:
        raise ConfigError(
            f"site {site.name} has no such job type",
            got=name,
            expected=", ".join(sorted(site.job_types)) or "none: the site declares none",
            do="pick one of these, or declare it in the site file under [job_types]",
        )
    kind = site.job_types[name]
    return kind, site.pools[kind.pool]


def describe_idle_ranks(campaign: Campaign, placed: Placed) -> str | None:
    """Describe ranks that a campaign's slabs keep idle, or busy unequally; None where none are."""
    slabs, ranks = campaign.science.slabs, placed.target.ranks
    if slabs % ranks == 0:
        return None
    idle = "1 rank works and" if slabs == 1 else f"{min(slabs, ranks)} ranks work and"
    found = f"{idle} {ranks - slabs} idle" if slabs < ranks else "ranks have unequal work"
    return (
        f"pool {placed.pool_name} starts {ranks} ranks for a catalogue, and science.slabs is "
        f"{slabs}: {found}; make slabs a multiple of {ranks}, or pick a pool with fewer ranks"
    )


def find_site_problems(campaign: Campaign, site: Site) -> list[ConfigProblem]:
    """List everything of a campaign that a site cannot give."""
    asked = campaign.resources
    try:
        kind, pool = job_type_of(campaign, site)
    except ConfigError as error:
        if asked.job_type is None:
            return [ConfigProblem(("resources",), "wrong", str(error))]
        known = ", ".join(sorted(site.job_types)) or "none"
        message = f"site {site.name} has no such job type"
        where = ("resources", "job_type")
        return [ConfigProblem(where, "wrong", message, repr(asked.job_type), known)]
    problems = []
    if asked.account is not None and not isinstance(pool, SlurmPool):
        message = f"only a pool on Slurm charges an account; {kind.pool} is a {pool.describe()}"
        problems.append(
            ConfigProblem(("resources", "account"), "wrong", message, repr(asked.account))
        )
    if asked.memory_requirement != "normal" and kind.memory is None:
        message = f"the job type asks for no memory that could be {asked.memory_requirement}"
        problems.append(ConfigProblem(("resources", "memory_requirement"), "wrong", message))
    limits: list[tuple[tuple[str, ...], str, int | None, int | None]] = [
        (("execution", "timeout_hours"), "s", campaign.execution.timeout_s, pool.max_time)
    ]
    for position, override in enumerate(asked.overrides):
        item = ("resources", "overrides", str(position))
        limits.append(((*item, "memory"), "MiB", override.memory, pool.max_memory))
        limits.append(((*item, "time"), "s", override.time, pool.max_time))
    for path, unit, wanted, most in limits:
        if wanted is not None and most is not None and wanted > most:
            message = f"{wanted} {unit} is more than the pool {kind.pool} gives"
            problems.append(ConfigProblem(path, "wrong", message, None, f"at most {most} {unit}"))
    return problems
