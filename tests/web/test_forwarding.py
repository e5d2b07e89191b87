"""Whose request it is: trusted proxies, hops, and every spelling of an address; one story of each through the server."""

from __future__ import annotations

import itertools
import string
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authserver.settings import ForwardingHeader
from authserver.testing.server import Server
from authserver.web.forwarding import UNREADABLE, Forwarding

MakeServer = Callable[..., Server]
METADATA = "/.well-known/oauth-authorization-server"
CLIENT, PROXY, INNER = "203.0.113.9", "10.0.0.1", "127.0.0.1"
X, STANDARD = ForwardingHeader.X_FORWARDED, ForwardingHeader.FORWARDED


def forwarding(*networks: str, hops: int = 1, unix: bool = False, header: ForwardingHeader = X) -> Forwarding:
    return Forwarding(
        networks=tuple(map(ip_network, networks)) or (ip_network(INNER), ip_network("10.0.0.0/8")),
        hops=hops,
        unix=unix,
        header=header,
    )


def resolved(rules: Forwarding, peer: str = INNER, **headers: str) -> dict[str, Any]:
    """The environ of a request with these headers, named without HTTP_."""
    environ = {"REMOTE_ADDR": peer, "REMOTE_PORT": "1", "PATH_INFO": "/", "wsgi.url_scheme": "http"}
    environ |= {f"HTTP_{name}": value for name, value in headers.items()}
    rules.resolve(environ)
    left = [name for name in environ if name.startswith(("HTTP_X_FORWARDED", "HTTP_FORWARDED"))]
    assert left == []
    return environ


def client_of(rules: Forwarding, value: str, peer: str = INNER) -> str | None:
    """Whose request it is by this header; None if that cannot be read."""
    name = "X_FORWARDED_FOR" if rules.header is X else "FORWARDED"
    environ = resolved(rules, peer, **{name: value})
    return None if UNREADABLE in environ else environ["REMOTE_ADDR"]


@pytest.mark.parametrize(
    ("hops", "value", "client"),
    [
        (1, CLIENT, CLIENT),
        (1, f"6.6.6.6, {CLIENT}", CLIENT),
        (1, f"6.6.6.6,{CLIENT}", CLIENT),
        (1, f"no address, [, {CLIENT}", CLIENT),
        (1, f"{CLIENT}, {PROXY}", PROXY),
        (2, f"6.6.6.6, {CLIENT}, {PROXY}", CLIENT),
        (2, f"6.6.6.6, {CLIENT}", CLIENT),
        (2, f"6.6.6.6, {PROXY}, {PROXY}", PROXY),
        (2, f"garbage, {CLIENT}", CLIENT),
        (2, PROXY, PROXY),
        (3, f"6.6.6.6, {CLIENT}, 10.9.9.9, {PROXY}", CLIENT),
        (10, f"6.6.6.6, {CLIENT}, {PROXY}", CLIENT),
    ],
)
def test_the_client_is_before_the_last_trusted_proxy(hops: int, value: str, client: str) -> None:
    """T138, T139: so many hops and no more; an entry beyond them, or before a stranger's, is not even looked at."""
    assert client_of(forwarding(hops=hops), value) == client


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:52011", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ('"[2001:db8::1]:443"', "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%25eth0.1]:443", "fe80::1"),
        ("[fe80::1%eth0.1]:443", "fe80::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("[::ffff:c000:201]:443", "192.0.2.1"),
        ("", None),
        ("unknown", None),
        ("_hidden", None),
        ("localhost", None),
        ("192.0.2.256", None),
        ("192.0.2.01", None),
        ("3221225985", None),
        ("0xc0000201", None),
        ("192.0.2.1:", None),
        ("192.0.2.1:999999", None),
        ("192.0.2.1 192.0.2.2", None),
        ("2001:db8::1::2", None),
        ("[2001:db8::1", None),
        ("[192.0.2.1]", "192.0.2.1"),
        ("fe80::1%<b>", None),
        ("192.0.2.1\x00", None),
        ("١٩٢.0.2.1", None),
    ],
)
def test_an_address_is_read_in_every_spelling_or_not_at_all(text: str, address: str | None) -> None:
    """T139: with port, brackets or zone; what is none is refused."""
    assert client_of(forwarding(), text) == address


