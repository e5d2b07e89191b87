"""Seal events into a chain that proves them unchanged, and note up to where they were deleted.

Revision: 0023
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None
kind = "expand"

ROUTINE = sa.text("type IN ('code.issued', 'token.issued')")


def upgrade() -> None:
    op.create_table(
        "event_seals",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.Column("sealed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("form", sa.Integer(), nullable=False),
        sa.Column("types", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("entries", sa.LargeBinary(), nullable=False),
        sa.Column("previous", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("mac", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_event_seals"),
        sa.UniqueConstraint("hash", name="uq_event_seals_hash"),
    )
    op.create_index("ix_event_seals_sealed_at", "event_seals", ["sealed_at"])
    op.create_table(
        "event_deletions",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("until", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("mac", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "until", name="pk_event_deletions"),
    )
    op.create_index(
        "ix_events_issuances_at", "events", ["at"], sqlite_where=ROUTINE, postgresql_where=ROUTINE
    )


def downgrade() -> None:
    op.drop_index("ix_events_issuances_at", "events")
    op.drop_table("event_deletions")
    op.drop_table("event_seals")
