"""Redirect URIs: which may be registered, and which request is answered at which of them."""

from __future__ import annotations

import pytest

from authserver.engine.authorize import AskConsent
from authserver.testing.rules import (
    STRANGER,
    Rules,
    assert_code,
    assert_page_error,
    assert_redirect_error,
    assert_refused,
)
from authserver.testing.server import REDIRECT_URI, with_plugin
from authserver.testing.stories import records

NOT_REGISTRABLE = {
    "relative (C-01)": "/cb",
    "without a host (C-01, T007)": "https:///cb",
    "without slashes (C-01)": "https:client.example/cb",
    "empty (C-01)": "",
    "wildcard host (C-03, T005)": "https://*.client.example/cb",
    "wildcard path (C-03, T005)": "https://client.example/*",
    "placeholder of the host (T170)": "https://{tenant}.example/cb",
    "placeholder of the path (T170)": "https://client.example/${x}",
    "placeholder of the query (T170)": "https://client.example/cb?at={{x}}",
    "http (C-08)": "http://client.example/cb",
    "http with a loopback look-alike (C-07, C-08)": "http://127.0.0.1.evil.example/cb",
    "http with a localhost look-alike (C-07, C-08)": "http://localhost.evil.example/cb",
    "http with another 127 address (C-08)": "http://127.0.0.2/cb",
    "http with a hexadecimal address (C-08)": "http://0x7f000001/cb",
    "http with a mapped address (C-08)": "http://[::ffff:127.0.0.1]/cb",
    "fragment (C-09, T004)": "https://client.example/cb#x",
    "empty fragment (C-09, T004)": "https://client.example/cb#",
    "javascript (C-10, T009)": "javascript:alert(1)",
    "javascript in mixed case (T009)": "jAvAsCrIpT:alert(1)",
    "javascript with a tab (T009)": "java\tscript:alert(1)",
    "data (C-10, T009)": "data:text/html,<script>alert(1)</script>",
    "vbscript (C-10, T009)": "vbscript:msgbox",
    "file (C-10, T009)": "file:///etc/passwd",
    "blob (C-10, T009)": "blob:https://client.example/1",
    "about (C-10)": "about:blank",
    "out of band (C-10)": "urn:ietf:wg:oauth:2.0:oob",
    "scheme without a period (C-11)": "myapp:/cb",
    "scheme without a period, two slashes (C-16)": "cursor://anysphere.cursor-mcp/oauth/callback",
    "javascript with two slashes (C-10)": "javascript://client.example/x",
    "private-use with three slashes (T010)": "com.example.app:///cb",
    "private-use without a slash (T010)": "com.example.app:cb",
    "userinfo (C-12, T004)": "https://user:pw@client.example/cb",
    "userinfo that looks like a host (C-12, T007)": "https://good.example@evil.example/cb",
    "backslash (C-12, T007)": "https://evil.example\\.good.example/cb",
    "backslash before userinfo (T007)": "https://good.example\\@evil.example/cb",
    "space (C-12, T006)": "https://client.example/c b",
    "leading space (C-12, T007)": " https://client.example/cb",
    "line break (C-12, T006)": "https://client.example/cb\r\nX: y",
    "control character (C-12, T006)": "https://client.example/\x01cb",
    "dot segment (C-12, T006)": "https://client.example/a/../cb",
    "encoded dot segment (C-12, T006)": "https://client.example/%2e%2e/cb",
    "doubly encoded dot segment (T006)": "https://client.example/%252e%252e/cb",
    "bad escape (T006)": "https://client.example/%zz",
    "beyond ASCII (T006)": "https://client.example/ü",
    "beyond ASCII in the host (T006)": "https://clíent.example/cb",
    "address in upper case (T007)": "http://0X7F.0.0.1/cb",
    "port out of range": "https://client.example:65536/cb",
    "semicolon (T004)": "https://client.example/cb;x=y",
    "response parameter in the query (B-15, C-17)": "https://client.example/cb?code=1",
    "too long": "https://client.example/" + "a" * 2048,
}


