"""The decision on the consent page: whose it is, what it is about, and that it is taken once."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import time_machine
from webtest import TestApp, TestResponse

from authserver.api import Decision, allow, deny, hookimpl, narrow
from authserver.engine.records import Client
from authserver.testing.server import CHALLENGE, ISSUER, PASSWORD, REDIRECT_URI, SETTINGS, Server, form_with
from authserver.testing.stories import (
    assert_code,
    assert_page_error,
    assert_redirect_error,
    fields_of,
    records,
    register,
    says,
    sign_in_at,
    signed_in,
)

FORM = "application/x-www-form-urlencoded"


@pytest.fixture
def client(server: Server) -> Client:
    return server.add_client()[0]


@pytest.fixture
def browser(server: Server) -> TestApp:
    return signed_in(server)


@pytest.fixture
def page(server: Server, client: Client, browser: TestApp) -> TestResponse:
    return browser.get(server.authorization_url(client, scope="profile files.read"))


def post(server: Server, browser: TestApp, form: dict, **changes: object) -> TestResponse:
    values = {"answer": "allow", "scope": ["profile"], **form, **changes}
    body = urlencode({name: value for name, value in values.items() if value is not None}, doseq=True)
    return browser.post(server.path("/oauth/consent"), body, content_type=FORM, status="*")


def tokens_of(server: Server, kind: str) -> list[dict]:
    return [row for row in server.rows("tokens") if row["kind"] == kind]


def test_allow_gives_a_code(server: Server, page: TestResponse) -> None:
    """E-01, E-03, B-18: one grant and one code, by a 303; both events are there."""
    assert_code(server.consent(page))
    assert len(server.rows("grants")) == len(tokens_of(server, "code")) == 1
    assert [event["type"] for event in server.events()][-2:] == ["consent.given", "code.issued"]


def test_deny_gives_access_denied(server: Server, page: TestResponse) -> None:
    """E-07: and no grant; the refusal is in the event table."""
    assert_redirect_error(server.consent(page, "deny"), "access_denied")
    assert (server.rows("grants"), server.rows("consents"), tokens_of(server, "code")) == ([], [], [])
    assert server.events()[-1]["type"] == "consent.refused"


@pytest.mark.parametrize("answer", [None, "", "no", "ALLOW", "allow "])
def test_anything_but_allow_is_no(
    server: Server, browser: TestApp, page: TestResponse, answer: str | None
) -> None:
    """E-07: only the Allow button allows."""
    sent = post(server, browser, fields_of(page, "scope"), answer=answer)
    assert_redirect_error(sent, "access_denied")
    assert server.rows("grants") == []


@pytest.mark.parametrize("answer", [["allow", "deny"], ["deny", "allow"], ["allow", "allow"]])
def test_two_answers_are_none(
    server: Server, browser: TestApp, page: TestResponse, answer: list[str]
) -> None:
    """T012: a page, and nothing is stored."""
    before = records(server)
    assert_page_error(post(server, browser, fields_of(page, "scope"), answer=answer))
    assert records(server) == before


TAMPERED = {
    "redirect_uri": "https://evil.example/cb",
    "client_id": "other",
    "scope": ["profile", "files.write", "admin"],
    "resource": "https://files.example/",
    "code_challenge": "x" * 43,
    "code_challenge_method": "plain",
    "state": "evil",
    "response_type": "token",
    "response_mode": "fragment",
    "user_id": "user_other",
    "username": "bob",
}


@pytest.mark.parametrize(("name", "value"), TAMPERED.items())
def test_an_edited_or_added_field_has_no_effect(
    server: Server, client: Client, browser: TestApp, page: TestResponse, name: str, value: object
) -> None:
    """E-02, E-15, T017, T090: what was asked is what is granted, whatever the form or its address says."""
    bob = server.add_user("bob")
    server.add_client(client_id="other", redirect_uris=("https://evil.example/cb",))
    form = fields_of(page, "scope") | {"answer": "allow", "scope": ["profile"], name: value}
    path = f"{server.path('/oauth/consent')}?{urlencode({name: value}, doseq=True)}"
    assert_code(browser.post(path, urlencode(form, doseq=True), content_type=FORM, status="*"))
    (grant,) = server.rows("grants")
    assert (grant["client_id"], grant["scopes"]) == (client.client_id, "profile")
    assert grant["resources"] == "https://api.example/"
    assert grant["user_id"] != bob.user_id
    (code,) = tokens_of(server, "code")
    assert CHALLENGE in code["details"] and REDIRECT_URI in code["details"]


def altered(sealed: str, at: int) -> str:
    return sealed[:at] + ("A" if sealed[at] != "A" else "B") + sealed[at + 1 :]


@pytest.mark.parametrize(
    "position", ["first", "key id", "nonce", "middle", "last", "cut", "longer", "empty", "none"]
)
def test_an_altered_request_is_refused(
    server: Server, browser: TestApp, page: TestResponse, position: str
) -> None:
    """E-02, T090, T091: the sealed request opens whole or not at all."""
    form = fields_of(page, "scope")
    sealed = form["request"]
    form["request"] = {
        "first": altered(sealed, 0),
        "key id": altered(sealed, 3),
        "nonce": altered(sealed, 10),
        "middle": altered(sealed, len(sealed) // 2),
        "last": altered(sealed, len(sealed) - 1),
        "cut": sealed[:-4],
        "longer": sealed + "AAAA",
        "empty": "",
        "none": None,
    }[position]
    before = records(server)
    assert_page_error(post(server, browser, form), status=403, supplied=REDIRECT_URI)
    shown = browser.get(
        server.path("/oauth/consent?") + urlencode({"request": form["request"] or ""}), status="*"
    )
    assert_page_error(shown, status=403)
    assert records(server) == before


@pytest.mark.parametrize(
    "token",
    [
        None,
        "",
        "AAAA",
        "é",
        "cut",
        "twice",
        "of another browser",
        "of another request",
        "of the session",
    ],
)
def test_a_decision_needs_the_token_of_its_page(
    server: Server, client: Client, browser: TestApp, page: TestResponse, token: str | None
) -> None:
    """E-03, T092: no code, nothing stored, whatever the answer; 403, an event, and the page to answer again.

    The token is good for this request alone: another one of the same person does not do, nor a form of the session.
    """
    other_page = browser.get(server.authorization_url(client))
    values = {
        "of another browser": fields_of(server.browser().get(server.path("/login")), "username")[
            "csrf_token"
        ],
        "of another request": fields_of(other_page, "scope")["csrf_token"],
        "of the session": form_with(browser.get(server.path("/logout")), "csrf_token")["csrf_token"].value,
        "cut": fields_of(page, "scope")["csrf_token"][:-1],
        "twice": [fields_of(page, "scope")["csrf_token"]] * 2,
    }
    form = fields_of(page, "scope") | {"csrf_token": values.get(token or "", token)}
    for answer in ("allow", "deny", "switch"):
        before, events = records(server), len(server.events())
        shown = post(server, browser, form, answer=answer)
        assert shown.status_int == 403
        assert "Location" not in shown.headers and "Set-Cookie" not in shown.headers
        assert records(server) == before
        (event,) = server.events()[events:]
        assert (event["type"], event["reason"]) == ("authorization.refused", "form-token")
    assert_code(server.consent(shown))


@pytest.mark.parametrize("origin", ["https://evil.example", "https://client.example", "http://as.example"])
def test_a_decision_from_another_origin_is_refused(
    server: Server, browser: TestApp, page: TestResponse, origin: str
) -> None:
    """E-03, T092: even with the right token; the client's own origin is another one too."""
    form = fields_of(page, "scope") | {"answer": "allow", "scope": "profile"}
    before = records(server)
    answer = browser.post(server.path("/oauth/consent"), form, headers={"Origin": origin}, status="*")
    assert_page_error(answer, status=403)
    assert records(server) == before


