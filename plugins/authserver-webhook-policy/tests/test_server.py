"""The policy on a real server, from the INI to the token."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from listener import SECRET, Listener, answering, dripping, hanging, raw, sending

from authserver.api import ServerError, SignInRefused, VouchedIdentity, sign_in_vouched
from authserver.settings import SettingsError
from authserver.testing.live import free_port
from authserver.testing.server import PASSWORD, VERIFIER, Server, query_of
from authserver.testing.stories import assert_json_error, signed_in, stored
from authserver_webhook_policy import HOOKS

EVERYTHING = " ".join(HOOKS)
SCOPES = ("profile", "files.read", "files.write")
Make = Callable[..., Server]
# What another server says of somebody who was never here.
VOUCHED = VouchedIdentity(
    provider="staff",
    issuer="https://login.example",
    subject="canary-subject",
    claims={"sub": "canary-subject", "email": "canary@example.com"},
)


def machine(server: Server) -> tuple[Any, str | None]:
    return server.add_client(grant_types=("client_credentials",), scopes=SCOPES)


def token_for(server: Server, client: Any, secret: str | None) -> Any:
    return server.token(client, secret, grant_type="client_credentials", scope=" ".join(SCOPES))


def decisions(server: Server, slot: str) -> str:
    """Everything that was recorded about one slot, as text."""
    return "".join(str(event["decisions"]) for event in server.events() if slot in str(event["decisions"]))


def test_an_allow_gives_the_scopes(make_server: Make, endpoint: Listener) -> None:
    endpoint.answers(verdict="allow", reason="ok", value=["files.read", "admin"])
    server = make_server(hooks="scope_decision", without=("scopes_registered", "scopes_default"))
    client, secret = machine(server)
    answer = token_for(server, client, secret)
    assert answer.json["scope"] == "files.read"
    assert server.claims(answer.json["access_token"])["scope"] == "files.read"


def test_a_narrow_intersects_with_what_others_allow(make_server: Make, endpoint: Listener) -> None:
    endpoint.answers(verdict="narrow", reason="at-night", value=["profile", "admin"])
    server = make_server(hooks="scope_decision", known_reasons="at-night")
    client, secret = machine(server)
    assert token_for(server, client, secret).json["scope"] == "profile"
    assert "at-night" in decisions(server, "scope_decision")


def test_a_deny_refuses_whatever_others_say_and_is_recorded(make_server: Make, endpoint: Listener) -> None:
    endpoint.answers(verdict="deny", reason="blocked-by-risk")
    server = make_server(hooks="scope_decision", known_reasons="blocked-by-risk")
    client, secret = machine(server)
    before = stored(server)
    assert_json_error(token_for(server, client, secret), "invalid_scope")
    assert stored(server) == before
    (refused,) = server.events("token.refused")
    assert refused["reason"] == "blocked-by-risk"
    assert "webhook_policy" in str(refused["decisions"])


def test_a_class_name_does_for_a_plugin_too(make_server: Make, endpoint: Listener) -> None:
    endpoint.answers(verdict="narrow", reason="ok", value=["profile"])
    server = make_server(hooks="scope_decision", plugin="authserver_webhook_policy:WebhookPolicy")
    client, secret = machine(server)
    assert token_for(server, client, secret).json["scope"] == "profile"


TROUBLE = {
    "500": sending(500),
    "503": sending(503),
    "redirect": sending(302, Location="http://localhost/"),
    "garbage": sending(200, b"<html>"),
    "wrong type": answering(verdict="allow", reason="ok", value="files.read"),
    "no http": raw(b"\x00\x01\x02"),
    "too long": sending(200, b" " * 70_000),
    "hanging": hanging(1),
    "dripping": dripping(b"HTTP/1.1 200 OK\r\n", b"X-Drop: drop\r\n"),
}


@pytest.mark.parametrize("what", TROUBLE)
def test_an_endpoint_in_trouble_refuses_and_nothing_is_issued(
    what: str, make_server: Make, endpoint: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    """R-14, T140: fails closed, with the plugin named in the log."""
    endpoint.reply = TROUBLE[what]
    server = make_server(hooks="scope_decision", timeout="0.4", retries="1")
    client, secret = machine(server)
    before = stored(server)
    begun = time.monotonic()
    assert_json_error(token_for(server, client, secret), "server_error", status=500)
    assert time.monotonic() - begun < 3
    assert stored(server) == before
    assert "plugin webhook_policy failed in scope_decision" in caplog.text
    assert "plugin-raised" in decisions(server, "scope_decision")


@pytest.mark.parametrize("hook", HOOKS)
def test_with_nobody_at_the_address_no_decision_is_made(hook: str, make_server: Make) -> None:
    """R-14, T140: whichever decision it is asked for."""
    server = make_server(hooks=hook, url=f"http://localhost:{free_port()}/", retries="0")
    client, secret = server.add_client(scopes=SCOPES)
    acting, acting_secret = machine(server)
    browser = server.browser()
    if hook == "login_decision":
        before = stored(server)
        assert server.sign_in(browser).status_int == 500
    elif hook == "identity_decision":
        before = stored(server)
        with pytest.raises(ServerError), server.begin() as engine:
            sign_in_vouched(engine, VOUCHED, None, adds_people=True)
    elif hook == "registration_decision":
        before = stored(server)
        body = {"redirect_uris": ["https://client.example/cb"]}
        answer = browser.post_json(server.path("/oauth/register"), body, expect_errors=True)
        assert_json_error(answer, "server_error", status=500)
    elif hook == "introspection_decision":
        token = token_for(server, acting, acting_secret).json["access_token"]
        before = stored(server)
        answer = server.introspect(acting, acting_secret, token)
        assert_json_error(answer, "server_error", status=500)
    elif hook == "origin_decision":
        before = stored(server)
        answer = server.http.options("/oauth/token", headers={"Origin": "https://client.example"})
        assert "Access-Control-Allow-Origin" not in answer.headers
    elif hook in ("client_auth_decision", "scope_decision", "resource_decision", "rate_decision"):
        before = stored(server)
        assert_json_error(token_for(server, acting, acting_secret), "server_error", status=500)
    else:
        browser = signed_in(server)
        before = stored(server)
        answer = browser.get(server.authorization_url(client), expect_errors=True)
        if hook == "redirect_uri_decision":
            assert answer.status_int == 500
            assert "Location" not in answer.headers
        else:
            assert query_of(answer)["error"] == "server_error"
            assert "code" not in query_of(answer)
    assert stored(server) == before
    assert secret


def test_a_hook_that_is_not_named_is_decided_without_it(make_server: Make, endpoint: Listener) -> None:
    """Its endpoint is down, and nobody notices; and registration stays closed."""
    endpoint.reply = sending(500)
    server = make_server(hooks="consent_decision", without=("registration_open",))
    client, secret = machine(server)
    assert token_for(server, client, secret).status_int == 200
    assert endpoint.received == []
    assert server.http.post_json(server.path("/oauth/register"), {}, expect_errors=True).status_int == 404


def test_no_secret_leaves_in_a_whole_story(make_server: Make, endpoint: Listener) -> None:
    """T140: sign-in, consent, code, tokens, refresh and registration, every question to the endpoint."""
    server = make_server(hooks=EVERYTHING, retries="0")
    client, secret = server.add_client(scopes=SCOPES)
    posting, posting_secret = server.add_client(
        scopes=SCOPES, grant_types=("client_credentials",), token_endpoint_auth_method="client_secret_post"
    )
    browser = server.browser()
    # A password in the wrong field is nobody's name.
    server.sign_in(browser, "canary-typed-as-name", "canary-wrong-password")
    code = server.code(client, browser, scope="profile files.read")
    tokens = server.redeem(client, secret, code).json
    refreshed = server.refresh(client, secret, tokens["refresh_token"]).json
    assert token_for(server, posting, posting_secret).status_int == 200
    assert server.token(posting, "canary-wrong-secret", grant_type="client_credentials").status_int == 401
    assert server.introspect(client, secret, refreshed["access_token"]).status_int == 200
    registered = server.http.post_json(
        server.path("/oauth/register"),
        {"redirect_uris": ["https://client.example/cb"], "scope": "profile"},
        headers={"Authorization": "Bearer canary-initial-access-token"},
        expect_errors=True,
    )

    server.http.options("/oauth/token", headers={"Origin": "https://client.example"})
    # As the plugin for such sign-ins does when the other server has answered.
    with pytest.raises(SignInRefused), server.begin() as engine:
        sign_in_vouched(engine, VOUCHED, None, adds_people=True)
    assert {question["hook"] for question in endpoint.questions} == set(HOOKS)
    canaries = {
        PASSWORD,
        "canary",
        VERIFIER,
        secret,
        posting_secret,
        code,
        tokens["refresh_token"],
        refreshed["refresh_token"],
        tokens["access_token"],
        refreshed["access_token"],
        *(value for name, value in registered.json.items() if name == "client_secret"),
        *browser.cookies.values(),
        SECRET,
        SECRET.removeprefix("whsec_"),
    }
    assert None not in canaries and len(canaries) >= 12
    for received in endpoint.received:
        sent = received.path + repr(received.headers) + received.body.decode()
        assert [canary for canary in canaries if canary in sent] == []
    assert SECRET not in repr(server.events())


def test_everything_goes_on_when_the_endpoint_has_no_opinion(make_server: Make, endpoint: Listener) -> None:
    server = make_server(hooks=EVERYTHING)
    client, secret = server.add_client()
    assert server.redeem(client, secret, server.code(client)).status_int == 200


def test_an_endpoint_may_sign_people_in(make_server: Make, endpoint: Listener) -> None:
    """With `send_password`, and a user is made at first sight."""

    def decide(question: dict[str, Any]) -> dict[str, Any]:
        typed = question["typed"]
        if typed == {"username": "bob", "password": "bob's password"}:
            return {
                "verdict": "allow",
                "reason": "ok",
                "value": {"username": "bob", "display_name": "Bob B"},
            }
        return {"verdict": "deny", "reason": "no"}

    endpoint.decides(decide)
    server = make_server(hooks="login_decision", send_password="true", without=("login_password",))
    assert server.sign_in(server.browser(), "bob", "guess").status_int == 400
    assert [user["username"] for user in server.rows("users")] == ["ann"]
    assert server.sign_in(server.browser(), "bob", "bob's password").status_int == 303
    (user,) = (user for user in server.rows("users") if user["username"] != "ann")
    assert (user["username"], user["display_name"]) == ("bob", "Bob B")
    assert "bob's password" not in repr(server.events())


def test_without_the_password_an_endpoint_may_only_keep_people_out(
    make_server: Make, endpoint: Listener
) -> None:
    server = make_server(hooks="login_decision")
    endpoint.answers(verdict="allow", reason="ok", value={"username": "ann"})
    assert server.browser().get(server.path("/login")).status_int == 200
    assert server.sign_in(server.browser(), "ann", "wrong").status_int == 400
    assert server.sign_in(server.browser(), "ann").status_int == 303
    endpoint.answers(verdict="deny", reason="ok")
    assert server.sign_in(server.browser(), "ann").status_int == 400


def test_consent_may_be_given_or_refused_elsewhere(make_server: Make, endpoint: Listener) -> None:
    server = make_server(hooks="consent_decision", without=("consent_remembered", "consent_first_party"))
    client, _ = server.add_client()
    browser = signed_in(server)
    endpoint.answers(verdict="allow", reason="ok")
    answer = browser.get(server.authorization_url(client))
    assert "code" in dict(parse_qsl(urlsplit(answer.location).query))
    endpoint.answers(verdict="deny", reason="ok")
    assert query_of(browser.get(server.authorization_url(client)))["error"] == "access_denied"


def test_registration_is_confined_elsewhere(make_server: Make, endpoint: Listener) -> None:
    server = make_server(hooks="registration_decision", without=("registration_open",))
    body = {"redirect_uris": ["https://client.example/cb"], "scope": "profile files.read"}
    endpoint.answers(verdict="allow", reason="ok", value={"scopes": ["profile"]})
    answer = server.http.post_json(server.path("/oauth/register"), body)
    assert answer.json["scope"] == "profile"
    endpoint.answers(verdict="deny", reason="ok")
    before = stored(server)
    refused = server.http.post_json(server.path("/oauth/register"), body, expect_errors=True)
    assert_json_error(refused, "invalid_client_metadata")
    assert stored(server) == before


def test_remembered_answers_save_requests(make_server: Make, endpoint: Listener) -> None:
    endpoint.answers(verdict="narrow", reason="ok", value=["profile"])
    server = make_server(hooks="scope_decision", cache_seconds="60")
    client, secret = machine(server)
    for _ in range(5):
        assert token_for(server, client, secret).json["scope"] == "profile"
    assert len(endpoint.received) == 1


def test_a_wrong_setting_stops_the_start_with_the_plugin_named(make_server: Make) -> None:
    with pytest.raises(SettingsError) as refusal:
        make_server(hooks="scope_decision", url="http://policy.example.com/")
    assert "authserver.plugin.webhook_policy: url: must be https" in str(refusal.value)


def test_a_secret_in_the_ini_file_is_announced(make_server: Make, caplog: pytest.LogCaptureFixture) -> None:
    make_server(hooks="scope_decision")
    assert "authserver.plugin.webhook_policy.secret: a secret is in the INI file" in caplog.text
    assert SECRET not in caplog.text
