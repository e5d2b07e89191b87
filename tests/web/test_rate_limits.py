"""How often requests are answered, on the wire: who is limited, what they are told, and who is not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from webtest import TestApp, TestResponse

from authserver.engine.turnstile import Turnstile
from authserver.explaining.explain import explain_event
from authserver.features.rate_limits import MemoryCounts
from authserver.testing.server import ISSUER, PASSWORD, Server, basic, forged, form_with, with_plugin
from authserver.testing.service import self_registration
from authserver.testing.stories import (
    Granted,
    assert_json_error,
    is_signed_in,
    records,
    sign_in_at,
    signed_in,
    stored,
)
from tests.web.account_steps import change_password

MakeServer = Callable[..., Server]
DEVICE = "__Host-authserver-device"
ELSEWHERE = {"REMOTE_ADDR": "192.0.2.99"}
WRONG = forged("as_secret_")


@pytest.fixture
def limited(make_server: MakeServer) -> Callable[..., Server]:
    """A server with the user `ann` and these lines in the table."""

    def make(*lines: str, **settings: str) -> Server:
        server = make_server({**with_plugin("rate_limits", {"limits": "\n".join(lines)}), **settings})
        server.add_user()
        return server

    return make


def assert_too_many(answer: TestResponse, seconds: int) -> None:
    """429 as JSON, which says when to come again (RFC 6585, 4)."""
    assert_json_error(answer, "temporarily_unavailable", status=429)
    assert answer.headers["Retry-After"] == str(seconds)


def with_secret(server: Server, client_id: str, secret: str, **environ: str) -> TestResponse:
    return server.http.post(
        "/oauth/token",
        {"grant_type": "client_credentials"},
        headers={"Authorization": basic(client_id, secret)},
        extra_environ=environ,
        expect_errors=True,
    )


# ---- clients -----------------------------------------------------------------------------------------


def test_guessed_secrets_are_slowed_down_and_the_right_one_is_not(limited: Any, clock: Any) -> None:
    """J-08, R-20, T048: the client itself is served at any time, from the address of the flood too; and so is every other."""
    server = limited("guesses = failed_client_authentication, client+source, 3, minute")
    client, secret = server.add_client(grant_types=("client_credentials",))
    other, _ = server.add_client(grant_types=("client_credentials",))
    for _ in range(3):
        assert_json_error(with_secret(server, client.client_id, WRONG), "invalid_client", status=401)
    for _ in range(3):
        assert_too_many(with_secret(server, client.client_id, WRONG), 60)
        assert with_secret(server, client.client_id, secret).status_int == 200
    assert with_secret(server, other.client_id, WRONG).status_int == 401
    assert with_secret(server, client.client_id, WRONG, **ELSEWHERE).status_int == 401
    clock.shift(timedelta(seconds=60))
    assert with_secret(server, client.client_id, WRONG).status_int == 401


def test_guesses_for_made_up_clients_are_counted_by_address(limited: Any) -> None:
    """J-08, T048: a name that no client has counts for nobody; its address is counted at every endpoint together."""
    server = limited("from-source = failed_client_authentication, source, 4, minute")
    assert with_secret(server, "nobody", WRONG).status_int == 401
    for path in ("/oauth/token", "/oauth/introspect", "/oauth/revoke"):
        answer = server.http.post(
            path, {"client_id": f"no-{path}", "client_secret": WRONG}, expect_errors=True
        )
        assert answer.status_int == 401
    assert_too_many(with_secret(server, "somebody", "x"), 60)
    assert with_secret(server, "somebody", "x", **ELSEWHERE).status_int == 401


def test_a_flood_of_guesses_leaves_one_event_and_nothing_else(limited: Any) -> None:
    """T154, R-20: and the operator learns which line refused, and what to do."""
    server = limited("guesses = failed_client_authentication, client+source, 1, minute")
    client, _ = server.add_client(grant_types=("client_credentials",))
    with_secret(server, client.client_id, WRONG)
    before = stored(server)
    ids = [with_secret(server, client.client_id, WRONG).json["error_id"] for _ in range(5)]
    (event,) = [event for event in server.events("token.refused") if event["reason"] == "guesses"]
    assert (event["event_id"], event["client_id"]) == (ids[0], client.client_id)
    # Those that follow are counted in one event more, which is stored a minute later (`test_floods`).
    assert len(set(ids)) == 2
    assert stored(server) == before
    with server.application.begin() as engine:
        kept = engine.stores.events.find(ids[0])
        told = explain_event(engine, kept, server.application.parts.policies)
    check = told.checks[-1]
    assert (check.hook, check.verdict, check.by, check.reason) == (
        "rate_decision",
        "deny",
        "rate_limits",
        "guesses",
    )
    assert check.facts["source"] == "192.0.2.1"
    (remedy,) = check.remedies
    assert "authserver limits lift guesses" in remedy and "more than 1 in a minute" in remedy


def test_a_client_gets_tokens_so_often(limited: Any, clock: Any) -> None:
    """R-20: by client, wherever it asks from."""
    server = limited("tokens = token_request, client, 2, minute")
    client, secret = server.add_client(grant_types=("client_credentials",))
    other, of_other = server.add_client(grant_types=("client_credentials",))
    for environ in ({}, ELSEWHERE):
        assert with_secret(server, client.client_id, secret, **environ).status_int == 200
    clock.shift(timedelta(seconds=15))
    assert_too_many(with_secret(server, client.client_id, secret), 45)
    assert with_secret(server, other.client_id, of_other).status_int == 200


def test_nobody_else_spends_the_allowance_of_a_client(limited: Any) -> None:
    """R-20: neither wrong secrets, nor requests in the name of a public client, for which nobody needs a secret."""
    server = limited("tokens = token_request, client, 1, minute")
    client, secret = server.add_client(grant_types=("client_credentials",))
    public, _ = server.add_client(token_endpoint_auth_method="none")
    code = server.code(public)
    for _ in range(5):
        with_secret(server, client.client_id, WRONG)
        answer = server.token(public, grant_type="authorization_code", code="as_code_made_up")
        assert_json_error(answer, "invalid_grant")
    assert with_secret(server, client.client_id, secret).status_int == 200
    assert server.redeem(public, None, code).status_int == 200


def test_refused_grants_are_counted_apart(limited: Any) -> None:
    """R-20: wrong refresh tokens and codes, by anybody in the name of a public client; right ones are accepted meanwhile."""
    server = limited(
        "guesses = failed_grant, client+source, 3, minute", "tokens = token_request, client, 2, minute"
    )
    public, _ = server.add_client(token_endpoint_auth_method="none")
    code = server.code(public)

    def wrong(**environ: str) -> TestResponse:
        form = {
            "client_id": public.client_id,
            "grant_type": "refresh_token",
            "refresh_token": forged("as_refresh_"),
        }
        return server.http.post("/oauth/token", form, extra_environ=environ, expect_errors=True)

    for _ in range(3):
        assert_json_error(wrong(), "invalid_grant")
    before = len(server.events())
    for _ in range(5):
        assert_too_many(wrong(), 60)
    assert len(server.events()) == before + 1
    assert_json_error(wrong(**ELSEWHERE), "invalid_grant")
    assert server.redeem(public, None, code).status_int == 200


def test_a_replay_revokes_although_there_were_too_many(limited: Any) -> None:
    """R-20, I-06: a limit never keeps a stolen token alive."""
    server = limited("guesses = failed_grant, source, 1, minute")
    granted = Granted(server)
    old = granted.refresh
    newest = granted.renew(granted.renew(old).json["refresh_token"]).json["refresh_token"]
    for _ in range(2):
        answer = granted.renew(forged("as_refresh_"))
    assert answer.status_int == 429
    assert_json_error(granted.renew(old), "invalid_grant")
    assert granted.renew(newest).status_int in (400, 429)
    assert [event["reason"] for event in server.events("grant.revoked")] == ["refresh-token-reused"]


def test_a_grant_is_refreshed_so_often(limited: Any) -> None:
    """R-20: by grant family; the refused token stays good."""
    server = limited("refreshes = token_request, grant, 3, minute")
    granted = Granted(server)
    refresh = granted.renew(granted.refresh).json["refresh_token"]
    refresh = granted.renew(refresh).json["refresh_token"]
    assert_too_many(granted.renew(refresh), 60)
    server.application.parts.policies.plugin("rate_limits").counts.memory = MemoryCounts()
    assert granted.renew(refresh).status_int == 200


def test_programs_of_other_origins_can_read_the_refusal(limited: Any) -> None:
    """Q-01, R-20: status, error and Retry-After."""
    server = limited("guesses = failed_client_authentication, source, 1, minute")
    server.add_client(redirect_uris=("https://app.example/cb",), token_endpoint_auth_method="none")
    headers = {"Origin": "https://app.example", "Authorization": basic("nobody", WRONG)}
    for status in (401, 429):
        answer = server.http.post("/oauth/token", {"grant_type": "x"}, headers=headers, expect_errors=True)
        assert answer.status_int == status
        assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
    assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]


# ---- people ------------------------------------------------------------------------------------------


def attempt(
    server: Server, username: str = "ann", password: str = "wrong", browser: TestApp | None = None
) -> Any:
    return server.sign_in(browser or server.browser(), username, password)


def on_device(server: Server, cookie: str) -> TestApp:
    """Another browser, with the cookie of a known device."""
    browser = server.browser()
    # WebTest puts quotes around it.
    browser.set_cookie(DEVICE, "placeholder")
    next(each for each in browser.cookiejar if each.name == DEVICE).value = cookie
    return browser


def held(answer: TestResponse) -> bool:
    """Whether it is the sign-in page that asks to wait."""
    if answer.status_int != 429:
        return False
    assert answer.content_type == "text/html"
    assert int(answer.headers["Retry-After"]) >= 1
    assert "There were too many attempts to sign in. Wait for" in answer.text
    assert form_with(answer, "username")
    return True


def test_guessed_passwords_are_slowed_down(limited: Any, clock: time_machine.Traveller) -> None:
    """J-08, T101: then the right one does not help either, or guesses could go on; later it does."""
    server = limited("guesses = sign_in, account+source, 3, 10 minutes")
    server.add_user("bob")
    assert [held(attempt(server)) for _ in range(4)] == [False, False, False, True]
    page = attempt(server, password=PASSWORD)
    assert held(page)
    assert page.headers["Retry-After"] == "600"
    assert "Wait for 10 min, then try again." in page.text
    assert attempt(server, "bob", PASSWORD).status_int == 303
    clock.shift(timedelta(minutes=10))
    assert sign_in_at(page).status_int == 303


def test_a_name_that_nobody_has_is_held_like_any_other(limited: Any) -> None:
    """T100: the limits do not show which names exist; and what was typed as a name is kept nowhere."""
    server = limited("guesses = sign_in, account+source, 2, 10 minutes")
    pages = {}
    for name in ("ann", "nobody"):
        answers = [attempt(server, name) for _ in range(3)]
        assert [held(answer) for answer in answers] == [False, False, True]
        pages[name] = answers[-1].headers["Retry-After"]
    assert pages["ann"] == pages["nobody"]
    assert held(attempt(server, "NOBODY "))
    counts = server.application.parts.policies.plugin("rate_limits")
    assert "nobody" not in str(server.events()).replace("nobody-answered", "")
    assert "nobody" not in str(counts.counts.memory._counts)


def test_good_sign_ins_use_nothing_up(limited: Any) -> None:
    """R-20: a whole company may be behind one address."""
    server = limited("from-source = sign_in, source, 2, minute", "account = sign_in, account, 2, minute")
    for _ in range(6):
        assert attempt(server, password=PASSWORD).status_int == 303
    assert [held(attempt(server)) for _ in range(3)] == [False, False, True]


def test_names_and_passwords_that_are_too_long_are_counted_too(limited: Any) -> None:
    """T104: by address, before anything is normalised or hashed."""
    server = limited("from-source = sign_in, source, 2, minute")
    assert attempt(server, password="x" * 1025).status_int == 400
    assert attempt(server, username="ℌ" * 5000).status_int == 400
    assert held(attempt(server))


def test_strangers_do_not_lock_a_person_out(limited: Any) -> None:
    """T103: where that person signed in before, there is a budget that strangers cannot spend."""
    server = limited(
        "account = sign_in, account, 3, hour",
        "source = sign_in, source, 3, hour",
        "device = sign_in, account+device, 2, hour",
    )
    known = signed_in(server)
    known.post(
        server.path("/logout"), {"csrf_token": form_with(known.get("/"), "csrf_token")["csrf_token"].value}
    )
    assert not is_signed_in(server, known)
    for _ in range(5):
        attempt(server)
    assert held(attempt(server, password=PASSWORD))
    assert attempt(server, password=PASSWORD, browser=known).status_int == 303
    # It is a budget, and no way around the limits.
    assert [held(attempt(server, browser=known)) for _ in range(3)] == [False, False, True]


def test_a_known_device_proves_nothing_else(limited: Any) -> None:
    """T103, E-17: with its cookie nobody is signed in, and for another person it is worth nothing."""
    server = limited("account = sign_in, account, 1, hour", "device = sign_in, account+device, 5, hour")
    server.add_user("barnaby")
    cookie = signed_in(server, "barnaby").cookies[DEVICE].strip('"')
    assert "barnaby" not in cookie
    thief = on_device(server, cookie)
    assert not is_signed_in(server, thief)
    attempt(server)
    assert held(attempt(server, password=PASSWORD, browser=thief))
    for made_up in (cookie[:-3] + "AAA", cookie.split(".")[0], "x" * 5000, "a.b", ""):
        other = on_device(server, made_up)
        attempt(server, "barnaby")
        assert held(attempt(server, "barnaby", PASSWORD, other)), made_up


def test_a_device_is_known_for_several_people(limited: Any) -> None:
    """T103: a family has one computer; the last five are known there."""
    server = limited("account = sign_in, account, 1, hour", "device = sign_in, account+device, 5, hour")
    browser = server.browser()
    names = ["ann", *(f"person{number}" for number in range(5))]
    for name in names:
        if name != "ann":
            server.add_user(name)
        assert attempt(server, name, PASSWORD, browser).status_int == 303
    known = browser.cookies[DEVICE].strip('"')
    assert known.count(".") == 5
    for name in names:
        attempt(server, name)
        other = on_device(server, known)
        assert held(attempt(server, name, PASSWORD, other)) is (name == "ann")


def test_the_form_that_changes_a_password_has_the_same_limits(limited: Any) -> None:
    """J-08: a session that somebody left open is no way to guess the password."""
    server = limited("device = sign_in, account+device, 2, 10 minutes")
    browser = signed_in(server)
    for status in (400, 400, 429):
        answer = change_password(server, browser, current="wrong guess")
        assert answer.status_int == status
    assert answer.headers["Retry-After"] == "600"
    assert "There were too many attempts. Wait for 10 min, then try again." in answer.text
    assert "Change your password" in answer.text
    assert change_password(server, browser).status_int == 429
    assert is_signed_in(server, browser)
    server.application.parts.policies.plugin("rate_limits").counts.memory = MemoryCounts()
    assert change_password(server, browser).status_int == 303


def test_strangers_begin_so_many_requests(limited: Any) -> None:
    """R-20: a page says so; people who are signed in are not counted."""
    server = limited("strangers = authorization_request, source, 2, minute")
    client, _ = server.add_client()
    browser = signed_in(server)
    url = server.authorization_url(client)
    statuses = [server.browser().get(url, expect_errors=True).status_int for _ in range(3)]
    assert statuses == [303, 303, 429]
    page = server.browser().get(url, expect_errors=True)
    assert page.content_type == "text/html"
    assert "Too many requests" in page.text
    assert page.headers["Retry-After"]
    assert ISSUER in page.request.host_url + "/" and "Location" not in page.headers
    for _ in range(4):
        assert browser.get(url).status_int == 200
    assert server.browser().get(url, extra_environ=ELSEWHERE).status_int == 303


# ---- registration ------------------------------------------------------------------------------------


def register(server: Server, metadata: Any = None, **environ: str) -> TestResponse:
    body = self_registration() if metadata is None else metadata
    return server.http.post_json("/oauth/register", body, extra_environ=environ, expect_errors=True)


def test_an_address_registers_so_many_clients(limited: Any, clock: time_machine.Traveller) -> None:
    """T131: and all together so many; what is refused leaves no client."""
    server = limited("from-source = registration, source, 2, hour", "in-all = registration, all, 3, hour")
    for _ in range(2):
        assert register(server).status_int == 201
    before = records(server)
    for _ in range(5):
        assert_too_many(register(server), 3600)
    assert records(server)["clients"] == before["clients"]
    assert register(server, **ELSEWHERE).status_int == 201
    assert_too_many(register(server, REMOTE_ADDR="192.0.2.7"), 3600)
    clock.shift(timedelta(hours=1))
    assert register(server).status_int == 201


def test_registrations_without_room_use_up_nothing_of_others(limited: Any) -> None:
    """T131, R-20: a network that has all its unused clients keeps no other from registering, and is slowed down itself."""
    server = limited(
        "all = registration, all, 2, hour",
        "refused = failed_registration, source, 3, hour",
        **{"authserver.unused_clients_per_source": "1"},
    )
    answers = [register(server, REMOTE_ADDR="192.0.2.7") for _ in range(5)]
    assert [answer.status_int for answer in answers] == [201, 429, 429, 429, 429]
    assert_too_many(answers[-1], 3600)
    # One event stands for all of a minute.
    assert [event["reason"] for event in server.events("registration.refused")] == ["refused"]
    server.application.floods.store(everything=True)
    (stored,) = [event for event in server.events() if event["reason"] == "too-many-unused-clients"]
    assert json.loads(stored["details"])["more"]["count"] == 2
    assert stored["event_id"] == answers[1].json["error_id"] == answers[3].json["error_id"]
    assert register(server, REMOTE_ADDR="198.51.100.7").status_int == 201


def test_registrations_that_are_refused_use_up_nothing_of_others(limited: Any) -> None:
    """T131, R-20: they are counted by address, and leave one event."""
    server = limited("in-all = registration, all, 1, hour", "refused = failed_registration, source, 3, hour")
    for _ in range(3):
        assert register(server, {"redirect_uris": ["javascript:alert(1)"]}).status_int == 400
    events = len(server.events())
    for _ in range(10):
        assert_too_many(register(server, {"redirect_uris": ["javascript:alert(1)"]}), 3600)
    assert len(server.events()) == events + 1
    assert register(server).status_int == 201


# ---- at once -----------------------------------------------------------------------------------------


def test_more_passwords_at_once_than_are_checked_are_sent_away(make_server: MakeServer) -> None:
    """T104: with a page that says when to come again; everything else is answered meanwhile, and no event is left."""
    server = make_server({"authserver.password_checks": "1"})
    server.add_user()
    client, secret = server.add_client(grant_types=("client_credentials",))
    checks = server.application.parts.password_checks
    events = len(server.events())
    with checks.turn("another network"), ExitStack() as waiting:
        waiting.enter_context(_place_of(checks))
        page = attempt(server, password=PASSWORD)
        assert page.status_int == 503
        assert page.content_type == "text/html"
        assert int(page.headers["Retry-After"]) >= 1
        assert "The server is busy" in page.text
        browser = server.browser()
        assert browser.get("/login").status_int == 200
        assert server.http.get("/health/live").status_int == 200
        assert with_secret(server, client.client_id, secret).status_int == 200
    assert len(server.events()) == events + 1  # the token
    assert attempt(server, password=PASSWORD).status_int == 303


def test_who_is_sent_away_has_not_guessed(limited: Any) -> None:
    """T101, T103: a busy server uses up nobody's attempts."""
    server = limited("guesses = sign_in, account+source, 2, hour", **{"authserver.password_checks": "1"})
    checks = server.application.parts.password_checks
    with checks.turn("another network"), _place_of(checks):
        assert [attempt(server).status_int for _ in range(5)] == [503] * 5
    assert [held(attempt(server)) for _ in range(3)] == [False, False, True]


@contextmanager
def _place_of(checks: Turnstile) -> Iterator[None]:
    """Somebody who waits for a turn."""
    checks._places.append("another network")
    yield
    checks._places.remove("another network")


def test_a_refused_change_of_the_password_and_a_busy_server(server: Server) -> None:
    """T104: the form of the account page has the same turnstile."""
    browser = signed_in(server)
    page = browser.get(server.path("/account/password"))
    checks = server.application.parts.password_checks
    with ExitStack() as busy:
        for _ in range(4):
            busy.enter_context(_place_of(checks))
        form = form_with(page, "repeated")
        form["current_password"] = PASSWORD
        form["new_password"] = form["repeated"] = "another password"
        answer = form.submit(expect_errors=True)
    assert answer.status_int == 503
    assert int(answer.headers["Retry-After"]) >= 1
    assert attempt(server, password=PASSWORD).status_int == 303
