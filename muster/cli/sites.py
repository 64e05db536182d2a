"""Commands about a site: what pools it has, and whether it works."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import asdict

import click

from muster.site import read_site, render_pools


@click.command()
@click.argument("site", required=False)
def pools(site: str | None) -> None:
    """Print the site's pools as 'airflow pools import' reads them."""
    click.echo(json.dumps(render_pools(read_site(site)), indent=1))


@click.command()
@click.argument("site", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def doctor(site: str | None, *, as_json: bool) -> int:
    """Try a SITE: the store, the work directory, and a small job in every pool."""
    from muster.cli.session import open_database
    from muster.doctor import examine_site

    found = read_site(site)
    checks = asyncio.run(examine_site(found, open_database()))
    good = all(check.good for check in checks)
    if as_json:
        report = {"site": found.name, "good": good, "checks": [asdict(c) for c in checks]}
        click.echo(json.dumps(report, indent=1))
    else:
        for check in checks:
            click.echo(f"{'ok ' if check.good else 'BAD'}  {check.name}: {check.finding}")
    return os.EX_OK if good else 1
