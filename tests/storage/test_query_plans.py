"""Every operation sends a fixed number of statements, and each of them finds its rows by an index.

Compared are an empty database and one with many rows (`conftest.py`); plans are read on the latter.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from webtest import TestApp

from authserver.engine.ports import Stores
from authserver.engine.records import ClientSecret, TokenKind
from authserver.testing.plans import plan_of, statements_of
from authserver.testing.records import (
    a_client,
    a_consent,
    a_grant,
    a_session,
    a_token,
    a_user,
    an_event,
)
from authserver.testing.server import Server
from authserver.testing.stories import register, signed_in
from benchmarks.fill import POPULAR

Run = Callable[[], object]

FILES = "https://files.example/"
ITSELF = ("client_credentials",)
NOW = datetime.now(UTC)


def tokens_of(server: Server, **form: Any) -> tuple[Any, str, dict[str, Any]]:
    """A client, its secret, and what it got for a code."""
    client, secret = server.add_client()
    return client, secret or "", server.redeem(client, secret, server.code(client, **form), **form).json


# ---- over HTTP: each prepares, and returns what is to be watched -------------------------------------


def client_credentials(server: Server) -> Run:
    client, secret = server.add_client(grant_types=ITSELF)
    return lambda: ok(server.token(client, secret, grant_type="client_credentials"))


def client_credentials_opaque(server: Server) -> Run:
    client, secret = server.add_client(grant_types=ITSELF, scopes=("files.read",))
    form = {"grant_type": "client_credentials", "scope": "files.read", "resource": FILES}
    return lambda: ok(server.token(client, secret, **form))


def wrong_secret(server: Server) -> Run:
    client, _ = server.add_client()
    return lambda: ok(server.token(client, "wrong", grant_type="refresh_token"), 401)


def redemption(server: Server) -> Run:
    client, secret = server.add_client()
    code = server.code(client)
    return lambda: ok(server.redeem(client, secret, code))


def replayed_code(server: Server) -> Run:
    client, secret = server.add_client()
    code = server.code(client)
    server.redeem(client, secret, code)
    return lambda: ok(server.redeem(client, secret, code), 400)


def wrong_verifier(server: Server) -> Run:
    client, secret = server.add_client()
    code = server.code(client)
    return lambda: ok(server.redeem(client, secret, code, code_verifier="w" * 43), 400)


def rotation(server: Server) -> Run:
    client, secret, first = tokens_of(server)
    return lambda: ok(server.refresh(client, secret, first["refresh_token"]))


def retry(server: Server) -> Run:
    client, secret, first = tokens_of(server)
    server.refresh(client, secret, first["refresh_token"])
    return lambda: ok(server.refresh(client, secret, first["refresh_token"]))


def reuse(server: Server) -> Run:
    client, secret, first = tokens_of(server)
    second = server.refresh(client, secret, first["refresh_token"]).json
    server.refresh(client, secret, second["refresh_token"])
    return lambda: ok(server.refresh(client, secret, first["refresh_token"]), 400)


def introspection_of_a_jwt(server: Server) -> Run:
    client, secret, first = tokens_of(server)
    return lambda: active(server.introspect(client, secret, first["access_token"]))


def introspection_of_a_jwt_of_a_client(server: Server) -> Run:
    client, secret = server.add_client(grant_types=ITSELF)
    token = server.token(client, secret, grant_type="client_credentials").json["access_token"]
    return lambda: active(server.introspect(client, secret, token))


def introspection_of_an_opaque_token(server: Server) -> Run:
    client, secret, first = tokens_of(server, resource=FILES, scope="files.read")
    assert first["access_token"].startswith("as_access_")
    return lambda: active(server.introspect(client, secret, first["access_token"]))


def introspection_of_a_refresh_token(server: Server) -> Run:
    client, secret, first = tokens_of(server)
    return lambda: active(server.introspect(client, secret, first["refresh_token"]))


def revocation_by_a_jwt(server: Server) -> Run:
    client, secret, first = tokens_of(server)
    return lambda: ok(server.revoke(client, secret, first["access_token"]))


def revocation_by_a_refresh_token(server: Server) -> Run:
    client, secret, first = tokens_of(server)
    return lambda: ok(server.revoke(client, secret, first["refresh_token"]))


def revocation_by_an_opaque_token(server: Server) -> Run:
    client, secret, first = tokens_of(server, resource=FILES, scope="files.read")
    return lambda: ok(server.revoke(client, secret, first["access_token"]))


def sign_in(server: Server) -> Run:
    browser = server.browser()
    return lambda: ok(server.sign_in(browser), 303)


def sign_out(server: Server) -> Run:
    browser = signed_in(server)
    form = browser.get(server.path("/logout")).form
    return lambda: ok(form.submit())


def front_page(server: Server) -> Run:
    browser = signed_in(server)
    return lambda: ok(browser.get(server.path("/")))


def consent_page(server: Server) -> Run:
    client, _ = server.add_client()
    browser = signed_in(server)
    return lambda: ok(browser.get(server.authorization_url(client)))


def answer_to_it(server: Server) -> Run:
    client, _ = server.add_client()
    page = signed_in(server).get(server.authorization_url(client))
    return lambda: ok(server.consent(page), 303)


def authorization_with_consent_remembered(server: Server) -> Run:
    client, _ = server.add_client()
    browser = signed_in(server)
    server.consent(browser.get(server.authorization_url(client)))
    return lambda: ok(browser.get(server.authorization_url(client)), 303)


def account_pages(server: Server) -> Run:
    """What the user let in, one application among others, and where the user is signed in."""
    browser = user_with_applications(server)

    def look() -> None:
        for name in ("apps", "sessions", "password", "sign-out-everywhere"):
            ok(browser.get(server.path(f"/account/{name}")))

    return look


def disconnection_of_an_application(server: Server) -> Run:
    browser = user_with_applications(server)
    page = browser.get(server.path("/account/apps"))
    form = next(form for form in page.forms.values() if "disconnect" in form.fields)
    return lambda: ok(form.submit("disconnect"), 303)


def sign_out_everywhere(server: Server) -> Run:
    browser = user_with_applications(server)
    form = browser.get(server.path("/account/sign-out-everywhere")).forms[0]
    fields = dict(form.submit_fields())
    return lambda: ok(browser.post(server.path("/account/sign-out-everywhere"), fields))


def user_with_applications(server: Server) -> TestApp:
    """A browser in which a new user is signed in, who let three applications in."""
    user = server.add_user(f"user.{new()}")
    browser = signed_in(server, user.username)
    for _ in range(3):
        client, secret = server.add_client()
        ok(server.redeem(client, secret, server.code(client, browser)))
    return browser


def registration(server: Server) -> Run:
    return lambda: register(server)


def request_of_a_web_page(server: Server) -> Run:
    """Whose origin may be one that many clients share, or none has."""
    client, secret = server.add_client(grant_types=ITSELF)

    def ask() -> None:
        for origin in ("http://127.0.0.1:5000", "https://unknown.example"):
            ok(server.token(client, secret, origin=origin, grant_type="client_credentials"))

    return ask


OPERATIONS = [
    client_credentials,
    client_credentials_opaque,
    wrong_secret,
    redemption,
    replayed_code,
    wrong_verifier,
    rotation,
    retry,
    reuse,
    introspection_of_a_jwt,
    introspection_of_a_jwt_of_a_client,
    introspection_of_an_opaque_token,
    introspection_of_a_refresh_token,
    revocation_by_a_jwt,
    revocation_by_a_refresh_token,
    revocation_by_an_opaque_token,
    sign_in,
    sign_out,
    front_page,
    consent_page,
    answer_to_it,
    authorization_with_consent_remembered,
    account_pages,
    disconnection_of_an_application,
    sign_out_everywhere,
    registration,
    request_of_a_web_page,
]


def ok(answer: Any, status: int = 200) -> None:
    assert answer.status_int == status, answer.text


def active(answer: Any) -> None:
    assert answer.json["active"] is True


def assert_indexed(servers: Any, on_empty: list[Any], on_filled: list[Any]) -> None:
    """The same statements on both databases, and none reads a table from end to end."""
    assert [sent.about for sent in on_filled] == [sent.about for sent in on_empty]
    engine = servers.filled.application.storage.engine
    for sent in on_filled:
        assert plan_of(engine, sent).scans == (), sent.text


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_an_operation_costs_as_many_indexed_statements_however_much_is_stored(servers, operation):
    """T064, T116: neither their number nor what they read grows."""
    watched = []
    for server in (servers.empty, servers.filled):
        run = operation(server)
        with statements_of(server.application.storage.engine) as sent:
            run()
        watched.append(sent)
    assert watched[0] != []
    assert_indexed(servers, *watched)


# ---- the stores, method by method -------------------------------------------------------------------

SECRET = ClientSecret(digest=b"digest of a secret", key_id="test", created_at=NOW)
METHODS: dict[str, Callable[[Stores], object]] = {
    "clients.find": lambda stores: stores.clients.find("client-7"),
    "clients.add": lambda stores: add_client(stores),
    "clients.disable": lambda stores: stores.clients.disable("client-7", NOW),
    "clients.add_secret": lambda stores: stores.clients.add_secret(add_client(stores), SECRET),
    "clients.change_secret": lambda stores: stores.clients.change_secret(
        "client-7", SECRET, replace(SECRET, last_used_at=NOW)
    ),
    "clients.note_secret": lambda stores: stores.clients.note_secret(
        "client-7", SECRET, replace(SECRET, last_used_at=NOW)
    ),
    "clients.find_all": lambda stores: stores.clients.find_all(["client-7", "client-8"]),
    "clients.knows_origin": lambda stores: stores.clients.knows_origin("https://client-7.example"),
    "users.find": lambda stores: stores.users.find("user_7"),
    "users.find_by_name": lambda stores: stores.users.find_by_name("user7"),
    "users.add": lambda stores: add_user(stores),
    "users.disable": lambda stores: stores.users.disable("user_7", NOW),
    "users.hold": lambda stores: stores.users.hold(a_user(user_id="user_7")),
    "users.set_password": lambda stores: stores.users.set_password("user_7", "another"),
    "grants.add": lambda stores: stores.grants.add(a_grant(grant_id=new())),
    "grants.find": lambda stores: stores.grants.find("grant-7"),
    "grants.find_with_user": lambda stores: stores.grants.find_with_user("grant-7"),
    "grants.revoke": lambda stores: stores.grants.revoke("grant-7", NOW, "left"),
    "grants.list": lambda stores: stores.grants.list(NOW, user_id="user_7"),
    "grants.list, to one client": lambda stores: stores.grants.list(NOW, user_id="user_7", client_id=POPULAR),
    "grants.list, of a client": lambda stores: stores.grants.list(NOW, client_id="client-8"),
    "grants.revoke_of_user": lambda stores: stores.grants.revoke_of_user("user_7", NOW, "left"),
    "grants.revoke_of_user, to one client": lambda stores: stores.grants.revoke_of_user(
        "user_7", NOW, "left", client_id=POPULAR
    ),
    "grants.revoke_next": lambda stores: stores.grants.revoke_next(NOW, "left", after="grant-7", limit=9),
    "grants.touch": lambda stores: stores.grants.touch("grant-7", NOW),
    "tokens.add": lambda stores: stores.tokens.add(a_token(grant_id=None, digest=os.urandom(32))),
    "tokens.add_once": lambda stores: stores.tokens.add_once(a_token(grant_id=None)),
    "tokens.find": lambda stores: stores.tokens.find(TokenKind.REFRESH, b"unknown"),
    "tokens.claim": lambda stores: stores.tokens.claim(a_token(), NOW),
    "tokens.note_failure": lambda stores: stores.tokens.note_failure(a_token(), NOW, limit=3),
    "tokens.extend": lambda stores: stores.tokens.extend(a_token(), NOW),
    "consents.find": lambda stores: stores.consents.find("user_7", POPULAR),
    "consents.remember": lambda stores: stores.consents.remember(a_consent(user_id=add_user(stores))),
    "consents.forget": lambda stores: stores.consents.forget("user_7", "client-8"),
    "consents.forget, of all clients": lambda stores: stores.consents.forget("user_7"),
    "events.add": lambda stores: stores.events.add(an_event()),
    "events.find": lambda stores: stores.events.find("event-7"),
    "events.since": lambda stores: list(stores.events.since(datetime.now(UTC))),
    "events.count": lambda stores: stores.events.count(datetime.now(UTC)),
    "sessions.add": lambda stores: stores.sessions.add(
        a_session(digest=os.urandom(32), user_id=add_user(stores))
    ),
    "sessions.find": lambda stores: stores.sessions.find(b"unknown", NOW, NOW - timedelta(hours=1)),
    "sessions.hold": lambda stores: stores.sessions.hold(b"unknown"),
    "sessions.touch": lambda stores: stores.sessions.touch(b"unknown", NOW),
    "sessions.end": lambda stores: stores.sessions.end(b"unknown"),
    "sessions.list": lambda stores: stores.sessions.list("user_7", NOW, NOW - timedelta(hours=1)),
    "sessions.end_all": lambda stores: stores.sessions.end_all("user_7"),
}
# They are about all that there is, once or batch after batch; commands alone ask for that.
WHOLE = {
    "clients.list",
    "clients.count_secrets",
    "users.list",
    "grants.count",
    "consents.forget_some",
    "sessions.end_some",
}
# These are about tables with a handful of rows, or have such tests in `test_upkeep.py`.
ELSEWHERE = {"keys", "ring_keys", "generations", "upkeep"}


def new() -> str:
    """An id that nobody has."""
    return os.urandom(9).hex()


def add_client(stores: Stores) -> str:
    """A new client's id."""
    client = a_client(client_id=new())
    stores.clients.add(client)
    return client.client_id


