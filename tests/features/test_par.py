"""Pushed authorization requests (RFC 9126), from the push to the answer."""

from __future__ import annotations

import json
import logging
import re
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from urllib.parse import urlencode, urlsplit

import pytest
import time_machine
from webtest import TestApp, TestResponse

from authserver.api import AuthenticationStep, Decision, Parameters, allow, hookimpl
from authserver.engine.clients.registration import add_client
from authserver.engine.crypto import digests
from authserver.engine.crypto.sealing import from_text
from authserver.engine.records import Client, ClientMetadata
from authserver.engine.upkeep_records import Disposable
from authserver.settings import SettingsError
from authserver.testing.server import (
    CHALLENGE,
    REDIRECT_URI,
    SETTINGS,
    Server,
    basic,
    forged,
    form_with,
    query_of,
)
from authserver.testing.stories import (
    assert_code,
    assert_json_error,
    assert_page_error,
    assert_redirect_error,
    records,
    register,
    sign_in_at,
    signed_in,
    stored,
)

REQUIRED = "require_pushed_authorization_requests"
URN = "urn:ietf:params:oauth:request_uri:"
FORM = "application/x-www-form-urlencoded"
OTHER_URI = "https://other.example/cb"
CONTACTS = ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname")


@pytest.fixture
def contacts() -> Iterator[list[str]]:
    """Each attempt of this process to reach another one over the network, or to look up its name."""
    heard: list[str] = []
    listening = True

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if listening and event in CONTACTS:
            heard.append(event)

    sys.addaudithook(hear)  # for good, but deaf after the test
    yield heard
    listening = False


TWO_IN_ADVANCE = "in-advance = request_in_advance, client, 2, minute"


@pytest.fixture
def serve(sqlite_url: str) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def make(**fields: str) -> Server:
        servers.append(Server(sqlite_url, pushing(**fields)))
        servers[-1].add_user("ann")
        return servers[-1]

    yield make
    for server in servers:
        server.close()


def pushing(*, plugins: str = "pushed_requests", limits: str = "", **fields: str) -> dict[str, str | None]:
    """INI keys that switch the plugin on, with these settings of its own; and a limit, if there is to be one."""
    return {
        "authserver.plugins": f"{SETTINGS['authserver.plugins']} {plugins} {'rate_limits' if limits else ''}",
        **({"authserver.plugin.rate_limits.limits": limits} if limits else {}),
        **{f"authserver.plugin.pushed_requests.{name}": text for name, text in fields.items()},
    }


@pytest.fixture
def server(serve: Callable[..., Server]) -> Server:
    return serve()


def push(
    server: Server, client: Client, secret: str | None = None, *, headers: Any = None, **changes: Any
) -> TestResponse:
    """A correct push with these parameters changed; None removes one."""
    form = {
        "client_id": client.client_id,
        "response_type": "code",
        "redirect_uri": REDIRECT_URI,
        "scope": "profile",
        "state": "xyz",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
        **changes,
    }
    if client.auth_method == "client_secret_basic":
        headers = {"Authorization": basic(client.client_id, secret or ""), **(headers or {})}
    elif secret is not None:
        form["client_secret"] = secret
    body = urlencode({name: value for name, value in form.items() if value is not None}, doseq=True)
    answer: TestResponse = server.http.post(
        server.path("/oauth/par"), body, headers=headers, content_type=FORM, expect_errors=True
    )
    return answer


def pushed(server: Server, client: Client, secret: str | None = None, **changes: Any) -> str:
    """The request_uri of a push that succeeds."""
    answer = push(server, client, secret, **changes)
    assert answer.status_int == 201, answer.text
    request_uri: str = answer.json["request_uri"]
    return request_uri


def bring(
    server: Server, client: Client, request_uri: str, browser: TestApp | None = None, **extra: str
) -> TestResponse:
    """The browser brings the reference."""
    query = urlencode({"client_id": client.client_id, "request_uri": request_uri, **extra})
    answer: TestResponse = (browser or server.browser()).get(
        server.path(f"/oauth/authorize?{query}"), expect_errors=True
    )
    return answer


# ---- the push ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post", "none"])
def test_a_push_answers_a_reference(server: Server, method: str) -> None:
    """PAR-01, T082: 201 with request_uri and expires_in, no-store; authenticated as at the token endpoint."""
    client, secret = server.add_client(token_endpoint_auth_method=method)
    before = records(server), server.events()
    answer = push(server, client, secret)
    assert answer.status_int == 201
    assert answer.content_type == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json.keys() == {"request_uri", "expires_in"}
    assert answer.json["expires_in"] == 90
    assert re.fullmatch(rf"{URN}[A-Za-z0-9_-]{{43}}[A-Za-z0-9_-]{{6}}", answer.json["request_uri"])
    (row,) = server.rows("kept")
    assert row["digest"] == digests.digest("pushed-request", answer.json["request_uri"])
    assert ({**records(server), "kept": []}, server.events()) == before, "one row, and nothing else"


