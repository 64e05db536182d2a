"""``muster clean``: remove what the work directory no longer needs."""

from __future__ import annotations

import os

import click

from muster.cli.options import json_option, print_answer, site_option


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@site_option
@json_option
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
    answer = {"dry_run": dry_run, **done.to_dict()}
    print_answer(answer, done.describe(dry_run=dry_run), as_json=as_json)
    return 1 if done.problems else os.EX_OK
