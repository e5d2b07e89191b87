"""Remember with a consent what a client that is known by its address said of itself.

Revision: 0016
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None
kind = "expand"

JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    op.add_column("consents", sa.Column("seen", JSON, nullable=False, server_default="{}"))


def downgrade() -> None:
    op.drop_column("consents", "seen")
