"""``muster report``: a run's report, made again from the record at any time."""

from __future__ import annotations

from pathlib import Path

import click

from muster.cli.options import json_option, print_json
from muster.cli.session import open_database
from muster.storage import local_path


@click.command()
@click.argument("run")
@click.option("--output", help="File to write a copy to, instead of the report in its place.")
@json_option
def report(run: str, output: str | None, *, as_json: bool) -> None:
    """Make the report of a run again, and print where it is.

    RUN is a run's id, or a part of it that no other run has.  The report of a run that is still
    going says how it stands now.
    """
    from muster.report.read import GOING
    from muster.report.write import write_report
    from muster.store import runs

    db = open_database()
    found = runs.find_run(db, run)
    path = local_path(output) if output else None
    uri = write_report(db, found, str(Path.cwd() / path) if path else output)
    going = found.state in GOING
    if as_json:
        told = {"run": found.id, "state": found.state, "going": going, "report": uri}
        print_json(told)
        return
    if going:
        click.echo("the run is still going: the report says how it stands now", err=True)
    click.echo(uri)
