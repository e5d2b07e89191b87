"""Say in another way which tokens the index for their end is about: SQLite compiled each look-up of a token anew.

Revision: 0018
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None
kind = "expand"

NAME = "ix_tokens_access_expires_at"


def upgrade() -> None:
    _replace_index("kind NOT IN ('code', 'refresh')")


def downgrade() -> None:
    _replace_index("kind = 'access'")


def _replace_index(condition: str) -> None:
    where = sa.text(condition)
    op.drop_index(NAME, "tokens")
    op.create_index(NAME, "tokens", ["expires_at"], sqlite_where=where, postgresql_where=where)
