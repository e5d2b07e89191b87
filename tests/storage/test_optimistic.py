"""Optimistic transactions: what was read before is used again, and whatever has changed is found before anything is kept."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from authserver.engine.errors import InvalidClient
from authserver.engine.ports import Stores
from authserver.engine.records import ClientSecret, JoinedIdentity
from authserver.engine.setting_records import DeclaredKind, StoredSetting
from authserver.storage.database import Database
from authserver.storage.failures import StorageBusy, StorageChanged
from authserver.storage.postgresql_line import PostgresqlLine
from authserver.testing.records import NOW, a_client, a_grant, a_kept_record, a_user, an_event

LATER = NOW + timedelta(seconds=5)
SECRET = ClientSecret(digest=b"first", key_id="key_1", created_at=NOW, expires_at=NOW + timedelta(hours=1))
OTHER = replace(SECRET, digest=b"second")
CLIENT = a_client(secrets=(SECRET,))
ADA = a_user(attributes={"team": ("tools",)})
IDENTITY = JoinedIdentity(
    issuer="https://issuer.example", subject="ada-1", user_id=ADA.user_id, joined_at=NOW
)
ISSUER = StoredSetting(
    kind=DeclaredKind.ISSUER, name=IDENTITY.issuer, value={"profile": "jwt_bearer"}, changed_at=NOW
)
USED = a_kept_record()


def find_all(stores: Stores) -> tuple[Any, ...]:
    """All that a connection may remember."""
    return (
        stores.clients.find(CLIENT.client_id, LATER),
        stores.users.find(ADA.user_id),
        stores.users.find_by_name(ADA.username),
        stores.identities.find(IDENTITY.issuer, IDENTITY.subject),
        stores.stored_settings.find(ISSUER.kind, ISSUER.name),
    )


@pytest.fixture
def ours(postgresql_url: str) -> Iterator[Database]:
    """A server with one connection, which has read everything."""
    database = Database(postgresql_url, pool_size=1)
    with database.begin() as stores:
        stores.clients.add(CLIENT)
        stores.users.add(ADA)
        stores.identities.add(IDENTITY)
        stores.stored_settings.keep(ISSUER)
        stores.grants.add(a_grant(user_id=ADA.user_id))
    with database.begin(optimistic=True) as stores:
        find_all(stores)
    yield database
    database.close()


@pytest.fixture
def other(postgresql_url: str) -> Iterator[Database]:
    """Another server on the same database."""
    database = Database(postgresql_url, pool_size=1)
    yield database
    database.close()


def statements(database: Database) -> list[str]:
    """The text of each statement from now on."""
    seen: list[str] = []

    @sa.event.listens_for(database.engine, "before_cursor_execute", retval=True)
    def note(_c: Any, _cursor: Any, text: str, values: Any, _context: Any, _many: bool) -> tuple[str, Any]:
        seen.append(text)
        return text, values

    return seen


CHANGES: dict[str, Callable[[Stores], object]] = {
    "client-changed": lambda stores: stores.clients.change(CLIENT, replace(CLIENT, name="New name")),
    "client-disabled": lambda stores: stores.clients.disable(CLIENT.client_id, LATER),
    "client-used": lambda stores: stores.clients.touch(CLIENT.client_id, LATER),
    "secret-added": lambda stores: stores.clients.add_secret(CLIENT.client_id, OTHER),
    "secret-replaced": lambda stores: stores.clients.change_secret(CLIENT.client_id, SECRET, OTHER),
    "secret-ended": lambda stores: stores.clients.change_secret(
        CLIENT.client_id, SECRET, replace(SECRET, expires_at=NOW)
    ),
    "user-disabled": lambda stores: stores.users.disable(ADA.user_id, LATER),
    "user-changed": lambda stores: stores.users.change(replace(ADA, groups=("staff",))),
    "password-set": lambda stores: stores.users.set_password(ADA.user_id, "hash"),
    "identity-removed": lambda stores: stores.identities.remove(IDENTITY.issuer, IDENTITY.subject),
    "issuer-changed": lambda stores: stores.stored_settings.keep(replace(ISSUER, value={"profile": "mcp"})),
    "issuer-removed": lambda stores: stores.stored_settings.remove(ISSUER.kind, ISSUER.name),
}


@pytest.mark.postgresql
def test_what_was_read_before_is_checked_and_not_read_again(ours: Database) -> None:
    seen = statements(ours)
    with ours.begin(optimistic=True) as stores:
        assert find_all(stores) == (CLIENT, ADA, ADA, IDENTITY, ISSUER)
        stores.events.add(an_event())
    assert len(seen) == 6
    assert all(text.startswith("SELECT 1 / count(*)") for text in seen[:5])
    with ours.begin() as stores:
        assert len(list(stores.events.latest())) == 1


@pytest.mark.postgresql
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_by_another_server_is_found_before_anything_is_kept(
    ours: Database, other: Database, change: Callable[[Stores], object]
) -> None:
    """L-08, R-07: the request is repeated, and reads what there is now."""
    with other.begin() as stores:
        change(stores)
    with other.begin() as stores:
        expected = find_all(stores)
    with pytest.raises(StorageChanged), ours.begin(optimistic=True) as stores:
        find_all(stores)
        stores.events.add(an_event())
    with ours.begin() as stores:
        assert list(stores.events.latest()) == []
        assert find_all(stores) == expected
    # From then on it is right at once.
    with ours.begin(optimistic=True) as stores:
        assert find_all(stores) == expected


@pytest.mark.postgresql
def test_a_change_by_hand_is_found(ours: Database, other: Database) -> None:
    """No statement of ours has to take care of it."""
    with other.engine.connect() as connection:
        connection.execute(sa.text("UPDATE clients SET disabled_at = now()"))
    with pytest.raises(StorageChanged), ours.begin(optimistic=True) as stores:
        stores.clients.find(CLIENT.client_id, LATER)


@pytest.mark.postgresql
def test_a_secret_ends_although_nobody_changes_it(ours: Database) -> None:
    assert SECRET.expires_at is not None
    with pytest.raises(StorageChanged), ours.begin(optimistic=True) as stores:
        stores.clients.find(CLIENT.client_id, SECRET.expires_at)
    with ours.begin() as stores:
        assert stores.clients.find(CLIENT.client_id, SECRET.expires_at) == replace(CLIENT, secrets=())


@pytest.mark.postgresql
def test_nobody_is_refused_for_what_has_changed(ours: Database, other: Database) -> None:
    """A secret that another server has just stored is not refused because this one does not know it yet."""
    with other.begin() as stores:
        stores.clients.add_secret(CLIENT.client_id, OTHER)
    with pytest.raises(StorageChanged), ours.begin(optimistic=True) as stores:
        stores.clients.find(CLIENT.client_id, LATER)
        raise InvalidClient("Client authentication failed.")
    with pytest.raises(InvalidClient), ours.begin(optimistic=True) as stores:
        assert stores.clients.find(CLIENT.client_id, LATER) == replace(CLIENT, secrets=(SECRET, OTHER))
        raise InvalidClient("Client authentication failed.")


@pytest.mark.postgresql
def test_nobody_is_refused_for_what_has_changed_after_something_was_used_up(
    ours: Database, other: Database
) -> None:
    """An endpoint may use up the proof of a client first, and refuse what it asks for then."""
    with other.begin() as stores:
        stores.clients.add_secret(CLIENT.client_id, OTHER)
    with pytest.raises(StorageChanged), ours.begin(optimistic=True) as stores:
        stores.clients.find(CLIENT.client_id, LATER)
        assert stores.kept.add_once(USED)
        raise InvalidClient("Client authentication failed.")
    with ours.begin() as stores:
        assert stores.kept.find(USED.kind, USED.digest) is None


@pytest.mark.postgresql
@pytest.mark.parametrize("refuses", [False, True])
def test_a_change_is_told_even_if_somebody_swallows_it(
    ours: Database, other: Database, refuses: bool
) -> None:
    """A plugin may catch whatever its look-up raises, and go on or refuse."""
    with other.begin() as stores:
        stores.users.disable(ADA.user_id, LATER)
    with pytest.raises(StorageChanged), ours.begin(optimistic=True) as stores:
        stores.users.find(ADA.user_id)
        with suppress(Exception):
            stores.grants.find("grant_1")
        if refuses:
            raise InvalidClient("Client authentication failed.")


@pytest.mark.postgresql
def test_who_was_not_there_is_looked_for_again(ours: Database, other: Database) -> None:
    """JAG-18: two first assertions about one person at the same time."""
    bob = a_user(user_id="user_bob", username="bob")
    with ours.begin(optimistic=True) as stores:
        assert stores.users.find_by_name(bob.username) is None
        with other.begin() as others:
            others.users.add(bob)
        assert stores.users.find_by_name(bob.username) == bob


@pytest.mark.postgresql
def test_another_secret_of_the_same_age_is_another(ours: Database, other: Database) -> None:
    """T150: what one transaction wrote has the same version, and clocks are set back."""
    assert SECRET.expires_at is not None
    lasting = replace(OTHER, expires_at=None)
    client = a_client(client_id="rotated", secrets=(SECRET, lasting))
    with other.begin() as stores:
        stores.clients.add(client)
    after = SECRET.expires_at + timedelta(seconds=1)
    with ours.begin(optimistic=True) as stores:
        assert stores.clients.find(client.client_id, after) == replace(client, secrets=(lasting,))
    with other.begin() as stores:
        assert stores.clients.change_secret(client.client_id, lasting, replace(lasting, expires_at=NOW))
    with pytest.raises(StorageChanged), ours.begin(optimistic=True) as stores:
        stores.clients.find(client.client_id, LATER)


def lose_idle_connection(database: Database) -> None:
    """As when a proxy or PostgreSQL itself ended without a word; nobody uses the connection meanwhile."""
    with database.engine.connect() as connection:
        driver: Any = connection.connection.dbapi_connection
        with socket.socket(fileno=os.dup(driver.pgconn.socket)) as ours:
            ours.shutdown(socket.SHUT_RDWR)


def lose_connection_at_next_answer(database: Database) -> None:
    """Its session ends without a word when it has been asked something."""

    @sa.event.listens_for(database.engine, "before_cursor_execute", retval=True)
    def note(
        connection: sa.Connection, _cursor: Any, text: str, values: Any, _context: Any, _many: bool
    ) -> tuple[str, Any]:
        driver: Any = connection.connection.dbapi_connection
        with socket.socket(fileno=os.dup(driver.pgconn.socket)) as ours:
            ours.shutdown(socket.SHUT_RD)
        return text, values


@pytest.mark.postgresql
def test_nothing_is_sent_on_a_connection_that_was_lost_before(ours: Database) -> None:
    """T111: another one is taken, so that nobody has to doubt, although all of it is one round trip."""
    lose_idle_connection(ours)
    with ours.begin(optimistic=True) as stores:
        stores.clients.find(CLIENT.client_id, LATER)
        stores.events.add(an_event())
    with ours.begin() as stores:
        assert len(list(stores.events.latest())) == 1


@pytest.mark.postgresql
def test_a_new_connection_is_taken_as_it_is(ours: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """T111: a server that is about to end loses that one, too; then the request is repeated, and is no failure of ours."""
    monkeypatch.setattr(PostgresqlLine, "is_lost", lambda _: True)
    for _ in range(3):
        ours.ping()


@pytest.mark.postgresql
def test_nothing_can_have_been_stored_where_nothing_was_written(ours: Database) -> None:
    """All that an introspection asks may be remembered: at its end is checked that it is still so."""
    with pytest.raises(StorageBusy), ours.begin(optimistic=True) as stores:
        stores.clients.find(CLIENT.client_id, LATER)
        lose_connection_at_next_answer(ours)


@pytest.mark.postgresql
def test_what_is_given_is_of_this_transaction_alone(ours: Database) -> None:
    """T140: whatever somebody does to a record, the next request has it as it is in the database."""
    for _ in range(2):
        with ours.begin(optimistic=True) as stores:
            setting = stores.stored_settings.find(ISSUER.kind, ISSUER.name)
            assert setting == ISSUER
            assert isinstance(setting.value, dict)
            setting.value["profile"] = "another"


@pytest.mark.postgresql
def test_what_a_transaction_writes_itself_is_not_remembered(ours: Database) -> None:
    """It has the same version whatever it writes next."""
    with pytest.raises(InvalidClient), ours.begin(optimistic=True) as stores:
        stores.clients.change(CLIENT, replace(CLIENT, name="First"))
        found = stores.clients.find(CLIENT.client_id, LATER)
        assert found is not None
        assert found.name == "First"
        raise InvalidClient("It is rolled back.")
    with ours.begin(optimistic=True) as stores:
        assert stores.clients.find(CLIENT.client_id, LATER) == CLIENT


@pytest.mark.postgresql
def test_what_changes_during_a_rest_is_found(ours: Database, other: Database) -> None:
    """A document is fetched meanwhile, which takes seconds."""
    with pytest.raises(StorageChanged), ours.begin(optimistic=True) as stores:
        stores.users.find(ADA.user_id)
        stores.rest()
        with other.begin() as others:
            others.users.disable(ADA.user_id, LATER)
        stores.users.find(ADA.user_id)
    with ours.begin() as stores:
        found = stores.users.find(ADA.user_id)
        assert found is not None
        assert not found.is_enabled


@pytest.mark.postgresql
def test_a_connection_remembers_no_more_than_so_many(ours: Database) -> None:
    clients = [a_client(client_id=f"client_{number}", secrets=()) for number in range(300)]
    with ours.begin() as stores:
        for client in clients:
            stores.clients.add(client)
    for _ in range(2):
        for client in clients:
            with ours.begin(optimistic=True) as stores:
                assert stores.clients.find(client.client_id, LATER) == client
    with ours.engine.connect() as connection:
        assert len(connection.info["authserver.line"]._remembered) == 256


@pytest.mark.postgresql
@pytest.mark.parametrize(("size", "is_remembered"), [(4_000, True), (16_000, False)])
def test_a_connection_remembers_nothing_large(ours: Database, size: int, is_remembered: bool) -> None:
    """R-20: strangers register clients, and each connection would remember hundreds of them."""
    client = a_client(client_id="large", secrets=(), details={"software_id": "k" * size})
    with ours.begin() as stores:
        stores.clients.add(client)
    seen = statements(ours)
    for _ in range(2):
        with ours.begin(optimistic=True) as stores:
            assert stores.clients.find(client.client_id, LATER) == client
    assert seen[-1].startswith("SELECT 1 / count(*)") == is_remembered


MEANWHILE: dict[str, tuple[Callable[[Stores], object], Callable[[Stores], object]]] = {
    "client-disabled": (
        lambda stores: stores.clients.hold(CLIENT.client_id),
        lambda stores: stores.clients.disable(CLIENT.client_id, LATER),
    ),
    "user-disabled": (
        lambda stores: stores.users.hold_enabled(ADA.user_id),
        lambda stores: stores.users.disable(ADA.user_id, LATER),
    ),
    "grant-revoked": (
        lambda stores: stores.grants.hold(["grant_1"]),
        lambda stores: stores.grants.revoke("grant_1", LATER, "user"),
    ),
    "issuer-changed": (
        lambda stores: stores.stored_settings.hold(ISSUER.kind, ISSUER.name),
        lambda stores: stores.stored_settings.keep(replace(ISSUER, value={"profile": "mcp"})),
    ),
    "issuer-removed": (
        lambda stores: stores.stored_settings.hold(ISSUER.kind, ISSUER.name),
        lambda stores: stores.stored_settings.remove(ISSUER.kind, ISSUER.name),
    ),
    "used-before": (
        lambda stores: stores.kept.add_once(USED),
        lambda stores: stores.kept.add_once(USED),
    ),
    "grant-added": (
        lambda stores: stores.grants.add(a_grant(grant_id="grant_2")) or True,
        lambda stores: stores.grants.add(a_grant(grant_id="grant_2")),
    ),
}


@pytest.mark.postgresql
@pytest.mark.parametrize(("hold", "meanwhile"), MEANWHILE.values(), ids=MEANWHILE)
def test_what_is_held_must_be_so(
    ours: Database, other: Database, hold: Callable[[Stores], object], meanwhile: Callable[[Stores], object]
) -> None:
    """L-08, R-07, T164: after everything was read, another server is first; then nothing is kept."""
    with pytest.raises(StorageChanged), ours.begin(optimistic=True) as stores:
        find_all(stores)
        with other.begin() as others:
            meanwhile(others)
        assert hold(stores)
        stores.events.add(an_event())
    with ours.begin() as stores:
        assert list(stores.events.latest()) == []
    # By a transaction that is not optimistic, it is seen at once.
    with ours.begin() as stores:
        if hold is MEANWHILE["issuer-changed"][0]:
            assert hold(stores) != ISSUER
        elif meanwhile is not MEANWHILE["grant-added"][1]:
            assert not hold(stores)


@pytest.mark.postgresql
@pytest.mark.parametrize(("hold", "meanwhile"), MEANWHILE.values(), ids=MEANWHILE)
def test_what_is_held_is_held_until_the_end(
    ours: Database, other: Database, hold: Callable[[Stores], object], meanwhile: Callable[[Stores], object]
) -> None:
    """L-08: the other one waits for the lock, as long as it may."""
    with ours.begin(optimistic=True) as stores:
        find_all(stores)
        assert hold(stores)
        # A statement that is not sent along with others.
        stores.grants.count()
        with other.engine.connect() as connection:
            connection.execute(sa.text("SET lock_timeout = '100ms'"))
        with pytest.raises(Exception, match=r"lock timeout|deadlock"), other.begin() as others:
            meanwhile(others)
    with ours.begin() as stores:
        assert stores.clients.find(CLIENT.client_id, LATER) == CLIENT


WAITED_FOR = {
    "client": ("UPDATE clients SET disabled_at = now()", MEANWHILE["client-disabled"][0]),
    "user": ("UPDATE users SET disabled_at = now()", MEANWHILE["user-disabled"][0]),
    "issuer": (
        "UPDATE stored_settings SET value = '{\"is_enabled\": false}'",
        MEANWHILE["issuer-changed"][0],
    ),
    "grant": ("UPDATE grants SET revoked_at = now()", MEANWHILE["grant-revoked"][0]),
}


@pytest.mark.postgresql
@pytest.mark.parametrize("commits", [True, False], ids=["commits", "rolls-back"])
@pytest.mark.parametrize(("text", "hold"), WAITED_FOR.values(), ids=WAITED_FOR)
def test_what_somebody_is_changing_is_waited_for(
    ours: Database, other: Database, text: str, hold: Callable[[Stores], object], commits: bool
) -> None:
    """L-08, T164: it is looked at again when the other one has committed, and is as it was if not."""
    with other.engine.connect().execution_options(isolation_level="READ COMMITTED") as connection:
        if text.startswith("UPDATE clients"):
            # As whoever disables a client does: other changes of it need not be waited for.
            connection.execute(sa.text("SELECT client_id FROM clients FOR UPDATE"))
        connection.execute(sa.text(text))

        def end() -> None:
            time.sleep(0.3)
            (connection.commit if commits else connection.rollback)()

        ending = threading.Thread(target=end)
        ending.start()
        begun = time.monotonic()
        expected = pytest.raises(StorageChanged) if commits else nullcontext()
        with expected, ours.begin(optimistic=True) as stores:
            find_all(stores)
            assert hold(stores)
            stores.events.add(an_event())
        assert time.monotonic() - begun > 0.2
        ending.join()
    with ours.begin() as stores:
        assert len(list(stores.events.latest())) == (0 if commits else 1)
