"""The outcome of an attempt whose job ended before its turn came."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Allow the outcome."""
    connection = op.get_bind()
    sql = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    connection.exec_driver_sql(sql.replace("%", "%%"))


def downgrade() -> None:
    """Refuse: a record of what ran is not to be dropped by a command."""
    raise RuntimeError("the store has no way back; restore a dump instead")
