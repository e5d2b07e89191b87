"""A line of authserver.plugins that goes, or is replaced, changes what the server does: one story per family."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import pytest
from webtest import TestApp, TestResponse

from authserver.api import (
    Client,
    ClientMetadata,
    Credentials,
    Decision,
    Identity,
    Secret,
    allow,
    deny,
    hookimpl,
    narrow,
    normalise_username,
)
from authserver.testing.server import REDIRECT_URI, RESOURCE, SETTINGS, Server, form_with, query_of

MakeServer = Callable[..., Server]
EVERY_GRANT_TYPE = ("authorization_code", "refresh_token", "client_credentials")
LOOPBACK = "http://127.0.0.1/cb"


def plugins(*added: type, without: str = "") -> dict[str, str | None]:
    """Settings with these lines taken out of `authserver.plugins`, and these classes put in; settings too."""
    gone = without.split()
    names = [name for name in SETTINGS["authserver.plugins"].split() if name not in gone]
    settings: dict[str, str | None] = {
        key: None for key in SETTINGS if key.startswith(tuple(f"authserver.plugin.{name}." for name in gone))
    }
    names += [f"{__name__}:{kind.__name__}" for kind in added]
    return {**settings, "authserver.plugins": "\n".join(names)}


def ask(server: Server, client: Client, **changes: str | None) -> TestResponse:
    """The authorization endpoint, asked by a browser in which ann is signed in."""
    browser = server.browser()
    server.sign_in(browser)
    return browser.get(server.authorization_url(client, **changes), expect_errors=True)


def own_token(server: Server, client: Client, secret: str | None, **form: str) -> TestResponse:
    return server.token(client, secret, **{"grant_type": "client_credentials", "scope": "profile", **form})


def started(make_server: MakeServer, settings: dict[str, str | None]) -> Server:
    server = make_server(settings)
    server.add_user()
    return server


# ---- redirect_uri_decision -------------------------------------------------------------------------


@dataclass(frozen=True)
class SameFolder:
    """Accepts whatever lies below a registered redirect URI."""

    @hookimpl
    def redirect_uri_decision(self, client: Client, redirect_uri: str) -> Decision | None:
        if any(redirect_uri.startswith(f"{uri}/") for uri in client.redirect_uris):
            return allow("same-folder")
        return None


def test_without_the_loopback_plugin_the_port_counts(make_server: MakeServer) -> None:
    """C-02: `redirect_loopback` lets the port vary, and only that line does."""
    other_port = "http://127.0.0.1:49152/cb"
    for without, status in (("", 200), ("redirect_loopback", 400)):
        server = make_server(plugins(without=without))
        server.rows("users") or server.add_user()
        client, _ = server.add_client(redirect_uris=(LOOPBACK,), application_type="native")
        assert ask(server, client, redirect_uri=other_port).status_int == status
        assert ask(server, client, redirect_uri=LOOPBACK).status_int == 200


def test_without_any_redirect_uri_plugin_nothing_is_redirected(make_server: MakeServer) -> None:
    """R-14: silence of redirect_uri_decision refuses, with a page."""
    server = started(make_server, plugins(without="redirect_exact redirect_loopback"))
    client, _ = server.add_client()
    answer = ask(server, client)
    assert (answer.status_int, answer.location) == (400, None)
    assert server.events("authorization.refused")[0]["reason"] == "nobody-answered"


def test_another_redirect_uri_plugin_decides_otherwise(make_server: MakeServer) -> None:
    """A plugin of one's own serves the whole flow, the redemption of the code included."""
    server = started(make_server, plugins(SameFolder, without="redirect_exact"))
    client, secret = server.add_client()
    below = f"{REDIRECT_URI}/deep"
    assert ask(server, client, redirect_uri=REDIRECT_URI).status_int == 400
    code = server.code(client, redirect_uri=below)
    assert server.redeem(client, secret, code, redirect_uri=below).status_int == 200


# ---- scope_decision --------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReadOnly:
    """Narrows every grant to what does not write."""

    @hookimpl
    def scope_decision(self, requested: tuple[str, ...]) -> Decision:
        return narrow("read-only", tuple(scope for scope in requested if not scope.endswith(".write")))


