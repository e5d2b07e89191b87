"""Note when secrets and grants were last used, and which clients keep their refresh tokens.

Revision: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None
kind = "expand"

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("client_secrets", sa.Column("last_used_at", INSTANT, nullable=True))
    op.add_column("grants", sa.Column("last_used_at", INSTANT, nullable=True))
    op.add_column(
        "clients",
        sa.Column("rotates_refresh_tokens", sa.Boolean(), nullable=False, server_default=sa.true()),
    )


def downgrade() -> None:
    op.drop_column("clients", "rotates_refresh_tokens")
    op.drop_column("grants", "last_used_at")
    op.drop_column("client_secrets", "last_used_at")
