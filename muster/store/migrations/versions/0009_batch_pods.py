"""Pod templates: what a batch on Kubernetes is submitted with, a generation."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Make the table."""
    connection = op.get_bind()
    sql = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    connection.exec_driver_sql(sql.replace("%", "%%"))


def downgrade() -> None:
    """Refuse: a record of what ran is not to be dropped by a command."""
    raise RuntimeError("the store has no way back; restore a dump instead")
