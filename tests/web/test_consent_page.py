"""What the consent page tells, and what the other side cannot make it tell."""

from __future__ import annotations

import json
import re

import pytest
import sqlalchemy as sa
from webtest import TestResponse

from authserver.engine.records import Client
from authserver.testing.server import REDIRECT_URI, Server
from authserver.testing.stories import assert_code, register, sign_in_at, signed_in


def consent_page(server: Server, client: Client, **changes: str) -> TestResponse:
    page = signed_in(server).get(server.authorization_url(client, **changes))
    assert page.status_int == 200
    return page


def test_the_page_says_who_where_and_what(server: Server) -> None:
    """E-08: client name, host of the redirect URI, each scope in words, the resource, and who registered it."""
    client, _ = server.add_client(client_name="Reports")
    page = consent_page(server, client, scope="profile files.read")
    assert page.html.time["datetime"] == client.created_at.date().isoformat()
    text = page.html.get_text(" ", strip=True)
    for fact in (
        "Reports",
        "client.example",
        "See your name",
        "Read your files",
        "https://api.example/",
        "Registered by the operator of authserver",
        str(client.created_at.year),
        "Ann",
    ):
        assert fact in text
    assert "Change your files" not in text


def test_scopes_can_be_unticked_and_both_answers_are_buttons(server: Server) -> None:
    """E-08, E-14: every scope has a labelled tick; Allow and Deny look alike, and Enter never allows."""
    page = consent_page(server, server.add_client()[0], scope="profile files.read")
    boxes = page.html.find_all("input", attrs={"name": "scope"})
    assert [box["value"] for box in boxes] == ["profile", "files.read"]
    assert all(page.html.find("label", attrs={"for": box["id"]}) for box in boxes)
    buttons = [button for button in page.html.find_all("button") if button["value"] in ("allow", "deny")]
    assert [button["value"] for button in buttons] == ["deny", "allow"]
    assert buttons[0]["class"] == buttons[1]["class"]


def test_a_client_that_registered_itself_is_marked(server: Server) -> None:
    """E-09, T097: unverified, its name in quotes, when it registered, and a confirmation to tick."""
    page = consent_page(server, register(server, client_name="Claude (claude.ai)"))
    assert "calls itself “<bdi>Claude (claude.ai)</bdi>”" in page.text
    assert "Unverified" in page.text
    assert "It registered itself on" in page.text
    box = page.html.find("input", attrs={"name": "confirm_unverified"})
    assert box.has_attr("required")
    assert not box.has_attr("checked")


def test_a_client_of_the_operator_needs_no_confirmation(server: Server) -> None:
    """E-09: the mark is for strangers only."""
    page = consent_page(server, server.add_client()[0])
    assert "Unverified" not in page.text
    assert page.html.find("input", attrs={"name": "confirm_unverified"}) is None


def test_the_real_host_comes_before_the_claimed_name(server: Server) -> None:
    """T097: in our own words, and first."""
    client = register(server, client_name="claude.ai", redirect_uris=["https://evil.example/cb"])
    text = consent_page(server, client).html.find("main").get_text(" ", strip=True)
    assert text.index("access goes to evil.example") < text.index("claude.ai")


@pytest.mark.parametrize(
    ("uri", "warning"),
    [
        ("http://127.0.0.1:8000/cb", "Any program on this computer could be asking"),
        ("http://localhost:8000/cb", "Any program on this computer could be asking"),
        ("http://[::1]:8000/cb", "Any program on this computer could be asking"),
        ("com.example.app:/cb", "Another app on this device could answer"),
        ("https://client.example/cb", None),
    ],
)
def test_a_local_destination_adds_a_warning(server: Server, uri: str, warning: str | None) -> None:
    """E-10: another local program could be asking."""
    client, _ = server.add_client(redirect_uris=(uri,), application_type="native")
    page = consent_page(server, client)
    assert (warning or "could be asking") in page.text or warning is None
    assert ("could be asking" in page.text or "could answer" in page.text) == (warning is not None)


