"""Comparisons as columns of text: the same words for products and for any other rasters."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from muster.raster.compare.compared import Place, ValueFacts


def value_rows(columns: Sequence[ValueFacts]) -> list[list[str]]:
    """Say how values differ: rows of a label and a cell for each of the columns."""
    rows = [
        ["unit", *(_unit(band) for band in columns)],
        ["valid in both", *(count(band.valid_in_both) for band in columns)],
        ["only in A", *(count(band.only_a) for band in columns)],
        ["only in B", *(count(band.only_b) for band in columns)],
        ["mean (bias)", *(number(band.mean_difference) for band in columns)],
        ["RMSD", *(number(band.rmsd) for band in columns)],
        ["MAE", *(number(band.mae) for band in columns)],
    ]
    for probability in columns[0].quantiles:
        label = f"{float(probability):.0%}".replace("%", " %")
        rows.append([label, *(number(band.quantiles[probability]) for band in columns)])
    rows += [
        ["greatest", *(_greatest(band) for band in columns)],
        ["correlation", *(number(band.correlation) for band in columns)],
        ["identical pixels", *(count(band.identical_pixels) for band in columns)],
    ]
    return rows


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Set texts under each other: labels to the left, values to the right."""
    columns = max(len(row) for row in rows)
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(columns)]
    lines = []
    for row in rows:
        cells = [text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=False)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells]))
    return lines


def render_place(place: Place) -> str:
    """Say where a pixel is."""
    text = f"row {place.row}, column {place.col}, x {place.x:.10g}, y {place.y:.10g}"
    if place.lon is None or place.lat is None:
        return text
    return f"{text} (lon {place.lon:.5f}, lat {place.lat:.5f})"


def number(value: float | None) -> str:
    """Say a number in six digits; a dash where there is none."""
    return "–" if value is None else f"{value:.6g}"


def count(value: int) -> str:
    """Say a count with its thousands set apart."""
    return f"{value:,}"


def percent(share: float | None) -> str:
    """Say a share in percent; a dash where there is none."""
    return "–" if share is None else f"{100 * share:.2f} %"


def yes(*, flag: bool) -> str:
    """Say a flag."""
    return "yes" if flag else "no"


def _unit(band: ValueFacts) -> str:
    return "ratio" if band.unit == "1" else band.unit or "unknown"


def _greatest(band: ValueFacts) -> str:
    if band.greatest is None:
        return number(0.0 if band.valid_in_both else None)
    return number(band.greatest.difference)
