"""The contract of stores, as tests: a line in your test file.

    from authserver.testing.store_contract import store_contract

    TestOurStores = store_contract(our_storage)

`our_storage()` is a context manager that gives an empty `authserver.engine.ports.Storage`. The class has a test for
every promise of `engine.ports`, on which the rules rely; this project runs it for memory, SQLite and PostgreSQL. It
does not test many writers at the same time: `tests/storage` does.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

import pytest

from authserver.engine.count_records import Gauge, Span, Step, Total
from authserver.engine.ports import AlreadyExists, Storage, Stores
from authserver.engine.records import (
    REFUSALS,
    ClientSecret,
    Event,
    EventFilter,
    EventType,
    FoundGrant,
    FoundSession,
    FoundToken,
    GrantFilter,
    InitialTokenState,
    Logo,
    RegisteredBy,
    TokenKind,
)
from authserver.engine.seal_records import DeletionMark
from authserver.engine.setting_records import DeclaredKind
from authserver.engine.upkeep_records import Disposable, Place
from authserver.settings import AccessTokenFormat
from authserver.testing import upkeep_contract
from authserver.testing.records import (
    NOW,
    a_client,
    a_consent,
    a_count,
    a_declaration,
    a_grant,
    a_kept_record,
    a_resource,
    a_ring_key,
    a_session,
    a_signing_key,
    a_stored_setting,
    a_token,
    a_user,
    an_event,
    an_event_seal,
    an_identity,
    an_initial_token,
)

LATER = NOW + timedelta(seconds=5)
IDLE_SINCE = NOW - timedelta(minutes=30)


def store_contract(make: Callable[[], AbstractContextManager[Storage]] | None = None) -> type:
    """A test class that checks stores against their contract: the part here, and the part in `upkeep_contract`.

    Args:
        make: gives an empty storage, a new one for each test, and closes it at the end of the `with`.
            Without it a fixture named `storage` must give one.
    """

    class StoreContract:
        """The promises of every set of stores (`authserver.testing.store_contract`)."""

        if make is not None:

            @pytest.fixture
            def storage(self) -> Iterator[Storage]:
                with make() as storage:
                    yield storage

        @pytest.fixture
        def stores(self, storage: Storage) -> Iterator[Stores]:
            with storage.begin() as stores:
                yield stores

    for module in (sys.modules[__name__], upkeep_contract):
        for name, promise in inspect.getmembers(module, inspect.isfunction):
            if name.startswith("test_"):
                setattr(StoreContract, name, staticmethod(promise))
    return StoreContract


def test_a_client_comes_back_as_it_was(stores: Stores) -> None:
    client = a_client(
        redirect_uris=("https://b.example/cb", "https://a.example/cb?x=%20", "com.example.app:/cb"),
        resources=("https://api.example",),
        registered_by=RegisteredBy.SELF,
        first_party=True,
        disabled_at=LATER,
        secrets=(
            ClientSecret(digest=b"\x00\xff first", key_id="k1", created_at=NOW),
            ClientSecret(digest=b"second", key_id="k2", created_at=LATER),
        ),
        details={"client_uri": "https://a.example/", "nested": {"list": [1, "zwölf", None, True]}},
        last_used_at=LATER,
        registered_from="2001:db8::/64",
        initial_token="initial_1",
        registration_policy="partners",
    )
    stores.clients.add(client)
    found = stores.clients.find("reports", NOW)
    assert found == client
    assert found is not None
    assert found.created_at.tzinfo is UTC


def test_a_client_without_anything_optional_comes_back_as_it_was(stores: Stores) -> None:
    client = a_client(redirect_uris=(), scopes=(), grant_types=())
    stores.clients.add(client)
    assert stores.clients.find("reports", NOW) == client


@pytest.mark.parametrize("client_id", ["unknown", "", "REPORTS", "reports\0", "x" * 5000, "' OR 1=1 --"])
def test_an_unknown_client_is_not_found(stores: Stores, client_id: str) -> None:
    stores.clients.add(a_client())
    assert stores.clients.find(client_id, NOW) is None


def test_an_expired_secret_is_not_handed_out(stores: Stores) -> None:
    """R-05: an overlap ends by itself."""
    live = ClientSecret(digest=b"live", key_id="k", created_at=NOW, expires_at=NOW + timedelta(seconds=1))
    dead = ClientSecret(digest=b"dead", key_id="k", created_at=NOW, expires_at=NOW)
    stores.clients.add(a_client(secrets=(dead,)))
    found = stores.clients.find("reports", NOW)
    assert found is not None
    assert found.secrets == ()
    stores.clients.add_secret("reports", live)
    found = stores.clients.find("reports", NOW)
    assert found is not None
    assert found.secrets == (live,)
    assert [client.secrets for client in stores.clients.list(NOW)] == [(live,)]
    assert [client.secrets for client in stores.clients.list(live.expires_at or NOW)] == [()]


def test_a_secret_that_was_kept_before_is_kept_in_place_of_itself(stores: Stores) -> None:
    ended = ClientSecret(digest=b"digest", key_id="1", created_at=NOW, expires_at=NOW, last_used_at=NOW)
    stores.clients.add(a_client(secrets=(ended,)))
    again = ClientSecret(digest=b"digest", key_id="2", created_at=LATER)
    stores.clients.add_secret("reports", again)
    assert stores.clients.find("reports", LATER) == a_client(secrets=(again,))


def test_a_client_id_is_taken_once_and_the_work_goes_on(stores: Stores) -> None:
    stores.clients.add(a_client())
    with pytest.raises(AlreadyExists):
        stores.clients.add(a_client(name="Somebody else"))
    stores.clients.add(a_client(client_id="other"))
    assert [client.name for client in stores.clients.list(NOW)] == ["Reports", "Reports"]


def test_clients_are_listed_oldest_first(stores: Stores) -> None:
    stores.clients.add(a_client(client_id="a", created_at=LATER))
    stores.clients.add(a_client(client_id="b", created_at=NOW))
    assert [client.client_id for client in stores.clients.list(NOW)] == ["b", "a"]


def test_clients_are_read_page_by_page_in_the_order_of_their_ids(stores: Stores) -> None:
    over, live, other = (
        ClientSecret(digest=digest, key_id="test", created_at=NOW, expires_at=end)
        for digest, end in ((b"1", NOW), (b"2", None), (b"3", None))
    )
    stores.clients.add(a_client(client_id="c", created_at=NOW))
    stores.clients.add(a_client(client_id="a", created_at=LATER, secrets=(over, live, other)))
    stores.clients.add(a_client(client_id="b", disabled_at=LATER))
    first = stores.clients.page(NOW, limit=2)
    assert first == [stores.clients.find("a", NOW), stores.clients.find("b", NOW)]
    # The secrets of one client do not use up the places of other clients on the page.
    assert first[0].secrets == (live, other)
    assert stores.clients.page(NOW, after="b", limit=2) == [stores.clients.find("c", NOW)]
    assert stores.clients.page(NOW, after="c", limit=2) == []
    assert stores.clients.page(NOW, after="aa", limit=1) == [stores.clients.find("b", NOW)]


def test_clients_people_and_live_grants_are_counted_up_to_a_number(stores: Stores) -> None:
    """T146: no whole table is counted for a page."""
    for number in range(3):
        stores.clients.add(a_client(client_id=f"client-{number}"))
        stores.users.add(a_user(user_id=f"user_{number}", username=f"user-{number}"))
        stores.grants.add(a_grant(grant_id=f"grant_{number}"))
    stores.clients.disable("client-1", NOW)
    stores.users.disable("user_1", NOW)
    stores.grants.revoke("grant_1", NOW, "test")
    assert [stores.clients.count(limit=limit) for limit in (2, 3, 9)] == [2, 3, 3]
    assert [stores.users.count(limit=limit) for limit in (2, 3, 9)] == [2, 3, 3]
    assert [stores.grants.count_live(NOW, limit=limit) for limit in (1, 2, 9)] == [1, 2, 2]
    assert stores.grants.count_live(NOW + timedelta(days=1), limit=9) == 0


def test_clients_with_a_secret_that_ends_are_found(stores: Stores) -> None:
    """The first to end first; those that have ended are not live, and a disabled client needs none."""
    for client_id, ends in (("later", 9), ("soon", 1), ("never", None), ("ended", -1), ("gone", 2)):
        stores.clients.add(a_client(client_id=client_id))
        expires_at = None if ends is None else NOW + timedelta(days=ends)
        secret = ClientSecret(digest=client_id.encode(), key_id="one", created_at=NOW, expires_at=expires_at)
        stores.clients.add_secret(client_id, secret)
    stores.clients.add_secret("later", replace(secret, digest=b"first", expires_at=NOW + timedelta(days=3)))
    stores.clients.disable("gone", NOW)

    def found(days: int, limit: int = 9) -> list[str]:
        clients = stores.clients.with_ending_secret(NOW, NOW + timedelta(days=days), limit=limit)
        return [client.client_id for client in clients]

    assert found(30) == ["soon", "later"]
    assert found(30, limit=1) == ["soon"]
    assert found(2) == ["soon"]
    assert found(0) == []
    assert len(stores.clients.with_ending_secret(NOW, NOW + timedelta(days=30), limit=9)[1].secrets) == 2


def test_several_clients_are_found_at_once(stores: Stores) -> None:
    """The stored ones, each once, with their valid secrets."""
    live = ClientSecret(digest=b"live", key_id="k", created_at=NOW)
    other = ClientSecret(digest=b"other", key_id="k", created_at=LATER)
    stores.clients.add(a_client(client_id="a", created_at=LATER, secrets=(live, other)))
    stores.clients.add(a_client(client_id="b", created_at=NOW, disabled_at=LATER))
    stores.clients.add(a_client(client_id="c"))
    assert stores.clients.find_all(["a", "unknown", "b", "a"], NOW) == [
        a_client(client_id="b", created_at=NOW, disabled_at=LATER),
        a_client(client_id="a", created_at=LATER, secrets=(live, other)),
    ]
    assert stores.clients.find_all([], NOW) == []


def test_a_client_is_disabled_once(stores: Stores) -> None:
    """R-09."""
    stores.clients.add(a_client())
    assert stores.clients.disable("reports", LATER)
    assert not stores.clients.disable("reports", LATER + timedelta(days=1))
    assert not stores.clients.disable("unknown", LATER)
    assert stores.clients.find("reports", NOW) == a_client(disabled_at=LATER)


def test_a_client_changes_only_as_it_was_read(stores: Stores) -> None:
    """T144: of two changes at the same time one fails. Its secrets stay."""
    secret = ClientSecret(digest=b"first", key_id="k1", created_at=NOW)
    before = a_client(secrets=(secret,), details={"contacts": ["ann"], "tos_uri": "https://a.example/"})
    stores.clients.add(before)
    stores.clients.add(a_client(client_id="other"))
    after = replace(
        before,
        name="Berichte",
        auth_method="client_secret_post",
        redirect_uris=("https://new.example/cb",),
        grant_types=("client_credentials",),
        response_types=(),
        scopes=(),
        resources=("https://api.example",),
        application_type="native",
        registered_by=RegisteredBy.SELF,
        first_party=True,
        rotates_refresh_tokens=False,
        details={},
        logo="digest",
        registered_from="192.0.2.1",
        initial_token="initial_1",
        registration_policy="partners",
    )
    assert stores.clients.change(before, after)
    assert not stores.clients.change(before, replace(before, name="Too late"))
    assert not stores.clients.change(a_client(client_id="unknown"), a_client(client_id="unknown"))
    assert stores.clients.find("reports", NOW) == after
    assert stores.clients.find("other", NOW) == a_client(client_id="other")
    assert stores.clients.knows_origin("https://new.example")
    stores.clients.disable("other", NOW)
    assert not stores.clients.knows_origin("https://reports.example")


def test_a_client_that_was_disabled_meanwhile_does_not_change(stores: Stores) -> None:
    stores.clients.add(a_client())
    stores.clients.disable("reports", LATER)
    assert not stores.clients.change(a_client(), a_client(name="Another"))
    assert stores.clients.find("reports", NOW) == a_client(disabled_at=LATER)


def test_a_change_of_a_secret_is_no_change_of_its_client(stores: Stores) -> None:
    secret = ClientSecret(digest=b"first", key_id="k1", created_at=NOW)
    stores.clients.add(a_client())
    stores.clients.add_secret("reports", secret)
    assert stores.clients.change(a_client(), a_client(name="Another"))
    assert stores.clients.find("reports", NOW) == a_client(name="Another", secrets=(secret,))


def test_a_noted_use_is_no_change_of_a_client(stores: Stores) -> None:
    """It is noted at any time, and an operator who changes the client meanwhile neither loses nor undoes it."""
    stores.clients.add(a_client())
    stores.clients.add(a_client(client_id="other"))
    stores.clients.touch("reports", LATER)
    stores.clients.touch("unknown", LATER)
    assert stores.clients.change(a_client(), a_client(name="Another"))


def test_a_use_of_a_client_is_kept(storage: Storage) -> None:
    with storage.begin() as stores:
        stores.clients.add(a_client())
        stores.clients.add(a_client(client_id="other"))
    with storage.begin() as stores:
        stores.clients.touch("reports", LATER)
    with storage.begin() as stores:
        assert stores.clients.find("reports", NOW) == a_client(last_used_at=LATER)
        assert stores.clients.find("other", NOW) == a_client(client_id="other")
        assert stores.clients.change(a_client(), a_client(name="Another"))
        assert stores.clients.find("reports", NOW) == a_client(name="Another", last_used_at=LATER)


def test_clients_that_were_never_used_are_known_by_their_network(stores: Stores) -> None:
    """T131: oldest first; clients of operators and clients with an initial access token do not count."""
    here, there = "192.0.2.1", "2001:db8::/64"

    def itself(client_id: str, minutes: int, **changes: Any) -> None:
        values = {"registered_by": RegisteredBy.SELF, "registered_from": here, **changes}
        at = NOW + timedelta(minutes=minutes)
        stores.clients.add(a_client(client_id=client_id, created_at=at, **values))

    itself("second", 2)
    itself("first", 1)
    itself("fourth", 4)
    itself("elsewhere", 3, registered_from=there)
    itself("used", 0, last_used_at=NOW)
    itself("with a token", 0, initial_token="initial_1", registration_policy="partners")
    itself("of an operator", 0, registered_by=RegisteredBy.OPERATOR)

    def found(minutes: int, **which: Any) -> list[str]:
        clients = stores.clients.never_used(NOW + timedelta(minutes=minutes), **which)
        return [client.client_id for client in clients]

    assert found(9, limit=9) == ["first", "second", "elsewhere", "fourth"]
    assert found(2, limit=9) == ["first", "second"]
    assert found(9, network=here, limit=2) == ["first", "second"]
    assert found(9, network=there, limit=2) == ["elsewhere"]
    assert found(9, network="", limit=2) == []
    assert stores.clients.never_used(LATER, limit=1) == []
    assert stores.clients.count_never_used(limit=9) == 4
    assert stores.clients.count_never_used(limit=3) == 3
    assert stores.clients.count_never_used(network=here, limit=9) == 3
    assert stores.clients.count_never_used(network="198.51.100.1", limit=9) == 0


def test_the_first_use_of_a_client_keeps_it(stores: Stores) -> None:
    """T131: a client that was removed in the meantime has none."""
    for name in ("used", "unused"):
        stores.clients.add(a_client(client_id=name, registered_by=RegisteredBy.SELF))
    assert stores.clients.note_first_use("used", LATER)
    assert not stores.clients.remove_never_used("used")
    assert stores.clients.remove_never_used("unused")
    assert not stores.clients.note_first_use("unused", LATER)
    assert [(client.client_id, client.last_used_at) for client in stores.clients.list(NOW)] == [
        ("used", LATER)
    ]


def test_a_client_is_removed_only_if_it_registered_itself_and_was_never_used(stores: Stores) -> None:
    """T131"""
    secret = ClientSecret(digest=b"secret", key_id="k", created_at=NOW)
    itself: dict[str, Any] = {"registered_by": RegisteredBy.SELF, "secrets": (secret,)}
    stores.clients.add(a_client(client_id="unused", **itself))
    stores.clients.keep_logo("unused", Logo(digest="1", media_type="image/png", body=b"PNG"))
    stores.clients.add(a_client(client_id="used", last_used_at=NOW, **itself))
    stores.clients.add(a_client(client_id="of an operator"))
    removed = [
        stores.clients.remove_never_used(name)
        for name in ("unused", "unused", "used", "of an operator", "unknown")
    ]
    assert removed == [True, False, False, False, False]
    assert {client.client_id for client in stores.clients.list(NOW)} == {"used", "of an operator"}
    assert stores.clients.find_logo("unused", "1") is None


def test_the_clients_of_a_policy_are_counted(stores: Stores) -> None:
    for number, policy in enumerate(("partners", "partners", "partners", "others", None)):
        stores.clients.add(a_client(client_id=f"c{number}", registration_policy=policy))
    stores.clients.disable("c1", LATER)
    counts = {
        policy: stores.clients.count_of_policy(policy) for policy in ("partners", "others", "nobody", "")
    }
    assert counts == {"partners": 2, "others": 1, "nobody": 0, "": 0}


def test_an_identity_is_joined_to_one_person(stores: Stores) -> None:
    """UP-03: by issuer and subject together."""
    for number in (1, 2):
        stores.users.add(a_user(user_id=f"user_{number}", username=f"u{number}"))
    first = an_identity(user_id="user_1", subject="b", label="Änne")
    others = [
        an_identity(user_id="user_2", subject="a"),
        an_identity(user_id="user_1", issuer="https://other.example", subject="b"),
    ]
    for identity in (first, *others):
        stores.identities.add(identity)
    assert stores.identities.find(first.issuer, "b") == first
    assert stores.identities.find(first.issuer, "B") is None
    assert stores.identities.find("https://nobody.example", "b") is None
    assert list(stores.identities.of_user("user_1")) == [first, others[1]]
    assert list(stores.identities.of_user("user_3")) == []
    assert list(stores.identities.page(first.issuer, limit=1)) == [others[0]]
    assert list(stores.identities.page(first.issuer, after="a", limit=9)) == [first]
    with pytest.raises(AlreadyExists):
        stores.identities.add(an_identity(user_id="user_2", subject="b"))
    assert stores.identities.find(first.issuer, "b") == first, "and the transaction goes on"
    assert stores.identities.remove(first.issuer, "b")
    assert not stores.identities.remove(first.issuer, "b")
    assert list(stores.identities.of_user("user_1")) == [others[1]]


def test_initial_access_tokens_are_kept_and_listed(stores: Stores) -> None:
    first = an_initial_token(note="für Ännchen", expires_at=LATER)
    second = an_initial_token(
        token_id="initial_2", digest=b"\x00\xff", created_at=LATER, uses=None, used=7, revoked_at=LATER
    )
    for token in (first, second):
        stores.initial_tokens.add(token)
    assert stores.initial_tokens.list() == [second, first]
    assert stores.initial_tokens.find(first.digest) == first
    assert stores.initial_tokens.find(second.digest) == second
    assert stores.initial_tokens.find(b"unknown") is None
    for taken in ({"token_id": "initial_3"}, {"digest": b"another"}):
        with pytest.raises(AlreadyExists):
            stores.initial_tokens.add(an_initial_token(**taken))


def test_an_initial_access_token_is_used_as_often_as_it_may_be(stores: Stores) -> None:
    """R-07"""
    kinds: list[dict[str, Any]] = [{"uses": 2}, {"uses": None}, {"expires_at": LATER}, {"revoked_at": NOW}]
    for number, changes in enumerate(kinds):
        stores.initial_tokens.add(an_initial_token(token_id=f"t{number}", digest=bytes([number]), **changes))
    claimed = [
        stores.initial_tokens.claim(name, LATER) for name in ("t0", "t0", "t0", "t1", "t2", "t3", "t4")
    ]
    assert claimed == [True, True, False, True, False, False, False]
    used = {token.token_id: (token.used, token.state(LATER)) for token in stores.initial_tokens.list()}
    assert used == {
        "t0": (2, InitialTokenState.USED_UP),
        "t1": (1, InitialTokenState.LIVE),
        "t2": (0, InitialTokenState.EXPIRED),
        "t3": (0, InitialTokenState.REVOKED),
    }


def test_an_initial_access_token_is_revoked_once(stores: Stores) -> None:
    stores.initial_tokens.add(an_initial_token())
    assert stores.initial_tokens.revoke("initial_1", LATER)
    assert not stores.initial_tokens.revoke("initial_1", LATER + timedelta(days=1))
    assert not stores.initial_tokens.revoke("unknown", LATER)
    assert stores.initial_tokens.find(an_initial_token().digest) == an_initial_token(revoked_at=LATER)


def test_an_initial_access_token_changes_while_it_is_used(stores: Stores) -> None:
    before = an_initial_token()
    stores.initial_tokens.add(before)
    stores.initial_tokens.add(an_initial_token(token_id="initial_2", digest=b"another"))
    assert stores.initial_tokens.claim(before.token_id, NOW)
    changes: dict[str, Any] = {"policy": "others", "note": "for others", "uses": None, "expires_at": LATER}
    assert stores.initial_tokens.change(before, replace(before, **changes, made_by="somebody", used=9))
    assert stores.initial_tokens.find(before.digest) == replace(before, **changes, used=1)
    assert stores.initial_tokens.find(b"another") == an_initial_token(token_id="initial_2", digest=b"another")
    assert not stores.initial_tokens.change(before, replace(before, note="too late"))
    assert not stores.initial_tokens.change(an_initial_token(token_id="unknown"), before)


def test_initial_tokens_come_in_pages_newest_first(stores: Stores) -> None:
    """Two of one time by their ids."""
    made = [
        an_initial_token(
            token_id=f"initial_{name}", digest=name.encode(), created_at=NOW + timedelta(days=days)
        )
        for name, days in (("c", 0), ("b", 1), ("a", 1), ("d", 2))
    ]
    for token in made:
        stores.initial_tokens.add(token)
    first = stores.initial_tokens.page(limit=2)
    assert [token.token_id for token in first] == ["initial_d", "initial_a"]
    after = (first[-1].created_at, first[-1].token_id)
    left = stores.initial_tokens.page(after=after, limit=9)
    assert [token.token_id for token in left] == ["initial_b", "initial_c"]
    assert stores.initial_tokens.find_by_id("initial_b") == made[1]
    assert stores.initial_tokens.find_by_id("b") is None


def test_what_was_declared_is_listed_replaced_and_forgotten(stores: Stores) -> None:
    """R-17"""
    client = a_declaration()
    resource = a_declaration(
        kind=DeclaredKind.RESOURCE, name="urn:Ä", target="urn:Ä", of_set="others", references={}
    )
    token = a_declaration(kind=DeclaredKind.INITIAL_TOKEN, target="initial_1")
    for declaration in (resource, token, client):
        stores.declarations.keep(declaration)
    assert stores.declarations.list() == [client, token, resource]
    changed = a_declaration(target="another", of_set="others", references={"logo": {"file": "a.svg"}})
    stores.declarations.keep(changed)
    assert stores.declarations.list() == [changed, token, resource]
    assert stores.declarations.forget(DeclaredKind.CLIENT, "reports")
    assert not stores.declarations.forget(DeclaredKind.CLIENT, "reports")
    assert stores.declarations.list() == [token, resource]


def test_what_is_beside_the_ini_is_listed_replaced_and_removed(stores: Stores) -> None:
    """R-17"""
    scope, umlaut = a_stored_setting(), a_stored_setting(name="Ä")
    limit = a_stored_setting(kind=DeclaredKind.LIMIT, value={"count": 10, "key": "account"})
    for setting in (umlaut, scope, limit):
        stores.stored_settings.keep(setting)
    assert {each.kind: each for each in stores.stored_settings.list() if each != umlaut} == {
        DeclaredKind.LIMIT: limit,
        DeclaredKind.SCOPE: scope,
    }
    changed = a_stored_setting(value={"sentence": "Ä"})
    stores.stored_settings.keep(changed)
    assert changed in stores.stored_settings.list()
    assert stores.stored_settings.find(DeclaredKind.SCOPE, "calendar") == changed
    assert stores.stored_settings.hold(DeclaredKind.SCOPE, "calendar") == changed
    assert stores.stored_settings.find(DeclaredKind.ISSUER, "calendar") is None
    assert stores.stored_settings.hold(DeclaredKind.ISSUER, "calendar") is None
    assert stores.stored_settings.remove(DeclaredKind.SCOPE, "calendar")
    assert not stores.stored_settings.remove(DeclaredKind.SCOPE, "calendar")
    assert {each.name for each in stores.stored_settings.list()} == {"Ä", "calendar"}


def test_a_resource_comes_back_as_it_was(stores: Stores) -> None:
    """O-09: by its canonical form, as it is registered."""
    full = a_resource(
        token_format=AccessTokenFormat.OPAQUE,
        token_lifetime=300,
        is_default=True,
        introspecting_clients=("the api", "https://other.example/"),
    )
    bare = a_resource(form="urn:bare", uri="urn:bare", name="", scopes=None)
    none = a_resource(form="urn:none", uri="urn:none", scopes=())
    for resource in (bare, full, none):
        stores.resources.add(resource)
    assert stores.resources.list() == [full, bare, none]
    assert stores.resources.page(limit=2) == [full, bare]
    assert stores.resources.page(after=bare.form, limit=2) == [none]
    assert [stores.resources.find(each.form) for each in (full, bare, none)] == [full, bare, none]
    assert stores.resources.find(full.uri) is None
    assert stores.resources.default() == full


def test_a_resource_is_kept_once_and_one_is_the_default(stores: Stores) -> None:
    """O-08."""
    stores.resources.add(a_resource(is_default=True))
    for taken in (a_resource(name="again"), a_resource(form="urn:other", uri="urn:other", is_default=True)):
        with pytest.raises(AlreadyExists):
            stores.resources.add(taken)
    stores.resources.add(a_resource(form="urn:other", uri="urn:other"))
    assert [each.form for each in stores.resources.list()] == ["https://api.example/", "urn:other"]


def test_a_resource_changes_only_as_it_was_read(stores: Stores) -> None:
    before = a_resource()
    stores.resources.add(before)
    after = a_resource(uri="https://API.example/", scopes=None, token_lifetime=60, is_default=True)
    assert not stores.resources.change(a_resource(name="Another"), after)
    assert not stores.resources.change(a_resource(form="urn:other"), after)
    assert stores.resources.change(before, after)
    assert not stores.resources.change(before, after)
    assert stores.resources.find(before.form) == stores.resources.default() == after


def test_a_resource_is_removed_once(stores: Stores) -> None:
    stores.resources.add(a_resource(is_default=True))
    assert stores.resources.hold("https://api.example/")
    assert stores.resources.remove("https://api.example/")
    assert not stores.resources.hold("https://api.example/")
    assert not stores.resources.remove("https://api.example/")
    assert stores.resources.find("https://api.example/") is None
    assert stores.resources.default() is None


def test_grants_are_read_page_by_page_and_lose_resources(stores: Stores) -> None:
    """L-08: no statement is long, however many grants there are; what changed meanwhile is not overwritten."""
    grants = [a_grant(grant_id=f"grant_{number}", resources=("urn:a", "urn:b")) for number in range(3)]
    for grant in grants:
        stores.grants.add(grant)
    assert stores.grants.page(limit=2) == grants[:2]
    assert stores.grants.page(after="grant_1", limit=2) == grants[2:]
    assert stores.grants.page(after="grant_2", limit=2) == []
    stores.grants.revoke("grant_1", NOW, "before")
    less = [replace(grant, resources=("urn:b",)) for grant in grants]
    assert stores.grants.narrow(grants[0], less[0])
    assert not stores.grants.narrow(grants[0], replace(grants[0], resources=("urn:a",)))
    assert not stores.grants.narrow(grants[1], less[1])
    assert [each.resources for each in stores.grants.page(limit=9)] == [
        ("urn:b",),
        ("urn:a", "urn:b"),
        ("urn:a", "urn:b"),
    ]


def test_consents_are_read_page_by_page_and_lose_resources(stores: Stores) -> None:
    """L-08."""
    stores.users.add(a_user())
    stores.users.add(a_user(user_id="user_bob", username="bob"))
    consents = [
        a_consent(user_id=user_id, client_id=client_id, resources=("urn:a", "urn:b"))
        for user_id in ("user_ada", "user_bob")
        for client_id in ("files", "notes")
    ]
    for consent in reversed(consents):
        stores.consents.remember(consent)
    assert stores.consents.page(limit=3) == consents[:3]
    assert stores.consents.page(after=("user_bob", "files"), limit=3) == consents[3:]
    assert stores.consents.page(after=("user_ada", "notes"), limit=1) == consents[2:3]
    assert stores.consents.narrow(consents[0], replace(consents[0], resources=("urn:b",)))
    assert not stores.consents.narrow(consents[0], replace(consents[0], resources=("urn:a",)))
    assert not stores.consents.narrow(consents[0], None)
    assert stores.consents.narrow(consents[1], None)
    assert not stores.consents.narrow(consents[1], None)
    assert [each.resources for each in stores.consents.page(limit=9)] == [
        ("urn:b",),
        ("urn:a", "urn:b"),
        ("urn:a", "urn:b"),
    ]


def test_grants_and_consents_lose_scopes(stores: Stores) -> None:
    """L-08: together with what the details say of them; another change of the scopes comes first, or is not overwritten."""
    stores.users.add(a_user())
    grant = a_grant(scopes=("read",)).wider(("read", "write"))
    stores.grants.add(grant)
    left = grant.narrower(("read",))
    assert (left.scopes, left.added_scopes) == (("read",), ())
    assert stores.grants.narrow(grant, left)
    assert stores.grants.find("grant_1") == left
    assert not stores.grants.narrow(grant, left)
    consent = a_consent(scopes=("read", "write"))
    stores.consents.remember(consent)
    fewer = replace(consent, scopes=("read",))
    assert stores.consents.narrow(consent, fewer)
    assert stores.consents.find("user_ada", "reports") == fewer
    assert not stores.consents.narrow(consent, None)


def test_grants_are_found_newest_first_page_by_page(stores: Stores) -> None:
    """E-16, L-08: of a user, of a client, of both, or all; only live ones, and with or without unredeemed codes."""
    stores.users.add(a_user())
    for number in range(6):
        stores.grants.add(
            a_grant(
                grant_id=f"grant_{number}",
                client_id=("reports", "notes")[number % 2],
                user_id="user_ada" if number < 4 else None,
                # Two of them were made at the same time.
                created_at=NOW + timedelta(seconds=number // 2),
                expires_at=NOW if number == 5 else NOW + timedelta(days=1),
            )
        )
    stores.grants.revoke("grant_1", NOW, "before")
    stores.tokens.add(a_token(grant_id="grant_2"))

    def found(**wanted: Any) -> list[str]:
        """In pages of two."""
        ids: list[str] = []
        after = None
        while page := stores.grants.search(GrantFilter(**wanted), after=after, limit=2):
            assert len(page) <= 2
            ids += [grant.grant_id.removeprefix("grant_") for grant in page]
            after = (page[-1].created_at, page[-1].grant_id)
        return ids

    assert found() == ["5", "4", "3", "2", "1", "0"]
    assert found(client_id="reports") == ["4", "2", "0"]
    assert found(user_id="user_ada") == ["3", "2", "1", "0"]
    assert found(user_id="user_ada", client_id="notes") == ["3", "1"]
    assert found(live_at=NOW) == ["4", "3", "2", "0"]
    assert found(live_at=NOW, redeemed=True) == ["4", "3", "0"]
    assert found(client_id="notes", live_at=NOW) == ["3"]
    assert found(user_id="user_bob") == []


def test_several_grants_are_revoked_at_once(stores: Stores) -> None:
    """L-08: the named grants, except those that were revoked before."""
    for number in range(4):
        stores.grants.add(a_grant(grant_id=f"grant_{number}"))
    stores.grants.revoke("grant_1", NOW, "before")
    assert stores.grants.revoke_some(["grant_0", "grant_1", "grant_2", "unknown"], LATER, "ended") == 2
    assert stores.grants.revoke_some([], LATER, "ended") == 0
    found = [stores.grants.find(f"grant_{number}") for number in range(4)]
    assert [grant and grant.revoked_reason for grant in found] == ["ended", "before", "ended", None]


def _add_chain(stores: Stores) -> None:
    """grant_0 → grant_1 → grant_2, each with another client, and grant_3 apart from them."""
    stores.users.add(a_user())
    for number, parent in enumerate((None, "grant_0", "grant_1", None)):
        stores.grants.add(
            a_grant(
                grant_id=f"grant_{number}",
                client_id=f"client_{number}",
                user_id=a_user().user_id,
                parent_id=parent,
                created_at=NOW + timedelta(seconds=number),
            )
        )


def _revoked(stores: Stores) -> list[int]:
    found = [stores.grants.find(f"grant_{number}") for number in range(4)]
    return [number for number, grant in enumerate(found) if grant and grant.revoked_at is not None]


def test_what_was_derived_from_a_grant_is_found_and_can_be_held(stores: Stores) -> None:
    """TX-10: at any distance; a grant that has ended is not found, and cannot be held."""
    _add_chain(stores)
    assert {each.grant_id for each in stores.grants.derived(["grant_0"], NOW)} == {"grant_1", "grant_2"}
    assert stores.grants.derived(["grant_2", "grant_3"], NOW) == stores.grants.derived([], NOW) == []
    assert stores.grants.hold(["grant_0", "grant_1"])
    stores.grants.revoke("grant_1", LATER, "ended")
    assert not stores.grants.hold(["grant_0", "grant_1"])
    assert not stores.grants.hold(["grant_0", "unknown"])
    assert stores.grants.derived(["grant_0"], NOW) == []


@pytest.mark.parametrize(
    ("revoke", "counted"),
    [
        (lambda grants: grants.revoke("grant_0", LATER, "ended"), True),
        (lambda grants: grants.revoke_some(["grant_0"], LATER, "ended"), 1),
        (lambda grants: grants.revoke_of_client("client_0", LATER, "ended"), 1),
        (lambda grants: grants.revoke_of_user(a_user().user_id, LATER, "ended", client_id="client_0"), 1),
    ],
    ids=["one", "some", "client", "user-to-client"],
)
def test_what_was_derived_from_a_grant_ends_with_it(
    stores: Stores, revoke: Callable[[Any], int], counted: int
) -> None:
    """TX-10, T163: in every way to revoke it, and whichever client has the derived grant."""
    _add_chain(stores)
    assert revoke(stores.grants) == counted
    assert _revoked(stores) == [0, 1, 2]
    assert not revoke(stores.grants)


def test_what_a_grant_was_derived_from_stays_when_it_ends(stores: Stores) -> None:
    """TX-10: only the grants that are derived from it end with it."""
    _add_chain(stores)
    assert stores.grants.revoke_of_client("client_1", LATER, "ended") == 1
    assert _revoked(stores) == [1, 2]


def test_the_live_codes_and_tokens_of_grants_are_counted(stores: Stores) -> None:
    """L-08: without those that were used, have expired, or are of another grant."""
    for number in range(2):
        stores.grants.add(a_grant(grant_id=f"grant_{number}"))
    none: dict[str, Any] = {}
    for number, (kind, members) in enumerate(
        [
            (TokenKind.CODE, none),
            (TokenKind.REFRESH, {}),
            (TokenKind.REFRESH, {"claimed_at": NOW}),
            (TokenKind.ACCESS, {}),
            (TokenKind.ACCESS, {"grant_id": "grant_1"}),
            (TokenKind.ACCESS, {"expires_at": NOW}),
        ]
    ):
        values: dict[str, Any] = {"grant_id": "grant_0", **members}
        stores.tokens.add(a_token(kind=kind, digest=bytes([number]), **values))
    live = {TokenKind.CODE: 1, TokenKind.REFRESH: 1, TokenKind.ACCESS: 1}
    assert dict(stores.tokens.count_live(["grant_0"], NOW)) == live
    assert dict(stores.tokens.count_live(["grant_0", "grant_1"], NOW)) == {**live, TokenKind.ACCESS: 2}
    assert dict(stores.tokens.count_live([], NOW)) == {}


def test_consents_are_counted_paged_and_forgotten_by_client(stores: Stores) -> None:
    """E-16, L-08."""
    for name in ("ada", "bob", "eve"):
        stores.users.add(a_user(user_id=f"user_{name}", username=name))
        for client_id in ("notes", "reports"):
            stores.consents.remember(a_consent(user_id=f"user_{name}", client_id=client_id))
    consents = stores.consents
    assert (consents.count(), consents.count(user_id="user_ada"), consents.count(client_id="notes")) == (
        6,
        2,
        3,
    )
    first = consents.page(limit=2, client_id="notes")
    assert [each.user_id for each in first] == ["user_ada", "user_bob"]
    rest = consents.page(limit=2, client_id="notes", after=("user_bob", "notes"))
    assert [each.user_id for each in rest] == ["user_eve"]
    assert [each.client_id for each in consents.page(limit=9, user_id="user_bob")] == ["notes", "reports"]
    assert len(consents.page(limit=9, user_id="user_bob", client_id="notes")) == 1
    assert consents.forget_some(2, client_id="notes") == 2
    assert consents.forget_some(2, client_id="notes") == 1
    assert consents.forget_some(2, client_id="notes") == 0
    assert consents.count() == 3


def test_who_issues_is_told_who_was_disabled(stores: Stores) -> None:
    """R-09, L-08: a client that is kept elsewhere cannot be disabled here."""
    stores.clients.add(a_client())
    stores.users.add(a_user())
    assert stores.clients.hold("reports")
    assert stores.clients.hold("elsewhere")
    assert stores.users.hold_enabled("user_ada")
    assert not stores.users.hold_enabled("unknown")
    stores.clients.disable("reports", NOW)
    stores.users.disable("user_ada", NOW)
    assert not stores.clients.hold("reports")
    assert not stores.users.hold_enabled("user_ada")


def test_clients_are_searched_by_a_text_in_their_id_or_name(stores: Stores) -> None:
    """Page by page; characters with a meaning in patterns are characters like all others."""
    for client_id, name in (
        ("a", "Notes"),
        ("b_1", "100 % École"),
        ("c", "my notes\\archive"),
        ("notes", "Reports"),
        ("z", "Z"),
    ):
        stores.clients.add(a_client(client_id=client_id, name=name))

    def ids(text: str, **page: Any) -> list[str]:
        return [client.client_id for client in stores.clients.search(NOW, text, **{"limit": 9, **page})]

    assert ids("NOTES") == ["a", "c", "notes"]
    assert ids("notes", limit=2) == ["a", "c"]
    assert ids("notes", after="c") == ["notes"]
    assert ids("") == ["a", "b_1", "c", "notes", "z"]
    assert (ids("%"), ids("_"), ids("\\")) == (["b_1"], ["b_1"], ["c"])
    assert ids("École") == ["b_1"]
    assert ids("\0") == ids("nobody") == []


def test_clients_are_searched_by_who_registered_them_and_what_became_of_them(stores: Stores) -> None:
    """A used secret counts as a use; a secret that has ended does not, as in `Client.last_use`."""
    unused = ClientSecret(digest=b"digest", key_id="key", created_at=NOW - timedelta(days=2))
    used = replace(unused, last_used_at=NOW - timedelta(days=1))
    for client in (
        a_client(client_id="idle", last_used_at=NOW),
        a_client(client_id="introspects", secrets=(used,)),
        a_client(client_id="lapsed", secrets=(replace(used, expires_at=NOW - timedelta(hours=1)),)),
        a_client(client_id="new", secrets=(unused,), registered_by=RegisteredBy.SELF),
        a_client(client_id="over", disabled_at=NOW, registered_by=RegisteredBy.SELF),
    ):
        stores.clients.add(client)

    def ids(text: str = "", **wanted: Any) -> list[str]:
        return [client.client_id for client in stores.clients.search(NOW, text, **{"limit": 9, **wanted})]

    assert ids(registered_by=RegisteredBy.SELF) == ["new", "over"]
    assert ids(registered_by=RegisteredBy.SELF, enabled=True) == ["new"]
    assert ids(enabled=False) == ["over"]
    assert ids(never_used=True) == ["lapsed", "new", "over"]
    assert ids("e", never_used=True, enabled=True, after="lapsed") == ["new"]
    assert ids(registered_by=RegisteredBy.OPERATOR, limit=2) == ["idle", "introspects"]


def test_users_are_searched_by_how_their_name_begins(stores: Stores) -> None:
    for number, name in enumerate(("ann", "anna", "a%", "bob", "o'brien", "ob")):
        stores.users.add(a_user(user_id=f"user_{number}", username=name))

    def names(prefix: str, **page: Any) -> set[str]:
        return {user.username for user in stores.users.page(prefix=prefix, **{"limit": 9, **page})}

    assert names("ann") == {"ann", "anna"}
    assert names("ann", after="ann") == {"anna"}
    assert names("a%") == {"a%"}
    assert names("o") == {"o'brien", "ob"}
    assert len(names("", limit=3)) == 3
    assert names("zoe") == names("\0") == set()
    assert names("", disabled=True) == set()
    for user_id in ("user_1", "user_3"):
        stores.users.disable(user_id, LATER)
    assert names("", disabled=True) == {"anna", "bob"}
    assert names("a", disabled=True) == names("", disabled=True, limit=1) == {"anna"}
    assert names("ann") == {"ann", "anna"}


def test_the_codes_and_tokens_of_a_grant_are_listed_newest_first(stores: Stores) -> None:
    for number in range(2):
        stores.grants.add(a_grant(grant_id=f"grant_{number}"))
    for number, kind in enumerate((TokenKind.CODE, TokenKind.REFRESH, TokenKind.ACCESS, TokenKind.REFRESH)):
        stores.tokens.add(
            a_token(
                kind=kind,
                digest=bytes([number]),
                grant_id="grant_0",
                created_at=NOW + timedelta(minutes=min(number, 2)),
            )
        )
    stores.tokens.add(a_token(grant_id="grant_1", digest=b"another"))
    found = stores.tokens.newest("grant_0", limit=9)
    assert [token.digest for token in found] == [b"\2", b"\3", b"\1", b"\0"]
    assert [token.digest for token in stores.tokens.newest("grant_0", limit=2)] == [b"\2", b"\3"]
    assert stores.tokens.newest("nothing", limit=9) == []


def test_the_access_tokens_of_grants_are_listed_while_they_live(stores: Stores) -> None:
    for number in range(3):
        stores.grants.add(a_grant(grant_id=f"grant_{number}"))
    tokens = [
        a_token(
            kind=TokenKind.ACCESS,
            digest=bytes([number]),
            grant_id=f"grant_{number % 3}",
            expires_at=LATER + timedelta(seconds=number),
        )
        for number in range(5)
    ]
    for token in (*tokens, a_token(grant_id="grant_1")):
        stores.tokens.add(token)
    found = stores.tokens.access_tokens(["grant_0", "grant_1"], LATER)
    assert sorted(token.digest for token in found) == [b"\1", b"\3", b"\4"]
    assert all(token in tokens for token in found)
    assert stores.tokens.access_tokens([], LATER) == []


def test_a_logo_is_found_by_its_client_and_digest(stores: Stores) -> None:
    first = Logo(digest="1", media_type="image/png", body=b"\x89PNG\x00\xff")
    second = Logo(digest="2", media_type="image/svg+xml", body=b"<svg/>")
    stores.clients.add(a_client())
    stores.clients.add(a_client(client_id="other"))
    stores.clients.keep_logo("reports", first)
    stores.clients.keep_logo("other", first)
    assert stores.clients.find_logo("reports", "1") == first
    stores.clients.keep_logo("reports", second)
    assert stores.clients.find_logo("reports", "1") is None
    assert stores.clients.find_logo("reports", "2") == second
    stores.clients.keep_logo("reports", None)
    stores.clients.keep_logo("reports", None)
    for client_id, digest in (("reports", "2"), ("unknown", "1"), ("reports\0", "2"), ("other", "1\0")):
        assert stores.clients.find_logo(client_id, digest) is None
    assert stores.clients.find_logo("other", "1") == first


def test_origins_of_enabled_clients_are_known(stores: Stores) -> None:
    redirect_uris = (
        "https://a.example/cb",
        "https://a.example/other",
        "https://b.example:8443/cb",
        "http://127.0.0.1:4000/cb",
        "http://[::1]/cb",
        "com.example.app:/cb",
    )
    stores.clients.add(a_client(redirect_uris=redirect_uris))
    for origin in ("https://a.example", "https://b.example:8443", "http://127.0.0.1:9", "http://[::1]:5"):
        assert stores.clients.knows_origin(origin), origin
    for origin in (
        "https://b.example",
        "http://a.example",
        "https://a.example.evil",
        "http://localhost:4000",
        "null",
        "",
        "https://a.example\0",
    ):
        assert not stores.clients.knows_origin(origin), origin
    stores.clients.disable("reports", LATER)
    assert not stores.clients.knows_origin("https://a.example")


def test_a_user_is_found_by_id_and_by_name(stores: Stores) -> None:
    user = a_user(
        password_hash="$argon2id$…",
        groups=("Finance & Tax", "staff"),
        attributes=MappingProxyType({"department": ("Zürich", "Basel")}),
    )
    stores.users.add(user)
    assert stores.users.find("user_ada") == user
    assert stores.users.find_by_name("ada") == user
    assert stores.users.find("ada") is None
    assert stores.users.find_by_name("user_ada") is None
    assert stores.users.find_by_name("ada\0") is None


def test_what_is_kept_of_a_user_is_replaced(stores: Stores) -> None:
    user = a_user(password_hash="$argon2id$…")
    stores.users.add(user)
    changed = replace(
        user, display_name="Ada", groups=("staff",), attributes=MappingProxyType({"room": ("1",)})
    )
    assert stores.users.change(changed, instead_of=user)
    assert stores.users.find("user_ada") == changed
    assert not stores.users.change(user, instead_of=user)
    assert stores.users.find("user_ada") == changed
    assert stores.users.change(replace(user, password_hash="another"))
    assert stores.users.find("user_ada") == user
    assert not stores.users.change(a_user(user_id="user_gone", username="gone"))


@pytest.mark.parametrize("other", [{"display_name": "B"}, {"groups": ("a",)}, {"attributes": {"a": ("b",)}}])
def test_a_user_who_was_changed_meanwhile_stays_so(stores: Stores, other: dict[str, Any]) -> None:
    user = a_user(groups=("staff",), attributes=MappingProxyType({"room": ("1",)}))
    stores.users.add(user)
    assert not stores.users.change(replace(user, groups=()), instead_of=replace(user, **other))
    assert stores.users.find("user_ada") == user


@pytest.mark.parametrize("taken", [{"username": "bob"}, {"user_id": "user_bob"}])
def test_a_user_id_and_a_username_are_taken_once(stores: Stores, taken: dict[str, str]) -> None:
    stores.users.add(a_user())
    with pytest.raises(AlreadyExists):
        stores.users.add(a_user(**taken))
    assert stores.users.list() == [a_user()]


def test_users_are_listed_by_name_and_disabled_once(stores: Stores) -> None:
    """R-09."""
    stores.users.add(a_user(user_id="user_2", username="zoe"))
    stores.users.add(a_user())
    assert [user.username for user in stores.users.list()] == ["ada", "zoe"]
    assert stores.users.disable("user_2", LATER)
    assert not stores.users.disable("user_2", LATER)
    assert not stores.users.disable("unknown", LATER)
    zoe = stores.users.find("user_2")
    assert zoe is not None
    assert zoe.disabled_at == LATER


def test_users_are_read_page_by_page_in_the_order_of_their_names(stores: Stores) -> None:
    for number in (3, 1, 2):
        stores.users.add(a_user(user_id=f"user_{number}", username=f"name{number}"))
    assert [user.username for user in stores.users.page(limit=2)] == ["name1", "name2"]
    assert [user.username for user in stores.users.page(after="name2", limit=2)] == ["name3"]
    assert stores.users.page(after="name3", limit=2) == []


def test_several_users_are_found_at_once(stores: Stores) -> None:
    stores.users.add(a_user(user_id="user_2", username="zoe"))
    stores.users.add(a_user())
    found = stores.users.find_all(["user_ada", "user_2", "user_gone"])
    assert sorted(user.username for user in found) == ["ada", "zoe"]
    assert stores.users.find_all([]) == []


def test_a_disabled_user_is_enabled_once(stores: Stores) -> None:
    stores.users.add(a_user())
    assert not stores.users.enable("user_ada")
    assert stores.users.disable("user_ada", LATER)
    assert stores.users.enable("user_ada")
    assert stores.users.find("user_ada") == a_user()
    assert not stores.users.enable("user_ada")
    assert not stores.users.enable("unknown")


def test_a_grant_is_revoked_once_and_its_tokens_show_it(stores: Stores) -> None:
    grant = a_grant(details={"amr": ["pwd"], "auth_time": 1})
    stores.grants.add(grant)
    stores.tokens.add(a_token())
    assert stores.grants.find("grant_1") == grant
    assert stores.grants.find("grant_2") is None
    assert stores.grants.revoke("grant_1", LATER, "code-replayed")
    assert not stores.grants.revoke("grant_1", LATER + timedelta(days=1), "again")
    assert not stores.grants.revoke("grant_2", LATER, "unknown")
    revoked = replace(grant, revoked_at=LATER, revoked_reason="code-replayed")
    assert stores.grants.find("grant_1") == revoked
    assert stores.tokens.find(TokenKind.CODE, a_token().digest) == FoundToken(
        token=a_token(), grant=revoked, user=None
    )


def test_a_grant_is_found_with_its_user(stores: Stores) -> None:
    user, grant = a_user(), a_grant(grant_id="grant_2", user_id="user_ada")
    stores.users.add(user)
    stores.grants.add(grant)
    stores.grants.add(a_grant())
    assert stores.grants.find_with_user("grant_2") == FoundGrant(grant=grant, user=user)
    assert stores.grants.find_with_user("grant_1") == FoundGrant(grant=a_grant(), user=None)
    assert stores.grants.find_with_user("grant_3") is None
    stores.grants.revoke("grant_2", LATER, "token-revoked")
    stores.users.disable("user_ada", LATER)
    assert stores.grants.find_with_user("grant_2") == FoundGrant(
        grant=replace(grant, revoked_at=LATER, revoked_reason="token-revoked"),
        user=replace(user, disabled_at=LATER),
    )


def test_a_token_is_found_with_its_grant_and_user(stores: Stores) -> None:
    user, grant = a_user(), a_grant(user_id="user_ada")
    token = a_token(details={"redirect_uri": "https://reports.example/callback", "code_challenge": "x"})
    stores.users.add(user)
    stores.grants.add(grant)
    stores.tokens.add(token)
    assert stores.tokens.find(TokenKind.CODE, token.digest) == FoundToken(token=token, grant=grant, user=user)


def test_a_digest_of_another_kind_is_another_token(stores: Stores) -> None:
    stores.grants.add(a_grant())
    stores.tokens.add(a_token())
    assert stores.tokens.find(TokenKind.REFRESH, a_token().digest) is None
    refresh = a_token(kind=TokenKind.REFRESH)
    stores.tokens.add(refresh)
    assert stores.tokens.claim(refresh, LATER)
    code = stores.tokens.find(TokenKind.CODE, refresh.digest)
    assert code is not None
    assert code.token.claimed_at is None


def test_a_token_is_kept_once(storage: Storage) -> None:
    """The second one is refused at the end of its transaction, if not before."""
    with storage.begin() as stores:
        stores.grants.add(a_grant())
        stores.tokens.add(a_token())
    with pytest.raises(AlreadyExists), storage.begin() as stores:
        stores.tokens.add(a_token(scopes=("other",)))
    with storage.begin() as stores:
        found = stores.tokens.find(TokenKind.CODE, a_token().digest)
    assert found is not None
    assert found.token == a_token()


def test_what_is_foreseen_is_found_as_it_is_then(stores: Stores) -> None:
    """Also records that were written after they were foreseen, or after they were read together with others."""
    token, grant = a_token(), a_grant()
    stores.grants.add(grant)
    stores.tokens.add(token)

    def foresee() -> None:
        stores.tokens.foresee(token.kind, token.digest)
        stores.tokens.foresee(TokenKind.REFRESH, b"unknown")
        stores.grants.foresee_with_user(grant.grant_id)

    def found() -> tuple[object, ...]:
        return (
            stores.tokens.find(token.kind, token.digest),
            stores.tokens.find(TokenKind.REFRESH, b"unknown"),
            stores.grants.find_with_user(grant.grant_id),
        )

    unclaimed = found()
    assert unclaimed == (
        FoundToken(token=token, grant=grant, user=None),
        None,
        FoundGrant(grant=grant, user=None),
    )
    foresee()
    stores.clients.find("another", NOW)
    assert found() == unclaimed
    foresee()
    stores.clients.find("another", NOW)
    assert stores.tokens.claim(token, LATER)
    claimed = found()
    assert claimed[0] == FoundToken(token=replace(token, claimed_at=LATER), grant=grant, user=None)
    foresee()
    assert stores.grants.revoke(grant.grant_id, LATER, "code-replayed")
    assert stores.tokens.find(TokenKind.REFRESH, b"unknown") is None
    assert found()[2] == FoundGrant(
        grant=replace(grant, revoked_at=LATER, revoked_reason="code-replayed"), user=None
    )


def test_a_small_record_is_kept_once_and_comes_back_as_it_was(stores: Stores) -> None:
    """R-07: only one of each kind and digest; adding a second one returns False."""
    stores.grants.add(a_grant())
    record = a_kept_record(
        client_id="of a plugin",
        grant_id="grant_1",
        claimed_at=LATER,
        details={"text": "é\n", "number": 1.5, "nothing": None, "nested": {"list": [1, "2"]}},
    )
    assert stores.kept.find(record.kind, record.digest) is None
    assert stores.kept.add_once(record)
    assert not stores.kept.add_once(a_kept_record())
    assert stores.kept.find(record.kind, record.digest) == record
    assert stores.kept.add_once(a_kept_record(kind="another"))
    assert stores.kept.find("another", record.digest) == a_kept_record(kind="another")


def test_a_small_record_is_changed_by_whoever_read_it_last(stores: Stores) -> None:
    """R-07: whichever field was changed meanwhile, and whether it was null or not."""
    stores.grants.add(a_grant())
    first = a_kept_record(details={"tries": 0, "by": {"a": 1}})
    second = replace(first, details={"tries": 1})
    third = replace(second, client_id="reports", grant_id="grant_1", expires_at=LATER, claimed_at=NOW)
    assert not stores.kept.change(first, second)
    assert stores.kept.add_once(first)
    assert stores.kept.change(first, second)
    assert not stores.kept.change(first, third)
    assert stores.kept.change(second, third)
    assert not stores.kept.change(second, first)
    assert stores.kept.find(first.kind, first.digest) == third
    assert stores.kept.change(third, first)
    assert stores.kept.find(first.kind, first.digest) == first


def test_a_small_record_is_claimed_once_and_before_it_expires(stores: Stores) -> None:
    """R-07."""
    record, expired = a_kept_record(), a_kept_record(kind="expired", expires_at=LATER)
    assert not stores.kept.claim(record, LATER)
    assert stores.kept.add_once(record)
    assert stores.kept.add_once(expired)
    assert stores.kept.claim(record, LATER)
    assert not stores.kept.claim(record, LATER)
    assert not stores.kept.claim(expired, LATER)
    assert stores.kept.find(record.kind, record.digest) == replace(record, claimed_at=LATER)
    assert stores.kept.find(expired.kind, expired.digest) == expired


def test_a_token_is_claimed_once_and_keeps_its_first_successor(stores: Stores) -> None:
    """R-07."""
    stores.grants.add(a_grant())
    stores.tokens.add(a_token())
    assert stores.tokens.claim(a_token(), LATER, successor_digest=b"next", sealed_successor=b"sealed")
    assert not stores.tokens.claim(a_token(), LATER, successor_digest=b"other", sealed_successor=b"other")
    found = stores.tokens.find(TokenKind.CODE, a_token().digest)
    assert found is not None
    assert found.token == a_token(claimed_at=LATER, successor_digest=b"next", sealed_successor=b"sealed")


def test_a_claim_is_seen_by_what_comes_next(stores: Stores) -> None:
    """R-07."""
    stores.grants.add(a_grant())
    stores.tokens.add(a_token())
    assert stores.tokens.claim(a_token(), LATER, successor_digest=b"next", sealed_successor=b"sealed")
    stores.tokens.add(a_token(digest=b"next"))
    assert not stores.tokens.claim(a_token(), LATER)
    found = stores.tokens.find(TokenKind.CODE, a_token().digest)
    assert found is not None
    assert found.token == a_token(claimed_at=LATER, successor_digest=b"next", sealed_successor=b"sealed")


def test_a_token_of_a_revoked_grant_or_none_cannot_be_claimed(stores: Stores) -> None:
    stores.grants.add(a_grant())
    stores.tokens.add(a_token())
    stores.grants.revoke("grant_1", LATER, "user")
    assert not stores.tokens.claim(a_token(), LATER)
    assert not stores.tokens.claim(a_token(digest=b"unknown"), LATER)


def test_only_the_token_that_is_meant_is_claimed(stores: Stores) -> None:
    stores.grants.add(a_grant())
    stores.tokens.add(a_token())
    stores.tokens.add(a_token(digest=b"other"))
    assert stores.tokens.claim(a_token(), LATER)
    other = stores.tokens.find(TokenKind.CODE, b"other")
    assert other is not None
    assert other.token.claimed_at is None


def test_wrong_proofs_use_a_code_up(stores: Stores) -> None:
    """T035.b."""
    stores.grants.add(a_grant())
    stores.tokens.add(a_token())
    for failures in (1, 2):
        stores.tokens.note_failure(a_token(), LATER, limit=3)
        found = stores.tokens.find(TokenKind.CODE, a_token().digest)
        assert found is not None
        assert found.token == a_token(failures=failures)
    stores.tokens.note_failure(a_token(), LATER, limit=3)
    found = stores.tokens.find(TokenKind.CODE, a_token().digest)
    assert found is not None
    assert found.token == a_token(failures=3, claimed_at=LATER)
    assert not stores.tokens.claim(a_token(), LATER)


def test_failures_of_a_claimed_token_are_not_counted(stores: Stores) -> None:
    stores.grants.add(a_grant())
    stores.tokens.add(a_token())
    stores.tokens.claim(a_token(), LATER)
    stores.tokens.note_failure(a_token(), LATER + timedelta(days=1), limit=1)
    found = stores.tokens.find(TokenKind.CODE, a_token().digest)
    assert found is not None
    assert found.token == a_token(claimed_at=LATER)


def test_the_last_consent_takes_the_place_of_the_one_before(stores: Stores) -> None:
    stores.users.add(a_user())
    stores.consents.remember(a_consent())
    stores.consents.remember(a_consent(client_id="other"))
    second = a_consent(scopes=("read", "write"), resources=("https://api.example",), granted_at=LATER)
    stores.consents.remember(second)
    assert stores.consents.find("user_ada", "reports") == second
    assert stores.consents.find("user_ada", "other") == a_consent(client_id="other")
    assert stores.consents.find("user_ada", "unknown") is None


def test_a_session_lives_until_it_expires_or_idles_or_ends(stores: Stores) -> None:
    user, session = a_user(), a_session(details={"amr": ["pwd"]})
    stores.users.add(user)
    stores.sessions.add(session)
    found = FoundSession(session=session, user=user)
    assert stores.sessions.find(session.digest, LATER, IDLE_SINCE) == found
    assert stores.sessions.find(session.digest, LATER, session.last_seen_at) == found
    assert (
        stores.sessions.find(session.digest, LATER, session.last_seen_at + timedelta(microseconds=1)) is None
    )
    assert stores.sessions.find(session.digest, session.expires_at, IDLE_SINCE) is None
    assert stores.sessions.find(b"unknown", LATER, IDLE_SINCE) is None
    stores.sessions.end(session.digest)
    stores.sessions.end(session.digest)
    assert stores.sessions.find(session.digest, LATER, IDLE_SINCE) is None


def test_a_session_is_seen_later_never_earlier(storage: Storage) -> None:
    """It is written at the end of the transaction, so that other transactions do not wait for it."""
    with storage.begin() as stores:
        stores.users.add(a_user())
        stores.sessions.add(a_session())
    for seen in (LATER, NOW):
        with storage.begin() as stores:
            stores.sessions.touch(a_session().digest, seen)
        with storage.begin() as stores:
            found = stores.sessions.find(a_session().digest, LATER, IDLE_SINCE)
            assert found is not None
            assert found.session == a_session(last_seen_at=LATER)


def test_a_password_is_held_until_it_is_replaced(stores: Stores) -> None:
    """I-14: also that of a user who has none."""
    user = a_user(password_hash="hash")
    stores.users.add(user)
    assert stores.users.hold(user)
    stores.users.set_password(user.user_id, "another")
    assert not stores.users.hold(user)
    stores.users.set_password(user.user_id, None)
    assert not stores.users.hold(user)
    assert stores.users.hold(a_user(password_hash=None))
    assert not stores.users.hold(a_user(user_id="user_unknown"))


def test_a_session_is_held_until_it_ends(stores: Stores) -> None:
    """I-14, T068."""
    stores.users.add(a_user())
    stores.sessions.add(a_session())
    assert stores.sessions.hold(a_session().digest)
    stores.sessions.end_all("user_ada")
    assert not stores.sessions.hold(a_session().digest)


def test_a_disabled_user_has_no_session(stores: Stores) -> None:
    """R-09."""
    stores.users.add(a_user())
    stores.sessions.add(a_session())
    stores.users.disable("user_ada", LATER)
    assert stores.sessions.find(a_session().digest, LATER, IDLE_SINCE) is None


def test_an_algorithm_has_one_key_that_nothing_is_to_replace(stores: Stores) -> None:
    """T113."""
    assert stores.signing_keys.add(a_signing_key())
    assert not stores.signing_keys.add(a_signing_key(kid="key-2"))
    replaced = a_signing_key(kid="key-0", created_at=NOW - timedelta(days=1), retires_at=LATER)
    rsa = a_signing_key(kid="key-3", algorithm="RS256", created_at=LATER)
    assert stores.signing_keys.add(replaced)
    assert stores.signing_keys.add(rsa)
    assert stores.signing_keys.list() == [replaced, a_signing_key(), rsa]


def test_a_key_changes_only_as_it_was_read(stores: Stores) -> None:
    """T113, T144: of two rotations at the same time, one fails."""
    before = a_signing_key()
    stores.signing_keys.add(before)
    after = replace(before, retires_at=LATER, ends_at=LATER, sealed_private_jwk=None)
    assert stores.signing_keys.change(before, after)
    assert not stores.signing_keys.change(before, replace(before, retires_at=NOW))
    assert stores.signing_keys.list() == [after]
    assert stores.signing_keys.change(after, before)
    assert stores.signing_keys.list() == [before]


def test_a_key_of_the_ring_is_noted_once(stores: Stores) -> None:
    """T148: the second one fails, with any key."""
    assert stores.ring_keys.list() == []
    assert stores.ring_keys.add(a_ring_key())
    assert not stores.ring_keys.add(a_ring_key())
    assert not stores.ring_keys.add(a_ring_key(fingerprint=b"another", first_used_at=LATER))
    assert stores.ring_keys.add(a_ring_key(key_id="2024"))
    assert stores.ring_keys.list() == [a_ring_key(key_id="2024"), a_ring_key()]


def test_live_secrets_of_enabled_clients_are_counted_by_their_key(stores: Stores) -> None:
    """T148: what is no longer valid needs no key."""

    def secret(digest: bytes, key_id: str, expires_at: datetime | None = None) -> ClientSecret:
        return ClientSecret(digest=digest, key_id=key_id, created_at=NOW, expires_at=expires_at)

    live, over = NOW + timedelta(seconds=1), NOW
    assert stores.clients.count_secrets(NOW) == {}
    stores.clients.add(a_client(secrets=(secret(b"1", "2024", live), secret(b"2", "2025"))))
    stores.clients.add(a_client(client_id="two", secrets=(secret(b"3", "2024"), secret(b"4", "2023", over))))
    stores.clients.add(a_client(client_id="off", secrets=(secret(b"5", "2022"),)))
    stores.clients.disable("off", NOW)
    assert stores.clients.count_secrets(NOW) == {"2024": 2, "2025": 1}


def test_a_secret_changes_only_as_it_was_read(stores: Stores) -> None:
    """R-05."""
    first = ClientSecret(digest=b"first", key_id="k1", created_at=NOW)
    second = ClientSecret(digest=b"second", key_id="k1", created_at=LATER)
    stores.clients.add(a_client(secrets=(first, second)))
    used = replace(first, last_used_at=LATER, digest=b"again", key_id="k2")
    assert stores.clients.change_secret("reports", first, used)
    assert not stores.clients.change_secret("reports", first, replace(first, last_used_at=NOW))
    assert not stores.clients.change_secret("unknown", second, used)
    found = stores.clients.find("reports", NOW)
    assert found is not None
    assert found.secrets == (used, second)


def test_a_noted_secret_changes_with_the_transaction(storage: Storage) -> None:
    """R-05: unless it was changed meanwhile."""
    secret = ClientSecret(digest=b"first", key_id="k1", created_at=NOW)
    with storage.begin() as stores:
        stores.clients.add(a_client(secrets=(secret,)))
    used = replace(secret, last_used_at=LATER, digest=b"again", key_id="k2")
    with storage.begin() as stores:
        stores.clients.note_secret("reports", secret, used)
        stores.clients.note_secret("unknown", secret, used)
    for _ in range(2):
        with storage.begin() as stores:
            found = stores.clients.find("reports", NOW)
            assert found is not None
            assert found.secrets == (used,)
            stores.clients.note_secret("reports", secret, replace(secret, last_used_at=NOW))


def test_a_password_is_replaced(stores: Stores) -> None:
    stores.users.add(a_user(password_hash="old"))
    stores.users.set_password("user_ada", "new")
    assert stores.users.find("user_ada") == a_user(password_hash="new")
    stores.users.set_password("user_ada", None)
    assert stores.users.find("user_ada") == a_user(password_hash=None)


def test_live_grants_are_listed_by_user_and_client(stores: Stores) -> None:
    """E-16."""
    stores.users.add(a_user())
    older = a_grant(user_id="user_ada", created_at=NOW - timedelta(days=1))
    stores.grants.add(older)
    stores.grants.add(a_grant(grant_id="other client", client_id="notes", user_id="user_ada"))
    stores.grants.add(a_grant(grant_id="of nobody", created_at=NOW - timedelta(hours=1)))
    stores.grants.add(a_grant(grant_id="revoked", user_id="user_ada", revoked_at=NOW, revoked_reason="x"))
    stores.grants.add(a_grant(grant_id="over", user_id="user_ada", expires_at=NOW))
    stores.grants.add(a_grant(grant_id="unredeemed", user_id="user_ada"))
    stores.tokens.add(a_token(grant_id="unredeemed"))
    stores.tokens.add(a_token(digest=b"redeemed", claimed_at=NOW))

    def ids(**of: str) -> list[str]:
        return [grant.grant_id for grant in stores.grants.list(NOW, **of)]

    assert ids(user_id="user_ada") == ["other client", "grant_1"]
    assert ids(client_id="reports") == ["of nobody", "grant_1"]
    assert ids(user_id="user_ada", client_id="reports") == ["grant_1"]
    assert stores.grants.list(NOW)[-1] == older
    stores.grants.touch("grant_1", LATER)
    assert stores.grants.find("grant_1") == replace(older, last_used_at=LATER)


def test_all_live_grants_of_a_user_are_revoked_at_once(stores: Stores) -> None:
    """I-14, T073."""
    stores.users.add(a_user())
    stores.grants.add(a_grant(user_id="user_ada"))
    stores.grants.add(a_grant(grant_id="grant_2", user_id="user_ada", client_id="notes"))
    stores.grants.add(a_grant(grant_id="grant_3", user_id="user_ada", client_id="notes"))
    stores.grants.add(a_grant(grant_id="of nobody"))
    assert stores.grants.revoke_of_user("user_ada", LATER, "left", client_id="reports") == 1
    assert stores.grants.revoke_of_user("user_ada", LATER, "signed out") == 2
    assert stores.grants.revoke_of_user("user_ada", LATER, "again") == 0
    assert [grant.grant_id for grant in stores.grants.list(NOW)] == ["of nobody"]
    found = stores.grants.find("grant_1")
    assert found is not None
    assert found.revoked_reason == "left"


def test_all_live_grants_to_a_client_are_revoked_at_once(stores: Stores) -> None:
    """Those of people and its own."""
    stores.users.add(a_user())
    stores.grants.add(a_grant(user_id="user_ada"))
    stores.grants.add(a_grant(grant_id="its own"))
    stores.grants.add(a_grant(grant_id="revoked", revoked_at=NOW, revoked_reason="before"))
    stores.grants.add(a_grant(grant_id="of another", client_id="notes"))
    assert stores.grants.revoke_of_client("reports", LATER, "left") == 2
    assert stores.grants.revoke_of_client("reports", LATER, "again") == 0
    assert [grant.grant_id for grant in stores.grants.list(NOW)] == ["of another"]
    reasons = [stores.grants.find(name) for name in ("grant_1", "its own", "revoked")]
    assert [grant and grant.revoked_reason for grant in reasons] == ["left", "left", "before"]


def test_an_unclaimed_token_of_a_live_grant_can_end_later(stores: Stores) -> None:
    """I-13.a."""
    stores.users.add(a_user())
    stores.grants.add(a_grant())
    token = a_token(kind=TokenKind.REFRESH)
    stores.tokens.add(token)
    assert stores.tokens.extend(token, LATER)
    found = stores.tokens.find(token.kind, token.digest)
    assert found is not None
    assert found.token == replace(token, expires_at=LATER)
    stores.tokens.claim(token, NOW)
    assert not stores.tokens.extend(token, LATER)
    stores.tokens.add(a_token(digest=b"other"))
    stores.grants.revoke("grant_1", NOW, "over")
    assert not stores.tokens.extend(a_token(digest=b"other"), LATER)


def test_a_live_grant_is_widened_unless_it_has_changed(stores: Stores) -> None:
    """I-19: of two that widen it at the same time, the second one must look again."""
    grant = a_grant(scopes=("read",))
    stores.grants.add(grant)
    stores.grants.add(a_grant(grant_id="other"))
    assert stores.grants.widen(grant, ("read", "write"))
    assert not stores.grants.widen(grant, ("read", "delete"))
    wider = stores.grants.find("grant_1")
    assert wider == grant.wider(("read", "write"))
    assert wider.added_scopes == ("write",)
    other = stores.grants.find("other")
    assert other is not None
    assert other.scopes == ("read",)
    stores.grants.revoke("grant_1", NOW, "over")
    assert not stores.grants.widen(wider, ("read", "write", "delete"))
    assert not stores.grants.widen(a_grant(grant_id="unknown"), ("write",))


def test_refresh_tokens_that_can_be_used_are_found_by_user_and_client(stores: Stores) -> None:
    """I-19: with their grants, the newest first; no token that has ended, was used, or belongs to others."""
    stores.users.add(a_user())
    ends: dict[str, Any] = {"expires_at": NOW}
    grants: dict[str, dict[str, Any]] = {
        "older": {"created_at": NOW - timedelta(hours=1)},
        "newer": {"details": {"acr": "gold"}},
        "used": {},
        "idle": {},
        "over": ends,
        "revoked": {"revoked_at": NOW, "revoked_reason": "x"},
        "other client": {"client_id": "notes"},
        "of nobody": {"user_id": None},
        "with a code": {},
    }
    changes: dict[str, dict[str, Any]] = {
        "used": {"claimed_at": NOW},
        "idle": ends,
        "with a code": {"kind": TokenKind.CODE},
    }
    for name, of in grants.items():
        stores.grants.add(a_grant(**{"grant_id": name, "user_id": "user_ada", **of}))
        token: dict[str, Any] = {"kind": TokenKind.REFRESH, "details": {"cnf": {"key": name}}}
        stores.tokens.add(
            a_token(**{**token, "digest": name.encode(), "grant_id": name, **changes.get(name, {})})
        )
    found = stores.tokens.usable_refresh_tokens("user_ada", "reports", NOW, limit=9)
    assert [(each.grant.grant_id, each.token.details) for each in found] == [
        (name, {"cnf": {"key": name}}) for name in ("newer", "older")
    ]
    assert [each.user for each in found] == [a_user(), a_user()]
    assert found[0].grant.details == {"acr": "gold"}
    (newest,) = stores.tokens.usable_refresh_tokens("user_ada", "reports", NOW, limit=1)
    assert newest == found[0]
    assert stores.tokens.usable_refresh_tokens("user_eve", "reports", NOW, limit=9) == []


def test_a_forgotten_consent_is_gone(stores: Stores) -> None:
    stores.users.add(a_user())
    stores.consents.remember(a_consent())
    assert stores.consents.forget("user_ada", "notes") == 0
    assert stores.consents.find("user_ada", "reports") is not None
    assert stores.consents.forget("user_ada", "reports") == 1
    assert stores.consents.find("user_ada", "reports") is None
    assert stores.consents.forget("user_ada", "reports") == 0


def test_a_password_is_replaced_only_by_who_knows_it(stores: Stores) -> None:
    """I-14: of two changes at the same time, the second one finds another password."""
    stores.users.add(a_user(password_hash="first"))
    assert stores.users.set_password("user_ada", "second", instead_of="first")
    assert not stores.users.set_password("user_ada", "third", instead_of="first")
    assert not stores.users.set_password("unknown", "third", instead_of="first")
    found = stores.users.find("user_ada")
    assert found is not None
    assert found.password_hash == "second"
    assert stores.users.set_password("user_ada", None)
    assert not stores.users.set_password("user_ada", "third", instead_of="second")
    assert stores.users.set_password("user_ada", "fourth")


def test_all_consents_of_a_user_are_forgotten(stores: Stores) -> None:
    """I-14: and not those of other users."""
    stores.users.add(a_user())
    stores.users.add(a_user(user_id="user_bob", username="bob"))
    for user_id in ("user_ada", "user_bob"):
        for client_id in ("reports", "notes"):
            stores.consents.remember(a_consent(user_id=user_id, client_id=client_id))
    assert stores.consents.forget("user_ada") == 2
    for client_id in ("reports", "notes"):
        assert stores.consents.find("user_ada", client_id) is None
        assert stores.consents.find("user_bob", client_id) is not None
    assert stores.consents.forget("user_ada") == 0


def test_all_consents_to_a_client_are_forgotten(stores: Stores) -> None:
    """K-21: and not those to other clients."""
    stores.users.add(a_user())
    stores.users.add(a_user(user_id="user_bob", username="bob"))
    for user_id in ("user_ada", "user_bob"):
        for client_id in ("reports", "notes"):
            stores.consents.remember(a_consent(user_id=user_id, client_id=client_id))
    assert stores.consents.forget_client("reports") == 2
    assert [consent.client_id for consent in stores.consents.list()] == ["notes", "notes"]
    assert stores.consents.forget_client("reports") == 0


def test_consents_are_listed_newest_first(stores: Stores) -> None:
    """E-16: of a user, to a client, of a user to a client, or all."""
    stores.users.add(a_user())
    stores.users.add(a_user(user_id="user_bob", username="bob"))
    first, second = a_consent(), a_consent(client_id="notes", granted_at=LATER)
    third = a_consent(user_id="user_bob", granted_at=LATER)
    for consent in (first, second, third):
        stores.consents.remember(consent)
    assert stores.consents.list() == [second, third, first]
    assert stores.consents.list(user_id="user_ada") == [second, first]
    assert stores.consents.list(client_id="reports") == [third, first]
    assert stores.consents.list(user_id="user_bob", client_id="reports") == [third]
    assert stores.consents.list(user_id="user_bob", client_id="notes") == []


def test_sessions_of_a_user_are_listed_and_ended(stores: Stores) -> None:
    """I-14, E-17."""
    stores.users.add(a_user())
    stores.users.add(a_user(user_id="user_bob", username="bob"))
    here, there = a_session(), a_session(digest=b"there", last_seen_at=LATER)
    for session in (
        here,
        there,
        a_session(digest=b"over", expires_at=LATER),
        a_session(digest=b"idle", last_seen_at=IDLE_SINCE - timedelta(seconds=1)),
        a_session(digest=b"of bob", user_id="user_bob"),
    ):
        stores.sessions.add(session)
    assert stores.sessions.list("user_ada", LATER, IDLE_SINCE) == [there, here]
    assert stores.sessions.end_all("user_ada", but=here.digest) == 3
    assert stores.sessions.list("user_ada", LATER, IDLE_SINCE) == [here]
    assert stores.sessions.end_all("user_ada") == 1
    assert len(stores.sessions.list("user_bob", LATER, IDLE_SINCE)) == 1


def test_all_grants_are_revoked_some_at_a_time(stores: Stores) -> None:
    """T149: so that no statement is long, however many grants there are."""
    for number in range(5):
        stores.grants.add(a_grant(grant_id=f"grant_{number}"))
    stores.grants.revoke("grant_1", NOW, "before")
    assert stores.grants.count() == 5
    assert stores.grants.revoke_next(LATER, "restored", limit=2) == ("grant_1", 1)
    assert stores.grants.revoke_next(LATER, "restored", after="grant_1", limit=3) == ("grant_4", 3)
    assert stores.grants.revoke_next(LATER, "restored", after="grant_4", limit=3) is None
    assert stores.grants.revoke_next(LATER, "restored", limit=9) == ("grant_4", 0)
    assert stores.grants.list(NOW) == []
    found = stores.grants.find("grant_1"), stores.grants.find("grant_0")
    assert [each and (each.revoked_at, each.revoked_reason) for each in found] == [
        (NOW, "before"),
        (LATER, "restored"),
    ]


def test_all_sessions_end_and_all_consents_are_forgotten_some_at_a_time(stores: Stores) -> None:
    """T149."""
    stores.users.add(a_user())
    stores.users.add(a_user(user_id="user_bob", username="bob"))
    for number, user_id in enumerate(("user_ada", "user_bob", "user_bob")):
        stores.sessions.add(a_session(digest=bytes([number]), user_id=user_id))
        stores.consents.remember(a_consent(user_id=user_id, client_id=f"client {number}"))
    assert [stores.sessions.end_some(2) for _ in range(3)] == [2, 1, 0]
    assert [stores.consents.forget_some(2) for _ in range(3)] == [2, 1, 0]
    assert stores.sessions.list("user_bob", LATER, IDLE_SINCE) == []
    assert stores.consents.find("user_ada", "client 0") is None


def _several_events(storage: Storage) -> list[Event]:
    """Of several types, clients, people and times, some of them of the same time; oldest first."""
    first = [
        an_event(event_id="a", at=NOW, user_id="user_ada", grant_id="grant_1"),
        an_event(
            event_id="b",
            at=NOW,
            type=EventType.TOKEN_REFUSED,
            reason="code-claimed",
            actor="stranger",
            request_id="of the refusal",
        ),
        an_event(event_id="c", at=NOW, client_id="notes", source="2001:db8::7"),
        an_event(event_id="d", at=LATER, type=EventType.SIGNED_IN, client_id=None, user_id="user_ada"),
        an_event(event_id="e", at=LATER, user_id="user_bob", grant_id="grant_2"),
        an_event(event_id="f", at=LATER + timedelta(microseconds=1), type=EventType.REQUEST_FAILED),
    ]
    with storage.begin() as stores:
        for event in first:
            stores.events.add(event)
    return first


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        ({}, "abcdef"),
        ({"event_id": "d"}, "d"),
        ({"client_id": "reports"}, "abef"),
        ({"user_id": "user_ada"}, "ad"),
        ({"grant_id": "grant_1"}, "a"),
        ({"actor": "stranger"}, "b"),
        ({"source": "2001:db8::7"}, "c"),
        ({"reason": "code-claimed"}, "b"),
        ({"request_id": "of the refusal"}, "b"),
        ({"types": frozenset({EventType.TOKEN_ISSUED})}, "ace"),
        ({"types": frozenset({EventType.TOKEN_ISSUED, EventType.SIGNED_IN})}, "acde"),
        ({"types": REFUSALS}, "bf"),
        ({"types": frozenset({EventType.TOKEN_REFUSED, EventType.SIGNED_IN}), "user_id": "user_ada"}, "d"),
        ({"types": REFUSALS, "client_id": "reports", "reason": "code-claimed"}, "b"),
        ({"since": LATER}, "def"),
        ({"until": LATER}, "abc"),
        ({"since": NOW, "until": LATER, "client_id": "reports"}, "ab"),
        ({"client_id": "' OR 1=1 --"}, ""),
        ({"client_id": "reports", "user_id": "user_gone"}, ""),
    ],
    # Sorted: of a set, the order differs from process to process.
    ids=lambda value: (
        "-".join(sorted(value.get("types", ()), key=str) + sorted(value)) or "all"
        if isinstance(value, dict)
        else value
    ),
)
def test_events_are_searched_for_page_by_page(storage: Storage, wanted: dict[str, Any], ids: str) -> None:
    """In both orders, also where several have the same time."""
    known = {event.event_id: event for event in _several_events(storage)}
    for oldest_first in (False, True):
        found: list[Event] = []
        after = None
        with storage.begin() as stores:
            while page := stores.events.search(
                EventFilter(**wanted), after=after, oldest_first=oldest_first, limit=2
            ):
                assert len(page) <= 2
                found += (replace(event, decisions=tuple(event.decisions)) for event in page)
                after = page[-1].at, page[-1].event_id
        expected = [known[event_id] for event_id in ids]
        assert found == (expected if oldest_first else expected[::-1])


def test_events_follow_in_the_order_in_which_they_were_stored(storage: Storage) -> None:
    """Whatever their times are; what is deleted leaves a gap, and its number is not used again."""
    with storage.begin() as stores:
        assert stores.events.last_number() == 0
        assert stores.events.following(0, limit=9) == []
    for event_id, at in (("late", LATER), ("early", NOW), ("last", LATER)):
        with storage.begin() as stores:
            event = an_event(
                event_id=event_id, at=at, request_id=f"request of {event_id}", decisions=({"slot": "login"},)
            )
            stores.events.add(event)
    with storage.begin() as stores:
        found = stores.events.following(0, limit=9)
        assert [event.event_id for _, event in found] == ["late", "early", "last"]
        assert found[0][1].request_id == "request of late"
        numbers = [number for number, _ in found]
        assert numbers == sorted(set(numbers))
        assert stores.events.last_number() == numbers[-1]
        assert [number for number, _ in stores.events.following(numbers[0], limit=1)] == numbers[1:2]
        undecided = [(number, replace(event, decisions=())) for number, event in found]
        assert stores.events.following(0, limit=9, decisions=False) == undecided != found
    with storage.begin() as stores:
        stores.upkeep.remove(Disposable.EVENTS, LATER + timedelta(days=1), limit=9)
    with storage.begin() as stores:
        stores.events.add(an_event(event_id="after all"))
    with storage.begin() as stores:
        ((number, _),) = stores.events.following(0, limit=9)
        assert number > numbers[-1]


def test_a_reader_begins_once_and_one_of_two_moves_counts(stores: Stores) -> None:
    positions = stores.event_positions
    assert positions.of("statistics") is None
    assert not positions.move("statistics", 0, 7)
    assert positions.begin("statistics", 0)
    assert not positions.begin("statistics", 5)
    assert positions.move("statistics", 0, 7)
    assert not positions.move("statistics", 0, 9)
    assert positions.move("statistics", 7, 9)
    assert positions.of("statistics") == 9
    assert positions.of("seals") is None
    assert positions.begin("seals", 3)
    assert list(positions.list()) == [("seals", 3), ("statistics", 9)]
    assert positions.set_aside() == {}
    for count in (1, 2):
        positions.count_set_aside("statistics", count)
    assert positions.set_aside() == {"statistics": 3}
    assert positions.of("statistics") == 9


def test_events_of_a_time_come_with_their_numbers(storage: Storage) -> None:
    """In the order of time and id, page by page; at `since` and not at `until`."""
    times = {
        "c": NOW,
        "a": LATER,
        "b": NOW,
        "early": NOW - timedelta(seconds=1),
        "end": LATER + timedelta(seconds=1),
    }
    with storage.begin() as stores:
        for event_id, at in times.items():
            stores.events.add(an_event(event_id=event_id, at=at))
    with storage.begin() as stores:
        numbers = {event.event_id: number for number, event in stores.events.following(0, limit=9)}
        found: list[tuple[int, Event]] = []
        place: Place | None = None
        while page := stores.events.numbered(NOW, times["end"], after=place, limit=2):
            found += page
            place = page[-1][1].at, page[-1][1].event_id
    assert [event.event_id for _, event in found] == ["b", "c", "a"]
    assert [number for number, _ in found] == [numbers["b"], numbers["c"], numbers["a"]]


THE_HOUR = NOW.replace(minute=0, second=0, microsecond=0)
AN_HOUR = timedelta(hours=1)
ALL_TYPES = frozenset(EventType)


def _hours(first: int, last: int) -> Span:
    """Hours after that of `NOW`, without the last."""
    return Span(step=Step.HOUR, since=THE_HOUR + first * AN_HOUR, until=THE_HOUR + last * AN_HOUR)


def test_counts_add_up(storage: Storage) -> None:
    """For each hour, client, type, grant type and reason apart, however often they are added."""
    refused = {"type": EventType.TOKEN_REFUSED, "client_id": "notes"}
    counts = [
        a_count(count=2),
        a_count(count=5, grant_type="refresh_token"),
        a_count(at=THE_HOUR + AN_HOUR, count=3),
        a_count(client_id="notes", count=1),
        a_count(**refused, reason="code-claimed", count=4),
        a_count(**refused, reason="no-room", count=6),
        a_count(step=Step.DAY, count=100),
    ]
    for _ in range(2):
        with storage.begin() as stores:
            stores.statistics.add(counts)
    with storage.begin() as stores:
        stores.statistics.add([])
        assert _sums(stores.statistics.totals([_hours(0, 2)], ALL_TYPES)) == {
            ("", EventType.TOKEN_ISSUED, "", ""): 10,
            ("", EventType.TOKEN_ISSUED, "refresh_token", ""): 10,
        }
        # Each step is counted by itself, and spans add up.
        day = Span(step=Step.DAY, since=THE_HOUR, until=THE_HOUR + AN_HOUR)
        assert _sums(stores.statistics.totals([_hours(1, 2), day], ALL_TYPES)) == {
            ("", EventType.TOKEN_ISSUED, "", ""): 206
        }
        of_notes = stores.statistics.totals([_hours(0, 9)], ALL_TYPES, client_ids=["notes", "nobody"])
        assert _sums(of_notes) == {
            ("notes", EventType.TOKEN_ISSUED, "", ""): 2,
            ("notes", EventType.TOKEN_REFUSED, "", "code-claimed"): 8,
            ("notes", EventType.TOKEN_REFUSED, "", "no-room"): 12,
        }
        assert _sums(stores.statistics.totals_of_clients(_hours(0, 9), ALL_TYPES)) == _sums(of_notes)
        assert stores.statistics.totals([_hours(0, 9)], [EventType.SIGNED_IN]) == []
        assert sorted(stores.statistics.series(_hours(0, 9), [EventType.TOKEN_ISSUED])) == [
            (THE_HOUR, EventType.TOKEN_ISSUED, "", 4),
            (THE_HOUR, EventType.TOKEN_ISSUED, "refresh_token", 10),
            (THE_HOUR + AN_HOUR, EventType.TOKEN_ISSUED, "", 6),
        ]
        assert list(
            stores.statistics.series(_hours(0, 1), ALL_TYPES - {EventType.TOKEN_ISSUED}, client_id="notes")
        ) == [(THE_HOUR, EventType.TOKEN_REFUSED, "", 20)]


def _sums(totals: Sequence[Total]) -> dict[tuple[str, EventType, str, str], int]:
    found = {(each.client_id, each.type, each.grant_type, each.reason): each.count for each in totals}
    assert len(found) == len(totals)
    return found


def test_the_clients_with_the_highest_counts(stores: Stores) -> None:
    stores.statistics.add(
        [
            a_count(count=1000),
            a_count(client_id="b", count=5),
            a_count(client_id="c", count=5, grant_type="refresh_token"),
            a_count(client_id="a", count=2),
            a_count(client_id="a", at=THE_HOUR + AN_HOUR, count=4),
            a_count(client_id="a", type=EventType.SIGNED_IN, count=90),
            a_count(client_id="a", step=Step.DAY, count=7),
        ]
    )
    issued = [EventType.TOKEN_ISSUED]
    assert stores.statistics.top_clients([_hours(0, 2)], issued, limit=9) == [("a", 6), ("b", 5), ("c", 5)]
    assert stores.statistics.top_clients([_hours(0, 1)], issued, limit=2) == [("b", 5), ("c", 5)]
    of_refreshing = stores.statistics.top_clients([_hours(0, 1)], issued, grant_type="refresh_token", limit=9)
    assert of_refreshing == [("c", 5)]
    day = Span(step=Step.DAY, since=THE_HOUR, until=THE_HOUR + AN_HOUR)
    assert stores.statistics.top_clients([_hours(0, 1), day], issued, limit=1) == [("a", 9)]


def test_counts_that_are_forgotten_leave_the_others(stores: Stores) -> None:
    kept = [
        a_count(type=EventType.SIGNED_IN),
        a_count(step=Step.DAY),
        a_count(at=THE_HOUR - AN_HOUR),
        a_count(at=THE_HOUR + 2 * AN_HOUR),
    ]
    stores.statistics.add([*kept, a_count(), a_count(client_id="notes"), a_count(at=THE_HOUR + AN_HOUR)])
    stores.statistics.forget(_hours(0, 2), [EventType.TOKEN_ISSUED, EventType.CODE_ISSUED])
    assert stores.statistics.totals_of_clients(_hours(0, 2), ALL_TYPES) == []
    assert [each.type for each in stores.statistics.totals([_hours(0, 2)], ALL_TYPES)] == [
        EventType.SIGNED_IN
    ]
    assert sum(each.count for each in stores.statistics.totals([_hours(-9, 9)], ALL_TYPES)) == 3
    day = Span(step=Step.DAY, since=THE_HOUR, until=THE_HOUR + AN_HOUR)
    assert sum(each.count for each in stores.statistics.totals([day], ALL_TYPES)) == 1


def test_strangers_are_the_clients_that_no_operator_registered(stores: Stores) -> None:
    stores.clients.add(a_client(client_id="ours"))
    stores.clients.add(a_client(client_id="self", registered_by=RegisteredBy.SELF))
    for client_id in ("ours", "self", "https://known.example/by-its-address", ""):
        stores.statistics.add(
            [a_count(client_id=client_id), a_count(client_id=client_id, type=EventType.SIGNED_IN)]
        )
    stores.statistics.add([a_count(client_id="of another hour", at=THE_HOUR + AN_HOUR)])
    found = stores.statistics.strangers(Step.HOUR, THE_HOUR, limit=9)
    assert sorted(found) == ["https://known.example/by-its-address", "self"]
    assert len(stores.statistics.strangers(Step.HOUR, THE_HOUR, limit=1)) == 1
    assert list(stores.statistics.strangers(Step.DAY, THE_HOUR, limit=9)) == []


def test_what_there_is_now(stores: Stores) -> None:
    """Grants that are live and whose code was redeemed; people and clients that are not disabled; sessions in use."""
    nothing = dict.fromkeys(Gauge, 0)
    assert dict(stores.statistics.current(NOW, IDLE_SINCE)) == nothing
    for number, disabled in enumerate([None, None, NOW]):
        stores.users.add(a_user(user_id=f"user_{number}", username=f"u{number}", disabled_at=disabled))
        stores.clients.add(a_client(client_id=f"client {number}", disabled_at=disabled))
    grants: dict[str, dict[str, Any]] = {
        "live": {},
        "code redeemed": {},
        "code waits": {},
        "expired": {"expires_at": NOW},
        "revoked": {"revoked_at": NOW, "revoked_reason": "left"},
    }
    for grant_id, changes in grants.items():
        stores.grants.add(a_grant(grant_id=grant_id, **changes))
    code = {"kind": TokenKind.CODE, "expires_at": NOW + timedelta(minutes=1)}
    stores.tokens.add(a_token(**code, digest=b"1", grant_id="code redeemed", claimed_at=NOW))
    stores.tokens.add(a_token(**code, digest=b"2", grant_id="code waits"))
    stores.tokens.add(a_token(kind=TokenKind.REFRESH, digest=b"3", grant_id="live"))
    for name, changes in (
        ("used", {}),
        ("idle", {"last_seen_at": IDLE_SINCE - timedelta(seconds=1)}),
        ("over", {"expires_at": NOW}),
    ):
        stores.sessions.add(a_session(digest=name.encode(), user_id="user_1", **changes))
    assert dict(stores.statistics.current(NOW, IDLE_SINCE)) == {
        Gauge.ACTIVE_GRANTS: 2,
        Gauge.SESSIONS: 1,
        Gauge.CLIENTS: 2,
        Gauge.PEOPLE: 2,
    }


def test_the_first_sample_of_an_hour_stays(stores: Stores) -> None:
    stores.statistics.note_sample(Step.HOUR, THE_HOUR, {Gauge.PEOPLE: 5, Gauge.CLIENTS: 0})
    stores.statistics.note_sample(Step.HOUR, THE_HOUR, {Gauge.PEOPLE: 6, Gauge.SESSIONS: 7})
    stores.statistics.note_sample(Step.HOUR, THE_HOUR - AN_HOUR, {Gauge.PEOPLE: 4})
    stores.statistics.note_sample(Step.DAY, THE_HOUR, {Gauge.PEOPLE: 9})
    assert list(stores.statistics.samples(Gauge.PEOPLE, _hours(-2, 1))) == [
        (THE_HOUR - AN_HOUR, 4),
        (THE_HOUR, 5),
    ]
    assert list(stores.statistics.samples(Gauge.PEOPLE, _hours(-2, 0))) == [(THE_HOUR - AN_HOUR, 4)]
    assert list(stores.statistics.samples(Gauge.CLIENTS, _hours(0, 1))) == [(THE_HOUR, 0)]
    assert list(stores.statistics.samples(Gauge.SESSIONS, _hours(0, 1))) == [(THE_HOUR, 7)]
    assert list(stores.statistics.samples(Gauge.ACTIVE_GRANTS, _hours(0, 1))) == []


def test_seals_are_found_in_order_by_time_and_by_hash(stores: Stores) -> None:
    """T147: each comes back as it was."""
    seals = [
        an_event_seal(
            number=number,
            sealed_at=NOW + number * timedelta(minutes=1),
            hash=bytes([number]),
            entries=b"\0" * number,
        )
        for number in range(1, 5)
    ]
    assert stores.event_seals.last() is None
    for seal in reversed(seals):
        stores.event_seals.add(seal)
    with pytest.raises(AlreadyExists):
        stores.event_seals.add(an_event_seal(number=3, hash=b"another"))
    assert stores.event_seals.last() == seals[-1]
    assert list(stores.event_seals.following(0, limit=2)) == seals[:2]
    assert list(stores.event_seals.following(2, limit=9)) == seals[2:]
    assert stores.event_seals.since(NOW + timedelta(minutes=2)) == seals[1]
    assert stores.event_seals.since(NOW + timedelta(minutes=5)) is None
    assert stores.event_seals.find(seals[2].hash) == seals[2]
    assert stores.event_seals.find(b"another") is None
    recoded = replace(seals[3], key_id="2027", mac=b"another")
    assert stores.event_seals.change(seals[3], recoded)
    assert not stores.event_seals.change(seals[3], recoded)
    assert stores.event_seals.remove_until(3) == 3
    assert list(stores.event_seals.following(0, limit=9)) == [recoded]


def test_the_furthest_mark_of_each_kind_stays(stores: Stores) -> None:
    def mark(kind: str, until: str, mac: bytes = b"") -> DeletionMark:
        return DeletionMark(kind=kind, until=until, key_id="2026", mac=mac)

    for each in (mark("events", "1"), mark("refusals", "2"), mark("events", "3"), mark("events", "2")):
        stores.event_seals.mark(each)
    # The reader takes the furthest mark.
    assert [(each.kind, each.until) for each in stores.event_seals.deletions()] == [
        ("events", "2"),
        ("events", "3"),
        ("refusals", "2"),
    ]
    stores.event_seals.mark(mark("events", "3", b"another"))
    assert mark("events", "3", b"another") in stores.event_seals.deletions()
    stores.event_seals.mark(mark("events", "4"))
    assert [(each.kind, each.until) for each in stores.event_seals.deletions()] == [
        ("events", "4"),
        ("refusals", "2"),
    ]


def test_the_newest_generation_counts(stores: Stores) -> None:
    """T149: also if the clock was changed meanwhile, and if the same restore is recorded several times."""
    assert stores.generations.began_at() is None
    for began_at in (LATER, NOW, LATER):
        stores.generations.begin(began_at)
    found = stores.generations.began_at()
    assert found == LATER
    assert found is not None
    assert found.tzinfo is UTC


def test_what_raises_leaves_nothing_behind(storage: Storage) -> None:
    """T115: of several writes all are stored or none."""

    def fail() -> None:
        with storage.begin() as stores:
            stores.grants.add(a_grant())
            stores.tokens.add(a_token())
            raise RuntimeError("after two writes")

    with pytest.raises(RuntimeError, match="after two writes"):
        fail()
    with storage.begin() as stores:
        assert stores.grants.find("grant_1") is None
        assert stores.tokens.find(TokenKind.CODE, a_token().digest) is None


def test_what_ends_well_is_kept(storage: Storage) -> None:
    with storage.begin() as stores:
        stores.grants.add(a_grant())
        stores.tokens.add(a_token())
    with storage.begin() as stores:
        assert stores.tokens.claim(a_token(), LATER)
