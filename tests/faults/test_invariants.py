"""The checker finds what it is for: each invariant is broken by hand in a copy of a sound database."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing

import pytest

from authserver.testing.server import Server
from tests.faults.invariants import Check

LIVE = "kind = 'refresh' AND claimed_at IS NULL"
USED = "kind = 'refresh' AND claimed_at IS NOT NULL"
BREAKS = {
    "I1": f"UPDATE tokens SET kind = 'code' WHERE rowid = (SELECT min(rowid) FROM tokens WHERE {LIVE})",
    "I2": f"UPDATE tokens SET claimed_at = NULL WHERE rowid = (SELECT min(rowid) FROM tokens WHERE {USED})",
    "I3": f"DELETE FROM tokens WHERE rowid = (SELECT max(rowid) FROM tokens WHERE {LIVE})",
    "I4": "UPDATE grants SET revoked_at = NULL",
    "I5": "UPDATE tokens SET claimed_at = NULL WHERE kind = 'code'",
    "I6": "UPDATE tokens SET scopes = 'admin' WHERE rowid = (SELECT max(rowid) FROM tokens)",
    "I7": "UPDATE tokens SET failures = 0",
    "I8": "UPDATE events SET reason = 'other' WHERE number = 9",
    "I10": "DELETE FROM grants WHERE rowid = (SELECT max(rowid) FROM grants)",
}


@pytest.fixture(scope="module")
def told(faulty):
    """What clients did at two sound processes until each kind of step was there."""
    wanted = {"redeem", "refresh", "revoke", "wrong-proof", "replayed-code", "sign-out"}
    with faulty.load(pause=0, often=4) as load:
        end = time.monotonic() + 30
        while not wanted <= {step.name for step in load.ledger.steps()} and time.monotonic() < end:
            time.sleep(0.1)
    check = Check(faulty.server, load.ledger)
    assert list(check.broken()) == []
    return faulty, load.ledger


@pytest.mark.parametrize("faulty", ["sqlite"], indirect=True)
@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_invariant_is_found(told, name, tmp_path):
    faulty, ledger = told
    copy = tmp_path / "copy.db"
    with (
        closing(sqlite3.connect(faulty.folder / "authserver.db")) as source,
        closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)
        target.execute(BREAKS[name])
        target.commit()
    server = Server(f"sqlite:///{copy}")
    try:
        assert name in {line.partition(":")[0] for line in Check(server, ledger).broken()}
    finally:
        server.close()
