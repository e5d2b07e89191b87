"""Signing in: where it leads, and what it gives away."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import pytest
import sqlalchemy as sa
import time_machine

from authserver.engine.people.login import add_user, disable_user
from authserver.engine.people.usernames import BadUsername
from authserver.engine.ports import AlreadyExists
from authserver.testing.server import ISSUER, PASSWORD, REDIRECT_URI, SETTINGS, Server, form_with
from authserver.testing.stories import (
    assert_code,
    assert_page_error,
    fields_of,
    is_signed_in,
    records,
    register,
    sign_in_at,
    signed_in,
)

FORM = "application/x-www-form-urlencoded"


def test_signing_in_at_the_front_door_leads_home(server: Server) -> None:
    """E-01, E-18, T019: by a 303, and the page knows who it is."""
    browser = server.browser()
    answer = server.sign_in(browser)
    assert (answer.status_int, answer.location) == (303, f"{ISSUER}/")
    assert is_signed_in(server, browser)
    assert server.events()[-1]["type"] == "sign_in.succeeded"


def test_signing_in_goes_on_with_the_pending_request(server: Server) -> None:
    """E-01, E-18: to the consent step of that request."""
    client, _ = server.add_client()
    page = server.browser().get(server.authorization_url(client)).follow()
    answer = sign_in_at(page)
    assert answer.location.startswith(f"{ISSUER}/oauth/consent?request=")
    assert_code(server.consent(answer.follow()))


@pytest.mark.parametrize(
    "name", ["next", "came_from", "return_to", "redirect_uri", "url", "continue", "request_uri"]
)
@pytest.mark.parametrize(
    "target", ["https://evil.example/", "//evil.example/", "/\\evil.example", "/oauth/consent"]
)
def test_no_parameter_says_where_to_go_after_sign_in(server: Server, name: str, target: str) -> None:
    """E-18, T025: neither in the address nor in the form."""
    browser = server.browser()
    page = browser.get(server.path("/login?") + urlencode({name: target}))
    assert "evil.example" not in page.text
    form = fields_of(page, "username") | {name: target, "username": "ann", "password": PASSWORD}
    answer = browser.post(f"{server.path('/login')}?{urlencode({name: target})}", form)
    assert answer.location == f"{ISSUER}/"


@pytest.mark.parametrize("target", ["https://evil.example/", "/", "AAAA", "x" * 9000, "%00", "é"])
def test_a_return_target_that_we_did_not_seal_is_refused(server: Server, target: str) -> None:
    """E-18, T025, T091: a page, on showing the form and on sending it; nobody gets signed in."""
    browser = server.browser()
    page = browser.get(server.path("/login"))
    form = fields_of(page, "username") | {"request": target, "username": "ann", "password": PASSWORD}
    before = records(server)
    for answer in (
        browser.get(server.path("/login?") + urlencode({"request": target}), status="*"),
        browser.post(server.path("/login"), form, status="*"),
    ):
        assert_page_error(answer, status=403, supplied="evil.example")
    assert records(server) == before


@pytest.mark.parametrize(
    ("page", "there"),
    [
        ("account_sessions", "/account/sessions"),
        ("account_sessions?a=b%26c&d=", "/account/sessions?a=b%26c&d="),
        ("account_sessions?a=%0d%0aSet-Cookie:x#f", "/account/sessions?a=%0D%0ASet-Cookie%3Ax%23f"),
        ("account_sessions?//evil.example", "/account/sessions?%2F%2Fevil.example="),
        ("account_sessions/../..?a=b", "/"),
        ("token?a=b", "/"),
        ("https://evil.example/?account_sessions", "/"),
        ("?account_sessions", "/"),
    ],
)
def test_a_page_that_asked_for_a_sign_in_is_come_back_to_with_its_query(
    server: Server, page: str, there: str
) -> None:
    """E-18, T025: the address is made from the route table, and its query is encoded anew."""
    browser = server.browser()
    form = form_with(browser.get("/login", {"page": page}), "username")
    form["username"], form["password"] = "ann", PASSWORD
    assert form.submit().location == f"{ISSUER}{there}"


def test_a_page_may_need_a_sign_in_that_is_more_recent(server: Server) -> None:
    """The session does not lead on; without such a page it does as before."""
    browser = signed_in(server)
    assert browser.get("/login?page=account_sessions").location == f"{ISSUER}/account/sessions"
    asked = browser.get("/login?page=account_sessions&again=yes")
    assert "you need to sign in again" in asked.text
    form = form_with(asked, "username")
    assert form["username"].value == "ann"
    before = {row["digest"] for row in server.rows("sessions")}
    form["password"] = PASSWORD
    assert form.submit().location == f"{ISSUER}/account/sessions"
    after = {row["digest"] for row in server.rows("sessions")}
    assert len(after) == len(before) and after != before, "a new session took the place of the old one"


def test_a_pending_request_of_another_browser_is_refused(server: Server) -> None:
    """T091, E-18: a link to somebody's sign-in page does not work elsewhere."""
    client, _ = server.add_client()
    link = server.browser().get(server.authorization_url(client)).location
    assert_page_error(server.browser().get(link, status="*"), status=403, supplied=REDIRECT_URI)
    led = signed_in(server).get(link)
    assert_page_error(led.follow(status="*"), status=403, supplied=REDIRECT_URI)


