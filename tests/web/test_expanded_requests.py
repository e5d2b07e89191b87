"""Authorization requests that refer to others: read by a plugin, or refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import ClassVar
from urllib.parse import urlsplit

import pytest
import time_machine

from authserver.api import Engine, Expanded, InvalidRequest, OAuthError, Parameters, hookimpl
from authserver.testing.server import CHALLENGE, REDIRECT_URI, Server, form_with, with_plugin
from authserver.testing.stories import (
    assert_code,
    assert_page_error,
    assert_redirect_error,
    sign_in_at,
    signed_in,
    stored,
)

OTHER_URI = "https://other.example/cb"


class NoTemplate(OAuthError):
    """An error class of the plugin's own."""

    code = "invalid_request_uri"


@dataclass(frozen=True)
class Template:
    """Knows one request by name, and fails as a test wants."""

    immediate: ClassVar[bool] = True

    client_id: str = ""

    @hookimpl
    def expand_authorization_request(self, parameters: Parameters) -> Expanded | None:
        match parameters.get("request_template"):
            case None:
                return None
            case "fails":
                raise RuntimeError("lost")
            case "refuses":
                raise NoTemplate("There is no such template.", reason="template-unknown")
            case "wrong":
                return parameters  # what a plugin in error does
            case "long":
                text = f"client_id={self.client_id}&redirect_uri={REDIRECT_URI}&state=a&x="
                return Expanded(parameters=Parameters.parse(text + "y" * 8000 + "&z=" + "y" * 8000))
            case name:
                text = (
                    f"client_id={self.client_id}&redirect_uri={REDIRECT_URI}&response_type=code&state={name}"
                )
                text += f"&scope=profile&code_challenge={CHALLENGE}&code_challenge_method=S256"
                return Expanded(parameters=Parameters.parse(text))


class NotLikeThis(InvalidRequest):
    """A code of the plugin's own (RFC 9101, 7)."""

    code = "invalid_request_object"


@dataclass(frozen=True)
class Forbids:
    """Refuses every request, in whoever's words it comes."""

    immediate: ClassVar[bool] = True

    @hookimpl
    def expand_authorization_request(self, parameters: Parameters) -> Expanded:
        refusal = NotLikeThis("Not like this.", reason="not-like-this")
        return Expanded(parameters=parameters, refusal=refusal)


@dataclass(frozen=True)
class Keeper:
    """Keeps one request itself, so that its name alone travels; remembers when it was sent."""

    immediate: ClassVar[bool] = True
    asked: ClassVar[list[tuple[Parameters, datetime]]] = []
    kept: ClassVar[dict[str, str]] = {}

    @hookimpl
    def expand_authorization_request(self, engine: Engine, parameters: Parameters) -> Expanded:
        self.asked.append((parameters, engine.now))
        name = parameters.require("request_name")
        if name not in self.kept:
            raise NoTemplate("There is no such request.", reason="request-uri-unknown")
        return Expanded(
            parameters=Parameters.parse(self.kept[name]), reference=parameters.only("request_name")
        )


@pytest.fixture
def server(make_server: Callable[..., Server]) -> Server:
    server = make_server(with_plugin(Template, {"client_id": "notes"}))
    server.add_user("ann")
    server.add_client(client_id="notes")
    return server


def test_the_expanded_request_counts_in_place_of_what_was_sent(server: Server) -> None:
    """expand_authorization_request: through sign-in and consent; nothing of what was sent is left."""
    browser = server.browser()
    answer = browser.get("/oauth/authorize?request_template=a&scope=admin&state=sent&client_id=nobody")
    page = sign_in_at(answer.follow()).follow()
    assert [box._value for box in form_with(page, "scope").fields["scope"]] == ["profile"]
    assert_code(server.consent(page), state="a")


def test_other_requests_are_as_before(server: Server) -> None:
    with server.application.begin() as engine:
        client = engine.stores.clients.find("notes", engine.now)
    assert client
    assert_code(server.consent(signed_in(server).get(server.authorization_url(client))))


def test_an_expanded_request_too_long_to_carry_is_refused(server: Server) -> None:
    """T015, B-13: to the client that the plugin names, with the state that it gives."""
    answer = signed_in(server).get("/oauth/authorize?request_template=long")
    assert_redirect_error(answer, "invalid_request", state="a")
    assert server.events()[-1]["reason"] == "request-too-long"