def test_a_form_goes_nowhere_but_to_us_in_a_browser(server: Server) -> None:
    """Q-07, B048: whatever the client's address; the answer to the form is a page that goes on by itself."""
    client, _ = server.add_client(redirect_uris=("com.example.app:/cb",), application_type="native")
    browser = server.browser()
    browser.extra_environ["HTTP_SEC_FETCH_DEST"] = "document"
    login = browser.get(server.authorization_url(client)).follow()
    page = sign_in_at(login).follow()
    for answer in (login, page):
        policy = answer.headers["Content-Security-Policy"].split("; ")
        assert "form-action 'self'" in policy
        assert "default-src 'none'" in policy
    for answer in ("allow", "allow"):
        onward = server.consent(page, answer)
        assert (onward.status_int, onward.headers["Cache-Control"]) == (200, "no-store")
        (link,) = [tag["href"] for tag in onward.html.find("main").find_all("a")]
        assert link.startswith("com.example.app:/cb?code=as_code_")
        (refresh,) = onward.html.find_all("meta", attrs={"http-equiv": "refresh"})
        assert refresh["content"] == f"0; url={link}"


@pytest.mark.parametrize("uri", ["https://client.example/cb?x=1", "https://client.example:8443/cb"])
def test_a_program_gets_a_redirect_and_a_policy_that_is_not_in_its_way(server: Server, uri: str) -> None:
    """Q-07, B-18, B048: so does a browser that says nothing about itself; `form-action` would hold its redirects."""
    client, _ = server.add_client(redirect_uris=(uri,))
    login = server.browser().get(server.authorization_url(client)).follow()
    page = consent_page(server, client)
    for answer in (login, page):
        assert "form-action" not in answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert_code(server.consent(page), redirect_uri=uri)
    assert "form-action 'self'" in server.browser().get("/login").headers["Content-Security-Policy"]


@pytest.mark.parametrize("what", ["deny", "remembered", "error"])
def test_every_way_from_a_form_to_the_client_is_a_page(server: Server, what: str) -> None:
    """Q-07, B048: Deny, a sign-in that leads straight on, and an error that shows after it; other answers redirect."""
    client, _ = server.add_client()
    server.code(client)
    browser = server.browser()
    browser.extra_environ["HTTP_SEC_FETCH_DEST"] = "document"
    changes = {"deny": {"scope": "profile files.read"}, "remembered": {}, "error": {"scope": "nope"}}[what]
    url = server.authorization_url(client, **changes)
    answer = sign_in_at(browser.get(url).follow()).follow()
    if what == "deny":
        answer = server.consent(answer, "deny")
    expected = {"deny": "error=access_denied", "remembered": "code=as_code_", "error": "error=invalid_scope"}[
        what
    ]
    (link,) = [tag["href"] for tag in answer.html.find("main").find_all("a")]
    assert answer.status_int == 200 and link.startswith(f"{REDIRECT_URI}?{expected}")
    straight = browser.get(url)
    assert straight.status_int == (200 if what == "deny" else 303)


NAMES = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "{{ 7*7 }}{% raw %}",
    "</bdi></p></main><h1>Verified by authserver",
    "%(name)s %s",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("by_itself", [True, False])
def test_a_name_is_text(server: Server, name: str, by_itself: bool) -> None:
    """E-11, T094: markup in it is shown, not obeyed, on sign-in and consent."""
    client = register(server, client_name=name) if by_itself else server.add_client(client_name=name)[0]
    for page in (
        server.browser().get(server.authorization_url(client)).follow(),
        consent_page(server, client),
    ):
        assert name in page.html.find("main").get_text()
        assert len(page.html.find_all("h1")) == 1
        assert not page.html.find("main").find_all(["script", "img"])
        assert all(script["src"].startswith("https://as.example/") for script in page.html.find_all("script"))
        assert not [tag for tag in page.html.find_all(True) if tag.has_attr("onmouseover")]


@pytest.mark.parametrize(
    "name",
    [
        "Notes \u2764\ufe0f",
        "Dev \U0001f469\u200d\U0001f4bb",
        "\u0645\u06cc\u200c\u0646\u0648\u06cc\u0633\u0645",
        "\u0915\u094d\u200d\u0937",
    ],
    ids=ascii,
)
def test_a_name_with_joiners_in_their_context_is_shown_as_sent(server: Server, name: str) -> None:
    """B020, E-11; RFC 5892, A.1 and A.2."""
    body = {"client_name": name, "redirect_uris": [REDIRECT_URI]}
    assert server.http.post_json(server.path("/oauth/register"), body, status=201).json["client_name"] == name
    client = register(server, client_name=name)
    for page in (
        server.browser().get(server.authorization_url(client)).follow(),
        consent_page(server, client),
    ):
        assert f"<bdi>{name}</bdi>" in page.text


