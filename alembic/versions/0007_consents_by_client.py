"""Find the consents to a client, so that they go with it.

Revision: 0007
"""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None
kind = "expand"


def upgrade() -> None:
    op.create_index("ix_consents_client_id_user_id", "consents", ["client_id", "user_id"])


def downgrade() -> None:
    op.drop_index("ix_consents_client_id_user_id", "consents")