@pytest.mark.parametrize(
    ("hops", "value", "client"),
    [
        (1, f"for={CLIENT}", CLIENT),
        (1, f"For={CLIENT};Proto=HTTPS;by=_front", CLIENT),
        (1, f'for=6.6.6.6, for="{CLIENT}:80"', CLIENT),
        (1, f"for={CLIENT}:80", CLIENT),
        (1, 'for="[2001:db8::1]:443";host=evil.example', "2001:db8::1"),
        (1, r'for="203\.0.113.9"', CLIENT),
        (2, f"for=6.6.6.6,for={CLIENT};proto=https, for={PROXY};proto=http", CLIENT),
        (1, "for=unknown", None),
        (1, "for=_hidden", None),
        (1, "proto=https", None),
        (1, "", None),
        (1, f"for={CLIENT};for=6.6.6.6", None),
        (1, f"for={CLIENT};", None),
        (1, f"for = {CLIENT}", None),
        # A quote of the client's that would take in the proxy's word.
        (1, f'for="6.6.6.6, for={CLIENT}', None),
        (1, f'for="6.6.6.6, for="{CLIENT}"', None),
        (1, f'for="6.6.6.6\\", for={CLIENT}', None),
    ],
)
def test_the_header_of_rfc_7239_is_read_as_a_whole(hops: int, value: str, client: str | None) -> None:
    """T139: RFC 7239, 4 and 6."""
    assert client_of(forwarding(hops=hops, header=STANDARD), value) == client


def test_the_scheme_of_the_header_of_rfc_7239_is_that_of_the_outer_proxy() -> None:
    rules = forwarding(hops=2, header=STANDARD)
    value = f"for=6.6.6.6;proto=http, for={CLIENT};proto=https, for={PROXY};proto=http"
    assert resolved(rules, FORWARDED=value)["wsgi.url_scheme"] == "https"


@pytest.mark.parametrize(
    ("value", "scheme"),
    [("https", "https"), ("HTTPS", "https"), ("http", "http"), ("gopher", None), ("https, http", None), ("", None)],
)  # fmt: skip
def test_the_scheme_is_one_word(value: str, scheme: str | None) -> None:
    """T139, Q-10."""
    environ = resolved(forwarding(), X_FORWARDED_FOR=CLIENT, X_FORWARDED_PROTO=value)
    assert (None if UNREADABLE in environ else environ["wsgi.url_scheme"]) == scheme


@pytest.mark.parametrize("peer", ["192.0.2.7", "2001:db8::7", "", "localhost", "::ffff:192.0.2.7"])
def test_nobody_else_is_asked(peer: str) -> None:
    """Q-10, T138: neither address nor scheme nor host, and garbage of a stranger means nothing."""
    for rules in (forwarding(), forwarding(header=STANDARD), Forwarding()):
        environ = resolved(
            rules,
            peer,
            X_FORWARDED_FOR="garbage",
            X_FORWARDED_PROTO="https",
            X_FORWARDED_HOST="evil.example",
            FORWARDED="for=6.6.6.6;proto=https",
        )
        assert environ["wsgi.url_scheme"] == "http"
        assert environ["REMOTE_ADDR"] == peer.removeprefix("::ffff:")
        assert UNREADABLE not in environ


def test_only_the_header_that_is_set_counts() -> None:
    """A proxy passes on what it does not know: a client's own Forwarded, for instance."""
    headers = {"X_FORWARDED_FOR": CLIENT, "FORWARDED": "for=6.6.6.6;proto=https"}
    environ = resolved(forwarding(), **headers)
    assert (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]) == (CLIENT, "http")
    environ = resolved(forwarding(header=STANDARD), **headers)
    assert (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]) == ("6.6.6.6", "https")


