"""Campaigns from a notebook, and what the command line does with them: the same few functions."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muster.errors import InvalidInput, MissingInput
from muster.jobs.planning.cost import tell_cost
from muster.jobs.planning.workflow import load_workflow
from muster.jobs.runs.local_run import LocalRun
from muster.laptop.find_airflow import find_airflow
from muster.mocks.campaign.config import read_campaign
from muster.mocks.campaign.estimate_size import SizeEstimate, estimate_size
from muster.mocks.campaign.placement import (
    STEP,
    describe_idle_ranks,
    make_placement,
    place_campaign,
)
from muster.mocks.campaign.selection import select
from muster.mocks.failed import find_failed
from muster.mocks.find import (
    FoundCampaign,
    campaign_file_of,
    find_campaign_by,
    find_record_of,
)
from muster.mocks.params import MockParams
from muster.mocks.plan.catalogue_inputs import estimate_inputs
from muster.mocks.progress import ProgressReport, read_progress
from muster.mocks.unfinished import check_not_in_hand, end_left_behind
from muster.mocks.validation import ValidationReport, validate_campaign
from muster.site import read_site
from muster.store.campaign_state import CampaignElement, find_whole

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from muster.laptop.airflow_api import AirflowApi
    from muster.mocks.campaign.config import Campaign
    from muster.mocks.campaign.selection import Selection
    from muster.site import Site
    from muster.store.database import Database

log = logging.getLogger(__name__)

WORKFLOW = "mock_campaign"


@dataclass(frozen=True)
class ResourceEstimate:
    """What a campaign takes.

    Attributes
    ----------
    campaign : str
        VERSION_NAME.
    size : SizeEstimate
        Elements, batches, arrays, bytes.
    pool : str
        Where mocks.populate runs.
    backend : str
        Of the pool: local, slurm, …
    slots : int
        How many elements of a batch run at once.
    cpus, gpus, memory_mib, time_limit_s
        What an element asks for: CPUs for each rank, GPUs and memory for each node.
    cost : str
        CPU-hours and GPU-hours, at most and by past attempts.
    ranks : int
        How many ranks an element has.
    notes : tuple of str
        Ranks without work.
    """

    campaign: str
    size: SizeEstimate
    pool: str
    backend: str
    slots: int
    cpus: int
    gpus: int
    memory_mib: int | None
    time_limit_s: int | None
    cost: str
    ranks: int = 1
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return asdict(self)


@dataclass(frozen=True)
class RetryReport:
    """What failed, and what is tried again.

    Attributes
    ----------
    campaign : str
        VERSION_NAME.
    elements : tuple of CampaignElement
        What failed or was cancelled, and is tried again.
    exhausted : tuple of CampaignElement
        What failed as often as is allowed.
    run : str or None
        The run that tries it again; None where nothing was submitted.
    """

    campaign: str
    elements: tuple[CampaignElement, ...]
    exhausted: tuple[CampaignElement, ...] = ()
    run: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return asdict(self)


@dataclass(frozen=True)
class Submitted:
    """A run of a campaign that was started.

    Attributes
    ----------
    campaign, run : str
        VERSION_NAME, and the run in the store.
    by : {"airflow", "here"}
        Who follows it.
    """

    campaign: str
    run: str
    by: str


def estimate_campaign(
    db: Database,
    found: FoundCampaign,
    site: Site,
    selection: Selection | None = None,
    *,
    galaxies_per_mpch3: float | None = None,
) -> ResourceEstimate:
    """Estimate what a campaign, or a part of it, takes.

    Raises
    ------
    CampaignFileError
        When the site cannot give what it asks for.
    """
    from muster.jobs.planning.freeze import Freezer
    from muster.mocks.campaign.placement import override_of
    from muster.model.batch import Element

    campaign = found.campaign
    placed = place_campaign(campaign, site)
    past = find_whole(db, campaign.folder_uri, STEP, artifact="catalogue")
    size = estimate_size(
        campaign,
        selection,
        galaxies_per_mpch3=galaxies_per_mpch3,
        past_bytes=[product.bytes for product in past.values()],
    )
    alike = estimate_inputs(campaign)
    elements = [
        Element(
            index=i,
            name=c.name,
            inputs={} if i else alike,
            resources=placed.resources_with(override_of(campaign, c)),
        )
        for i, c in enumerate(select(campaign, selection))
    ]
    freezer = Freezer(site, f"{WORKFLOW}.estimate", site.work_uri, {})
    batch = freezer.freeze(STEP, "estimate", elements, planned=make_placement(campaign))
    idle = describe_idle_ranks(campaign, placed)
    return ResourceEstimate(
        campaign=campaign.label,
        size=size,
        pool=placed.pool_name,
        backend=placed.pool.backend,
        slots=placed.slots,
        cpus=placed.resources.cpus,
        gpus=placed.resources.gpus,
        memory_mib=placed.resources.memory_mib,
        time_limit_s=placed.resources.time_limit_s,
        cost="\n".join(tell_cost(db, [batch], load_workflow(WORKFLOW))),
        ranks=placed.target.ranks,
        notes=() if idle is None else (idle,),
    )


def run_params(campaign: Campaign, **chosen: Any) -> dict[str, Any]:
    """Return the params of a run of a campaign; what is None or False is left out.

    A campaign that was read from a file is named by it, so that Airflow's page shows which.
    """
    path = campaign_file_of(campaign)
    named: dict[str, Any] = (
        {"definition": campaign.config.to_data()} if path is None else {"config": path}
    )
    return named | {key: value for key, value in chosen.items() if value not in (None, False)}


def trigger_run(api: AirflowApi, campaign: Campaign, params: Mapping[str, Any]) -> Submitted:
    """Start a run of a campaign in Airflow.

    Raises
    ------
    InvalidInput
        When Airflow refuses the params.
    Transient
        When it does not answer.
    """
    run_id = api.trigger(WORKFLOW, dict(params))
    return Submitted(campaign.label, f"{WORKFLOW}.{run_id}", "airflow")


@dataclass
class CampaignManager:
    """Runs campaigns from Python: validate, estimate, submit, follow, try again.

    Where an Airflow answers runs are triggered there, and a call returns at once; else they are
    followed by this process to their end.  How they ended :meth:`monitor_progress` tells.

    Parameters
    ----------
    db : Database
        The store.
    site : Site
        Pools and job types; the site of MUSTER_SITE by default.
    airflow : AirflowApi or None
        Where runs are triggered; without one they are followed by this process.
    """

    db: Database
    site: Site = field(default_factory=read_site)
    airflow: AirflowApi | None = field(default_factory=find_airflow)

    def submit_campaign(self, config_path: str | Path, **chosen: Any) -> str:
        """Start a run of a campaign, and return the campaign's id: VERSION_NAME.

        Runs of it that were left behind by their process are ended first.

        Parameters
        ----------
        config_path : str or Path
            Campaign file.
        chosen
            Further params of the run, as ``slice=3``: all of
            :class:`muster.mocks.params.MockParams` but ``definition``.

        Raises
        ------
        MissingInput
            When there is no such file.
        CampaignFileError
            Lists everything that is wrong with the file, or that the site cannot give.
        ConfigError
            When a param is unknown or wrong, or the code has changes that no commit has.
        InvalidInput
            When a run that is going has some of the same catalogues before it, or the campaign was
            initialized with another configuration.
        Transient
            When the store or Airflow does not answer.
        """
        campaign = read_campaign(Path(config_path))
        found = find_record_of(self.db, campaign)
        place_campaign(campaign, self.site)
        params = run_params(campaign, **chosen)
        typed = load_workflow(WORKFLOW).parse_params(params)
        assert isinstance(typed, MockParams)
        if not typed.dry_run:
            _finish_apart(end_left_behind(self.db, found))
            wanted = select(campaign, typed.selection)
            check_not_in_hand(self.db, found, [(c.realization, c.redshift) for c in wanted])
        self._start(campaign, params)
        return campaign.label

    def monitor_progress(self, campaign_id: str) -> ProgressReport:
        """Return how a campaign stands now.

        Parameters
        ----------
        campaign_id : str
            VERSION_NAME, name, folder or file.

        Raises
        ------
        MissingInput
            When there is no such campaign.
        InvalidInput
            When several have the name, or the file is wrong.
        """
        return read_progress(self.db, find_campaign_by(self.db, campaign_id))

    def retry_failed_jobs(self, campaign_id: str, max_attempts: int = 3) -> RetryReport:
        """Try again what failed or was cancelled in a campaign, and nothing else.

        Runs of it that were left behind by their process are ended first.

        Parameters
        ----------
        campaign_id : str
            VERSION_NAME, name, folder or file.
        max_attempts : int
            Elements with so many attempts in their newest run are left alone.

        Returns
        -------
        RetryReport
            Without a run where nothing is to be tried again.

        Raises
        ------
        MissingInput
            When there is no such campaign, or it was never initialized.
        InvalidInput
            When a run that is going has some of the same catalogues before it.
        Transient
            When the store or Airflow does not answer.
        """
        found = find_campaign_by(self.db, campaign_id)
        campaign, record = found.campaign, found.require_record()
        _finish_apart(end_left_behind(self.db, found))
        may, exhausted = find_failed(self.db, record.id, max_attempts)
        run = None
        if may:
            check_not_in_hand(self.db, found, [(e.realization, e.redshift) for e in may])
            params = run_params(campaign, failed_only=True, max_attempts=max_attempts)
            run = self._start(campaign, params)
        return RetryReport(campaign.label, tuple(may), tuple(exhausted), run)

    def validate_configuration(self, config_path: str | Path) -> ValidationReport:
        """Check a campaign file; whatever is wrong, with the file itself too, is in the report."""
        try:
            return validate_campaign(Path(config_path), self.site)
        except (MissingInput, InvalidInput) as error:
            return ValidationReport(str(config_path), None, (str(error),))

    def estimate_resources(self, config_path: str | Path) -> ResourceEstimate:
        """Estimate what a campaign takes.

        Parameters
        ----------
        config_path : str or Path
            Campaign file, or folder, VERSION_NAME or name of a campaign.

        Raises
        ------
        MissingInput
            When there is no such campaign.
        CampaignFileError
            Lists everything that is wrong with the file, or that the site cannot give.
        """
        found = find_campaign_by(self.db, str(config_path))
        return estimate_campaign(self.db, found, self.site)

    def _start(self, campaign: Campaign, params: Mapping[str, Any]) -> str:
        """Start a run where it is to be followed, and return its id."""
        if self.airflow is not None:
            return trigger_run(self.airflow, campaign, params).run
        run_id = f"{WORKFLOW}.cli__{datetime.now(UTC).isoformat()}"
        run = LocalRun(self.db, self.site, load_workflow(WORKFLOW), run_id, lambda *_: None)
        _finish_apart(run.run(params))
        return run_id


def _finish_apart(work: Coroutine[Any, Any, Any]) -> None:
    """Finish something in a thread of its own: a notebook's cell has a running loop already."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, work).result()
