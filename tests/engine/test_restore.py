"""After a restore: what ends, what is refused by its age, and what the log of events brings back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from authserver import app
from authserver.engine.clients import secrets
from authserver.engine.context import Engine
from authserver.engine.errors import InvalidGrant, PageError
from authserver.engine.keys import signing_keys
from authserver.engine.parameters import Parameters
from authserver.engine.pending import Browser, Pending, mark_of, seal, unseal
from authserver.engine.people import account
from authserver.engine.ports import StorageUnavailable
from authserver.engine.records import EventType, KeyState
from authserver.engine.resources import described
from authserver.engine.restore import generation, lost_events
from authserver.engine.restore.generation import FollowedGeneration, replace_signing_keys
from authserver.engine.restore.lost_events import LoggedEvent, RedoOutcome, lost, read_log, redo
from authserver.engine.tokens.assertions import SKEW, single_use
from authserver.engine.tokens.once import claim, first_use, of_this_generation
from authserver.policies.events import LogEvents
from authserver.settings import AccessTokenFormat
from authserver.testing.records import (
    NOW,
    a_client,
    a_consent,
    a_grant,
    a_resource,
    a_session,
    a_token,
    a_user,
    an_event,
)
from authserver.testing.rules import over
from authserver.testing.server import SETTINGS
from authserver.testing.stores import MemoryStores

SECOND = timedelta(seconds=1)
LATER = NOW + timedelta(hours=1)
RESTORED = NOW + timedelta(hours=2)

Make = Callable[..., Engine]


@pytest.fixture
def make(memory_stores: MemoryStores) -> Make:
    """An engine at some time, over stores in memory."""
    built = app.build({**SETTINGS, "authserver.database_url": "sqlite:///never-opened.db"})
    parts = over(memory_stores, built.parts)

    def make(now: datetime = RESTORED, **changes: Any) -> Engine:
        return replace(Engine.of(parts, memory_stores, now), **changes)

    return make


@pytest.fixture
def begin(make: Make, memory_stores: MemoryStores) -> generation.Begin:
    """Engines at the time of the restore, each in a transaction of its own."""

    @contextmanager
    def begin() -> Iterator[Engine]:
        with memory_stores.begin():
            yield make()

    return begin


@pytest.mark.parametrize(
    ("restored_at", "since", "known"),
    [
        (None, NOW, True),
        (RESTORED, RESTORED - timedelta(microseconds=1), False),
        (RESTORED, RESTORED, True),
        (RESTORED, RESTORED + SECOND, True),
    ],
)
def test_what_was_made_before_the_restore_is_of_another_generation(
    make: Make, restored_at: datetime | None, since: datetime, known: bool
) -> None:
    """T149: the same for whatever is used once; and what is refused is not remembered either."""
    engine = make(restored_at=restored_at)
    assert of_this_generation(engine, since) is known
    uses = [
        first_use(engine, a_client(), "purpose", "text", since=since, until=LATER + timedelta(days=1))
        for _ in range(2)
    ]
    assert uses == [known, False]
    assert len(engine.stores.tables.kept) == known  # of the stores in memory


def test_a_pending_request_from_before_the_restore_has_expired(make: Make) -> None:
    """T149: whether it was answered since the backup, nobody knows; also after signing in anew."""
    browser = Browser(marks={"h": mark_of(make(), "h")})
    asked = int(RESTORED.timestamp())
    pending = Pending(
        handle="h", request_id="r", asked_at=asked, expires_at=asked + 600, parameters=Parameters.parse("")
    )
    sealed = seal(make(), pending)
    at_once = RESTORED.replace(microsecond=0)
    assert unseal(make(restored_at=at_once), sealed, browser) == pending
    with pytest.raises(PageError) as refused:
        unseal(make(restored_at=at_once + SECOND), sealed, browser)
    assert (refused.value.reason, refused.value.status) == ("request-expired", 400)


def claims_at(issued: datetime, **times: timedelta | None) -> dict[str, Any]:
    claims = {"iss": "https://issuer.example", "jti": "one", "exp": int((issued + 60 * SECOND).timestamp())}
    for name, offset in {"iat": timedelta(), **times}.items():
        if offset is not None:
            claims[name] = int((issued + offset).timestamp())
    return claims


@pytest.mark.parametrize(
    ("times", "first"),
    [
        ({}, SKEW),
        # The latest of what it says counts.
        ({"nbf": 5 * SECOND}, SKEW - 5 * SECOND),
        ({"iat": -60 * SECOND, "nbf": timedelta()}, SKEW),
        ({"iat": None, "nbf": timedelta()}, SKEW),
        # Made as long ago as one that ends then can be: 300 seconds before it ends.
        ({"iat": None}, SKEW + 240 * SECOND),
        ({"iat": -3600 * SECOND}, SKEW + 240 * SECOND),
    ],
    ids=["iat", "later nbf", "earlier iat", "nbf alone", "neither", "long ago"],
)
def test_an_assertion_counts_once_nobody_could_have_used_it_before_the_restore(
    make: Make, times: dict[str, timedelta | None], first: timedelta
) -> None:
    """T149, T051: its jti may have been used and forgotten, the clock of its issuer being up to 30 s ahead."""
    restored_at = RESTORED.replace(microsecond=0)
    too_early = claims_at(restored_at + first - SECOND, **times)
    in_time = claims_at(restored_at + first, **times)
    engine = make(restored_at=restored_at)
    with pytest.raises(InvalidGrant):
        use(engine, too_early)
    use(engine, in_time)
    with pytest.raises(InvalidGrant):
        use(engine, in_time)
    use(make(), {**too_early, "jti": "another"})


def use(engine: Engine, claims: dict[str, Any]) -> None:
    claim(engine, a_client(), single_use(claims, lifetime=300, refusal=InvalidGrant("It was used.")))


def test_all_grants_sessions_and_consents_end_in_small_transactions(
    begin: generation.Begin, memory_stores: MemoryStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T149: also those of nobody, those of clients of plugins, and codes that nobody redeemed."""
    monkeypatch.setattr(generation, "BATCH", 2)
    fill(memory_stores, 5)
    memory_stores.grants.revoke("grant_3", NOW, "before")
    assert list(generation.revoke_grants(begin)) == [2, 1, 1]
    assert list(generation.end_sessions(begin)) == [2, 2, 1]
    assert list(generation.forget_consents(begin)) == [2, 2, 1]
    tables = memory_stores.tables
    assert (tables.sessions, tables.consents) == ({}, {})
    reasons = {grant.grant_id: grant.revoked_reason for grant in tables.grants.values()}
    assert reasons.pop("grant_3") == "before"
    assert set(reasons.values()) == {generation.REASON}
    # Again, as after an interruption: there is nothing left to do.
    assert sum(generation.revoke_grants(begin)) == 0
    assert [*generation.end_sessions(begin), *generation.forget_consents(begin)] == []


