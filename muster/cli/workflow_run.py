"""What commands share that make a whole run of a workflow: options, site, life and report."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from muster.backends.registry import BACKENDS
from muster.cli.following import print_submitted, report_run, run_until_told, telling_progress
from muster.cli.options import closing_json_option, site_option, with_options
from muster.cli.session import open_database
from muster.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from muster.jobs.planning.params import IntervalParams
    from muster.jobs.planning.workflow import Workflow
    from muster.site import Site

Params = TypeVar("Params", bound="IntervalParams")

run_options = with_options(
    click.option(
        "--max-parallel", type=click.IntRange(min=1), help="How many elements run at once."
    ),
    site_option,
    click.option(
        "--backend",
        type=click.Choice(list(BACKENDS)),
        help="Refuse a site that computes elsewhere; slurm alone means the site 'slurm'.",
    ),
    click.option(
        "--no-wait",
        is_flag=True,
        help="Submit everything at once, each job with what it waits for, and return.",
    ),
    click.option("--dry-run", is_flag=True, help="Print what would be submitted, and its cost."),
    click.option("--overwrite", is_flag=True, help="Compute what is up to date as well."),
    closing_json_option,
)

year_option = click.option(
    "--year", type=click.IntRange(1900, 2200), help="Fills {year} in locations."
)
month_option = click.option(
    "--month", type=click.IntRange(1, 12), help="Of that year: fills {month}, too."
)


def with_interval(params: Params, year: int | None, month: int | None = None) -> Params:
    """Return parameters for a year or a month of it; as they are without one."""
    from muster.jobs.planning.params import make_interval

    interval = make_interval(year, month)
    if interval is None:
        return params
    update = {"interval_start": interval[0], "interval_end": interval[1]}
    return params.model_copy(update=update)


def make_run(
    workflow: Workflow, params: IntervalParams, options: Mapping[str, Any], elements: int
) -> int:
    """Run a workflow from here, as its command was told; return the exit code.

    Parameters
    ----------
    params : IntervalParams
        The run's parameters.
    options : mapping
        What :func:`run_options` gave the command.
    elements : int
        How many elements the run will have, beside its inspection.
    """
    from muster.jobs.runs.local_run import LocalRun

    data = params.model_dump(mode="json")
    start, end = params.interval()
    interval = None if start is None or end is None else (start, end)
    site = choose_site(options["site_name"], options["backend"], workflow)
    site = _with_slots(site, options["max_parallel"])
    run_id = f"{workflow.name}.cli__{datetime.now(UTC).isoformat()}"
    db = open_database()
    if options["dry_run"]:
        from muster.cli.dry_run import print_dry_run

        print_dry_run(db, site, workflow, data)
        return os.EX_OK
    if options["no_wait"]:
        run = LocalRun(db, site, workflow, run_id, lambda *_: None)
        done = run_until_told(run.submit(data, interval))
        if isinstance(done, list):
            return print_submitted(run_id, done, as_json=options["as_json"])
        verdict = done
    else:
        with telling_progress(db, run_id, 1 + elements) as tell:
            run = LocalRun(db, site, workflow, run_id, tell)
            verdict = run_until_told(run.run(data, interval))
    report_run(db, run_id, verdict, as_json=options["as_json"])
    return os.EX_OK if verdict.good else 1


def choose_site(named: str | None, backend: str | None, workflow: Workflow) -> Site:
    """Read the site, and make sure that it computes where it was told to.

    Raises
    ------
    ConfigError
        When the site does not place a step, or places one elsewhere.
    """
    from muster.site import SITE_VARIABLE, SITES_FOLDER, read_site

    if named is None and backend is not None and not os.environ.get(SITE_VARIABLE):
        named = backend if (SITES_FOLDER / f"{backend}.toml").exists() else None
    site = read_site(named)
    for step in workflow.computing:
        placement, pool = site.placed(step)
        if backend is not None and pool.backend != backend:
            raise ConfigError(
                "the site computes elsewhere",
                where=f"{site.name}.toml [placement] {step}",
                got=f"pool {placement.pool}, {pool.backend}",
                expected=f"a pool with backend = {backend!r}",
                do="name another --site, or place the step",
            )
    return site


def _with_slots(site: Site, slots: int | None) -> Site:
    if slots is None:
        return site
    pools = {name: pool.model_copy(update={"slots": slots}) for name, pool in site.pools.items()}
    return site.model_copy(update={"pools": pools})
