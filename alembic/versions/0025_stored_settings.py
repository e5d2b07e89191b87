"""Keep scopes and limits that are not in the INI, and how many events a reader never took.

Revision: 0025
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None
kind = "expand"

JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "stored_settings",
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("value", JSON, nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("kind", "name", name="pk_stored_settings"),
    )
    op.add_column("event_positions", sa.Column("set_aside", sa.Integer, nullable=False, server_default="0"))


def downgrade() -> None:
    op.drop_column("event_positions", "set_aside")
    op.drop_table("stored_settings")