def test_a_pushed_request_is_granted_as_it_was_pushed(server: Server) -> None:
    """PAR-01, O-01: through sign-in and consent to tokens, `resource` included."""
    client, secret = server.add_client()
    resource = "https://files.example/"
    request_uri = pushed(server, client, secret, scope="files.read", resource=resource)
    browser = server.browser()
    page = sign_in_at(bring(server, client, request_uri, browser).follow()).follow()
    tokens = server.redeem(client, secret, assert_code(server.consent(page))).json
    assert tokens["scope"] == "files.read"
    assert server.claims(tokens["access_token"])["aud"] == resource


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"client_id": None}, "invalid_request"),
        ({"client_id": "somebody-else"}, "invalid_request"),
        ({"redirect_uri": OTHER_URI}, "invalid_request"),
        ({"redirect_uri": "javascript:alert(1)"}, "invalid_request"),
        ({"redirect_uri": [REDIRECT_URI, REDIRECT_URI]}, "invalid_request"),
        ({"response_type": None}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"state": "x" * 8193}, "invalid_request"),
        ({"state": ["x", "y"]}, "invalid_request"),
        ({"scope": "admin"}, "invalid_scope"),
        ({"scope": "a  b"}, "invalid_scope"),
        ({"resource": "https://unknown.example/"}, "invalid_target"),
        ({"request": "e30.e30.e30"}, "request_not_supported"),
        ({"request_uri": URN + "abc"}, "invalid_request"),
        ({"request_uri": "https://client.example/request.jwt"}, "invalid_request"),
    ],
)
def test_a_push_is_fully_checked(server: Server, changes: dict[str, Any], code: str) -> None:
    """PAR-02, PAR-03, T002, T012: the errors of the authorization endpoint, as JSON at once; nothing is stored."""
    client, secret = server.add_client()
    before = stored(server)
    assert_json_error(push(server, client, secret, **changes), code)
    assert stored(server) == before


def test_a_client_without_the_grant_type_cannot_push(server: Server) -> None:
    """PAR-02: unauthorized_client."""
    metadata = ClientMetadata(
        client_name="Robot",
        redirect_uris=(REDIRECT_URI,),
        grant_types=("client_credentials",),
        response_types=(),
        scopes=("profile",),
    )
    with server.application.begin() as engine:
        client, secret = add_client(engine, metadata)
    assert_json_error(push(server, client, secret), "unauthorized_client")


@pytest.mark.parametrize("case", ["wrong", "unknown", "other-method", "none", "disabled"])
def test_a_push_is_authenticated(server: Server, case: str) -> None:
    """PAR-02, T044: 401 invalid_client, as at the token endpoint."""
    client, secret = server.add_client(token_endpoint_auth_method="client_secret_post")
    headers = None
    if case == "wrong":
        secret = forged("as_secret_")
    elif case == "unknown":
        answer = push(server, client, secret, client_id="nobody")
        assert_json_error(answer, "invalid_client", status=401)
    elif case == "other-method":
        headers, secret = {"Authorization": basic(client.client_id, secret or "")}, None
    elif case == "none":
        secret = None
    else:
        with server.application.begin() as engine:
            engine.stores.clients.disable(client.client_id, engine.now)
    if case != "unknown":
        answer = push(server, client, secret, headers=headers)
        assert_json_error(answer, "invalid_client", status=401)
    assert server.events()[-1]["type"] == "request.refused"


def test_what_is_no_push_is_refused(server: Server) -> None:
    """PAR-02: 405 with Allow, 413 beyond 64 KiB, 400 for another media type; all JSON."""
    client, secret = server.add_client()
    answer = server.http.get("/oauth/par", expect_errors=True)
    assert_json_error(answer, "invalid_request", status=405)
    assert answer.headers["Allow"] == "POST"
    answer = push(server, client, secret, padding="x" * 65_536)
    assert_json_error(answer, "invalid_request", status=413)
    answer = server.http.post_json("/oauth/par", {"client_id": client.client_id}, expect_errors=True)
    assert_json_error(answer, "invalid_request")


