"""Resampled datasets: their layers, where each of them lies, the loads into Postgres, and tiles."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create the tables; the SQL beside this file is the schema to read."""
    connection = op.get_bind()
    sql = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    connection.exec_driver_sql(sql.replace("%", "%%"))


def downgrade() -> None:
    """Refuse: a record of what ran is not to be dropped by a command."""
    raise RuntimeError("the store has no way back; restore a dump instead")
