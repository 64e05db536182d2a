"""``muster clean``: remove what the work directory no longer needs."""

from __future__ import annotations

import json
import os

import click


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--site", "site_name", help="Site file, by name or path.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def clean(site_name: str | None, *, dry_run: bool, as_json: bool) -> int:
    """Remove from the work directory what nobody needs any more.

    Work folders of runs that ended long ago, band rasters that nothing has used for long, and what
    dead processes left, interrupted loads into Postgres as well; [retention] in the site file says
    how long is long.  Products, what has been loaded, and the record of the runs stay.
    """
    from muster.cli.session import open_database
    from muster.jobs.retention.retention import clean_work
    from muster.site import read_site

    site = read_site(site_name)
    done = clean_work(open_database(), site, dry_run=dry_run)
    if as_json:
        click.echo(json.dumps({"dry_run": dry_run, **done.to_dict()}, indent=1))
    else:
        for line in done.describe(dry_run=dry_run):
            click.echo(line)
    return 1 if done.problems else os.EX_OK
