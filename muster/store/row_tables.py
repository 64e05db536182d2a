"""Tables of rows in the schema ``resampled``: whose they are, and how they are called in SQL.

A table there has the name that a person chose, so its name says nothing of who made it; its
comment does, and outlives a dump.  What no load made is never replaced or dropped.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from psycopg2 import sql
from psycopg2.errors import DependentObjectsStillExist

from muster.errors import InvalidInput

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

SCHEMA = "resampled"

_MAKER = re.compile(r"Muster: load (\d+) of dataset (.*)")


def table_identifier(table: str) -> sql.Identifier:
    """Quote a table's name, with its schema."""
    return sql.Identifier(SCHEMA, table)


def render_comment(load_id: int, dataset: str, details: str) -> str:
    """Render the comment of a table: by its first line it is known again."""
    return f"Muster: load {load_id} of dataset {dataset}\n{details}"


def parse_comment(comment: str | None) -> str | None:
    """Take the dataset's key from a table's comment; None where no load has made the table."""
    match = _MAKER.fullmatch((comment or "").partition("\n")[0])
    return match[2] if match else None


def table_exists(cursor: Cursor, table: str) -> bool:
    """Say whether anything in the schema has this name."""
    return _find(cursor, table) is not None


def check_may_replace(cursor: Cursor, table: str, dataset: str) -> bool:
    """Say whether there is a table that a new load would replace, and refuse what is not ours.

    Raises
    ------
    InvalidInput
        When there is something of this name that no load of the same dataset has made.
    """
    found = _find(cursor, table)
    if found is None:
        return False
    kind, comment = found
    maker = parse_comment(comment)
    if kind != "r" or maker != dataset:
        raise InvalidInput(
            "the table was not made by a load of this dataset, and is not replaced",
            where=f"{SCHEMA}.{table}",
            got=f"a table of dataset {maker}" if maker else "something made by somebody else",
            expected=f"no table, or one of dataset {dataset}",
            do="name another table in the configuration, or rename or drop that one",
        )
    return True


def drop_table(cursor: Cursor, table: str, dataset: str) -> None:
    """Drop a table that a load of the dataset has made, if it is there.

    Raises
    ------
    InvalidInput
        When it is not ours, or a view or another table depends on it.
    """
    if not check_may_replace(cursor, table, dataset):
        return
    try:
        cursor.execute(sql.SQL("DROP TABLE {}").format(table_identifier(table)))
    except DependentObjectsStillExist as error:
        raise InvalidInput(
            "a table is to be replaced, and something depends on it",
            where=f"{SCHEMA}.{table}",
            got=error.diag.message_detail,
            do="drop what depends on it and run again: what is loaded is kept",
        ) from error


def _find(cursor: Cursor, table: str) -> tuple[str, str | None] | None:
    cursor.execute(
        "SELECT c.relkind::text, obj_description(c.oid, 'pg_class') FROM pg_class c"
        " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s",
        (SCHEMA, table),
    )
    row = cursor.fetchone()
    return None if row is None else (row[0], row[1])