def test_a_get_decides_nothing(server: Server, browser: TestApp, page: TestResponse) -> None:
    """E-03: the decision is a POST; in an address it only shows the page again."""
    form = fields_of(page, "scope") | {"answer": "allow", "scope": "profile"}
    before = records(server)
    answer = browser.get(server.path("/oauth/consent?") + urlencode(form))
    assert form_with(answer, "scope")
    assert records(server) == before


def test_another_user_cannot_decide(server: Server, browser: TestApp, page: TestResponse) -> None:
    """E-04.a, T091: bob, in his own browser, gets a page, be it with his own token."""
    server.add_user("bob")
    bob = signed_in(server, "bob")
    his_token = form_with(bob.get(server.path("/logout")), "csrf_token")["csrf_token"].value
    before = records(server)
    for token in (his_token, fields_of(page, "scope")["csrf_token"]):
        form = fields_of(page, "scope") | {"csrf_token": token}
        assert_page_error(post(server, bob, form), status=403, supplied=REDIRECT_URI)
    link = server.path("/oauth/consent?") + urlencode({"request": fields_of(page, "scope")["request"]})
    assert_page_error(bob.get(link, status="*"), status=403)
    assert records(server) == before
    assert_code(server.consent(page))


@pytest.mark.parametrize("answer", ["allow", "deny", "switch"])
def test_another_user_in_between_is_asked_instead(
    server: Server, browser: TestApp, page: TestResponse, answer: str
) -> None:
    """E-04.b: the page was shown to ann; bob signs in in another tab; ann's form decides nothing, and bob sees the page."""
    bob = server.add_user("bob")
    server.sign_in(browser, "bob")
    before = records(server)
    shown = server.consent(page, answer)
    assert shown.status_int == 403
    assert "Signed in as" in shown.text and "Bob" in shown.text and not says(shown, "Ann")
    assert "Nothing has been shared yet" in shown.text
    assert records(server) == before
    event = server.events()[-1]
    assert (event["type"], event["reason"], event["user_id"]) == (
        "authorization.refused",
        "form-token",
        bob.user_id,
    )
    assert_code(server.consent(shown))
    assert [grant["user_id"] for grant in server.rows("grants")] == [bob.user_id]


