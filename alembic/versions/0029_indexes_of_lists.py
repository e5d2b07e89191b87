"""List disabled people and initial access tokens quickly.

Revision: 0029
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None
kind = "expand"
transactional = False


def upgrade() -> None:
    op.execute("DROP INDEX IF EXISTS ix_users_disabled_username")
    is_disabled = sa.text("disabled_at IS NOT NULL")
    op.create_index(
        "ix_users_disabled_username",
        "users",
        ["username"],
        sqlite_where=is_disabled,
        postgresql_where=is_disabled,
        postgresql_concurrently=True,
    )
    op.execute("DROP INDEX IF EXISTS ix_initial_tokens_created_at_token_id")
    op.create_index(
        "ix_initial_tokens_created_at_token_id",
        "initial_tokens",
        ["created_at", "token_id"],
        postgresql_concurrently=True,
    )


def downgrade() -> None:
    op.drop_index("ix_initial_tokens_created_at_token_id", "initial_tokens")
    op.drop_index("ix_users_disabled_username", "users")
