"""A signing key's state is what the time makes of its times.

Revision: 0002
"""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None
kind = "contract"

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.drop_index("uq_signing_keys_active_algorithm", "signing_keys")
    with op.batch_alter_table("signing_keys") as table:
        table.alter_column("sealed_private_jwk", existing_type=sa.LargeBinary(), nullable=True)
        table.add_column(sa.Column("activates_at", INSTANT, nullable=True))
        table.add_column(sa.Column("retires_at", INSTANT, nullable=True))
        table.add_column(sa.Column("ends_at", INSTANT, nullable=True))
    keys = sa.table(
        "signing_keys",
        sa.column("state", sa.Text()),
        *(sa.column(name, INSTANT) for name in ("created_at", "activates_at", "retires_at", "ends_at")),
    )
    # Until now a key was made active, and stayed so.
    op.execute(keys.update().values(activates_at=keys.c.created_at))
    now = datetime.now(UTC)
    op.execute(keys.update().where(keys.c.state != "active").values(retires_at=now, ends_at=now))
    with op.batch_alter_table("signing_keys") as table:
        table.alter_column("activates_at", existing_type=INSTANT, nullable=False)
        table.drop_column("state")
    op.create_index(
        "uq_signing_keys_unreplaced_algorithm",
        "signing_keys",
        ["algorithm"],
        unique=True,
        sqlite_where=sa.text("retires_at IS NULL"),
        postgresql_where=sa.text("retires_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_index("uq_signing_keys_unreplaced_algorithm", "signing_keys")
    keys = sa.table("signing_keys", sa.column("retires_at", INSTANT), sa.column("state", sa.Text()))
    with op.batch_alter_table("signing_keys") as table:
        table.add_column(sa.Column("state", sa.String(40), nullable=False, server_default="active"))
    op.execute(keys.delete().where(keys.c.retires_at.is_not(None)))
    with op.batch_alter_table("signing_keys") as table:
        table.alter_column(
            "state", existing_type=sa.String(40), existing_server_default="active", server_default=None
        )
        table.alter_column("sealed_private_jwk", existing_type=sa.LargeBinary(), nullable=False)
        for name in ("activates_at", "retires_at", "ends_at"):
            table.drop_column(name)
    op.create_index(
        "uq_signing_keys_active_algorithm",
        "signing_keys",
        ["algorithm"],
        unique=True,
        sqlite_where=sa.text("state = 'active'"),
        postgresql_where=sa.text("state = 'active'"),
    )