def test_an_interrupted_run_is_finished_by_the_next_one(
    begin: generation.Begin, memory_stores: MemoryStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T149, T115: what a batch revoked is revoked, whatever becomes of the next batch."""
    monkeypatch.setattr(generation, "BATCH", 2)
    fill(memory_stores, 5)
    assert next(iter(generation.revoke_grants(begin))) == 2
    assert len(memory_stores.grants.list(NOW)) == 3
    assert list(generation.revoke_grants(begin)) == [0, 2, 1]
    assert memory_stores.grants.list(NOW) == []


def fill(stores: MemoryStores, count: int) -> None:
    stores.users.add(a_user())
    for number in range(count):
        user_id = "user_ada" if number % 2 else None
        stores.grants.add(a_grant(grant_id=f"grant_{number}", user_id=user_id, client_id=f"client {number}"))
        stores.tokens.add(a_token(digest=bytes([number]), grant_id=f"grant_{number}", claimed_at=NOW))
        stores.sessions.add(a_session(digest=bytes([number])))
        stores.consents.remember(a_consent(client_id=f"client {number}"))


def test_every_signing_key_of_the_backup_ends_and_another_signs_at_once(make: Make) -> None:
    """T149, N-07: the active one, one that retires, one that is staged, and those of other algorithms."""
    signing_keys.prepare(make(NOW - timedelta(days=30)))
    signing_keys.rotate(make(NOW - timedelta(days=20)))
    signing_keys.rotate(make(NOW), algorithm="RS256")
    signing_keys.rotate(make(RESTORED - SECOND))
    engine = make()
    before = {key.kid: key.state(RESTORED) for key in engine.stores.signing_keys.list()}
    assert sorted(before.values()) == ["active", "active", "removed", "staged"]

    replaced = replace_signing_keys(engine)

    assert set(replaced.ended) == {kid for kid, state in before.items() if state is not KeyState.REMOVED}
    assert (fresh := replaced.fresh) and not set(fresh) & set(before)
    for key in engine.stores.signing_keys.list():
        assert key.state(RESTORED) is (KeyState.ACTIVE if key.kid in fresh else KeyState.REMOVED)
        assert (key.sealed_private_jwk is None) == (key.kid not in fresh)
    signs = signing_keys.signing_key(engine.stores.signing_keys.list(), "ES256", RESTORED)
    assert signs is not None and [signs.kid] == list(fresh)


def test_keys_are_replaced_again_as_often_as_that_is_asked_for(make: Make) -> None:
    """T149: also where the backup has no key at all."""
    first, second = replace_signing_keys(make()), replace_signing_keys(make(RESTORED + SECOND))
    assert first.ended == ()
    assert second.ended == first.fresh
    assert len(second.fresh) == 1 and second.fresh != first.fresh


def test_a_process_follows_the_database(memory_stores: MemoryStores) -> None:
    """T149: it reads when it starts, and again after some seconds of a clock that nobody sets (T150)."""
    # Read at 100.0; then asked three times, the third one reads and looks again when it has; then asked once more.
    clock = iter([100.0, 101.0, 107.9, 108.1, 108.2, 109.0]).__next__
    followed = FollowedGeneration(memory_stores, clock)
    assert followed.began_at() is None
    memory_stores.generations.begin(RESTORED)
    assert [followed.began_at() for _ in range(3)] == [None, None, RESTORED]
    assert followed.began_at() == RESTORED


def test_a_database_that_is_away_changes_nothing(memory_stores: MemoryStores, monkeypatch: Any) -> None:
    """T114: what was known counts on."""
    monkeypatch.setattr(generation, "FOLLOW_SECONDS", -1.0)
    memory_stores.generations.begin(RESTORED)
    away = Away(memory_stores)
    followed = FollowedGeneration(away)
    assert followed.began_at() == RESTORED
    away.is_away = True
    assert followed.began_at() == RESTORED
    away.is_away = False
    memory_stores.generations.begin(RESTORED + SECOND)
    assert followed.began_at() == RESTORED + SECOND
    away.is_away = True
    with pytest.raises(StorageUnavailable):
        FollowedGeneration(away).began_at()


class Away:
    """A storage that can be out of reach."""

    def __init__(self, stores: MemoryStores) -> None:
        self._stores = stores
        self.is_away = False

    def begin(self) -> Any:
        if self.is_away:
            raise StorageUnavailable
        return self._stores.begin()


EVENT = {"event_id": "lost", "type": "client.disabled", "at": LATER.isoformat(), "client_id": "reports"}


def line(prefix: str = "", **changes: Any) -> bytes:
    return (prefix + json.dumps(EVENT | changes)).encode() + b"\n"


def test_the_log_is_read_whatever_stands_in_it() -> None:
    """T149: lines that are no event are counted by number, and nothing else comes of them."""
    lines = [
        line("2026-03-01 13:00:00,000 INFO    authserver.events: "),
        b"\n",
        b"2026-03-01 13:00:00,000 INFO    authserver: scope_decision: nobody\n",
        line(event_id="first", at=NOW.isoformat()),
        line(event_id="of no interest", type="token.issued"),
        line(event_id="of a later version", type="moon.landed"),
        line(event_id="naive", at="2026-03-01T12:00:00"),
        line(at=None),
        line(event_id=7),
        line(details="text"),
        b'{"event_id": "torn", "type": "client.dis',
        b"\xff\xfe\x00{",
        b"[" * 100_000,
        b'{"details":' * 100_000,
        line(),  # the same event again
    ]
    events, bad = read_log(lines)
    assert [event.event_id for event in events] == ["first", "lost"]
    assert events[1].at == LATER
    assert bad == [3, 7, 8, 9, 10, 11, 12, 13, 14]
    assert read_log([]) == ([], [])


def test_the_log_that_our_own_plugin_writes_is_read(caplog: pytest.LogCaptureFixture) -> None:
    """T149: the form of the one is the form of the other."""
    event = an_event(type=EventType.CLIENT_SECRET_ENDED, details={"secret": "1a2b3c4d"}, at=LATER)
    with caplog.at_level("INFO", "authserver.events"):
        LogEvents().observe(event)
    (read,), bad = read_log([caplog.records[0].getMessage().encode()])
    assert bad == []
    assert (read.event_id, read.type, read.at) == (event.event_id, event.type, LATER)
    assert (read.client_id, read.details) == ("reports", {"secret": "1a2b3c4d"})


def test_only_what_the_backup_does_not_know_is_lost(make: Make) -> None:
    """T149: what is in the backup was done already, and what clean-up removed from it, too."""
    engine = make()
    engine.stores.events.add(an_event(event_id="oldest", at=NOW))
    engine.stores.events.add(an_event(event_id="known", at=LATER))
    times = {"known": LATER, "lost": LATER, "same time": NOW, "purged": NOW - SECOND}
    logged = [logged_event(EventType.CLIENT_DISABLED, event_id=name, at=at) for name, at in times.items()]
    assert [event.event_id for event in lost(engine, logged)] == ["lost", "same time"]
    assert lost(make_empty(engine), logged) == logged


def make_empty(engine: Engine) -> Engine:
    return replace(engine, stores=MemoryStores())


def logged_event(type: EventType, **changes: Any) -> LoggedEvent:
    return LoggedEvent(**{"event_id": "lost", "type": type, "at": LATER, **changes})


def events_of(engine: Engine, type: EventType) -> list[str]:
    return [event.reason for event in engine.stores.events.since(NOW, type=type)]


def test_a_client_and_a_person_are_disabled_again(make: Make) -> None:
    """T149, R-09: once, however often it is done again."""
    engine = make()
    engine.stores.clients.add(a_client())
    engine.stores.users.add(a_user())
    client = logged_event(EventType.CLIENT_DISABLED, client_id="reports")
    person = logged_event(EventType.USER_DISABLED, user_id="user_ada")
    for event, subject in ((client, "reports"), (person, "ada")):
        done = redo(engine, event)
        assert (done.subject, done.outcome, done.todo) == (subject, RedoOutcome.DONE, "")
        assert redo(make(), event).outcome is RedoOutcome.ALREADY
    found = engine.stores.clients.find("reports", engine.now), engine.stores.users.find("user_ada")
    assert not any(each is None or each.is_enabled for each in found)
    assert len(events_of(engine, EventType.CLIENT_DISABLED)) == 1
    assert events_of(engine, EventType.USER_DISABLED) == [lost_events.REASON]


def test_a_person_who_was_enabled_is_let_in_by_an_operator_alone(make: Make) -> None:
    """T149, R-09: a lost event lets nobody in, and who was enabled after the restore stays so."""
    engine = make()
    engine.stores.users.add(a_user())
    disabled = logged_event(EventType.USER_DISABLED, user_id="user_ada")
    enabled = logged_event(EventType.USER_ENABLED, user_id="user_ada", at=LATER + SECOND)
    assert redo(engine, enabled).outcome is RedoOutcome.ALREADY
    assert redo(engine, disabled).outcome is RedoOutcome.DONE
    told = redo(engine, enabled)
    assert (told.subject, told.outcome) == ("ada", RedoOutcome.ABSENT)
    assert "`authserver user enable ada`" in told.todo
    user = engine.stores.users.find("user_ada")
    assert user is not None and not user.is_enabled
    later = make(RESTORED + SECOND)
    account.enable_user(later, user)
    assert redo(later, disabled).outcome is RedoOutcome.ALREADY
    assert redo(later, enabled).outcome is RedoOutcome.ALREADY
    assert engine.stores.users.find("user_ada") == a_user()


def test_a_client_secret_ends_again_though_it_is_the_last(make: Make) -> None:
    """T149, R-05."""
    engine = make(NOW)
    engine.stores.clients.add(a_client())
    text, secret = secrets.new_secret(engine.ring, "reports", datetime.now(UTC))
    engine.stores.clients.add_secret("reports", secret)
    event = logged_event(
        EventType.CLIENT_SECRET_ENDED,
        client_id="reports",
        details={"secret": secrets.handle(secret)},
    )
    assert redo(engine, event).outcome is RedoOutcome.DONE
    client = engine.stores.clients.find("reports", engine.now)
    assert secrets.matching(engine, client, "reports", text) is None
    assert redo(engine, event).outcome is RedoOutcome.ABSENT


def test_a_secret_that_was_rotated_ends_when_it_was_to_end(make: Make) -> None:
    """T149, R-05: its successor is lost, so an operator must make another one."""
    now = datetime.now(UTC)
    engine = make(now)
    engine.stores.clients.add(a_client())
    text, secret = secrets.new_secret(engine.ring, "reports", now - timedelta(days=2))
    engine.stores.clients.add_secret("reports", secret)
    event = logged_event(
        EventType.CLIENT_SECRET_ADDED,
        client_id="reports",
        at=now - timedelta(days=1),
        details={"secret": "successor", "others_end_at": (now + timedelta(hours=1)).isoformat()},
    )
    done = redo(engine, event)
    assert done.outcome is RedoOutcome.DONE
    assert "authserver client rotate-secret reports" in done.todo
    client = engine.stores.clients.find("reports", engine.now)
    assert secrets.matching(engine, client, "reports", text) is not None
    after = make(now + timedelta(hours=1))
    assert secrets.matching(after, client, "reports", text) is None
    assert redo(engine, event).outcome is RedoOutcome.ALREADY


def test_a_password_that_was_changed_lets_nobody_in_until_there_is_a_new_one(make: Make) -> None:
    """T149, I-14: the one of the backup is old; whoever knows it may be why it was changed."""
    engine = make()
    engine.stores.users.add(a_user(password_hash="old"))
    event = logged_event(EventType.PASSWORD_CHANGED, user_id="user_ada")
    done = redo(engine, event)
    assert (done.subject, done.outcome) == ("ada", RedoOutcome.DONE)
    assert "authserver user password ada" in done.todo
    assert engine.stores.users.find("user_ada") == a_user(password_hash=None)
    assert events_of(engine, EventType.PASSWORD_CHANGED) == [lost_events.REASON]
    # The operator sets one; the command is run again.
    engine.stores.users.set_password("user_ada", "new")
    assert redo(make(RESTORED + SECOND), event).outcome is RedoOutcome.ALREADY
    assert engine.stores.users.find("user_ada") == a_user(password_hash="new")


@pytest.mark.parametrize(
    ("type", "todo"),
    [
        (EventType.CLIENT_DISABLED, ""),
        (EventType.USER_DISABLED, ""),
        (EventType.USER_ENABLED, ""),
        (EventType.CLIENT_CHANGED, ""),
        (EventType.USER_CHANGED, ""),
        (EventType.CLIENT_SECRET_ENDED, ""),
        (EventType.CLIENT_SECRET_ADDED, ""),
        (EventType.PASSWORD_CHANGED, ""),
        (EventType.CLIENT_REGISTERED, "must register again"),
        (EventType.USER_ADDED, "must be added again"),
    ],
)
@pytest.mark.parametrize("ids", [{"client_id": "gone", "user_id": "user_gone"}, {}], ids=["gone", "nobody"])
def test_what_the_backup_never_had_is_told(make: Make, type: EventType, todo: str, ids: Any) -> None:
    """T149: clients and people that came after it."""
    engine = make()
    done = redo(engine, logged_event(type, details={"secret": 7, "others_end_at": "soon"}, **ids))
    assert done.outcome is RedoOutcome.ABSENT
    assert todo in done.todo
    assert engine.stores.tables.events == {}  # of the stores in memory


def test_a_client_of_the_operator_that_the_backup_lacks_is_added_by_an_operator(make: Make) -> None:
    """T149: it cannot register itself."""
    details = {"registered_by": "operator"}
    done = redo(make(), logged_event(EventType.CLIENT_REGISTERED, client_id="late", details=details))
    assert "`authserver client add --client-id late`" in done.todo and "register" not in done.todo


def test_edits_of_a_client_that_are_lost_are_named(make: Make) -> None:
    """T149: whether they still apply is for an operator to say."""
    engine = make()
    engine.stores.clients.add(a_client())
    changed = {
        "client_name": {"from": "Old", "to": "Reports"},
        "scope": {"from": "read write", "to": "read"},
        "logo": "of a later version",
    }
    done = redo(
        engine, logged_event(EventType.CLIENT_CHANGED, client_id="reports", details={"changed": changed})
    )
    assert done.outcome is RedoOutcome.ABSENT
    assert done.todo == "its changes are lost (scope, logo): `authserver client edit reports`"
    for details in ({"changed": {"scope": changed["scope"] | {"to": "read write"}}}, {"changed": 7}, {}):
        again = redo(engine, logged_event(EventType.CLIENT_CHANGED, client_id="reports", details=details))
        assert (again.outcome, again.todo) == (RedoOutcome.ALREADY, "")


def test_a_resource_that_was_removed_is_removed_again(make: Make) -> None:
    """T149, L-08: what was granted for it ended with the restore."""
    engine = make()
    engine.stores.resources.add(a_resource())
    event = logged_event(EventType.RESOURCE_REMOVED, details={"resource": a_resource().uri})
    assert redo(engine, event).outcome is RedoOutcome.DONE
    assert engine.stores.resources.list() == []
    assert redo(engine, event).outcome is RedoOutcome.ALREADY
    assert redo(engine, logged_event(EventType.RESOURCE_REMOVED)).outcome is RedoOutcome.ALREADY


def test_resources_that_the_backup_lacks_or_knows_otherwise_are_told(make: Make) -> None:
    """T149: whether they still apply is for an operator to say."""
    engine = make()
    details = dict(described(a_resource(token_format=AccessTokenFormat.OPAQUE)))
    details["token_format"] = "opaque"
    added = logged_event(EventType.RESOURCE_ADDED, details=details)
    changed = logged_event(
        EventType.RESOURCE_CHANGED,
        details={**details, "changed": {"token_format": {"from": None, "to": "opaque"}}},
    )
    for event in (added, changed):
        done = redo(engine, event)
        assert done.outcome is RedoOutcome.ABSENT
        assert "`authserver resource add https://api.example`" in done.todo
    engine.stores.resources.add(a_resource())
    for event in (added, changed):
        assert "`authserver resource edit https://api.example`" in redo(engine, event).todo
    engine.stores.resources.change(a_resource(), a_resource(token_format=AccessTokenFormat.OPAQUE))
    for event in (added, changed):
        assert redo(engine, event).outcome is RedoOutcome.ALREADY


def test_clients_and_people_who_are_there_are_no_news(make: Make) -> None:
    engine = make()
    engine.stores.clients.add(a_client())
    engine.stores.users.add(a_user())
    for type in (EventType.CLIENT_REGISTERED, EventType.USER_ADDED):
        done = redo(engine, logged_event(type, client_id="reports", user_id="user_ada"))
        assert (done.outcome, done.todo) == (RedoOutcome.ALREADY, "")


def test_who_left_a_group_since_the_backup_has_left_it_again(make: Make) -> None:
    """T149: in the order of the log, once; of attributes the log has no values, so the old ones go."""
    engine = make()
    attributes = {"room": ("12",), "department": ("payments",)}
    engine.stores.users.add(a_user(groups=("finance", "staff"), attributes=attributes))
    left = logged_event(
        EventType.USER_CHANGED,
        user_id="user_ada",
        details={"groups_removed": ["finance", 7], "groups_added": ["audit"], "attributes": ["room", "mail"]},
    )
    back = logged_event(
        EventType.USER_CHANGED,
        event_id="later",
        user_id="user_ada",
        details={"groups_added": ["finance"], "groups_removed": "staff"},
    )
    done = redo(engine, left)
    assert (done.subject, done.outcome) == ("ada", RedoOutcome.DONE)
    assert done.todo == "mail, room: set again with `authserver user edit ada`"
    changed = engine.stores.users.find("user_ada")
    assert changed is not None
    assert (changed.groups, changed.attributes) == (("audit", "staff"), {"department": ("payments",)})
    assert (redo(make(), back).outcome, redo(make(), back).outcome) == (RedoOutcome.DONE, RedoOutcome.ALREADY)
    # The command is run again, after an operator has put something right.
    assert redo(make(), left).outcome is RedoOutcome.ALREADY
    changed = engine.stores.users.find("user_ada")
    assert changed is not None and changed.groups == ("audit", "finance", "staff")
    assert events_of(engine, EventType.USER_CHANGED) == [lost_events.REASON] * 2