def test_the_same_user_in_between_changes_nothing(
    server: Server, browser: TestApp, page: TestResponse
) -> None:
    """E-04.a: a sign-in of ann in another tab renews the session, and her page is still hers."""
    server.sign_in(browser)
    assert_code(server.consent(page))


def test_somebody_else_may_sign_in_for_the_same_request(
    server: Server, browser: TestApp, page: TestResponse
) -> None:
    """E-04.b: `Use another account` signs ann out, and the grant is bob's."""
    bob = server.add_user("bob")
    login = post(server, browser, fields_of(page, "scope"), answer="switch")
    assert (login.status_int, urlsplit(login.location).path) == (303, "/login")
    assert server.rows("sessions") == []
    assert server.consent(page).location.startswith(f"{ISSUER}/login?request=")
    shown = sign_in_at(login.follow(), "bob").follow()
    assert "Bob" in shown.text
    assert_code(server.consent(shown))
    assert [grant["user_id"] for grant in server.rows("grants")] == [bob.user_id]


def test_a_signed_out_browser_is_asked_to_sign_in_again(
    server: Server, client: Client, page: TestResponse
) -> None:
    """E-01, E-04.b: the session was ended elsewhere; the answer does not count."""
    with server.application.storage.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM sessions")
    answer = server.consent(page)
    assert (answer.status_int, urlsplit(answer.location).path) == (303, "/login")
    assert server.rows("grants") == []
    assert_code(server.consent(sign_in_at(answer.follow()).follow()), state="xyz")


