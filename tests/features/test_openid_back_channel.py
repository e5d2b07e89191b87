"""Applications are told when a session ends (OpenID Connect Back-Channel Logout 1.0)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from authserver.api import ON_ANOTHER_DEVICE, Event, Secret, digest
from authserver.engine.context import Engine
from authserver.engine.pending import Browser
from authserver.engine.people import account
from authserver.engine.people.login import disable_user, sign_in, sign_out
from authserver.engine.records import Client
from authserver.engine.session_handles import session_handle
from authserver.event_readers import Reading
from authserver.features.openid import back_channel
from authserver.features.openid.back_channel import EVENT, NotTold
from authserver.plugins.delivering import deliveries
from authserver.testing.origins import Origin, Reply, raw, sending, serving
from authserver.testing.rules import Rules, assert_refused, is_active
from authserver.testing.server import ISSUER, Server
from tests.features.openid_steps import ON, SCOPES, a_client_of, a_new_server, a_server, id_claims, tokens

LOOPBACK = {**ON, "authserver.fetch_loopback": "true"}
PATH = "/bye"


@pytest.fixture
def origin() -> Iterator[Origin]:
    with serving() as origin:
        origin.reply = sending(b"")
        yield origin


@pytest.fixture
def rules() -> Rules:
    return a_new_server(LOOPBACK)


def a_client_at(rules: Rules, origin: Origin, path: str = PATH, **details: Any) -> tuple[Client, str | None]:
    told_at = f"http://127.0.0.1:{origin.port}{path}"
    return a_client_of(rules, details={"backchannel_logout_uri": told_at, **details})


def told(rules: Rules, origin: Origin) -> list[dict[str, Any]]:
    """The claims of the logout tokens that came, verified with the keys of the server, each with its header."""
    keys = KeySet.import_key_set(dict(rules.parts.signer.jwks()))
    found = []
    for request in origin.received:
        assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
        form = parse_qs(request.body.decode())
        assert form.keys() == {"logout_token"}
        token = jwt.decode(form["logout_token"][0], keys, algorithms=["RS256", "ES256"])
        found.append({**token.claims, "header": token.header})
    return found


def deliver(rules: Rules, *, since: int = 0) -> None:
    events: list[Event] = list(rules.stores.tables.events.values())[since:]
    back_channel.deliver(rules.begin, events)


def test_what_a_logout_token_says(rules: Rules, origin: Origin) -> None:
    """OUT-03, OUT-13, OUT-14: of the client's algorithm and subject, for two minutes, and never with a nonce."""
    for algorithm in ("RS256", "ES256"):
        client, secret = a_client_at(
            rules,
            origin,
            id_token_signed_response_alg=algorithm,
            backchannel_logout_session_required=True,
        )
        browser = rules.signed_in()
        hint = id_claims(rules, tokens(rules, client, secret, browser=browser, nonce="n")["id_token"])
        end_here(rules, browser)
        deliver(rules)
        (claims,) = [each for each in told(rules, origin) if each["aud"] == client.client_id]
        assert claims.pop("header") == {
            "alg": algorithm,
            "typ": "logout+jwt",
            "kid": next(key["kid"] for key in rules.parts.signer.jwks()["keys"] if key["alg"] == algorithm),
        }
        assert claims.keys() == {"iss", "sub", "aud", "iat", "exp", "jti", "events", "sid"}
        assert claims["iss"] == ISSUER
        assert claims["sub"] == hint["sub"]
        assert claims["sid"] == hint["sid"]
        assert claims["events"] == {EVENT: {}}
        assert 0 < claims["exp"] - claims["iat"] <= 120
    assert len({each["jti"] for each in told(rules, origin)}) == 2


def end_here(rules: Rules, browser: Browser) -> None:
    with rules.begin() as engine:
        sign_out(engine, str(browser.session_id))


def of_account(act: Callable[[Engine, Any], object]) -> Callable[[Rules, Browser], None]:
    def end(rules: Rules, browser: Browser) -> None:
        with rules.begin() as engine:
            act(engine, browser.user)

    return end


def one_by_an_operator(engine: Engine, user: Any, browser: Browser) -> None:
    assert browser.session is not None
    account.end_session(engine, user, session_handle(browser.session))


