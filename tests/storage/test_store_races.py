"""What many do at the same moment, on both databases."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
import transaction

from authserver.storage.database import Database
from authserver.testing.records import (
    NOW,
    a_client,
    a_grant,
    a_kept_record,
    a_resource,
    a_signing_key,
    a_token,
    an_event,
    an_initial_token,
)
from authserver.testing.threads import at_once

LATER = NOW + timedelta(seconds=5)


def test_of_32_who_claim_a_code_one_gets_it(database: Database) -> None:
    """R-07, G-04: the losers wait for the winner's commit and then find the code claimed."""
    with database.begin() as stores:
        stores.grants.add(a_grant())
        stores.tokens.add(a_token())

    def redeem(number: int) -> bool:
        manager = transaction.TransactionManager(explicit=True)
        with manager:
            stores = database.for_transaction(manager)
            found = stores.tokens.find(a_token().kind, a_token().digest)
            assert found is not None
            won = stores.tokens.claim(found.token, LATER, successor_digest=str(number).encode())
            if won:
                stores.tokens.add(a_token(digest=f"access {number}".encode()))
            return won

    winners = at_once(32, redeem)
    assert Counter(winners) == {True: 1, False: 31}
    with database.begin() as stores:
        found = stores.tokens.find(a_token().kind, a_token().digest)
        assert found is not None
        assert found.token.successor_digest == str(winners.index(True)).encode()


def test_a_claim_that_is_rolled_back_is_free_again(database: Database) -> None:
    """R-07: whoever waited for a claim that came to nothing gets the code."""
    with database.begin() as stores:
        stores.grants.add(a_grant())
        stores.tokens.add(a_token())
    claimed = threading.Event()

    def first() -> None:
        with database.begin() as stores:
            assert stores.tokens.claim(a_token(), LATER)
            claimed.set()
            threading.Event().wait(0.2)  # long enough for the other to stand in line
            raise RuntimeError("the first one fails")

    def second() -> bool:
        claimed.wait(timeout=10)
        with database.begin() as stores:
            return stores.tokens.claim(a_token(), LATER)

    with ThreadPoolExecutor(2) as threads:
        failed, won = threads.submit(first), threads.submit(second)
        assert isinstance(failed.exception(timeout=30), RuntimeError)
        assert won.result(timeout=30)


def test_racers_that_read_and_then_write_wait_for_each_other(database: Database) -> None:
    """T110: on SQLite nobody is told "database is locked" at once."""
    with database.begin() as stores:
        stores.clients.add(a_client())

    def race(number: int) -> None:
        for turn in range(10):
            manager = transaction.TransactionManager(explicit=True)
            with manager:
                stores = database.for_transaction(manager)
                assert stores.clients.find("reports", NOW)
                stores.events.add(an_event(event_id=f"{number}-{turn}"))
                assert stores.clients.find("reports", NOW)

    at_once(8, race)
    with database.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM events").scalar_one() == 80


def test_of_8_first_signing_keys_one_is_kept(database: Database) -> None:
    """T113."""

    def start(number: int) -> bool:
        with database.begin() as stores:
            return stores.signing_keys.add(a_signing_key(kid=f"key-{number}"))

    kept = at_once(8, start)
    assert Counter(kept) == {True: 1, False: 7}
    with database.begin() as stores:
        assert [key.kid for key in stores.signing_keys.list()] == [f"key-{kept.index(True)}"]


def test_of_16_answers_to_one_authorization_request_one_counts(database: Database) -> None:
    """R-07."""

    def answer(_number: int) -> bool:
        with database.begin() as stores:
            return stores.kept.add_once(a_kept_record())

    assert Counter(at_once(16, answer)) == {True: 1, False: 15}


def test_of_16_who_claim_a_small_record_one_gets_it(database: Database) -> None:
    """R-07."""
    with database.begin() as stores:
        assert stores.kept.add_once(a_kept_record())

    def claim(_number: int) -> bool:
        with database.begin() as stores:
            return stores.kept.claim(a_kept_record(), LATER)

    assert Counter(at_once(16, claim)) == {True: 1, False: 15}


