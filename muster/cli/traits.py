"""``muster traits``: train and import models, map traits without Airflow, compare maps."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muster.config import parse_config
from muster.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from muster.jobs.verdict import Verdict
    from muster.site import Site
    from muster.traits.params import InferParams


@click.group()
def traits() -> None:
    """Train models of plant traits, map them, and compare maps."""


@traits.command("import")
@click.option("--trait", required=True, help="Name of the trait; also the table's target column.")
@click.option("--model", required=True, type=click.Path(path_type=Path), help="LightGBM text.")
@click.option(
    "--fold",
    "folds",
    multiple=True,
    type=click.Path(path_type=Path),
    help="LightGBM text of a fold model; repeated in the order of the fold labels.",
)
@click.option(
    "--training",
    required=True,
    type=click.Path(path_type=Path),
    help="CSV or Parquet that the models were trained on.",
)
@click.option("--target", help="Target column, where it is not the trait's name.")
@click.option("--fold-column", help="Column that says which fold model left a plot out.")
@click.option("--predictor-names", multiple=True, help="Columns in the order of the features.")
@click.option("--importance", type=click.Path(path_type=Path), help="Table predictor, importance.")
@click.option("--output", required=True, help="Folder for the bundles.")
@click.option("--unit", default="", help="Unit of the trait.")
@click.option("--description", default="", help="A sentence about the trait.")
@click.option(
    "--transform",
    type=click.Choice(["none", "log", "yeo-johnson"]),
    default="none",
    show_default=True,
    help="What the target went through before training.",
)
@click.option("--power", type=float, default=1.0, help="With yeo-johnson: its lambda.")
@click.option("--mean", type=float, default=0.0, help="Mean subtracted after the transform.")
@click.option("--scale", type=float, default=1.0, help="Scale divided by after the transform.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace a bundle that is there.")
def import_(**options: Any) -> None:
    """Make a bundle of LightGBM models that were trained elsewhere."""
    from muster.traits.import_models import ModelFiles, TrainingColumns, TraitLabel, import_models
    from muster.traits.locations import locate_bundle
    from muster.traits.transform import TargetTransform

    facts = import_models(
        locate_bundle(options["output"], options["trait"]),
        TraitLabel(
            name=options["trait"],
            unit=options["unit"],
            description=options["description"],
            transform=parse_config(
                TargetTransform,
                {
                    "kind": options["transform"],
                    "lambda": options["power"],
                    "mean": options["mean"],
                    "scale": options["scale"],
                },
                "--transform",
            ),
        ),
        ModelFiles(
            model=options["model"],
            training=options["training"],
            folds=options["folds"],
            importance=options["importance"],
        ),
        TrainingColumns(
            target=options["target"] or options["trait"],
            fold=options["fold_column"],
            predictors=options["predictor_names"] or None,
        ),
        seed=options["seed"],
        overwrite=options["overwrite"],
        threads=os.cpu_count() or 1,
    )
    click.echo(f"{options['trait']}: {_render_facts(facts)}")


@traits.command()
@click.option(
    "--plots",
    required=True,
    type=click.Path(path_type=Path),
    help="CSV or Parquet: lon, lat, a column a trait, perhaps predictor columns.",
)
@click.option("--predictors", multiple=True, help="Raster with predictor bands; may be repeated.")
@click.option("--traits", "named", multiple=True, required=True, help="Columns to train on.")
@click.argument("more", nargs=-1, metavar="")
@click.option("--output", required=True, help="Folder for the bundles.")
@click.option("--predictors-from-csv", is_flag=True, help="Take values from the plots' columns.")
@click.option("--predictor-names", multiple=True, help="Only these predictors.")
@click.option(
    "--transform",
    type=click.Choice(["none", "log", "yeo-johnson"]),
    default="none",
    show_default=True,
    help="What the target goes through before training.",
)
@click.option(
    "--folds",
    "fold_count",
    type=click.IntRange(min=2),
    default=5,
    show_default=True,
    help="Spatial folds.",
)
@click.option("--block-size", type=float, help="Side of a spatial block, in the coordinates' unit.")
@click.option("--fold-column", help="Column that says which plots are held out together.")
@click.option("--unit", multiple=True, metavar="TRAIT=UNIT", help="Unit of a trait.")
@click.option("--trait-table", help="CSV: name, unit, description, try_id; gives the units.")
@click.option("--x", "x_column", default="lon", show_default=True, help="Column of x or longitude.")
@click.option("--y", "y_column", default="lat", show_default=True, help="Column of y or latitude.")
@click.option("--crs", default="EPSG:4326", show_default=True, help="CRS of the coordinates.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=os.cpu_count() or 1,
    show_default="all",
    help="Threads to use.",
)
@click.option("--overwrite", is_flag=True, help="Replace bundles that are there.")
def train(named: tuple[str, ...], more: tuple[str, ...], **options: Any) -> None:
    """Train a model bundle for each trait, from a table of plots."""
    from muster.jobs.step import StepContext
    from muster.traits.plot_predictors import PredictorSource
    from muster.traits.plots import Coordinates
    from muster.traits.train import TrainSettings, train_traits
    from muster.traits.trait_table import read_trait_table

    wanted = [*named, *more]
    rows = read_trait_table(options["trait_table"]) if options["trait_table"] else {}
    trained = train_traits(
        options["plots"],
        wanted,
        options["output"],
        source=PredictorSource(
            rasters=tuple(options["predictors"]),
            names=tuple(options["predictor_names"]) or None,
            from_csv=options["predictors_from_csv"],
        ),
        coordinates=Coordinates(options["x_column"], options["y_column"], options["crs"]),
        settings=parse_config(
            TrainSettings,
            {
                "transform": options["transform"],
                "fold_count": options["fold_count"],
                "block_size": options["block_size"],
                "fold_column": options["fold_column"],
                "seed": options["seed"],
                "units": {
                    **{trait: rows[trait].unit for trait in wanted if trait in rows},
                    **dict(_split_pair(text, wanted, "--unit") for text in options["unit"]),
                },
                "descriptions": {t: rows[t].description for t in wanted if t in rows},
            },
            "options of muster traits train",
        ),
        overwrite=options["overwrite"],
        context=StepContext(threads=options["threads"], seed=options["seed"]),
    )
    for trait, facts in trained.items():
        click.echo(f"{trait}: {_render_facts(facts)}")


@traits.command()
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
@click.option("--overwrite", is_flag=True, help="Compute what is up to date as well.")
@click.option("--json", "as_json", is_flag=True, help="The closing report as JSON.")
def infer(named: tuple[str, ...], more: tuple[str, ...], **options: Any) -> int:
    """Map traits here, by the plan and the batches that Airflow would use."""
    from muster.cli.session import open_database
    from muster.jobs.workflow import WORKFLOWS
    from muster.site import read_site
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
                _split_pair(text, list(Engines.model_fields), "--engine")
                for text in options["engines"]
            ),
        }
        chosen = parse_config(Engines, engines, "--engine")
        params = params.model_copy(update={"engines": chosen})
    site = _with_slots(read_site(options["site_name"]), options["max_parallel"])
    interval = None
    if options["year"]:
        year = options["year"]
        interval = (datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC))
        params = params.model_copy(
            update={"interval_start": interval[0], "interval_end": interval[1]}
        )
    _check_locations(params)
    data = params.model_dump(mode="json")
    workflow = WORKFLOWS["trait_inference"]
    run_id = f"{workflow.name}.cli__{datetime.now(UTC).isoformat()}"
    db = open_database()
    verdict = _run_with_progress(db, site, workflow, run_id, data, interval)
    _report(db, run_id, verdict, as_json=options["as_json"])
    return os.EX_OK if verdict.good else 1


@traits.command()
@click.argument("a")
@click.argument("b")
@click.option(
    "--output",
    help="The picture, a PNG.  By default B-minus-A.png here, by the files' names; none with "
    "--json.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def compare(a: str, b: str, *, output: str | None, as_json: bool) -> None:
    """Tell and show how product B differs from product A."""
    from muster.cli.compare import compare_and_tell

    compare_and_tell(a, b, output, as_json=as_json)


def _run_with_progress(
    db: Any, site: Site, workflow: Any, run_id: str, data: dict[str, Any], interval: Any
) -> Verdict:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from muster.jobs.local_run import LocalRun

    console = Console(stderr=True)
    if console.is_terminal:
        logging.getLogger("muster").setLevel(logging.WARNING)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        total = 1 + len(data["traits"]) * sum(len(stage) for stage in workflow.stages)
        bar = progress.add_task("inspecting", total=total)

        def tell(group: str, step: str, state: str) -> None:
            if state == "running":
                progress.update(bar, description=f"{group} {step}")
            else:
                progress.advance(bar)

        run = LocalRun(db, site, workflow, run_id, tell)
        try:
            return asyncio.run(_cancelled_by_sigterm(run.run(data, interval)))
        except asyncio.CancelledError:
            print("terminated", file=sys.stderr)
            sys.exit(128 + signal.SIGTERM)


async def _cancelled_by_sigterm(run: Coroutine[Any, Any, Verdict]) -> Verdict:
    """Let SIGTERM end a run as Ctrl-C does: cancelled, recorded, and nothing left behind."""
    task = asyncio.ensure_future(run)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


def _report(db: Any, run_id: str, verdict: Verdict, *, as_json: bool) -> None:
    """Print what became of each trait, and where its product is."""
    import json

    from muster.jobs.verdict import GOOD
    from muster.store import runs

    facts = runs.read_run(db, run_id).facts
    planned = facts.get("products", {})
    built = {g.name for g in verdict.groups if g.steps.get("traits.build") in GOOD}
    products = {trait: uri for trait, uri in planned.items() if trait in built}
    if as_json:
        click.echo(
            json.dumps(
                {
                    "run": run_id,
                    "good": verdict.good,
                    "summary": verdict.summary,
                    "report": facts.get("report"),
                    "traits": [
                        {
                            "trait": g.name,
                            "state": g.state,
                            "steps": g.steps,
                            "reasons": g.reasons,
                            "product": products.get(g.name),
                        }
                        for g in verdict.groups
                    ],
                },
                indent=1,
            )
        )
        return
    for group in verdict.groups:
        click.echo(group.describe())
        if group.name in products:
            click.echo(f"  {products[group.name]}")
    click.echo(verdict.summary)
    if "report" in facts:
        click.echo(f"report {facts['report']}")
    click.echo(f"run {run_id}")


def _check_locations(params: InferParams) -> None:
    """Find a placeholder without a value before a run is opened."""
    params.output_uri()
    params.predictor_uris()
    for trait in params.traits:
        params.bundle_uri(trait)


def _with_slots(site: Site, slots: int | None) -> Site:
    if slots is None:
        return site
    pools = {
        name: pool.model_copy(update={"slots": slots}) if pool.backend == "local" else pool
        for name, pool in site.pools.items()
    }
    return site.model_copy(update={"pools": pools})


def _split_pair(text: str, names: Sequence[str], option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or name not in names:
        raise ConfigError(
            "not NAME=VALUE, of a name that there is",
            where=option,
            got=text,
            expected=", ".join(f"{name}=…" for name in names),
        )
    return name, value


def _render_facts(facts: dict[str, Any]) -> str:
    """Render what was done as "name value" pairs, floats short, nothing that is empty."""
    pairs: list[str] = []
    for name, value in facts.items():
        if isinstance(value, dict):
            pairs.append(f"{name} ({_render_facts(value)})")
        elif isinstance(value, float):
            pairs.append(f"{name} {value:.4g}")
        elif value not in (None, [], (), ""):
            pairs.append(f"{name} {value}")
    return ", ".join(pairs)
