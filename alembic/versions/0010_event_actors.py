"""Keep with each event who did it, and the network address that the request came from.

Revision: 0010
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None
kind = "expand"


def upgrade() -> None:
    # Of earlier events nobody knows.
    op.add_column("events", sa.Column("actor", sa.Text(), nullable=False, server_default="unknown"))
    op.add_column("events", sa.Column("source", sa.Text(), nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("events", "source")
    op.drop_column("events", "actor")
