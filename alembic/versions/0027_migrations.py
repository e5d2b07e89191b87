"""Know of each migration whether the version before it can go on working.

Revision: 0027
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None
kind = "expand"


def upgrade() -> None:
    op.create_table(
        "migrations",
        sa.Column("revision", sa.Text(), nullable=False),
        sa.Column("down_revision", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("applied_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("revision", name="pk_migrations"),
    )


def downgrade() -> None:
    op.drop_table("migrations")
