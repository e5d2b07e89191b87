"""Keep the groups and attributes of people, and no mark of administrators: nothing was decided by it.

Revision: 0012
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None
kind = "contract"

JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    op.add_column("users", sa.Column("groups", JSON, nullable=False, server_default="[]"))
    op.add_column("users", sa.Column("attributes", JSON, nullable=False, server_default="{}"))
    op.drop_column("users", "is_admin")


def downgrade() -> None:
    op.add_column("users", sa.Column("is_admin", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.drop_column("users", "attributes")
    op.drop_column("users", "groups")
