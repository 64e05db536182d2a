"""Elements as a plan puts them into the store, many at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from muster.store.json_text import render_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg2.extensions import cursor as Cursor

# A plan that is frozen again keeps what has succeeded, unless the batch itself is another one now
# or a new inspection has found that it must run.
_UPSERT_ELEMENT = """
    INSERT INTO element (run_id, batch_id, step, group_name, name, index, state, reason,
                         realization, redshift, trait, dataset, month)
    SELECT * FROM json_to_recordset(%(elements)s) AS v (
        run_id text, batch_id text, step text, group_name text, name text, index int, state text,
        reason text, realization int, redshift float8, trait text, dataset text, month text)
    ON CONFLICT (run_id, step, name) DO UPDATE SET
        batch_id = excluded.batch_id, index = excluded.index,
        group_name = excluded.group_name,
        state = CASE WHEN element.state = 'succeeded' AND excluded.state IN ('pending', 'reused')
                          AND NOT coalesce(excluded.batch_id, '') = ANY(%(changed)s)
                     THEN element.state ELSE excluded.state END,
        reason = excluded.reason, updated_at = now(),
        realization = excluded.realization, redshift = excluded.redshift, trait = excluded.trait,
        dataset = excluded.dataset, month = excluded.month
"""

PAGE = 5000
"""Elements in one statement: fewer are slower, more only make its text longer."""

_ELEMENT = ("run_id", "batch_id", "step", "group_name", "name", "index", "state", "reason")


def element_row(*values: Any) -> dict[str, Any]:
    """Say by name what is recorded of an element; the last value are its coordinates."""
    *said, coordinates = values
    row = dict(zip(_ELEMENT, said, strict=True))
    return row if coordinates is None else {**row, **vars(coordinates)}


def upsert_elements(cursor: Cursor, rows: Sequence[dict[str, Any]], changed: list[str]) -> None:
    """Put elements into the store; ``changed`` are batches that are others now.

    What has succeeded stays, unless its batch has changed.
    """
    # One text of many: a parameter a value costs more than the rest.
    for first in range(0, len(rows), PAGE):
        text = render_json(rows[first : first + PAGE])
        cursor.execute(_UPSERT_ELEMENT, {"elements": text, "changed": changed})
