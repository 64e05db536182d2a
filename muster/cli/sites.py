"""Commands about a site: what pools it has, and whether it works."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from muster.cli.options import json_option, print_json
from muster.site import read_site, render_pools

if TYPE_CHECKING:
    from muster.doctor.check import Check


@click.command()
@click.argument("site", required=False)
def pools(site: str | None) -> None:
    """Print the site's pools as 'airflow pools import' reads them."""
    print_json(render_pools(read_site(site)))


@click.command()
@click.argument("site", required=False)
@click.option(
    "--patience",
    type=click.FloatRange(min=0),
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a job may wait before it is cancelled, and its reason told.",
)
@json_option
def doctor(site: str | None, *, patience: float, as_json: bool) -> int:
    """Try a SITE: the store, the work directory, each cluster, and a small job in every pool."""
    from muster.cli.following import run_until_told
    from muster.cli.session import open_database
    from muster.doctor.site import examine_site

    found = read_site(site)
    checks: list[Check] = []

    async def examine() -> None:
        async for check in examine_site(found, open_database(), patience):
            checks.append(check)
            if not as_json:
                click.echo(f"{check.mark:4} {check.name}: {check.finding}")

    run_until_told(examine())
    good = all(check.good for check in checks)
    if as_json:
        report = {"site": found.name, "good": good, "checks": [asdict(c) for c in checks]}
        print_json(report)
    return os.EX_OK if good else 1