def test_of_16_who_use_an_initial_access_token_as_many_do_as_may(database: Database) -> None:
    """R-07: and what is rolled back is no use."""
    with database.begin() as stores:
        stores.initial_tokens.add(an_initial_token(uses=3))
    with pytest.raises(ZeroDivisionError), database.begin() as stores:
        assert stores.initial_tokens.claim("initial_1", LATER)
        raise ZeroDivisionError

    def claim(_number: int) -> bool:
        with database.begin() as stores:
            return stores.initial_tokens.claim("initial_1", LATER)

    assert Counter(at_once(16, claim)) == {True: 3, False: 13}


def test_who_holds_registrations_counts_what_others_added(database: Database) -> None:
    """T131: so that a bound on clients is kept by simultaneous registrations."""

    def add(number: int) -> bool:
        with database.begin() as stores:
            stores.clients.hold_registrations()
            if stores.clients.count_of_policy("partners") >= 3:
                return False
            stores.clients.add(a_client(client_id=f"c{number}", registration_policy="partners"))
            return True

    assert Counter(at_once(12, add)) == {True: 3, False: 9}


def test_of_16_who_change_a_small_record_as_they_read_it_one_does(database: Database) -> None:
    """R-07: a count that all of them raise is not lost, because the others are told."""
    with database.begin() as stores:
        assert stores.kept.add_once(a_kept_record(details={"polls": 0}))

    def poll(_number: int) -> bool:
        with database.begin() as stores:
            before = a_kept_record(details={"polls": 0})
            return stores.kept.change(before, replace(before, details={"polls": 1}))

    assert Counter(at_once(16, poll)) == {True: 1, False: 15}


def test_no_grant_outlives_the_removal_of_its_resource(database: Database) -> None:
    """L-08: what is granted beside the removal is found after it, or refused."""
    with database.begin() as stores:
        stores.resources.add(a_resource())
    form = a_resource().form

    def work(number: int) -> str:
        if number == 8:
            with database.begin() as stores:
                stores.resources.remove(form)
            with database.begin() as stores:
                found = stores.grants.page(limit=100)
                assert all([stores.grants.revoke(each.grant_id, NOW, "removed") for each in found])
            return "removed"
        with database.begin() as stores:
            if not stores.resources.hold(form):
                return "refused"
            stores.grants.add(a_grant(grant_id=f"grant_{number}"))
            return "granted"

    done = Counter(at_once(16, work))
    assert done["removed"] == 1
    with database.begin() as stores:
        grants = stores.grants.page(limit=100)
    assert len(grants) == done["granted"]
    assert [each.grant_id for each in grants if each.revoked_at is None] == []


def test_a_grant_that_is_widened_narrowed_and_touched_at_once_keeps_all_of_it(database: Database) -> None:
    """I-19, L-08: each of these changes a part of it, and none undoes another."""
    both = ("https://api.example", "https://files.example")
    with database.begin() as stores:
        stores.grants.add(a_grant(scopes=("read",), resources=both))

    def work(number: int) -> bool:
        for _ in range(20):
            with database.begin() as stores:
                found = stores.grants.find("grant_1")
                assert found is not None
                if number == 0:
                    stores.grants.touch("grant_1", LATER)
                    return True
                if number == 1:
                    done = stores.grants.narrow(found, replace(found, resources=both[:1]))
                else:
                    done = stores.grants.widen(found, (*found.scopes, f"more-{number}"))
            if done:
                return True
        return False

    assert all(at_once(8, work))
    with database.begin() as stores:
        grant = stores.grants.find("grant_1")
    assert grant is not None
    added = {f"more-{number}" for number in range(2, 8)}
    assert (set(grant.scopes), set(grant.added_scopes)) == ({"read", *added}, added)
    assert (grant.resources, grant.last_used_at) == (both[:1], LATER)


def test_wrong_proofs_at_once_are_all_counted(database: Database) -> None:
    """T035.b."""
    with database.begin() as stores:
        stores.grants.add(a_grant())
        stores.tokens.add(a_token())

    def fail(_number: int) -> None:
        with database.begin() as stores:
            stores.tokens.note_failure(a_token(), LATER, limit=100)

    at_once(8, fail)
    with database.begin() as stores:
        found = stores.tokens.find(a_token().kind, a_token().digest)
        assert found is not None
        assert found.token.failures == 8