@pytest.mark.parametrize("uri", NOT_REGISTRABLE.values(), ids=NOT_REGISTRABLE)
def test_a_uri_that_cannot_be_trusted_is_not_registered(rules: Rules, uri: str) -> None:
    """T170, C-01, C-03, C-07, C-08, C-09, C-10, C-11, C-12, T004, T005, T006, T007, T009, T010: and nothing is stored."""
    before = records(rules)
    body = {"redirect_uris": [uri], "token_endpoint_auth_method": "none"}
    answer = rules.register(body)
    assert_refused(answer, "invalid_redirect_uri")
    assert records(rules) == before


@pytest.mark.parametrize("uri", NOT_REGISTRABLE.values(), ids=NOT_REGISTRABLE)
def test_a_uri_that_cannot_be_trusted_is_never_redirected_to(rules: Rules, uri: str) -> None:
    """B-06, T001, T004, T006, T007, T009: the same grammar holds for the request; `redirect_uri=` is not sent."""
    client, _ = rules.add_client(redirect_uris=(REDIRECT_URI, "https://client.example/other"))
    browser = rules.signed_in()
    before = records(rules)
    answer = rules.authorize(client, browser, redirect_uri=uri)
    assert_page_error(answer, supplied=uri if len(uri) > 4 else "")
    assert records(rules) == before


ANOTHER = {
    "case of the path": "https://client.example/CB",
    "case of the host": "https://CLIENT.example/cb",
    "case of the scheme": "HTTPS://client.example/cb",
    "trailing slash": "https://client.example/cb/",
    "percent-encoding": "https://client.example/%63b",
    "default port": "https://client.example:443/cb",
    "another port": "https://client.example:8443/cb",
    "extra query": "https://client.example/cb?x=1",
    "empty query": "https://client.example/cb?",
    "fragment": "https://client.example/cb#f",
    "empty fragment (T004)": "https://client.example/cb#",
    "path parameter (T004)": "https://client.example/cb;x",
    "userinfo (T004)": "https://client.example@evil.example/cb",
    "subdomain (C-03)": "https://a.client.example/cb",
    "longer path (C-03)": "https://client.example/cb/evil",
    "shorter path (C-03)": "https://client.example/",
    "http": "http://client.example/cb",
    "dot for any character (T005)": "https://clientxexample/cb",
    "dot at the end of the host": "https://client.example./cb",
    "space at the end": "https://client.example/cb ",
}


@pytest.mark.parametrize("uri", ANOTHER.values(), ids=ANOTHER)
def test_comparison_is_equality_of_text(rules: Rules, uri: str) -> None:
    """C-02, C-03, B-06, T003, T004, T005: any difference gives a page, signed in or not."""
    client, _ = rules.add_client()
    for browser in (rules.signed_in(), STRANGER):
        before = records(rules)
        answer = rules.authorize(client, browser, redirect_uri=uri)
        assert_page_error(answer, supplied=uri)
        assert records(rules) == before


@pytest.mark.parametrize("query", ["b=2&a=1", "a=1&b=2&c=3", "a=1", "a=1&b=%32", "", "a=1&b=2&"])
def test_the_query_is_compared_whole(rules: Rules, query: str) -> None:
    """C-02, T003: extra, missing or reordered parameters are another URI."""
    client, _ = rules.add_client(redirect_uris=("https://client.example/cb?a=1&b=2",))
    assert_page_error(
        rules.authorize(client, rules.signed_in(), redirect_uri=f"https://client.example/cb?{query}")
    )


