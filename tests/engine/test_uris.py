"""Redirect URIs, resources and links: hostile corpora and the rules they run into."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from authserver.engine import uris
from authserver.engine.errors import InvalidTarget
from authserver.policies.redirect_uris import RedirectExact
from authserver.testing.records import a_client

GOOD = [
    "https://app.example/cb",
    "https://app.example/",
    "https://app.example:8443/a/b.c/~d/%C3%A6",
    "https://app.example/cb?tenant=1&next=/a%20b",
    "https://xn--bcher-kva.example/cb",
    "https://192.0.2.7/cb",
    "https://[2001:db8::1]:8443/cb",
    "http://127.0.0.1/cb",
    "http://127.0.0.1:3000/cb",
    "http://[::1]:3000/cb",
    "http://localhost:3000/cb?x=1",
    "com.example.app:/cb",
    "com.example.app:/oauth/callback?x=1",
    "com.example.app://host/callback",
    "https://app.example",
    "https://app.example?x=1",
    "http://127.0.0.1:33418",
    "http://[::1]",
    "http://localhost",
    "https://App.Example.com/cb",
    "https://[2001:DB8::1]/cb",
    "https://app.example:443/cb",
    "http://localhost:80/cb",
    "https://pos_integration.shop.example/cb",
    "https://localhost:5001/signin-oidc",
]
# What an operator may allow, whole.
CURSOR = "cursor://anysphere.cursor-mcp/oauth/callback"
# Pieces of URIs and of attacks on their parsers, to be strung together.
PIECES = [
    "https://", "http://", "HTTPS://", "com.example.app:", "javascript:", "data:", "//", "/", "\\", "@", ":", "?", "#",
    ".", "..", "%2e", "%2E%2e", "%252e", "%2f", "%5c", "%00", "%0d%0a", "%zz", "%", "*", ";", "'", '"', "<", ">", " ",
    "\t", "\r\n", "\0", "\x7f", "\u00a0", "\u2028", "。", "／", "ℂ", "é", "\ud800", "{", "|", "^", "`", "app.example",
    "evil.example", "_", "EVIL.example", "127.0.0.1", "[::1]", "localhost", "0x7f.1", "2130706433", "0177.0.0.1", "127.1", "[::ffff:7f00:1]",
    "xn--", "-a", "a-", "a..b", ":443", ":80", ":0", ":08", ":65536", ":3000", "cb", "code=1", "state", "&", "=", "x",
]  # fmt: skip
ASSEMBLED = st.lists(st.sampled_from(PIECES), max_size=7).map("".join) | st.tuples(
    st.sampled_from(["https://app.example/", "http://127.0.0.1:3000/", "com.example.app:/"]),
    st.lists(st.sampled_from(PIECES), max_size=5).map("".join),
).map("".join)
HOSTS = ("127.0.0.1", "[::1]", "localhost")


@pytest.mark.parametrize("uri", GOOD)
def test_an_ordinary_redirect_uri_may_be_registered(uri: str) -> None:
    """C-01, C-11, C-14, B009, B027, B204: also without a path, and however the host is spelled."""
    assert uris.redirect_uri_problem(uri) is None
    assert uris.redirect_uri_problem(uri, application_type="native") is None


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("", "absolute"),
        ("/cb", "absolute"),
        ("//app.example/cb", "absolute"),
        ("app.example/cb", "absolute"),
        ("https://?x=1", "complete"),
        ("https://app.example?", "complete"),
        ("https://:443", "complete"),
        ("https:app.example/cb", "complete"),
        ("https:/app.example/cb", "complete"),
        ("https:///app.example/cb", "complete"),
        ("https://app.example/cb?", "complete"),
        ("https://" + "a" * 2048 + "/", "2048"),
        ("https://" + "a" * 64 + ".example/cb", "complete"),
    ],
)
def test_it_must_be_complete_and_absolute(uri: str, problem: str) -> None:
    """C-01, T007"""
    assert problem in str(uris.redirect_uri_problem(uri))


@pytest.mark.parametrize(
    "uri",
    ["https://*.app.example/cb", "https://app.example/*", "https://app.example/cb?x=*", "com.example.app:/*"],
)
def test_there_are_no_wildcards(uri: str) -> None:
    """C-03, T005"""
    assert "wildcard" in str(uris.redirect_uri_problem(uri))


@pytest.mark.parametrize(
    "uri",
    [
        "http://app.example/cb",
        "http://127.0.0.1.evil.example/cb",
        "http://localhost.evil.example/cb",
        "http://127.0.0.2/cb",
        "http://10.0.0.1/cb",
        "http://[::2]/cb",
        "http://sub.localhost/cb",
    ],
)
def test_http_is_for_loopback_hosts_alone(uri: str) -> None:
    """C-07, C-08"""
    assert "must use https" in str(uris.redirect_uri_problem(uri))


@pytest.mark.parametrize(
    "uri", ["https://app.example/cb#", "https://app.example/cb#x", "com.example.app:/cb#"]
)
def test_a_fragment_is_refused_be_it_empty(uri: str) -> None:
    """C-09, T004"""
    assert "fragment" in str(uris.redirect_uri_problem(uri))


@pytest.mark.parametrize(
    "uri",
    [
        "javascript:alert(1)",
        "JavaScript:alert(1)",
        "javascript://app.example/%0aalert(1)",
        "java\tscript:alert(1)",
        "\x01javascript:alert(1)",
        " javascript:alert(1)",
        "data:text/html,x",
        "data:text/html;base64,PHNjcmlwdD4=",
        "vbscript:x",
        "file:///etc/passwd",
        "blob:https://app.example/1",
        "about:blank",
        "filesystem:https://app.example/x",
        "view-source:https://app.example/",
        "ws://app.example/cb",
        "ftp://app.example/cb",
        "urn:ietf:wg:oauth:2.0:oob",
        "urn:ietf:wg:oauth:2.0:oob:auto",
        "myapp:/cb",
        "myapp://cb",
        "mailto:a@app.example",
    ],
)
def test_only_three_kinds_of_scheme_are_allowed(uri: str) -> None:
    """C-10, C-11, T009"""
    assert uris.redirect_uri_problem(uri)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["javascript", "data", "vbscript", "file", "blob", "about", "urn"]),
    st.lists(st.booleans(), min_size=10, max_size=10),
    st.integers(0, 10),
    st.sampled_from(["", "\t", "\n", "\r", "\0", " ", "\x01", "\u00ad", "%09"]),
    st.sampled_from([":alert(1)", ":/cb", "://app.example/cb", ":,x"]),
)
def test_no_spelling_of_a_script_scheme_is_allowed(
    scheme: str, upper: list[bool], place: int, inserted: str, rest: str
) -> None:
    """C-10, T009"""
    spelled = "".join(letter.upper() if big else letter for letter, big in zip(scheme, upper, strict=False))
    uri = spelled[:place] + inserted + spelled[place:] + rest
    assert uris.redirect_uri_problem(uri)
    assert uris.link_problem(uri)


@pytest.mark.parametrize(
    "uri",
    ["com.example.app:cb", "com.example.app:///cb", "com.example.app:", "com.example.app://", "COM.example.app:/cb",
     "com..app:/cb", ".com:/cb", "com.:/cb", "1com.example:/cb", "com.example.app://user@host/cb",
     "com.example.app://host:0/cb", "com.example.app://host:x/cb", "com.example.app://ho%73t/cb",
     "com.example.app://[::1]/cb", "com.example.app://host;x/cb"],
)  # fmt: skip
def test_a_private_use_scheme_is_in_lower_case_and_followed_by_a_slash(uri: str) -> None:
    """T010, C-11: one slash, or two and a name."""
    assert uris.malformed(uri)
    assert uris.redirect_uri_problem(uri)
    assert uris.redirect_uri_problem(uri, private_use={uri})


def accepted_exactly(registered: str, requested: str) -> bool:
    """Whether the policy that compares whole strings accepts the request."""
    return bool(RedirectExact().redirect_uri_decision(a_client(redirect_uris=(registered,)), requested))


def test_two_spellings_of_a_private_use_uri_are_two_uris() -> None:
    """T010, C-02: nothing is folded, so neither stands for the other."""
    for one, other in [
        ("com.example.app:/cb", "com.example.app://cb"),
        ("com.example.app://cb", "com.example.app://cb/"),
        ("com.example.app://cb", "com.example.app://CB"),
    ]:
        assert uris.redirect_uri_problem(one) is uris.redirect_uri_problem(other) is None
        assert not accepted_exactly(one, other)
        assert not uris.same_loopback_redirect_uri(one, other, HOSTS)


# ---- Private-use schemes without a period ----------------------------------------------------------


def test_an_operator_can_allow_a_complete_private_use_uri() -> None:
    """C-16: this very string and nothing that resembles it."""
    assert uris.needs_permission(CURSOR)
    assert uris.redirect_uri_problem(CURSOR, private_use={CURSOR}) is None
    assert "operator" in str(uris.redirect_uri_problem(CURSOR))
    for other in (
        "cursor://anysphere.cursor-mcp/oauth/callback/",
        "cursor://anysphere.cursor-mcp/oauth/callback?x=1",
        "cursor://anysphere.cursor-mcp/oauth",
        "cursor://anysphere.cursor-mcp/oauth/Callback",
        "cursor://Anysphere.cursor-mcp/oauth/callback",
        "cursor://evil.example/oauth/callback",
        "cursor:/anysphere.cursor-mcp/oauth/callback",
        "cursor2://anysphere.cursor-mcp/oauth/callback",
        "xcursor://anysphere.cursor-mcp/oauth/callback",
        "Cursor://anysphere.cursor-mcp/oauth/callback",
        "cursor://anysphere.cursor-mcp/oauth/%63allback",
    ):
        assert uris.redirect_uri_problem(other, private_use={CURSOR}), other


@pytest.mark.parametrize(
    "uri",
    ["javascript://app.example/%0aalert(1)", "javascript:/alert(1)", "data://x/y", "vbscript://x/y", "file://host/etc",
     "blob://x/y", "about://blank/x", "urn://x/y", "intent://x/y", "mailto://x/y", "view-source://app.example/",
     "ftp://app.example/x", "ws://app.example/x", "http://app.example/cb", "cursor://user@x/y", "cursor://x/y#f",
     "cursor://x/../y", "cursor://x/%2e%2e/y", "cursor://x/y?code=1", "cursor://x/*", "cursor:x", "cursor:///x"],
)  # fmt: skip
def test_an_operator_cannot_allow_what_is_dangerous_or_malformed(uri: str) -> None:
    """C-08 to C-10, C-12, C-16, C-17: his word lifts the rule of the period and no other."""
    assert uris.redirect_uri_problem(uri, private_use={uri})


@pytest.mark.parametrize(
    ("uri", "needs"),
    [(CURSOR, True), ("myapp:/cb", True), ("com.example.app:/cb", False), ("com.example.app://h/cb", False),
     ("https://app.example/cb", False), ("http://evil.example/cb", False), ("javascript://x/y", False),
     ("javascript:alert(1)", False), ("file://x/y", False), ("", False)],
)  # fmt: skip
def test_what_waits_for_an_operator_is_no_danger(uri: str, needs: bool) -> None:
    """C-16, C-18: dangerous schemes are refused, never just left out."""
    assert uris.needs_permission(uri) is needs


@pytest.mark.parametrize(
    "uri",
    [
        "https://user@app.example/cb",
        "https://user:pass@app.example/cb",
        "https://app.example@evil.example/cb",
        "https://@app.example/cb",
        "http://127.0.0.1:80@evil.example/cb",
        "https://app.example/ cb",
        " https://app.example/cb",
        "https://app.example/cb\n",
        "https://app.example/cb\t",
        "https://app.\texample/cb",
        "https://app.example/\0",
        "https://app.example/\x7f",
        "https://app.example/é",
        "https://app。example/cb",
        "https://app.example/\ud800",
        "https://app.example\\cb",
        "https://evil.example\\.app.example/cb",
        "https://app.example\\@evil.example/cb",
        "https://app.example/./cb",
        "https://app.example/a/../cb",
        "https://app.example/..",
        "https://app.example/.",
        "https://app.example/%2e%2e/cb",
        "https://app.example/.%2E/cb",
        "https://app.example/%252e%252e/cb",
        "https://app.example/a%2fb",
        "https://app.example/a%5Cb",
        "https://app.example/%00",
        "https://app.example/%0d%0aLocation:x",
        "https://app.example/%zz",
        "https://app.example/%2",
        "https://app.example/cb;x=1",
        "com.example.app:/a/../cb",
        "com.example.app:/%2e%2e/cb",
    ],
)
def test_what_parsers_read_differently_is_refused(uri: str) -> None:
    """C-12, T004, T006, T007"""
    assert uris.redirect_uri_problem(uri)


def test_a_refusal_names_what_is_wrong() -> None:
    """C-12, T004: the registrant is told what to change."""
    assert "user name" in str(uris.redirect_uri_problem("https://user:pass@app.example/cb"))
    assert "semicolon" in str(uris.redirect_uri_problem("https://app.example/cb;x=1"))
    assert "dot segments" in str(uris.redirect_uri_problem("https://app.example/a/../cb"))
    assert "percent-encoded" in str(uris.redirect_uri_problem("https://app.example\\cb"))
    assert uris.redirect_uri_problem("https://app.example/cb?a;b=1") is None


@pytest.mark.parametrize(
    "host",
    ["", ".", "app..example", "app.example.", "-app.example", "app-.example", "%61pp.example", "127.1", "0x7f.0.0.1", "0177.0.0.1", "2130706433", "1.2.3.4.5", "256.1.1.1", "1.2.3.04",
     "app.123", "app.0x1", "[::1", "::1", "[::1%25eth0]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]",
     "[::ffff:7f00:1]", "[::FFFF:7F00:1]", "[2001:DB8:0::1]", "[v1.x]", "0X7F.0.0.1", "APP.0X1", "LOCALHOST.",
     "app.example\u0131", "\u212aa.example", "app%5fx.example", "-_.example", "_-.example", "app.example:", "app.example:0", "app.example:08",
     "app.example:65536", "app.example:+1", "app.example:٣", "app.example:0443", "app.example:443:443"],
)  # fmt: skip
def test_a_host_has_one_spelling(host: str) -> None:
    """T007: also those that a browser would rewrite into another host."""
    assert uris.redirect_uri_problem(f"https://{host}/cb")


@pytest.mark.parametrize(
    "query",
    [
        "code=1",
        "x=1&state=2",
        "iss",
        "%63ode=1",
        "x;error=1",
        "error_description=x",
        "response=x",
        "id_token=x",
    ],
)
def test_a_registered_query_leaves_the_response_parameters_to_us(query: str) -> None:
    """B-15, C-17: otherwise they would occur twice."""
    assert "response" in str(uris.redirect_uri_problem(f"https://app.example/cb?{query}"))
    assert "response" in str(uris.redirect_uri_problem(f"https://app.example?{query}"))
    assert "response" in str(uris.redirect_uri_problem(f"com.example.app://h/cb?{query}"))
    assert uris.redirect_uri_problem("https://app.example/cb?encode=1&statement=2") is None


@pytest.mark.parametrize(
    "uri",
    ["http://127.0.0.1/cb", "http://localhost:3000/cb", "https://localhost/cb", "https://127.0.0.1/cb",
     "https://127.0.0.9/cb", "https://[::1]/cb", "https://app.localhost/cb", "https://LOCALHOST/cb",
     "com.example.app:/cb"],
)  # fmt: skip
def test_a_web_application_is_held_to_https_on_another_machine(uri: str) -> None:
    """K-12, K-29, B204: and the refusal names what to change."""
    assert uris.redirect_uri_problem(uri) is None
    assert uris.redirect_uri_problem(uri, application_type="native") is None
    assert "--application-type" in str(uris.redirect_uri_problem(uri, application_type="web"))
    assert not uris.is_remote_https(uri)
    assert uris.fitting_application_type(["https://app.example/cb", uri]) == "native"


def test_a_web_application_may_use_any_https_host() -> None:
    """K-12"""
    for uri in ("https://app.example/cb", "https://127.example/cb", "https://192.0.2.1/cb"):
        assert uris.redirect_uri_problem(uri, application_type="web") is None
        assert uris.is_remote_https(uri)
        assert uris.fitting_application_type([uri]) == "web"


@settings(max_examples=500, deadline=None)
@given(ASSEMBLED)
def test_no_parser_can_misread_an_accepted_uri(uri: str) -> None:
    """T006, T007, T009: it is plain ASCII, survives being split and joined, and has one host."""
    problem = uris.redirect_uri_problem(uri)
    if problem is not None:
        assert re.fullmatch(r"[\x20-\x21\x23-\x5B\x5D-\x7E]+", problem)
        return
    assert re.fullmatch(r"[\x21-\x7E]+", uri)
    assert not set(uri) & set("\\#*'\"<>`{}|^ ")
    parts = urlsplit(uri)
    assert urlunsplit(parts) == uri
    assert parts.username is None
    assert not parts.fragment
    if parts.scheme in ("http", "https"):
        assert parts.hostname == uris.display_host(uri).strip("[]")
        assert parts.scheme == "https" or uris.display_host(uri) in HOSTS
    else:
        assert "." in parts.scheme
        assert "@" not in parts.netloc


@pytest.mark.parametrize("registered", GOOD)
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_any_change_to_a_registered_uri_is_a_mismatch(registered: str, data: st.DataObject) -> None:
    """C-02, C-03, T003"""
    place = data.draw(st.integers(0, len(registered)))
    width = data.draw(st.integers(0, 3))
    requested = (
        registered[:place]
        + data.draw(st.sampled_from(PIECES) | st.text(max_size=2))
        + registered[place + width :]
    )
    assume(requested != registered)
    assert not accepted_exactly(registered, requested)
    if uris.same_loopback_redirect_uri(registered, requested, HOSTS):
        port = r"^(http://(?:127\.0\.0\.1|\[::1\]|localhost))(?::[1-9][0-9]{0,4})?(?=[/?]|$)"
        assert re.sub(port, r"\1", registered) == re.sub(port, r"\1", requested)


@pytest.mark.parametrize(
    ("registered", "requested"),
    [
        ("https://app.example/cb", "https://app.example/CB"),
        ("https://app.example/cb", "https://APP.example/cb"),
        ("https://app.example/cb", "https://app.example/cb/"),
        ("https://app.example/cb", "https://app.example:443/cb"),
        ("https://app.example/cb", "https://app.example/%63b"),
        ("https://app.example/cb", "https://app.example/cb?x=1"),
        ("https://app.example/cb?a=1&b=2", "https://app.example/cb?b=2&a=1"),
        ("https://app.example/cb?a=1", "https://app.example/cb?a=1&b=2"),
        ("https://app.example/cb", "https://app.example/cb#"),
        ("https://app.example/cb", "https://app.example/cb;x"),
        ("https://app.example/\u00e9", "https://app.example/e\u0301"),
    ],
)
def test_equivalent_is_not_equal(registered: str, requested: str) -> None:
    """C-02, T003, T004, T005"""
    assert accepted_exactly(registered, registered)
    assert not accepted_exactly(registered, requested)
    assert not uris.same_loopback_redirect_uri(registered, requested, HOSTS)


@pytest.mark.parametrize("host", HOSTS)
@settings(max_examples=30, deadline=None)
@given(port=st.integers(1, 65535))
def test_a_loopback_host_may_answer_on_any_port(host: str, port: int) -> None:
    """C-04, C-05, T008"""
    requested = f"http://{host}:{port}/cb?x=1"
    for registered in (f"http://{host}/cb?x=1", f"http://{host}:3000/cb?x=1"):
        assert uris.same_loopback_redirect_uri(registered, requested, HOSTS)
        assert uris.same_loopback_redirect_uri(requested, registered, HOSTS)
        assert not uris.same_loopback_redirect_uri(registered, requested, set(HOSTS) - {host})


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("rest", ["", "/", "/cb", "?x=1", "/cb?x=http://localhost:1"])
def test_a_loopback_uri_without_a_port_is_the_same_with_one(host: str, rest: str) -> None:
    """C-04, K-26"""
    with_port = uris.at_loopback_port(f"http://{host}{rest}", 61001)
    assert with_port == f"http://{host}:61001{rest}"
    assert uris.same_loopback_redirect_uri(f"http://{host}{rest}", with_port, HOSTS)
    assert uris.redirect_uri_problem(with_port) is None


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:3000/cb",
        "http://127.0.0.1.example/cb",
        "http://localhost@app.example/cb",
        "http://LOCALHOST/cb",
        "https://localhost/cb",
        "https://app.example/cb",
        "com.example.app:/cb",
        "cursor://localhost/cb",
    ],
)
def test_no_other_uri_is_given_a_port(uri: str) -> None:
    """C-05: only http URIs of loopback hosts as they are written, and only where no port is named."""
    assert uris.at_loopback_port(uri, 61001) is None


def test_the_three_loopback_hosts_are_three() -> None:
    """C-06"""
    for one in HOSTS:
        for other in HOSTS:
            same = uris.same_loopback_redirect_uri(f"http://{one}/cb", f"http://{other}:3000/cb", HOSTS)
            assert same == (one == other)


@pytest.mark.parametrize(
    "requested",
    [
        "http://127.0.0.1.evil.example/cb",
        "http://127.0.0.1.evil.example:3000/cb",
        "http://127.0.0.1:3000@evil.example/cb",
        "http://user@127.0.0.1:3000/cb",
        "http://127.0.0.1:3000:80/cb",
        "https://127.0.0.1:3000/cb",
        "HTTP://127.0.0.1:3000/cb",
        "http://127.0.0.2:3000/cb",
        "http://127.1:3000/cb",
        "http://127.0.0.1:/cb",
        "http://127.0.0.1:0/cb",
        "http://127.0.0.1:080/cb",
        "http://127.0.0.1:65536/cb",
        "http://127.0.0.1:99999/cb",
        "http://127.0.0.1:٣٠٠٠/cb",
        "http://127.0.0.1:+80/cb",
        "http://127.0.0.1:3000 /cb",
        "http://127.0.0.1:3000",
        "http://127.0.0.1:3000/",
        "http://127.0.0.1:3000/cb/",
        "http://127.0.0.1:3000/cb?x=1",
        "http://127.0.0.1:3000/cb?",
        "http://127.0.0.1:3000/cb#",
        "http://127.0.0.1:3000/cb\n",
        "http://127.0.0.1:3000\\@evil.example/cb",
        "http://127.0.0.1:3000/a/../cb",
        "http://127.0.0.1:3000//cb",
        "\nhttp://127.0.0.1:3000/cb",
    ],
)
def test_a_look_alike_of_a_loopback_uri_gets_no_port_freedom(requested: str) -> None:
    """C-04, C-07, T008"""
    assert not uris.same_loopback_redirect_uri("http://127.0.0.1/cb", requested, HOSTS)
    assert not uris.same_loopback_redirect_uri("http://127.0.0.1:3001/cb", requested, HOSTS)


@pytest.mark.parametrize("registered", ["http://localhost", "http://127.0.0.1:33418", "http://[::1]"])
def test_a_loopback_uri_without_a_path_has_none_on_any_port(registered: str) -> None:
    """B010, C-02, C-04: kept and compared as written."""
    host = registered.removesuffix(":33418")
    assert uris.same_loopback_redirect_uri(registered, f"{host}:40123", HOSTS)
    for rest in (
        "/",
        "?",
        "?x=1",
        "#",
        ":40123/",
        ":40123?@evil.example",
        ":40123@evil.example",
        ":40123.evil.example",
        ":40123\\.evil.example",
        "@evil.example",
        ".evil.example",
        ".evil.example:40123",
        ":",
        ":0",
        ":65536",
        ":40123 ",
        ":40123\n",
    ):
        assert not uris.same_loopback_redirect_uri(registered, host + rest, HOSTS), rest


def test_no_setting_extends_port_freedom_beyond_loopback() -> None:
    """C-03, C-07, T008"""
    for host in ("app.example", "127.0.0.2", "*", "LOCALHOST"):
        assert not uris.same_loopback_redirect_uri(f"http://{host}/cb", f"http://{host}:3000/cb", {host})
    assert not uris.same_loopback_redirect_uri("https://localhost/cb", "https://localhost:3000/cb", HOSTS)


def test_what_a_uri_tells_a_person_and_a_browser() -> None:
    """E-09, B-17: the host to show, and the web origin."""
    told = {
        "https://app.example/cb": ("app.example", "https://app.example"),
        "https://app.example:8443/cb": ("app.example", "https://app.example:8443"),
        "https://[2001:db8::1]/cb": ("[2001:db8::1]", "https://[2001:db8::1]"),
        "http://127.0.0.1:3000/cb": ("127.0.0.1", "http://127.0.0.1"),
        "http://localhost/cb": ("localhost", "http://localhost"),
        "http://[::1]:3000/cb": ("[::1]", "http://[::1]"),
        "com.example.app:/cb": ("com.example.app", None),
        # However it is spelled, one host in lower case (B027).
        "https://App.Example.com/cb": ("app.example.com", "https://app.example.com"),
        "https://app.example:443/cb": ("app.example", "https://app.example"),
        "https://[2001:DB8::1]/cb": ("[2001:db8::1]", "https://[2001:db8::1]"),
        "https://a_b.example/cb": ("a_b.example", "https://a_b.example"),
        "https://app.example": ("app.example", "https://app.example"),
        "http://localhost:40123": ("localhost", "http://localhost"),
        "https://localhost:5001/cb": ("localhost", "https://localhost"),
        # The application's name, never what it has in the place of a host (C-16).
        "com.example.app://accounts.example/cb": ("com.example.app", None),
        CURSOR: ("cursor", None),
    }
    for uri, (host, origin) in told.items():
        assert (uris.display_host(uri), uris.origin(uri)) == (host, origin)


@pytest.mark.parametrize(
    ("uri", "target"),
    [
        ("https://App.example/cb?x=y", "https://app.example"),
        ("https://app.example:8443/cb", "https://app.example:8443"),
        ("http://127.0.0.1:3000/cb", "http://127.0.0.1:3000"),
        ("http://localhost/cb", "http://localhost"),
        ("com.example.app:/cb", "'none'"),
        ("https://app.example; script-src *", "'none'"),
    ],
)
def test_a_form_may_go_to_one_origin_with_its_port(uri: str, target: str) -> None:
    """OIDC-54: also on loopback, where a redirect may go to any port."""
    assert uris.form_target(uri) == target


def test_a_loopback_address_is_accepted_on_the_default_port() -> None:
    """T015: the same as on every other port."""
    assert uris.same_loopback_redirect_uri("http://localhost/cb", "http://localhost:80/cb", HOSTS)


def test_an_origin_header_is_read_like_a_uri() -> None:
    assert uris.origin("http://localhost:5173") == "http://localhost"
    assert uris.origin("https://app.example:443") == "https://app.example"
    assert uris.origin("null") is None
    assert uris.origin("https://app.example, https://evil.example") is None


def test_https_and_loopback_are_told_by_the_whole_uri() -> None:
    """C-07"""
    assert uris.is_remote_https("https://app.example/cb")
    assert not uris.is_remote_https("http://localhost/cb")
    assert not uris.is_remote_https("https://app.example\\@evil.example/cb")
    for uri in ("http://127.0.0.1:3000/cb", "http://[::1]/cb", "http://localhost:65535/cb"):
        assert uris.is_loopback(uri)
    for uri in (
        "http://localhost.evil.example/cb",
        "http://localhost:1@evil.example/cb",
        "com.example.app:/cb",
    ):
        assert not uris.is_loopback(uri)


@pytest.mark.parametrize(
    ("uri", "canonical"),
    [
        ("https://api.example", "https://api.example/"),
        ("https://api.example/", "https://api.example/"),
        ("HTTPS://API.Example/Path", "https://api.example/Path"),
        ("https://api.example?X=1", "https://api.example/?X=1"),
        ("https://api.example:443/a/", "https://api.example:443/a/"),
        ("https://[2001:DB8::1]:8443", "https://[2001:db8::1]:8443/"),
        ("urn:example:API", "urn:example:API"),
        ("api://0f1e/x", "api://0f1e/x"),
    ],
)
def test_a_resource_has_a_form_for_comparing(uri: str, canonical: str) -> None:
    """O-02, O-09"""
    assert uris.canonical_resource(uri) == canonical
    assert uris.canonical_resource(canonical) == canonical


@pytest.mark.parametrize(
    "uri",
    ["", "api", "/api", "//api.example", "https:", "https:/api", "https:api.example", "https://", "https:///a",
     "https://api.example#", "https://api.example/#x", "https://u@api.example/", "https://api.example/ x",
     "https://api.example/é", "https://api.example/%zz", "https://api.example\\x", "https://api.example/\n",
     "https://api.example:99x/", "urn:a#b", "https://api.example/" + "a" * 2048],
)  # fmt: skip
def test_a_resource_that_is_not_absolute_or_has_a_fragment_is_refused(uri: str) -> None:
    """O-02"""
    with pytest.raises(InvalidTarget):
        uris.canonical_resource(uri)


def test_the_query_that_a_redirect_uri_has_is_kept() -> None:
    """B-14"""
    answer = [("code", "a b&c"), ("state", "æ=%")]
    encoded = "code=a%20b%26c&state=%C3%A6%3D%25"
    assert uris.with_query("https://app.example/cb", answer) == f"https://app.example/cb?{encoded}"
    assert (
        uris.with_query("https://app.example/cb?x=%2F", answer) == f"https://app.example/cb?x=%2F&{encoded}"
    )
    assert uris.with_query("com.example.app:/cb", answer) == f"com.example.app:/cb?{encoded}"
    assert uris.with_query("https://app.example/cb?", answer) == f"https://app.example/cb?{encoded}"
    assert uris.with_query("http://localhost:40123", answer) == f"http://localhost:40123?{encoded}"
    assert uris.with_query(CURSOR, answer) == f"{CURSOR}?{encoded}"
    assert uris.with_query("https://app.example/cb", []) == "https://app.example/cb"


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(GOOD), st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_state_comes_back_exactly_and_cannot_leave_its_place(uri: str, state: str) -> None:
    """B-13, B-14"""
    answered = uris.with_query(uri, [("state", state)])
    assert answered.startswith(uri)
    assert re.fullmatch(r"[\x21-\x7E]+", answered)
    assert "#" not in answered
    assert parse_qsl(answered.partition("?")[2], keep_blank_values=True)[-1] == ("state", state)


@pytest.mark.parametrize(
    "uri",
    ["javascript:alert(1)", "data:text/html,x", "JAVASCRIPT://app.example/%0aalert(1)", "http://app.example/",
     "http://localhost/", "//app.example/", "/terms", "https://", "https://u@app.example/", "https://app.example/ x",
     "https://app.example/'onclick='x", 'https://app.example/"x', "https://app.example/<x", "https://app.example\\x",
     "https://app.example/../x", "https://app.example/#x", "com.example.app:/terms", "", "https://evil。example/"],
)  # fmt: skip
def test_a_link_is_https_in_the_same_grammar(uri: str) -> None:
    """T095, K-13"""
    assert uris.link_problem(uri)


@pytest.mark.parametrize(
    "uri", ["https://app.example", "https://app.example/terms?lang=nb", "https://app.example:8443/"]
)
def test_an_ordinary_link_is_allowed(uri: str) -> None:
    """K-13"""
    assert uris.link_problem(uri) is None


# ---- Origins ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example",
        "https://app.example:8443",
        "https://xn--bcher-kva.example",
        "https://[2001:db8::1]:8443",
        "http://localhost:3000",
        "http://127.0.0.1",
        "http://[::1]:5173",
        "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
        "moz-extension://0d5e8b1c-6f4e-4e0f-9a6c-2b6b6f7b1a55",
        "safari-web-extension://1B2C3D4E-5F60-7182-93A4-B5C6D7E8F901",
        "capacitor://localhost",
        "ionic://localhost",
        "tauri://localhost",
        "app://obsidian.md",
        "vscode-webview://1nbdsrqr6vlq7e2b",
        "https://" + "a" * 63 + "." + "b" * 63 + "." + "c" * 63 + "." + "d" * 61,
    ],
)
def test_what_browsers_send_as_origins(origin: str) -> None:
    """T085; RFC 6454, 6.1."""
    assert uris.origin_problem(origin) is None


@pytest.mark.parametrize(
    ("origin", "problem"),
    [
        ("*", "every page of the web"),
        ("null", "names nobody"),
        ("", "scheme, :// and a host"),
        ("app.example", "scheme, :// and a host"),
        ("https://", "scheme, :// and a host"),
        ("https://*.example", "scheme, :// and a host"),
        ("https://app.example/", "as browsers send it"),
        ("https://app.example/cb", "as browsers send it"),
        ("https://app.example?x", "as browsers send it"),
        ("https://app.example#x", "scheme, :// and a host"),
        ("https://ann@app.example", "scheme, :// and a host"),
        ("https://App.example", "as browsers send it"),
        ("HTTPS://app.example", "scheme, :// and a host"),
        ("https://app.example:443", "as browsers send it"),
        ("http://localhost:80", "as browsers send it"),
        ("https://app.example:0", "scheme, :// and a host"),
        ("https://app.example:65536", "scheme, :// and a host"),
        ("https://b\u00fccher.example", "scheme, :// and a host"),
        ("https://app.example https://other.example", "scheme, :// and a host"),
        ("https://app.example\n", "scheme, :// and a host"),
        ("http://app.example", "must use https"),
        ("http://127.0.0.2", "must use https"),
        ("file://", "handle themselves"),
        ("file:///home/ann", "handle themselves"),
        ("data://x", "handle themselves"),
        ("chrome-extension://", "scheme, :// and a host"),
        ("chrome-extension://*", "scheme, :// and a host"),
        ("chrome-extension://abc/popup.html", "scheme, :// and a host"),
        ("Capacitor://localhost", "scheme, :// and a host"),
        ("capacitor:/localhost", "scheme, :// and a host"),
        ("app://" + "a" * 295, "longer than 300 characters"),
    ],
)
def test_what_is_no_origin(origin: str, problem: str) -> None:
    """T085: with a sentence for the operator."""
    assert problem in str(uris.origin_problem(origin))


@given(ASSEMBLED)
def test_an_origin_that_is_accepted_names_one_place(text: str) -> None:
    """Whatever is strung together: no path, user, wildcard or white space is left."""
    if uris.origin_problem(text) is None:
        scheme, separator, rest = text.partition("://")
        assert separator
        assert re.fullmatch(r"[A-Za-z0-9._\[\]:-]+", rest)
        assert scheme == scheme.lower()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8080", "[::1]"])
def test_a_document_is_fetched_by_https_or_from_this_machine(host: str) -> None:
    """Whether anything is fetched from this machine, a setting says."""
    assert uris.fetched_problem(f"http://{host}/client.json") is None
    assert uris.fetched_problem(f"https://{host}/client.json") is None
    assert uris.fetched_problem("https://client.example/client.json") is None
    for uri in ("http://client.example/client.json", f"ftp://{host}/client.json", f"http://{host}.example/x"):
        assert uris.fetched_problem(uri) == "It must be a complete https URI with a valid host."