@dataclass(frozen=True)
class Curfew:
    """Refuses one grant type."""

    @hookimpl
    def scope_decision(self, grant_type: str) -> Decision | None:
        return deny("curfew") if grant_type == "refresh_token" else None


def test_without_the_scope_plugins_every_scope_is_refused(make_server: MakeServer) -> None:
    """R-14: silence of scope_decision refuses, for people and for clients."""
    server = started(make_server, plugins(without="scopes_registered scopes_default resources_listed"))
    client, secret = server.add_client(grant_types=EVERY_GRANT_TYPE)
    assert query_of(ask(server, client))["error"] in ("invalid_scope", "invalid_target")
    assert own_token(server, client, secret).json["error"] in ("invalid_scope", "invalid_target")


def test_without_the_default_scopes_a_request_must_name_one(make_server: MakeServer) -> None:
    """`scopes_default` answers a request without scope, and only that line does."""
    for without, error in (("", None), ("scopes_default", "invalid_scope")):
        server = make_server(plugins(without=without))
        client, secret = server.add_client(grant_types=("client_credentials",))
        assert server.token(client, secret, grant_type="client_credentials").json.get("error") == error


@pytest.mark.parametrize("grant_type", EVERY_GRANT_TYPE)
def test_a_narrowing_holds_for_every_grant_type(grant_type: str, make_server: MakeServer) -> None:
    """T081, E-15: one shared scope filter; a policy that narrows is asked by each grant."""
    server = started(make_server, plugins(ReadOnly))
    client, secret = server.add_client(grant_types=EVERY_GRANT_TYPE, scopes=("profile", "files.write"))
    both = "files.write profile"
    if grant_type == "client_credentials":
        answer = own_token(server, client, secret, scope=both)
    else:
        answer = server.redeem(client, secret, server.code(client, scope=both))
    if grant_type == "refresh_token":
        answer = server.refresh(client, secret, answer.json["refresh_token"])
    assert answer.json["scope"] == "profile"
    assert server.claims(answer.json["access_token"])["scope"] == "profile"


@pytest.mark.parametrize("grant_type", EVERY_GRANT_TYPE)
def test_a_scope_taken_from_a_client_is_refused_in_every_grant_type(
    grant_type: str, make_server: MakeServer
) -> None:
    """T081: what was registered when the code or refresh token was issued does not count any more."""
    server = started(make_server, {})
    client, secret = server.add_client(grant_types=EVERY_GRANT_TYPE)
    code = server.code(client)
    token = server.redeem(client, secret, server.code(client)).json["refresh_token"]
    with server.application.storage.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE clients SET scopes = 'files.read'")
    before = server.rows("tokens")
    answer = {
        "authorization_code": lambda: server.redeem(client, secret, code),
        "refresh_token": lambda: server.refresh(client, secret, token),
        "client_credentials": lambda: own_token(server, client, secret),
    }[grant_type]()
    assert (answer.status_int, answer.json["error"]) == (400, "invalid_scope")
    assert server.rows("tokens") == before


def test_a_policy_may_refuse_one_grant_type_alone(make_server: MakeServer) -> None:
    """T081: the grant type is part of the question; a deny after the fact leaves the refresh token unspent."""
    server = started(make_server, plugins(Curfew))
    client, secret = server.add_client()
    tokens = server.redeem(client, secret, server.code(client)).json
    before = server.rows("tokens")
    answer = server.refresh(client, secret, tokens["refresh_token"])
    assert (answer.status_int, answer.json["error"]) == (400, "invalid_scope")
    assert server.rows("tokens") == before
    assert server.events("token.refused")[0]["reason"] == "curfew"


# ---- client_auth_decision --------------------------------------------------------------------------