LOOPBACK = ("http://127.0.0.1/cb", "http://[::1]:8000/cb", "http://localhost:3000/cb?a=b")


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1/cb",
        "http://127.0.0.1:1/cb",
        "http://127.0.0.1:65535/cb",
        "http://[::1]/cb",
        "http://[::1]:49152/cb",
        "http://localhost:5173/cb?a=b",
        "http://localhost/cb?a=b",
    ],
)
def test_any_port_of_a_registered_loopback_host_is_accepted(rules: Rules, uri: str) -> None:
    """C-04, C-05, C-15, T008: and the answer goes to the port of the request."""
    client, _ = rules.add_client(redirect_uris=LOOPBACK, application_type="native")
    asked = rules.authorize(client, STRANGER, redirect_uri=uri)
    assert_code(rules.consent(rules.resume(asked, rules.signed_in())), redirect_uri=uri)


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1/CB",
        "http://127.0.0.1/cb?x",
        "https://127.0.0.1/cb",
        "http://127.0.0.1:0/cb",
        "http://127.0.0.1:65536/cb",
        "http://127.0.0.1:080/cb",
        "http://127.0.0.1:/cb",
        "http://127.0.0.1:１２/cb",
        "http://127.0.0.1:80:80/cb",
        "http://127.0.0.2/cb",
        "http://127.1/cb",
        "http://2130706433/cb",
        "http://[0:0:0:0:0:0:0:1]/cb",
        "http://[::1%25eth0]/cb",
        "http://localhost:3000/cb",
        "http://localhost./cb?a=b",
        "http://127.0.0.1.evil.example/cb",
        "http://localhost.evil.example/cb?a=b",
        "http://127.0.0.1@evil.example/cb",
        "http://127.0.0.1:80@evil.example/cb",
        "http://evil.example#@127.0.0.1/cb",
        "http://user@127.0.0.1/cb",
    ],
)
def test_nothing_but_the_port_of_a_loopback_uri_may_differ(rules: Rules, uri: str) -> None:
    """C-04, C-07, T008: host, path, query and scheme are those registered; look-alikes get no freedom."""
    client, _ = rules.add_client(redirect_uris=LOOPBACK, application_type="native")
    browser = rules.signed_in()
    before = records(rules)
    answer = rules.authorize(client, browser, redirect_uri=uri)
    assert_page_error(answer, supplied=uri)
    assert records(rules) == before


@pytest.mark.parametrize("registered", LOOPBACK)
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_the_loopback_hosts_are_three_different_ones(rules: Rules, registered: str, host: str) -> None:
    """C-06, T008: localhost is not 127.0.0.1, and neither is [::1]."""
    client, _ = rules.add_client(redirect_uris=(registered,), application_type="native")
    path = registered.partition("/cb")[2]
    answer = rules.authorize(client, rules.signed_in(), redirect_uri=f"http://{host}:7000/cb{path}")
    if host in registered:
        assert isinstance(answer, AskConsent)
    else:
        assert_page_error(answer)


@pytest.mark.parametrize("plugin_hosts", [None, "127.0.0.1 [::1]"])
def test_localhost_has_port_freedom_only_by_setting(make_rules, plugin_hosts: str | None) -> None:
    """C-05, T008: the shipped INI names it; a setting without it takes it away."""
    rules = make_rules({"authserver.plugin.redirect_loopback.hosts": plugin_hosts})
    rules.add_user("ann")
    client, _ = rules.add_client(redirect_uris=("http://localhost:3000/cb",), application_type="native")
    browser = rules.signed_in()
    assert_page_error(rules.authorize(client, browser, redirect_uri="http://localhost:3001/cb"))
    assert isinstance(rules.authorize(client, browser), AskConsent)


@pytest.mark.parametrize("value", [None, ""])
def test_the_only_registered_uri_may_be_left_out(rules: Rules, value: str | None) -> None:
    """C-13, B-03, T011: the answer goes to that one."""
    client, _ = rules.add_client()
    page = rules.authorize(client, rules.signed_in(), redirect_uri=value)
    assert_code(rules.consent(page))


@pytest.mark.parametrize("value", [None, "", [REDIRECT_URI, REDIRECT_URI]])
def test_one_of_several_uris_must_be_named_once(rules: Rules, value: object) -> None:
    """C-13, B-06, T011, T012: missing or repeated gives a page, never a guess."""
    client, _ = rules.add_client(redirect_uris=(REDIRECT_URI, "https://client.example/other"))
    answer = rules.authorize(client, rules.signed_in(), redirect_uri=value)
    assert_page_error(answer, supplied=REDIRECT_URI)


@pytest.mark.parametrize("value", [None, REDIRECT_URI])
def test_a_client_without_redirect_uris_gets_a_page(rules: Rules, value: str | None) -> None:
    """T011, B-06: none is registered, so there is nothing to redirect to."""
    client, _ = rules.add_client(grant_types=("client_credentials",))
    answer = rules.authorize(client, rules.signed_in(), redirect_uri=value)
    assert_page_error(answer, supplied=REDIRECT_URI)


def test_a_uri_of_another_client_gives_a_page(rules: Rules) -> None:
    """B-06, C-03: registered, but not by this one."""
    other, _ = rules.add_client(redirect_uris=("https://other.example/cb",))
    client, _ = rules.add_client()
    assert_page_error(
        rules.authorize(client, rules.signed_in(), redirect_uri=other.redirect_uris[0]),
        supplied="https://other.example/cb",
    )