def longest_push(server: Server, client: Client, secret: str | None) -> int:
    """How long the padding of a push may be; one character more is refused."""
    low, high = 1, 70_000
    while high - low > 1:
        middle = (low + high) // 2
        answer = push(server, client, secret, padding="x" * middle)
        low, high = (middle, high) if answer.status_int == 201 else (low, middle)
    assert_json_error(push(server, client, secret, padding="x" * high), "invalid_request", status=413)
    return low


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_a_pushed_request_may_be_as_long_as_a_body(server: Server, method: str) -> None:
    """PAR-02, T136: 64 KiB with what proves the client, far longer than an address; it works on every page."""
    client, secret = server.add_client(token_endpoint_auth_method=method)
    longest = longest_push(server, client, secret)
    assert longest > 65_000
    request_uri = pushed(server, client, secret, padding="x" * longest)
    browser = server.browser()
    to_login = bring(server, client, request_uri, browser)
    to_consent = sign_in_at(to_login.follow())
    assert len(request_uri) < 100
    assert len(to_login.location) < 500 and len(to_consent.location) < 500
    assert_code(server.consent(to_consent.follow()))


def test_what_a_pushed_request_needs_when_it_is_written_out_is_bounded_too(server: Server) -> None:
    """PAR-02, T136: a body of 60 kB with characters that are escaped when they are kept."""
    client, secret = server.add_client()
    body = urlencode({"client_id": client.client_id, "response_type": "code"}) + "&x=" + "/" * 60_000
    headers = {"Authorization": basic(client.client_id, secret or "")}
    body += "&" + urlencode({"redirect_uri": REDIRECT_URI, "code_challenge": CHALLENGE})
    answer = server.http.post(
        "/oauth/par",
        body + "&code_challenge_method=S256",
        headers=headers,
        content_type=FORM,
        expect_errors=True,
    )
    assert_json_error(answer, "invalid_request", status=413)
    assert server.rows("kept") == []


@pytest.mark.parametrize("who", ["public", "registered itself"])
def test_who_may_be_anybody_pushes_no_more_than_fits_into_an_address(server: Server, who: str) -> None:
    """PAR-09, T154: a stranger cannot fill the disk with 64 kB at a time."""
    client, secret = server.add_client(token_endpoint_auth_method="none")[0], None
    if who == "registered itself":
        client, secret = self_registered(server)
    longest = longest_push(server, client, secret)
    assert 9000 < longest < 10_000
    request_uri = pushed(server, client, secret, padding="x" * longest)
    assert bring(server, client, request_uri, signed_in(server)).status_int == 200


def self_registered(server: Server) -> tuple[Client, str]:
    """A client that registered itself, with a secret."""
    body = {"redirect_uris": [REDIRECT_URI], "scope": "profile files.read"}
    answer = server.http.post_json("/oauth/register", body)
    with server.application.begin() as engine:
        client = engine.stores.clients.find(answer.json["client_id"], engine.now)
    assert client is not None
    return client, answer.json["client_secret"]


def test_a_flood_of_requests_of_anybody_is_slowed_down(serve: Callable[..., Server]) -> None:
    """PAR-02, PAR-09, T154: 429 with Retry-After and one event a minute; nothing is kept, and others are served."""
    server = serve(limits=TWO_IN_ADVANCE)
    flooded, _ = server.add_client(token_endpoint_auth_method="none")
    other, _ = server.add_client(token_endpoint_auth_method="none")
    proven = server.add_client()
    with time_machine.travel(datetime.now(UTC), tick=False) as clock:
        for _ in range(2):
            pushed(server, flooded)
        before = stored(server)
        for _ in range(3):
            answer = push(server, flooded)
            assert_json_error(answer, "temporarily_unavailable", status=429)
            assert answer.headers["Retry-After"] == "60"
        assert stored(server) == before
        (event,) = server.events("request.refused")
        assert event["reason"] == "in-advance"
        for _ in range(3):
            pushed(server, *proven)
        pushed(server, other)
        clock.shift(61)
        pushed(server, flooded)


def test_clients_that_registered_themselves_are_slowed_down_together(serve: Callable[..., Server]) -> None:
    """T131, T154: another registration gives nobody another two requests."""
    server = serve(limits=TWO_IN_ADVANCE)
    for _ in range(2):
        pushed(server, *self_registered(server))
    assert_json_error(push(server, *self_registered(server)), "temporarily_unavailable", status=429)
    assert_json_error(push(server, register(server)), "temporarily_unavailable", status=429)


def test_nobody_is_slowed_down_where_nothing_limits_it(server: Server) -> None:
    client, _ = server.add_client(token_endpoint_auth_method="none")
    for _ in range(5):
        pushed(server, client)


def test_credentials_are_not_part_of_the_request(server: Server) -> None:
    """T023, T148: a client secret in the form is not kept, sealed or not; and nothing else can be read in the row."""
    client, secret = server.add_client(token_endpoint_auth_method="client_secret_post")
    pushed(server, client, secret, state="telltale", login_hint="ann@example.com")
    (row,) = server.rows("kept")
    for text in ("telltale", "ann@", "example", CHALLENGE, URN, str(secret)):
        assert text not in str(row)
    sealed = from_text(json.loads(row["details"])["sealed"])
    context = f"{row['digest'].hex()} {client.client_id}"
    opened = server.application.parts.ring.open(sealed, purpose="pushed-request", context=context)
    assert b"client_id=" in opened and b"ann%40example.com" in opened
    assert b"secret" not in opened


