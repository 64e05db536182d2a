"""``muster traits infer``: map traits without Airflow, here or on a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muster.cli.pairs import split_pair
from muster.cli.workflow_run import make_run, run_options, with_interval, year_option
from muster.config import parse_config

if TYPE_CHECKING:
    from muster.traits.params import InferParams


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
@year_option
@run_options
def infer(named: tuple[str, ...], more: tuple[str, ...], **options: Any) -> int:
    """Map traits without Airflow, by the plan and the batches that it would use."""
    from muster.jobs.planning.workflow import load_workflow
    from muster.traits.params import TASKS, Engines, read_traits_file

    only = [task for task in TASKS if options[f"{task}_only"]]
    if len(only) > 1:
        raise click.UsageError(f"choose one of {', '.join(f'--{task}-only' for task in only)}")
    params = read_traits_file(options["params_path"]).infer_params(
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
    workflow = load_workflow("trait_inference")
    params = with_interval(params, options["year"])
    _check_locations(params)
    return make_run(workflow, params, options, len(params.traits) * len(workflow.computing))


def _check_locations(params: InferParams) -> None:
    """Find a placeholder without a value before a run is opened."""
    params.output_uri()
    params.predictor_uris()
    for trait in params.traits:
        params.bundle_uri(trait)