def test_an_expired_request_costs_no_password(server: Server) -> None:
    """E-02, T091: after fifteen minutes sign-in says so instead of asking for the password in vain."""
    client, _ = server.add_client()
    browser = server.browser()
    link = browser.get(server.authorization_url(client)).location
    page = browser.get(link)
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=901)):
        assert_page_error(browser.get(link, status="*"))
        assert_page_error(sign_in_at(page))
    assert server.rows("sessions") == []


def test_a_password_in_the_address_signs_nobody_in(server: Server) -> None:
    """E-01, T014: GET shows the form and POST reads the body alone."""
    browser = server.browser()
    fields = fields_of(browser.get(server.path("/login")), "username")
    query = urlencode(fields | {"username": "ann", "password": PASSWORD})
    page = browser.get(f"{server.path('/login')}?username=ann&password={PASSWORD.replace(' ', '+')}")
    assert page.status_int == 200
    assert PASSWORD not in page.text
    assert (
        browser.post(f"{server.path('/login')}?{query}", "", content_type=FORM, status="*").status_int == 403
    )
    assert browser.post(f"{server.path('/login')}?{query}", fields, status="*").status_int == 400
    assert server.rows("sessions") == []


def test_the_form_sends_the_password_in_a_body_to_us(server: Server) -> None:
    """E-01: POST, to the issuer's own address."""
    form = form_with(server.browser().get(server.path("/login")), "username")
    assert (form.method.lower(), form.action) == ("post", f"{ISSUER}/login")
    assert form["password"].attrs["type"] == "password"


@pytest.mark.parametrize("token", [None, "", "AAAA", "of another browser", "twice"])
def test_sign_in_needs_the_token_of_this_browser(server: Server, token: str | None) -> None:
    """T092: there is a token before anybody is signed in; without it 403, and nothing is stored."""
    browser = server.browser()
    mine = fields_of(browser.get(server.path("/login")), "username")["csrf_token"]
    other = fields_of(server.browser().get(server.path("/login")), "username")["csrf_token"]
    sent = {"of another browser": other, "twice": [mine, mine]}.get(token or "", token)
    form = {"username": "ann", "password": PASSWORD, **({} if sent is None else {"csrf_token": sent})}
    before = records(server)
    answer = browser.post(server.path("/login"), urlencode(form, doseq=True), content_type=FORM, status="*")
    assert_page_error(answer, status=403)
    assert records(server) == before


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://as.example",
        "https://as.example:8443",
        "https://as.example.evil.example",
    ],
)
def test_sign_in_from_another_origin_is_refused(server: Server, origin: str) -> None:
    """T092: even with the right token."""
    browser = server.browser()
    fields = fields_of(browser.get(server.path("/login")), "username")
    form = fields | {"username": "ann", "password": PASSWORD}
    answer = browser.post(server.path("/login"), form, headers={"Origin": origin}, status="*")
    assert_page_error(answer, status=403)
    assert server.rows("sessions") == []


@pytest.mark.parametrize("headers", [{}, {"Origin": "null"}, {"Origin": ISSUER}])
def test_without_an_origin_the_token_decides(server: Server, headers: dict) -> None:
    """T092: browsers send `null` from pages with `Referrer-Policy: no-referrer`."""
    browser = server.browser()
    fields = fields_of(browser.get(server.path("/login")), "username")
    form = fields | {"username": "ann", "password": PASSWORD}
    assert browser.post(server.path("/login"), form, headers=headers).status_int == 303


def test_a_token_without_its_cookie_is_nothing(server: Server) -> None:
    """T092: the token belongs to the session of the cookie; a browser without cookies is told what to do."""
    fields = fields_of(server.browser().get(server.path("/login")), "username")
    form = fields | {"username": "ann", "password": PASSWORD}
    answer = server.browser().post(server.path("/login"), form, status="*")
    assert_page_error(answer, status=403)
    assert "allow cookies for this site" in answer.text