def test_a_pushed_request_in_another_row_opens_for_nobody(server: Server) -> None:
    """T148: not for the other client, nor for the same one; a page, and never a 500."""
    client, secret = server.add_client()
    other, other_secret = server.add_client()
    victim = pushed(server, client, secret)
    references = [pushed(server, client, secret), pushed(server, other, other_secret)]
    with server.application.begin() as engine:
        kept = engine.stores.kept
        found = kept.find("pushed-request", digests.digest("pushed-request", victim))
        assert found is not None
        for reference in references:
            row = kept.find("pushed-request", digests.digest("pushed-request", reference))
            assert row is not None and kept.change(row, replace(row, details=found.details))
    browser = signed_in(server)
    for whose, reference in zip((client, other), references, strict=True):
        assert_page_error(bring(server, whose, reference, browser), "invalid_request_uri")


def test_scripts_of_a_clients_origin_may_push(server: Server) -> None:
    """Q-02, Q-04: as at the token endpoint, errors included."""
    client, _ = server.add_client(token_endpoint_auth_method="none")
    for changes in ({}, {"scope": "admin"}):
        answer = push(server, client, headers={"Origin": "https://client.example"}, **changes)
        assert answer.headers["Access-Control-Allow-Origin"] == "https://client.example"
        assert "Access-Control-Allow-Credentials" not in answer.headers
    answer = push(server, client, headers={"Origin": "https://elsewhere.example"})
    assert "Access-Control-Allow-Origin" not in answer.headers
    preflight = server.http.options("/oauth/par", headers={"Origin": "https://client.example"})
    assert preflight.headers["Access-Control-Allow-Methods"] == "POST"


# ---- the reference ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_uri",
    [
        URN,
        URN + "abc",
        URN + "é",
        URN.upper() + "abc",
    ],
)
def test_an_unknown_reference_is_a_page(server: Server, request_uri: str) -> None:
    """PAR-05, T022: invalid_request_uri, and no redirect even where the query has a good redirect_uri."""
    client, _ = server.add_client()
    browser = signed_in(server)
    before = stored(server)
    answer = bring(server, client, request_uri, browser, redirect_uri=REDIRECT_URI, state="xyz")
    assert_page_error(answer, "invalid_request_uri", supplied=REDIRECT_URI)
    assert stored(server) == before


FOREIGN = ["urn:example:other", "https://client.example/request.jwt", "file:///etc/passwd", "x", f" {URN}abc"]


@pytest.mark.parametrize("request_uri", FOREIGN)
def test_a_foreign_request_uri_is_not_supported(server: Server, request_uri: str) -> None:
    """JAR-01, PAR-05: it is no reference of ours, so the client hears of it at its registered redirect URI."""
    client, _ = server.add_client()
    before = stored(server)
    answer = bring(server, client, request_uri, signed_in(server), redirect_uri=REDIRECT_URI, state="xyz")
    assert_redirect_error(answer, "request_uri_not_supported")
    # Its only redirect URI is the registered one, too.
    answer = bring(server, client, request_uri, signed_in(server))
    assert query_of(answer)["error"] == "request_uri_not_supported"
    assert stored(server)[1] == before[1]


def test_a_repeated_request_uri_is_told_to_the_client_unless_one_is_ours(server: Server) -> None:
    """B-04, PAR-07: with a reference of ours among them nothing else counts, so there is no redirect URI."""
    client, secret = server.add_client()
    address = server.authorization_url(client, state="xyz") + "&request_uri={}&request_uri={}"
    answer = signed_in(server).get(address.format("urn:a:b", "urn:a:b"))
    assert_redirect_error(answer, "invalid_request")
    reference = push(server, client, secret).json["request_uri"]
    for pair in ((reference, reference), ("urn:a:b", reference), (reference, "%ff"), ("", reference)):
        answer = signed_in(server).get(address.format(*pair), expect_errors=True)
        assert_page_error(answer, "invalid_request")


@pytest.mark.parametrize("request_uri", FOREIGN)
def test_a_foreign_request_uri_redirects_nobody_to_where_nothing_is_registered(
    server: Server, request_uri: str
) -> None:
    """PAR-05, T001: another redirect URI, another client, and a stranger who has not signed in."""
    client, _ = server.add_client()
    browser = signed_in(server)
    evil = "https://evil.example/cb"
    answer = bring(server, client, request_uri, browser, redirect_uri=evil)
    assert_page_error(answer, "invalid_request", supplied=evil)
    unknown = replace(client, client_id="client_unknown")
    assert_page_error(bring(server, unknown, request_uri, browser, redirect_uri=REDIRECT_URI))
    stranger = bring(server, client, request_uri, redirect_uri=REDIRECT_URI)
    assert urlsplit(stranger.location).path == "/login"