ENDS: dict[str, Callable[[Rules, Browser], None]] = {
    "signed out": end_here,
    "everywhere": of_account(account.sign_out_everywhere),
    "disabled": of_account(lambda engine, user: disable_user(engine, user.username)),
    "password": of_account(lambda engine, user: account.set_password(engine, user, "another password")),
    "all others": of_account(lambda engine, user: account.end_other_sessions(engine, user, "another")),
    "one": lambda rules, browser: of_account(lambda engine, user: one_by_an_operator(engine, user, browser))(
        rules, browser
    ),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_every_end_of_a_session_reaches_its_applications_once(
    rules: Rules, origin: Origin, end: Callable[[Rules, Browser], None]
) -> None:
    """OUT-10, OUT-13: each that got an ID token in it, once; no other one, and none again when events are read again."""
    first, secret = a_client_at(rules, origin)
    browser, other = rules.signed_in(), rules.signed_in()
    for _ in range(2):
        tokens(rules, first, secret, browser=browser)
    second, its = a_client_at(rules, origin)
    tokens(rules, second, its, browser=browser)
    # None of these is told: no ID token, no code redeemed, no address, another session.
    plain, plain_secret = a_client_at(rules, origin)
    rules.redeem(plain, plain_secret, rules.code(plain, browser, scope="profile"))
    rules.code(a_client_at(rules, origin)[0], browser, scope="openid")
    silent, its = a_client_of(rules)
    tokens(rules, silent, its, browser=browser)
    if end in (ENDS["signed out"], ENDS["one"]):
        elsewhere, its = a_client_at(rules, origin)
        tokens(rules, elsewhere, its, browser=other)
    end(rules, browser)
    for _ in range(2):
        deliver(rules)
    assert browser.session is not None
    sent = told(rules, origin)
    assert sorted(each["aud"] for each in sent) == sorted([first.client_id, second.client_id])
    assert {each["sid"] for each in sent} == {session_handle(browser.session)}


def test_who_does_not_answer_is_asked_again_and_others_are_told(rules: Rules, origin: Origin) -> None:
    """OUT-04, OUT-11: the event waits in the table until all are told; nobody is told twice, and a refusal is final."""
    statuses = {"/busy": 503, "/no": 400}
    origin.reply = lambda handler: sending(b"", statuses.get(handler.path, 200))(handler)
    browser = rules.signed_in()
    clients = []
    for path in ("/busy", PATH, "/no"):
        client, secret = a_client_at(rules, origin, path)
        tokens(rules, client, secret, browser=browser)
        clients.append(client.client_id)
    (delivery,) = [each for each in deliveries(rules.parts.policies, rules.begin) if each.plugin == "openid"]
    Reading(rules.stores, delivery).begin()
    end_here(rules, browser)
    with pytest.raises(NotTold, match=f"{clients[0]}: it answered 503"):
        Reading(rules.stores, delivery).work()
    assert sorted(each["aud"] for each in told(rules, origin)) == sorted(clients)
    # Another process goes on, and asks only who did not answer.
    statuses["/busy"] = 204
    restarted = Reading(rules.stores, delivery)
    assert restarted.work() and not restarted.work()
    assert [each["aud"] for each in told(rules, origin)][3:] == clients[:1]


@pytest.mark.parametrize(
    "reply",
    [
        sending(b"x" * 10_000),
        sending(b"x", Content_Encoding="gzip"),
        sending(b"", 302, Location="https://client.example/"),
    ],
    ids=["a long page", "encoded", "a redirect"],
)
def test_whoever_answers_is_not_told_again(rules: Rules, origin: Origin, reply: Reply) -> None:
    """OUT-10, OUT-11: whatever the answer is; a redirect is not followed."""
    client, secret = a_client_at(rules, origin)
    browser = rules.signed_in()
    tokens(rules, client, secret, browser=browser)
    end_here(rules, browser)
    origin.reply = reply
    for _ in range(2):
        deliver(rules)
    assert [each.path for each in origin.received] == [PATH]


def test_whoever_does_not_answer_for_long_is_given_up(
    rules: Rules, origin: Origin, caplog: pytest.LogCaptureFixture
) -> None:
    """OUT-11: after a quarter of an hour, so that nobody holds up others; that is in the log, and it is final."""
    client, secret = a_client_at(rules, origin)
    gone, its = a_client_of(rules, details={"backchannel_logout_uri": "https://localhost/bye"})
    browser = rules.signed_in()
    tokens(rules, client, secret, browser=browser)
    tokens(rules, gone, its, browser=browser)
    end_here(rules, browser)
    origin.reply = sending(b"", 503)
    try:
        for seconds in (0, 14 * 60):
            rules.wait(seconds)
            with pytest.raises(NotTold, match=f"{client.client_id}: it answered 503"):
                deliver(rules)
        assert "given up" not in caplog.text
        rules.wait(2 * 60)
        deliver(rules)
    finally:
        rules.wait(-16 * 60)
    for each in (client, gone):
        assert f"no further attempt to tell {each.client_id} that a session ended: " in caplog.text
    asked = len(origin.received)
    deliver(rules)
    assert len(origin.received) == asked == 3


def test_the_log_says_why_an_application_was_not_told(rules: Rules, origin: Origin) -> None:
    """OUT-11"""
    client, secret = a_client_at(rules, origin)
    browser = rules.signed_in()
    tokens(rules, client, secret, browser=browser)
    end_here(rules, browser)
    origin.reply = raw(b"nothing of HTTP")
    with pytest.raises(NotTold, match=f"{client.client_id}: not-http: "):
        deliver(rules)


def test_what_hangs_on_a_session_ends_with_it(rules: Rules) -> None:
    """OUT-04, OUT-15: refresh and access tokens of those who signed the person in there; not of other sessions."""
    client, secret = a_client_of(rules)
    browser, other = rules.signed_in(), rules.signed_in()
    ended = tokens(rules, client, secret, browser=browser, scope="openid files.read")
    plain = rules.redeem(client, secret, rules.code(client, browser, scope="files.read")).json
    elsewhere = tokens(rules, client, secret, browser=other, scope="openid files.read")
    unused = rules.code(client, browser, scope="openid")
    end_here(rules, browser)
    for _ in range(2):
        deliver(rules)
    for answer, alive in ((ended, False), (plain, True), (elsewhere, True)):
        assert is_active(rules.introspect(client, secret, answer["access_token"])) is alive
        refreshed = rules.refresh(client, secret, answer["refresh_token"])
        assert refreshed.refusal is None if alive else refreshed.json["error"] == "invalid_grant"
    # Of a session that has ended nobody gets an ID token: its application would never be told.
    assert_refused(rules.redeem(client, secret, unused), "invalid_grant")
    assert len([each for each in rules.events("grants.revoked") if each["reason"] == "session-ended"]) == 1


def test_offline_access_outlives_the_session() -> None:
    """OUT-04, OUT-15: the person agreed to it."""
    rules = a_new_server({**ON, "authserver.plugins": ON["authserver.plugins"] + "\noffline_access"})
    client, secret = a_client_of(rules, scopes=("openid", "offline_access"))
    browser = rules.signed_in()
    answer = tokens(rules, client, secret, browser=browser, scope="openid offline_access")
    end_here(rules, browser)
    deliver(rules)
    assert rules.refresh(client, secret, answer["refresh_token"]).refusal is None


def test_another_device_keeps_what_the_person_allowed_it_in_this_browser(rules: Rules) -> None:
    """OUT-15: it was never signed in here."""
    client, secret = a_client_of(rules)
    browser = rules.signed_in()
    answer = tokens(rules, client, secret, browser=browser)
    (grant,) = rules.stores.tables.grants.values()
    rules.change("grants", details={**grant.details, ON_ANOTHER_DEVICE: True})
    end_here(rules, browser)
    deliver(rules)
    assert is_active(rules.introspect(client, secret, answer["access_token"]))


def test_signing_in_again_goes_on_with_the_same_session(rules: Rules, origin: Origin) -> None:
    """OUT-10, OIDC-30: nobody is told of that, and all are when it ends; another person ends it by signing in."""
    rules.add_user("bob", "correct horse battery staple")
    rules.add_user("eve", "correct horse battery staple")

    def sign_in_as(username: str, previous: str | None = None) -> Browser:
        with rules.begin() as engine:
            signed_in = sign_in(
                engine, username, Secret("correct horse battery staple"), previous_session_id=previous
            )
            found = engine.stores.sessions.find(
                digest("session", signed_in.session_id), engine.now, engine.now - timedelta(hours=1)
            )
        assert found is not None
        return Browser(session_id=signed_in.session_id, session=found.session, user=found.user)

    client, secret = a_client_at(rules, origin)
    other, its = a_client_at(rules, origin)
    browser = sign_in_as("bob")
    first = id_claims(rules, tokens(rules, client, secret, browser=browser)["id_token"])
    browser = sign_in_as("bob", browser.session_id)
    second = id_claims(rules, tokens(rules, other, its, browser=browser)["id_token"])
    assert first["sid"] == second["sid"]
    deliver(rules)
    assert origin.received == []
    new = sign_in_as("eve", browser.session_id)
    assert session_handle(new.session) != first["sid"]
    deliver(rules)
    assert sorted(each["aud"] for each in told(rules, origin)) == sorted([client.client_id, other.client_id])
    assert {each["sid"] for each in told(rules, origin)} == {first["sid"]}


def test_nobody_inside_the_network_is_asked(origin: Origin) -> None:
    """OUT-12: a logout token goes where the server fetches from, and not to this machine unless the operator says so."""
    rules = a_new_server(ON)
    client, secret = a_client_at(rules, origin)
    browser = rules.signed_in()
    tokens(rules, client, secret, browser=browser)
    end_here(rules, browser)
    with pytest.raises(NotTold, match=client.client_id):
        deliver(rules)
    assert origin.received == []


@pytest.mark.parametrize(
    "uri",
    [
        "http://client.example/bye",
        "https://client.example/bye#x",
        "https://client.example/bye#",
        "https://{tenant}.client.example/bye",
        "https://client.example/${client_id}",
        "https://*.client.example/",
        "https://a@client.example/bye",
        "https://client.example/../bye",
        "com.example.app:/bye",
        "/bye",
        7,
    ],
)
def test_addresses_that_cannot_be_registered(uri: Any) -> None:
    """OUT-12, T170 (Keycloak CVE-2026-4874): https, without fragment, placeholder or pattern."""
    sent = {
        "redirect_uris": ["https://client.example/cb"],
        "token_endpoint_auth_method": "none",
        "backchannel_logout_uri": uri,
    }
    refused = a_server(ON).register(sent)
    assert_refused(refused, "invalid_client_metadata")
    assert refused.json["error_description"].startswith("backchannel_logout_uri")


def test_signing_out_reaches_the_application(sqlite_url: str, origin: Origin) -> None:
    """OUT-03, OUT-10, OUT-11, OUT-13: from the page to the application, with real tables; the metadata say so."""
    server = Server(sqlite_url, LOOPBACK)
    server.add_user("ann")
    metadata = server.http.get("/.well-known/openid-configuration").json
    assert (
        metadata["backchannel_logout_supported"] is metadata["backchannel_logout_session_supported"] is True
    )
    client, secret = server.add_client(
        scopes=SCOPES, details={"backchannel_logout_uri": f"http://127.0.0.1:{origin.port}{PATH}"}
    )
    server.deliver()
    browser = server.browser()
    code = server.code(client, browser, scope="openid")
    hint = server.redeem(client, secret, code).json["id_token"]
    browser.get("/logout").forms[0].submit()
    # It is in the table of events, which a restart keeps.
    (event,) = server.events("sign_out.succeeded")
    for _ in range(2):
        server.deliver()
    (request,) = origin.received
    keys = KeySet.import_key_set(server.http.get("/oauth/jwks").json)
    claims = jwt.decode(parse_qs(request.body.decode())["logout_token"][0], keys, algorithms=["RS256"]).claims
    assert claims["sid"] == jwt.decode(hint, keys, algorithms=["RS256"]).claims["sid"]
    assert json.loads(event["details"])["ended_sessions"] == [claims["sid"]]
    server.close()