@dataclass(frozen=True)
class Gateway:
    """Believes a gateway that names the client, on top of the client's own method."""

    @hookimpl
    def client_auth_decision(self, client: Client, credentials: Credentials) -> Decision:
        if credentials.headers.get("x-client-verified") == client.client_id:
            return allow("gateway-verified")
        return deny("gateway-silent")


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post", "none"])
def test_without_its_plugin_a_method_of_client_authentication_is_gone(
    method: str, make_server: MakeServer
) -> None:
    """A-18, K-08: it authenticates nobody, cannot be registered and is not in the metadata."""
    line = {"none": "public_client"}.get(method, method)
    with_it = started(make_server, {})
    grant_types = ("authorization_code", "refresh_token") if method == "none" else EVERY_GRANT_TYPE
    client, secret = with_it.add_client(token_endpoint_auth_method=method, grant_types=grant_types)
    token = with_it.redeem(client, secret, with_it.code(client)).json["refresh_token"]
    without_it = make_server(plugins(without=line))
    answer = without_it.refresh(client, secret, token)
    assert (answer.status_int, answer.json["error"]) == (401, "invalid_client")
    listed = without_it.http.get("/.well-known/oauth-authorization-server").json
    assert method not in listed["token_endpoint_auth_methods_supported"]
    metadata = {"redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": method}
    refused = without_it.http.post_json("/oauth/register", metadata, expect_errors=True)
    assert (refused.status_int, refused.json["error"]) == (400, "invalid_client_metadata")
    assert with_it.refresh(client, secret, token).status_int == 200


def test_another_client_authentication_plugin_decides_otherwise(make_server: MakeServer) -> None:
    """A policy looks at headers, and its deny refuses what the secret alone would have allowed."""
    server = make_server(plugins(Gateway))
    client, secret = server.add_client(
        grant_types=("client_credentials",), token_endpoint_auth_method="client_secret_post"
    )
    form = {
        "grant_type": "client_credentials",
        "scope": "profile",
        "client_id": client.client_id,
        "client_secret": secret,
    }
    refused = server.http.post("/oauth/token", form, expect_errors=True)
    assert (refused.status_int, refused.json["error"]) == (401, "invalid_client")
    assert server.events("token.refused")[0]["reason"] == "gateway-silent"
    headers = {"X-Client-Verified": client.client_id}
    assert server.http.post("/oauth/token", form, headers=headers).status_int == 200


# ---- consent_decision ------------------------------------------------------------------------------


@dataclass(frozen=True)
class NotThisClient:
    @hookimpl
    def consent_decision(self) -> Decision:
        return deny("not-this-client")


def test_without_the_remembering_plugin_everybody_is_asked_every_time(make_server: MakeServer) -> None:
    """E-12: `consent_remembered` spares the second page, and only that line does; silence asks."""
    for without, status in (("", 303), ("consent_remembered", 200)):
        server = make_server(plugins(without=without))
        server.rows("users") or server.add_user()
        client, _ = server.add_client()
        server.code(client)
        assert ask(server, client).status_int == status


def test_without_the_first_party_plugin_our_own_applications_ask_too(make_server: MakeServer) -> None:
    """E-12: `consent_first_party` spares the page, and only that line does."""
    for without, status in (("", 303), ("consent_first_party", 200)):
        server = make_server(plugins(without=without))
        server.rows("users") or server.add_user()
        client, _ = server.add_client(first_party=True)
        assert ask(server, client).status_int == status


def test_a_consent_plugin_may_refuse_whatever_the_user_would_say(make_server: MakeServer) -> None:
    """E-15: a deny goes to the client without a page, and any deny wins over what is remembered."""
    sound = started(make_server, {})
    client, _ = sound.add_client(first_party=True)
    sound.code(client)
    server = make_server(plugins(NotThisClient))
    before = server.rows("tokens"), server.rows("grants")
    answer = ask(server, client)
    assert (answer.status_int, query_of(answer)["error"]) == (303, "access_denied")
    assert (server.rows("tokens"), server.rows("grants")) == before
    assert server.events("authorization.refused")[0]["reason"] == "not-this-client"


# ---- login_decision --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Directory:
    """Knows one person more, as a directory would."""

    @hookimpl
    def login_decision(self, username: str, password: Secret) -> Decision | None:
        if (username, password.value) == ("bea", "a password in the directory"):
            return allow("directory-bind", Identity(username="bea", display_name="Bea", methods=("ldap",)))
        return None


