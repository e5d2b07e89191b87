"""Count events by hour, day and month, and note how much there is of what.

Revision: 0021
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None
kind = "expand"

LONG = sa.text("step IN ('day', 'month')")


def upgrade() -> None:
    op.create_table(
        "event_counts",
        sa.Column("step", sa.String(40), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("type", sa.String(40), nullable=False),
        sa.Column("grant_type", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "step", "client_id", "at", "type", "grant_type", "reason", name="pk_event_counts"
        ),
    )
    op.create_index(
        "ix_event_counts_step_at", "event_counts", ["step", "at", "client_id", "type", "grant_type", "count"]
    )
    op.create_index(
        "ix_event_counts_long_at", "event_counts", ["at"], sqlite_where=LONG, postgresql_where=LONG
    )
    op.create_table(
        "gauge_samples",
        sa.Column("gauge", sa.String(40), nullable=False),
        sa.Column("step", sa.String(40), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("gauge", "step", "at", name="pk_gauge_samples"),
    )
    op.create_index("ix_gauge_samples_at", "gauge_samples", ["at"])


def downgrade() -> None:
    op.drop_table("gauge_samples")
    op.drop_table("event_counts")