@pytest.mark.parametrize(
    ("network", "peer", "trusted"),
    [
        ("10.0.0.0/8", "10.255.0.1", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("10.0.0.0/8", "::ffff:10.0.0.1", True),
        ("2001:db8::/32", "2001:db8:1::1", True),
        ("fe80::/10", "fe80::1%eth0", True),
        ("::1", "::1", True),
        ("::1", "127.0.0.1", False),
        ("0.0.0.0/0", "2001:db8::1", False),
        ("0.0.0.0/0", "", False),
        ("0.0.0.0/0", "localhost", False),
    ],
)
def test_a_network_holds_its_addresses(network: str, peer: str, trusted: bool) -> None:
    assert forwarding(network).trusts(peer) is trusted


@pytest.mark.parametrize("peer", ["", "localhost"])
def test_a_proxy_may_connect_through_a_unix_socket(peer: str) -> None:
    """Servers have no address for it: gunicorn says nothing, waitress `localhost`."""
    assert client_of(forwarding("10.0.0.0/8", unix=True), CLIENT, peer) == CLIENT
    assert client_of(forwarding("10.0.0.0/8"), CLIENT, peer) == peer


VALUES = st.one_of(
    st.text(max_size=40),
    st.lists(
        st.sampled_from(
            [CLIENT, PROXY, INNER, ",", ", ", ";", "for=", "proto=", '"', "\\", "[::1]", ":80", "x", "%", " "]
        ),
        max_size=8,
    ).map("".join),
)


@given(
    value=VALUES, scheme=VALUES, peer=st.sampled_from([INNER, CLIENT, ""]), hops=st.integers(1, 3),
    header=st.sampled_from(ForwardingHeader),
)  # fmt: skip
def test_whatever_is_sent_there_is_an_address_or_a_refusal(
    value: str, scheme: str, peer: str, hops: int, header: ForwardingHeader
) -> None:
    """T139."""
    rules = forwarding(hops=hops, header=header)
    environ = resolved(rules, peer, X_FORWARDED_FOR=value, X_FORWARDED_PROTO=scheme, FORWARDED=value)
    assert environ["wsgi.url_scheme"] in ("http", "https")
    if UNREADABLE in environ or not rules.trusts(peer):
        assert environ["REMOTE_ADDR"] == peer
    else:
        address = ip_address(environ["REMOTE_ADDR"])
        assert not isinstance(address, IPv6Address) or address.scope_id is None


@given(junk=st.text(alphabet=string.printable, max_size=60))
def test_what_a_client_writes_before_its_proxy_changes_nothing(junk: str) -> None:
    """T138: the proxy appends the address it sees, and that is the client's."""
    assert client_of(forwarding(), f"{junk}, {CLIENT}") == CLIENT
    assert client_of(forwarding(hops=2), f"{junk}, {CLIENT}") == CLIENT
    assert client_of(forwarding(hops=2), f"{junk}, {CLIENT}, {PROXY}") == CLIENT
    assert client_of(forwarding(header=STANDARD), f"{junk}, for={CLIENT}") in (CLIENT, None)


# ---- through the server ------------------------------------------------------------------------------


@pytest.fixture
def behind(make_server: MakeServer) -> Server:
    """A server behind two proxies."""
    return make_server(
        {"authserver.trusted_proxies": f"{INNER} {PROXY}", "authserver.trusted_proxy_hops": "2"}
    )


PLAIN = {"REMOTE_ADDR": INNER, "wsgi.url_scheme": "http"}
SENT = {"X-Forwarded-For": f"6.6.6.6, {CLIENT}, {PROXY}", "X-Forwarded-Proto": "https"}


def test_the_trusted_proxy_says_address_and_scheme_and_not_the_host(behind: Server) -> None:
    """Q-09, Q-10, T138: the host is what the client asked for, and every address stays the issuer's."""
    headers = {**SENT, "X-Forwarded-Host": "evil.example", "Forwarded": "for=6.6.6.6;host=evil.example"}
    answer = behind.http.get(METADATA, headers=headers, extra_environ=PLAIN)
    assert answer.json["issuer"] == "https://as.example"
    assert "evil" not in answer.text
    form = {"grant_type": "client_credentials", "client_id": "a", "client_secret": "b"}
    behind.http.post("/oauth/token", form, headers=headers, extra_environ=PLAIN, status=401)
    assert [event["source"] for event in behind.events("token.refused")] == [CLIENT]


def test_the_page_of_sessions_has_the_clients_address(behind: Server) -> None:
    behind.add_user("ann")
    browser = behind.browser()
    # The browser of these tests keeps cookies of https to https, which is what the client's connection is.
    browser.extra_environ |= {"REMOTE_ADDR": INNER, "HTTP_X_FORWARDED_FOR": SENT["X-Forwarded-For"]}
    behind.sign_in(browser)
    page = browser.get("/account/sessions")
    assert CLIENT in page.text
    assert INNER not in page.text
    assert "6.6.6.6" not in page.text


@pytest.mark.parametrize(
    "headers", [{"X-Forwarded-Proto": "https"}, {"Forwarded": "proto=https;host=as.example"}]
)
def test_anybody_elses_word_on_the_scheme_is_removed(headers: dict[str, str], behind: Server) -> None:
    """Q-10: from elsewhere than a trusted proxy the header does not exist."""
    environ = {**PLAIN, "REMOTE_ADDR": CLIENT}
    assert (
        behind.http.get(METADATA, headers=headers, extra_environ=environ, expect_errors=True).status_int
        == 400
    )


GARBAGE = (
    {"X-Forwarded-Proto": "gopher"},
    {"X-Forwarded-Proto": "https, https"},
    {"X-Forwarded-For": '"unterminated'},
    {"X-Forwarded-For": "unknown"},
    {"X-Forwarded-For": ""},
)


def test_garbage_from_the_proxy_is_400(behind: Server) -> None:
    """T139: parsed once, early; no policy ever sees it."""
    before = behind.events()
    for path, changed in itertools.product((METADATA, "/oauth/token", "/login", "/health/live"), GARBAGE):
        answer = behind.http.post(path, "a=b", headers={**SENT, **changed}, extra_environ=PLAIN, status=400)
        assert answer.json["error"] == "invalid_request"
        assert "of the proxy cannot be read" in answer.json["error_description"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert behind.events() == before


def test_a_proxy_that_is_not_trusted_is_announced_once(
    make_server: MakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says what to set."""
    server = make_server()
    for address in (PROXY, CLIENT):
        server.http.get(METADATA, headers=SENT, extra_environ={"REMOTE_ADDR": address}, expect_errors=True)
    told = [record.getMessage() for record in caplog.records if "trusted_proxies" in record.getMessage()]
    assert len(told) == 1
    assert told[0].startswith(f"ignored X-Forwarded-For of {PROXY}, which is no trusted proxy; ")
    assert told[0].endswith(f" authserver.trusted_proxies = {PROXY}")


def test_a_proxy_that_does_not_say_whose_request_it_is_is_announced_once(
    behind: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """But probes need not say it."""
    behind.http.get("/health/ready", extra_environ=PLAIN)
    assert "does not say" not in caplog.text
    for _ in range(2):
        behind.http.get(METADATA, extra_environ=PLAIN, headers={"X-Forwarded-Proto": "https"})
    assert caplog.text.count(f"{INNER} does not send the address of the client in X-Forwarded-For") == 1


def test_the_server_finds_the_same_client_before_the_request_is_read() -> None:
    """T103: those who wait in its lane are told apart by it (`web.lane`)."""
    trusted = Forwarding(networks=(ip_network("127.0.0.1"),))
    for peer, headers, client in (
        ("127.0.0.1", {"X_FORWARDED_FOR": "192.0.2.7"}, "192.0.2.7"),
        ("127.0.0.1", {"X_FORWARDED_FOR": "198.51.100.1, 192.0.2.7", "HOST": "a"}, "192.0.2.7"),
        ("127.0.0.1", {"X_FORWARDED_FOR": "unknown"}, "127.0.0.1"),
        ("127.0.0.1", {}, "127.0.0.1"),
        ("192.0.2.9", {"X_FORWARDED_FOR": "192.0.2.7"}, "192.0.2.9"),
    ):
        assert trusted.client_of(peer, headers) == client
