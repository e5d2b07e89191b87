"""The account pages: who comes in, what is refused, and signing out everywhere."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import pytest
from webtest import TestApp

from authserver.engine.people.login import disable_user
from authserver.testing.server import ISSUER, PASSWORD, Server, form_with
from authserver.testing.stories import assert_page_error, is_signed_in, records, sign_in_at, signed_in
from tests.web.account_steps import COOKIE, NEW_PASSWORD, PAGES, is_dead, page_of, token_for, tokens_of


@pytest.fixture
def browser(server: Server) -> TestApp:
    return signed_in(server)


@pytest.mark.parametrize("name", PAGES)
def test_a_stranger_signs_in_and_comes_back_to_the_very_page(server: Server, name: str) -> None:
    """E-18, E-01: by the name of the page, through a failed attempt, too."""
    browser = server.browser()
    answer = page_of(server, browser, name)
    assert answer.status_int == 303
    page = answer.follow()
    assert "to look after your account" in page.text
    failed = sign_in_at(page, password="not this one")
    assert failed.status_int == 400
    arrived = sign_in_at(failed)
    assert (arrived.status_int, arrived.location) == (303, f"{ISSUER}/account/{name}")
    assert arrived.follow().status_int == 200


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/",
        "//evil.example",
        "/account/apps",
        "home",
        "token",
        "static",
        "style",
        "é",
        "x" * 5000,
    ],
)
def test_only_the_name_of_an_account_page_is_a_way_back(server: Server, target: str) -> None:
    """E-18, T025: neither the address nor the form can name anything else; sign-in then leads home."""
    browser = server.browser()
    page = browser.get(server.path("/login?") + urlencode({"page": target}))
    form = form_with(page, "username")
    assert "page" not in form.fields and "evil" not in page.text
    fields = {"csrf_token": form["csrf_token"].value, "username": "ann", "password": PASSWORD, "page": target}
    answer = browser.post(server.path("/login"), fields)
    assert (answer.status_int, answer.location) == (303, f"{ISSUER}/")


def test_account_leads_to_the_applications(server: Server, browser: TestApp) -> None:
    """E-16: typed by hand; the front page and every page of a signed-in user link to them."""
    answer = browser.get(server.path("/account"))
    assert (answer.status_int, answer.location) == (303, f"{ISSUER}/account/apps")
    for page in (browser.get(server.path("/")), page_of(server, browser, "sessions")):
        assert page.click("Your account").request.path == "/account/apps"


@pytest.mark.parametrize("name", PAGES)
def test_the_pages_have_the_headers_of_every_page(server: Server, browser: TestApp, name: str) -> None:
    """E-06, T093: nobody frames, keeps or passes them on."""
    headers = page_of(server, browser, name).headers
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    policy = headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in policy and "form-action 'self'" in policy and "unsafe" not in policy


@pytest.mark.parametrize("token", [None, "", "AAAA", "of another session", "of another page"])
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("apps", {"disconnect": "client"}),
        ("apps", {"revoke": "grant"}),
        ("sessions", {"others": "yes"}),
        ("sessions", {"session": "handle"}),
        ("password", {"current_password": PASSWORD, "new_password": NEW_PASSWORD, "repeated": NEW_PASSWORD}),
        ("sign-out-everywhere", {}),
    ],
)
def test_a_forged_form_is_refused_and_changes_nothing(
    server: Server, browser: TestApp, name: str, fields: dict[str, str], token: str | None
) -> None:
    """E-03, T092: 403, whatever it asks for; nothing is kept but the refusal's own event."""
    other = signed_in(server)
    client, secret = server.add_client(client_id="client")
    tokens_of(server, browser, client, secret)
    (grant,) = server.rows("grants")
    own_handle = form_with(page_of(server, browser, "sessions"), "session").fields["session"][0]._value
    names = {"grant": grant["grant_id"], "handle": own_handle}
    form = {key: names.get(value, value) for key, value in fields.items()}
    if token is not None:
        form["csrf_token"] = {
            "of another session": token_for(server, other, name),
            "of another page": token_for(server, browser, "password" if name != "password" else "apps"),
        }.get(token, token)
    before, events = records(server), len(server.events())
    answer = browser.post(server.path(f"/account/{name}"), form or {"x": "y"}, status="*")
    assert_page_error(answer, status=403)
    assert records(server) == before
    (refused,) = server.events()[events:]
    assert refused["reason"] == "form-token"


@pytest.mark.parametrize("name", PAGES)
def test_a_form_from_another_origin_is_refused(server: Server, browser: TestApp, name: str) -> None:
    """E-03, T092: even with the right token."""
    form = {"csrf_token": token_for(server, browser, name), "others": "yes"}
    before = records(server)
    headers = {"Origin": "https://evil.example"}
    answer = browser.post(server.path(f"/account/{name}"), form, headers=headers, status="*")
    assert_page_error(answer, status=403)
    assert records(server) == before


