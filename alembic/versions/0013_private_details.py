"""Keep what the server and its features note of a client for themselves.

Revision: 0013
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None
kind = "expand"

JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    op.add_column("clients", sa.Column("private_details", JSON, nullable=False, server_default="{}"))


def downgrade() -> None:
    op.drop_column("clients", "private_details")