def add_user(stores: Stores) -> str:
    """A new user's id."""
    user = a_user(user_id=f"user_{new()}", username=new())
    stores.users.add(user)
    return user.user_id


def test_every_method_of_the_stores_is_watched_here(servers):
    """A new one must join the list above."""
    with servers.empty.application.storage.begin() as stores:
        methods = {
            f"{port.name}.{method}"
            for port in fields(stores)
            if port.name not in ELSEWHERE
            for method in vars(type(getattr(stores, port.name)))
            if not method.startswith("_")
        }
    assert methods == {name.partition(",")[0] for name in METHODS} | WHOLE


@pytest.mark.parametrize("method", METHODS)
def test_a_method_sends_as_many_indexed_statements_however_much_is_stored(servers, method):
    """T064, T116: those of the account pages and of the command line, too."""
    watched = []
    for server in (servers.empty, servers.filled):
        storage = server.application.storage
        with statements_of(storage.engine) as sent, storage.begin() as stores:
            METHODS[method](stores)
        watched.append(sent)
    assert watched[0] != []
    assert_indexed(servers, *watched)


@pytest.mark.postgresql
@pytest.mark.parametrize(
    ("method", "indexes"),
    [
        ("clients.find", {"pk_clients", "pk_client_secrets"}),
        ("clients.change_secret", {"pk_client_secrets"}),
        ("clients.knows_origin", {"pk_client_origins", "pk_clients"}),
        ("tokens.find", {"pk_tokens", "pk_grants", "pk_users"}),
        ("tokens.claim", {"pk_tokens", "pk_grants"}),
        ("tokens.extend", {"pk_tokens", "pk_grants"}),
        ("grants.find_with_user", {"pk_grants", "pk_users"}),
        ("grants.revoke", {"pk_grants"}),
        ("grants.touch", {"pk_grants"}),
        ("grants.list", {"ix_grants_user_id", "ix_tokens_grant_id"}),
        ("grants.list, of a client", {"ix_grants_client_id", "ix_tokens_grant_id"}),
        ("grants.revoke_of_user", {"ix_grants_user_id"}),
        ("consents.find", {"pk_consents"}),
        ("sessions.find", {"pk_sessions", "pk_users"}),
        ("sessions.list", {"ix_sessions_user_id"}),
        ("sessions.end_all", {"ix_sessions_user_id"}),
        ("events.since", {"ix_events_at"}),
    ],
)
def test_postgresql_finds_the_rows_by_these_indexes(postgresql_servers, method, indexes):
    """T064: rotation and revocation touch a token and a grant by their keys alone."""
    storage = postgresql_servers.filled.application.storage
    with statements_of(storage.engine) as sent, storage.begin() as stores:
        METHODS[method](stores)
    (statement,) = sent
    assert plan_of(storage.engine, statement).indexes == indexes