@pytest.mark.parametrize("answer", ["allow", "deny"])
def test_the_same_answer_again_leads_to_the_same_place_for_seconds(
    server: Server, browser: TestApp, page: TestResponse, answer: str, clock
) -> None:
    """E-05.a, E-05.b: a double click or a slow line gets the same redirect; nothing more is stored; ten seconds later, a page."""
    first = server.consent(page, answer)
    before, events = records(server), len(server.events())
    link = server.path("/oauth/consent?") + urlencode({"request": fields_of(page, "scope")["request"]})
    clock.shift(10)
    assert server.consent(page, answer).location == first.location
    # Reload and Back come to the same place; so does the sign-in page of this request.
    assert browser.get(link).location == first.location
    assert browser.get(link.replace("/oauth/consent", "/login")).follow().location == first.location
    assert (records(server), len(server.events())) == (before, events)
    clock.shift(0.001)
    for late in (server.consent(page, answer), browser.get(link, status="*")):
        assert_page_error(late, supplied=REDIRECT_URI)
        assert "answered already" in late.text
    assert records(server) == before


@pytest.mark.parametrize(("first", "second"), [("allow", "deny"), ("deny", "allow")])
def test_another_answer_is_no_answer(server: Server, page: TestResponse, first: str, second: str) -> None:
    """E-05.a: whoever changes their mind within seconds sees a page, not a second answer."""
    assert server.consent(page, first).status_int == 303
    before = records(server)
    assert_page_error(server.consent(page, second), supplied=REDIRECT_URI)
    assert records(server) == before


def test_other_ticks_are_another_answer(server: Server, page: TestResponse) -> None:
    """E-05.a, E-14."""
    assert_code(server.consent(page, scopes=["profile"]))
    assert_page_error(server.consent(page, scopes=["profile", "files.read"]), supplied=REDIRECT_URI)
    assert [grant["scopes"] for grant in server.rows("grants")] == ["profile"]


def test_a_code_that_arrived_is_not_sent_again(server: Server, browser: TestApp) -> None:
    """E-05.a, I-06: using it once more would end what it gave, and Back must not do that."""
    client, secret = server.add_client(client_id="fast")
    page = browser.get(server.authorization_url(client))
    code = assert_code(server.consent(page))
    tokens = server.redeem(client, secret, code).json
    assert_page_error(server.consent(page), supplied=REDIRECT_URI)
    assert server.refresh(client, secret, tokens["refresh_token"]).status_int == 200


@pytest.mark.parametrize("where", ["another browser", "another session", "another user", "signed out"])
def test_an_answer_is_given_again_to_its_own_session_alone(
    server: Server, browser: TestApp, page: TestResponse, where: str
) -> None:
    """E-05.b, T091: elsewhere a page, within the same second too; the code shows nowhere else."""
    server.add_user("bob")
    code = assert_code(server.consent(page))
    link = server.path("/oauth/consent?") + urlencode({"request": fields_of(page, "scope")["request"]})
    form, status = fields_of(page, "scope"), 400
    match where:
        case "another browser":
            browser, status = signed_in(server), 403
        case "another session":
            server.sign_in(browser)
        case "another user":
            server.sign_in(browser, "bob")
        case "signed out":
            browser.get(server.path("/logout")).forms[0].submit()
    for answer in (post(server, browser, form), browser.get(link, status="*")):
        assert_page_error(answer, status=status, supplied=REDIRECT_URI)
        assert code not in answer.text
    assert len(tokens_of(server, "code")) == 1


def test_the_answer_that_is_kept_cannot_be_read(server: Server, page: TestResponse) -> None:
    """R-01, T040: the code in it is sealed under the session's id, of which the database holds a digest."""
    code = assert_code(server.consent(page))
    stored = repr(
        [server.rows(table) for table in ("tokens", "kept", "grants", "sessions", "consents", "events")]
    )
    assert code not in stored and REDIRECT_URI + "?" not in stored
    (mark,) = server.rows("kept")
    assert json.loads(mark["details"])["answer"]


