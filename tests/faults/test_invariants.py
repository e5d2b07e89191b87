"""The checker finds what it is for: each invariant is broken by hand in a copy of a sound database."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from http.client import HTTPMessage

import pytest

from authserver.testing.server import Server
from tests.faults.conftest import Answer
from tests.faults.invariants import Check, Disturbance
from tests.faults.ledger import Ledger

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


@pytest.mark.parametrize(
    ("first", "refused", "is_excused"),
    [
        ((0, 1), (1, 9), False),
        ((0, 1), (2, 10), True),
        ((11, 12), (13, 14), True),
        ((0, 1), (30, 31), True),
        ((20, 21), (22, 23), True),
        ((21, 22), (23, 24), False),
    ],
    ids=["before", "as it begins", "within", "begun before", "begun at its end", "begun after it"],
)
@pytest.mark.parametrize("faulty", ["sqlite"], indirect=True)
def test_a_disturbance_excuses_what_was_under_way_and_nothing_else(
    faulty, tmp_path, first, refused, is_excused
):
    """Of a disturbance from 10 to 20: a story is excused if some of it was within, be it between two of its requests."""
    ledger, headers = Ledger(tmp_path / "ledger.jsonl"), HTTPMessage()
    for status, (began, ended) in ((200, first), (400, refused)):
        step = ledger.step("refresh", 1, {}, lambda status=status: Answer(status, headers, b"", 0.0))
        step.began, step.ended = began, ended
    ledger.close()
    lines = list(Check(faulty.server, ledger, [Disturbance(10, 20)]).answers_were_expected())
    assert [line.partition(":")[0] for line in lines] == ([] if is_excused else ["step 2"])
