"""Find what one user granted to one client, however many grants either of them has.

Revision: 0008
"""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None
kind = "expand"


def upgrade() -> None:
    op.create_index("ix_grants_user_id_client_id", "grants", ["user_id", "client_id"])
    op.drop_index("ix_grants_user_id", "grants")


def downgrade() -> None:
    op.create_index("ix_grants_user_id", "grants", ["user_id"])
    op.drop_index("ix_grants_user_id_client_id", "grants")
