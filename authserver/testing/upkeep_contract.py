"""The part of the contract of stores that is about clean-up: its batches and its lease (`store_contract`)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from authserver.engine.count_records import Gauge, Span, Step
from authserver.engine.ports import Storage
from authserver.engine.records import Client, ClientSecret, EventType, RegisteredBy, TokenKind
from authserver.engine.upkeep_records import Disposable
from authserver.testing.records import (
    NOW,
    a_client,
    a_consent,
    a_count,
    a_grant,
    a_kept_record,
    a_session,
    a_token,
    a_user,
    an_event,
)

SECOND, DAY = timedelta(seconds=1), timedelta(days=1)


def add(storage: Storage, **records: list[Any]) -> None:
    """Add records to the stores of their kinds."""
    with storage.begin() as stores:
        for name in ("users", "clients", "grants", "tokens", "sessions", "events", "consents"):
            for record in records.get(name, []):
                store = getattr(stores, name)
                (store.remember if name == "consents" else store.add)(record)


def remove(
    storage: Storage, kind: Disposable, before: datetime = NOW, *, limit: int = 100
) -> list[tuple[int, int]]:
    """(removed, dependents) of each batch until nothing is left to remove."""
    batches, start = [], None
    while True:
        with storage.begin() as stores:
            batch = stores.upkeep.remove(kind, before, start, limit=limit)
        batches.append((batch.removed, batch.dependents))
        if batch.next is None:
            return batches
        assert len(batches) < 1000, "it goes on for ever"
        start = batch.next


def count(storage: Storage, kind: Disposable, *, limit: int = 100) -> int:
    with storage.begin() as stores:
        return stores.upkeep.count(kind, NOW, limit=limit)


def test_access_tokens_go_by_their_own_time_and_nothing_else_does(storage: Storage) -> None:
    """R-10, T116: while their grant is live, codes and refresh tokens stay, used or not, at any age."""
    ended = [
        a_token(kind=kind, digest=bytes([number]), expires_at=NOW - SECOND, claimed_at=claimed)
        for number, (kind, claimed) in enumerate(
            (kind, claimed) for kind in TokenKind for claimed in (None, NOW - DAY)
        )
    ]
    alive = [a_token(kind=kind, digest=b"alive", expires_at=NOW + SECOND) for kind in TokenKind]
    add(storage, clients=[a_client()], grants=[a_grant()], tokens=ended + alive)
    assert count(storage, Disposable.TOKENS) == 2
    assert remove(storage, Disposable.TOKENS) == [(2, 0)]
    with storage.begin() as stores:
        for token in ended:
            stays = token.kind in (TokenKind.CODE, TokenKind.REFRESH)
            assert (stores.tokens.find(token.kind, token.digest) is not None) is stays
        assert all(stores.tokens.find(token.kind, token.digest) for token in alive)


def test_small_records_are_deleted_when_they_have_expired_or_with_their_grant(storage: Storage) -> None:
    """R-10: of every kind, claimed or not."""
    add(storage, clients=[a_client()], grants=[a_grant(expires_at=NOW - DAY)])
    expired = [
        a_kept_record(kind=kind, expires_at=NOW - SECOND, claimed_at=claimed)
        for kind, claimed in (("one", None), ("two", NOW - DAY))
    ]
    alive = a_kept_record(kind="alive", expires_at=NOW + SECOND, claimed_at=NOW - DAY)
    of_grant = a_kept_record(kind="of a grant", grant_id="grant_1", expires_at=NOW + DAY)
    with storage.begin() as stores:
        assert all([stores.kept.add_once(record) for record in (*expired, alive, of_grant)])
    assert count(storage, Disposable.KEPT_RECORDS) == 2
    assert remove(storage, Disposable.KEPT_RECORDS) == [(2, 0)]
    assert remove(storage, Disposable.GRANTS) == [(1, 0)]
    with storage.begin() as stores:
        assert not any(stores.kept.find(record.kind, record.digest) for record in (*expired, of_grant))
        assert stores.kept.find(alive.kind, alive.digest) == alive


def test_what_ends_at_the_very_moment_goes(storage: Storage) -> None:
    add(storage, users=[a_user()], sessions=[a_session(expires_at=NOW)])
    assert remove(storage, Disposable.SESSIONS, NOW - SECOND) == [(0, 0)]
    assert remove(storage, Disposable.SESSIONS) == [(1, 0)]


def test_sessions_that_go_are_told(storage: Storage) -> None:
    """OUT-10: expired and unused sessions, each once, as they were stored."""
    add(
        storage,
        users=[a_user()],
        sessions=[
            over := a_session(digest=b"over", expires_at=NOW - SECOND, last_seen_at=NOW + SECOND),
            idle := a_session(digest=b"idle", expires_at=NOW + DAY, last_seen_at=NOW),
            a_session(digest=b"alive", expires_at=NOW + DAY, last_seen_at=NOW + SECOND),
        ],
    )
    for kind, session in ((Disposable.SESSIONS, over), (Disposable.IDLE_SESSIONS, idle)):
        assert count(storage, kind) == 1
        with storage.begin() as stores:
            assert list(stores.upkeep.remove(kind, NOW, limit=100).sessions) == [session]
        with storage.begin() as stores:
            assert list(stores.upkeep.remove(kind, NOW, limit=100).sessions) == []
    with storage.begin() as stores:
        (alive,) = stores.sessions.list("user_ada", NOW, NOW)
    assert alive.digest == b"alive"


def test_an_ended_grant_goes_with_its_codes_and_tokens(storage: Storage) -> None:
    """R-10, T116: only its end counts, not whether it was revoked; tokens of other grants are not touched."""
    grants = [
        a_grant(grant_id="ended", expires_at=NOW - SECOND),
        a_grant(grant_id="ended_revoked", expires_at=NOW - DAY, revoked_at=NOW - 2 * DAY),
        a_grant(grant_id="alive", expires_at=NOW + SECOND),
        # Evidence: a token that is presented again must still be recognised as revoked.
        a_grant(grant_id="revoked", expires_at=NOW + SECOND, revoked_at=NOW - DAY),
    ]
    tokens = [
        a_token(kind=kind, digest=grant.grant_id.encode(), grant_id=grant.grant_id, expires_at=NOW - DAY)
        for grant in grants
        for kind in (TokenKind.CODE, TokenKind.REFRESH)
    ]
    add(storage, clients=[a_client()], grants=grants, tokens=tokens)
    assert count(storage, Disposable.GRANTS) == 2
    assert remove(storage, Disposable.GRANTS) == [(2, 4)]
    with storage.begin() as stores:
        assert {grant.grant_id for grant in grants if stores.grants.find(grant.grant_id)} == {
            "alive",
            "revoked",
        }
        for token in tokens:
            found = stores.tokens.find(token.kind, token.digest)
            assert (found is not None) is (token.grant_id in ("alive", "revoked"))


def test_sessions_events_and_secrets_go_by_their_time(storage: Storage) -> None:
    """R-10; a secret without an end never does."""
    secrets = tuple(
        ClientSecret(digest=str(end).encode(), key_id="k", created_at=NOW - DAY, expires_at=end)
        for end in (NOW - SECOND, NOW + 100 * 365 * DAY, None)
    )
    add(
        storage,
        users=[a_user()],
        clients=[a_client(secrets=secrets)],
        sessions=[a_session(digest=b"ended", expires_at=NOW - SECOND), a_session(digest=b"alive")],
        events=[an_event(at=NOW - SECOND), an_event(event_id="stays", at=NOW + SECOND)],
    )
    for kind in (Disposable.SESSIONS, Disposable.EVENTS, Disposable.CLIENT_SECRETS):
        assert count(storage, kind) == 1
        assert remove(storage, kind) == [(1, 0)]
        assert count(storage, kind) == 0
    with storage.begin() as stores:
        assert stores.sessions.find(b"alive", NOW, NOW)
        assert [event.event_id for event in stores.events.since(NOW - DAY)] == ["stays"]
        client = stores.clients.find("reports", NOW)
        assert client is not None
        assert {secret.digest for secret in client.secrets} == {secret.digest for secret in secrets[1:]}


def test_issuances_go_by_a_time_of_their_own_and_other_events_stay(storage: Storage) -> None:
    add(storage, events=[an_event(event_id=kind, type=kind, at=NOW - SECOND) for kind in EventType])
    assert count(storage, Disposable.ISSUANCES) == 2
    assert remove(storage, Disposable.ISSUANCES) == [(2, 0)]
    with storage.begin() as stores:
        left = {event.event_id for event in stores.events.since(NOW - DAY)}
    assert left == {*EventType} - {EventType.CODE_ISSUED, EventType.TOKEN_ISSUED}


def test_refusals_go_by_a_time_of_their_own_and_other_events_stay(storage: Storage) -> None:
    """The refusal of a person is a decision, and stays, too."""
    others = [kind for kind in EventType if not kind.is_refusal]
    add(
        storage,
        events=[
            *(an_event(event_id=kind, type=kind, at=NOW - SECOND) for kind in EventType),
            an_event(event_id="late", type=EventType.TOKEN_REFUSED, at=NOW + SECOND),
        ],
    )
    refused = len(EventType) - len(others)
    assert count(storage, Disposable.REFUSALS) == refused
    assert remove(storage, Disposable.REFUSALS) == [(refused, 0)]
    with storage.begin() as stores:
        left = {event.event_id for event in stores.events.since(NOW - DAY)}
    assert left == {*others, "late"}
    assert EventType.CONSENT_REFUSED in left


def test_counts_go_by_their_time_and_those_of_hours_by_one_of_their_own(storage: Storage) -> None:
    old, young = NOW - SECOND, NOW + SECOND
    ever = (NOW - DAY, NOW + DAY)
    with storage.begin() as stores:
        for at in (old, young):
            stores.statistics.add(
                [a_count(step=step, at=at, client_id=name) for step in Step for name in ("", "a")]
            )
            for step in Step:
                stores.statistics.note_sample(step, at, {Gauge.PEOPLE: 1})

    def left(step: Step) -> tuple[int, int]:
        span = Span(step=step, since=ever[0], until=ever[1])
        with storage.begin() as stores:
            counts = stores.statistics.totals([span], frozenset(EventType), client_ids=["", "a"])
            return sum(each.count for each in counts), len(stores.statistics.samples(Gauge.PEOPLE, span))

    assert count(storage, Disposable.HOURLY_COUNTS) == 2
    assert remove(storage, Disposable.HOURLY_COUNTS) == [(2, 0)]
    assert [left(step) for step in Step] == [(2, 2), (4, 2), (4, 2)]
    assert count(storage, Disposable.COUNTS) == 4
    assert remove(storage, Disposable.COUNTS, limit=3) == [(3, 0), (1, 0)]
    assert [left(step) for step in Step] == [(2, 2)] * 3
    assert count(storage, Disposable.SAMPLES) == 3
    assert remove(storage, Disposable.SAMPLES) == [(3, 0)]
    assert [left(step) for step in Step] == [(2, 1)] * 3


def self_registered(client_id: str, **changes: Any) -> Client:
    return a_client(
        client_id=client_id, registered_by=RegisteredBy.SELF, **{"created_at": NOW - DAY, **changes}
    )


def test_an_idle_client_that_registered_itself_goes_with_all_that_is_its_own(storage: Storage) -> None:
    """K-09, T073: no secret, origin or consent is left; a client that is in use or was added by an operator stays."""
    used, unused = (
        ClientSecret(digest=b"digest", key_id="k", created_at=NOW - DAY, last_used_at=last)
        for last in (NOW + SECOND, NOW - SECOND)
    )
    clients = [
        self_registered("idle", secrets=(unused,)),
        self_registered("with_grant"),
        self_registered("used_its_secret", secrets=(used,)),
        self_registered("used", last_used_at=NOW + SECOND),
        self_registered("young", created_at=NOW + SECOND),
        a_client(client_id="of_an_operator", created_at=NOW - DAY),
    ]
    add(
        storage,
        users=[a_user()],
        clients=clients,
        grants=[a_grant(client_id="with_grant", expires_at=NOW - DAY)],
        consents=[a_consent(client_id=client.client_id) for client in clients],
    )
    assert count(storage, Disposable.CLIENTS) == 1
    assert remove(storage, Disposable.CLIENTS) == [(1, 1)]
    with storage.begin() as stores:
        assert {client.client_id for client in stores.clients.list(NOW)} == {
            "with_grant",
            "used_its_secret",
            "used",
            "young",
            "of_an_operator",
        }
        assert stores.consents.find("user_ada", "idle") is None
        assert stores.consents.find("user_ada", "with_grant") is not None


def test_a_client_that_was_never_used_goes_by_a_time_of_its_own(storage: Storage) -> None:
    """K-09: others that registered themselves stay, however long ago they were used."""
    clients = [
        self_registered("unused"),
        self_registered("with_token", initial_token="initial_1"),
        self_registered("used_long_ago", last_used_at=NOW - 100 * DAY),
        self_registered("with_grant"),
        self_registered("young", created_at=NOW + SECOND),
        a_client(client_id="of_an_operator", created_at=NOW - DAY),
    ]
    add(storage, clients=clients, grants=[a_grant(client_id="with_grant")])
    assert count(storage, Disposable.UNUSED_CLIENTS) == 2
    assert remove(storage, Disposable.UNUSED_CLIENTS) == [(2, 0)]
    with storage.begin() as stores:
        assert {client.client_id for client in stores.clients.list(NOW)} == {
            client.client_id for client in clients[2:]
        }
    assert remove(storage, Disposable.CLIENTS) == [(1, 0)]


@pytest.mark.parametrize(
    "kind", [Disposable.TOKENS, Disposable.KEPT_RECORDS, Disposable.SESSIONS, Disposable.EVENTS]
)
def test_a_batch_is_bounded_and_the_next_one_goes_on(storage: Storage, kind: Disposable) -> None:
    """T116: oldest first, and rows with the same time are not lost between two batches."""
    times = [NOW - timedelta(minutes=minutes) for minutes in (9, 5, 5, 5, 5, 5, 1)]
    add(
        storage,
        users=[a_user()],
        clients=[a_client()],
        grants=[a_grant()],
        tokens=[
            a_token(kind=TokenKind.ACCESS, digest=bytes([number]), expires_at=time)
            for number, time in enumerate(times)
        ],
        sessions=[a_session(digest=bytes([number]), expires_at=time) for number, time in enumerate(times)],
        events=[an_event(at=time) for time in times],
    )
    with storage.begin() as stores:
        for number, time in enumerate(times):
            assert stores.kept.add_once(a_kept_record(digest=bytes([number]), expires_at=time))
    assert count(storage, kind, limit=3) == 3
    assert remove(storage, kind, limit=3) == [(3, 0), (3, 0), (1, 0)]


# ---- the lease ----------------------------------------------------------------------------------------


def take(storage: Storage, holder: str, at: datetime = NOW) -> bool:
    """Whether the holder gets the lease for a minute."""
    with storage.begin() as stores:
        return stores.upkeep.take_lease("work", holder, at, at + 60 * SECOND)


def test_a_lease_is_one_holders_until_it_runs_out(storage: Storage) -> None:
    assert take(storage, "one")
    assert not take(storage, "two")
    assert not take(storage, "two", NOW + 59 * SECOND)
    assert take(storage, "two", NOW + 60 * SECOND)
    assert not take(storage, "one", NOW + 61 * SECOND)


def test_its_holder_prolongs_it(storage: Storage) -> None:
    assert take(storage, "one")
    assert take(storage, "one", NOW + 30 * SECOND)
    assert not take(storage, "two", NOW + 61 * SECOND)
    assert take(storage, "two", NOW + 90 * SECOND)


def test_it_can_be_given_back_by_its_holder_alone(storage: Storage) -> None:
    take(storage, "one")
    for holder, is_free in (("two", False), ("one", True)):
        with storage.begin() as stores:
            stores.upkeep.end_lease("work", holder)
        assert take(storage, "three") is is_free


def test_a_lease_from_before_the_clock_was_set_back_is_free(storage: Storage) -> None:
    """T150: otherwise clean-up would pause for an hour after its holder died."""
    assert take(storage, "one", NOW + 3600 * SECOND)
    assert take(storage, "two", NOW)
    # The clocks of two machines always differ a little.
    assert take(storage, "one", NOW + 90 * SECOND)
    assert not take(storage, "two", NOW + 60 * SECOND)
