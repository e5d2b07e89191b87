"""The headers of every page, redirect and error that a browser may see."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from webtest import TestRequest, TestResponse

from authserver.testing.server import ISSUER, Server
from authserver.testing.stories import register, sign_in_at, signed_in


def everything(server: Server) -> Iterator[tuple[str, TestResponse]]:
    """One answer of each kind, by name."""
    client, _ = server.add_client()
    browser = server.browser()
    url = server.authorization_url(client)
    begun = browser.get(url)
    yield "to sign-in", begun
    yield "sign-in", begun.follow()
    yield "sign-in failed", sign_in_at(begun.follow(), password="wrong password")
    answer = sign_in_at(begun.follow())
    yield "signed in", answer
    page = answer.follow()
    yield "consent", page
    yield "consent, nothing ticked", server.consent(page, scopes=[])
    yield "to the client", server.consent(page)
    yield "answered twice", server.consent(page, "deny")
    yield "error to the client", browser.get(server.authorization_url(client, scope="nope"))
    yield "unknown client", browser.get(server.authorization_url(client, client_id="nobody"), status="*")
    yield "leave", browser.get(server.authorization_url(register(server), scope="nope"))
    yield "home", browser.get(server.path("/"))
    yield "forged form", browser.post(server.path("/logout"), {"x": "y"}, status="*")
    yield "not found", browser.get(server.path("/nowhere"), status="*")
    yield "method", browser.delete(server.path("/login"), status="*")
    yield "too large", browser.post(server.path("/login"), {"x": "y" * 70_000}, status="*")
    yield "sign-out", browser.get(server.path("/logout"))
    yield "signed out", browser.get(server.path("/logout")).forms[0].submit()


STATUSES = {
    "to sign-in": 303,
    "sign-in": 200,
    "sign-in failed": 400,
    "signed in": 303,
    "consent": 200,
    "consent, nothing ticked": 400,
    "to the client": 303,
    "answered twice": 400,
    "error to the client": 303,
    "unknown client": 400,
    "leave": 200,
    "home": 200,
    "forged form": 403,
    "not found": 404,
    "method": 405,
    "too large": 413,
    "sign-out": 200,
    "signed out": 200,
}


@pytest.fixture
def answers(server: Server) -> dict[str, TestResponse]:
    return dict(everything(server))


def test_no_redirect_repeats_a_post(answers: dict[str, TestResponse]) -> None:
    """B-18, T019: 303 and never 307 or 308, on the way to pages of ours and to the client."""
    assert {name: answer.status_int for name, answer in answers.items()} == STATUSES


def test_no_page_can_be_framed(answers: dict[str, TestResponse]) -> None:
    """E-06, T093: `frame-ancestors 'none'` and `X-Frame-Options: DENY` on every one, errors included."""
    for name, answer in answers.items():
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"].split("; "), name
        assert answer.headers["X-Frame-Options"] == "DENY", name


# The one file that shows a typed password, on the one page that asks for it.
SCRIPTS = dict.fromkeys(("sign-in", "sign-in failed"), "https://as.example/static/show-password.js")


def test_no_page_runs_another_script_or_loads_from_elsewhere(answers: dict[str, TestResponse]) -> None:
    """Q-06, Q-07, T026, T094: nothing but our own style and images, nothing inline, no base."""
    for name, answer in answers.items():
        policy = dict(
            part.partition(" ")[::2] for part in answer.headers["Content-Security-Policy"].split("; ")
        )
        assert policy["default-src"] == "'none'", name
        assert policy["style-src"] == policy["img-src"] == "'self'", name
        assert policy["base-uri"] == "'none'", name
        assert policy.get("script-src") == SCRIPTS.get(name), name
        assert "unsafe" not in answer.headers["Content-Security-Policy"], name
        if answer.status_int == 303:
            continue
        scripts = [tag["src"].partition("?")[0] for tag in answer.html.find_all("script")]
        assert scripts == ([SCRIPTS[name]] if name in SCRIPTS else []), name
        for tag in answer.html.find_all(["link", "img", "iframe", "style"]):
            assert tag.name == "link" and tag["href"].startswith("https://as.example/static/"), name
        assert not [tag for tag in answer.html.find_all(True) if tag.has_attr("style")], name


def test_nothing_leaks_by_referrer_or_cache(answers: dict[str, TestResponse]) -> None:
    """T026, Q-05, Q-06: `no-referrer` and `no-store` on pages and redirects alike."""
    for name, answer in answers.items():
        assert answer.headers["Referrer-Policy"] == "no-referrer", name
        assert answer.headers["Cache-Control"] == "no-store", name


def test_types_are_not_guessed_and_https_stays(answers: dict[str, TestResponse]) -> None:
    """Q-08: nosniff and HSTS."""
    for name, answer in answers.items():
        assert answer.headers["X-Content-Type-Options"] == "nosniff", name
        assert "max-age=" in answer.headers["Strict-Transport-Security"], name


def test_no_page_answers_another_origin(server: Server) -> None:
    """B-21, T085: whatever asks, login, consent, logout and home send no CORS header."""
    browser = signed_in(server)
    for path in ("/", "/login", "/logout", "/oauth/consent", "/oauth/authorize"):
        for method in (browser.get, browser.options):
            answer = method(server.path(path), headers={"Origin": "https://client.example"}, status="*")
            assert not [name for name in answer.headers if name.lower().startswith("access-control")], path


@pytest.mark.parametrize("path", ["/\xff", "/oauth/authorize\xff", "/\xed\xa0\x80", "/a\x00b"])
def test_a_path_that_is_no_text_is_not_found(server: Server, path: str) -> None:
    """T015: 404, and not a failure; the path is given as a server hands it over, byte for character."""
    environ = TestRequest.blank(f"{ISSUER}/").environ | {"PATH_INFO": path}
    started: list[str] = []
    body = b"".join(server.wsgi(environ, lambda status, headers: started.append(status)))
    assert started == ["404 Not Found"]
    assert b"not found" in body.lower()
