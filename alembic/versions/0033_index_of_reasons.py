"""Find the events of a reason without reading all others of the time.

Revision: 0033
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import text

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None
kind = "expand"
transactional = False


def upgrade() -> None:
    op.execute("DROP INDEX IF EXISTS ix_events_reason_at")
    op.create_index(
        "ix_events_reason_at",
        "events",
        ["reason", "at"],
        sqlite_where=text("reason != ''"),
        postgresql_where=text("reason != ''"),
        postgresql_concurrently=True,
    )


def downgrade() -> None:
    op.drop_index("ix_events_reason_at", "events")
