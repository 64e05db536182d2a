"""``muster campaign``: check a campaign file, run it, follow it, try again, bring it home.

Each command takes the campaign file, the campaign's folder, or its name.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muster.cli import LazyGroup
from muster.cli.options import json_option, print_json, site_option, with_options
from muster.cli.session import open_database
from muster.counts import count_of

if TYPE_CHECKING:
    from muster.campaign_manager import ResourceEstimate
    from muster.mocks.campaign.selection import Selection


selection_options = with_options(
    click.option("--slice", "slice_index", type=click.IntRange(min=0), help="The n-th slice."),
    click.option("--realizations", help="Only these realizations: 0-99,120."),
    click.option(
        "--redshift",
        "redshifts",
        type=float,
        multiple=True,
        help="Only this redshift; may be repeated.",
    ),
    click.option(
        "--order",
        type=click.Choice(["depth_first", "breadth_first"]),
        help="Which catalogues come first.",
    ),
    click.option(
        "--first", type=click.IntRange(min=1), help="Only the first so many that are not there yet."
    ),
)


def make_selection(chosen: dict[str, Any]) -> Selection:
    """Return the part of a campaign that :func:`selection_options` chose."""
    from muster.mocks.campaign.selection import Selection, parse_realizations

    realizations = chosen["realizations"]
    return Selection(
        slice_index=chosen["slice_index"],
        realizations=None if realizations is None else parse_realizations(realizations),
        redshifts=chosen["redshifts"] or None,
        order=chosen["order"],
        first=chosen["first"],
    )


@click.group(
    cls=LazyGroup,
    elsewhere={
        "submit": "muster.cli.campaign_run:submit",
        "retry": "muster.cli.campaign_run:retry",
        "cancel": "muster.cli.campaign_run:cancel",
        "status": "muster.cli.campaign_status:status",
        "monitor": "muster.cli.campaign_status:monitor",
        "advise": "muster.cli.campaign_status:advise",
        "report": "muster.cli.campaign_status:report",
        "list": "muster.cli.campaign_status:list_all",
        "stage": "muster.cli.campaign_files:stage",
        "archive": "muster.cli.campaign_files:archive",
        "clean": "muster.cli.campaign_files:clean",
    },
)
def campaign() -> None:
    """Make galaxy catalogues by the thousand from one campaign file."""


@campaign.command()
@click.argument("file", type=click.Path(path_type=Path))
@site_option
@json_option
def validate(file: Path, site_name: str | None, *, as_json: bool) -> int:
    """Check a campaign FILE: every error at once, with its key and line."""
    from muster.mocks.validation import validate_campaign
    from muster.site import read_site

    found = validate_campaign(file, read_site(site_name))
    if as_json:
        print_json(found.to_dict())
    else:
        for problem in found.problems:
            click.echo(problem)
        for note in found.notes:
            click.echo(f"note: {note}")
        click.echo(
            f"{found.where} is valid: {found.campaign}"
            if found.valid
            else f"{found.where}: {len(found.problems)} to mend"
        )
    return os.EX_OK if found.valid else os.EX_DATAERR


@campaign.command()
@click.argument("named", metavar="CAMPAIGN")
@site_option
@json_option
def explain(named: str, site_name: str | None, *, as_json: bool) -> None:
    """Show every value of a CAMPAIGN, merged from all tiers, and where each comes from."""
    from muster.mocks.campaign.explain import explain as explain_campaign
    from muster.mocks.find import find_campaign_by, read_named_campaign
    from muster.site import read_site

    campaign = read_named_campaign(named) or find_campaign_by(open_database(), named).campaign
    rows = explain_campaign(campaign, read_site(site_name))
    if as_json:
        print_json([row.to_dict() for row in rows])
        return
    width = max(len(row.key) for row in rows)
    for row in rows:
        value = json.dumps(row.value)
        shown = value if len(value) <= 60 else f"{value[:57]}..."
        click.echo(f"{row.key:<{width}}  {shown}  ({row.source})")


@campaign.command()
@click.argument("named", metavar="CAMPAIGN")
@selection_options
@click.option(
    "--galaxies-per-mpch3",
    type=click.FloatRange(min=0, min_open=True),
    help="Number density of galaxies in (h/Mpc)^3, for the size of the files.",
)
@site_option
@json_option
def estimate(
    named: str,
    galaxies_per_mpch3: float | None,
    site_name: str | None,
    *,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Estimate what a CAMPAIGN, or a part of it, takes: batches, jobs, bytes, hours."""
    from muster.campaign_manager import estimate_campaign
    from muster.mocks.find import find_campaign_by
    from muster.report.formats import format_bytes, format_mib, format_seconds
    from muster.site import read_site

    db = open_database()
    found = estimate_campaign(
        db,
        find_campaign_by(db, named),
        read_site(site_name),
        make_selection(chosen),
        galaxies_per_mpch3=galaxies_per_mpch3,
    )
    if as_json:
        print_json(found.to_dict())
        return
    size = found.size
    click.echo(
        f"{found.campaign}: {count_of(size.elements, 'catalogue')}, "
        f"{count_of(size.realizations, 'realization')} at {count_of(size.redshifts, 'redshift')}"
    )
    click.echo(_describe_batches(found))
    if size.bytes is not None and size.bytes_per_catalogue is not None:
        click.echo(
            f"{format_bytes(size.bytes)} in all, {format_bytes(size.bytes_per_catalogue)} "
            f"a catalogue: "
            f"by {size.basis}"
        )
    else:
        click.echo(f"size of the files: {size.basis}")
    limit = "no time limit" if found.time_limit_s is None else format_seconds(found.time_limit_s)
    gpus = f", {count_of(found.gpus, 'GPU')}" if found.gpus else ""
    memory = format_mib(found.memory_mib)
    ranks = f"{found.ranks} ranks of " if found.ranks > 1 else ""
    click.echo(
        f"each in pool {found.pool}: {ranks}{count_of(found.cpus, 'CPU')}{gpus}, "
        f"memory {memory}, {limit}"
    )
    click.echo(found.cost)
    for note in found.notes:
        click.echo(f"note: {note}")


