"""Know which grant another one was derived from, so that both end together.

Revision: 0026
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None
kind = "expand"


def upgrade() -> None:
    op.add_column("grants", sa.Column("parent_id", sa.Text, nullable=True))


def downgrade() -> None:
    # Not by a copy of the table: with the old one SQLite would delete the tokens of its grants.
    op.drop_column("grants", "parent_id")