def signed_in(server: Server, browser: TestApp) -> bool:
    return "You are signed in as" in browser.get(server.path("/")).text


def test_without_a_login_plugin_nobody_signs_in(make_server: MakeServer) -> None:
    """R-14: silence of login_decision refuses."""
    server = started(make_server, plugins(without="login_password"))
    browser = server.browser()
    assert server.sign_in(browser).status_int == 400
    assert not signed_in(server, browser)
    assert server.events("sign_in.refused")[0]["reason"] == "nobody-answered"


def test_another_login_plugin_brings_its_own_people(make_server: MakeServer) -> None:
    """A person is made at first sight, and found again at the second; the local ones stay."""
    server = started(make_server, plugins(Directory))
    for _ in range(2):
        browser = server.browser()
        assert server.sign_in(browser, "Bea", "a password in the directory").status_int == 303
        assert signed_in(server, browser)
    assert sorted(row["username"] for row in server.rows("users")) == ["ann", "bea"]
    assert server.sign_in(server.browser(), "bea", "wrong").status_int == 400
    assert server.sign_in(server.browser()).status_int == 303


@dataclass(frozen=True)
class Anybody:
    """Vouches for the name that is typed as the password, as a directory may have it."""

    @hookimpl
    def login_decision(self, password: Secret) -> Decision | None:
        return allow("directory-bind", Identity(username=password.value)) if password.value else None