def _describe_batches(found: ResourceEstimate) -> str:
    """Describe how the elements are dealt out: arrays are Slurm's alone."""
    size = found.size
    batches = f"{count_of(size.batches, 'batch', 'batches')} of at most {size.elements_per_batch:,}"
    slices = count_of(size.slices, "slice")
    if found.backend != "slurm":
        at_once = min(found.slots, size.elements)
        return f"{batches}, {count_of(at_once, 'element')} at once; {slices}"
    return (
        f"{batches}, submitted as {count_of(size.arrays, 'array')} of at most "
        f"{size.array_size:,}, {count_of(size.jobs, 'job')}; {slices}"
    )


@campaign.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--allow-dirty", is_flag=True, help="Take code that has uncommitted changes.")
@click.option("--git-tag", help="Tag to make of the code's commit.")
@click.option("--descends-from", help="VERSION_NAME of the campaign that this one changes.")
@json_option
def init(
    file: Path, *, allow_dirty: bool, git_tag: str | None, descends_from: str | None, as_json: bool
) -> None:
    """Make the folder of the campaign of a FILE, and record what it is made with.

    From then on it does not change: a change is a new version.
    """
    from muster.mocks.campaign.config import read_campaign
    from muster.mocks.campaign.register import register_campaign

    record = register_campaign(
        open_database(),
        read_campaign(file),
        allow_dirty=allow_dirty,
        git_tag=git_tag,
        descends_from=descends_from,
    )
    if as_json:
        print_json(vars(record))
        return
    click.echo(f"{record.version} of {record.name} in {record.folder}")
    click.echo(f"configuration {record.config_sha256[:12]}")