@pytest.mark.parametrize(
    "uri",
    [
        "com.example.app:/cb",
        "com.example.app:/cb?a=b",
        "com.example.app://host/cb",
        "https://x.example/",
        "https://x.example",
        "https://X.Example:443?a=b",
        "https://a_b.example/cb",
        "https://localhost:5001/signin-oidc",
    ],
)
def test_other_registrable_uris_are_answered_as_well(rules: Rules, uri: str) -> None:
    """B-14, C-11, B027, B204: the answer goes to the URI as it was written."""
    client, _ = rules.add_client(redirect_uris=(uri,), application_type="native")
    browser = rules.signed_in()
    assert_code(rules.consent(rules.authorize(client, browser)), redirect_uri=uri)
    wrong = rules.authorize(client, browser, scope="nope")
    assert_redirect_error(wrong, "invalid_scope", redirect_uri=uri)


@pytest.mark.parametrize(
    ("registered", "requested"),
    [
        ("https://App.Example.com/cb", "https://app.example.com/cb"),
        ("https://server.example:443/cb", "https://server.example/cb"),
        ("https://client.example", "https://client.example/"),
        ("http://localhost", "http://localhost/"),
        ("http://localhost", "http://localhost:40123/"),
        ("http://localhost", "http://localhost:40123.evil.example"),
        ("http://localhost", "http://localhost.evil.example"),
        ("http://localhost", "http://LOCALHOST:40123"),
        ("com.example.app://cb", "com.example.app:/cb"),
        ("com.example.app://cb", "com.example.app://evil"),
    ],
)
def test_a_tolerated_spelling_is_no_other_spelling(rules: Rules, registered: str, requested: str) -> None:
    """C-02, B010, B027, T010: what is registered as written is compared as written."""
    client = rules.self_registered(redirect_uris=[registered])
    answer = rules.authorize(client, rules.signed_in(), redirect_uri=requested)
    assert_page_error(answer)


CURSOR = "cursor://anysphere.cursor-mcp/oauth/callback"


@pytest.fixture
def with_preset(make_rules) -> Rules:
    rules = make_rules(with_plugin("mcp_clients", {}))
    rules.add_user("ann")
    return rules


@pytest.mark.parametrize("first_party", [True, False])
def test_a_private_use_uri_is_never_answered_silently(with_preset: Rules, first_party: bool) -> None:
    """C-16, E-12, T088: any program may have taken the scheme, whoever registered the client."""
    client, _ = with_preset.add_client(
        redirect_uris=(CURSOR,), application_type="native", first_party=first_party
    )
    browser = with_preset.signed_in()
    for _ in range(2):
        page = with_preset.authorize(client, browser)
        assert_code(with_preset.consent(page), redirect_uri=CURSOR)


def test_https_on_this_device_is_never_answered_silently(rules: Rules) -> None:
    """B204, E-12, T088: any program may listen there."""
    client, _ = rules.add_client(
        redirect_uris=("https://localhost:5001/cb",), application_type="native", first_party=True
    )
    assert isinstance(rules.authorize(client, rules.signed_in()), AskConsent)


@pytest.mark.parametrize(
    "uri",
    [
        "cursor://evil.example/oauth/callback",
        "cursor://anysphere.cursor-mcp/oauth/callback/",
        "cursor://anysphere.cursor-mcp/oauth/callback?x=1",
        "cursor://anysphere.cursor-mcp/oauth/callback#",
        "cursor://user@anysphere.cursor-mcp/oauth/callback",
        "cursor:/anysphere.cursor-mcp/oauth/callback",
        "cursorx://anysphere.cursor-mcp/oauth/callback",
        "CURSOR://anysphere.cursor-mcp/oauth/callback",
        "javascript://anysphere.cursor-mcp/oauth/callback",
    ],
)
def test_nothing_that_resembles_an_allowed_uri_is_accepted(with_preset: Rules, uri: str) -> None:
    """C-11, C-16: neither at registration nor at the authorization endpoint."""
    answer = with_preset.register({"redirect_uris": [uri]})
    assert_refused(answer, "invalid_redirect_uri")
    client = with_preset.self_registered(redirect_uris=[CURSOR])
    asked = with_preset.authorize(client, with_preset.signed_in(), redirect_uri=uri)
    assert_page_error(asked, supplied=uri)
