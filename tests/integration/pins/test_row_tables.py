"""Tables that a load makes in the schema ``resampled``: users query them by these names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from muster.raster.grid import Window
from muster.resampling.config.merge_cells import Cells, Counts
from muster.resampling.layer import GridSpec
from muster.resampling.merging.merge_table import open_merge_load
from muster.resampling.stores.load import open_load
from muster.resampling.stores.load_rows import VALUE_TYPES
from tests.integration.resampling.layers import make_layer
from tests.unit.pins.golden_files import check_golden, check_literal

if TYPE_CHECKING:
    from muster.resampling.layer import Layer
    from muster.store.database import Database

USER = "is the schema of tables that users query, and that reads and merges go by"
GRID = GridSpec(
    crs="EPSG:6933", transform=(1000.0, 0.0, 5000.0, 0.0, -500.0, 3000.0), height=1, width=2
)
WHOLE = Window(0, 0, 1, 2)

COLUMNS = """
    SELECT c.relname, c.relkind::text, a.attname, format_type(a.atttypid, a.atttypmod),
           a.attnotnull, col_description(c.oid, a.attnum)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relkind <> 'i'
        AND n.nspname NOT IN ('public', 'pg_catalog', 'pg_toast', 'information_schema')
    ORDER BY c.relname COLLATE "C", a.attnum
"""
OTHERS = """
    SELECT conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid)
    FROM pg_constraint WHERE connamespace = 'resampled'::regnamespace AND contype <> 'n'
    UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'resampled'
    UNION ALL SELECT oid::regclass || ' ' || obj_description(oid, 'pg_class') FROM pg_class
    WHERE relnamespace = 'resampled'::regnamespace AND relkind = 'r'
"""


def layer_of(dtype: str, **changes: Any) -> Layer:
    dataset = {
        "name": dtype, "path": f"/data/{dtype}.tif", "method": "average", "unit": "m",
        "description": f"values of {dtype}",
    }  # fmt: skip
    changes = {"key": f"{dtype}@2024-03", "dataset": dataset, "table": f"rows_{dtype}", **changes}
    return make_layer(dtype, grid=GRID, **changes)


def describe_tables(db: Database) -> str:
    lines = []
    with db.transaction() as cursor:
        cursor.execute(COLUMNS)
        for table, kind, column, sql_type, not_null, comment in cursor.fetchall():
            parts = [f"{table} ({kind}): {column} {sql_type}", "not null" if not_null else "null"]
            lines.append(", ".join(parts + ([comment] if comment else [])))
        cursor.execute(OTHERS)
        lines += ["", *sorted(line for (line,) in cursor.fetchall())]
    return "\n".join([*lines, ""])


def test_loads_and_merges_make_tables_of_these_columns(db: Database) -> None:
    """A table of each type of value, all in one merged table, and one that is being loaded."""
    layers = [layer_of(dtype) for dtype in VALUE_TYPES]
    for layer in layers:
        with open_load(db, layer, "rows") as load:
            load.write(WHOLE, np.ones((1, 2), layer.dtype))
            load.finish()
    merged = layer_of("float64", key="merge@2024-03", table="merged")
    values = tuple(np.ones(1, layer.dtype) for layer in layers)
    with open_merge_load(db, merged, layers, [WHOLE]) as merge:
        index, centre = np.zeros(1, np.int32), np.zeros(1)
        valid = tuple(np.ones(1, np.bool_) for _ in layers)
        merge.write(WHOLE, Cells(index, index, centre, centre, values, valid))
        merge.finish(Counts(rows=1, complete=1))
    with open_load(db, layer_of("float32", key="half@2024-03", table="half"), "rows"):
        pass
    check_golden("row-tables.txt", describe_tables(db), USER)


def test_a_row_has_its_values_in_these_columns(db: Database) -> None:
    """The second of two cells: the first has no value."""
    layer = layer_of("int16")
    with open_load(db, layer, "rows") as load:
        load.write(WHOLE, np.array([[layer.nodata_value, 7]], np.int16))
        load.finish()
    with db.transaction() as cursor:
        cursor.execute("SELECT row_to_json(r) FROM resampled.rows_int16 AS r")
        rows = [row for (row,) in cursor.fetchall()]
    kept = {"row_idx": 0, "col_idx": 1, "x": 6500.0, "y": 2750.0, "value": 7}
    check_literal("rows of a table", rows, [kept], USER)
