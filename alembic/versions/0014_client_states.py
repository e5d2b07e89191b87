"""Keep when clients were last used, from where they registered themselves, and initial access tokens.

Revision: 0014
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None
kind = "expand"

NEVER_USED = sa.text("registered_by = 'self' AND last_used_at IS NULL")
OF_A_POLICY = sa.text("registration_policy IS NOT NULL")
INDEXES = {
    "ix_clients_never_used_registered_from": (["registered_from", "created_at"], NEVER_USED),
    "ix_clients_never_used_created_at": (["created_at"], NEVER_USED),
    "ix_clients_registration_policy": (["registration_policy"], OF_A_POLICY),
}


def upgrade() -> None:
    op.create_table(
        "initial_tokens",
        sa.Column("token_id", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("made_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("uses", sa.Integer(), nullable=True),
        sa.Column("used", sa.Integer(), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("token_id", name="pk_initial_tokens"),
        sa.UniqueConstraint("digest", name="uq_initial_tokens_digest"),
    )
    op.add_column("clients", sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("clients", sa.Column("registered_from", sa.Text(), nullable=False, server_default=""))
    op.add_column("clients", sa.Column("initial_token", sa.Text(), nullable=True))
    op.add_column("clients", sa.Column("registration_policy", sa.Text(), nullable=True))
    # Until now, grants and secrets alone said whether a client was used.
    op.execute(
        "UPDATE clients SET last_used_at = (SELECT max(at) FROM ("
        "SELECT coalesce(last_used_at, created_at) AS at FROM grants WHERE grants.client_id = clients.client_id "
        "UNION ALL SELECT last_used_at FROM client_secrets WHERE client_secrets.client_id = clients.client_id"
        ") AS uses)"
    )
    for name, (columns, condition) in INDEXES.items():
        op.create_index(name, "clients", columns, sqlite_where=condition, postgresql_where=condition)


def downgrade() -> None:
    for name in INDEXES:
        op.drop_index(name, table_name="clients")
    for column in ("registration_policy", "initial_token", "registered_from", "last_used_at"):
        op.drop_column("clients", column)
    op.drop_table("initial_tokens")
