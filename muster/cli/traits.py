"""``muster traits``: train and import models, map traits without Airflow, compare maps."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from muster.cli.infer import infer
from muster.cli.options import json_option
from muster.cli.pairs import split_pair
from muster.config import parse_config


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
    from muster.traits.bundle.location import locate_bundle
    from muster.traits.bundle.transform import TargetTransform
    from muster.traits.training.import_models import (
        ModelFiles,
        TrainingColumns,
        TraitLabel,
        import_models,
    )

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
    from muster.model.step import StepContext
    from muster.traits.plan.trait_table import read_trait_table
    from muster.traits.training.plot_predictors import PredictorSource
    from muster.traits.training.plots import Coordinates
    from muster.traits.training.train import TrainSettings, train_traits

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
                    **dict(split_pair(text, wanted, "--unit") for text in options["unit"]),
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
@click.argument("a")
@click.argument("b")
@click.option(
    "--output",
    help="The picture, a PNG.  By default B-minus-A.png here, by the files' names; none with "
    "--json.",
)
@json_option
def compare(a: str, b: str, *, output: str | None, as_json: bool) -> None:
    """Tell and show how product B differs from product A."""
    from muster.cli.compare import compare_and_tell

    compare_and_tell(a, b, output, as_json=as_json)


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


traits.add_command(infer)