def test_a_request_seen_twice_is_answered_once(server: Server, client: Client, browser: TestApp) -> None:
    """E-05.a, E-05.b: two tabs with the same request, one answer, to which both lead."""
    link = sign_in_at(server.browser().get(server.authorization_url(client)).follow())
    one, other = link.follow(), link.follow()
    assert assert_code(server.consent(one)) == assert_code(server.consent(other))
    assert len(tokens_of(server, "code")) == 1


@pytest.mark.parametrize("answer", ["allow", "deny"])
def test_parallel_submits_give_one_answer(make_server, database_url: str, answer: str) -> None:
    """E-05.a, E-05.b, R-07: of many at the same moment one stores, and all lead to the same place; on both databases."""
    server = make_server(database_url=database_url)
    server.add_user("ann")
    browser = signed_in(server)
    page = browser.get(server.authorization_url(server.add_client()[0]))
    form = fields_of(page, "scope") | {"answer": answer, "scope": "profile"}
    cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    together = threading.Barrier(4)

    def submit() -> TestResponse:
        tab = server.browser()
        together.wait(timeout=10)
        return tab.post(server.path("/oauth/consent"), form, headers={"Cookie": cookie}, status="*")

    with ThreadPoolExecutor(4) as threads:
        answers = [future.result(timeout=60) for future in [threads.submit(submit) for _ in range(4)]]
    assert [sent.status_int for sent in answers] == [303] * 4
    assert len({sent.location for sent in answers}) == 1
    allowed = answer == "allow"
    assert (
        len(tokens_of(server, "code"))
        == len(server.rows("grants"))
        == len(server.rows("consents"))
        == allowed
    )
    assert len(server.events("consent.given" if allowed else "consent.refused")) == 1


def test_a_request_expires(server: Server, browser: TestApp, page: TestResponse) -> None:
    """E-02: fifteen minutes, then a page; the answered mark outlives the request (E-05.a)."""
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=901)):
        assert_page_error(server.consent(page), supplied=REDIRECT_URI)
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=840)):
        assert_code(server.consent(page))
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=880)):
        assert "answered already" in server.consent(page).text


def test_an_expired_request_leads_back(server: Server, client: Client) -> None:
    """E-02: whoever typed too long reads so, and starts the same request again, from the sign-in and the consent page."""
    browser = server.browser()
    login = browser.get(server.authorization_url(client)).follow()
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=901)):
        expired = sign_in_at(login)
        assert_page_error(expired, supplied=REDIRECT_URI)
        assert server.rows("sessions") == []
        consent = sign_in_at(expired.click("Start again").follow()).follow()
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=1803)):
        again = server.consent(consent).click("Start again")
        assert_code(server.consent(again), state="xyz")


def test_a_request_that_expired_elsewhere_shows_nothing(server: Server, client: Client) -> None:
    """T091: its state and challenge are for the browser alone in which it began."""
    link = server.browser().get(server.authorization_url(client)).location
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=901)):
        for browser in (server.browser(), signed_in(server)):
            answer = (
                browser.get(link).follow(status="*") if browser.cookies else browser.get(link, status="*")
            )
            assert_page_error(answer, status=403, supplied=REDIRECT_URI)
            assert CHALLENGE not in answer.text and not says(answer, "xyz")


def test_signing_in_does_not_renew_a_request(server: Server, client: Client) -> None:
    """E-02: the time runs from the authorization request on."""
    page = server.browser().get(server.authorization_url(client)).follow()
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=600)):
        consent = sign_in_at(page).follow()
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=901)):
        assert_page_error(server.consent(consent))


def test_a_user_grants_a_part(server: Server, client: Client, page: TestResponse) -> None:
    """E-14: the grant, the consent and the token response hold the ticked scopes alone."""
    assert_code(server.consent(page, scopes=["files.read"]))
    assert [grant["scopes"] for grant in server.rows("grants")] == ["files.read"]
    assert [consent["scopes"] for consent in server.rows("consents")] == ["files.read"]


