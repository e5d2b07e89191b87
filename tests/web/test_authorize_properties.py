"""The authorization endpoint under everything that hypothesis can think of."""

from __future__ import annotations

import re
import string
from urllib.parse import parse_qs, quote_plus, urlencode, urlsplit

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from webtest import TestApp

from authserver.engine.records import Client
from authserver.testing.server import CHALLENGE, ISSUER, Server, query_of
from authserver.testing.stories import assert_page_error, assert_redirect_error, records, signed_in

# The server is shared by the examples of a test on purpose: what one stores, the next one must not see.
fast = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

REGISTERED = (
    "https://client.example/cb",
    "https://client.example/cb?tenant=1&x=a%20b",
    "http://127.0.0.1:8000/cb",
    "http://[::1]/cb",
    "http://localhost:3000/cb?a=b",
    "com.example.app:/cb",
)
NAMES = [
    "response_type",
    "client_id",
    "redirect_uri",
    "scope",
    "state",
    "code_challenge",
    "code_challenge_method",
    "resource",
    "response_mode",
    "nonce",
    "prompt",
    "request",
    "request_uri",
    "registration",
    "client_secret",
    "x",
]


@pytest.fixture
def client(server: Server) -> Client:
    return server.add_client(redirect_uris=REGISTERED, application_type="native")[0]


@pytest.fixture
def browser(server: Server, client: Client) -> TestApp:
    """Signed in, and consent is remembered: whatever is right is answered with a code at once."""
    browser = signed_in(server)
    server.consent(browser.get(server.authorization_url(client)))
    return browser


@st.composite
def mutations(draw: st.DrawFn) -> str:
    """A registered URI with one small thing different."""
    uri = draw(st.sampled_from(REGISTERED))
    at = draw(st.integers(0, len(uri)))
    piece = draw(
        st.sampled_from(
            ["/", "?", "#", ";", "@", "\\", "%2e", "%2F", "..", "/..", " ", "\t", "\n", "*", ":443"]
        )
        | st.sampled_from(
            ["evil.example", "@evil.example", ".evil.example", "&a=b", "?a=b", ";a", ":80", "."]
        )
        | st.characters(min_codepoint=1, max_codepoint=0x2FFF, exclude_categories=["Cs"])
    )
    kind = draw(st.sampled_from(["insert", "delete", "replace", "upper", "append", "prepend"]))
    end = min(len(uri), at + draw(st.integers(1, 3)))
    return {
        "insert": uri[:at] + piece + uri[at:],
        "delete": uri[:at] + uri[end:],
        "replace": uri[:at] + piece + uri[end:],
        "upper": uri[:at] + uri[at:end].upper() + uri[end:],
        "append": uri + piece,
        "prepend": piece + uri,
    }[kind]


def is_loopback_with_other_port(uri: str) -> bool:
    def without_port(uri: str) -> str:
        return re.sub(
            r"^(http://(?:127\.0\.0\.1|\[::1\]|localhost))(?::[1-9][0-9]{0,4})?(?=[/?])", r"\1", uri
        )

    return without_port(uri) in [without_port(known) for known in REGISTERED if known.startswith("http:")]


@fast
@given(uri=mutations())
def test_no_mutation_of_a_registered_uri_is_accepted(
    server: Server, client: Client, browser: TestApp, uri: str
) -> None:
    """C-02, T003, T004, T006, T007, T008, T009: anything but another loopback port is refused with a page."""
    assume(uri and uri not in REGISTERED and not is_loopback_with_other_port(uri))
    before = records(server)
    assert_page_error(browser.get(server.authorization_url(client, redirect_uri=uri), status="*"))
    assert records(server) == before


@fast
@given(port=st.integers(-10, 70_000), zeros=st.sampled_from(["", "0", "00"]))
def test_only_a_real_port_of_a_loopback_host_is_free(
    server: Server, client: Client, browser: TestApp, port: int, zeros: str
) -> None:
    """C-04, C-15, T008: 1 to 65535 in ASCII digits without leading zeros; the answer goes to that very port."""
    uri = f"http://127.0.0.1:{zeros}{port}/cb"
    answer = browser.get(server.authorization_url(client, redirect_uri=uri), status="*")
    # 80 is what http means without a port, so no URI spells it out.
    if 1 <= port <= 65535 and not zeros and port != 80:
        answer = server.consent(answer)  # a loopback address is asked about each time (T088)
        assert answer.status_int == 303
        assert answer.location.startswith(uri + "?code=")
    else:
        assert_page_error(answer)


values = (
    st.text(max_size=30)
    | st.sampled_from(
        ["code", "S256", CHALLENGE, "profile", "none", "https://evil.example/", ISSUER, "", "{}"]
    )
    | st.sampled_from(REGISTERED)
)


@fast
@given(
    pairs=st.lists(st.tuples(st.sampled_from(NAMES) | st.text(max_size=8), values), max_size=12),
    keep=st.booleans(),
    raw=st.binary(max_size=20) | st.text(string.printable, max_size=20).map(str.encode),
    post=st.booleans(),
)
def test_no_soup_of_parameters_breaks_it(
    server: Server,
    client: Client,
    browser: TestApp,
    pairs: list[tuple[str, str]],
    keep: bool,
    raw: bytes,
    post: bool,
) -> None:
    """T001, T012, T015, B-15: never a 500, never a redirect elsewhere, and nothing stored without a code."""
    good = server.authorization_url(client).partition("?")[2]
    soup = urlencode(
        [(name.encode("utf-8", "replace"), value.encode("utf-8", "replace")) for name, value in pairs]
    )
    query = "&".join(
        part for part in (good if keep else f"client_id={client.client_id}", soup, quote_plus(raw)) if part
    )
    before = records(server)
    path = server.path("/oauth/authorize")
    if post:
        answer = browser.post(path, query, content_type="application/x-www-form-urlencoded", status="*")
    else:
        answer = browser.get(f"{path}?{query}", status="*")
    if answer.status_int == 303:
        assert answer.location.startswith(tuple(uri + "&?"["?" not in uri] for uri in REGISTERED)), query
        answered = parse_qs(urlsplit(answer.location).query, keep_blank_values=True)
        assert ("code" in answered) != ("error" in answered)
        if "code" in answered:
            return
    else:
        assert answer.status_int in (200, 400), query
    assert records(server) == before


@fast
@given(raw=st.binary(max_size=60))
def test_no_bytes_break_it(server: Server, raw: bytes) -> None:
    """T015: whatever stands in the query, a stranger sees a page."""
    answer = server.browser().get(
        server.path("/oauth/authorize?") + quote_plus(raw, safe="%&=+;"), status="*"
    )
    assert_page_error(answer)


@fast
@given(state=st.text(min_size=1, max_size=300) | st.text(string.printable, min_size=1, max_size=9500))
def test_state_comes_back_exactly_or_not_at_all(
    server: Server, client: Client, browser: TestApp, state: str
) -> None:
    """B-13, B-25.a, B-25.b, T021: echoed as sent, or refused; never altered, and CR and LF never raw in a header."""
    answer = browser.get(server.authorization_url(client, state=state), status="*")
    headers = "".join(name + value for name, value in answer.headerlist)
    assert "\r" not in headers
    assert "\n" not in headers
    if all(" " <= character <= "~" for character in state):
        assert query_of(answer)["state"] == state
        assert "code" in query_of(answer)
    else:
        assert_redirect_error(answer, "invalid_request", state=None)
