"""The trait table: what an installation knows of its traits, in one CSV.

A trait's name is a short code; the table says what it means, in which unit it is, and which trait
of the TRY database it is, so that maps, reports and catalogues all say the same.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

from muster import storage
from muster.errors import ConfigError

COLUMNS = ("name", "unit", "description", "try_id")


@dataclass(frozen=True)
class TraitRow:
    """What is known of a trait.

    Attributes
    ----------
    unit : str
        Unit of its values; empty where the table does not say.
    description : str
        In a few words.
    try_id : int or None
        Its number in the TRY plant trait database (try-db.org).
    """

    unit: str = ""
    description: str = ""
    try_id: int | None = None


def read_trait_table(uri: str) -> dict[str, TraitRow]:
    """Read a trait table.

    Parameters
    ----------
    uri : str
        A CSV with a header; columns ``name`` and any of ``unit``, ``description``, ``try_id``.

    Returns
    -------
    dict of str to TraitRow
        Name → row, in the table's order.

    Raises
    ------
    MissingInput
        When there is none.
    ConfigError
        When a column is unknown, a name is empty or there twice, or an id is no number.
    """
    try:
        text = storage.read_bytes(uri).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError("trait table is no UTF-8 text", where=uri, got=error) from error
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, restkey="", restval="")
    rows: dict[str, TraitRow] = {}
    try:
        columns = [(column or "").strip() for column in reader.fieldnames or []]
        _check_columns(uri, columns)
        for cells in reader:
            where = f"{uri}, line {reader.line_num}"
            if "" in cells:
                raise ConfigError("trait table has a line with too many cells", where=where)
            row = dict(zip(columns, ((cell or "").strip() for cell in cells.values()), strict=True))
            name = row["name"]
            if not name or name in rows:
                raise ConfigError(
                    "trait table has a name that is empty or there twice", where=where, got=name
                )
            rows[name] = TraitRow(
                row.get("unit", ""), row.get("description", ""), _parse_id(row.get("try_id"), where)
            )
    except csv.Error as error:
        raise ConfigError("trait table is no CSV", where=uri, got=error) from error
    return rows


def _check_columns(uri: str, columns: list[str]) -> None:
    unknown = [column for column in columns if column not in COLUMNS]
    if "name" not in columns or unknown or len(set(columns)) < len(columns):
        raise ConfigError(
            "trait table has other columns",
            where=uri,
            got=", ".join(columns) or "nothing",
            expected=f"name, and any of {', '.join(COLUMNS[1:])}, each once",
        )


def _parse_id(text: str | None, where: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ConfigError("TRY id is no number", where=where, got=text, expected="1, 2, 3, …")
    return int(text)
