"""A client that is known by its address, over HTTP: from a real https server to tokens, pages and events."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from authserver.engine.clients import client_metadata
from authserver.engine.records import Client
from authserver.testing.origins import Authority, Origin, sending, serving
from authserver.testing.plans import transcript_of
from authserver.testing.records import NOW
from authserver.testing.server import REDIRECT_URI, SETTINGS, VERIFIER, Server

PLUGIN = "authserver.plugin.client_id_documents."


class Published:
    """An https server on this machine with a document, and the client that it describes."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.address = f"https://localhost:{origin.port}/client.json"
        self.publish()

    def members(self, **changes: Any) -> dict[str, Any]:
        return {
            "client_id": self.address,
            "client_name": "Notes",
            "redirect_uris": [REDIRECT_URI],
            "grant_types": ["authorization_code", "refresh_token"],
            "token_endpoint_auth_method": "none",
            **changes,
        }

    def publish(self, **changes: Any) -> None:
        self.origin.reply = sending(json.dumps(self.members(**changes)).encode(), Cache_Control="no-store")

    @property
    def client(self) -> Client:
        return Client(
            client_id=self.address, name="", auth_method="none", redirect_uris=(REDIRECT_URI,), created_at=NOW
        )


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def published(authority: Authority) -> Iterator[Published]:
    with serving(authority.context("localhost")) as origin:
        yield Published(origin)


@pytest.fixture
def server(make_server: Callable[..., Server], authority: Authority) -> Server:
    server = make_server(
        {
            "authserver.plugins": f"{SETTINGS['authserver.plugins']} client_id_documents pushed_requests",
            f"{PLUGIN}scopes": "profile files.read",
            "authserver.fetch_ca_file": str(authority.ca_file),
            "authserver.fetch_loopback": "true",
        }
    )
    server.add_user("ann")
    return server


def redeem(server: Server, client: Client, code: str) -> Any:
    return server.token(
        client, grant_type="authorization_code", code=code, redirect_uri=REDIRECT_URI, code_verifier=VERIFIER
    )


def test_a_stranger_gets_tokens_and_people_see_who_it_is(server: Server, published: Published) -> None:
    """CIMD-01, CIMD-10, CIMD-15, E-09, E-16, E-20: the pages show the host beside the name, and what has changed."""
    metadata = server.http.get("/.well-known/oauth-authorization-server").json
    assert metadata["client_id_metadata_document_supported"] is True
    assert "none" in metadata["token_endpoint_auth_methods_supported"]
    browser = server.browser()
    server.sign_in(browser)
    url = server.authorization_url(published.client)
    page = browser.get(url)
    assert "calls itself “Notes”" in " ".join(page.html.get_text().split())
    assert "It is known by its address, at localhost." in " ".join(page.html.get_text().split())
    assert "registered itself" not in page.text
    answer = redeem(server, published.client, server.code(published.client, browser))
    assert answer.status_int == 200
    apps = browser.get("/account/apps")
    assert "“Notes” at localhost" in " ".join(apps.html.get_text().split())
    published.publish(client_name="Other", client_uri="https://app.example/")
    changed = [item.get_text() for item in browser.get(url).html.select("#changed li")]
    assert changed == ["its name", "its website"]
    (issued, *_) = server.events("token.issued")
    assert issued["client_id"] == published.address
    ended = browser.get("/account/apps").forms
    form = next(form for form in ended.values() if "disconnect" in form.fields)
    form.submit("disconnect").follow()
    assert (
        server.token(
            published.client, grant_type="refresh_token", refresh_token=answer.json["refresh_token"]
        ).status_int
        == 400
    )


def test_its_code_is_not_given_to_anybody_who_asks_from_elsewhere(
    server: Server, published: Published
) -> None:
    """T162, E-19: whatever site sends the browser, and however often the person agreed, the page is shown."""
    browser = server.browser()
    server.sign_in(browser)
    server.code(published.client, browser)
    for site in ({"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "none"}, {}):
        assert browser.get(server.authorization_url(published.client), headers=site).status_int == 200


def test_a_document_that_cannot_be_had_is_explained(server: Server, published: Published) -> None:
    """CIMD-19, F-14, T127: a page, 503 with Retry-After, and the cause in the event."""
    published.origin.reply = sending(b"", 500)
    page = server.browser().get(server.authorization_url(published.client), expect_errors=True)
    assert page.status_int == 400
    assert "The document at client_id could not be fetched." in page.text
    assert str(published.origin.port) not in page.text
    refused = redeem(server, published.client, "code")
    assert (refused.status_int, refused.json["error"]) == (503, "temporarily_unavailable")
    assert int(refused.headers["Retry-After"]) > 0
    (event, *_) = server.events("authorization.refused")
    details = json.loads(event["details"])
    assert details["facts"] == {
        "host": "localhost",
        "problem": "status-refused",
        "detail": "status 500",
        "status": "500",
    }


def test_an_unknown_document_refuses_a_pushed_request_too(server: Server, published: Published) -> None:
    """CIMD-03: at every endpoint."""
    published.origin.reply = sending(b"[]")
    page = server.browser().get(server.authorization_url(published.client), expect_errors=True)
    assert (page.status_int, "invalid_request" in page.text) == (400, True)
    answer = server.ask("/oauth/par", published.client, response_type="code")
    assert (answer.status_int, answer.json["error"]) == (401, "invalid_client")


def test_a_long_address_works_through_pages_and_database(server: Server, published: Published) -> None:
    """CIMD-24: 2,000 characters."""
    published.address += "x" * (2_000 - len(published.address))
    published.publish()
    browser = server.browser()
    answer = redeem(server, published.client, server.code(published.client, browser))
    assert answer.status_int == 200
    assert server.claims(answer.json["access_token"])["client_id"] == published.address
    assert browser.get("/account/apps").status_int == 200
    assert {row["client_id"] for row in server.rows("grants")} == {published.address}


def test_a_cached_document_costs_no_more_than_a_stored_client(server: Server, published: Published) -> None:
    """The same statements in the same order, and nothing of the document is read again (`benchmarks/documents.py` measures)."""
    published.origin.reply = sending(json.dumps(published.members()).encode(), Cache_Control="max-age=600")
    stored, _ = server.add_client(
        client_name="Notes", token_endpoint_auth_method="none", grant_types=("authorization_code",)
    )
    browser = server.browser()
    server.sign_in(browser)
    for agreed in (False, True):
        cost = []
        for client in (stored, published.client):
            url = server.authorization_url(client, prompt="consent")
            if agreed:
                server.code(client, browser)
            browser.get(url)
            with transcript_of(server.application) as seen, reading() as read:
                assert "Notes" in browser.get(url).text
            assert seen and not read
            cost.append(seen)
        assert cost[0] == cost[1]
    assert len(published.origin.received) == 1


@contextmanager
def reading() -> Iterator[list[str]]:
    """The functions that read metadata or judge what they say, as they are called in this thread."""
    called: list[str] = []

    def note(frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename == client_metadata.__file__:
            called.append(code.co_qualname)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield called
    finally:
        sys.setprofile(before)
