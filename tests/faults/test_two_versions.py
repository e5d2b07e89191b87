"""F11, R-19: the next version migrates the database under load while this one serves, and this one starts anew on it.

What is run is this version's code as the one before, on the tables of a made-up next version, which expands, makes an index and
fills it in. `test_two_wheels` has two real versions.
"""

from __future__ import annotations

import time

from authserver.storage import migrate
from authserver.storage.migrate import Schema
from tests.faults.invariants import assert_hold
from tests.next_version import BACKFILL, CONTRACT, EXPAND, INDEX, migrations


def test_the_next_version_migrates_while_this_one_serves(faulty, tmp_path, report):
    database = faulty.server.application.storage
    url = database.engine.url.render_as_string(hide_password=False)
    with faulty.load() as load:
        time.sleep(0.5)
        migrate.upgrade(url, folder=migrations(tmp_path, (EXPAND, INDEX, BACKFILL)))
        assert migrate.schema(database) is Schema.AHEAD
        time.sleep(0.5)
        # As one that crashes, or is rolled back to.
        recovery = faulty.replace(faulty.processes[0])
        time.sleep(0.5)
    seen = assert_hold(faulty.server, load.ledger)
    assert not {500, 503} & set(load.ledger.statuses())
    assert max(step.seconds for step in load.ledger.steps() if step.status == 200) < 3
    report("F11 migrated under load", seen, load, recovery)

    migrate.upgrade(url, folder=migrations(tmp_path, (EXPAND, INDEX, BACKFILL, CONTRACT)))
    ready = faulty.processes[1].get("/health/ready")
    assert (ready.status, "later version" in faulty.processes[1].log()) == (503, True)
