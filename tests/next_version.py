"""What the next version would bring: a copy of the migrations with more of them, so that this version is the one before."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from authserver.storage import migrate

EXPAND = """
def upgrade():
    op.create_table("novelties", sa.Column("name", sa.Text(), primary_key=True))
    op.add_column("clients", sa.Column("novelty", sa.Text(), nullable=True))
"""
INDEX = """
transactional = False

def upgrade():
    op.execute("DROP INDEX IF EXISTS ix_clients_novelty")
    op.create_index("ix_clients_novelty", "clients", ["novelty"], postgresql_concurrently=True)
"""
BACKFILL = """
from authserver.storage.migrate import in_batches

transactional = False
STATEMENT = (
    "UPDATE clients SET novelty = 'known' WHERE client_id IN "
    "(SELECT client_id FROM clients WHERE novelty IS NULL LIMIT :batch)"
)

def upgrade():
    in_batches(op.get_bind(), STATEMENT, "clients", batch=1)
"""
CONTRACT = """
def upgrade():
    op.drop_table("generations")
"""
KINDS = {EXPAND: "expand", INDEX: "expand", BACKFILL: "backfill", CONTRACT: "contract"}


def migrations(folder: Path, texts: Sequence[str]) -> Path:
    """The folder of migrations of a version that has these after those of this version."""
    target = folder / f"migrations-{len(texts)}"
    shutil.copytree(migrate.migrations_folder(), target, ignore=shutil.ignore_patterns("__pycache__"))
    before = migrate.head()
    for text in texts:
        number = f"{int(before) + 1:04d}"
        head = [
            f'"""Migration {number} of the next version."""',
            "import sqlalchemy as sa",
            "from alembic import op",
            f"revision = {number!r}",
            f"down_revision = {before!r}",
            "branch_labels = depends_on = None",
            f"kind = {KINDS[text]!r}",
        ]
        (target / "versions" / f"{number}_next.py").write_text("\n".join(head) + text)
        before = number
    return target
