"""Number events in the order in which they are stored, so that readers can follow them; and note their requests.

Revision: 0020
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None
kind = "contract"


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE events ADD COLUMN number BIGSERIAL")
    with op.batch_alter_table("events", table_kwargs={"sqlite_autoincrement": True}) as events:
        events.drop_constraint("pk_events", type_="primary")
        if op.get_bind().dialect.name == "sqlite":
            events.add_column(sa.Column("number", sa.Integer(), autoincrement=True, nullable=False))
        events.add_column(sa.Column("request_id", sa.Text(), server_default="", nullable=False))
        events.create_primary_key("pk_events", ["number"])
        events.create_unique_constraint("uq_events_event_id", ["event_id"])
    op.create_table(
        "event_positions",
        sa.Column("reader", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("reader", name="pk_event_positions"),
    )


def downgrade() -> None:
    op.drop_table("event_positions")
    with op.batch_alter_table("events") as events:
        if op.get_bind().dialect.name == "postgresql":  # SQLite forgets the name of a key that numbers rows.
            events.drop_constraint("pk_events", type_="primary")
        events.drop_constraint("uq_events_event_id", type_="unique")
        events.drop_column("request_id")
        events.drop_column("number")
        events.create_primary_key("pk_events", ["event_id"])