@pytest.mark.parametrize("name", PAGES)
def test_a_form_sent_without_the_cookie_takes_nobodys_session(server: Server, name: str) -> None:
    """T092, T106: SameSite keeps the cookie from what another site sends; the answer must set no other one."""
    answer = server.browser().post(server.path(f"/account/{name}"), {"others": "yes"}, status="*")
    assert_page_error(answer, status=403)
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("name", PAGES)
def test_a_form_of_an_ended_session_leads_to_sign_in(server: Server, browser: TestApp, name: str) -> None:
    """E-04.a: nothing is done in the name of whoever signs in next."""
    client, secret = server.add_client(client_id="client")
    tokens_of(server, browser, client, secret)
    token = token_for(server, browser, name)
    with server.application.storage.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM sessions")
    before = records(server)
    form = {"csrf_token": token, "disconnect": "client", "others": "yes", "new_password": NEW_PASSWORD}
    answer = browser.post(server.path(f"/account/{name}"), form)
    assert answer.status_int == 303
    assert answer.location.startswith(f"{ISSUER}/login?page=account_")
    assert records(server) == before


@pytest.mark.parametrize("name", PAGES)
def test_a_get_changes_nothing(server: Server, browser: TestApp, name: str) -> None:
    """T092: whatever the address says."""
    signed_in(server)
    client, secret = server.add_client(client_id="client")
    tokens_of(server, browser, client, secret)
    token = token_for(server, browser, name)
    fields = {"csrf_token": token, "disconnect": "client", "others": "yes", "current_password": PASSWORD}
    fields |= {"new_password": NEW_PASSWORD, "repeated": NEW_PASSWORD}
    before, events = records(server), server.events()
    browser.get(server.path(f"/account/{name}?") + urlencode(fields), status="*")
    assert (records(server), server.events()) == (before, events)


@pytest.mark.parametrize("notice", ["<b>Your account is lost</b>", "unknown", "__class__", "é"])
def test_an_address_puts_no_words_on_a_page(server: Server, browser: TestApp, notice: str) -> None:
    """T097: it can only name one of our own sentences."""
    page = browser.get(server.path("/account/apps?") + urlencode({"notice": notice}))
    assert notice not in page.text
    assert 'role="status"' not in page.text


@pytest.mark.parametrize("token_format", ["jwt", "opaque"])
def test_signing_out_everywhere_ends_everything(make_server, token_format: str) -> None:
    """I-14, T073, T098: every session, this one too, and every grant; nobody else's."""
    server = make_server({"authserver.access_token_format": token_format})
    server.add_user("ann")
    server.add_user("bob")
    browser, other, bob = signed_in(server), signed_in(server), signed_in(server, "bob")
    client, secret = server.add_client()
    tokens = tokens_of(server, other, client, secret)
    of_bob = tokens_of(server, bob, client, secret)
    cookie = browser.cookies[COOKIE]
    page = page_of(server, browser, "sessions").click("Sign out everywhere")
    assert "All your sessions end at once" in page.text
    answer = page.forms[0].submit()
    assert (answer.status_int, answer.headers.get("Location")) == (200, None)
    assert "All your sessions have ended" in answer.text and "Your account" not in answer.text
    assert COOKIE not in browser.cookies
    assert not is_signed_in(server, server.browser(), cookie=f"{COOKIE}={cookie}")
    assert [is_signed_in(server, each) for each in (browser, other, bob)] == [False, False, True]
    assert is_dead(server, client, secret, tokens)
    assert not is_dead(server, client, secret, of_bob)
    (event,) = server.events("sign_out.everywhere")
    details = json.loads(event["details"])
    assert (details["sessions"], details["grants"], details["consents"]) == (2, 1, 1)
    assert_page_error(page.forms[0].submit(status="*"), status=403)


def test_the_sign_out_page_leads_there(server: Server, browser: TestApp) -> None:
    """I-14: signing out here alone leaves applications their access, and says so."""
    page = browser.get(server.path("/logout")).click("Sign out everywhere instead")
    assert "Sign out everywhere?" in page.text


def test_a_disabled_user_is_let_in_nowhere(server: Server, browser: TestApp) -> None:
    """R-09: at the next request; the form of a page from before does nothing."""
    client, secret = server.add_client()
    tokens_of(server, browser, client, secret)
    form = form_with(page_of(server, browser, "apps"), "disconnect")
    with server.application.begin() as engine:
        disable_user(engine, "ann")
    before = records(server)
    assert form.submit("disconnect").location == f"{ISSUER}/login?page=account_apps"
    for name in PAGES:
        assert page_of(server, browser, name).status_int == 303
    assert records(server) == before
