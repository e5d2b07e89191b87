"""Find the newest grants, all and those of one client, without reading the others.

Revision: 0022
"""

from __future__ import annotations

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None
kind = "expand"


def upgrade() -> None:
    op.create_index("ix_grants_client_id_created_at", "grants", ["client_id", "created_at"])
    op.create_index("ix_grants_created_at", "grants", ["created_at"])
    op.drop_index("ix_grants_client_id", "grants")


def downgrade() -> None:
    op.create_index("ix_grants_client_id", "grants", ["client_id"])
    op.drop_index("ix_grants_created_at", "grants")
    op.drop_index("ix_grants_client_id_created_at", "grants")