def test_every_failure_looks_the_same(server: Server) -> None:
    """T100: unknown, wrong password, disabled, without password: one message, same status, same bytes.

    Only the name that was typed and the reference, which is random, tell one page from another.
    """
    server.add_user("dis")
    server.add_user("nop", password=None)
    with server.application.begin() as engine:
        disable_user(engine, "dis")
    browser = server.browser()
    page = browser.get(server.path("/login"))
    tries = [
        ("ann", "wrong password"),
        ("xyz", PASSWORD),
        ("dis", PASSWORD),
        ("nop", PASSWORD),
        ("a/b", "x" * 2000),
    ]
    answers = {name: sign_in_at(page, name, password) for name, password in tries}
    bodies = {
        re.sub(
            r'<code class="whole" dir="ltr">[\w-]{22}</code>',
            "",
            answer.text.replace(f'value="{name}"', 'value="…"'),
        )
        for name, answer in answers.items()
    }
    assert len(bodies) == 1
    assert {answer.status_int for answer in answers.values()} == {400}
    headers = {tuple(sorted(set(answer.headers) - {"Set-Cookie"})) for answer in answers.values()}
    assert len(headers) == 1
    assert len({answer.headers["Content-Length"] for answer in answers.values()}) == 1
    assert server.rows("sessions") == []
    refused = server.events("sign_in.refused")
    assert len(refused) == len(tries)
    assert "wrong password" not in repr(refused)


@pytest.mark.parametrize("name", ["ANN", " ann ", "Ann", "ａｎｎ"])
def test_a_name_is_found_however_it_is_written(server: Server, name: str) -> None:
    """T105: NFKC and case folding at lookup as at creation."""
    assert sign_in_at(server.browser().get(server.path("/login")), name).status_int == 303


@pytest.mark.parametrize("name", ["ANN", "ａｎｎ", "ann ", "Ａnn"])
def test_no_other_spelling_is_another_account(server: Server, name: str) -> None:
    """T105: it is the same name, and it is taken."""
    with pytest.raises(AlreadyExists):
        server.add_user(name)


@pytest.mark.parametrize("name", ["аnn", "annα", "a\u200bnn", "a\u202enn", "a nn", "", "a" * 101])
def test_a_name_that_imitates_is_refused(server: Server, name: str) -> None:
    """T105: mixed scripts and invisible characters make no user name."""
    with pytest.raises(BadUsername):
        server.add_user(name)
    assert sign_in_at(server.browser().get(server.path("/login")), name).status_int == 400
    expected = "username-unusable" if name else "nobody-answered"
    assert [event["reason"] for event in server.events("sign_in.refused")] == [expected]


def test_people_sign_in_with_the_names_they_have(server: Server) -> None:
    """B201, B202: in whichever normalisation form the name is typed; RFC 8265, 3.3."""
    for name in (
        *("भारत", "कृष्ण", "சுரேஷ்", "সুমন", "นิวัฒน์", "佐々木", "ヤマダー", "ẹ̀kọ́"),
        *("o'brien@example.com", "CORP\\ann", "m&a@example.com", "svc$", "a/b@example.com"),
    ):
        with server.application.begin() as engine:
            add_user(engine, unicodedata.normalize("NFC", name), PASSWORD)
        for form in ("NFC", "NFD"):
            browser = server.browser()
            assert server.sign_in(browser, unicodedata.normalize(form, name)).status_int == 303
            assert is_signed_in(server, browser)


def test_a_name_is_escaped_where_it_is_shown(server: Server) -> None:
    """T094: markup in a name is text, on the pages of the person who has it."""
    client, _ = server.add_client()
    for name in ("<b>", "o'brien", 'a"b', "m&a", "{{7*7}}", "svc$"):
        with server.application.begin() as engine:
            add_user(engine, name, PASSWORD)
        browser = server.browser()
        assert server.sign_in(browser, name).status_int == 303
        for path in (server.path("/"), server.path("/account/apps"), server.authorization_url(client)):
            page = browser.get(path)
            assert name in page.html.get_text(), path
            assert "<b>" not in page.text


