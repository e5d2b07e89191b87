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

# Of the others every event has one; where there is none, an index has no entry.
PARTIAL = ("user_id", "grant_id")


def upgrade() -> None:
    for column in ("type", "client_id"):
        op.create_index(f"ix_events_{column}_at", "events", [column, "at"])
    for column in PARTIAL:
        known = sa.text(f"{column} IS NOT NULL")
        op.create_index(
            f"ix_events_{column}_at", "events", [column, "at"], sqlite_where=known, postgresql_where=known
        )


def downgrade() -> None:
    for column in ("type", "client_id", *PARTIAL):
        op.drop_index(f"ix_events_{column}_at", "events")
