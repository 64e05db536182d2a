"""``muster traits compare``: the difference of two products, in numbers and as a picture."""

from __future__ import annotations

import json
import os
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import click

from muster import storage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from muster.traits.comparison import (
        ClassComparison,
        Comparison,
        Place,
        ProductFacts,
        ValueComparison,
    )


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
    from muster.raster.whole import check_output_folder
    from muster.traits.compare import compare_products
    from muster.traits.compare_picture import draw_comparison

    if output is None and not as_json:
        output = name_picture(a, b)
    if output is None:
        print_comparison(compare_products(a, b, threads=os.cpu_count() or 1), None, as_json=as_json)
        return
    if not output.lower().endswith(".png"):
        raise click.BadParameter("the picture's name must end with .png", param_hint="--output")
    staged = storage.stage(output)
    try:
        # Found out now, not after the work.
        check_output_folder(staged.path)
        found = compare_products(a, b, threads=os.cpu_count() or 1)
        draw_comparison(a, b, staged.path)
        staged.publish()
    finally:
        staged.discard()
    print_comparison(found, output, as_json=as_json)


def name_picture(a: str, b: str) -> str:
    """Name the picture of two products: ``B-minus-A.png``, by their files' stems.

    Files of one name, as two trait sets have them, are told apart by their folders' names.
    """
    paths = [PurePosixPath(storage.local_path(uri) or uri) for uri in (a, b)]
    names = [path.stem for path in paths]
    if names[0] == names[1]:
        names = [f"{path.parent.name}-{path.stem}".lstrip("-") for path in paths]
    return f"{names[1]}-minus-{names[0]}.png"


def print_comparison(found: Comparison, picture: str | None, *, as_json: bool) -> None:
    """Print a comparison, for people or as JSON."""
    if as_json:
        document = {**found.to_json(), "picture": picture}
        click.echo(json.dumps(document, indent=1, ensure_ascii=False))
        return
    click.echo("\n".join(render_comparison(found)))
    if picture is not None:
        click.echo(f"\npicture  {picture}")


def render_comparison(found: Comparison) -> list[str]:
    """Render a comparison as lines for people."""
    from muster.traits.comparison import ClassComparison, ValueComparison

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
    rows = [["B − A", *bands]]

    def add(label: str, cells: Sequence[str]) -> None:
        rows.append([label, *cells])

    add("unit", [_unit(band) for band in columns])
    add("valid in both", [_count(band.valid_in_both) for band in columns])
    add("only in A", [_count(band.only_a) for band in columns])
    add("only in B", [_count(band.only_b) for band in columns])
    add("mean (bias)", [_number(band.mean_difference) for band in columns])
    add("RMSD", [_number(band.rmsd) for band in columns])
    add("MAE", [_number(band.mae) for band in columns])
    for probability in columns[0].quantiles:
        label = f"{float(probability):.0%}".replace("%", " %")
        add(label, [_number(band.quantiles[probability]) for band in columns])
    add("greatest", [_greatest(band) for band in columns])
    add("correlation", [_number(band.correlation) for band in columns])
    add("identical pixels", [_count(band.identical_pixels) for band in columns])
    add("identical bytes", [_yes(flag=band.identical_bytes) for band in columns])
    add("made from", [band.made_from for band in columns])
    lines = _align(rows)
    lines += [
        f"greatest {name} at {_render_place(band.greatest)}"
        for name, band in bands.items()
        if band.greatest
    ]
    return lines


def _render_classes(band: ClassComparison) -> list[str]:
    counts = [
        ["area of applicability", "inside B", "outside B"],
        ["inside A", _count(band.inside_inside), _count(band.inside_outside)],
        ["outside A", _count(band.outside_inside), _count(band.outside_outside)],
    ]
    facts = [
        ["agreement", _percent(band.agreement)],
        ["inside in A", _percent(band.inside_share_a)],
        ["inside in B", _percent(band.inside_share_b)],
        ["only in A", _count(band.only_a)],
        ["only in B", _count(band.only_b)],
        ["identical bytes", _yes(flag=band.identical_bytes)],
        ["made from", band.made_from],
    ]
    return _align(counts + facts)


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Set texts under each other: labels to the left, values to the right."""
    count = max(len(row) for row in rows)
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(count)]
    lines = []
    for row in rows:
        cells = [text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=False)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells]))
    return lines


def _render_place(place: Place) -> str:
    text = f"row {place.row}, column {place.col}, x {place.x:.10g}, y {place.y:.10g}"
    if place.lon is None or place.lat is None:
        return text
    return f"{text} (lon {place.lon:.5f}, lat {place.lat:.5f})"


def _unit(band: ValueComparison) -> str:
    return "ratio" if band.unit == "1" else band.unit or "unknown"


def _greatest(band: ValueComparison) -> str:
    if band.greatest is None:
        return _number(0.0 if band.valid_in_both else None)
    return _number(band.greatest.difference)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.6g}"


def _count(value: int) -> str:
    return f"{value:,}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2f} %"


def _yes(*, flag: bool) -> str:
    return "yes" if flag else "no"
