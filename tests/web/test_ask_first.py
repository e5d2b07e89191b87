"""Nobody waits while a plugin thinks: whatever it is asked, somebody else can write meanwhile.

On SQLite a transaction that writes keeps all others from writing, so everything is asked before the first write.
The plugin of these tests tries to write over a connection of its own each time that it is asked anything.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

import pytest
import sqlalchemy as sa
import time_machine

from authserver.api import Grant, InvalidGrant, Issue, SingleUse, hookimpl, new_identifier
from authserver.hookspecs import every_hook
from authserver.testing.server import REDIRECT_URI, Server, form_with, query_of, with_plugin
from authserver.testing.stories import Granted, sign_in_at, signed_in
from authserver.testing.threads import until
from tests.client_keys import Key
from tests.features.upstream_steps import a_liar, come_back, with_provider

GRANT_TYPE = "urn:example:grant-type:thinks"
# Asked once, at start.
AT_START = {
    "assertion_profiles",
    "client_metadata",
    "client_proofs",
    "exchangeable_tokens",
    "grant_types",
    "includeme",
    "private_use_redirect_uris",
    "response_modes",
    "scopes",
    "server_metadata",
}
ASKED: list[tuple[str, bool]] = []
MEANWHILE: dict[str, Callable[[], object]] = {}


@dataclass(frozen=True)
class Thinks:
    """Sees, whatever it is asked, whether somebody else could write now; has no opinion otherwise."""

    immediate: ClassVar[bool] = True
    claims: ClassVar[frozenset[str]] = frozenset({"thought"})

    database: str

    def think(self, hook: str) -> None:
        if act := MEANWHILE.pop(hook, None):
            act()
        connection = sqlite3.connect(self.database, timeout=0, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        except sqlite3.OperationalError:
            ASKED.append((hook, False))
        else:
            ASKED.append((hook, True))
        finally:
            connection.close()

    @hookimpl
    def client_auth_decision(self) -> None:
        self.think("client_auth_decision")

    @hookimpl
    def redirect_uri_decision(self) -> None:
        self.think("redirect_uri_decision")

    @hookimpl
    def scope_decision(self) -> None:
        self.think("scope_decision")

    @hookimpl
    def resource_decision(self) -> None:
        self.think("resource_decision")

    @hookimpl
    def authentication_decision(self) -> None:
        self.think("authentication_decision")

    @hookimpl
    def consent_decision(self) -> None:
        self.think("consent_decision")

    @hookimpl
    def login_decision(self) -> None:
        self.think("login_decision")

    @hookimpl
    def identity_decision(self) -> None:
        self.think("identity_decision")

    @hookimpl
    def registration_decision(self) -> None:
        self.think("registration_decision")

    @hookimpl
    def introspection_decision(self) -> None:
        self.think("introspection_decision")

    @hookimpl
    def origin_decision(self) -> None:
        self.think("origin_decision")

    @hookimpl
    def rate_decision(self) -> None:
        self.think("rate_decision")

    @hookimpl
    def find_client(self) -> None:
        self.think("find_client")

    @hookimpl
    def expand_registration(self) -> None:
        self.think("expand_registration")

    @hookimpl
    def expand_authorization_request(self) -> None:
        self.think("expand_authorization_request")

    @hookimpl
    def registration_response(self) -> None:
        self.think("registration_response")

    @hookimpl
    def code_details(self) -> None:
        self.think("code_details")

    @hookimpl
    def grant_details(self) -> None:
        self.think("grant_details")

    @hookimpl
    def implied_parameters(self) -> None:
        self.think("implied_parameters")

    @hookimpl
    def person_claims(self) -> None:
        self.think("person_claims")

    @hookimpl
    def send_mail(self) -> bool:
        self.think("send_mail")
        return True

    @hookimpl
    def token_binding(self) -> None:
        self.think("token_binding")

    @hookimpl
    def token_claims(self) -> dict[str, bool]:
        self.think("token_claims")
        return {"thought": True}

    @hookimpl
    def token_response(self) -> None:
        self.think("token_response")

    @hookimpl
    def observe(self) -> None:
        self.think("observe")

    @hookimpl
    def deliver(self) -> None:
        self.think("deliver")

    @hookimpl
    def look_after(self) -> None:
        self.think("look_after")

    @hookimpl
    def observe_request(self) -> None:
        self.think("observe_request")

    @hookimpl
    def grant_types(self) -> Any:
        return {GRANT_TYPE: self.redeem}

    def redeem(self, engine: Any, client: Any, parameters: Any) -> Issue:
        self.think("grant_types")
        user = engine.stores.users.find_by_name("ann")
        grant = Grant(
            grant_id=new_identifier(),
            client_id=client.client_id,
            user_id=user.user_id,
            scopes=("profile",),
            resources=(),
            created_at=engine.now,
            expires_at=engine.now + timedelta(hours=1),
        )
        use = SingleUse(
            purpose="thought",
            text=parameters.require("thought"),
            since=engine.now,
            until=engine.now + timedelta(hours=1),
            refusal=InvalidGrant("This was thought before."),
        )
        return Issue(
            grant=grant,
            user=user,
            scopes=("profile",),
            resources=(),
            is_new=True,
            refreshable=True,
            uses=(use,),
        )


@pytest.fixture
def server(sqlite_url: str) -> Iterator[Server]:
    settings = with_plugin(Thinks, {"database": sqlite_url.removeprefix("sqlite:///")})
    settings["authserver.plugins"] = (
        f"{settings['authserver.plugins']}\npushed_requests\ndpop\nprivate_key_jwt"
    )
    server = Server(sqlite_url, settings)
    server.add_user("ann")
    ASKED.clear()
    MEANWHILE.clear()
    yield server
    server.close()


def sign_in(server: Server) -> None:
    page = server.browser().get(server.authorization_url(server.add_client()[0])).follow()
    assert sign_in_at(page).status_int == 303


def authorize(server: Server) -> None:
    """With a session that was last seen some time ago, which is noted (E-17)."""
    client, _ = server.add_client()
    browser = signed_in(server)
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=2)):
        page = browser.get(server.authorization_url(client))
        answered = server.consent(page)
    assert "code" in query_of(answered)
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=4)):
        # Remembered now, so that it is answered without a page.
        assert "code" in query_of(browser.get(server.authorization_url(client)))


def decline(server: Server) -> None:
    page = signed_in(server).get(server.authorization_url(server.add_client()[0]))
    assert query_of(server.consent(page, "deny"))["error"] == "access_denied"


def redeem_and_refresh(server: Server) -> None:
    """With the use of the grant noted, and the answer to a refresh lost once."""
    granted = Granted(server)
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=2)):
        assert granted.renew(granted.refresh).status_int == 200
        assert granted.renew(granted.refresh).status_int == 200
    assert server.redeem(granted.client, granted.secret, granted.code).status_int == 400


def client_credentials(server: Server) -> None:
    client, secret = server.add_client(grant_types=("client_credentials",))
    for _ in range(2):
        assert server.token(client, secret, grant_type="client_credentials").status_int == 200


def own_grant_type(server: Server) -> None:
    client, secret = server.add_client(grant_types=("authorization_code", "refresh_token", GRANT_TYPE))
    answer = server.token(client, secret, grant_type=GRANT_TYPE, thought="one")
    assert (answer.status_int, "refresh_token" in answer.json) == (200, True)


def introspect_and_revoke(server: Server) -> None:
    granted = Granted(server)
    assert granted.introspect_as_api(granted.access).json["active"]
    assert not granted.introspect("x").json["active"]
    assert granted.revoke(granted.access).status_int == 200


def register(server: Server) -> None:
    body = {"client_name": "New", "redirect_uris": [REDIRECT_URI]}
    assert server.http.post_json("/oauth/register", body).status_int == 201


def push(server: Server) -> None:
    client, secret = server.add_client()
    parameters = dict(parse_qsl(urlsplit(server.authorization_url(client)).query))
    answer = server.ask("/oauth/par", client, secret, **parameters)
    assert answer.status_int == 201


def authenticate_with_a_key(server: Server) -> None:
    """At each endpoint; what the assertion uses up is claimed after the last question."""
    key = Key()
    client = key.client(server)
    granted = key.ask(server, client, "/oauth/token", grant_type="client_credentials")
    assert granted.status_int == 200
    for path in ("/oauth/introspect", "/oauth/revoke"):
        assert key.ask(server, client, path, token=granted.json["access_token"]).status_int == 200
    pushing = key.client(server, grant_types=("authorization_code",))
    parameters = dict(parse_qsl(urlsplit(server.authorization_url(pushing)).query))
    assert key.ask(server, pushing, "/oauth/par", **parameters).status_int == 201


def ask_from_another_origin(server: Server) -> None:
    headers = {"Origin": "https://client.example"}
    assert server.http.options("/oauth/token", headers=headers).status_int == 204


def account_and_refusals(server: Server) -> None:
    granted = Granted(server)
    browser = signed_in(server)
    assert browser.get("/account/apps").status_int == 200
    assert sign_in_at(server.browser().get("/login"), password="wrong password").status_int == 400
    assert server.token(granted.client, "wrong", grant_type="client_credentials").status_int == 401
    unknown = server.authorization_url(granted.client).replace(granted.client.client_id, "client_unknown")
    assert browser.get(unknown, expect_errors=True).status_int == 400


def tell_about_a_person(server: Server) -> None:
    """By the one plugin that does."""
    plugins = f"{server.ini['authserver.plugins']}\nopenid"
    asked = Server(server.ini["authserver.database_url"], {**server.ini, "authserver.plugins": plugins})
    client, secret = asked.add_client(scopes=("openid",))
    token = asked.redeem(client, secret, asked.code(client, scope="openid")).json["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    assert asked.http.get("/oauth/userinfo", headers=headers).status_int == 200
    asked.close()


def sign_in_through_another_server(server: Server) -> None:
    """Somebody who was never here: an account is made."""
    with a_liar() as liar:
        liar.claims["preferred_username"] = "eve"
        provider = with_provider(liar.issuer, "authserver", "secret")
        plugins = f"{server.ini['authserver.plugins']}\nupstream"
        settings = {**server.ini, **provider, "authserver.plugins": plugins}
        asked = Server(server.ini["authserver.database_url"], settings)
        assert come_back(asked, liar).status_int == 303
        asked.close()


def look_after_what_is_theirs(server: Server) -> None:
    """As the server does in the background."""
    server.application.parts.policies.look_after(server.begin)


def hand_events_on(server: Server) -> None:
    client_credentials(server)
    server.deliver()


def forgotten_password(server: Server) -> None:
    """The mail is sent after the answer, and after the transaction in which its link was made."""
    server.add_user("eve", attributes={"email": ["eve@people.example"]})
    form = form_with(server.browser().get("/forgot-password"), "username")
    form["username"] = "eve"
    assert form.submit().status_int == 303
    assert until(lambda: server.application.mailer.is_idle, 10)


STORIES: dict[Callable[[Server], None], set[str]] = {
    sign_in: {"login_decision", "redirect_uri_decision", "authentication_decision", "rate_decision"},
    authorize: {
        "consent_decision",
        "scope_decision",
        "code_details",
        "expand_authorization_request",
        "grant_details",
        "implied_parameters",
    },
    tell_about_a_person: {"person_claims"},
    decline: {"consent_decision"},
    redeem_and_refresh: {"token_claims", "token_response", "token_binding", "client_auth_decision"},
    client_credentials: {"token_claims", "token_response", "resource_decision"},
    own_grant_type: {"grant_types", "token_claims"},
    introspect_and_revoke: {"introspection_decision"},
    register: {"expand_registration", "registration_decision", "registration_response"},
    push: {"code_details", "client_auth_decision"},
    authenticate_with_a_key: {"client_auth_decision", "introspection_decision", "code_details"},
    ask_from_another_origin: {"origin_decision", "rate_decision"},
    account_and_refusals: {"find_client", "observe", "observe_request"},
    sign_in_through_another_server: {"identity_decision"},
    look_after_what_is_theirs: {"look_after"},
    hand_events_on: {"deliver"},
    forgotten_password: {"send_mail", "observe"},
}


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_somebody_else_can_write_while_a_plugin_is_asked(
    server: Server, story: Callable[[Server], None]
) -> None:
    """T156, T110, T114: at each hook of each endpoint."""
    story(server)
    assert STORIES[story] <= {hook for hook, _ in ASKED}
    assert [hook for hook, could_write in ASKED if not could_write] == []


def test_the_stories_ask_at_every_hook() -> None:
    asked = set().union(*STORIES.values())
    assert asked - {"grant_types"} == set(every_hook()) - AT_START


def test_who_comes_second_is_asked_about_again_without_a_write(server: Server) -> None:
    """G-04, G-05: while a plugin thinks about the claims, somebody else redeems the same code: a replay."""
    client, secret = server.add_client()
    code = server.code(client)
    first: list[Any] = []
    MEANWHILE["token_claims"] = lambda: first.append(server.redeem(client, secret, code))
    answer = server.redeem(client, secret, code)
    assert (first[0].status_int, answer.status_int, answer.json["error"]) == (200, 400, "invalid_grant")
    assert [hook for hook, could_write in ASKED if not could_write] == []
    assert not server.introspect(client, secret, first[0].json["access_token"]).json["active"]


def test_a_refresh_that_comes_second_gets_the_same_successor(server: Server) -> None:
    """I-08: of two at once both get it, and the second one is asked about without a write."""
    granted = Granted(server)
    first: list[Any] = []
    MEANWHILE["token_response"] = lambda: first.append(granted.renew(granted.refresh))
    answer = granted.renew(granted.refresh)
    assert answer.json["refresh_token"] == first[0].json["refresh_token"]
    assert [hook for hook, could_write in ASKED if not could_write] == []


def test_a_grant_that_is_revoked_meanwhile_gives_nothing(server: Server) -> None:
    """R-09: between the last question and the claim nothing is missed."""
    granted = Granted(server)
    MEANWHILE["token_response"] = lambda: granted.revoke(granted.access)
    answer = granted.renew(granted.refresh)
    assert (answer.status_int, answer.json["error"]) == (400, "invalid_grant")
    assert not granted.introspect(granted.refresh).json["active"]


def test_a_sign_in_that_the_floor_refuses_holds_nothing(server: Server) -> None:
    """I-14: the password was changed while it was checked, and the page that comes back asks about its client."""

    def change_password() -> None:
        with server.application.storage.engine.begin() as connection:
            connection.execute(sa.text("UPDATE users SET password_hash = 'another'"))

    page = server.browser().get(server.authorization_url(server.add_client()[0])).follow()
    ASKED.clear()
    MEANWHILE["login_decision"] = change_password
    assert sign_in_at(page).status_int == 400
    assert server.events("sign_in.refused")[-1]["reason"] == "password-changed"
    # The page that comes back is made of what was read before: it asks nothing more.
    last = [hook for hook, _ in ASKED[-4:]]
    assert last == ["login_decision", "rate_decision", "observe", "observe_request"]
    assert [hook for hook, could_write in ASKED if not could_write] == []
    assert server.rows("sessions") == []
