"""Keep logos of clients, and under which name of the client a person agreed.

Revision: 0011
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None
kind = "expand"


def upgrade() -> None:
    op.add_column("clients", sa.Column("logo", sa.Text(), nullable=True))
    op.create_table(
        "client_logos",
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["client_id"],
            ["clients.client_id"],
            name="fk_client_logos_client_id_clients",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("client_id", name="pk_client_logos"),
    )
    op.add_column("consents", sa.Column("client_name", sa.Text(), nullable=False, server_default=""))
    # Until now no command could change a name. Clients of plugins are not kept here: of these people are asked again.
    op.execute(
        "UPDATE consents SET client_name = "
        "coalesce((SELECT name FROM clients WHERE clients.client_id = consents.client_id), '')"
    )


def downgrade() -> None:
    op.drop_column("consents", "client_name")
    op.drop_table("client_logos")
    op.drop_column("clients", "logo")
