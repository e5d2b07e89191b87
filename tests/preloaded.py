"""What the processes of `tests.processes` are forked from: everything is imported, and one application was made.

So a new process has what each process works out once: the statements, the types of settings, the entry points.
"""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from tempfile import TemporaryDirectory

from authserver import app
from authserver.plugins.loading import GROUP
from authserver.storage import migrate
from authserver.testing.server import SETTINGS

for name in (
    "psycopg",
    "sqlalchemy.dialects.postgresql.psycopg",
    "waitress",
    "pyramid.scripts.pserve",
    "authserver.cli",
):
    importlib.import_module(name)
for point in entry_points(group=GROUP):
    point.load()

with TemporaryDirectory() as folder:
    ini = {**SETTINGS, "authserver.database_url": f"sqlite:///{folder}/authserver.db"}
    migrate.upgrade(ini["authserver.database_url"])
    app.start(ini).registry.application.close()