def test_a_stored_name_is_found_whatever_is_asked_of_new_names(server: Server) -> None:
    """Hebrew letters after a digit were accepted once: who has such a name signs in with it."""
    stored = server.add_user("bea")
    with server.application.storage.engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE users SET username = :name WHERE user_id = :id"),
            {"name": "1שרה", "id": stored.user_id},
        )
    assert server.sign_in(server.browser(), "1שרה").status_int == 303
    with pytest.raises(BadUsername):
        server.add_user("2שרה")


@pytest.mark.parametrize("name", ['"><script>alert(1)</script>', "{{7*7}}", "a" * 500])
def test_a_typed_name_comes_back_escaped_and_cut(server: Server, name: str) -> None:
    """T094, E-11: what a person typed is text."""
    answer = sign_in_at(server.browser().get(server.path("/login")), name, "wrong password")
    assert form_with(answer, "username")["username"].value == name[:100]
    assert not answer.html.find("main").find_all("script")
    assert "49" not in form_with(answer, "username")["username"].value
    assert "wrong password" not in answer.text


def test_the_page_says_where_the_answer_goes_before_the_password_is_typed(server: Server) -> None:
    """T097, E-08: the host first and in our words, the self-asserted name quoted and marked."""
    client = register(server, client_name="Claude (claude.ai)", redirect_uris=["https://evil.example/cb"])
    text = server.browser().get(server.authorization_url(client)).follow().text
    assert text.index("evil.example") < text.index("Claude (claude.ai)")
    assert re.search(r"calls itself “<bdi>Claude \(claude\.ai\)</bdi>”", text)
    assert "Unverified" in text


def test_a_failed_sign_in_keeps_the_pending_request(server: Server) -> None:
    """E-02: the second try leads on to the consent page."""
    client, _ = server.add_client()
    page = server.browser().get(server.authorization_url(client)).follow()
    again = sign_in_at(page, password="wrong password")
    assert again.status_int == 400
    assert_code(server.consent(sign_in_at(again).follow()))


@pytest.mark.parametrize("name", ["username", "password", "request"])
def test_a_field_sent_twice_signs_nobody_in(server: Server, name: str) -> None:
    """T012, T100: which of two is meant, nobody can say; a refused sign-in as any other, with its one event."""
    browser = server.browser()
    fields = fields_of(browser.get(server.path("/login")), "username")
    values = {**fields, "username": "ann", "password": PASSWORD}
    body = urlencode({**values, name: [values[name], values[name]]}, doseq=True)
    before = len(server.events())
    answer = browser.post(server.path("/login"), body, content_type=FORM, status="*")
    assert answer.status_int == 400 and "You are not signed in" in answer.text
    assert server.rows("sessions") == []
    (event,) = server.events()[before:]
    assert (event["type"], event["reason"]) == ("sign_in.refused", "field-repeated")
    assert sign_in_at(answer).status_int == 303


@pytest.mark.parametrize("password", [PASSWORD, "wrong password"])
@pytest.mark.parametrize("observed", [True, False])
def test_a_way_back_sent_twice_changes_nothing_about_a_sign_in(
    make_server, password: str, observed: bool
) -> None:
    """T151: the right password signs in, and each wrong guess leaves its event, with an observing plugin and without."""
    server = make_server({"authserver.plugins": SETTINGS["authserver.plugins"] + " log_events" * observed})
    server.add_user("ann")
    browser = server.browser()
    fields = fields_of(browser.get(server.path("/login")), "username")
    values = {**fields, "username": "ann", "password": password, "page": ["account_apps", "account_apps"]}
    before = len(server.events())
    answer = browser.post(server.path("/login"), urlencode(values, doseq=True), content_type=FORM, status="*")
    (event,) = server.events()[before:]
    if password == PASSWORD:
        assert (answer.status_int, answer.location) == (303, f"{ISSUER}/")
        assert event["type"] == "sign_in.succeeded"
    else:
        assert answer.status_int == 400 and form_with(answer, "username")
        assert (event["type"], event["reason"]) == ("sign_in.refused", "password-wrong")


@pytest.mark.parametrize("field", ["page", "username", "password", "request"])
def test_a_field_that_is_no_text_is_refused_and_recorded(server: Server, field: str) -> None:
    """T013, T151: nothing of the form can be read then, its token neither."""
    browser = server.browser()
    fields = fields_of(browser.get(server.path("/login")), "username")
    body = urlencode({**fields, "username": "ann", "password": PASSWORD}) + f"&{field}=%FF"
    before = len(server.events())
    assert_page_error(browser.post(server.path("/login"), body, content_type=FORM, status="*"))
    assert server.rows("sessions") == []
    assert [event["type"] for event in server.events()[before:]] == ["sign_in.refused"]
