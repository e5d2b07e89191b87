"""Know which grant another one was derived from, so that both end together.

Revision: 0026
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None
kind = "expand"


def upgrade() -> None:
    op.add_column("grants", sa.Column("parent_id", sa.Text, nullable=True))
    derived = sa.text("parent_id IS NOT NULL")
    op.create_index(
        "ix_grants_parent_id", "grants", ["parent_id"], sqlite_where=derived, postgresql_where=derived
    )


def downgrade() -> None:
    op.drop_index("ix_grants_parent_id", "grants")
    with op.batch_alter_table("grants") as grants:
        grants.drop_column("parent_id")
