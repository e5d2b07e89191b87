"""Find the sessions that nobody used for long, to tell applications of their end.

Revision: 0032
"""

from __future__ import annotations

from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None
kind = "expand"
transactional = False


def upgrade() -> None:
    op.drop_index("ix_sessions_last_seen_at", "sessions", if_exists=True, postgresql_concurrently=True)
    op.create_index("ix_sessions_last_seen_at", "sessions", ["last_seen_at"], postgresql_concurrently=True)


def downgrade() -> None:
    op.drop_index("ix_sessions_last_seen_at", "sessions")
