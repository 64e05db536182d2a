"""``muster resampling compare``: the difference of two rasters, in numbers and as a picture."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from muster.cli.columns import align, number, percent, render_place, value_rows
from muster.cli.compare import compare_and_draw, name_picture, print_comparison
from muster.cli.options import json_option

if TYPE_CHECKING:
    from muster.raster.compare.rasters import RasterComparison, RasterFacts


@click.command()
@click.argument("a")
@click.argument("b")
@click.option("--band-a", default=1, show_default=True, type=click.IntRange(min=1), help="Of A.")
@click.option("--band-b", default=1, show_default=True, type=click.IntRange(min=1), help="Of B.")
@click.option(
    "--output",
    help="The picture, a PNG.  By default B-minus-A.png here, by the files' names; none with "
    "--json.",
)
@json_option
def compare(a: str, b: str, *, band_a: int, band_b: int, output: str | None, as_json: bool) -> None:
    """Tell and show how raster B differs from raster A, on the same grid.

    A and B are files or s3:// objects, not names of datasets in the store.
    """
    from muster.raster.compare.picture import draw_raster_comparison
    from muster.raster.compare.rasters import compare_rasters

    bands = {"band_a": band_a, "band_b": band_b, "threads": os.cpu_count() or 1}
    if output is None and not as_json:
        output = name_picture(a, b)
    found = compare_and_draw(
        output,
        lambda: compare_rasters(a, b, **bands),
        lambda path: draw_raster_comparison(a, b, path, **bands),
    )
    print_comparison(found.to_json(), render_comparison(found), output, as_json=as_json)


def render_comparison(found: RasterComparison) -> list[str]:
    """Render a comparison as lines for people."""
    rows = [["B − A", ""], *value_rows([found])]
    if found.agreement is not None:
        rows.append(["agreement", percent(found.agreement)])
    lines = [
        f"A     {_render_raster(found.a)}",
        f"B     {_render_raster(found.b)}",
        f"grid  {found.grid}",
        *(f"note  {note}" for note in found.notes),
        "",
        *(line.rstrip() for line in align(rows)),
    ]
    if found.greatest:
        lines.append(f"greatest at {render_place(found.greatest)}")
    return lines


def _render_raster(facts: RasterFacts) -> str:
    parts = [facts.uri, f"band {facts.band}"]
    if facts.description:
        parts.append(facts.description)
    parts.append(facts.dtype)
    if facts.nodata:
        parts.append(f"nodata {facts.nodata}")
    if (facts.scale, facts.offset) != (1.0, 0.0):
        parts.append(f"× {number(facts.scale)} + {number(facts.offset)}")
    return ", ".join(parts)
