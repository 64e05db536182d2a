"""``muster resampling read``: the pixels of a dataset, wherever they lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from muster.cli.options import json_option, print_json
from muster.cli.session import open_database
from muster.resampling.config.methods import SINKS

if TYPE_CHECKING:
    from muster.raster.grid import Grid, Window
    from muster.resampling.extract import Summary
    from muster.resampling.layer import Layer


@click.command()
@click.argument("key", required=False)
@click.option(
    "--window", "window_px", type=int, nargs=4, metavar="ROW COL HEIGHT WIDTH",
    help="Which cells, by row and column from the upper left one.",
)  # fmt: skip
@click.option(
    "--bbox", type=float, nargs=4, metavar="XMIN YMIN XMAX YMAX",
    help="Which cells: all that this box touches, in the grid's own coordinates.",
)  # fmt: skip
@click.option("--store", type=click.Choice(SINKS), help="Where to read from.")
@click.option("--output", help="A file to write: .tif, .csv (a line a cell with a value) or .npy.")
@json_option
def read(
    key: str | None,
    window_px: tuple[int, int, int, int] | None,
    bbox: tuple[float, float, float, float] | None,
    store: Any,
    output: str | None,
    *,
    as_json: bool,
) -> None:
    """Read a resampled dataset, or a part of it, wherever it lies.

    KEY is its name, with @2024-03 where it is of a month; without it all datasets are listed.  It
    is read from its source, its COG, its tiles or its rows, whichever there is; all give the same
    values.  Without --output only a summary is printed.
    """
    from muster.raster.grid import Window
    from muster.resampling.extract import extract_layer, window_of_box
    from muster.resampling.stores.read import layer_stores
    from muster.resampling.stores.recorded import read_layer

    if window_px and bbox:
        raise click.UsageError("--window and --bbox say the same: give one of them")
    if key is None:
        if window_px or bbox or store or output:
            raise click.UsageError("say which dataset is to be read; without KEY all are listed")
        _list(as_json=as_json)
        return
    db = open_database()
    layer = read_layer(db, key)
    grid = layer.grid.to_grid()
    window = grid.whole
    if window_px:
        window = Window(*window_px)
    elif bbox:
        window = window_of_box(grid, bbox)
    found = extract_layer(layer, db, window, store=store, output=output)
    read_from = store or layer_stores(layer)[0]
    if as_json:
        print_json(_to_json(layer, window, found, read_from, output))
        return
    for line in _render(layer, grid, window, found, read_from):
        click.echo(line)
    if output is not None:
        click.echo(f"written  {output}")


def _list(*, as_json: bool) -> None:
    """Say what datasets the store knows, on what grids, and where they lie."""
    from muster.resampling.layer import Layer
    from muster.store.datasets import list_datasets

    rows: list[dict[str, Any]] = [
        {
            "key": found.key,
            "grid": Layer.model_validate(found.document).grid.to_grid().describe(),
            "stores": list(found.stores),
            "run": found.run_id,
            "recorded_at": found.recorded_at,
        }
        for found in list_datasets(open_database())
    ]
    if as_json:
        print_json({"datasets": rows})
        return
    longest = max((len(row["key"]) for row in rows), default=0)
    for row in rows:
        stores = ", ".join(row["stores"]) or "nowhere"
        click.echo(
            f"{row['recorded_at']:%Y-%m-%d %H:%M:%SZ}  {row['key']:<{longest}}  "
            f"{stores:<17}  {row['grid']}"
        )
    if not rows:
        click.echo("no datasets yet")


def _to_json(
    layer: Layer, window: Window, found: Summary, read_from: str, output: str | None
) -> dict[str, Any]:
    return {
        "key": layer.key,
        "read_from": read_from,
        "fingerprint": layer.fingerprint,
        "grid": layer.grid.model_dump(mode="json"),
        "dtype": layer.dtype,
        "nodata": layer.nodata,
        "unit": layer.dataset.unit,
        "window": [window.row, window.col, window.height, window.width],
        "cells": window.pixels,
        "valid": found.valid,
        "min": found.least,
        "mean": found.mean,
        "max": found.greatest,
        "output": output,
    }


def _render(layer: Layer, grid: Grid, window: Window, found: Summary, read_from: str) -> list[str]:
    unit = f" {layer.dataset.unit}" if layer.dataset.unit else ""
    nodata = "NaN" if layer.nodata is None else f"{layer.nodata:g}"
    lines = [
        f"dataset  {layer.key}, read from {read_from}",
        f"grid     {grid.describe()}",
        f"window   row {window.row}, column {window.col}, {window.height} rows × "
        f"{window.width} columns",
        f"values   {layer.dtype}, nodata {nodata}, {found.valid:,} valid of {window.pixels:,}"
        f" ({found.valid / window.pixels:.1%})",
    ]
    if found.valid:
        lines += [
            f"least    {found.least:.10g}{unit}",
            f"mean     {found.mean:.10g}{unit}",
            f"greatest {found.greatest:.10g}{unit}",
        ]
    return lines
