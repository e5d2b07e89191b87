"""A policy plugin that is broken, or wants too much, seen from outside: nothing is issued, and it is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from webtest import TestApp, TestResponse

from authserver.api import (
    Client,
    ClientMetadata,
    Decision,
    Identity,
    Secret,
    allow,
    deny,
    hookimpl,
)
from authserver.testing.server import (
    ISSUER,
    PASSWORD,
    REDIRECT_URI,
    RESOURCE,
    SETTINGS,
    Server,
    forged,
    form_with,
    query_of,
)

MakeServer = Callable[..., Server]
FAULTS: dict[str, Any] = {
    "raises": RuntimeError("canary of a broken plugin"),
    "exits": SystemExit("canary of a broken plugin"),
    "interrupts": KeyboardInterrupt("canary of a broken plugin"),
    "reason": deny("a" * 101),
    "true": True,
    "handmade": Decision("deny", "handmade"),  # what a careless plugin might make
    "value": allow("yes", object()),
}
# These slots take an allow without a value, and so whatever value comes with it.
WITHOUT_VALUE = (
    "client_auth_decision",
    "redirect_uri_decision",
    "consent_decision",
    "introspection_decision",
)


@dataclass(frozen=True)
class Faulty:
    """Broken at one hook, silent at all others."""

    hook: str
    fault: str

    def answer(self, hook: str) -> Any:
        if hook != self.hook:
            return None
        fault = FAULTS[self.fault]
        if isinstance(fault, BaseException):
            raise type(fault)(*fault.args)
        return fault

    @hookimpl
    def client_auth_decision(self) -> Any:
        return self.answer("client_auth_decision")

    @hookimpl
    def redirect_uri_decision(self) -> Any:
        return self.answer("redirect_uri_decision")

    @hookimpl
    def scope_decision(self) -> Any:
        return self.answer("scope_decision")

    @hookimpl
    def resource_decision(self) -> Any:
        return self.answer("resource_decision")

    @hookimpl
    def authentication_decision(self) -> Any:
        return self.answer("authentication_decision")

    @hookimpl
    def consent_decision(self) -> Any:
        return self.answer("consent_decision")

    @hookimpl
    def login_decision(self) -> Any:
        return self.answer("login_decision")

    @hookimpl
    def registration_decision(self) -> Any:
        return self.answer("registration_decision")

    @hookimpl
    def introspection_decision(self) -> Any:
        return self.answer("introspection_decision")


def with_plugin(kind: type, *, first: bool = True, **settings: str) -> dict[str, str]:
    """Settings with one more plugin, asked first or last."""
    name = f"{__name__}:{kind.__name__}"
    lines = [name, SETTINGS["authserver.plugins"]] if first else [SETTINGS["authserver.plugins"], name]
    prefix = f"authserver.plugin.{kind.__name__.lower()}."
    return {
        "authserver.plugins": "\n".join(lines),
        **{prefix + key: value for key, value in settings.items()},
    }


def ask_client_auth(server: Server, client: Client, secret: str | None, browser: TestApp) -> TestResponse:
    return server.token(client, secret, grant_type="client_credentials", scope="profile")


def ask_authorize(server: Server, client: Client, secret: str | None, browser: TestApp) -> TestResponse:
    return browser.get(server.authorization_url(client), expect_errors=True)


def ask_login(server: Server, client: Client, secret: str | None, browser: TestApp) -> TestResponse:
    # Asked before anything is typed, and again with what was typed.
    page = server.browser().get("/login", expect_errors=True)
    return server.sign_in(server.browser()) if page.status_int == 200 else page


def ask_register(server: Server, client: Client, secret: str | None, browser: TestApp) -> TestResponse:
    metadata = {"client_name": "New", "redirect_uris": ["https://new.example/cb"]}
    return server.http.post_json("/oauth/register", metadata, expect_errors=True)


def ask_introspect(server: Server, client: Client, secret: str | None, browser: TestApp) -> TestResponse:
    issued = server.token(client, secret, grant_type="client_credentials", scope="profile")
    return server.introspect(client, secret, issued.json["access_token"])


# How each hook comes to be asked, and how its failure is delivered.
STORIES = {
    "client_auth_decision": (ask_client_auth, "json"),
    "scope_decision": (ask_client_auth, "json"),
    "resource_decision": (ask_client_auth, "json"),
    "redirect_uri_decision": (ask_authorize, "page"),
    "authentication_decision": (ask_authorize, "redirect"),
    "consent_decision": (ask_authorize, "redirect"),
    "login_decision": (ask_login, "page"),
    "registration_decision": (ask_register, "json"),
    "introspection_decision": (ask_introspect, "json"),
}
KEPT = ("tokens", "grants", "clients", "client_secrets", "consents", "sessions", "users")
CASES = [
    (hook, fault, first)
    for hook in STORIES
    for fault in FAULTS
    for first in ((True, False) if fault == "raises" else (True,))
    if fault != "value" or hook not in WITHOUT_VALUE
]


@pytest.mark.parametrize(("hook", "fault", "first"), CASES)
def test_a_broken_plugin_issues_nothing_and_is_named(
    hook: str, fault: str, first: bool, make_server: MakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    """R-14, T139, T140, E-15: raised, a wrong type, a wrong value: `server_error`, audited, at every hook."""
    sound = make_server()
    sound.add_user()
    grant_types = ("authorization_code", "refresh_token", "client_credentials")
    client, secret = sound.add_client(grant_types=grant_types)
    # The use of the client and of its secret is noted, and not again so soon.
    sound.token(client, secret, grant_type="client_credentials")
    browser = sound.browser()
    sound.sign_in(browser)
    broken = make_server(with_plugin(Faulty, first=first, hook=hook, fault=fault))
    same_browser = broken.browser()
    same_browser.cookiejar = browser.cookiejar
    before = {table: broken.rows(table) for table in KEPT}
    caplog.clear()
    ask, delivery = STORIES[hook]

    answer = ask(broken, client, secret, same_browser)

    assert_server_error(answer, delivery)
    assert {table: broken.rows(table) for table in KEPT} == before
    assert "plugin faulty" in caplog.text
    assert hook in caplog.text
    event = broken.events()[-1]
    assert event["type"].endswith(".refused")
    assert event["reason"].startswith(("plugin-raised", "wrong-", "bad-reason"))
    assert '"decided_by":"faulty"' in str(event["decisions"]).replace(" ", "").replace("'", '"')
    # With the plugin gone, the same request goes through: nothing was spoilt.
    after = sound.browser()
    after.cookiejar = browser.cookiejar
    assert ask(sound, client, secret, after).status_int in (200, 201, 303)


def assert_server_error(answer: TestResponse, delivery: str) -> None:
    assert "canary" not in answer.text
    assert "Traceback" not in answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    if delivery == "redirect":
        assert answer.status_int == 303
        assert answer.location.startswith(REDIRECT_URI + "?")
        query = query_of(answer)
        assert (query["error"], query["state"], query["iss"]) == ("server_error", "xyz", ISSUER)
        assert "code" not in query
        return
    assert answer.status_int == 500
    assert "Location" not in answer.headers
    if delivery == "json":
        assert answer.json["error"] == "server_error"
        assert set(answer.json) == {"error", "error_description", "error_id"}
    else:
        assert answer.content_type == "text/html"
        assert "server_error" in answer.text
        assert "client.example" not in answer.text


def test_a_plugin_that_breaks_later_keeps_code_and_refresh_token_unspent(make_server: MakeServer) -> None:
    """R-14: what a broken plugin refused at the token endpoint works once the plugin is mended."""
    sound = make_server()
    sound.add_user()
    client, secret = sound.add_client()
    broken = make_server(with_plugin(Faulty, hook="scope_decision", fault="raises"))
    code = sound.code(client)
    assert broken.redeem(client, secret, code).json["error"] == "server_error"
    tokens = sound.redeem(client, secret, code).json
    assert broken.refresh(client, secret, tokens["refresh_token"]).json["error"] == "server_error"
    assert sound.refresh(client, secret, tokens["refresh_token"]).status_int == 200


# ---- Too much -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Greedy:
    """Allows everything to everybody, and more than was asked for."""

    @hookimpl
    def client_auth_decision(self) -> Decision:
        return allow("everybody")

    @hookimpl
    def redirect_uri_decision(self) -> Decision:
        return allow("anywhere")

    @hookimpl
    def scope_decision(self, requested: tuple[str, ...]) -> Decision:
        return allow("everything", (*requested, "files.read", "files.write", "admin", "no.such.scope"))

    @hookimpl
    def consent_decision(self) -> Decision:
        return allow("unasked")


@pytest.fixture
def greedy(make_server: MakeServer) -> Server:
    server = make_server(with_plugin(Greedy))
    server.add_user()
    return server


def test_no_plugin_widens_a_scope_beyond_what_was_asked_for(greedy: Server) -> None:
    """E-15, T140, T081: a wider allow is cut to the request, for each grant type."""
    client, secret = greedy.add_client(
        grant_types=("authorization_code", "refresh_token", "client_credentials"),
        scopes=("profile", "files.read"),
    )
    own = greedy.token(client, secret, grant_type="client_credentials", scope="profile").json
    coded = greedy.redeem(client, secret, greedy.code(client, scope="profile")).json
    renewed = greedy.refresh(client, secret, coded["refresh_token"]).json
    assert [answer["scope"] for answer in (own, coded, renewed)] == ["profile"] * 3
    assert [greedy.claims(a["access_token"])["scope"] for a in (own, coded, renewed)] == ["profile"] * 3


def test_no_plugin_widens_a_scope_beyond_what_is_registered(greedy: Server) -> None:
    """E-15, T140: without a requested scope the registered ones are the ceiling."""
    client, secret = greedy.add_client(grant_types=("client_credentials",), scopes=("profile", "files.read"))
    answer = greedy.token(client, secret, grant_type="client_credentials")
    assert answer.json["scope"] == "files.read"
    refused = greedy.token(client, secret, grant_type="client_credentials", scope="files.write")
    assert (refused.status_int, refused.json["error"]) == (400, "invalid_scope")


def test_no_plugin_lets_a_wrong_secret_pass(greedy: Server) -> None:
    """E-15, T140: the floor under client authentication: a secret that does not match, another method."""
    client, secret = greedy.add_client(grant_types=("client_credentials",))
    by_post = replace(client, auth_method="client_secret_post")
    for asking, shown in (
        (client, forged("as_secret_")),
        (by_post, secret),
        (replace(client, auth_method="none"), None),
    ):
        answer = greedy.token(asking, shown, grant_type="client_credentials", scope="profile")
        assert (answer.status_int, answer.json["error"]) == (401, "invalid_client")
    assert greedy.rows("tokens") == greedy.rows("grants") == []


@pytest.mark.parametrize(
    "uri", ["javascript:alert(1)", "http://evil.example/cb", "https://evil.example/cb#x", "data:text/html,x"]
)
def test_no_plugin_redirects_where_nobody_could_register(uri: str, greedy: Server) -> None:
    """E-15, T140: the floor under redirect URIs: a page, without a link to the URI."""
    client, _ = greedy.add_client()
    answer = greedy.browser().get(greedy.authorization_url(client, redirect_uri=uri), expect_errors=True)
    assert (answer.status_int, answer.content_type) == (400, "text/html")
    assert "Location" not in answer.headers
    assert "evil" not in answer.text


@pytest.mark.parametrize("redirect_uri", ["http://127.0.0.1/cb", REDIRECT_URI])
def test_no_plugin_spares_the_page_where_nothing_proves_the_client(redirect_uri: str, greedy: Server) -> None:
    """E-12, E-15: a public client that is not of the house is asked about although a policy would not."""
    client, _ = greedy.add_client(
        token_endpoint_auth_method="none", redirect_uris=(redirect_uri,), application_type="native"
    )
    browser = greedy.browser()
    greedy.sign_in(browser)
    answer = browser.get(greedy.authorization_url(client))
    assert answer.status_int == 200
    assert form_with(answer, "scope")
    assert greedy.rows("tokens") == []


@dataclass(frozen=True)
class Misleading:
    """Answers that are of the right type, and still cannot be meant."""

    resource: str = ""
    username: str = ""
    scope: str = ""

    @hookimpl
    def resource_decision(self, resource: str | None) -> Decision | None:
        return allow("elsewhere", self.resource) if self.resource else None

    @hookimpl
    def login_decision(self, password: Secret) -> Decision | None:
        return (
            allow("somebody", Identity(username=self.username)) if password.value and self.username else None
        )

    @hookimpl
    def registration_decision(self, metadata: ClientMetadata) -> Decision | None:
        return allow("more", replace(metadata, scopes=(self.scope,))) if self.scope else None


@pytest.mark.parametrize("resource", ["not a uri", "https://api.example/#x", "/relative"])
def test_a_resource_that_is_none_is_a_fault_of_the_plugin(
    resource: str, make_server: MakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    """E-15, T140: no token gets an audience that is no resource."""
    server = make_server(with_plugin(Misleading, resource=resource))
    client, secret = server.add_client(grant_types=("client_credentials",))
    answer = server.token(client, secret, grant_type="client_credentials", scope="profile", resource=RESOURCE)
    assert_server_error(answer, "json")
    assert "plugin misleading" in caplog.text


def test_a_user_name_that_is_none_is_a_fault_of_the_plugin(
    make_server: MakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    """E-15, T140, T105: a login policy cannot make a person that nobody could have added."""
    server = make_server(with_plugin(Misleading, username="admin\u202e ../root"))
    answer = server.sign_in(server.browser(), "ann", PASSWORD)
    assert_server_error(answer, "page")
    assert server.rows("users") == server.rows("sessions") == []
    assert "plugin misleading" in caplog.text


def test_a_registration_policy_cannot_register_what_does_not_exist(make_server: MakeServer) -> None:
    """E-15, K-11: what a policy made of the metadata meets the same floor."""
    server = make_server(with_plugin(Misleading, scope="no.such.scope"))
    metadata = {"client_name": "New", "redirect_uris": ["https://new.example/cb"]}
    answer = server.http.post_json("/oauth/register", metadata, expect_errors=True)
    assert (answer.status_int, answer.json["error"]) == (400, "invalid_client_metadata")
    assert server.rows("clients") == []


# ---- At start -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Collides:
    @hookimpl
    def server_metadata(self) -> dict[str, Any]:
        return {"issuer": "https://evil.example"}


@dataclass(frozen=True)
class TakesARoute:
    """Adds pages that are there already, or fails at it."""

    fails: bool = False

    @hookimpl
    def includeme(self, config: Any) -> None:
        if self.fails:
            raise RuntimeError("no such file")
        config.add_route("token", "/elsewhere")


def test_a_plugin_cannot_take_a_member_of_the_metadata(make_server: MakeServer) -> None:
    """T143, A-03: a collision stops the start with both named."""
    with pytest.raises(Exception, match="plugin collides: server_metadata sets issuer, which the core sets"):
        make_server(with_plugin(Collides))


def test_a_plugin_whose_pages_fail_stops_the_start(make_server: MakeServer) -> None:
    """R-14: `includeme` that raises names its plugin."""
    with pytest.raises(
        Exception, match="plugin takes_aroute failed in includeme: RuntimeError: no such file"
    ):
        make_server({**with_plugin(TakesARoute), "authserver.plugin.takes_aroute.fails": "true"})


def test_a_plugin_cannot_take_a_route(make_server: MakeServer) -> None:
    """T140: two registrations of one route stop the start."""
    with pytest.raises(Exception, match="token"):
        make_server(with_plugin(TakesARoute))