def test_a_reference_is_nobody_elses(server: Server) -> None:
    """PAR-04, PAR-05, T023: another client's, an altered one and one without client_id are refused."""
    client, secret = server.add_client()
    other, _ = server.add_client()
    request_uri = pushed(server, client, secret)
    assert pushed(server, client, secret) != request_uri
    browser = signed_in(server)
    assert_page_error(bring(server, other, request_uri, browser), "invalid_request_uri")
    middle = len(request_uri) // 2
    altered = request_uri[:middle] + ("A" if request_uri[middle] != "A" else "B") + request_uri[middle + 1 :]
    assert_page_error(bring(server, client, altered, browser), "invalid_request_uri")
    query = urlencode({"request_uri": request_uri})
    assert_page_error(browser.get(f"/oauth/authorize?{query}", expect_errors=True), "invalid_request")
    twice = urlencode({"client_id": client.client_id, "request_uri": [request_uri, request_uri]}, doseq=True)
    assert_page_error(browser.get(f"/oauth/authorize?{twice}", expect_errors=True), "invalid_request")
    assert_code(server.consent(bring(server, client, request_uri, browser)))


def test_a_pending_request_is_no_reference(server: Server) -> None:
    """T038: what is sealed for one purpose opens for no other."""
    client, secret = server.add_client()
    sealed = pushed(server, client, secret).removeprefix(URN)
    browser = signed_in(server)
    assert_page_error(browser.get(f"/oauth/consent?request={sealed}", expect_errors=True), status=403)
    page = browser.get(server.authorization_url(client))
    pending = form_with(page, "scope")["request"].value
    assert_page_error(bring(server, client, URN + pending, browser), "invalid_request_uri")


def test_a_reference_expires(serve: Callable[..., Server]) -> None:
    """PAR-04, PAR-05, T023: at the end of its lifetime, which is told."""
    server = serve(lifetime="30")
    client, secret = server.add_client()
    browser = signed_in(server)
    with time_machine.travel(datetime.now(UTC), tick=False) as clock:
        answer = push(server, client, secret)
        assert answer.json["expires_in"] == 30
        request_uri = answer.json["request_uri"]
        clock.shift(29.9)
        assert bring(server, client, request_uri, browser).status_int == 200
        clock.shift(0.1)
        assert_page_error(bring(server, client, request_uri, browser), "invalid_request_uri")


@pytest.mark.parametrize("lifetime", ["4", "601", "-1"])
def test_the_lifetime_is_bounded(serve: Callable[..., Server], lifetime: str) -> None:
    """PAR-04: 5 to 600 seconds."""
    with pytest.raises(
        SettingsError, match=r"authserver\.plugin\.pushed_requests: lifetime must be 5 to 600"
    ):
        serve(lifetime=lifetime)


def test_a_reference_is_answered_once(server: Server) -> None:
    """PAR-06, T023: consumed when the response is issued, not when a page loads; a second answer is a page."""
    client, secret = server.add_client()
    browser = signed_in(server)
    request_uri = pushed(server, client, secret)
    pages = [bring(server, client, request_uri, browser) for _ in range(3)]
    code = assert_code(server.consent(pages[2]))
    before = records(server), server.events("code.issued")
    # The same answer of the same session within seconds is the same response (E-05.b).
    assert assert_code(server.consent(pages[0])) == code
    assert assert_code(bring(server, client, request_uri, browser)) == code
    assert_page_error(server.consent(pages[1], "deny"))
    # Once it has arrived, the reference is spent, in any browser.
    assert_page_error(bring(server, client, request_uri, server.browser()))
    assert (records(server), server.events("code.issued")) == before
    server.redeem(client, secret, code)
    assert_page_error(bring(server, client, request_uri, browser))
    assert server.events("code.issued") == before[1]


def test_a_declined_reference_is_spent(server: Server) -> None:
    """PAR-06: access_denied is a response too."""
    client, secret = server.add_client()
    browser = signed_in(server)
    request_uri = pushed(server, client, secret)
    assert_redirect_error(
        server.consent(bring(server, client, request_uri, browser), "deny"), "access_denied"
    )
    # Brought again within seconds it leads to the same refusal (E-05.b).
    assert_redirect_error(bring(server, client, request_uri, browser), "access_denied")
    assert_page_error(bring(server, client, request_uri, signed_in(server)))
    assert not server.events("code.issued")


