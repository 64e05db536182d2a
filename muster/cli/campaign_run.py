"""Commands that make a campaign run: submit, retry, cancel."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from muster.cli.campaign import make_selection, selection_options
from muster.cli.following import run_until_told
from muster.cli.options import json_option, print_json, site_option
from muster.cli.session import open_database
from muster.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from muster.campaign_manager import Submitted
    from muster.mocks.campaign.config import Campaign
    from muster.mocks.find import FoundCampaign

_HERE = click.option(
    "--here", is_flag=True, help="Follow the run in this process, although an Airflow answers."
)
_NO_WAIT = click.option(
    "--no-wait", is_flag=True, help="Submit the jobs and leave them alone; on a cluster only."
)
_MAX_PARALLEL = click.option(
    "--max-parallel", type=click.IntRange(min=1), help="How many elements run at once, here."
)


@click.command()
@click.argument("named", metavar="CAMPAIGN")
@selection_options
@click.option("--dry-run", is_flag=True, help="Show what would run, and make nothing.")
@click.option("--verify", is_flag=True, help="Look for the files of what the record says is there.")
@click.option("--allow-dirty", is_flag=True, help="Take code that has uncommitted changes.")
@_HERE
@_NO_WAIT
@_MAX_PARALLEL
@site_option
@json_option
def submit(named: str, **options: Any) -> int:
    """Make the catalogues of a CAMPAIGN that are not there yet.

    Where an Airflow answers the run is triggered there; else it is followed here.  What is there
    and whole is never made again.  A run whose process was killed is ended first.
    """
    from muster.mocks.campaign.init import check_unchanged
    from muster.mocks.campaign.selection import select
    from muster.mocks.find import find_campaign_by
    from muster.mocks.unfinished import check_not_in_hand, end_left_behind

    db = open_database()
    found = find_campaign_by(db, named)
    if not options["dry_run"]:
        check_unchanged(found.campaign)
        wanted = select(found.campaign, replace(make_selection(options), first=None))
        run_until_told(end_left_behind(db, found))
        check_not_in_hand(db, found, [(c.realization, c.redshift) for c in wanted])
    chosen = {
        "slice": options["slice_index"],
        "realizations": options["realizations"],
        "redshifts": list(options["redshifts"]) or None,
        "order": options["order"],
        "first": options["first"],
        "verify": options["verify"],
        "allow_dirty": options["allow_dirty"],
    }
    return _start(found, chosen, options)


@click.command()
@click.argument("named", metavar="CAMPAIGN")
@click.option("--submit", "submits", is_flag=True, help="Try it again, instead of showing it.")
@click.option(
    "--max-attempts",
    type=click.IntRange(min=1),
    help="Leave alone what failed so often in its newest run.",
)
@_HERE
@_NO_WAIT
@_MAX_PARALLEL
@site_option
@json_option
def retry(named: str, *, submits: bool, max_attempts: int | None, **options: Any) -> int:
    """Show what failed in a CAMPAIGN and would be tried again; with --submit, try it again."""
    from muster.campaign_manager import RetryReport
    from muster.mocks.failed import find_failed
    from muster.mocks.find import find_campaign_by
    from muster.mocks.unfinished import check_not_in_hand, end_left_behind, list_left_behind

    db = open_database()
    found = find_campaign_by(db, named)
    record = found.require_record()
    if submits:
        run_until_told(end_left_behind(db, found))
    may, exhausted = find_failed(db, record.id, max_attempts)
    if submits and may:
        check_not_in_hand(db, found, [(e.realization, e.redshift) for e in may])
        chosen = {"failed_only": True, "max_attempts": max_attempts}
        return _start(found, chosen, {**options, "dry_run": False})
    report = RetryReport(found.campaign.label, tuple(may), tuple(exhausted))
    if options["as_json"]:
        print_json(report.to_dict())
        return os.EX_OK
    for element in report.elements:
        click.echo(f"{element.name}  {element.outcome:<16} {element.message or ''}".rstrip())
    for element in report.exhausted:
        click.echo(f"{element.name}  {element.outcome:<16} tried {element.attempts} times")
    for run in list_left_behind(db, found):
        click.echo(f"run {run} was left behind: --submit ends it, and tries its unfinished again")
    click.echo(f"{len(may)} would be tried again" if may else "nothing is to be tried again")
    return os.EX_OK


@click.command()
@click.argument("named", metavar="CAMPAIGN")
def cancel(named: str) -> int:
    """Cancel every run of a CAMPAIGN that is going: end what runs, start nothing more."""
    from muster.mocks.find import find_campaign_by
    from muster.mocks.unfinished import cancel_campaign

    db = open_database()
    for line in run_until_told(cancel_campaign(db, find_campaign_by(db, named))):
        click.echo(line)
    return os.EX_OK


def _start(found: FoundCampaign, chosen: Mapping[str, Any], options: Mapping[str, Any]) -> int:
    """Start a run where it is to be followed."""
    from muster.campaign_manager import run_params, trigger_run
    from muster.laptop.find_airflow import find_airflow

    here = options["here"] or options["no_wait"] or options["dry_run"] or options["max_parallel"]
    api = None if here else find_airflow()
    if api is None:
        return _run_here(found.campaign, chosen, options)
    if options["site_name"] is not None:
        raise ConfigError(
            "Airflow has a site of its own", got=f"--site {options['site_name']}", do="add --here"
        )
    submitted = trigger_run(api, found.campaign, run_params(found.campaign, **chosen))
    return _print_triggered(submitted, api.address, as_json=options["as_json"])


def _run_here(campaign: Campaign, chosen: Mapping[str, Any], options: Mapping[str, Any]) -> int:
    from muster.cli.workflow_run import make_run
    from muster.jobs.planning.workflow import load_workflow
    from muster.mocks.campaign.selection import select
    from muster.mocks.params import MockParams

    if options["no_wait"]:
        _check_detachable(campaign, options)
    said = {key: value for key, value in chosen.items() if value not in (None, False)}
    params = MockParams.model_validate({"definition": campaign.config.to_data(), **said})
    elements = len(select(campaign, params.selection))
    if params.first is not None:
        elements = min(elements, params.first)
    run_options = {"backend": None, "overwrite": False, **options}
    return make_run(load_workflow("mock_campaign"), params, run_options, elements)


def _check_detachable(campaign: Campaign, options: Mapping[str, Any]) -> None:
    """Refuse --no-wait before a run is opened, where a step is placed on this machine."""
    from muster.cli.workflow_run import choose_site
    from muster.jobs.planning.workflow import load_workflow
    from muster.jobs.runs.detached import check_pool_detachable
    from muster.mocks.campaign.placement import STEP, job_type_of, place_campaign

    workflow = load_workflow("mock_campaign")
    site = choose_site(options["site_name"], None, workflow)
    place_campaign(campaign, site)
    for step in workflow.computing:
        placed, pool = job_type_of(campaign, site) if step == STEP else site.placed(step)
        check_pool_detachable(step, placed.pool, pool.backend)


def _print_triggered(submitted: Submitted, address: str, *, as_json: bool) -> int:
    if as_json:
        print_json({**vars(submitted), "airflow": address})
        return os.EX_OK
    click.echo(f"run {submitted.run} was triggered at {address}")
    click.echo(f"'muster campaign monitor {submitted.campaign}' follows it")
    return os.EX_OK
