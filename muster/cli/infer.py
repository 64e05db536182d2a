"""``muster traits infer``: map traits without Airflow, here or on a cluster."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muster.cli.following import (
    print_submitted,
    report_run,
    run_until_told,
    telling_progress,
)
from muster.cli.pairs import split_pair
from muster.config import parse_config
from muster.errors import ConfigError

if TYPE_CHECKING:
    from muster.jobs.workflow import Workflow
    from muster.site import Site
    from muster.traits.params import InferParams

log = logging.getLogger(__name__)


@click.command()
@click.option(
    "--params",
    "params_path",
    required=True,
    type=click.Path(path_type=Path),
    help="params.yaml: trait names, trait sets, predictors, models, output.",
)
@click.option("--trait-set", help="One of the file's trait sets.")
@click.option("--traits", "named", multiple=True, help="Only these of the file's traits.")
@click.argument("more", nargs=-1, metavar="")
@click.option("--predict-only", is_flag=True, help="Compute the prediction alone.")
@click.option("--cov-only", is_flag=True, help="Compute the variation alone.")
@click.option("--aoa-only", is_flag=True, help="Compute the applicability alone.")
@click.option("--build-only", is_flag=True, help="Build from the bands there are.")
@click.option(
    "--engine",
    "engines",
    multiple=True,
    metavar="TASK=ENGINE",
    help="What computes a band: predict=lightgbm, aoa=tree …; the plan chooses by default.",
)
@click.option("--year", type=click.IntRange(1900, 2200), help="Fills {year} in locations.")
@click.option("--max-parallel", type=click.IntRange(min=1), help="How many elements run at once.")
@click.option("--site", "site_name", help="Site file, by name or path.")
@click.option(
    "--backend",
    type=click.Choice(["local", "slurm"]),
    help="Refuse a site that places a band elsewhere; slurm alone means the site 'slurm'.",
)
@click.option(
    "--no-wait",
    is_flag=True,
    help="Submit everything at once, each job with what it waits for, and return.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be submitted, and its cost.")
@click.option("--overwrite", is_flag=True, help="Compute what is up to date as well.")
@click.option("--json", "as_json", is_flag=True, help="The closing report as JSON.")
def infer(named: tuple[str, ...], more: tuple[str, ...], **options: Any) -> int:
    """Map traits without Airflow, by the plan and the batches that it would use."""
    from muster.cli.session import open_database
    from muster.jobs.local_run import LocalRun
    from muster.jobs.workflow import WORKFLOWS
    from muster.traits.params import TASKS, Engines, read_params_file

    only = [task for task in TASKS if options[f"{task}_only"]]
    if len(only) > 1:
        raise click.UsageError(f"choose one of {', '.join(f'--{task}-only' for task in only)}")
    params = read_params_file(options["params_path"]).infer_params(
        traits=(*named, *more),
        trait_set=options["trait_set"],
        tasks=tuple(only) or TASKS,
        overwrite=options["overwrite"],
    )
    if options["engines"]:
        engines = {
            **params.engines.model_dump(exclude_unset=True),
            **dict(
                split_pair(text, list(Engines.model_fields), "--engine")
                for text in options["engines"]
            ),
        }
        chosen = parse_config(Engines, engines, "--engine")
        params = params.model_copy(update={"engines": chosen})
    workflow = WORKFLOWS["trait_inference"]
    site = _choose_site(options["site_name"], options["backend"], workflow)
    site = _with_slots(site, options["max_parallel"])
    interval = None
    if options["year"]:
        year = options["year"]
        interval = (datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC))
        params = params.model_copy(
            update={"interval_start": interval[0], "interval_end": interval[1]}
        )
    _check_locations(params)
    data = params.model_dump(mode="json")
    run_id = f"{workflow.name}.cli__{datetime.now(UTC).isoformat()}"
    db = open_database()
    if options["dry_run"]:
        from muster.cli.dry_run import print_dry_run

        print_dry_run(db, site, workflow, data)
        return os.EX_OK
    log.info("run %s", run_id)  # so that what was interrupted can be found again
    if options["no_wait"]:
        run = LocalRun(db, site, workflow, run_id, lambda *_: None)
        done = run_until_told(run.submit(data, interval))
        if isinstance(done, list):
            return print_submitted(run_id, done, as_json=options["as_json"])
        verdict = done
    else:
        total = 1 + len(data["traits"]) * (len(workflow.steps) - 1)
        with telling_progress(total) as tell:
            run = LocalRun(db, site, workflow, run_id, tell)
            verdict = run_until_told(run.run(data, interval))
    report_run(db, run_id, verdict, as_json=options["as_json"])
    return os.EX_OK if verdict.good else 1


def _choose_site(named: str | None, backend: str | None, workflow: Workflow) -> Site:
    """Read the site, and make sure that it computes where it was told to."""
    from muster.site import SITE_VARIABLE, read_site

    if named is None and backend == "slurm" and not os.environ.get(SITE_VARIABLE):
        named = "slurm"
    site = read_site(named)
    for stage in workflow.stages:
        for step in stage:
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


def _check_locations(params: InferParams) -> None:
    """Find a placeholder without a value before a run is opened."""
    params.output_uri()
    params.predictor_uris()
    for trait in params.traits:
        params.bundle_uri(trait)


def _with_slots(site: Site, slots: int | None) -> Site:
    if slots is None:
        return site
    pools = {name: pool.model_copy(update={"slots": slots}) for name, pool in site.pools.items()}
    return site.model_copy(update={"pools": pools})