def test_the_answer_is_remembered_while_any_page_can_answer(serve: Callable[..., Server]) -> None:
    """PAR-06, T023: the mark outlives the reference and every page that it was brought to."""
    server = serve(lifetime="600")
    client, secret = server.add_client()
    browser = signed_in(server)
    with time_machine.travel(datetime.now(UTC), tick=False) as clock:
        request_uri = pushed(server, client, secret)
        early = bring(server, client, request_uri, browser)
        clock.shift(599)
        late = bring(server, client, request_uri, browser)
        pending = form_with(late, "scope")["request"].value
        assert_code(server.consent(early))
        (mark,) = [row for row in server.rows("kept") if row["kind"] == "used"]
        kept = datetime.fromisoformat(str(mark["expires_at"])).replace(tzinfo=UTC) - datetime.now(UTC)
        assert kept >= timedelta(seconds=900)
        clock.shift(kept.total_seconds())
        answer = browser.get(f"/oauth/consent?request={pending}", expect_errors=True)
        assert_page_error(answer)
        assert server.events()[-1]["reason"] == "request-expired"


@dataclass(frozen=True)
class WantsFresh:
    """Demands a new sign-in of every request that was pushed with `ui=fresh`."""

    immediate: ClassVar[bool] = True

    @hookimpl
    def authentication_decision(self, parameters: Parameters) -> Decision[AuthenticationStep] | None:
        if parameters.get("ui") != "fresh":
            return None
        return allow("asked-for", AuthenticationStep.SIGN_IN_AGAIN)


def test_a_pushed_request_goes_on_after_a_fresh_sign_in(serve: Callable[..., Server]) -> None:
    """PAR-05, E-17: the policy sees what was pushed; the demand travels with the reference, and ends with one sign-in."""
    server = serve(plugins=f"pushed_requests {__name__}:WantsFresh")
    client, secret = server.add_client()
    browser = signed_in(server)
    request_uri = pushed(server, client, secret, ui="fresh", padding="p" * 7000)
    for _ in range(2):
        page = bring(server, client, request_uri, browser).follow()
        assert form_with(page, "username")
        # Reloaded, the page does not take the session that was there.
        assert form_with(browser.get(page.request.url), "username")
    consent = sign_in_at(page).follow()
    code = assert_code(server.consent(consent))
    assert server.redeem(client, secret, code).json["scope"] == "profile"
    # Without that parameter nobody signs in again.
    assert_code(bring(server, client, pushed(server, client, secret), browser))


def test_a_page_goes_on_when_its_reference_has_expired(server: Server) -> None:
    """PAR-06, R-10: the reference is for the browser to bring; who signs in has the time of any other request."""
    client, secret = server.add_client()
    browser = server.browser()
    with time_machine.travel(datetime.now(UTC), tick=False) as clock:
        request_uri = pushed(server, client, secret)
        clock.shift(89)
        to_login = bring(server, client, request_uri, browser)
        clock.shift(800)
        assert_page_error(bring(server, client, request_uri), "invalid_request_uri")
        page = sign_in_at(to_login.follow()).follow()
        server.application.caretaker.work()
        assert_code(server.consent(page))
        clock.shift(86_400)
        server.application.caretaker.work()
        assert server.rows("kept") == []


def test_a_pending_page_is_refused_when_what_was_pushed_is_gone(server: Server) -> None:
    """PAR-05: a page with its error, and no code."""
    client, secret = server.add_client()
    browser = signed_in(server)
    page = bring(server, client, pushed(server, client, secret), browser)
    with server.application.begin() as engine:
        engine.stores.upkeep.remove(Disposable.KEPT_RECORDS, engine.now + timedelta(days=1), limit=10)
    assert_page_error(server.consent(page), "invalid_request_uri")
    assert not server.events("code.issued")


def test_only_what_was_pushed_counts(server: Server) -> None:
    """PAR-07, T023: beside a reference the query says nothing but client_id."""
    client, secret = server.add_client(redirect_uris=(REDIRECT_URI, OTHER_URI))
    request_uri = pushed(server, client, secret)
    browser = signed_in(server)
    changed = {
        "redirect_uri": OTHER_URI,
        "scope": "profile files.read",
        "state": "changed",
        "response_type": "token",
        "code_challenge": "A" * 43,
        "resource": "https://files.example/",
        "request": "e30.e30.e30",
    }
    page = bring(server, client, request_uri, browser, **changed)
    assert [box._value for box in form_with(page, "scope").fields["scope"]] == ["profile"]
    tokens = server.redeem(client, secret, assert_code(server.consent(page))).json
    assert tokens["scope"] == "profile"


