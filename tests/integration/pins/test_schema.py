"""The store after all migrations, and the migrations: applied once, they are never read again."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from muster.store.schema import MIGRATIONS, read_versions
from tests.unit.pins.golden_files import check_golden, check_literal

if TYPE_CHECKING:
    from muster.store.database import Database

STORED = "is the schema of every store that is in use"

COLUMNS = """
    SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
           a.attidentity <> '', pg_get_expr(d.adbin, d.adrelid)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relkind IN ('r', 'p', 'v') AND n.nspname = 'public'
    ORDER BY c.relname COLLATE "C", a.attnum
"""
CONSTRAINTS = """
    SELECT said FROM (
        SELECT conrelid::regclass || ' ' || pg_get_constraintdef(oid) AS said FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace AND conrelid <> 0 AND contype <> 'n'
    ) AS found ORDER BY said COLLATE "C"
"""
OTHERS = """
    SELECT said FROM (
        SELECT indexdef AS said FROM pg_indexes WHERE schemaname = 'public'
        UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
    ) AS found ORDER BY said COLLATE "C"
"""


def test_tables_and_columns_are_those_of_the_stores_in_use(db: Database) -> None:
    lines = []
    with db.transaction() as cursor:
        cursor.execute(COLUMNS)
        for table, column, kind, not_null, identity, default in cursor.fetchall():
            said = [f"{table}.{column} {kind}", "not null" if not_null else "null"]
            said += ["identity"] if identity else []
            said += [f"default {default}"] if default else []
            lines.append(", ".join(said))
        for query in (CONSTRAINTS, OTHERS):
            cursor.execute(query)
            lines += ["", *(said for (said,) in cursor.fetchall())]
    check_golden("schema.txt", "\n".join([*lines, ""]), STORED)


def test_migrations_are_those_that_stores_have_applied(db: Database) -> None:
    """Neither renamed nor edited: what is to change is another migration."""
    files = sorted((MIGRATIONS / "versions").glob("*.*"))
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in files
        if path.suffix == ".sql"
    ]
    lines += [f"{path.name}\n" for path in files if path.suffix == ".py"]
    check_golden("migrations.txt", "".join(lines), "has been applied to the stores in use")
    check_literal("version of the schema", read_versions(db.url), ("0009", "0009"), STORED)