def test_a_name_that_a_policy_vouches_for_is_taken(make_server: MakeServer) -> None:
    """B201, B202: as directories have names."""
    server = started(make_server, plugins(Anybody, without="login_password"))
    for name in ("CORP\\Ann", "o'brien@example.com", "svc$", "佐々木", "นิวัฒน์"):
        for _ in range(2):
            browser = server.browser()
            assert server.sign_in(browser, "someone", name).status_int == 303
            assert signed_in(server, browser)
        assert server.rows("users")[-1]["username"] == normalise_username(name)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (
            "ann lee",
            "'ann lee': a user name has letters, digits and punctuation, but not U+0020 here (spaces)",
        ),
        ("аnn", "'аnn': a user name is written in one script"),
        ("ann\x1b[2J", "'ann\\x1b[2J': a user name has no control characters"),
        ("a\u202enn", "'a\\u202enn': a user name has letters, digits and punctuation, but not U+202E here"),
        ("a" * 101, "a user name has 1 to 100 characters"),
    ],
)
def test_the_log_says_why_a_name_that_a_policy_vouches_for_is_not_taken(
    name: str, why: str, make_server: MakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    """T105: and nobody is signed in."""
    server = started(make_server, plugins(Anybody, without="login_password"))
    people = server.rows("users")
    assert server.sign_in(server.browser(), "someone", name).status_int == 500
    assert [
        line
        for line in caplog.messages
        if "plugin anybody answered login_decision wrongly" in line and why in line
    ]
    assert server.rows("users") == people and server.rows("sessions") == []


# ---- registration_decision -------------------------------------------------------------------------

METADATA = {"scope": "profile", "client_name": "New", "redirect_uris": ["https://new.example/cb"]}


@dataclass(frozen=True)
class OneName:
    """Registers whoever asks under one name, from one network."""

    @hookimpl
    def registration_decision(self, metadata: ClientMetadata, source: str) -> Decision:
        if source != "192.0.2.1":
            return deny("source-unknown")
        return allow("renamed", replace(metadata, client_name="Renamed"))


def test_without_a_registration_plugin_there_is_no_such_endpoint(make_server: MakeServer) -> None:
    """A-14, K-09: silence of registration_decision closes the endpoint and takes it out of the metadata."""
    server = make_server(plugins(without="registration_open"))
    assert server.http.post_json("/oauth/register", METADATA, expect_errors=True).status_int == 404
    assert "registration_endpoint" not in server.http.get("/.well-known/oauth-authorization-server").json
    assert server.rows("clients") == []


def test_the_token_plugin_in_place_of_the_open_one_wants_a_token(make_server: MakeServer) -> None:
    """K-09: the same endpoint, another line of the INI."""
    token = "0123456789abcdef0123456789abcdef"
    server = make_server(
        {
            **plugins(without="registration_open"),
            "authserver.plugins": "registration_token client_secret_basic redirect_exact",
            "authserver.plugin.registration_token.tokens": token,
            "authserver.plugin.registration_token.scopes": "profile",
            # The other plugins' settings go with their lines.
            **{
                key: None
                for key in SETTINGS
                if key.startswith("authserver.plugin.")
                and not key.startswith("authserver.plugin.registration_token.")
            },
        }
    )
    refused = server.http.post_json("/oauth/register", METADATA, expect_errors=True)
    assert (refused.status_int, refused.json["error"]) == (401, "invalid_token")
    assert server.rows("clients") == []
    headers = {"Authorization": f"Bearer {token}"}
    assert server.http.post_json("/oauth/register", METADATA, headers=headers).status_int == 201


def test_another_registration_plugin_decides_what_is_stored(make_server: MakeServer) -> None:
    """The value of its allow is what is registered and told; X-Forwarded-For does not change the source."""
    server = make_server(plugins(OneName, without="registration_open"))
    answer = server.http.post_json("/oauth/register", METADATA, headers={"X-Forwarded-For": "203.0.113.9"})
    assert answer.json["client_name"] == "Renamed"
    assert server.rows("clients")[0]["name"] == "Renamed"
    elsewhere = {"REMOTE_ADDR": "203.0.113.9"}
    refused = server.http.post_json("/oauth/register", METADATA, extra_environ=elsewhere, expect_errors=True)
    assert (refused.status_int, refused.json["error"]) == (400, "invalid_client_metadata")


# ---- resource_decision -----------------------------------------------------------------------------


@dataclass(frozen=True)
class OneApi:
    @hookimpl
    def resource_decision(self, resource: str | None) -> Decision | None:
        wanted = "https://only.example/"
        return allow("the-api", wanted) if resource in (None, wanted) else None


def test_without_a_resource_plugin_no_token_has_an_audience_and_none_is_issued(
    make_server: MakeServer,
) -> None:
    """R-14: silence of resource_decision refuses."""
    server = make_server(plugins(without="resources_listed"))
    client, secret = server.add_client(grant_types=("client_credentials",))
    for form in ({}, {"resource": RESOURCE}):
        answer = own_token(server, client, secret, **form)
        assert (answer.status_int, answer.json["error"]) == (400, "invalid_target")


def test_another_resource_plugin_decides_the_audience(make_server: MakeServer) -> None:
    """RFC 8707: its value becomes `aud`, and what it does not know is refused."""
    server = make_server(plugins(OneApi, without="resources_listed"))
    client, secret = server.add_client(grant_types=("client_credentials",))
    token = own_token(server, client, secret).json["access_token"]
    assert server.claims(token)["aud"] == "https://only.example/"
    assert own_token(server, client, secret, resource=RESOURCE).json["error"] == "invalid_target"


# ---- includeme -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class About:
    """Adds a page."""

    text: str = "About us"

    @hookimpl
    def includeme(self, config: object) -> None:
        config.add_route("about", "/about")  # Pyramid publishes no types
        config.add_view(lambda request: self.text, route_name="about", renderer="string")  # likewise


def test_a_plugin_adds_a_page_below_the_issuer(make_server: MakeServer) -> None:
    """The page is there with its line, under the path of the issuer, and gone without it."""
    server = make_server({**plugins(About), "authserver.issuer": "https://as.example/tenant"})
    page = server.http.get("/tenant/about")
    assert page.text == "About us"
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert server.http.get("/about", expect_errors=True).status_int == 404
    assert make_server().http.get("/about", expect_errors=True).status_int == 404


def test_the_consent_page_still_stands_between(make_server: MakeServer) -> None:
    """E-15: with every shipped line in place a third-party client of the code grant asks first."""
    server = started(make_server, {})
    client, _ = server.add_client()
    answer = ask(server, client)
    assert answer.status_int == 200
    assert form_with(answer, "scope")
    assert urlsplit(answer.request.url).path == "/oauth/authorize"