def test_nothing_ticked_is_no_answer(server: Server, page: TestResponse) -> None:
    """E-14: the page comes back with an error summary, and can still be answered."""
    answer = server.consent(page, scopes=[])
    assert answer.status_int == 400
    assert "Tick at least one thing" in answer.text
    assert server.rows("grants") == []
    assert_code(server.consent(answer))


def test_an_unverified_client_needs_the_stronger_confirmation(server: Server) -> None:
    """E-09: without the tick nothing is granted, whatever button was pressed."""
    browser = signed_in(server)
    page = browser.get(server.authorization_url(register(server)))
    answer = post(server, browser, fields_of(page, "scope"))
    assert answer.status_int == 400
    assert "Confirm that you started this" in answer.text
    assert (server.rows("grants"), server.rows("consents")) == ([], [])
    assert_code(server.consent(answer))


def test_a_client_disabled_meanwhile_gets_nothing(server: Server, client: Client, page: TestResponse) -> None:
    """R-09, T041: everything is checked again when the answer comes."""
    with server.application.begin() as engine:
        engine.stores.clients.disable(client.client_id, engine.now)
    assert_page_error(server.consent(page), supplied=REDIRECT_URI)
    assert server.rows("grants") == []


@dataclass(frozen=True)
class Narrowing:
    @hookimpl
    def scope_decision(self) -> Decision | None:
        return narrow("only-files", ("files.read", "files.write", "admin"))


@dataclass(frozen=True)
class Widening:
    @hookimpl
    def scope_decision(self) -> Decision | None:
        return allow("everything", ("profile", "files.read", "files.write", "admin", "unknown"))


@dataclass(frozen=True)
class RefusesConsent:
    @hookimpl
    def consent_decision(self) -> Decision | None:
        return deny("not-during-exams")


def with_plugin(make_server: Callable[..., Server], plugin: type) -> Server:
    name = f"{__name__}:{plugin.__name__}\n"
    server = make_server({"authserver.plugins": f"{name}{SETTINGS['authserver.plugins']}"})
    server.add_user("ann")
    return server


def test_a_policy_may_narrow(make_server) -> None:
    """E-15: the page asks for what is left, and the token has no more."""
    server = with_plugin(make_server, Narrowing)
    client, _ = server.add_client()
    page = signed_in(server).get(server.authorization_url(client, scope="profile files.read"))
    assert "See your name" not in page.text
    assert_code(server.consent(page))
    assert [grant["scopes"] for grant in server.rows("grants")] == ["files.read"]


def test_a_policy_cannot_widen(make_server) -> None:
    """E-15: neither beyond what was requested nor beyond what is registered."""
    server = with_plugin(make_server, Widening)
    client, secret = server.add_client()
    answer = server.redeem(client, secret, server.code(client, scope="profile"))
    assert answer.json["scope"] == "profile"
    answer = server.redeem(client, secret, server.code(client, scope=None))
    assert set(answer.json["scope"].split()) == {"profile", "files.read"}


def test_a_policy_may_refuse_before_anybody_is_asked(make_server) -> None:
    """E-15: access_denied, and its reason stays with the operator."""
    server = with_plugin(make_server, RefusesConsent)
    client, _ = server.add_client()
    answer = signed_in(server).get(server.authorization_url(client))
    assert_redirect_error(answer, "access_denied")
    assert "exams" not in answer.location
    assert server.events()[-1]["reason"] == "not-during-exams"


def test_the_sealed_request_is_all_that_the_address_holds(server: Server, client: Client) -> None:
    """E-02, T090, R-04: neither state nor challenge nor redirect URI can be read in our addresses."""
    answer = server.browser().get(server.authorization_url(client))
    assert set(parse_qs(urlsplit(answer.location).query)) == {"request"}
    consent = sign_in_at(answer.follow())
    for location in (answer.location, consent.location):
        assert location.startswith(ISSUER)
        for secret in (CHALLENGE, "xyz&", "client.example", client.client_id, PASSWORD):
            assert secret not in location
