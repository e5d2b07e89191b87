"""Index what clean-up looks for, and let one process at a time do it.

Revision: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None
kind = "expand"

PARTIAL = (
    ("ix_tokens_disposable_expires_at", "tokens", "expires_at", "kind IN ('access', 'request')"),
    ("ix_client_secrets_expires_at", "client_secrets", "expires_at", "expires_at IS NOT NULL"),
    ("ix_clients_self_registered_created_at", "clients", "created_at", "registered_by = 'self'"),
)


def upgrade() -> None:
    op.create_table(
        "leases",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_leases"),
    )
    op.drop_index("ix_tokens_expires_at", "tokens")
    for name, table, column, condition in PARTIAL:
        where = sa.text(condition)
        op.create_index(name, table, [column], sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    for name, table, _, _ in PARTIAL:
        op.drop_index(name, table)
    op.create_index("ix_tokens_expires_at", "tokens", ["expires_at"])
    op.drop_table("leases")
