"""Find events by what they are about: their type, client, user and grant, newest first.

Revision: 0019
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None
kind = "expand"

# Which events an index is about.
CONDITIONS = {
    "type": "type NOT IN ('code.issued', 'token.issued')",
    "client_id": None,
    "user_id": "user_id IS NOT NULL",
    "grant_id": "grant_id IS NOT NULL",
}


def upgrade() -> None:
    for column, condition in CONDITIONS.items():
        where = sa.text(condition) if condition else None
        op.create_index(
            f"ix_events_{column}_at", "events", [column, "at"], sqlite_where=where, postgresql_where=where
        )


def downgrade() -> None:
    for column in CONDITIONS:
        op.drop_index(f"ix_events_{column}_at", "events")
