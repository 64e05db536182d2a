"""``muster traits compare``: the difference of two products, in numbers and as a picture."""

from __future__ import annotations

import json
import os
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

import click

from muster import storage
from muster.cli.columns import align, count, percent, render_place, value_rows, yes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from muster.traits.compare.comparison import (
        ClassComparison,
        Comparison,
        ProductFacts,
        ValueComparison,
    )

_Found = TypeVar("_Found")


def compare_and_tell(a: str, b: str, output: str | None, *, as_json: bool) -> None:
    """Compare two products, draw the picture, and print what there is to say.

    Parameters
    ----------
    a, b : str
        URIs of the products.
    output : str or None
        URI of the picture.  None: in the current folder, or none at all with ``as_json``, since a
        program that did not ask for a file should find none.
    as_json : bool
        One JSON document instead of text.
    """
    from muster.traits.compare.compare import compare_products
    from muster.traits.compare.picture import draw_comparison

    if output is None and not as_json:
        output = name_picture(a, b)
    found = compare_and_draw(
        output,
        lambda: compare_products(a, b, threads=os.cpu_count() or 1),
        lambda path: draw_comparison(a, b, path),
    )
    print_comparison(found.to_json(), render_comparison(found), output, as_json=as_json)


def compare_and_draw(
    output: str | None, compare: Callable[[], _Found], draw: Callable[[Path], None]
) -> _Found:
    """Compare, and publish a picture when both have worked out.

    Parameters
    ----------
    output : str or None
        URI of the picture; None for none.
    compare : callable
        Gives what is returned.
    draw : callable
        ``draw(path)`` makes the PNG.
    """
    from muster.raster.write.integrity import check_output_folder

    if output is None:
        return compare()
    if not output.lower().endswith(".png"):
        raise click.BadParameter("the picture's name must end with .png", param_hint="--output")
    staged = storage.stage(output)
    try:
        # Found out now, not after the work.
        check_output_folder(staged.path)
        found = compare()
        draw(staged.path)
        staged.publish()
    finally:
        staged.discard()
    return found


def name_picture(a: str, b: str) -> str:
    """Name the picture of two products: ``B-minus-A.png``, by their files' stems.

    Files of one name, as two trait sets have them, are told apart by their folders' names.
    """
    paths = [PurePosixPath(storage.local_path(uri) or uri) for uri in (a, b)]
    names = [path.stem for path in paths]
    if names[0] == names[1]:
        names = [f"{path.parent.name}-{path.stem}".lstrip("-") for path in paths]
    return f"{names[1]}-minus-{names[0]}.png"


def print_comparison(
    document: dict[str, Any], lines: Sequence[str], picture: str | None, *, as_json: bool
) -> None:
    """Print a comparison: its lines for people, or its document as JSON."""
    if as_json:
        click.echo(json.dumps({**document, "picture": picture}, indent=1, ensure_ascii=False))
        return
    click.echo("\n".join(lines))
    if picture is not None:
        click.echo(f"\npicture  {picture}")


def render_comparison(found: Comparison) -> list[str]:
    """Render a comparison as lines for people."""
    from muster.traits.compare.comparison import ClassComparison, ValueComparison

    lines = [
        f"A     {_render_product(found.a)}",
        f"B     {_render_product(found.b)}",
        f"grid  {found.grid}",
        f"model {found.model}",
    ]
    lines += [f"note  {note}" for note in found.notes]
    values = {n: band for n, band in found.bands.items() if isinstance(band, ValueComparison)}
    if values:
        lines += ["", *_render_values(values)]
    for band in found.bands.values():
        if isinstance(band, ClassComparison):
            lines += ["", *_render_classes(band)]
    return lines


def _render_product(facts: ProductFacts) -> str:
    parts = [facts.uri, facts.trait or "trait unknown"]
    if facts.kind == "older":
        parts.append("of the older kind")
    if facts.version:
        parts.append(f"Muster {facts.version}")
    if facts.model_sha256:
        parts.append(f"model {facts.model_sha256[:12]}")
    return ", ".join(parts)


def _render_values(bands: dict[str, ValueComparison]) -> list[str]:
    columns = list(bands.values())
    rows = [["B − A", *bands], *value_rows(columns)]
    rows.append(["identical bytes", *(yes(flag=band.identical_bytes) for band in columns)])
    rows.append(["made from", *(band.made_from for band in columns)])
    lines = align(rows)
    lines += [
        f"greatest {name} at {render_place(band.greatest)}"
        for name, band in bands.items()
        if band.greatest
    ]
    return lines


def _render_classes(band: ClassComparison) -> list[str]:
    counts = [
        ["area of applicability", "inside B", "outside B"],
        ["inside A", count(band.inside_inside), count(band.inside_outside)],
        ["outside A", count(band.outside_inside), count(band.outside_outside)],
    ]
    facts = [
        ["agreement", percent(band.agreement)],
        ["inside in A", percent(band.inside_share_a)],
        ["inside in B", percent(band.inside_share_b)],
        ["only in A", count(band.only_a)],
        ["only in B", count(band.only_b)],
        ["identical bytes", yes(flag=band.identical_bytes)],
        ["made from", band.made_from],
    ]
    return align(counts + facts)