HIDDEN = [
    *("a\u202eb", "a\u200bb", "a\x00b", "a\x1bb", "a\u2066b", "a\ufeffb", "a\nb", "x" * 101),
    *("a\u200db", "a\u200cb", "a\ufe0fb", "\u200d", "\ufe0f", "\U0001f469\u200d", "1\ufe0f", "\u3164"),
]


@pytest.mark.parametrize("name", HIDDEN)
def test_a_name_that_hides_something_is_not_registered(server: Server, name: str) -> None:
    """T094, E-11: control, bidi and format characters, and more than a hundred characters."""
    body = {"client_name": name, "redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": "none"}
    answer = server.http.post_json(server.path("/oauth/register"), body, status=400)
    assert answer.json["error"] == "invalid_client_metadata"
    assert server.rows("clients") == []


def change_client(server: Server, **columns: str) -> None:
    """As if an older version, or an operator's hand, had stored it."""
    with server.application.storage.engine.begin() as connection:
        for column, value in columns.items():
            connection.execute(sa.text(f"UPDATE clients SET {column} = :value"), {"value": value})


def test_a_stored_name_is_cut(server: Server) -> None:
    """T094: 100 characters are shown, however long it is."""
    client, _ = server.add_client()
    change_client(server, name="n" * 5000)
    for page in (
        server.browser().get(server.authorization_url(client)).follow(),
        consent_page(server, client),
    ):
        assert max(map(len, re.findall("n+", page.html.get_text()))) <= 100


def test_good_links_are_rendered_carefully(server: Server) -> None:
    """E-11, T095: https only, with noopener noreferrer nofollow; a logo comes from us or not at all."""
    client = register(
        server,
        client_uri="https://client.example/about",
        policy_uri="https://client.example/privacy",
        tos_uri="https://client.example/terms?a=1&b=2",
        logo_uri="https://client.example/logo.png",
    )
    page = consent_page(server, client)
    links = [link for link in page.html.find_all("a") if "client.example" in link["href"]]
    assert [link["href"] for link in links] == [
        "https://client.example/about",
        "https://client.example/privacy",
        "https://client.example/terms?a=1&b=2",
    ]
    assert all(link["rel"] == ["noopener", "noreferrer", "nofollow"] for link in links)
    assert "logo.png" not in page.text


BAD_LINKS = [
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    "data:text/html,x",
    "http://client.example/",
    "//client.example/",
    "https://good.example\\@evil.example/",
    'https://client.example/"onclick=x',
    "",
]


@pytest.mark.parametrize("link", BAD_LINKS)
def test_a_bad_link_is_not_rendered_even_if_it_was_stored(server: Server, link: str) -> None:
    """T095, E-11: autoescape would not help against `javascript:`."""
    client, _ = server.add_client()
    change_client(
        server,
        details=json.dumps({"client_uri": link, "policy_uri": link, "tos_uri": link, "logo_uri": link}),
    )
    page = consent_page(server, client)
    hrefs = [tag["href"] for tag in page.html.find_all("a")]
    assert all(href.startswith(("https://as.example/", "#")) for href in hrefs)


@pytest.mark.parametrize("link", [link for link in BAD_LINKS if link])
@pytest.mark.parametrize("member", ["client_uri", "logo_uri", "tos_uri", "policy_uri", "tos_uri#fr"])
def test_a_bad_link_is_not_registered(server: Server, member: str, link: str) -> None:
    """T095: refused where it comes in, too."""
    body = {member: link, "redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": "none"}
    answer = server.http.post_json(server.path("/oauth/register"), body, status=400)
    assert answer.json["error"] == "invalid_client_metadata"


def test_the_display_name_of_a_user_is_text(server: Server) -> None:
    """T094: on every page that greets somebody."""
    with server.application.storage.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE users SET display_name = '<script>alert(1)</script>'")
    browser = signed_in(server)
    for path in (server.authorization_url(server.add_client()[0]), "/", "/logout"):
        page = browser.get(path)
        assert "<script" not in page.text
        assert "&lt;script&gt;" in page.text
