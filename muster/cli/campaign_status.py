"""Commands that tell how a campaign stands: status, monitor, advise, report, list."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any

import click

from muster.cli.options import json_lines_option, json_option, print_json, render_json_line
from muster.cli.session import open_database
from muster.errors import MissingInput

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from muster.mocks.find import FoundCampaign
    from muster.mocks.progress import ProgressReport
    from muster.store.database import Database
    from muster.store.records import Run

MOST_FAILURES = 10
LOOK_AT_JOBS_S = 15.0
"""Least seconds between two looks of ``monitor`` at jobs that no process follows."""


@click.command()
@click.argument("named", metavar="CAMPAIGN")
@click.option("--verbose", is_flag=True, help="Redshift by redshift, and each that failed.")
@json_option
def status(named: str, *, verbose: bool, as_json: bool) -> None:
    """Show how a CAMPAIGN stands: catalogues by state, success rate, failures by class."""
    from muster.mocks.failed import find_failed
    from muster.mocks.find import find_campaign_by
    from muster.mocks.progress import read_progress

    db = open_database()
    found = find_campaign_by(db, named)
    report = read_progress(db, found)
    if as_json:
        print_json(report.to_dict())
        return
    for line in describe(report, verbose=verbose):
        click.echo(line)
    if verbose and found.record is not None:
        for element in find_failed(db, found.record.id)[0]:
            click.echo(f"  {element.name}  {element.outcome}  {element.message or ''}".rstrip())


def describe(report: ProgressReport, *, verbose: bool = False) -> list[str]:
    """Say how a campaign stands in a few lines."""
    lines = [report.describe()]
    if verbose:
        for redshift, counts in report.by_redshift.items():
            states = ", ".join(f"{n:,} {s.replace('_', ' ')}" for s, n in counts.items())
            lines.append(f"  z {redshift:.3f}: {states}")
    for failure in report.failures[:MOST_FAILURES]:
        kind = f" {failure.error_class}" if failure.error_class else ""
        lines.append(
            f"  {failure.count:,} {failure.outcome}{kind}, such as {failure.example}: "
            f"{failure.message}"
        )
    for run in report.runs[:5]:
        lines.append(f"  {run.describe()}")
    return lines


@click.command()
@click.argument("named", metavar="CAMPAIGN")
@click.option(
    "--every",
    "every_s",
    type=click.FloatRange(min=0.2),
    default=5.0,
    show_default=True,
    help="Seconds between two looks.",
)
@json_lines_option
def monitor(named: str, every_s: float, *, as_json: bool) -> int:
    """Follow a CAMPAIGN live until no run of it is going; Ctrl-C leaves it alone.

    Jobs that were submitted with --no-wait are looked at as well, and their run is judged where all
    of it has ended well.  A run whose process was killed is named, with what to do.
    """
    from rich.console import Console
    from rich.live import Live

    from muster.mocks.find import find_campaign_by

    db = open_database()
    found = find_campaign_by(db, named)
    console = Console()
    if as_json or not console.is_terminal:
        last = ""
        for report in _look_again(db, found, every_s):
            line = render_json_line(report.to_dict()) if as_json else report.describe()
            if line != last:
                last = line
                click.echo(line)
        for run in report.runs:
            if run.advice is not None and not as_json:
                click.echo(f"  {run.describe()}")
        return os.EX_OK
    with Live(console=console, auto_refresh=False) as live:
        for report in _look_again(db, found, every_s):
            live.update(_render(report), refresh=True)
    return os.EX_OK


def _look_again(db: Database, found: FoundCampaign, every_s: float) -> Iterator[ProgressReport]:
    """Read how a campaign stands until no run of it goes on.

    Jobs that no process follows are looked at in longer intervals: each look costs their cluster
    a query, and the store a few rows a batch.
    """
    from muster.mocks.progress import read_progress
    from muster.mocks.unfinished import look_at_left_alone

    look_at = 0.0
    while True:
        if (began := time.monotonic()) >= look_at:
            asyncio.run(look_at_left_alone(db, found))
            ended = time.monotonic()
            look_at = ended + max(every_s, LOOK_AT_JOBS_S, 20 * (ended - began))
        report = read_progress(db, found)
        yield report
        if not any(run.moves for run in report.runs):
            return
        time.sleep(every_s)


def _render(report: ProgressReport) -> RenderableType:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    done = report.counts.get("completed", 0)
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("redshift", justify="right")
    states = [state for state, count in report.counts.items() if count]
    for state in states:
        table.add_column(state.replace("_", " "), justify="right")
    for redshift, counts in report.by_redshift.items():
        table.add_row(f"{redshift:.3f}", *(f"{counts.get(state, 0):,}" for state in states))
    bar = ProgressBar(total=max(1, report.total), completed=done)
    return Group(report.describe(), bar, table, *describe(report)[1:])


@click.command()
@click.argument("named", metavar="CAMPAIGN")
@click.option("--toml", "as_toml", is_flag=True, help="Lines for a site file's [placement].")
@json_option
@click.pass_context
def advise(ctx: click.Context, named: str, *, as_toml: bool, as_json: bool) -> Any:
    """Advise what the elements of a CAMPAIGN should ask for, from its newest run that computed."""
    from muster.cli.advise import advise as advise_run

    db = open_database()
    run = _newest_run(db, named)
    return ctx.invoke(
        advise_run, run=run.id, step="mocks.populate", margin=1.2, as_toml=as_toml, as_json=as_json
    )


@click.command()
@click.argument("named", metavar="CAMPAIGN")
@click.option("--output", help="File to write a copy to.")
@json_option
@click.pass_context
def report(ctx: click.Context, named: str, *, output: str | None, as_json: bool) -> Any:
    """Make the report of a CAMPAIGN's newest run again, and print where it is."""
    from muster.cli.report import report as report_run

    run = _newest_run(open_database(), named)
    return ctx.invoke(report_run, run=run.id, output=output, as_json=as_json)


@click.command("list")
@json_option
def list_all(*, as_json: bool) -> None:
    """List the campaigns that the store knows, newest first."""
    from muster.store.campaigns import list_campaigns

    campaigns = list_campaigns(open_database())
    if as_json:
        print_json([vars(campaign) for campaign in campaigns])
        return
    for campaign in campaigns:
        made = f"{campaign.created_at:%Y-%m-%d %H:%M:%SZ}"
        click.echo(f"{made}  {campaign.version:<10} {campaign.name:<30} {campaign.folder}")
    if not campaigns:
        click.echo("no campaigns yet")


def _newest_run(db: Database, named: str) -> Run:
    """Return the newest run of a campaign that tried something, or its newest run."""
    from muster.mocks.find import find_campaign_by
    from muster.store.campaigns import read_campaign_runs
    from muster.store.history import read_tried

    found = find_campaign_by(db, named)
    runs = read_campaign_runs(db, found.require_record().id)
    if not runs:
        raise MissingInput("the campaign has no run", got=found.campaign.label)
    tried = (run for run in runs if any(t.step == "mocks.populate" for t in read_tried(db, run.id)))
    return next(tried, runs[0])
