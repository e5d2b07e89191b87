"""Find refusals by their time: they are deleted long before other events.

Revision: 0015
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None
kind = "expand"

REFUSED = sa.text(
    "type IN ('authorization.refused', 'password.refused', 'registration.refused', 'request.failed', "
    "'request.refused', 'sign_in.refused', 'token.refused')"
)


def upgrade() -> None:
    op.create_index("ix_events_refusals_at", "events", ["at"], sqlite_where=REFUSED, postgresql_where=REFUSED)


def downgrade() -> None:
    op.drop_index("ix_events_refusals_at", "events")