def test_a_request_that_a_plugin_keeps_is_expanded_on_each_page(make_server: Callable[..., Server]) -> None:
    """expand_authorization_request: from its reference alone, as of when it was sent, however long it is."""
    server = make_server(with_plugin(Keeper, {}))
    server.add_user("ann")
    client, _ = server.add_client()
    request = urlsplit(server.authorization_url(client)).query
    Keeper.kept["long"] = f"{request}&x={'x' * 8000}&y={'y' * 8000}"
    browser = server.browser()
    with time_machine.travel(datetime.now(UTC), tick=False) as clock:
        Keeper.asked.clear()
        sent_at = datetime.now(UTC)
        to_login = browser.get("/oauth/authorize?request_name=long&scope=admin")
        assert len(to_login.location) < 500
        clock.shift(60)
        page = sign_in_at(to_login.follow()).follow()
        assert_code(server.consent(page))
    (first, _), *later = Keeper.asked
    assert "scope" in first and len(later) >= 3
    for parameters, asked_for in later:
        assert parameters == Parameters.parse("request_name=long")
        assert timedelta() <= sent_at - asked_for < timedelta(seconds=1)


def test_a_request_that_a_plugin_no_longer_keeps_is_a_page(make_server: Callable[..., Server]) -> None:
    """T001, R-14: on the page where it is missing, and nothing is issued."""
    server = make_server(with_plugin(Keeper, {}))
    server.add_user("ann")
    client, _ = server.add_client()
    Keeper.kept["short"] = urlsplit(server.authorization_url(client)).query
    page = signed_in(server).get("/oauth/authorize?request_name=short")
    del Keeper.kept["short"]
    before = stored(server)
    assert_page_error(server.consent(page), "invalid_request_uri")
    assert stored(server) == before


@pytest.mark.parametrize(
    ("name", "code", "status", "reason"),
    [
        ("fails", "server_error", 500, "plugin-raised"),
        ("wrong", "server_error", 500, "plugin-raised"),
        ("refuses", "invalid_request_uri", 400, "template-unknown"),
    ],
)
def test_a_failure_before_anything_is_known_is_a_page(
    server: Server, name: str, code: str, status: int, reason: str
) -> None:
    """R-14, T001: even with a good redirect URI beside it."""
    with server.application.begin() as engine:
        client = engine.stores.clients.find("notes", engine.now)
    assert client
    browser = signed_in(server)
    before = stored(server)
    answer = browser.get(server.authorization_url(client, request_template=name), expect_errors=True)
    assert_page_error(answer, code, status=status, supplied=REDIRECT_URI)
    assert stored(server) == before
    assert server.events()[-1]["reason"] == reason


@pytest.mark.parametrize("forbids_first", [True, False])
def test_any_refusal_refuses_whatever_its_place(
    make_server: Callable[..., Server], forbids_first: bool
) -> None:
    """T140: no plugin lets a request through that another one refuses."""
    settings = with_plugin(Template, {"client_id": "notes"})
    lines = str(settings["authserver.plugins"])
    forbids = f"{__name__}:Forbids"
    settings["authserver.plugins"] = f"{forbids}\n{lines}" if forbids_first else f"{lines}\n{forbids}"
    server = make_server(settings)
    server.add_user("ann")
    client, _ = server.add_client(client_id="notes")
    url = server.authorization_url(client, request_template="xyz")
    before = stored(server)
    # For a stranger the refusal travels with the pending request, to the moment when it may be redirected.
    answer = sign_in_at(server.browser().get(url).follow()).follow()
    assert_redirect_error(answer, "invalid_request_object")
    assert server.events()[-1]["reason"] == "not-like-this"
    assert_redirect_error(signed_in(server).get(url), "invalid_request_object")
    assert stored(server)[1] == before[1]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"request": "e30.e30.e30"}, "request_not_supported"),
        ({"request_uri": "urn:ietf:params:oauth:request_uri:abc"}, "request_uri_not_supported"),
        ({"request_uri": "https://client.example/request.jwt"}, "request_uri_not_supported"),
    ],
)
def test_a_reference_that_nobody_reads_is_refused(
    make_server: Callable[..., Server], changes: dict[str, str], code: str
) -> None:
    """JAR-01, T001: and not ignored; where the redirect URI is bad, on a page."""
    server = make_server()
    server.add_user("ann")
    client, _ = server.add_client()
    browser = signed_in(server)
    before = stored(server)
    assert_redirect_error(browser.get(server.authorization_url(client, **changes)), code)
    foreign = server.authorization_url(client, redirect_uri=OTHER_URI, **changes)
    assert_page_error(browser.get(foreign, expect_errors=True), supplied=OTHER_URI)
    assert stored(server) == before


@pytest.mark.parametrize("name", ["request", "request_uri"])
def test_an_empty_reference_is_none(make_server: Callable[..., Server], name: str) -> None:
    """B-03: a parameter with an empty value is treated as not sent."""
    server = make_server()
    server.add_user("ann")
    client, _ = server.add_client()
    page = signed_in(server).get(server.authorization_url(client, **{name: ""}))
    assert_code(server.consent(page))
