"""Where each value comes from: default, site file, campaign file, override.

``muster campaign explain`` shows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from muster.config import render_time
from muster.counts import count_of
from muster.mocks.campaign.execution import MEMORY_FACTORS
from muster.mocks.campaign.placement import STEP, job_type_of, override_of, place_campaign
from muster.mocks.campaign.problems import join_keys
from muster.mocks.campaign.selection import select
from muster.mocks.galaxies.model import load_model
from muster.pools import SlurmPool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from muster.jobs.planning.placement import Placed
    from muster.mocks.campaign.config import Campaign
    from muster.site import JobType, Site

DEFAULT = "default"


@dataclass(frozen=True)
class Explained:
    """A value and its source.

    Attributes
    ----------
    key : str
        Keys joined by dots; "mocks.populate.memory" and its like are merged from all tiers.
    value : str, int, float, bool, list or None
        As JSON can say it.
    source : str
        "default", the site's file and table, the campaign's file and line, or which override.
    """

    key: str
    value: Any
    source: str

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return {"key": self.key, "value": self.value, "source": self.source}


def explain(campaign: Campaign, site: Site) -> list[Explained]:
    """List every key's value and source, then what elements of mocks.populate get at a site.

    Raises
    ------
    CampaignFileError
        When the site cannot give what the campaign asks for.
    """
    placed = place_campaign(campaign, site)
    stated = list(_leaves(_with_options(campaign), ()))
    rows = [Explained(join_keys(path), value, _source_of(campaign, path)) for path, value in stated]
    return [*rows, *_explain_step(campaign, site, placed), *_explain_overrides(campaign, placed)]


def _with_options(campaign: Campaign) -> dict[str, Any]:
    """Return the configuration with the defaults of suite and galaxy model filled in."""
    data = campaign.config.to_data()
    science = campaign.science
    box = campaign.file_names.options.model_dump(mode="json")
    parameters = load_model(science.galaxy_model).parse(science.parameters).model_dump(mode="json")
    overrides = [
        override.model_dump(mode="json", exclude_none=True)
        for override in campaign.resources.overrides
    ]
    data["science"] |= {"box": box, "parameters": parameters}
    data["resources"] |= {"overrides": overrides}
    return data


def _leaves(data: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(data, dict) and data:
        for key, value in data.items():
            yield from _leaves(value, (*path, key))
    elif isinstance(data, list) and data and isinstance(data[0], dict):
        for position, value in enumerate(data):
            yield from _leaves(value, (*path, str(position)))
    else:
        yield path, data


def _source_of(campaign: Campaign, path: tuple[str, ...]) -> str:
    document = campaign.document
    if not document.lines:
        return campaign.where  # given as data: nothing tells defaults apart there
    found = document.stated(path)
    return DEFAULT if found is None else f"{campaign.where} line {document.lines[found]}"


def _explain_step(campaign: Campaign, site: Site, placed: Placed) -> list[Explained]:
    kind, pool = job_type_of(campaign, site)
    asked = campaign.resources
    table = f"job_types.{asked.job_type}" if asked.job_type else f"placement.{STEP}"
    origin = f"{site.name}.toml [{table}]"
    resources = placed.resources
    rows: list[tuple[str, Any, str]] = [("pool", placed.pool_name, _tier(kind, "pool", origin))]
    rows += [
        (name, getattr(resources, name), _tier(kind, name, origin)) for name in ("cpus", "gpus")
    ]
    memory = _tier(kind, "memory", origin)
    if asked.memory_requirement != "normal":
        factor = MEMORY_FACTORS[asked.memory_requirement]
        said = _source_of(campaign, ("resources", "memory_requirement"))
        memory = (
            f"{memory}, {factor:g} × for memory_requirement {asked.memory_requirement} ({said})"
        )
        if resources.memory_mib != (kind.memory or 0) * factor:
            memory += f", up to max_memory of pool {placed.pool_name}"
    rows.append(("memory", _memory(resources.memory_mib), memory))
    time = _tier(kind, "time", origin)
    if campaign.execution.timeout_s is not None:
        time = _source_of(campaign, ("execution", "timeout_hours"))
    rows.append(("time", _time(resources.time_limit_s), time))
    if isinstance(pool, SlurmPool):
        own = f"{site.name}.toml [pools.{placed.pool_name}]"
        pooled = own if pool.account is not None else DEFAULT
        stated = asked.account is not None
        source = _source_of(campaign, ("resources", "account")) if stated else pooled
        rows.append(("account", asked.account or pool.account, source))
    return [Explained(f"{STEP}.{name}", value, source) for name, value, source in rows]


def _tier(kind: JobType, name: str, origin: str) -> str:
    return origin if name in kind.model_fields_set else DEFAULT


def _explain_overrides(campaign: Campaign, placed: Placed) -> list[Explained]:
    """Say of each override how many elements it changes, and what the last of them get."""
    overrides = campaign.resources.overrides
    if not overrides:
        return []
    every = select(campaign)
    rows = []
    for position, override in enumerate(overrides):
        chosen = [c for c in every if override.matches(c.realization, c.redshift)]
        line = _source_of(campaign, ("resources", "overrides", str(position)))
        source = f"override {position}, {line}"
        key = f"{STEP} of {count_of(len(chosen), 'element')}, as {chosen[0].name}"
        merged = placed.resources_with(override_of(campaign, chosen[0])) or placed.resources
        for name, value in (
            ("memory", _memory(merged.memory_mib)),
            ("time", _time(merged.time_limit_s)),
            ("cpus", merged.cpus),
        ):
            if getattr(override, name) is not None:
                rows.append(Explained(f"{key}: {name}", value, source))
    return rows


def _memory(memory_mib: int | None) -> str | None:
    if memory_mib is None:
        return None
    return f"{memory_mib // 1024}GiB" if memory_mib % 1024 == 0 else f"{memory_mib}MiB"


def _time(seconds: int | None) -> str | None:
    return None if seconds is None else render_time(seconds)