def test_a_pushed_request_is_checked_again(server: Server) -> None:
    """R-09, T002: who was disabled meanwhile gets nothing."""
    client, secret = server.add_client()
    request_uri = pushed(server, client, secret)
    with server.application.begin() as engine:
        engine.stores.clients.disable(client.client_id, engine.now)
    assert_page_error(bring(server, client, request_uri, signed_in(server)), supplied=REDIRECT_URI)


def test_what_was_pushed_is_readable_nowhere(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """T023: not in a cookie, an address or a log."""
    client, secret = server.add_client()
    browser = server.browser()
    with caplog.at_level(logging.DEBUG):
        request_uri = pushed(server, client, secret, state="telltale", scope="files.read")
        answers = [bring(server, client, request_uri, browser)]
        answers.append(answers[-1].follow())
        answers.append(sign_in_at(answers[-1]))
        answers.append(answers[-1].follow())
        push(server, client, secret, state="telltale", scope="admin")
    shown = [request_uri, str(browser.cookies), caplog.text]
    shown += [str(answer.headers) for answer in answers]
    # The sealed request, of all things, stands in the pages' forms and addresses.
    shown.append(form_with(answers[-1], "scope")["request"].value)
    for text in shown:
        assert "telltale" not in text
        assert "files.read" not in text
        assert CHALLENGE not in text


def test_a_url_is_never_fetched(server: Server, contacts: list[str]) -> None:
    """T022, JAR-05: no connection, and no name is looked up."""
    client, secret = server.add_client()
    browser = signed_in(server)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()):
            listener.accept()[0].close()
        assert "socket.connect" in contacts, "it would be heard"
        contacts.clear()
        listener.setblocking(False)
        port = listener.getsockname()[1]
        for url in (f"http://127.0.0.1:{port}/r", f"http://localhost:{port}/r", "https://client.example/r"):
            assert query_of(bring(server, client, url, browser))["error"] == "request_uri_not_supported"
            assert_json_error(push(server, client, secret, request_uri=url), "invalid_request")
        assert contacts == []
        with pytest.raises(BlockingIOError):
            listener.accept()


# ---- when it is required, and when it is off --------------------------------------------------------


def test_what_was_not_pushed_is_refused_where_that_is_required(serve: Callable[..., Server]) -> None:
    """PAR-08: redirect invalid_request, once somebody is signed in; a pushed request goes on."""
    server = serve(require="true")
    client, secret = server.add_client()
    answer = server.browser().get(server.authorization_url(client))
    before = stored(server)
    answer = sign_in_at(answer.follow()).follow()
    assert_redirect_error(answer, "invalid_request")
    assert server.events()[-1]["reason"] == "request-not-pushed"
    browser = signed_in(server)
    assert_redirect_error(browser.get(server.authorization_url(client)), "invalid_request")
    assert_page_error(
        browser.get(server.authorization_url(client, redirect_uri=OTHER_URI), expect_errors=True),
        supplied=OTHER_URI,
    )
    assert server.rows("grants") == before[0]["grants"]
    assert server.rows("tokens") == before[0]["tokens"]
    assert_code(server.consent(bring(server, client, pushed(server, client, secret), browser)))


def promising(server: Server, **members: Any) -> TestResponse:
    """The answer to a client that registers itself and promises to push every request."""
    body = {"redirect_uris": [REDIRECT_URI], "scope": "profile", REQUIRED: True, **members}
    answer: TestResponse = server.http.post_json(server.path("/oauth/register"), body, expect_errors=True)
    return answer


def test_a_client_that_promised_to_push_must(serve: Callable[..., Server]) -> None:
    """PAR-08 (RFC 9126, 6): also where the server does not ask that of everybody; other clients go on as before."""
    server = serve()
    answer = promising(server)
    assert (answer.status_int, answer.json[REQUIRED]) == (201, True)
    client_id, secret = answer.json["client_id"], answer.json["client_secret"]
    other, _ = server.add_client()
    with server.application.begin() as engine:
        client = engine.find_client(client_id)
    assert client
    browser = signed_in(server)
    before = stored(server)
    refused = browser.get(server.authorization_url(client))
    # Nobody but itself vouches for this client: the person sees where it leads (B-17).
    assert "client.example" in refused.text
    assert server.events()[-1]["reason"] == "request-not-pushed"
    assert stored(server) == before
    assert form_with(browser.get(server.authorization_url(other)), "scope")
    assert_code(server.consent(bring(server, client, pushed(server, client, secret), browser)))


def test_the_refusal_of_a_client_that_must_push_is_redirected(serve: Callable[..., Server]) -> None:
    """PAR-08: invalid_request, for a client that an operator registered so; nothing is issued, in no other way either."""
    server = serve()
    client, secret = server.add_client(details={REQUIRED: True})
    browser = signed_in(server)
    before = stored(server)
    for extra in ({}, {"request_uri": FOREIGN[1]}, {"request": "e30.e30.e30"}):
        answer = browser.get(server.authorization_url(client, **extra))
        assert_redirect_error(answer, "invalid_request")
        assert server.events()[-1]["reason"] == "request-not-pushed"
    assert stored(server) == before
    assert_code(server.consent(bring(server, client, pushed(server, client, secret), browser)))


