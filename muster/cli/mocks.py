"""``muster mocks``: one catalogue at a time: make, compare, plot, validate it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muster.cli.following import showing_progress
from muster.cli.options import json_option, print_answer, print_json
from muster.counts import count_of
from muster.errors import ConfigError

if TYPE_CHECKING:
    from muster.mocks.campaign.config import Campaign

_path = click.Path(path_type=Path)


@click.group()
def mocks() -> None:
    """Make, compare, validate and plot mock galaxy catalogues one by one."""


@mocks.command()
@click.argument("file", metavar="CAMPAIGN_FILE", type=_path)
@click.option("--realization", type=int, help="Which; the first by default.")
@click.option("--redshift", type=float, help="Which; the first by default.")
@click.option("--output", type=_path, required=True, help="File to write.")
@click.option(
    "--n-gen", type=click.IntRange(min=1), help="Test mode: at most so many haloes of the box."
)
@click.option(
    "--min-mass",
    "min_mass_msunh",
    type=click.FloatRange(min=0),
    help="Least halo mass in Msun/h; the campaign's by default.",
)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@json_option
def generate(
    file: Path,
    realization: int | None,
    redshift: float | None,
    output: Path,
    n_gen: int | None,
    min_mass_msunh: float | None,
    threads: int,
    *,
    as_json: bool,
) -> int:
    """Make one catalogue of a campaign here, without a store: for trying out."""
    from muster import storage
    from muster.mocks.campaign.config import read_campaign
    from muster.mocks.campaign.selection import Selection, select
    from muster.mocks.plan.catalogue_inputs import plan_one
    from muster.mocks.populate import populate_mock
    from muster.model.step import StepContext

    campaign = read_campaign(file)
    selection = Selection(
        realizations=None if realization is None else (realization,),
        redshifts=None if redshift is None else (redshift,),
        first=1,
    )
    (coordinate,) = select(campaign, selection)
    inputs = plan_one(_with_mass(campaign, min_mass_msunh), coordinate, n_gen=n_gen)
    inputs["reports"] = str(output.absolute().parent)
    staged = storage.stage(str(output.absolute()))
    try:
        with showing_progress(coordinate.name) as tell:
            context = StepContext(threads=threads, progress=tell)
            facts = populate_mock(**inputs, catalogue=staged.path, context=context)
        staged.publish(lambda: None)
    finally:
        staged.discard()
    if as_json:
        print_json({"output": str(output), **facts})
    else:
        galaxies = count_of(facts["galaxies"], "galaxy", "galaxies")
        click.echo(f"{output}: {galaxies} in {count_of(facts['halos'], 'halo', 'haloes')}")
    return os.EX_OK


def _with_mass(campaign: Campaign, min_mass_msunh: float | None) -> Campaign:
    from dataclasses import replace

    if min_mass_msunh is None:
        return campaign
    science = campaign.science.model_copy(update={"min_mass_msunh": min_mass_msunh})
    return replace(campaign, config=campaign.config.model_copy(update={"science": science}))


@mocks.command()
@click.argument("a", type=_path)
@click.argument("b", type=_path)
@click.option("--rtol", type=click.FloatRange(min=0), default=0.0, help="Relative tolerance.")
@click.option("--atol", type=click.FloatRange(min=0), default=0.0, help="Absolute tolerance.")
@json_option
def compare(a: Path, b: Path, rtol: float, atol: float, *, as_json: bool) -> int:
    """Tell the difference of two catalogues: arrays and attributes; exit with 1 on one."""
    from muster.mocks.catalogue.compare import compare_catalogues

    found = compare_catalogues(a, b, rtol=rtol, atol=atol)
    print_answer(found.to_dict(), found.describe(), as_json=as_json)
    return os.EX_OK if found.is_equal else 1


@mocks.command()
@click.argument("catalogue", type=_path)
@json_option
def validate(catalogue: Path, *, as_json: bool) -> int:
    """Check a catalogue's file by what it says of itself; exit with 1 where it is wrong."""
    from muster.mocks.catalogue_check import check_catalogue

    problems = check_catalogue(catalogue)
    if as_json:
        print_json([vars(problem) for problem in problems])
    else:
        for problem in problems:
            click.echo(problem.describe())
        end = count_of(len(problems), "problem") if problems else "whole"
        click.echo(f"{catalogue}: {end}")
    return 1 if problems else os.EX_OK


@mocks.command()
@click.argument("catalogue", type=_path)
@click.option("--output", type=_path, required=True, help="PNG to write.")
@click.option(
    "--thickness",
    "thickness_mpch",
    type=click.FloatRange(min=0, min_open=True),
    help="Thickness of the slice of the box in Mpc/h.",
)
def plot(catalogue: Path, output: Path, **options: Any) -> int:
    """Plot haloes and galaxies of a slice of a catalogue's box."""
    from muster.mocks.catalogue.plot import plot_catalogue

    if output.suffix != ".png":
        raise ConfigError("not a PNG", got=output, expected="a name that ends in .png")
    plot_catalogue(catalogue, output, **{k: v for k, v in options.items() if v is not None})
    click.echo(str(output))
    return os.EX_OK
