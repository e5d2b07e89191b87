"""Find the events of a network address without reading all others of the time.

Revision: 0031
"""

from __future__ import annotations

from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None
kind = "expand"
transactional = False


def upgrade() -> None:
    op.execute("DROP INDEX IF EXISTS ix_events_at_source")
    op.create_index("ix_events_at_source", "events", ["at", "source"], postgresql_concurrently=True)
    # What the shorter one was for, the new one does, too.
    op.drop_index("ix_events_at", "events", if_exists=True, postgresql_concurrently=True)


def downgrade() -> None:
    op.create_index("ix_events_at", "events", ["at"])
    op.drop_index("ix_events_at_source", "events")
