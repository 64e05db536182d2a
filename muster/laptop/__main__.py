"""``python -m muster.laptop``: what the Makefile's run and stop do."""

from __future__ import annotations

import shlex
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from muster.errors import ConfigError, MusterError
from muster.jobs.planning.workflow import WORKFLOWS
from muster.laptop.home import ADMIN
from muster.laptop.processes import StartFailed
from muster.laptop.report import render_failures, render_page, render_products
from muster.laptop.request import Request, example_request, own_request
from muster.laptop.services import Services, open_services
from muster.laptop.training import Training
from muster.laptop.watch import DAG_ID, watch_run

if TYPE_CHECKING:
    from collections.abc import Sequence

CONSOLE = Console()


def tell(line: str) -> None:
    """Print a line as it is."""
    CONSOLE.print(line, highlight=False, markup=False, soft_wrap=True)


def split_words(text: str | None) -> tuple[str, ...]:
    """Split what make passes as one variable into words, as a shell would; a file's name is one."""
    if text and Path(text).exists():
        return (text,)
    try:
        return tuple(shlex.split(text or ""))
    except ValueError as error:
        raise ConfigError(
            "words cannot be told apart", got=text, expected="quotes in pairs", do=str(error)
        ) from None


@click.group()
def laptop() -> None:
    """Run Muster on this machine: embedded Postgres, Airflow, and an example."""


@laptop.command()
@click.option("--plots", help="CSV with lon, lat and a column a trait.")
@click.option("--predictors", help="Rasters with the predictors, separated by blanks.")
@click.option("--traits", help="Columns of the plots, separated by blanks.")
@click.option("--output", help="Folder for models and products.")
def run(**wanted: str | None) -> None:
    """Start the services, train, map, and show where the maps are."""
    services = open_services(tell=tell)
    if any(wanted.values()):
        request = own_request(
            services.home,
            wanted["plots"],
            split_words(wanted["predictors"]),
            split_words(wanted["traits"]),
            wanted["output"],
        )
    else:
        request = example_request(services.home)
    if not map_traits(services, request):
        sys.exit(1)


@laptop.command()
def up() -> None:
    """Start the services, and nothing else."""
    services = open_services(tell=tell)
    for line in render_page(services.start(), ADMIN):
        tell(line)


@laptop.command()
def stop() -> None:
    """End everything that was started."""
    services = open_services(tell=tell)
    services.stop()
    tell("stopped")


@laptop.command()
def status() -> None:
    """Say what runs."""
    services = open_services(tell=tell)
    for component, pid in services.running().items():
        tell(f"{component}: process {pid}, log {services.home.log(component)}")
    if not services.running():
        tell("nothing runs")


def map_traits(services: Services, request: Request) -> bool:
    """Do what a request asks for, and say what came of it.

    Returns
    -------
    bool
        Whether the run succeeded.
    """
    # Training needs none of the services, so it begins before them.
    training = Training(request, services.inherited, services.home.log("training"), tell)
    training.start()
    try:
        installation = services.start()
        training.finish()
    except BaseException:
        training.abandon()
        raise
    api = services.api(installation)
    for dag_id in WORKFLOWS:  # an installation of before may have them paused
        api.wait_for_dag(dag_id)
        api.unpause(dag_id)
    run_id = f"laptop__{datetime.now(UTC):%Y-%m-%dT%H%M%S}_{uuid.uuid4().hex[:6]}"
    api.trigger(DAG_ID, request.params(), run_id=run_id)
    tell(f"run {run_id}: {installation.page}/dags/{DAG_ID}/runs/{run_id}")
    ended = watch_run(api, run_id, request.traits, CONSOLE)
    good = ended.state == "success"
    lines = render_products(installation.store_url, run_id)
    if not good:
        lines += ["", "failed:", *render_failures(api, installation, run_id)]
    for line in ["", *lines, "", *render_page(installation, ADMIN)]:
        tell(line)
    return good


def main(arguments: Sequence[str] | None = None) -> Any:
    """Run a command; what a person can act on is one line, and the end of a log where that helps.

    Returns
    -------
    int
        Exit code, as in :mod:`muster.errors`.
    """
    try:
        return laptop.main(arguments, prog_name="python -m muster.laptop", standalone_mode=False)
    except StartFailed as error:
        for line in error.tail.splitlines():
            tell(f"  | {line}")
        click.echo(f"error: {error}", err=True)
        return error.exit_code
    except MusterError as error:
        click.echo(f"error: {error}", err=True)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted; what runs goes on, 'make stop' ends it", err=True)
        return 130


if __name__ == "__main__":
    sys.exit(main())
