"""Keep small records with an end in a table of their own, and every token with a grant.

What was used before the upgrade stays used. Where an answered request led is not taken along: it was needed for ten
seconds only.

Revision: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None
kind = "contract"

INSTANT = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(JSONB(), "postgresql")
COMMON = ("digest", "client_id", "created_at", "expires_at", "claimed_at", "details")
TOKENS = sa.table("tokens", *map(sa.column, ("kind", "scopes", "resources", "failures", *COMMON)))
KEPT = sa.table("kept", *map(sa.column, ("kind", *COMMON)))


def upgrade() -> None:
    op.create_table(
        "kept",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=True),
        sa.Column("grant_id", sa.Text(), nullable=True),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.Column("claimed_at", INSTANT, nullable=True),
        sa.Column("details", JSON, nullable=False),
        sa.ForeignKeyConstraint(
            ["grant_id"], ["grants.grant_id"], name="fk_kept_grant_id_grants", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("kind", "digest", name="pk_kept"),
    )
    used = sa.select(sa.literal("used"), *(TOKENS.c[name] for name in COMMON)).where(
        TOKENS.c.kind == "request"
    )
    op.execute(KEPT.insert().from_select(["kind", *COMMON], used))
    op.execute(TOKENS.delete().where(TOKENS.c.kind == "request"))
    op.create_index("ix_kept_expires_at", "kept", ["expires_at"])
    _create_index("ix_kept_grant_id", "kept", "grant_id", "grant_id IS NOT NULL")
    op.drop_index("ix_tokens_disposable_expires_at", "tokens")
    _grant_id_may_be_null(False)
    _create_index("ix_tokens_access_expires_at", "tokens", "expires_at", "kind = 'access'")


def downgrade() -> None:
    op.drop_index("ix_tokens_access_expires_at", "tokens")
    _grant_id_may_be_null(True)
    columns = ["kind", "scopes", "resources", "failures", *COMMON]
    values = (sa.literal("request"), sa.literal(""), sa.literal(""), sa.literal(0))
    used = sa.select(*values, *(KEPT.c[name] for name in COMMON)).where(KEPT.c.kind == "used")
    op.execute(TOKENS.insert().from_select(columns, used))
    _create_index("ix_tokens_disposable_expires_at", "tokens", "expires_at", "kind IN ('access', 'request')")
    op.drop_table("kept")


def _grant_id_may_be_null(nullable: bool) -> None:
    with op.batch_alter_table("tokens") as table:
        table.alter_column("grant_id", existing_type=sa.Text(), nullable=nullable)


def _create_index(name: str, table: str, column: str, condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, table, [column], sqlite_where=where, postgresql_where=where)
