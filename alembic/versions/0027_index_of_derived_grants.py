"""Find the grants that were derived from another one.

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
transactional = False


def upgrade() -> None:
    op.execute("DROP INDEX IF EXISTS ix_grants_parent_id")
    derived = sa.text("parent_id IS NOT NULL")
    op.create_index(
        "ix_grants_parent_id",
        "grants",
        ["parent_id"],
        sqlite_where=derived,
        postgresql_where=derived,
        postgresql_concurrently=True,
    )


def downgrade() -> None:
    op.drop_index("ix_grants_parent_id", "grants")