@pytest.mark.parametrize("client_id", ["nobody", "", "x" * 201, "\u20ac", "a\0b", ["a", "b"]])
def test_a_client_that_is_none_must_nothing(server: Server, client_id: Any) -> None:
    """B-01: a page, as without the plugin."""
    query = urlencode({"client_id": client_id, "redirect_uri": REDIRECT_URI}, doseq=True)
    answer = signed_in(server).get(f"/oauth/authorize?{query}", expect_errors=True)
    assert_page_error(answer, "invalid_request", supplied=REDIRECT_URI)


@pytest.mark.parametrize("value", ["true", 1, 0, [None], {}])
def test_the_promise_to_push_is_true_or_false(server: Server, value: Any) -> None:
    """PAR-08, K-06: anything else is refused, and nobody registered."""
    before = stored(server)
    assert_json_error(promising(server, **{REQUIRED: value}), "invalid_client_metadata")
    assert stored(server) == before


@pytest.mark.parametrize("value", [False, None, "", []])
def test_a_promise_that_is_not_made_is_not_kept(server: Server, value: Any) -> None:
    """PAR-08, K-24: false is the default (RFC 9126, 6)."""
    answer = promising(server, **{REQUIRED: value})
    assert answer.status_int == 201
    assert REQUIRED not in answer.json


def test_without_the_plugin_no_promise_to_push_is_taken(sqlite_url: str) -> None:
    """PAR-08: the answer says what is in effect (RFC 7591, 3.2.1)."""
    server = Server(sqlite_url)
    assert REQUIRED not in promising(server).json
    server.close()


def test_nobody_is_sent_to_a_stranger_for_not_pushing(serve: Callable[..., Server]) -> None:
    """PAR-08, B-17: a client that only itself vouches for is answered by way of a page."""
    server = serve(require="true")
    client = register(server)
    answer = signed_in(server).get(server.authorization_url(client))
    assert answer.status_int == 200
    assert "client.example" in answer.text


def test_where_requests_must_be_pushed_a_foreign_request_uri_is_none(serve: Callable[..., Server]) -> None:
    """PAR-08: the request was not pushed, whatever else it is."""
    server = serve(require="true")
    client, _ = server.add_client()
    answer = bring(server, client, FOREIGN[1], signed_in(server), redirect_uri=REDIRECT_URI)
    assert query_of(answer)["error"] == "invalid_request"


@pytest.mark.parametrize("require", [None, "false", "true"])
def test_the_metadata_names_the_endpoint(serve: Callable[..., Server], require: str | None) -> None:
    """PAR-08, A-17: RFC 9126, 5."""
    server = serve(**({"require": require} if require else {}))
    metadata = server.http.get("/.well-known/oauth-authorization-server").json
    assert metadata["pushed_authorization_request_endpoint"] == "https://as.example/oauth/par"
    assert metadata.get("require_pushed_authorization_requests", False) is (require == "true")


def test_it_works_below_the_path_of_an_issuer(sqlite_url: str) -> None:
    """A-04: endpoint, metadata and reference move with the issuer."""
    server = Server(sqlite_url, {**pushing(), "authserver.issuer": "https://as.example/tenant"})
    server.add_user("ann")
    client, secret = server.add_client()
    metadata = server.http.get("/.well-known/oauth-authorization-server/tenant").json
    assert metadata["pushed_authorization_request_endpoint"] == "https://as.example/tenant/oauth/par"
    request_uri = pushed(server, client, secret)
    answer = server.consent(bring(server, client, request_uri, signed_in(server)))
    assert answer.location.startswith(f"{REDIRECT_URI}?code=")
    server.http.post("/oauth/par", "", content_type=FORM, status=404)
    server.close()


def test_without_its_line_it_is_not_there(sqlite_url: str) -> None:
    """Only what the INI names is loaded."""
    server = Server(sqlite_url)
    server.http.post("/oauth/par", "", content_type=FORM, status=404)
    metadata = server.http.get("/.well-known/oauth-authorization-server").json
    assert "pushed_authorization_request_endpoint" not in metadata
    server.close()


def test_request_objects_are_refused_beside_it(server: Server) -> None:
    """JAR-01: the plugin reads references to what was pushed, and nothing else."""
    client, _ = server.add_client()
    url = server.authorization_url(client, request="e30.e30.e30")
    assert_redirect_error(signed_in(server).get(url), "request_not_supported")
